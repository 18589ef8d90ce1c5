//! What can be wrong with a lock, with what it is made from, and with making it.

use super::ResolveError;
use crate::{debian::MetadataError, model::RelPath};

/// Why a lock cannot be read, written or made.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A lockfile or `archives.toml` that does not hold together.
    #[error("{file} line {line}: {problem}")]
    Line {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: usize,
        /// What is wrong there, with the value.
        problem: String,
    },
    /// A lockfile that a later pnb wrote.
    #[error(
        "{file} line {line}: format version {found} is newer than this program knows ({known})\n\n\
         hint: use the pnb that wrote it or a later one, or write it anew with `pnb lock --update`"
    )]
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
    #[error("{file}: {size} bytes, more than the {limit} a file of this kind may have")]
    TooLarge {
        /// The file's name.
        file: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A lock that cannot be written as TOML.
    #[error("lockfile cannot be written")]
    Write(#[source] toml::ser::Error),
    /// Metadata of an archive that is refused.
    #[error("archive {archive} is refused")]
    Metadata {
        /// The archive's name.
        archive: String,
        /// The cause.
        source: MetadataError,
    },
    /// A file of an archive that cannot be had.
    #[error("archive {archive}: no {path}")]
    Fetch {
        /// The archive's name.
        archive: String,
        /// Path below the archive's base.
        path: RelPath,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of an archive that is not the one its release file names.
    #[error("archive {archive}: {path} is not the file that was signed\n  expected: {expected}\n  actual:   {actual}")]
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
    #[error(
        "archive {archive}: release of {found} is older than the locked one of {locked}\n\n\
         hint: a mirror that goes back in time is behind or hostile; name the moment with --snapshot to go back on purpose"
    )]
    Rollback {
        /// The archive's name.
        archive: String,
        /// Date of the release file found.
        found: String,
        /// Date of the locked one.
        locked: String,
    },
    /// What an archive lacks that `archives.toml` or a stage asks for.
    #[error("archive {archive}: {problem}")]
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
    #[error("amd64 and arm64 are not of the same sources:\n  {}", differences.join("\n  "))]
    Sources {
        /// One line per source package.
        differences: Vec<String>,
    },
    /// A caller's request that makes no sense.
    #[error("{0}")]
    Request(String),
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
