//! Superblock, descriptors, bitmaps and inodes, as they are written.

use super::{
    checksum::{crc32c, descriptor_checksum, inode_seed},
    format::{
        BG_BLOCK_BITMAP, BG_BLOCK_BITMAP_CSUM, BG_CHECKSUM, BG_FLAGS, BG_FREE_BLOCKS, BG_FREE_INODES, BG_INODE_BITMAP,
        BG_INODE_BITMAP_CSUM, BG_INODE_TABLE, BG_ITABLE_UNUSED, BG_USED_DIRS, BLOCK, DESCRIPTOR_32, FLAG_EXTENTS,
        GROUP, I_ATIME, I_ATIME_EXTRA, I_BLOCK, I_BLOCK_SIZE, I_BLOCKS_HIGH, I_BLOCKS_LO, I_CHECKSUM_HI, I_CHECKSUM_LO,
        I_CRTIME, I_CRTIME_EXTRA, I_CTIME, I_CTIME_EXTRA, I_EXTRA_ISIZE, I_FLAGS, I_LINKS_COUNT, I_MODE, I_MTIME,
        I_MTIME_EXTRA, I_SIZE_HIGH, I_SIZE_LO, INCOMPAT_CSUM_SEED, INCOMPAT_EXTENTS, INCOMPAT_FILETYPE,
        INCOMPAT_FLEX_BG, INODE_SIZE, LABEL, MAGIC, RO_LARGE, RO_METADATA_CSUM, RO_SPARSE_SUPER, RO_VERITY,
        S_BLOCK_GROUP_NR, S_BLOCKS_COUNT_LO, S_BLOCKS_PER_GROUP, S_CHECKSUM, S_CHECKSUM_SEED, S_CHECKSUM_TYPE,
        S_CLUSTERS_PER_GROUP, S_DEF_HASH_VERSION, S_DEFAULT_MOUNT_OPTS, S_ERRORS, S_FEATURE_INCOMPAT,
        S_FEATURE_RO_COMPAT, S_FIRST_INO, S_FLAGS, S_FREE_BLOCKS_COUNT_LO, S_FREE_INODES_COUNT, S_HASH_SEED,
        S_INODE_SIZE, S_INODES_COUNT, S_INODES_PER_GROUP, S_LASTCHECK, S_LOG_BLOCK_SIZE, S_LOG_CLUSTER_SIZE,
        S_LOG_GROUPS_PER_FLEX, S_MAGIC, S_MAX_MNT_COUNT, S_MIN_EXTRA_ISIZE, S_MKFS_TIME, S_OVERHEAD, S_REV_LEVEL,
        S_STATE, S_UUID, S_VOLUME_NAME, S_VOLUME_NAME_SIZE, S_WANT_EXTRA_ISIZE, S_WTIME, SUPERBLOCK_SIZE, put16, put32,
    },
    groups::has_superblock,
    space::{Stretch, Tables},
};
use crate::{
    image::Guid,
    model::{Epoch, VerityDigest},
};

/// First inode that is not reserved.
pub(super) const FIRST_INODE: u32 = 11;
/// Bytes in use of an inode behind the first 128.
const EXTRA_ISIZE: u16 = 32;
/// A directory with more links has the number 1, which stands for any.
const MAX_LINKS: u64 = 65_000;
/// `bg_flags`: the whole inode table is written.
const BG_INODE_ZEROED: u16 = 4;

/// The identity of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    uuid: Guid,
    hash_seed: Guid,
    epoch: Epoch,
}

impl Identity {
    /// That of the root `root`, all of whose times are `epoch`.
    pub(super) fn new(root: &VerityDigest, epoch: Epoch) -> Self {
        Self {
            uuid: Guid::derived("ext4", "uuid", root),
            hash_seed: Guid::derived("ext4", "hash seed", root),
            epoch,
        }
    }

    fn seconds(&self) -> u32 {
        self.epoch.seconds() as u32
    }
}

/// Seed of all checksums. It does not depend on the root: otherwise another root would change every inode and every directory.
pub(super) fn checksum_seed() -> u32 {
    crc32c(!0, &label())
}

