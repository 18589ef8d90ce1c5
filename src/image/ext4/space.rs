//! The blocks of a file system, given out in order.
//!
//! ```text
//! block 0        superblock
//! 1              descriptors of all groups, 32 bytes each
//! behind them    block bitmaps · inode bitmaps · inode tables of all groups
//! data           the files in the order of the layout, each in a row: data without its blocks of zeros · Merkle tree and descriptor ·
//!                blocks of its extent tree, if it has more than four extents
//! behind them    directories
//! ```
//!
//! A group with a copy of superblock and descriptors begins with it, and whatever lies around it goes on behind. Which blocks are zeros
//! is known only when a file is read, so the space in front of the data is sized for files without such blocks.

use super::{
    format::{BLOCK, DESCRIPTOR_32, FORMAT, GROUP, INODE_SIZE},
    groups::has_superblock,
};
use crate::image::ImageError;

/// Inodes in a block.
pub(super) const INODES_PER_BLOCK: u64 = BLOCK / INODE_SIZE;
/// Most blocks of a group's inode table: its bitmap is one block.
const MAX_TABLE: u64 = GROUP / INODES_PER_BLOCK;
/// The number of inodes is rounded up to a multiple of this, so that the data stay where they are when a few files come or go.
const INODE_STEP: u64 = 64;
/// Block numbers have 32 bits without the feature 64bit.
const MAX_BLOCKS: u64 = u32::MAX as u64;

/// Blocks in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub(super) first: u64,
    pub(super) len: u64,
}

impl Stretch {
    pub(super) fn end(self) -> u64 {
        self.first + self.len
    }
}

/// Gives out blocks in order, and never those of a copy.
#[derive(Clone, Debug)]
pub(super) struct Space {
    /// Blocks of a superblock and the descriptors.
    head: u64,
    next: u64,
}

impl Space {
    /// The blocks from `next` on, where a copy of superblock and descriptors has `head` blocks.
    pub(super) fn new(head: u64, next: u64) -> Self {
        Self { head, next }
    }

    /// The end of what was given out.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// The next blocks, at least one and at most `wish`: those in front of the next copy.
    pub(super) fn take(&mut self, wish: u64) -> Stretch {
        let group = self.next / GROUP;
        if has_superblock(group) {
            self.next = self.next.max(group * GROUP + self.head);
        }
        let first = self.next;
        let mut end = (group + 1) * GROUP;
        while end - first < wish && !has_superblock(end / GROUP) {
            end += GROUP;
        }
        let len = wish.min(end - first);
        self.next += len;
        Stretch { first, len }
    }

    /// The first of the next `count` blocks in a row; blocks in front of a copy are left out where too few are left.
    fn take_together(&mut self, count: u64) -> u64 {
        loop {
            let taken = self.take(count);
            if taken.len == count {
                return taken.first;
            }
        }
    }

    /// `count` blocks, as many pieces as it takes.
    pub(super) fn take_all(&mut self, mut count: u64) -> Vec<Stretch> {
        let mut taken = Vec::new();
        while count > 0 {
            let piece = self.take(count);
            count -= piece.len;
            taken.push(piece);
        }
        taken
    }

    /// The blocks up to `end`, which does not lie in a copy.
    pub(super) fn stretches_up_to(mut self, end: u64) -> Vec<Stretch> {
        let mut pieces = Vec::new();
        while self.next < end {
            let piece = self.take(end - self.next);
            let len = piece.end().min(end) - piece.first;
            pieces.push(Stretch { len, ..piece });
        }
        pieces
    }
}

/// The space in front of the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrontSpace {
    /// Blocks of a superblock and the descriptors, if there are as many groups as there can be.
    pub(super) head: u64,
    /// Blocks for all inode tables.
    tables: u64,
    /// First block of the data.
    pub(super) data: u64,
}

/// The bitmaps and tables of a number of groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tables {
    pub(super) groups: u64,
    /// Number of blocks of the descriptors.
    pub(super) descriptors: u64,
    pub(super) inodes_per_group: u64,
    /// Block of each group's block bitmap, inode bitmap and inode table.
    pub(super) of_groups: Vec<[u64; 3]>,
}

impl Tables {
    /// Number of blocks of one inode table.
    pub(super) fn table(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }
}

fn descriptor_blocks(groups: u64) -> u64 {
    (groups * DESCRIPTOR_32).div_ceil(BLOCK)
}

impl FrontSpace {
    /// The space for `inodes` inodes in front of at most `content` blocks.
    pub(super) fn new(inodes: u64, content: u64) -> Result<Self, ImageError> {
        let too_large = |blocks: u64| ImageError::Request {
            format: FORMAT,
            problem: format!("the files need {blocks} blocks of {BLOCK} bytes, more than {MAX_BLOCKS}"),
        };
        if content > MAX_BLOCKS {
            return Err(too_large(content));
        }
        let mut groups = 1;
        loop {
            let head = 1 + descriptor_blocks(groups);
            // Groups share the tables' blocks evenly, for which one more block for each always suffices.
            let tables = inodes.next_multiple_of(INODE_STEP) / INODES_PER_BLOCK + groups;
            let mut space = Space::new(head, head);
            let mut left = 2 * groups + tables;
            loop {
                left -= space.take(left).len;
                if left == 0 {
                    break;
                }
                // No table is torn by a copy, so in front of it there may be no room for one.
                left += MAX_TABLE;
            }
            let data = space.end();
            space.take_all(content);
            let needed = space.end().div_ceil(GROUP);
            if space.end() > MAX_BLOCKS {
                return Err(too_large(space.end()));
            }
            if needed <= groups {
                return Ok(Self { head, tables, data });
            }
            groups = needed;
        }
    }

