//! Why something could not be looked into.

use crate::model::Hint;
use std::{io, path::PathBuf};

/// Errors of the inspect room; each message completes "failed to …". That bytes are damaged is no error of looking: it is what
/// is found.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The operating system refused.
    #[error("read {path:?}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason given.
        #[source]
        source: io::Error,
    },
    /// The bytes of a part could not be read.
    #[error("read the bytes of {part:?}")]
    Read {
        /// The part's place, as in a report.
        part: String,
        /// The reason given.
        #[source]
        source: io::Error,
    },
    /// An artifact has no root where its format keeps it.
    #[error("find the root: {problem}")]
    NoRoot {
        /// What is missing or wrong.
        problem: String,
    },
}

impl Hint for InspectError {}

/// A message with everything that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text.replace('\n', " ")
}

/// Whether bytes could not be read because an image says what cannot be, rather than because the host refused.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