fn label() -> [u8; S_VOLUME_NAME_SIZE] {
    let mut label = [0; S_VOLUME_NAME_SIZE];
    label[..LABEL.len()].copy_from_slice(LABEL.as_bytes());
    label
}

/// An inode before its number and its times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NewInode {
    /// Type and permissions.
    pub(super) mode: u16,
    /// Flags beside EXTENTS.
    pub(super) flags: u32,
    pub(super) links: u64,
    pub(super) size: u64,
    /// Blocks of the data and of the extent tree.
    pub(super) blocks: u64,
    /// Root of the extent tree.
    pub(super) tree: [u8; I_BLOCK_SIZE],
}

impl NewInode {
    /// The bytes of the inode with this number: owner root, generation 0.
    pub(super) fn encode(&self, number: u32, identity: &Identity) -> [u8; INODE_SIZE as usize] {
        let mut out = [0; INODE_SIZE as usize];
        put16(&mut out, I_MODE, self.mode);
        put32(&mut out, I_SIZE_LO, self.size as u32);
        put32(&mut out, I_SIZE_HIGH, (self.size >> 32) as u32);
        let links = if self.links > MAX_LINKS { 1 } else { self.links };
        put16(&mut out, I_LINKS_COUNT, links as u16);
        let sectors = self.blocks * (BLOCK / 512);
        put32(&mut out, I_BLOCKS_LO, sectors as u32);
        put16(&mut out, I_BLOCKS_HIGH, (sectors >> 32) as u16);
        put32(&mut out, I_FLAGS, self.flags | FLAG_EXTENTS);
        out[I_BLOCK..I_BLOCK + I_BLOCK_SIZE].copy_from_slice(&self.tree);
        put16(&mut out, I_EXTRA_ISIZE, EXTRA_ISIZE);
        let seconds = identity.seconds();
        for (at, extra) in [
            (I_ATIME, I_ATIME_EXTRA),
            (I_CTIME, I_CTIME_EXTRA),
            (I_MTIME, I_MTIME_EXTRA),
            (I_CRTIME, I_CRTIME_EXTRA),
        ] {
            put32(&mut out, at, seconds);
            // The low 32 bits count as signed: from 2038 on, 2^32 is to be added.
            put32(&mut out, extra, seconds >> 31);
        }
        let sum = crc32c(inode_seed(checksum_seed(), number, 0), &out);
        put16(&mut out, I_CHECKSUM_LO, sum as u16);
        put16(&mut out, I_CHECKSUM_HI, (sum >> 16) as u16);
        out
    }
}

/// Sets the bits from `first` up to `end`.
fn set_bits(bytes: &mut [u8], first: u64, end: u64) {
    for bit in first..end {
        let (byte, bit) = ((bit / 8) as usize, bit % 8);
        bytes[byte] |= 1 << bit;
    }
}

/// A bitmap of `len` things of which those in `used` are used; the bits behind them are set up to the end of the block.
fn bitmap(len: u64, used: impl Iterator<Item = (u64, u64)>) -> (Vec<u8>, u64) {
    let mut bytes = vec![0; BLOCK as usize];
    let mut count = 0;
    for (first, end) in used {
        set_bits(&mut bytes, first, end);
        count += end - first;
    }
    set_bits(&mut bytes, len, 8 * BLOCK);
    (bytes, len - count)
}

/// The numbers of a file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Totals {
    /// Number of blocks.
    pub(super) blocks: u64,
    /// Inodes in use; they are the first ones.
    pub(super) inodes: u64,
    /// Inodes of directories, of which all but the root lie in a row.
    pub(super) directories: Stretch,
    /// The blocks in use, sorted.
    pub(super) used: Vec<Stretch>,
}

/// A group: its bitmaps and its descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct GroupRecords {
    pub(super) block_bitmap: Vec<u8>,
    pub(super) inode_bitmap: Vec<u8>,
    pub(super) descriptor: [u8; DESCRIPTOR_32 as usize],
    /// Blocks of the group that are free.
    pub(super) free_blocks: u64,
}

