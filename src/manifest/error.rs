//! The errors of writing and reading statements about a build.

use std::{io, path::PathBuf};

/// Errors of the manifest room; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file is not valid: a syntax error, a key twice, an unknown or missing field, or a bad value.
    #[error("read {file:?}")]
    Json {
        /// The file's name.
        file: String,
        /// The problem, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A file is valid, but not in the form that pnb writes.
    #[error(
        "read {file:?}: line {line} (byte {offset}) is not in canonical form\nexpected: {expected}\n  actual: {actual}"
    )]
    NotCanonical {
        /// The file's name.
        file: String,
        /// 1-based line of the first byte that differs.
        line: usize,
        /// 0-based offset of the first byte that differs.
        offset: usize,
        /// The line as pnb writes it.
        expected: String,
        /// The line found.
        actual: String,
    },
    /// A file is larger than every statement that pnb writes.
    #[error("read {file:?}: it has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The file's name.
        file: String,
        /// Its size in bytes.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A file has another version of its schema.
    #[error("read {file:?}: schema version {found} (this pnb reads version {known})")]
    SchemaVersion {
        /// The file's name.
        file: String,
        /// The version in the file.
        found: String,
        /// The version this program reads and writes.
        known: u32,
    },
    /// A name, a version or a moment has not the form of its field.
    #[error("read {file:?}: {place} {problem}")]
    Field {
        /// The file's name.
        file: String,
        /// JSON pointer of the value.
        place: String,
        /// The problem, with the value.
        problem: String,
    },
    /// A value cannot be written in canonical JSON.
    #[error("write {place} as canonical JSON: {problem}")]
    Value {
        /// JSON pointer of the value.
        place: String,
        /// The problem.
        problem: String,
    },
    /// A value cannot be written as JSON at all.
    #[error("write {what} as JSON")]
    Serialize {
        /// The value.
        what: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A line of `SHA256SUMS` is not in the form that pnb writes.
    #[error("read \"SHA256SUMS\", line {line}: {problem}")]
    Sums {
        /// 1-based line.
        line: usize,
        /// The problem.
        problem: String,
    },
    /// The facts of a build contradict each other.
    #[error("describe the build: {what} {problem}")]
    Facts {
        /// The fact, with its name.
        what: String,
        /// The problem.
        problem: String,
    },
    /// A file could not be read.
    #[error("read {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}
