//! Why a module, a list or a key is not made or not accepted.

use crate::{
    image::ImageError,
    model::{Hint, ModelError, VerityDigest},
};
use std::{borrow::Cow, io, path::PathBuf};

/// Errors of modules, lists and keys; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// A file or directory cannot be used.
    #[error("{verb} {path:?}")]
    Io {
        /// The step.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A tree has an entry that no module may have.
    #[error("make a module: {path:?} {problem}")]
    Entry {
        /// The path in the tree, unprintable bytes escaped.
        path: String,
        /// The problem with it.
        problem: String,
        /// The way out.
        hint: &'static str,
    },
    /// A tree of a directory is none.
    #[error("make a module")]
    Tree(#[source] ModelError),
    /// The image cannot be written or read.
    #[error("use the image of a module")]
    Image(#[source] ImageError),
    /// An image has another digest than its name.
    #[error("verify {path:?}: wrong fs-verity digest\nexpected: {expected}\n  actual: {actual}")]
    Digest {
        /// The file.
        path: PathBuf,
        /// The digest in its name.
        expected: VerityDigest,
        /// The digest of its bytes.
        actual: VerityDigest,
    },
    /// A module is not what a node accepts.
    #[error("verify {path:?}: {problem}")]
    Refused {
        /// The image.
        path: PathBuf,
        /// The problem with it.
        problem: String,
    },
    /// A list is malformed.
    #[error("read the list {name}, line {line}: {problem}")]
    List {
        /// The file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// The problem with it.
        problem: String,
    },
    /// A key or a signature is not used.
    #[error("use {name}: {problem}")]
    Key {
        /// The file.
        name: String,
        /// The problem with it.
        problem: String,
        /// The way out.
        hint: Option<&'static str>,
    },
}

impl ModuleError {
    pub(super) fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { verb, path, source }
    }
}

impl Hint for ModuleError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Entry { hint, .. } => Some((*hint).into()),
            Self::Key { hint, .. } => hint.map(Into::into),
            Self::Digest { .. } => {
                Some("the file was changed or damaged: build the module again, or copy it again".into())
            }
            _ => None,
        }
    }
}
