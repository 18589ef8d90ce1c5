//! Why a writer could not write.

use crate::{
    debian::{DebError, MetadataError},
    image::ImageError,
    model::ModelError,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// An error of a writer; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The operating system refused.
    #[error("{what} {path:?}")]
    Io {
        /// The verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An input does not parse.
    #[error("read the input {path:?}")]
    Input {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<ModelError>,
    },
    /// A package is malformed.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A package index is malformed.
    #[error(transparent)]
    Index(#[from] MetadataError),
    /// Trees do not fit together.
    #[error("merge {what}")]
    Merge {
        /// What was being added.
        what: String,
        /// Why not.
        source: ModelError,
    },
    /// A format could not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What was made cannot work where it is for.
    #[error("accept {what}:\n    {problems}")]
    Contents {
        /// What it is.
        what: String,
        /// What is wrong with it, a line each.
        problems: String,
    },
    /// Something an input must hold is not there.
    #[error("{0}")]
    Missing(String),
}

impl WriterError {
    /// For `map_err` on I/O results.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| WriterError::Io { what, path, source }
    }
}
