//! What a TFTP request asks for, and the terms of its transfer; no I/O.

use super::{
    AskedName, SendWindow, TftpLimits, TftpOptions,
    packet::{self, DEFAULT_BLOCK, TftpPacket, code, parse_tftp_packet},
    served::printable,
};
use std::time::Duration;

/// A request for a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TftpRequest {
    /// The name of the file.
    pub name: AskedName,
    /// What the client asks for beside it.
    pub options: TftpOptions,
    /// The request, printable.
    pub shown: String,
}

/// A refusal: error code and message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TftpRefusal {
    /// The request, printable; `-` when it is malformed.
    pub shown: String,
    /// Its code (RFC 1350).
    pub code: u16,
    /// Its message.
    pub message: String,
}

impl TftpRefusal {
    pub(super) fn new(shown: &str, code: u16, message: impl Into<String>) -> Self {
        Self {
            shown: shown.to_owned(),
            code,
            message: message.into(),
        }
    }

    /// The ERROR packet that tells the client.
    pub fn packet(&self) -> Vec<u8> {
        packet::error(self.code, &self.message)
    }
}

/// Interprets the first packet of a client; `None` for packets that are not answered: an error packet must not be answered with another
/// one, or two servers would exchange them forever.
///
/// # Errors
///
/// The refusal of a request that no server of a read-only directory fulfils.
pub fn understand_tftp(bytes: &[u8]) -> Result<Option<TftpRequest>, TftpRefusal> {
    match parse_tftp_packet(bytes) {
        Some(TftpPacket::Read { name, mode, options }) => {
            let shown = format!("RRQ {}", printable(name));
            if !mode.eq_ignore_ascii_case(b"octet") {
                return Err(TftpRefusal::new(&shown, code::ILLEGAL, "only octet mode is served"));
            }
            match AskedName::of_tftp(name) {
                Some(name) => Ok(Some(TftpRequest { name, options, shown })),
                None => Err(TftpRefusal::new(&shown, code::NOT_FOUND, "there is no such file")),
            }
        }
        Some(TftpPacket::Write { name }) => {
            let shown = format!("WRQ {}", printable(name));
            Err(TftpRefusal::new(&shown, code::ACCESS, "nothing can be written"))
        }
        Some(TftpPacket::Ack(_) | TftpPacket::Error { .. } | TftpPacket::Other) => Ok(None),
        None => Err(TftpRefusal::new("-", code::ILLEGAL, "not a request")),
    }
}

/// The terms of a transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TftpTerms {
    /// Bytes of a block.
    pub block: u64,
    /// Number of blocks; the last one is shorter than the others, or empty.
    pub blocks: u64,
    /// Most blocks sent without an acknowledgement.
    pub window: u16,
    /// Time without progress before a retransmission.
    pub timeout: Duration,
    /// The OACK packet, if the request has known options.
    pub answer: Option<Vec<u8>>,
}

impl TftpTerms {
    /// The terms on which a file of `size` bytes is sent to a client that asks for `options`.
    pub fn of(options: &TftpOptions, size: u64, limits: &TftpLimits) -> Self {
        let block = u64::from(options.block.unwrap_or(DEFAULT_BLOCK));
        let window = options.window.map_or(1, |n| n.min(limits.window.max(1)));
        // RFC 2349: a server accepts the value or ignores the option, it cannot reduce it.
        let timeout = options
            .timeout
            .filter(|s| Duration::from_secs((*s).into()) <= limits.longest_timeout);
        let mut agreed = Vec::new();
        agreed.extend(options.block.map(|n| ("blksize", u64::from(n))));
        agreed.extend(timeout.map(|n| ("timeout", u64::from(n))));
        agreed.extend(options.size.then_some(("tsize", size)));
        agreed.extend(options.window.map(|_| ("windowsize", u64::from(window))));
        Self {
            block,
            blocks: size / block + 1,
            window,
            timeout: timeout.map_or(limits.timeout, |s| Duration::from_secs(s.into())),
            answer: (!agreed.is_empty()).then(|| packet::option_ack(&agreed)),
        }
    }

    /// The window at the start of the transfer.
    pub fn start(&self) -> SendWindow {
        SendWindow::new(self.blocks, u64::from(self.window), 0)
    }
}
