//! fs-verity digests and Merkle trees, computed in user space.
//!
//! The parameters are fixed to the ones the node checks: SHA-256, 4 KiB blocks, no salt, no signature in the descriptor.
//!
//! - file of no bytes: the root hash is 32 zero bytes;
//! - file of one block: the root hash is the hash of that block, padded with zeros to 4 KiB;
//! - otherwise the hashes of the blocks, 128 to a 4 KiB block, form level 0, the hashes of *its* blocks level 1, and so on
//!   until a level is one block; the root hash is the hash of that block.
//!
//! What the kernel reports, and what names an object, is the SHA-256 of the 256-byte descriptor that holds the root hash.
//! Source: <https://docs.kernel.org/filesystems/fsverity.html>, "Merkle tree" and "fs-verity descriptor".

mod hasher;
mod merkle;

pub use hasher::{Both, Digests, Hasher, digest_bytes, digest_reader};
pub use merkle::{Baked, MerkleTree};

use crate::model::VerityDigest;
use sha2::{Digest as _, Sha256};

/// Bytes in a data block and in a block of the Merkle tree.
pub const BLOCK_SIZE: usize = 4096;
/// Bytes of one hash.
const HASH_SIZE: usize = 32;
/// Bytes of the descriptor.
pub const DESCRIPTOR_SIZE: usize = 256;

/// Why a Merkle tree could not be built.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The content could not be read.
    #[error("read file content at byte {offset}")]
    Read {
        /// How many bytes had been read before.
        offset: u64,
        /// What the reader said.
        #[source]
        source: std::io::Error,
    },
    /// The content is not as long as was promised.
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

/// SHA-256 of one block: `data` padded with zeros to [`BLOCK_SIZE`].
fn hash_block(data: &[u8]) -> [u8; HASH_SIZE] {
    const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];
    let mut hash = Sha256::new();
    hash.update(data);
    hash.update(&ZEROS[data.len().min(BLOCK_SIZE)..]);
    hash.finalize().into()
}

/// `struct fsverity_descriptor` for a file of `size` bytes; offsets and values from the kernel's documentation.
fn descriptor(size: u64, root: &[u8; HASH_SIZE]) -> [u8; DESCRIPTOR_SIZE] {
    const VERSION: u8 = 1;
    const FS_VERITY_HASH_ALG_SHA256: u8 = 1;
    const LOG_BLOCK_SIZE: u8 = 12;
    let mut out = [0; DESCRIPTOR_SIZE];
    out[..3].copy_from_slice(&[VERSION, FS_VERITY_HASH_ALG_SHA256, LOG_BLOCK_SIZE]);
    // Salt size (1 byte at 3) and signature size (4 bytes at 4) stay zero.
    out[8..16].copy_from_slice(&size.to_le_bytes());
    out[16..48].copy_from_slice(root);
    out
}

/// The digest the kernel reports for a file with this descriptor.
fn descriptor_digest(descriptor: &[u8; DESCRIPTOR_SIZE]) -> VerityDigest {
    VerityDigest::new(Sha256::digest(descriptor).into())
}
