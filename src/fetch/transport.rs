//! How bytes come from a place: one trait, and the transport for files of this machine.

use super::http::HttpTransport;
use super::location::{Address, Location};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// Which part of the file an answer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerRange {
    /// The whole file, of `total` bytes when that was said.
    Full {
        /// Length of the file.
        total: Option<u64>,
    },
    /// The file from byte `offset` on.
    Partial {
        /// First byte of the answer.
        offset: u64,
        /// Length of the whole file, when that was said.
        total: Option<u64>,
    },
}

/// An answer with content.
pub struct Response {
    /// Whole or part.
    pub status: AnswerRange,
    /// What names this version of the file (a strong `ETag`, else `Last-Modified`), to resume only the same version.
    pub validator: Option<String>,
    /// The content.
    pub body: Box<dyn Read + Send>,
}

/// An answer without usable content.
#[derive(Debug, thiserror::Error)]
pub enum TransportFailure {
    /// The place does not have the file.
    #[error("not found")]
    NotFound,
    /// The place has no bytes at the offset asked for.
    #[error("has no bytes at the position to resume from")]
    Unsatisfiable,
    /// Worth another try.
    #[error("{0}")]
    Temporary(String),
    /// Not worth another try.
    #[error("{0}")]
    Refused(String),
}

/// Opens files at places.
pub trait Transport: Sync {
    /// Opens the file at `place` from byte `offset` on; with `if_range` only if that is still its version, else whole.
    fn open(&self, place: &Location, offset: u64, if_range: Option<&str>) -> Result<Response, TransportFailure>;
}

/// Files of this machine.
#[derive(Clone, Copy, Default, Debug)]
pub struct FileTransport;

impl Transport for FileTransport {
    fn open(&self, place: &Location, offset: u64, _if_range: Option<&str>) -> Result<Response, TransportFailure> {
        let Address::File(path) = &place.address else {
            return Err(TransportFailure::Refused("is not a file".to_owned()));
        };
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => TransportFailure::NotFound,
            _ => TransportFailure::Refused(format!("cannot be read: {e}")),
        };
        // Not blocking, so that a pipe lying there is refused instead of waited for.
        let open = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let mut file = open.map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(TransportFailure::Refused("is not a regular file".to_owned()));
        }
        let status = match offset {
            0 => AnswerRange::Full {
                total: Some(meta.len()),
            },
            _ if offset > meta.len() => return Err(TransportFailure::Unsatisfiable),
            _ => {
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                AnswerRange::Partial {
                    offset,
                    total: Some(meta.len()),
                }
            }
        };
        Ok(Response {
            status,
            validator: None,
            body: Box::new(file),
        })
    }
}

/// Every transport, chosen by the address.
pub struct Transports {
    /// For `http://` and `https://`.
    pub http: HttpTransport,
    /// For `file://`.
    pub file: FileTransport,
}

impl Transport for Transports {
    fn open(&self, place: &Location, offset: u64, if_range: Option<&str>) -> Result<Response, TransportFailure> {
        match place.address {
            Address::Http(_) => self.http.open(place, offset, if_range),
            Address::File(_) => self.file.open(place, offset, if_range),
        }
    }
}