    /// Where the bitmaps and tables lie if the data end with block `end`: in this space, whatever part of the expected data there is.
    pub(super) fn tables(&self, end: u64) -> Tables {
        let groups = end.div_ceil(GROUP);
        let table = (self.tables / groups).min(MAX_TABLE);
        let mut space = Space::new(self.head, self.head);
        let mut one_each = || (0..groups).map(|_| space.take(1).first).collect::<Vec<u64>>();
        let (blocks, inodes) = (one_each(), one_each());
        let of_groups = blocks.into_iter().zip(inodes);
        let of_groups = of_groups.map(|(blocks, inodes)| [blocks, inodes, space.take_together(table)]);
        Tables {
            groups,
            descriptors: descriptor_blocks(groups),
            inodes_per_group: table * INODES_PER_BLOCK,
            of_groups: of_groups.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_are_given_out_past_the_copies() {
        let mut space = Space::new(3, 32_760);
        let first = [space.take(5), space.take(9), space.take(9)];
        let stretch = |first, len| Stretch { first, len };
        assert_eq!(first, [stretch(32_760, 5), stretch(32_765, 3), stretch(32_771, 9)]);
        // Group 2 has no copy; group 3 has one.
        assert_eq!(
            space.take_all(100_000),
            [stretch(32_780, 65_524), stretch(98_307, 34_476)]
        );
        // A stretch that ends with its group, and one that must not begin inside a copy.
        let mut space = Space::new(3, GROUP - 10);
        assert_eq!(space.take(10), stretch(GROUP - 10, 10));
        assert_eq!(space.end(), GROUP, "a group is begun only by what lies in it");
        assert_eq!(space.take(1), stretch(GROUP + 3, 1));
        let mut space = Space::new(3, GROUP - 10);
        assert_eq!(space.take_together(11), GROUP + 3);
    }

    #[test]
    fn more_blocks_than_numbers_are_refused() {
        let text = FrontSpace::new(100, 1 << 32).expect_err("too many").to_string();
        assert!(
            text.contains("4294967296 blocks of 4096 bytes, more than 4294967295"),
            "{text}"
        );
        let text = FrontSpace::new(100, MAX_BLOCKS).expect_err("too many").to_string();
        assert!(text.contains("blocks of 4096 bytes, more than 4294967295"), "{text}");
    }

    /// No two of the structures share a block, all lie between the descriptors and the data, and there are enough inodes.
    fn check(front: &FrontSpace, inodes: u64, end: u64) {
        let tables = front.tables(end);
        assert_eq!(tables.of_groups.len() as u64, tables.groups);
        assert!(
            tables.inodes_per_group * tables.groups >= inodes,
            "{inodes} inodes: {tables:?}"
        );
        assert!(tables.inodes_per_group <= GROUP && tables.inodes_per_group.is_multiple_of(8));
        assert!(tables.descriptors < front.head);
        let mut used: Vec<Stretch> = (0..tables.groups)
            .filter(|g| has_superblock(*g))
            .map(|g| Stretch {
                first: g * GROUP,
                len: front.head,
            })
            .collect();
        for [blocks, inodes, table] in &tables.of_groups {
            let piece = |first: &u64, len| Stretch { first: *first, len };
            used.extend([piece(blocks, 1), piece(inodes, 1), piece(table, tables.table())]);
            assert!(table + tables.table() <= front.data, "{front:?}: {tables:?}");
        }
        used.sort_by_key(|s| s.first);
        for pair in used.windows(2) {
            assert!(pair[0].end() <= pair[1].first, "{pair:?}");
        }
    }

    #[test]
    fn a_root_of_today_has_its_data_behind_one_group_of_tables() {
        let front = FrontSpace::new(5280, 50_000).expect("fits");
        // Two descriptors in one block, two bitmaps for each group, 332 blocks for 5312 inodes, and one more for each group.
        assert_eq!((front.head, front.data), (2, 2 + 4 + 332 + 2));
        check(&front, 5280, 50_340);
        assert_eq!(
            FrontSpace::new(5312, 50_000).expect("fits"),
            front,
            "a few more files move nothing"
        );
    }

    #[test]
    fn terabytes_have_their_tables_too() {
        for (inodes, content) in [(11, 1 << 31), (1 << 30, 1 << 31), (3 << 28, 3 << 30)] {
            let front = FrontSpace::new(inodes, content).expect("fits");
            let mut space = Space::new(front.head, front.data);
            space.take_all(content);
            check(&front, inodes, space.end());
        }
    }

    proptest! {
        #[test]
        fn the_tables_fit_their_space(
            content in prop_oneof![1u64..300_000, 1u64..40_000_000],
            share in 0u64..=1000,
            kept in 0u64..=1000,
        ) {
            // An inode has a block at least, and of the expected data there may be any part.
            let inodes = 11 + content * share / 1000;
            let front = FrontSpace::new(inodes, content + 11)?;
            let mut space = Space::new(front.head, front.data);
            space.take_all((content * kept / 1000).max(inodes));
            check(&front, inodes, space.end());
        }
    }
}
