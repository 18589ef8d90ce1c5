//! `Transport`: how the bytes of a place are read.

use super::location::Location;
use std::{io::Read, time::Duration};

/// The part of the file that an answer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerRange {
    /// The whole file, of `total` bytes if the place stated the length.
    Full {
        /// Length of the file.
        total: Option<u64>,
    },
    /// The file from byte `offset` on.
    Partial {
        /// First byte of the answer.
        offset: u64,
        /// Length of the whole file, if the place stated it.
        total: Option<u64>,
    },
}

/// An answer with content.
pub struct Response {
    /// The part of the file in `body`.
    pub status: AnswerRange,
    /// Identifies this version of the file (a strong `ETag`, else `Last-Modified`), so that only the same version is resumed.
    pub validator: Option<String>,
    /// The `Content-Encoding` that the server states, if it is not `identity`.
    pub encoding: Option<String>,
    /// The content, as it was sent.
    pub body: Box<dyn Read + Send>,
}

/// Why a place gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportFailure {
    /// The place does not have the file.
    #[error("not found")]
    NotFound,
    /// The place has no bytes at the offset asked for.
    #[error("has no bytes at the position to resume from")]
    Unsatisfiable,
    /// The same request may succeed later.
    #[error("{0}")]
    Temporary(String),
    /// The server asks for the request again after this time.
    #[error("{why}")]
    Busy {
        /// The answer.
        why: String,
        /// The wait.
        wait: Duration,
    },
    /// The server leads to a host or port that nothing allows.
    #[error("{why}")]
    Elsewhere {
        /// The rule, and the address without its query.
        why: String,
        /// The host, with its port where that is not the usual one.
        host: String,
    },
    /// No trusted authority issued the server's certificate.
    #[error("{0}")]
    Untrusted(String),
    /// The same request would fail again.
    #[error("{0}")]
    Refused(String),
}

/// Opens files at places.
pub trait Transport: Sync {
    /// Opens the file at `place` from byte `offset` on; with `if_range`, opens the whole file instead if its version is another one.
    fn open(&self, place: &Location, offset: u64, if_range: Option<&str>) -> Result<Response, TransportFailure>;
}
