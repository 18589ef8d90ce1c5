//! The fs-verity metadata behind the data of a file.

use super::{Ext4, Ext4Inode, extents::Ext4Extent, format::VERITY_ALIGN, volume::corrupt};
use crate::{
    image::{ImageError, ReadAt},
    model::VerityDigest,
    verity::{DESCRIPTOR_SIZE, MerkleTree},
};
use sha2::{Digest as _, Sha256};

/// The fs-verity metadata behind the data of an inode with verity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerityTail {
    /// The Merkle tree, root level first.
    pub tree: Vec<u8>,
    /// `struct fsverity_descriptor`.
    pub descriptor: [u8; DESCRIPTOR_SIZE],
}

/// Offset of the Merkle tree in the file, its length, and the descriptor.
type Found = (u64, u64, [u8; DESCRIPTOR_SIZE]);

impl<R: ReadAt> Ext4<R> {
    /// The Merkle tree and the descriptor behind a file's data, found as the kernel finds them. `None` without verity.
    pub fn verity(&self, inode: &Ext4Inode) -> Result<Option<VerityTail>, ImageError> {
        if !inode.has_verity() {
            return Ok(None);
        }
        let extents = self.extents(inode)?;
        let (tree_at, tree_size, descriptor) = self.find_verity(inode, &extents)?;
        // Extents may claim the same blocks over and over, so memory is bounded by the blocks of the image.
        let stored = extents.iter().map(|e| e.len).sum::<u64>().min(self.blocks) * self.block_size;
        if tree_size > stored {
            return Err(bad(inode, "the blocks of the Merkle tree are not stored"));
        }
        let mut tree = vec![0; tree_size as usize];
        self.read_mapped(&extents, &mut tree, tree_at)?;
        Ok(Some(VerityTail { tree, descriptor }))
    }

    /// The fs-verity digest that the kernel reports for a file: the digest of its descriptor, without a look at its data. `None`
    /// without verity.
    pub fn sealed_digest(&self, inode: &Ext4Inode) -> Result<Option<VerityDigest>, ImageError> {
        if !inode.has_verity() {
            return Ok(None);
        }
        let (_, _, descriptor) = self.find_verity(inode, &self.extents(inode)?)?;
        Ok(Some(VerityDigest::new(Sha256::digest(descriptor).into())))
    }

    fn find_verity(&self, inode: &Ext4Inode, extents: &[Ext4Extent]) -> Result<Found, ImageError> {
        let end = extents.last().map_or(0, |e| (e.logical + e.len) * self.block_size);
        let tree_at = inode.size.checked_next_multiple_of(VERITY_ALIGN);
        let tree_size = MerkleTree::size(inode.size);
        let tree_end = tree_at.and_then(|at| at.checked_add(tree_size));
        let (Some(tree_at), Some(tree_end)) = (tree_at, tree_end.filter(|e| *e < end)) else {
            return Err(bad(inode, "there is nothing behind the data"));
        };
        // The last four bytes of the last block are the length of the descriptor, which begins a block and ends within it.
        let mut length = [0; 4];
        self.read_mapped(extents, &mut length, end - 4)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length != DESCRIPTOR_SIZE as u64 {
            let problem = format!("the descriptor has {length} bytes instead of {DESCRIPTOR_SIZE}");
            return Err(bad(inode, problem));
        }
        let descriptor_at = (end - 4)
            .checked_sub(length)
            .map(|at| at / self.block_size * self.block_size);
        let Some(descriptor_at) = descriptor_at.filter(|at| *at >= tree_end) else {
            return Err(bad(inode, "the descriptor overlaps the Merkle tree"));
        };
        let mut descriptor = [0; DESCRIPTOR_SIZE];
        self.read_mapped(extents, &mut descriptor, descriptor_at)?;
        Ok((tree_at, tree_size, descriptor))
    }
}

fn bad(inode: &Ext4Inode, problem: impl std::fmt::Display) -> ImageError {
    corrupt(inode.offset, format!("verity of inode {}: {problem}", inode.number))
}
