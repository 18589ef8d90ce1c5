//! Why an artifact could not be inspected.

use crate::model::{Hint, chain};
use std::{io, path::PathBuf};

/// Errors of the inspect room; each message completes "failed to …". Damaged bytes are not an error but a finding.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A file of the host could not be read.
    #[error("read {path:?}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The bytes of a part could not be read.
    #[error("read the bytes of {part:?}")]
    Read {
        /// The part, as in a report.
        part: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An artifact has no root at the place that its format has for it.
    #[error("find the root: {problem}")]
    NoRoot {
        /// The missing file or partition, or another problem.
        problem: String,
    },
}

/// The message of an error and those of its causes, on one line of a report.
pub(super) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).replace('\n', " ")
}

/// Whether bytes could not be read because the image is damaged, rather than because of the host.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

impl Hint for InspectError {}
