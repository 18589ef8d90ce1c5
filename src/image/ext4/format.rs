//! Where the fields of ext4's structures lie, and the values that have a meaning; all integers are little-endian.
//!
//! The names are those of <https://docs.kernel.org/filesystems/ext4/>; offsets are bytes from the beginning of the structure.

/// Name of the format in messages of the writer, and of the reader.
pub(super) const FORMAT: &str = "an ext4 file system";
pub(super) const IMAGE_FORMAT: &str = "an ext4 image";

/// Path of the composefs image in the file system.
pub const IMAGE_PATH: &str = "image.cfs";
/// Path of the directory with the objects.
pub const OBJECTS_PATH: &str = "objects";
/// Directory at the top where e2fsck would put what it finds; it makes one where there is none.
pub(super) const LOST_FOUND: &[u8] = b"lost+found";
/// Label of the volume.
pub const LABEL: &str = "powernode-root";

/// Bytes of a block in a file system made here.
pub(super) const BLOCK: u64 = 4096;
/// Blocks of a group in a file system made here: a block has a bit for each.
pub(super) const GROUP: u64 = 8 * BLOCK;
/// Bytes of an inode in a file system made here.
pub(super) const INODE_SIZE: u64 = 256;

/// Offset of the superblock in the image, and its bytes.
pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
pub(super) const SUPERBLOCK_SIZE: usize = 1024;

// `struct ext4_super_block`.
pub(super) const S_INODES_COUNT: usize = 0x0;
pub(super) const S_BLOCKS_COUNT_LO: usize = 0x4;
pub(super) const S_FREE_BLOCKS_COUNT_LO: usize = 0xc;
pub(super) const S_FREE_INODES_COUNT: usize = 0x10;
pub(super) const S_FIRST_DATA_BLOCK: usize = 0x14;
/// log2 of the block size, less 10, and of the size of a cluster, which without bigalloc is a block.
pub(super) const S_LOG_BLOCK_SIZE: usize = 0x18;
pub(super) const S_LOG_CLUSTER_SIZE: usize = 0x1c;
pub(super) const S_BLOCKS_PER_GROUP: usize = 0x20;
pub(super) const S_CLUSTERS_PER_GROUP: usize = 0x24;
pub(super) const S_INODES_PER_GROUP: usize = 0x28;
pub(super) const S_MTIME: usize = 0x2c;
pub(super) const S_WTIME: usize = 0x30;
/// Mounts after which a check is due; [`u16::MAX`] for never.
pub(super) const S_MAX_MNT_COUNT: usize = 0x36;
pub(super) const S_MAGIC: usize = 0x38;
pub(super) const S_STATE: usize = 0x3a;
/// What the kernel does when it finds damage.
pub(super) const S_ERRORS: usize = 0x3c;
pub(super) const S_LASTCHECK: usize = 0x40;
/// 0 in the first revision, whose inodes have 128 bytes.
pub(super) const S_REV_LEVEL: usize = 0x4c;
/// First inode that is not reserved.
pub(super) const S_FIRST_INO: usize = 0x54;
pub(super) const S_INODE_SIZE: usize = 0x58;
/// Group in which this copy of the superblock lies.
pub(super) const S_BLOCK_GROUP_NR: usize = 0x5a;
pub(super) const S_FEATURE_COMPAT: usize = 0x5c;
pub(super) const S_FEATURE_INCOMPAT: usize = 0x60;
pub(super) const S_FEATURE_RO_COMPAT: usize = 0x64;
pub(super) const S_UUID: usize = 0x68;
pub(super) const S_VOLUME_NAME: usize = 0x78;
pub(super) const S_VOLUME_NAME_SIZE: usize = 16;
pub(super) const S_HASH_SEED: usize = 0xec;
pub(super) const S_DEF_HASH_VERSION: usize = 0xfc;
pub(super) const S_DEFAULT_MOUNT_OPTS: usize = 0x100;
/// Bytes of a group descriptor, with the feature 64bit.
pub(super) const S_DESC_SIZE: usize = 0xfe;
pub(super) const S_MKFS_TIME: usize = 0x108;
/// Inode of the journal; 0 when it is on another device.
pub(super) const S_JOURNAL_INUM: usize = 0xe0;
/// First block of descriptors that lie in their own groups, with the feature meta_bg.
pub(super) const S_FIRST_META_BG: usize = 0x104;
/// The two groups with copies, with the feature sparse_super2.
pub(super) const S_BACKUP_BGS: [usize; 2] = [0x24c, 0x250];
/// Bytes that every inode has behind the first 128, and that a new one gets.
pub(super) const S_MIN_EXTRA_ISIZE: usize = 0x15c;
pub(super) const S_WANT_EXTRA_ISIZE: usize = 0x15e;
pub(super) const S_FLAGS: usize = 0x160;
/// log2 of the number of groups whose bitmaps and tables the kernel would lay together.
pub(super) const S_LOG_GROUPS_PER_FLEX: usize = 0x174;
pub(super) const S_CHECKSUM_TYPE: usize = 0x175;
/// Blocks of superblocks, descriptors, bitmaps and inode tables.
pub(super) const S_OVERHEAD: usize = 0x248;
/// Seed of all checksums, with the feature metadata_csum_seed, and the checksum of the superblock.
pub(super) const S_CHECKSUM_SEED: usize = 0x270;
pub(super) const S_CHECKSUM: usize = 0x3fc;
/// The high halves exist with the feature 64bit.
pub(super) const S_BLOCKS_COUNT_HI: usize = 0x150;
pub(super) const S_FREE_BLOCKS_COUNT_HI: usize = 0x158;