impl GroupRecords {
    pub(super) fn new(group: u64, tables: &Tables, totals: &Totals) -> Self {
        let (start, end) = (group * GROUP, ((group + 1) * GROUP).min(totals.blocks));
        let from = totals.used.partition_point(|s| s.end() <= start);
        let here = totals.used[from..].iter().take_while(|s| s.first < end);
        let here = here.map(|s| (s.first.max(start) - start, s.end().min(end) - start));
        let (block_bitmap, free_blocks) = bitmap(end - start, here);
        let per_group = tables.inodes_per_group;
        let first_inode = group * per_group;
        let within = |s: u64| s.clamp(first_inode, first_inode + per_group) - first_inode;
        let used_inodes = within(totals.inodes);
        let (inode_bitmap, free_inodes) = bitmap(per_group, std::iter::once((0, used_inodes)));
        // Inode n is bit n - 1.
        let directories = within(totals.directories.end() - 1) - within(totals.directories.first - 1);
        let directories = directories + u64::from(group == 0);
        let seed = checksum_seed();
        let mut descriptor = [0; DESCRIPTOR_32 as usize];
        let [blocks, inodes, table] = tables.of_groups[group as usize];
        put32(&mut descriptor, BG_BLOCK_BITMAP.0, blocks as u32);
        put32(&mut descriptor, BG_INODE_BITMAP.0, inodes as u32);
        put32(&mut descriptor, BG_INODE_TABLE.0, table as u32);
        put16(&mut descriptor, BG_FREE_BLOCKS, free_blocks as u16);
        put16(&mut descriptor, BG_FREE_INODES, free_inodes as u16);
        put16(&mut descriptor, BG_USED_DIRS, directories as u16);
        put16(&mut descriptor, BG_FLAGS, BG_INODE_ZEROED);
        put16(
            &mut descriptor,
            BG_BLOCK_BITMAP_CSUM,
            crc32c(seed, &block_bitmap) as u16,
        );
        let inode_bits = &inode_bitmap[..(per_group / 8) as usize];
        put16(&mut descriptor, BG_INODE_BITMAP_CSUM, crc32c(seed, inode_bits) as u16);
        put16(&mut descriptor, BG_ITABLE_UNUSED, free_inodes as u16);
        let sum = descriptor_checksum(seed, group, &descriptor);
        put16(&mut descriptor, BG_CHECKSUM, sum);
        Self {
            block_bitmap,
            inode_bitmap,
            descriptor,
            free_blocks,
        }
    }
}

