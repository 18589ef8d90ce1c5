//! Why a statement about a build could not be made or read.

use std::{io, path::PathBuf};

/// Errors of the manifest room; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file is not the JSON it should be: syntax, a key twice, an unknown or missing field, a bad value.
    #[error("read {file:?}")]
    Json {
        /// The file's name.
        file: String,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A file says the right things in bytes that pnb would not have written.
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
    /// A file is larger than anything pnb writes.
    #[error("read {file:?}: it has {size} bytes, more than {limit}")]
    TooLarge {
        /// The file's name.
        file: String,
        /// Its size in bytes.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A file follows another version of its schema.
    #[error("read {file:?}: schema version {found} (this pnb knows {known})")]
    SchemaVersion {
        /// The file's name.
        file: String,
        /// What it says.
        found: String,
        /// The version this program reads and writes.
        known: u32,
    },
    /// A value cannot be written so that every program reads the same from it.
    #[error("write {place} as canonical JSON: {problem}")]
    Value {
        /// JSON pointer of the value.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value cannot be written as JSON at all.
    #[error("write {what} as JSON")]
    Serialize {
        /// What was to be written.
        what: &'static str,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// A line of `SHA256SUMS` that pnb would not have written.
    #[error("read \"SHA256SUMS\" line {line}: {problem}")]
    Sums {
        /// 1-based line.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// What the build reported does not fit together.
    #[error("describe the build: {what} {problem}")]
    Facts {
        /// Which fact, with its name.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be read.
    #[error("read {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason given.
        #[source]
        source: io::Error,
    },
}