/// Value of [`S_MAGIC`].
pub(super) const MAGIC: u16 = 0xef53;
/// Bits of [`S_FEATURE_INCOMPAT`] of a file system as pnb makes it: filetype, extents, 64bit, flex_bg, csum_seed, largedir.
pub(super) const PLAIN_INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200 | 0x2000 | 0x4000;
/// Further bits with which every file is found where the reader looks: needs_recovery, journal_dev, meta_bg, mmp, ea_inode, dirdata,
/// inline_data, encrypt, casefold.
pub(super) const READ_INCOMPAT: u32 =
    PLAIN_INCOMPAT | 0x4 | 0x8 | 0x10 | 0x100 | 0x400 | 0x1000 | 0x8000 | 0x1_0000 | 0x2_0000;
pub(super) const INCOMPAT_FILETYPE: u32 = 0x2;
pub(super) const INCOMPAT_EXTENTS: u32 = 0x40;
pub(super) const INCOMPAT_FLEX_BG: u32 = 0x200;
pub(super) const INCOMPAT_RECOVER: u32 = 0x4;
pub(super) const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
pub(super) const INCOMPAT_META_BG: u32 = 0x10;
pub(super) const INCOMPAT_64BIT: u32 = 0x80;
pub(super) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
/// Bits of [`S_FEATURE_INCOMPAT`] and [`S_FEATURE_RO_COMPAT`] that ext3 has too.
pub(super) const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
pub(super) const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;
/// Bits of [`S_FEATURE_COMPAT`]: a journal; two groups with copies, which [`S_BACKUP_BGS`] names.
pub(super) const COMPAT_JOURNAL: u32 = 0x4;
pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x200;
/// Bits of [`S_FEATURE_RO_COMPAT`]: only some groups begin with copies of superblock and descriptors; structures have checksums.
pub(super) const RO_SPARSE_SUPER: u32 = 0x1;
pub(super) const RO_METADATA_CSUM: u32 = 0x400;
/// large_file, huge_file, dir_nlink, extra_isize.
pub(super) const RO_LARGE: u32 = 0x2 | 0x8 | 0x20 | 0x40;
pub(super) const RO_VERITY: u32 = 0x8000;

// `struct ext4_group_desc`, each field with its high half, which a descriptor of 64 bytes has.
/// Bytes of a descriptor without the feature 64bit, and the number of bytes that are read of a longer one.
pub(super) const DESCRIPTOR_32: u64 = 32;
pub(super) const DESCRIPTOR_READ: usize = 64;
pub(super) const BG_BLOCK_BITMAP: (usize, usize) = (0x0, 0x20);
pub(super) const BG_INODE_BITMAP: (usize, usize) = (0x4, 0x24);
pub(super) const BG_INODE_TABLE: (usize, usize) = (0x8, 0x28);
pub(super) const BG_FREE_BLOCKS: usize = 0xc;
pub(super) const BG_FREE_INODES: usize = 0xe;
pub(super) const BG_USED_DIRS: usize = 0x10;
pub(super) const BG_FLAGS: usize = 0x12;
/// The low halves of the checksums of both bitmaps.
pub(super) const BG_BLOCK_BITMAP_CSUM: usize = 0x18;
pub(super) const BG_INODE_BITMAP_CSUM: usize = 0x1a;
/// Inodes at the end of the table that were never used.
pub(super) const BG_ITABLE_UNUSED: usize = 0x1c;
pub(super) const BG_CHECKSUM: usize = 0x1e;

