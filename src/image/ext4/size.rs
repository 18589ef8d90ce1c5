//! The number of blocks and inodes of the file system: as many as its files need, and no more.
//!
//! Estimates are too high by a few blocks at most. They are needed because the number of extents of a file depends on where mke2fs
//! places it: the own blocks of a group may split it.

use super::{
    format::{BLOCK, INODE_SIZE},
    plan::Ext4Layout,
};
use crate::model::RelPath;
use std::collections::BTreeMap;

/// Blocks that the bitmap of a group can describe.
const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
/// Bytes of a group descriptor without the 64bit feature.
const DESCRIPTOR: u64 = 32;
/// Inodes below the first one for files.
const RESERVED_INODES: u64 = 10;
/// Blocks that mke2fs allocates for `lost+found`: 16 KiB.
const LOST_FOUND: u64 = 4;
/// mke2fs drops a last group with fewer blocks than its own structures and this many more.
const LEAST_LAST_GROUP: u64 = 50;
/// Extents in an inode, and in a block (12 bytes each behind a header of 12, a checksum of 4).
const EXTENTS_IN_INODE: u64 = 4;
const EXTENTS_IN_BLOCK: u64 = (BLOCK - 16) / 12;
/// Most blocks of one extent.
const EXTENT_LENGTH: u64 = 32_768;
/// Bytes of a directory block for entries: the last twelve hold its checksum.
const DIRECTORY_BLOCK: u64 = BLOCK - 12;
/// Bytes of the entries `.` and `..`.
const DOTS: u64 = 24;

/// The space of one file: its blocks that are not all zero, and the number of runs that they form.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Blocks {
    pub(super) count: u64,
    pub(super) runs: u64,
}

impl Blocks {
    /// Number of blocks, including those of the extent tree when the extents do not fit the inode.
    pub(super) fn total(self) -> u64 {
        let extents = self.runs + self.count / EXTENT_LENGTH;
        if extents <= EXTENTS_IN_INODE {
            return self.count;
        }
        // Leaves are at least half full, and one block holds the indexes of 340 leaves.
        let leaves = extents.div_ceil(EXTENTS_IN_BLOCK / 2);
        self.count + leaves + leaves.div_ceil(EXTENTS_IN_BLOCK / 2)
    }
}

/// Size of a file system: the arguments of mke2fs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ext4Size {
    pub(super) blocks: u64,
    pub(super) inodes: u64,
}

/// The size for the directories of `layout` and for files that take `file_blocks` in total.
pub(super) fn size(layout: &Ext4Layout, file_blocks: u64) -> Ext4Size {
    let content = file_blocks + directory_blocks(layout) + LOST_FOUND;
    let inodes = RESERVED_INODES + 1 + (layout.items.len() + layout.directories.len()) as u64;
    let mut groups = 1;
    loop {
        let (own, last) = overhead(groups, inodes);
        // One more block for each group: its own blocks may split a file into more extents than its inode holds.
        let mut blocks = content + own + groups;
        let full = (groups - 1) * BLOCKS_PER_GROUP;
        if blocks > full + BLOCKS_PER_GROUP {
            groups += 1;
            continue;
        }
        blocks = blocks.max(full + last + LEAST_LAST_GROUP);
        return Ext4Size { blocks, inodes };
    }
}

/// Number of blocks with the structures of `groups` groups, and of those in the last group.
fn overhead(groups: u64, inodes: u64) -> (u64, u64) {
    let inodes_per_block = BLOCK / INODE_SIZE;
    let table = inodes.div_ceil(groups).div_ceil(inodes_per_block);
    let descriptors = (groups * DESCRIPTOR).div_ceil(BLOCK);
    let own = |group| 2 + table + if has_superblock(group) { 1 + descriptors } else { 0 };
    ((0..groups).map(own).sum(), own(groups - 1))
}

/// Whether a group begins with a superblock under sparse_super: groups 0 and 1, and the powers of 3, 5 and 7.
pub(super) fn has_superblock(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// Number of blocks of the root and of every directory. An entry goes into the first block with room, as in `ext2fs_link`.
fn directory_blocks(layout: &Ext4Layout) -> u64 {
    let mut rooms: BTreeMap<Option<RelPath>, Vec<u64>> = BTreeMap::new();
    let first = || vec![DIRECTORY_BLOCK - DOTS];
    let root = rooms.entry(None).or_insert_with(first);
    root[0] -= entry_size(b"lost+found");
    let files = layout.items.iter().map(|i| &i.path);
    for path in &layout.directories {
        rooms.entry(Some(path.clone())).or_insert_with(first);
    }
    for path in layout.directories.iter().chain(files) {
        let size = entry_size(path.name());
        let blocks = rooms.entry(path.parent()).or_insert_with(first);
        match blocks.iter_mut().find(|room| **room >= size) {
            Some(room) => *room -= size,
            None => blocks.push(DIRECTORY_BLOCK - size),
        }
    }
    let total = |blocks: &Vec<u64>| {
        let count = blocks.len() as u64;
        // Blocks that were added one by one are not adjacent.
        Blocks { count, runs: count }.total()
    };
    rooms.values().map(total).sum()
}

fn entry_size(name: &[u8]) -> u64 {
    8 + (name.len() as u64).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_lie_where_sparse_super_says() {
        let groups: Vec<u64> = (0..130).filter(|g| has_superblock(*g)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn few_extents_fit_the_inode_and_many_take_blocks() {
        let total = |count, runs| Blocks { count, runs }.total();
        assert_eq!(total(10, 4), 10);
        assert_eq!(total(10, 5), 12);
        assert_eq!(total(4 * 32_768, 1), 4 * 32_768 + 2);
        assert_eq!(total(1000, 500), 1004);
    }
}
