//! `Served`: a log entry for each request.

use crate::model::visible_bytes;
use serde::Serialize;
use std::{fmt, net::SocketAddr};

/// Protocol of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http,
    /// TFTP.
    Tftp,
}

/// A request that has ended, successfully or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Served {
    /// Its protocol.
    pub protocol: Protocol,
    /// Address of the client.
    pub peer: SocketAddr,
    /// The request, printable: `GET /kernel`, `RRQ ipxe.efi`; the first line of a malformed one, `-` where there is none.
    pub request: String,
    /// Status of HTTP, or error code of TFTP; `None` for a TFTP transfer without an error packet.
    pub status: Option<u16>,
    /// Bytes of the file that were sent; for TFTP, those that were acknowledged.
    pub bytes: u64,
    /// Why the request failed.
    pub problem: Option<String>,
}

/// Receives log entries, from any thread.
pub type Log<'a> = &'a (dyn Fn(&Served) + Sync);

/// Most bytes of a request in a log entry.
const MAX_SHOWN: usize = 200;

/// Bytes of a client, escaped and cut so that they are safe in one line of a terminal.
pub(super) fn printable(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(MAX_SHOWN)];
    let dots = if cut.len() < bytes.len() { "..." } else { "" };
    format!("{}{dots}", visible_bytes(cut))
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
