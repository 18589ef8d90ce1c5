//! Why a directory cannot be served.

use std::{io, path::PathBuf};

/// Why a directory cannot be served. What goes wrong with one request is told to its client and the log instead.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory.
    #[error("open the directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The listening socket.
    #[error("wait for requests")]
    Wait {
        /// Why.
        source: io::Error,
    },
}
