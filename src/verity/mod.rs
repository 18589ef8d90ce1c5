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
mod lanes;
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
    // Half of a disk image is zeros, and to look at a block costs a fraction of hashing it.
    if data.len() <= BLOCK_SIZE && *data == ZEROS[..data.len()] {
        return ZEROS_HASH;
    }
    let mut hash = Sha256::new();
    hash.update(data);
    hash.update(&ZEROS[data.len().min(BLOCK_SIZE)..]);
    hash.finalize().into()
}

/// A block of zeros.
static ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];
/// Its SHA-256.
const ZEROS_HASH: [u8; HASH_SIZE] = [
    0xad, 0x7f, 0xac, 0xb2, 0x58, 0x6f, 0xc6, 0xe9, 0x66, 0xc0, 0x04, 0xd7, 0xd1, 0xd1, 0x6b, 0x02, 0x4f, 0x58, 0x05,
    0xff, 0x7c, 0xb4, 0x7c, 0x7a, 0x85, 0xda, 0xbd, 0x8b, 0x48, 0x89, 0x2c, 0xa7,
];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_zeros_is_what_hashing_them_gives() {
        let hashed: [u8; HASH_SIZE] = Sha256::digest(ZEROS).into();
        assert_eq!(ZEROS_HASH, hashed);
        for len in [0, 1, BLOCK_SIZE] {
            assert_eq!(hash_block(&ZEROS[..len]), hashed);
        }
        let mut last = ZEROS;
        last[BLOCK_SIZE - 1] = 1;
        let hashed: [u8; HASH_SIZE] = Sha256::digest(last).into();
        assert_eq!(hash_block(&last), hashed);
    }
}
