//! Errors of reading, writing and making a lock; every message completes "failed to …".

use super::ResolveError;
use crate::{
    debian::MetadataError,
    model::{Hint, RelPath},
};
use std::borrow::Cow;

/// Why a lock cannot be read, written or made.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A lockfile or `archives.toml` that does not hold together.
    #[error("read {file}, line {line}: {problem}")]
    Line {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: usize,
        /// What is wrong there, with the value.
        problem: String,
    },
    /// A lockfile that a later pnb wrote.
    #[error("read {file}, line {line}: format version {found} is newer than {known}, the newest this pnb knows")]
    NewerVersion {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: usize,
        /// Version in the file.
        found: i64,
        /// Newest version this program reads.
        known: u32,
    },
    /// A file beyond what is read at all.
    #[error("read {file}: it has {size} bytes, and at most {limit} are accepted")]
    TooLarge {
        /// The file's name.
        file: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A lock that cannot be written as TOML.
    #[error("write the lock as TOML")]
    Write(#[source] toml::ser::Error),
    /// Metadata of an archive that is refused.
    #[error("verify the archive {archive}")]
    Metadata {
        /// The archive's name.
        archive: String,
        /// The cause.
        source: MetadataError,
    },
    /// A file of an archive that no location has.
    #[error("fetch {path} of the archive {archive}")]
    Fetch {
        /// The archive's name.
        archive: String,
        /// Path below the archive's base.
        path: RelPath,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of an archive that is not the one its release file names.
    #[error(
        "verify {path} of the archive {archive}: it is not the file that was signed\nexpected: {expected}\n  actual: {actual}"
    )]
    Mismatch {
        /// The archive's name.
        archive: String,
        /// Path below the archive's base.
        path: RelPath,
        /// Digest and size as signed.
        expected: String,
        /// Digest and size as found.
        actual: String,
    },
    /// A release file older than the locked one.
    #[error("lock the archive {archive}: its release of {found} is older than the locked one of {locked}")]
    Rollback {
        /// The archive's name.
        archive: String,
        /// Date of the release file found.
        found: String,
        /// Date of the locked one.
        locked: String,
    },
    /// An archive lacks something that `archives.toml` or a stage asks for.
    #[error("lock the archive {archive}: {problem}")]
    Archive {
        /// The archive's name.
        archive: String,
        /// What it lacks.
        problem: String,
    },
    /// A set that cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The architectures would be built from different sources.
    #[error("lock both architectures from the same sources:\n  {}", differences.join("\n  "))]
    Sources {
        /// One line per source package.
        differences: Vec<String>,
    },
    /// A request that cannot be carried out; the text completes "failed to …".
    #[error("{0}")]
    Request(String),
}

impl Hint for LockError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NewerVersion { .. } => Some(
                "use the pnb that wrote it or a later one, or write it anew with `pnb lock --update`".into(),
            ),
            Self::Rollback { .. } => Some(
                "a mirror that goes back in time is outdated or hostile; to go back on purpose, name the moment with --snapshot".into(),
            ),
            Self::Resolve(error) => error.hint(),
            _ => None,
        }
    }
}

/// The 1-based line on which byte `at` of `text` lies.
pub fn line_at(text: &str, at: usize) -> usize {
    let end = at.min(text.len());
    text.as_bytes()[..end].iter().filter(|b| **b == b'\n').count() + 1
}

/// Turns what the TOML parser says into an error that names the line.
pub(super) fn toml_error(file: &str, text: &str, error: &toml::de::Error) -> LockError {
    LockError::Line {
        file: file.to_owned(),
        line: line_at(text, error.span().map_or(0, |span| span.start)),
        problem: error.message().trim_end().replace('\n', "; "),
    }
}
