//! Errors of reading a project's files and its repository.

use crate::model::{Hint, RelPath};
use std::{borrow::Cow, io, path::PathBuf};

/// An error of reading a project; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or directory could not be read or written.
    #[error("{what} {path:?}")]
    Io {
        /// The operation: a verb that completes "failed to …".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A path leads through a symbolic link.
    #[error("read {path:?}: {link} is a symbolic link")]
    Link {
        /// The path.
        path: PathBuf,
        /// The link, relative to the project.
        link: RelPath,
    },
    /// A path leads to a directory, FIFO, socket or device where a regular file is wanted.
    #[error("read {path:?}: it is {found}, not a regular file")]
    Kind {
        /// The path.
        path: PathBuf,
        /// Its kind, with an article.
        found: &'static str,
    },
    /// A file is longer than its kind may be.
    #[error("read {path:?}: it has more than {most} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        most: u64,
    },
    /// A file is not UTF-8 text.
    #[error("read {path:?}: line {line} is not UTF-8 text")]
    Text {
        /// The file.
        path: PathBuf,
        /// 1-based number of the line.
        line: usize,
    },
    /// A project that was found, not named, belongs to somebody else.
    #[error("use the project {project:?}: {path:?} belongs to user {uid}")]
    Owner {
        /// The project's directory.
        project: PathBuf,
        /// The file or directory of the other user.
        path: PathBuf,
        /// That user's number.
        uid: u32,
    },
    /// The repository cannot be read.
    #[error("read the repository {path:?}: {problem}")]
    Repository {
        /// Its directory, or the file that names it.
        path: PathBuf,
        /// The fault.
        problem: String,
    },
}

impl Hint for SourceError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Link { .. } => {
                "files of a project are read without following links; put the files themselves there".into()
            }
            Self::Owner { project, .. } => {
                format!("if you trust its owner with your own rights, name it: --project {project:?}").into()
            }
            Self::Repository { .. } => "`git fsck` checks a repository".into(),
            Self::Io { .. } | Self::Kind { .. } | Self::TooLong { .. } | Self::Text { .. } => return None,
        })
    }
}

impl SourceError {
    /// An I/O error at `path`, for `map_err`.
    pub(super) fn io<E: Into<io::Error>>(what: &'static str, path: PathBuf) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }
}
