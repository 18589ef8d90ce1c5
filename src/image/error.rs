//! Why an image could not be written or read.

use crate::{
    model::{ModelError, Sha256Digest, VerityDigest},
    verity::VerityError,
};
use std::io;

/// Errors of every image format; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// An entry that the format cannot hold.
    #[error("store {path:?} in {format}: {problem}")]
    Entry {
        /// Name of the format.
        format: &'static str,
        /// The entry's path, unprintable bytes escaped.
        path: String,
        /// The problem with the entry.
        problem: String,
    },
    /// The content of a file could not be read.
    #[error("read the content of {path:?}")]
    Read {
        /// The file's path.
        path: String,
        /// The reader's error.
        #[source]
        source: io::Error,
    },
    /// The content of a file does not have the length that its entry states.
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
    /// The content of a file does not have the digest of its entry.
    #[error("read the content of {path:?}: wrong fs-verity digest\nexpected: {expected}\n  actual: {actual}")]
    Digest {
        /// The file's path.
        path: String,
        /// The digest its entry gives.
        expected: VerityDigest,
        /// The digest of the content.
        actual: VerityDigest,
    },
    /// A blob of an OCI image has other bytes than its name says.
    #[error("read the blob {path:?}: wrong SHA-256\nexpected: {expected}\n  actual: {actual}")]
    BlobDigest {
        /// The blob.
        path: String,
        /// The digest by which it is called.
        expected: Sha256Digest,
        /// The digest of its bytes.
        actual: Sha256Digest,
    },
    /// A document or a layer of an OCI image is invalid.
    #[error("read {path:?} of an OCI image: {problem}")]
    OciImage {
        /// The document, or the blob by its digest.
        path: String,
        /// The problem with it.
        problem: String,
    },
    /// A kernel module, or a list of modules, is invalid.
    #[error("read {path:?}: {problem}")]
    Module {
        /// The module's path below the directory of the modules, or the list's name.
        path: String,
        /// The problem with it.
        problem: String,
    },
    /// The Merkle tree of a file could not be built.
    #[error("build the Merkle tree of {path:?}")]
    Verity {
        /// The file's path.
        path: String,
        /// The cause.
        #[source]
        source: VerityError,
    },
    /// The output could not be written.
    #[error("write {format}")]
    Write {
        /// Name of the format.
        format: &'static str,
        /// The writer's error.
        #[source]
        source: io::Error,
    },
    /// The input could not be read.
    #[error("read {format} at byte {offset}")]
    Input {
        /// Name of the format.
        format: &'static str,
        /// Offset at which the read began.
        offset: u64,
        /// The reader's error.
        #[source]
        source: io::Error,
    },
    /// The input is not a valid image of the format.
    #[error("read {format} at byte {offset}: {problem}")]
    Corrupt {
        /// Name of the format.
        format: &'static str,
        /// Offset of the invalid structure.
        offset: u64,
        /// The problem with it.
        problem: String,
    },
    /// The entries of the input do not form a tree.
    #[error("build the tree of {format}")]
    Tree {
        /// Name of the format.
        format: &'static str,
        /// The entry that does not fit.
        #[source]
        source: ModelError,
    },
    /// The request cannot be met for any content.
    #[error("make {format}: {problem}")]
    Request {
        /// Name of the format.
        format: &'static str,
        /// The problem with the request.
        problem: String,
    },
    /// A tool could not be run.
    #[error("run {tool}")]
    Run {
        /// The program.
        tool: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A tool failed.
    #[error("run {tool}: {problem}")]
    Tool {
        /// The program.
        tool: String,
        /// Its exit status and the last lines it printed.
        problem: String,
    },
}

impl ImageError {
    /// The same error of an image that begins `by` bytes into the input: offsets count from the begin of the input.
    pub(crate) fn shifted(mut self, by: u64) -> Self {
        if let Self::Input { offset, .. } | Self::Corrupt { offset, .. } = &mut self {
            *offset = offset.saturating_add(by);
        }
        self
    }
}