/// The superblock as it lies in `group`. Its values are those that mke2fs 1.47 gives a file system with these features.
pub(super) fn superblock_of(
    group: u64,
    tables: &Tables,
    totals: &Totals,
    free_blocks: u64,
    identity: &Identity,
) -> [u8; SUPERBLOCK_SIZE] {
    let mut out = [0; SUPERBLOCK_SIZE];
    let inodes = tables.inodes_per_group * tables.groups;
    let copies = (0..tables.groups).filter(|g| has_superblock(*g)).count() as u64;
    let overhead = copies * (1 + tables.descriptors) + tables.groups * (2 + tables.table());
    for (at, value) in [
        (S_INODES_COUNT, inodes as u32),
        (S_BLOCKS_COUNT_LO, totals.blocks as u32),
        (S_FREE_BLOCKS_COUNT_LO, free_blocks as u32),
        (S_FREE_INODES_COUNT, (inodes - totals.inodes) as u32),
        (S_LOG_BLOCK_SIZE, BLOCK.ilog2() - 10),
        (S_LOG_CLUSTER_SIZE, BLOCK.ilog2() - 10),
        (S_BLOCKS_PER_GROUP, GROUP as u32),
        (S_CLUSTERS_PER_GROUP, GROUP as u32),
        (S_INODES_PER_GROUP, tables.inodes_per_group as u32),
        (S_WTIME, identity.seconds()),
        (S_LASTCHECK, identity.seconds()),
        (S_MKFS_TIME, identity.seconds()),
        (S_REV_LEVEL, 1),
        (S_FIRST_INO, FIRST_INODE),
        (
            S_FEATURE_INCOMPAT,
            INCOMPAT_FILETYPE | INCOMPAT_EXTENTS | INCOMPAT_FLEX_BG | INCOMPAT_CSUM_SEED,
        ),
        (
            S_FEATURE_RO_COMPAT,
            RO_SPARSE_SUPER | RO_LARGE | RO_METADATA_CSUM | RO_VERITY,
        ),
        // User attributes and access lists.
        (S_DEFAULT_MOUNT_OPTS, 0x4 | 0x8),
        // Directory hashes take bytes as signed.
        (S_FLAGS, 1),
        (S_OVERHEAD, overhead as u32),
        (S_CHECKSUM_SEED, checksum_seed()),
    ] {
        put32(&mut out, at, value);
    }
    for (at, value) in [
        (S_MAX_MNT_COUNT, u16::MAX),
        (S_MAGIC, MAGIC),
        (S_STATE, 1),
        // Go on after an error.
        (S_ERRORS, 1),
        (S_INODE_SIZE, INODE_SIZE as u16),
        (S_BLOCK_GROUP_NR, group as u16),
        (S_MIN_EXTRA_ISIZE, EXTRA_ISIZE),
        (S_WANT_EXTRA_ISIZE, EXTRA_ISIZE),
    ] {
        put16(&mut out, at, value);
    }
    // Half MD4; 16 groups; CRC-32C.
    (
        out[S_DEF_HASH_VERSION],
        out[S_LOG_GROUPS_PER_FLEX],
        out[S_CHECKSUM_TYPE],
    ) = (1, 4, 1);
    out[S_UUID..S_UUID + 16].copy_from_slice(&identity.uuid.to_bytes());
    out[S_VOLUME_NAME..S_VOLUME_NAME + S_VOLUME_NAME_SIZE].copy_from_slice(&label());
    out[S_HASH_SEED..S_HASH_SEED + 16].copy_from_slice(&identity.hash_seed.to_bytes());
    let sum = crc32c(!0, &out[..S_CHECKSUM]);
    put32(&mut out, S_CHECKSUM, sum);
    out
}

#[cfg(test)]
mod tests {
    use super::super::format::{le16, le32};
    use super::*;

    #[test]
    fn bits_behind_the_end_are_set() {
        let (bytes, free) = bitmap(20, [(0, 3), (9, 11)].into_iter());
        assert_eq!(bytes[..4], [0b111, 0b110, 0xf0, 0xff]);
        assert!(bytes[4..].iter().all(|b| *b == 0xff));
        assert_eq!(free, 15);
        let (bytes, free) = bitmap(GROUP, [(0, GROUP)].into_iter());
        assert!(bytes.iter().all(|b| *b == 0xff));
        assert_eq!(free, 0);
    }

    #[test]
    fn large_values_go_into_the_high_halves() {
        let inode = NewInode {
            mode: 0o100_444,
            flags: 0,
            links: 65_001,
            size: (5 << 32) + 7,
            blocks: 1 << 32,
            tree: [0; I_BLOCK_SIZE],
        };
        let late = Identity::new(&VerityDigest::new([1; 32]), Epoch::new(0x9000_0000));
        let bytes = inode.encode(12, &late);
        assert_eq!((le32(&bytes, I_SIZE_LO), le32(&bytes, I_SIZE_HIGH)), (7, 5));
        assert_eq!((le32(&bytes, I_BLOCKS_LO), le16(&bytes, I_BLOCKS_HIGH)), (0, 8));
        assert_eq!(le16(&bytes, I_LINKS_COUNT), 1, "more than fit");
        assert_eq!((le32(&bytes, I_MTIME), le32(&bytes, I_MTIME_EXTRA)), (0x9000_0000, 1));
        let early = Identity::new(&VerityDigest::new([1; 32]), Epoch::new(0x7fff_ffff));
        let bytes = inode.encode(12, &early);
        assert_eq!((le32(&bytes, I_MTIME), le32(&bytes, I_MTIME_EXTRA)), (0x7fff_ffff, 0));
    }
}
