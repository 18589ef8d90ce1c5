//! A block of data or of the tree, and its hash.

use sha2::{Digest as _, Sha256};

/// Bytes in a data block and in a block of the Merkle tree.
pub const BLOCK_SIZE: usize = 4096;
/// Bytes of one hash.
pub(super) const HASH_SIZE: usize = 32;

/// SHA-256 of one block: `data` padded with zeros to [`BLOCK_SIZE`].
pub(super) fn hash_block(data: &[u8]) -> [u8; HASH_SIZE] {
    // Half of a disk image is zeros, and comparing a block costs a fraction of hashing it.
    if data.len() <= BLOCK_SIZE && *data == ZEROS[..data.len()] {
        return ZEROS_HASH;
    }
    let mut hash = Sha256::new();
    hash.update(data);
    hash.update(&ZEROS[data.len().min(BLOCK_SIZE)..]);
    hash.finalize().into()
}

/// A block of zeros.
pub(super) static ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];
/// SHA-256 of a block of zeros.
pub(super) const ZEROS_HASH: [u8; HASH_SIZE] = [
    0xad, 0x7f, 0xac, 0xb2, 0x58, 0x6f, 0xc6, 0xe9, 0x66, 0xc0, 0x04, 0xd7, 0xd1, 0xd1, 0x6b, 0x02, 0x4f, 0x58, 0x05,
    0xff, 0x7c, 0xb4, 0x7c, 0x7a, 0x85, 0xda, 0xbd, 0x8b, 0x48, 0x89, 0x2c, 0xa7,
];

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
