//! Why the store could not do what it was asked.

use crate::model::{ModelError, VerityDigest};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// An error of the store; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{operation} {path:?}")]
    Io {
        /// What was tried.
        operation: Operation,
        /// On which path.
        path: PathBuf,
        /// The reason given.
        source: io::Error,
    },
    /// The directory is a store of another format, or no store.
    #[error("open the store: {path:?} says {found:?}\n\nhint: give another directory with --store or PNB_STORE")]
    Format {
        /// The file that names the format.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The directory holds something else.
    #[error(
        "make a store in {path:?}: it is not empty and no store\n\nhint: give another directory with --store or PNB_STORE"
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else holds the store.
    #[error(
        "lock the store {path:?}: it is in use by another pnb\n\nhint: wait for it to end; garbage collection runs alone"
    )]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// An object's bytes are not what its name says.
    #[error(
        "trust the object {path:?}: its content changed\nexpected: {expected}\n  actual: {actual}\n\nhint: `pnb store verify --repair` removes damaged objects, and the next build makes or fetches them again"
    )]
    Corrupt {
        /// The object's file.
        path: PathBuf,
        /// Its name.
        expected: VerityDigest,
        /// What its bytes hash to.
        actual: VerityDigest,
    },
    /// An object that something refers to is gone.
    #[error(
        "find the object {digest} in the store\n\nhint: `pnb store verify --repair` drops the records that need it"
    )]
    Missing {
        /// Its name.
        digest: VerityDigest,
    },
    /// A tree or record in the store does not parse.
    #[error("read {what}")]
    Model {
        /// Which one.
        what: String,
        /// Why.
        source: ModelError,
    },
    /// A record does not parse.
    #[error("read the build record {path:?}")]
    Record {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Somebody changed a laid-out tree.
    #[error(
        "trust the checkout: {path:?} was changed, added or removed\n\nhint: remove the store's checkouts directory; it is made again"
    )]
    Checkout {
        /// The place that differs.
        path: PathBuf,
    },
    /// A file of the repository that cannot be an input.
    #[error("take {path:?} as an input: {problem}")]
    Input {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
}

/// What was tried when the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the verb it is called")]
pub enum Operation {
    Create,
    Open,
    Read,
    Write,
    Rename,
    Link,
    Remove,
    Lock,
    List,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Create => "create",
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Rename => "rename into place",
            Operation::Link => "link",
            Operation::Remove => "remove",
            Operation::Lock => "lock",
            Operation::List => "list",
        })
    }
}

/// Adds operation and path to an I/O error.
pub(super) trait IoContext<T> {
    fn at(self, operation: Operation, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, operation: Operation, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            operation,
            path: path.to_owned(),
            source,
        })
    }
}
