//! `ServeError`: why a directory cannot be served.

use crate::model::{Hint, visible_path};
use std::{io, path::PathBuf};

/// Why a directory cannot be served. Errors of a single request go to its client and to the log instead.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory cannot be opened.
    #[error("open the directory {}", visible_path(path))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The listening socket cannot be waited on.
    #[error("wait for requests")]
    Wait {
        /// The operating system's reason.
        source: io::Error,
    },
}

impl Hint for ServeError {}
