//! `StoreError`: why the store failed.

use crate::{
    model::{Hint, ModelError, VerityDigest},
    source::SourceError,
};
use std::{
    borrow::Cow,
    fmt, io,
    path::{Path, PathBuf},
};

/// An error of the store; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused an operation.
    #[error("{operation} {path:?}")]
    Io {
        /// The operation.
        operation: Operation,
        /// Its path.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The store has another format.
    #[error("open the store: {path:?} names the format {found:?}, which this pnb does not know")]
    Format {
        /// The file that names the format.
        path: PathBuf,
        /// Its content.
        found: String,
    },
    /// The directory holds files that are not a store's.
    #[error("make a store in {path:?}: the directory is not empty, and it is not a store")]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// Another program has locked the store.
    #[error("lock the store {path:?}: another pnb uses it")]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The content of an object does not have the digest that names it.
    #[error("trust the object {path:?}: its content changed\nexpected: {expected}\n  actual: {actual}")]
    Corrupt {
        /// The object's file.
        path: PathBuf,
        /// The digest that names it.
        expected: VerityDigest,
        /// The digest of its content.
        actual: VerityDigest,
    },
    /// The store does not have an object that a tree or a record names.
    #[error("find the object {digest} in the store")]
    Missing {
        /// The object's digest.
        digest: VerityDigest,
    },
    /// A tree in the store does not parse.
    #[error("read {what}")]
    Model {
        /// The tree, for a message.
        what: String,
        /// Why it does not parse.
        source: ModelError,
    },
    /// A build record cannot be written as JSON.
    #[error("write the build record {path:?}")]
    Record {
        /// The record's file.
        path: PathBuf,
        /// The serializer's reason.
        source: serde_json::Error,
    },
    /// A checkout was changed.
    #[error("trust the checkout: {path:?} was changed, added or removed")]
    Checkout {
        /// The file or directory that differs.
        path: PathBuf,
    },
    /// A file of the repository cannot be an input.
    #[error("take {path:?} as an input: {problem}")]
    Input {
        /// The file.
        path: PathBuf,
        /// Why it cannot be an input.
        problem: String,
    },
    /// A file of the project could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl Hint for StoreError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let text = match self {
            Self::Source(error) => return error.hint(),
            Self::Format { .. } | Self::NotAStore { .. } => "give another directory with --store or PNB_STORE",
            Self::Busy { .. } => "wait until it ends: garbage collection needs the store for itself",
            Self::Corrupt { .. } => {
                "`pnb store verify --repair` removes damaged objects, and the next build makes or fetches them again"
            }
            Self::Missing { .. } => "`pnb store verify --repair` drops the records that need it",
            Self::Checkout { .. } => "remove the store's directory checkouts; the next build makes it again",
            Self::Io { .. } | Self::Model { .. } | Self::Record { .. } | Self::Input { .. } => return None,
        };
        Some(text.into())
    }
}

/// An operation that the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the name of each variant is its verb")]
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
