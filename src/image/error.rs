//! Why an image could not be written or read.

use crate::{
    model::{ModelError, VerityDigest},
    verity::VerityError,
};
use std::io;

/// Errors of every image format; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Something the format cannot hold.
    #[error("store {path:?} in {format}: {problem}")]
    Entry {
        /// Name of the format.
        format: &'static str,
        /// The entry's path, unprintable bytes escaped.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The content of a file could not be read.
    #[error("read the content of {path:?}")]
    Read {
        /// The file's path.
        path: String,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// A file's content is not as long as its entry says.
    #[error("read the content of {path:?}: wrong length\nexpected: {expected} bytes\n  actual: {actual} bytes{}", if *.more { " or more" } else { "" })]
    Length {
        /// The file's path.
        path: String,
        /// The length its entry gives.
        expected: u64,
        /// The length found.
        actual: u64,
        /// Whether reading stopped before the end.
        more: bool,
    },
    /// A file's content is not what its digest names.
    #[error("read the content of {path:?}: wrong fs-verity digest\nexpected: {expected}\n  actual: {actual}")]
    Digest {
        /// The file's path.
        path: String,
        /// The digest its entry gives.
        expected: VerityDigest,
        /// The digest of what was read.
        actual: VerityDigest,
    },
    /// A kernel module, or a list of modules, is not what it should be.
    #[error("read {path:?}: {problem}")]
    Module {
        /// The module's path below the directory of the modules, or the list's name.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The Merkle tree of a file could not be built.
    #[error("build the Merkle tree of {path:?}")]
    Verity {
        /// The file's path.
        path: String,
        /// What went wrong.
        #[source]
        source: VerityError,
    },
    /// The output could not be written.
    #[error("write {format}")]
    Write {
        /// Name of the format.
        format: &'static str,
        /// What the writer said.
        #[source]
        source: io::Error,
    },
    /// The input could not be read.
    #[error("read {format} at byte {offset}")]
    Input {
        /// Name of the format.
        format: &'static str,
        /// Where the read began.
        offset: u64,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The input is not what it should be.
    #[error("read {format} at byte {offset}: {problem}")]
    Corrupt {
        /// Name of the format.
        format: &'static str,
        /// Where the bad structure begins.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// The input names things that cannot stand together.
    #[error("build the tree of {format}")]
    Tree {
        /// Name of the format.
        format: &'static str,
        /// What cannot stand where.
        #[source]
        source: ModelError,
    },
    /// The request itself cannot be met, whatever the content.
    #[error("make {format}: {problem}")]
    Request {
        /// Name of the format.
        format: &'static str,
        /// What is wrong with the request.
        problem: String,
    },
    /// A tool could not be run.
    #[error("run {tool}")]
    Run {
        /// The program.
        tool: String,
        /// Why it could not be run.
        #[source]
        source: io::Error,
    },
    /// A tool ran and failed.
    #[error("run {tool}: {problem}")]
    Tool {
        /// The program.
        tool: String,
        /// Its exit status and the last lines it printed.
        problem: String,
    },
}
