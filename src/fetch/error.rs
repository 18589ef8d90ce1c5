//! What can go wrong while fetching.

use std::{io, path::PathBuf};

/// Why a file could not be fetched, or why it is not known where to look.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No place gave the pinned bytes.
    #[error("fetch {what}: {looked}\n\nhint: {hint}")]
    NoPlace {
        /// Kind, name, version and architecture.
        what: String,
        /// One line per place: kind, address, what happened there.
        looked: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The file on this machine that takes the bytes cannot be used.
    #[error("fetch {what}: {action} {}", path.display())]
    Part {
        /// Kind, name, version and architecture.
        what: String,
        /// What was being done to the file.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The caller could not take a file that was fetched.
    #[error("store {what}")]
    Deliver {
        /// Kind, name, version and architecture.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A package of the lock names an archive the lock does not have.
    #[error("plan {what}: the lock has no archive {archive:?}")]
    UnknownArchive {
        /// The package.
        what: String,
        /// The archive it names.
        archive: String,
    },
    /// A mirror or file address cannot be used.
    #[error("use address {value:?}: {problem}")]
    Address {
        /// The address.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A line of apt's configuration does not parse.
    #[error("read {file} line {line}: {problem}")]
    Sources {
        /// The file.
        file: String,
        /// 1-based line number.
        line: usize,
        /// What is wrong, with the value.
        problem: String,
    },
    /// A file of apt's configuration cannot be read.
    #[error("read {}", path.display())]
    ReadSources {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another file failed first; this one was given up.
    #[error("fetch {what}: stopped because another file failed")]
    Stopped {
        /// Kind, name, version and architecture.
        what: String,
    },
}
