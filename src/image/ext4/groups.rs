//! Block groups: where each begins, which begin with copies, and where the descriptor of each lies.
//!
//! ```text
//! group g                begins at block s_first_data_block + g * s_blocks_per_group
//! descriptors            in the blocks behind that of the superblock
//! meta_bg                from block s_first_meta_bg of descriptors on, block m lies in the first of the groups that it describes, behind
//!                        the group's copy of the superblock; a copy lies in the second and in the last of these groups
//! ```
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/blockgroup.html>, and `descriptor_loc` in the kernel's `fs/ext4/super.c`.

use super::format::{
    COMPAT_SPARSE_SUPER2, INCOMPAT_META_BG, RO_SPARSE_SUPER, S_BACKUP_BGS, S_BLOCKS_PER_GROUP, S_FEATURE_COMPAT,
    S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT, S_FIRST_DATA_BLOCK, S_FIRST_META_BG, SUPERBLOCK_OFFSET, le32,
};

/// Groups that begin with a copy of the superblock, beside the first.
#[derive(Clone, Copy, Debug)]
enum Copies {
    All,
    Sparse,
    Two([u64; 2]),
}

/// The places of block groups.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    block_size: u64,
    first_block: u64,
    blocks_per_group: u64,
    descriptor_size: u64,
    /// Number of the first block of descriptors that lies in its own groups.
    first_meta: Option<u64>,
    copies: Copies,
}

impl Groups {
    pub(super) fn new(sb: &[u8], block_size: u64, descriptor_size: u64) -> Self {
        let copies = if le32(sb, S_FEATURE_COMPAT) & COMPAT_SPARSE_SUPER2 != 0 {
            Copies::Two(S_BACKUP_BGS.map(|at| u64::from(le32(sb, at))))
        } else if le32(sb, S_FEATURE_RO_COMPAT) & RO_SPARSE_SUPER != 0 {
            Copies::Sparse
        } else {
            Copies::All
        };
        let meta = le32(sb, S_FEATURE_INCOMPAT) & INCOMPAT_META_BG != 0;
        Self {
            block_size,
            first_block: u64::from(le32(sb, S_FIRST_DATA_BLOCK)),
            blocks_per_group: u64::from(le32(sb, S_BLOCKS_PER_GROUP)),
            descriptor_size,
            first_meta: meta.then(|| u64::from(le32(sb, S_FIRST_META_BG))),
            copies,
        }
    }

    /// Number of groups of a file system of `blocks` blocks; `None` when they have no blocks.
    pub(super) fn count(&self, blocks: u64) -> Option<u64> {
        let blocks = blocks.saturating_sub(self.first_block);
        (self.blocks_per_group > 0).then(|| blocks.div_ceil(self.blocks_per_group))
    }

    /// Offset of the first byte of a group.
    pub(super) fn start(&self, group: u64) -> u64 {
        let block = group
            .saturating_mul(self.blocks_per_group)
            .saturating_add(self.first_block);
        block.saturating_mul(self.block_size)
    }

    /// Whether a group begins with a superblock.
    pub(super) fn has_superblock(&self, group: u64) -> bool {
        group == 0
            || match self.copies {
                Copies::All => true,
                Copies::Sparse => has_superblock(group),
                Copies::Two(groups) => groups.contains(&group),
            }
    }

    /// Descriptors in one block.
    pub(super) fn per_block(&self) -> u64 {
        (self.block_size / self.descriptor_size).max(1)
    }

    /// Number of the first block of descriptors that lies in its own groups.
    pub(super) fn first_meta(&self) -> Option<u64> {
        self.first_meta
    }

    /// Offset of the descriptors that lie in a group with its superblock, or in its place.
    pub(super) fn behind_superblock(&self, group: u64) -> u64 {
        if group == 0 {
            // The block behind that of the superblock, also where bigalloc makes s_first_data_block 0 in blocks of 1 KiB.
            return (SUPERBLOCK_OFFSET / self.block_size + 1) * self.block_size;
        }
        let copy = if self.has_superblock(group) { self.block_size } else { 0 };
        self.start(group).saturating_add(copy)
    }

    /// Offset of the descriptor of a group.
    pub(super) fn descriptor(&self, group: u64) -> u64 {
        let number = group / self.per_block();
        let within = group % self.per_block() * self.descriptor_size;
        let block = match self.first_meta {
            Some(first) if number >= first => self.behind_superblock(number * self.per_block()),
            _ => self.behind_superblock(0).saturating_add(number * self.block_size),
        };
        block.saturating_add(within)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_lie_where_sparse_super_says() {
        let groups: Vec<u64> = (0..130).filter(|g| has_superblock(*g)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }
}