// `struct ext4_inode`.
/// Bytes of an inode of the first revision, which every later one begins with.
pub(super) const INODE_READ: usize = 128;
pub(super) const I_MODE: usize = 0x0;
/// Owner and group, each with its high half.
pub(super) const I_UID: (usize, usize) = (0x2, 0x78);
pub(super) const I_GID: (usize, usize) = (0x18, 0x7a);
pub(super) const I_SIZE_LO: usize = 0x4;
pub(super) const I_ATIME: usize = 0x8;
pub(super) const I_CTIME: usize = 0xc;
pub(super) const I_MTIME: usize = 0x10;
pub(super) const I_LINKS_COUNT: usize = 0x1a;
/// Blocks of the file and of its extent tree in units of 512 bytes, and the high 16 bits.
pub(super) const I_BLOCKS_LO: usize = 0x1c;
pub(super) const I_BLOCKS_HIGH: usize = 0x74;
pub(super) const I_FLAGS: usize = 0x20;
/// Root of the extent tree, the block map, the target of a short link, or the first bytes of inline data.
pub(super) const I_BLOCK: usize = 0x28;
pub(super) const I_BLOCK_SIZE: usize = 60;
pub(super) const I_GENERATION: usize = 0x64;
/// Block with extended attributes, and its high 16 bits.
pub(super) const I_FILE_ACL_LO: usize = 0x68;
pub(super) const I_FILE_ACL_HIGH: usize = 0x76;
pub(super) const I_SIZE_HIGH: usize = 0x6c;
pub(super) const I_CHECKSUM_LO: usize = 0x7c;
/// Bytes in use behind the first 128, and the high half of the checksum among them.
pub(super) const I_EXTRA_ISIZE: usize = 0x80;
pub(super) const I_CHECKSUM_HI: usize = 0x82;
/// Bits 32 and 33 of the times of change, of content and of access in the low two bits; nanoseconds above.
pub(super) const I_CTIME_EXTRA: usize = 0x84;
pub(super) const I_MTIME_EXTRA: usize = 0x88;
pub(super) const I_ATIME_EXTRA: usize = 0x8c;
/// Time of creation, and its upper bits.
pub(super) const I_CRTIME: usize = 0x90;
pub(super) const I_CRTIME_EXTRA: usize = 0x94;

/// Number of the root directory's inode.
pub(super) const ROOT_INODE: u32 = 2;
// Bits of [`I_FLAGS`].
pub(super) const FLAG_COMPRESSED: u32 = 0x4;
pub(super) const FLAG_ENCRYPT: u32 = 0x800;
pub(super) const FLAG_EXTENTS: u32 = 0x8_0000;
pub(super) const FLAG_VERITY: u32 = 0x10_0000;
pub(super) const FLAG_INLINE_DATA: u32 = 0x1000_0000;

/// `eh_magic` of a node of an extent tree.
pub(super) const EXTENT_MAGIC: u16 = 0xf30a;
/// Bytes of a node's header, and of each entry.
pub(super) const EXTENT_ENTRY: usize = 12;
/// `eh_entries`, `eh_max` and `eh_depth` in the header.
pub(super) const EH_ENTRIES: usize = 2;
pub(super) const EH_MAX: usize = 4;
pub(super) const EH_DEPTH: usize = 6;
/// Most blocks of an extent that is written.
pub(super) const EXTENT_BLOCKS: u64 = 0x8000;
/// Bytes at the end of a directory's block that look like an unused entry and hold the checksum.
pub(super) const DIRECTORY_TAIL: usize = 12;

/// The Merkle tree begins at the next multiple of this behind the data, so that kernels with larger pages can map it too.
pub(super) const VERITY_ALIGN: u64 = 65_536;

/// The 16-bit field at an offset; 0 outside of `bytes`.
pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

/// The 32-bit field at an offset; 0 outside of `bytes`.
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

/// The 64-bit number whose halves are at two offsets.
pub(super) fn halves(bytes: &[u8], (low, high): (usize, usize)) -> u64 {
    u64::from(le32(bytes, low)) | u64::from(le32(bytes, high)) << 32
}

/// Stores a number of 16 bits at an offset that lies inside of `bytes`.
pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Stores a number of 32 bits.
pub(super) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
