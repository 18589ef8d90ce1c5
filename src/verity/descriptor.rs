//! The descriptor of a file, whose digest is the fs-verity digest.

use super::block::HASH_SIZE;
use crate::model::VerityDigest;
use sha2::{Digest as _, Sha256};

/// Bytes of the descriptor.
pub const DESCRIPTOR_SIZE: usize = 256;

/// `struct fsverity_descriptor` for a file of `size` bytes; offsets and values from the kernel's documentation.
pub(super) fn descriptor(size: u64, root: &[u8; HASH_SIZE]) -> [u8; DESCRIPTOR_SIZE] {
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
pub(super) fn descriptor_digest(descriptor: &[u8; DESCRIPTOR_SIZE]) -> VerityDigest {
    VerityDigest::new(Sha256::digest(descriptor).into())
}
