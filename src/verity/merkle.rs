//! The whole Merkle tree of a file, for a file system whose inodes carry the tree from the start.

use super::{
    VerityError,
    block::{BLOCK_SIZE, HASH_SIZE, hash_block},
    descriptor::{DESCRIPTOR_SIZE, descriptor, descriptor_digest},
    lanes::hash_blocks,
};
use crate::model::VerityDigest;
use std::io::{ErrorKind, Read};

/// The fs-verity metadata of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Baked {
    /// The levels of the tree, each padded with zeros to whole blocks, the root's level first, as ext4 stores them.
    /// Empty for a file of at most one block.
    pub tree: Vec<u8>,
    /// `struct fsverity_descriptor`.
    pub descriptor: [u8; DESCRIPTOR_SIZE],
    /// Digest the kernel reports for the file.
    pub digest: VerityDigest,
}

/// Number of blocks that are read at a time.
const READ_BLOCKS: usize = 32;

/// Builds Merkle trees. Memory: 1/127 of the file.
pub struct MerkleTree;

impl MerkleTree {
    /// Length of [`Baked::tree`] for a file of `size` bytes, in bytes.
    pub fn size(size: u64) -> u64 {
        let mut blocks = size.div_ceil(BLOCK_SIZE as u64);
        let mut total = 0;
        while blocks > 1 {
            blocks = blocks.div_ceil((BLOCK_SIZE / HASH_SIZE) as u64);
            total += blocks;
        }
        total * BLOCK_SIZE as u64
    }

    /// Reads exactly `size` bytes from `reader`, passes each piece to `tee`, which stores it, and builds the tree over them. Content
    /// that is shorter or longer than `size` is an error.
    pub fn build_tee<E: From<VerityError>>(
        mut reader: impl Read,
        size: u64,
        mut tee: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Baked, E> {
        // At least one byte more than the content should have, to notice a longer one. Most files are small, and a large buffer
        // would have to be zeroed for each.
        let blocks = usize::try_from(size / BLOCK_SIZE as u64 + 1).map_or(READ_BLOCKS, |b| b.min(READ_BLOCKS));
        let mut buffer = vec![0; blocks * BLOCK_SIZE];
        let mut hashes = Vec::new();
        let mut seen = 0u64;
        loop {
            // The buffer is filled completely each time, so that only the last piece can end inside a block.
            let len = fill(&mut reader, &mut buffer, seen)?;
            if len as u64 > size - seen {
                return Err(VerityError::Size {
                    expected: size,
                    actual: seen + len as u64,
                    more: true,
                }
                .into());
            }
            let piece = &buffer[..len];
            let (blocks, rest) = piece.as_chunks();
            hash_blocks(blocks, |hash| hashes.extend_from_slice(&hash));
            if !rest.is_empty() {
                hashes.extend_from_slice(&hash_block(rest));
            }
            tee(piece)?;
            seen += len as u64;
            if len < buffer.len() {
                break;
            }
        }
        if seen != size {
            return Err(VerityError::Size {
                expected: size,
                actual: seen,
                more: false,
            }
            .into());
        }
        Ok(from_hashes(size, hashes))
    }

    /// Like [`MerkleTree::build_tee`], for data that is stored elsewhere.
    pub fn build(reader: impl Read, size: u64) -> Result<Baked, VerityError> {
        Self::build_tee(reader, size, |_| Ok(()))
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8], seen: u64) -> Result<usize, VerityError> {
    let mut len = 0;
    while len < buffer.len() {
        match reader.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(VerityError::Read {
                    offset: seen + len as u64,
                    source,
                });
            }
        }
    }
    Ok(len)
}

/// Builds the tree over the hashes of the data blocks, which `hashes` holds one after the other.
fn from_hashes(size: u64, mut hashes: Vec<u8>) -> Baked {
    let mut levels = Vec::new();
    while hashes.len() > HASH_SIZE {
        hashes.resize(hashes.len().next_multiple_of(BLOCK_SIZE), 0);
        let above = hashes.chunks(BLOCK_SIZE).flat_map(hash_block).collect();
        levels.push(std::mem::replace(&mut hashes, above));
    }
    // A file without a block has a root hash of zeros.
    let root = <[u8; HASH_SIZE]>::try_from(hashes.as_slice()).unwrap_or([0; HASH_SIZE]);
    let descriptor = descriptor(size, &root);
    Baked {
        tree: levels.into_iter().rev().flatten().collect(),
        digest: descriptor_digest(&descriptor),
        descriptor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verity::digest_bytes;

    const SIZES: [usize; 12] = [
        0,
        1,
        4095,
        4096,
        4097,
        128 * 4096 - 1,
        128 * 4096,
        128 * 4096 + 1,
        129 * 4096,
        256 * 4096 + 1,
        32 * 4096,
        5_000_000,
    ];

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    /// Walks from the root hash to every data block, as the kernel does when it reads one.
    fn check(data: &[u8], baked: &Baked) {
        let mut levels = Vec::new();
        let mut blocks = data.len().div_ceil(BLOCK_SIZE);
        while blocks > 1 {
            blocks = blocks.div_ceil(128);
            levels.push(blocks);
        }
        let root = &baked.descriptor[16..48];
        for (index, block) in data.chunks(BLOCK_SIZE).enumerate() {
            let mut hash = hash_block(block).to_vec();
            let (mut at, mut index) = (baked.tree.len(), index);
            for blocks in &levels {
                at -= blocks * BLOCK_SIZE;
                let stored = &baked.tree[at + index * HASH_SIZE..][..HASH_SIZE];
                assert_eq!(stored, hash);
                index /= 128;
                hash = hash_block(&baked.tree[at + index * BLOCK_SIZE..][..BLOCK_SIZE]).to_vec();
            }
            assert_eq!(root, hash);
        }
    }

    #[test]
    fn the_tree_leads_to_every_block_and_agrees_with_the_streaming_hasher() {
        for size in SIZES {
            let data = pattern(size);
            let mut copy = Vec::new();
            let baked = MerkleTree::build_tee::<VerityError>(&data[..], size as u64, |piece| {
                copy.extend_from_slice(piece);
                Ok(())
            })
            .expect("the size is right");
            assert_eq!(copy, data, "{size} bytes");
            assert_eq!(baked.digest, digest_bytes(&data), "{size} bytes");
            assert_eq!(baked.tree.len() as u64, MerkleTree::size(size as u64), "{size} bytes");
            check(&data, &baked);
        }
    }

    #[test]
    fn content_of_another_length_is_refused() {
        let data = pattern(300_000);
        for promised in [0, 1, 131_072, 299_999, 300_001, 400_000] {
            let err = MerkleTree::build(&data[..], promised).expect_err("the size is wrong");
            let text = err.to_string();
            assert!(text.contains(&format!("expected: {promised} bytes")), "{text}");
        }
    }
}
