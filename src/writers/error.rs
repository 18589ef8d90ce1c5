//! The errors of writers.

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
        /// The cause.
        source: io::Error,
    },
    /// An input does not parse.
    #[error("read the input {path:?}")]
    Input {
        /// The file.
        path: PathBuf,
        /// The cause.
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
        /// The tree that was being added.
        what: String,
        /// The conflict.
        source: ModelError,
    },
    /// A format could not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An initramfs, a root or an agent cannot work on its target.
    #[error("accept {what}:\n    {problems}")]
    Contents {
        /// The initramfs, the root or the agent.
        what: String,
        /// The problems, one on each line.
        problems: String,
    },
    /// A required part of an input is missing or wrong; the text is the whole message.
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
