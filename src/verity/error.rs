//! Why a Merkle tree could not be built.

/// Why a Merkle tree could not be built.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The content could not be read.
    #[error("read file content at byte {offset}")]
    Read {
        /// Number of bytes read before.
        offset: u64,
        /// The reader's error.
        #[source]
        source: std::io::Error,
    },
    /// The content does not have the promised length.
    #[error("file content has the wrong length\nexpected: {expected} bytes\n  actual: {actual} bytes{}", if *.more { " or more" } else { "" })]
    Size {
        /// The promised length.
        expected: u64,
        /// The length found.
        actual: u64,
        /// Whether reading stopped before the end.
        more: bool,
    },
}
