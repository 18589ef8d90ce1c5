//! The transports: files of this machine, and the choice between them and HTTP.

use super::http::HttpTransport;
use super::location::{Address, Location};
use super::transport::{AnswerRange, Response, Transport, TransportFailure};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

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
            // A network file system that was away, or whose server has moved the file.
            io::ErrorKind::StaleNetworkFileHandle | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {
                TransportFailure::Temporary(format!("cannot be read: {e}"))
            }
            _ => TransportFailure::Refused(format!("cannot be read: {e}")),
        };
        // Without blocking, so that a fifo at this path is refused instead of waited for.
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
            encoding: None,
            body: Box::new(file),
        })
    }
}

/// All transports; the address of a place chooses one.
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
