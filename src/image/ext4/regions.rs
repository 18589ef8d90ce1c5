//! The ranges of a file system's own structures, for readers that explain bytes.
//!
//! ```text
//! a descriptor     names the blocks of the group's block bitmap, inode bitmap and inode table
//! copies           some groups begin with superblock and descriptors
//! ```
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/globals.html>.

use super::{
    Ext4,
    format::{BG_BLOCK_BITMAP, BG_INODE_BITMAP, BG_INODE_TABLE, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, halves},
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
    /// range that a broken descriptor places outside of the image is left out. The second value are the groups whose descriptors do not
    /// have their checksum.
    pub fn regions(&self) -> Result<(Vec<Region>, Vec<u64>), ImageError> {
        let groups = self.groups.count(self.blocks).filter(|groups| *groups <= MAX_GROUPS);
        let Some(groups) = groups else {
            let problem = format!("{} blocks cannot be in groups of that length", self.blocks);
            return Err(corrupt(SUPERBLOCK_OFFSET, problem));
        };
        let table_len = u64::from(self.inodes_per_group) * self.inode_size;
        // Descriptors in front of the first block that lies in its own groups; each further block, with its copies.
        let per_block = self.groups.per_block();
        let first_meta = self.groups.first_meta().unwrap_or(u64::MAX);
        let together = groups.min(first_meta.saturating_mul(per_block));
        let descriptors_len = together * self.descriptor_size;
        let all = self.blocks * self.block_size;
        let (mut out, mut unfit) = (Vec::new(), Vec::new());
        let mut add = |name: String, offset: u64, len: u64| {
            if offset.checked_add(len).is_some_and(|end| end <= all) && len > 0 {
                out.push(Region { name, offset, len });
            }
        };
        add("boot block".to_owned(), 0, SUPERBLOCK_OFFSET);
        add("superblock".to_owned(), SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE as u64);
        let behind = self.groups.behind_superblock(0);
        add("group descriptors".to_owned(), behind, descriptors_len);
        for group in 0..groups {
            let behind = self.groups.behind_superblock(group);
            if group > 0 && self.groups.has_superblock(group) {
                let start = self.groups.start(group);
                add(
                    format!("superblock copy in group {group}"),
                    start,
                    SUPERBLOCK_SIZE as u64,
                );
                add(
                    format!("group descriptors copy in group {group}"),
                    behind,
                    descriptors_len,
                );
            }
            let within = group % per_block;
            if group / per_block >= first_meta && (within <= 1 || within == per_block - 1) {
                let copy = if within == 0 { "" } else { " copy" };
                let name = format!("group descriptors{copy} in group {group}");
                add(name, behind, per_block * self.descriptor_size);
            }
            let (_, raw) = self.descriptor(group)?;
            let whole = raw.get(..self.descriptor_size as usize);
            if whole.is_some_and(|whole| !self.descriptor_fits(group, whole)) {
                unfit.push(group);
            }
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
        Ok((out, unfit))
    }
}
