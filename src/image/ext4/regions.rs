//! The ranges of a file system's own structures, for readers that explain bytes.
//!
//! ```text
//! group g          begins at block s_first_data_block + g * s_blocks_per_group
//! its descriptor   names the blocks of its block bitmap, inode bitmap and inode table
//! copies           groups 0, 1 and powers of 3, 5 and 7 (sparse_super) begin with superblock and descriptors
//! ```
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/globals.html>.

use super::{
    Ext4,
    format::{
        BG_BLOCK_BITMAP, BG_INODE_BITMAP, BG_INODE_TABLE, RO_SPARSE_SUPER, S_BLOCKS_PER_GROUP, S_FEATURE_RO_COMPAT,
        S_FIRST_DATA_BLOCK, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, halves, le32,
    },
    size::has_superblock,
    volume::corrupt,
};
use crate::image::{ImageError, ReadAt};

/// A file system with more groups is refused: 8 TiB with blocks of 4 KiB.
const MAX_GROUPS: u64 = 1 << 16;

/// A range of the file system's own structures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// Name of the structure.
    pub name: String,
    /// Offset in the image.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl<R: ReadAt> Ext4<R> {
    /// The ranges of the file system's own structures, sorted: boot block, superblocks, descriptors, bitmaps and inode tables. A
    /// range that a broken descriptor places outside of the image is left out.
    pub fn regions(&self) -> Result<Vec<Region>, ImageError> {
        let sb = self.superblock()?;
        let first = u64::from(le32(&sb, S_FIRST_DATA_BLOCK));
        let per_group = u64::from(le32(&sb, S_BLOCKS_PER_GROUP));
        if per_group == 0 || self.blocks.div_ceil(per_group) > MAX_GROUPS {
            let problem = format!("{} blocks in groups of {per_group} cannot be", self.blocks);
            return Err(corrupt(SUPERBLOCK_OFFSET, problem));
        }
        let groups = self.blocks.saturating_sub(first).div_ceil(per_group);
        let table_len = u64::from(self.inodes_per_group) * self.inode_size;
        let descriptors_len = groups * self.descriptor_size;
        let sparse = le32(&sb, S_FEATURE_RO_COMPAT) & RO_SPARSE_SUPER != 0;
        let all = self.blocks * self.block_size;
        let mut out = Vec::new();
        let mut add = |name: String, offset: u64, len: u64| {
            if offset.checked_add(len).is_some_and(|end| end <= all) && len > 0 {
                out.push(Region { name, offset, len });
            }
        };
        add("boot block".to_owned(), 0, SUPERBLOCK_OFFSET);
        add("superblock".to_owned(), SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE as u64);
        add("group descriptors".to_owned(), self.descriptors, descriptors_len);
        for group in 0..groups {
            let start = (first + group * per_group) * self.block_size;
            if group > 0 && (!sparse || has_superblock(group)) {
                add(
                    format!("superblock copy in group {group}"),
                    start,
                    SUPERBLOCK_SIZE as u64,
                );
                let behind = start + self.block_size;
                add(
                    format!("group descriptors copy in group {group}"),
                    behind,
                    descriptors_len,
                );
            }
            let (_, raw) = self.descriptor(group)?;
            let block = self.block_size;
            for (name, field, len) in [
                ("block bitmap", BG_BLOCK_BITMAP, block),
                ("inode bitmap", BG_INODE_BITMAP, block),
                ("inode table", BG_INODE_TABLE, table_len),
            ] {
                let number = halves(&raw, field);
                if let Some(offset) = number.checked_mul(block).filter(|o| *o > 0) {
                    add(format!("{name} of group {group}"), offset, len);
                }
            }
        }
        out.sort_by_key(|p| (p.offset, p.len));
        Ok(out)
    }
}
