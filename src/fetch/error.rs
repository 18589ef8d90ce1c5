//! `FetchError`: why a file could not be fetched.

use crate::model::{Hint, visible_path};
use std::{borrow::Cow, io, path::PathBuf};

/// Why a file could not be fetched, or its places could not be found; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No place gave the pinned bytes.
    #[error("fetch {what}: {problem}")]
    NoPlace {
        /// Kind, name, version and architecture.
        what: String,
        /// One line per place: its kind, its address, and why it did not give the file.
        problem: String,
        /// The way out.
        hint: String,
    },
    /// The file of the unfinished download cannot be used.
    #[error("fetch {what}: {action} {}", visible_path(path))]
    Part {
        /// Kind, name, version and architecture.
        what: String,
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The caller could not store a file that was fetched.
    #[error("store {what}")]
    Deliver {
        /// Kind, name, version and architecture.
        what: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A package names an archive that the lock does not have.
    #[error("plan {what}: the lock has no archive {archive:?}")]
    UnknownArchive {
        /// The package.
        what: String,
        /// The archive it names.
        archive: String,
    },
    /// The address of a mirror or file cannot be used.
    #[error("use address {value:?}: {problem}")]
    Address {
        /// The address.
        value: String,
        /// The fault of the address.
        problem: &'static str,
    },
    /// A line of apt's configuration does not parse.
    #[error("read {file}, line {line}: {problem}")]
    Sources {
        /// The file.
        file: String,
        /// 1-based line number.
        line: usize,
        /// The fault, with the value.
        problem: String,
    },
    /// A file of apt's configuration cannot be read.
    #[error("read {}", visible_path(path))]
    ReadSources {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The download was stopped, because another file could not be fetched.
    #[error("fetch {what}: stopped because another file failed")]
    Stopped {
        /// Kind, name, version and architecture.
        what: String,
    },
}

impl Hint for FetchError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NoPlace { hint, .. } => Some(hint.as_str().into()),
            _ => None,
        }
    }
}
