//! What the log gets to know about a request.

use serde::Serialize;
use std::{fmt, net::SocketAddr};

/// How a request came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http,
    /// TFTP.
    Tftp,
}

/// A request that has ended, well or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Served {
    /// How it came.
    pub protocol: Protocol,
    /// Who asked.
    pub peer: SocketAddr,
    /// What was asked for, printable: `GET /kernel`, `RRQ ipxe.efi`; `-` when it could not be read.
    pub request: String,
    /// Status of HTTP, or the error code sent over TFTP; none when there was no need for one.
    pub status: Option<u16>,
    /// Bytes of the file that were sent (TFTP: and acknowledged).
    pub bytes: u64,
    /// What went wrong.
    pub problem: Option<String>,
}

/// Takes what was served, from any thread.
pub type Log<'a> = &'a (dyn Fn(&Served) + Sync);

/// Longest request shown.
const MAX_SHOWN: usize = 200;

/// Bytes from outside, fit for a terminal and a line.
pub(super) fn printable(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(MAX_SHOWN)];
    let dots = if cut.len() < bytes.len() { "..." } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Http => "http",
            Protocol::Tftp => "tftp",
        };
        write!(f, "{} {protocol} {}", self.peer, self.request)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        write!(f, " {} bytes", self.bytes)?;
        match &self.problem {
            Some(problem) => write!(f, ": {problem}"),
            None => Ok(()),
        }
    }
}
