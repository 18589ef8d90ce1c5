//! The structures of a composefs image, each as the bytes it is on disk (all integers little-endian):
//!
//! | at            | what                                                                  |
//! |---------------|-----------------------------------------------------------------------|
//! | 0             | composefs header, 32 bytes                                             |
//! | 1024          | EROFS superblock, 128 bytes                                            |
//! | 1152          | inodes, each with its attributes and a short tail of data, in 32-byte slots |
//! | after them    | shared attributes, 4-byte aligned                                      |
//! | next block    | directory blocks and link targets too long for an inode, in inode order |
//!
//! Sources: <https://erofs.docs.kernel.org/en/latest/ondisk/core_ondisk.html>, `fs/erofs/erofs_fs.h` of Linux;
//! the composefs header: `libcomposefs/lcfs-erofs.h` of composefs 1.0.8.

/// Block size of the image, in bytes.
pub(super) const BLOCK: u64 = 1 << BLOCK_BITS;
/// `blkszbits` of the superblock.
pub(super) const BLOCK_BITS: u8 = 12;
/// Inodes begin at multiples of this; an inode's number (nid) is its offset divided by it (`EROFS_ISLOTBITS` = 5).
pub(super) const SLOT: u64 = 32;
/// Unit of attribute sizes and of references to shared attributes, in bytes.
pub(super) const XATTR_UNIT: u64 = 4;

/// Where the superblock begins (`EROFS_SUPER_OFFSET`).
pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
/// Where the first inode, the root directory, begins: behind the superblock.
pub(super) const INODES_OFFSET: u64 = SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE as u64;
const SUPERBLOCK_SIZE: usize = 128;

/// `struct erofs_inode_compact`.
pub(super) const COMPACT_SIZE: u64 = 32;
/// `struct erofs_inode_extended`.
pub(super) const EXTENDED_SIZE: u64 = 64;
/// `struct erofs_xattr_ibody_header`, before the attributes of an inode that has any.
pub(super) const XATTR_BODY_SIZE: u64 = 12;
/// `struct erofs_xattr_entry`, before the name and value of an attribute.
pub(super) const XATTR_ENTRY_SIZE: u64 = 4;
/// `struct erofs_dirent`; a block's entries come before their names.
pub(super) const DIRENT_SIZE: u64 = 12;
/// One index of a chunk-based file (`EROFS_BLOCK_MAP_ENTRY_SIZE`).
pub(super) const CHUNK_INDEX_SIZE: u64 = 4;
/// Index of a hole (`EROFS_NULL_ADDR`): the content is in the object, not here.
pub(super) const CHUNK_HOLE: [u8; 4] = [0xff; 4];
/// Most that log2 of the blocks in a chunk may be (`EROFS_CHUNK_FORMAT_BLKBITS_MASK`).
pub(super) const CHUNK_BLOCK_BITS_MAX: u32 = 31;

/// `LCFS_EROFS_MAGIC`.
const COMPOSEFS_MAGIC: u32 = 0xd078_629a;
/// `LCFS_EROFS_VERSION`.
const COMPOSEFS_HEADER_VERSION: u32 = 1;
/// `LCFS_EROFS_FLAGS_HAS_ACL`: some entry has a POSIX access control list.
const COMPOSEFS_HAS_ACL: u32 = 1;
/// Format version of the tree inside, `mkcomposefs --min-version=1`.
const COMPOSEFS_VERSION: u32 = 1;

/// `EROFS_SUPER_MAGIC_V1`.
pub(super) const EROFS_MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_COMPAT_MTIME | EROFS_FEATURE_COMPAT_XATTR_FILTER`.
const FEATURE_COMPAT: u32 = 0x2 | 0x4;
// Of the superblock; what is not named stays zero (checksum, uuid, features that make old kernels refuse the image …).
const SB_FEATURE_COMPAT: usize = 8;
pub(super) const SB_BLOCK_BITS: usize = 12;
pub(super) const SB_ROOT_NID: usize = 14;
const SB_INODES: usize = 16;
const SB_BUILD_TIME: usize = 24;
const SB_BLOCKS: usize = 36;
pub(super) const SB_XATTR_BLOCK: usize = 44;

/// How an inode's data is stored (bits 1 to 3 of `i_format`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// In blocks of its own, or no data (`EROFS_INODE_FLAT_PLAIN`).
    Plain = 0,
    /// What does not fill a block lies behind the inode (`EROFS_INODE_FLAT_INLINE`).
    Inline = 2,
    /// Chunk indexes lie behind the inode (`EROFS_INODE_CHUNK_BASED`).
    Chunks = 4,
}

/// What an entry is: the value in directory entries (`EROFS_FT_*`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

impl FileType {
    /// The type bits of `st_mode` (`S_IFMT`).
    fn mode(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// The header that marks a composefs image, 32 bytes of which the last 16 are reserved.
pub(super) fn composefs_header(has_acl: bool) -> [u8; 32] {
    let flags = if has_acl { COMPOSEFS_HAS_ACL } else { 0 };
    let mut bytes = [0; 32];
    for (at, value) in [COMPOSEFS_MAGIC, COMPOSEFS_HEADER_VERSION, flags, COMPOSEFS_VERSION]
        .into_iter()
        .enumerate()
    {
        put(&mut bytes, 4 * at, value.to_le_bytes());
    }
    bytes
}

/// What the superblock says of this image.
pub(super) struct Superblock {
    /// Number of the root directory's inode.
    pub(super) root_nid: u16,
    /// How many inodes there are.
    pub(super) inodes: u64,
    /// The modification time of every compact inode, in seconds.
    pub(super) build_time: u64,
    /// Size of the image, in blocks.
    pub(super) blocks: u32,
    /// The block references to shared attributes are counted from.
    pub(super) xattr_block: u32,
}

impl Superblock {
    pub(super) fn encode(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        put(&mut bytes, 0, EROFS_MAGIC.to_le_bytes());
        put(&mut bytes, SB_FEATURE_COMPAT, FEATURE_COMPAT.to_le_bytes());
        put(&mut bytes, SB_BLOCK_BITS, [BLOCK_BITS]);
        put(&mut bytes, SB_ROOT_NID, self.root_nid.to_le_bytes());
        put(&mut bytes, SB_INODES, self.inodes.to_le_bytes());
        put(&mut bytes, SB_BUILD_TIME, self.build_time.to_le_bytes());
        put(&mut bytes, SB_BLOCKS, self.blocks.to_le_bytes());
        put(&mut bytes, SB_XATTR_BLOCK, self.xattr_block.to_le_bytes());
        bytes
    }
}

/// One inode's header, in either of its two sizes.
pub(super) struct InodeHeader {
    /// Whether the 32-byte form is written: then size is below 4 GiB, `uid`, `gid` and `nlink` below 65536 and the
    /// modification time that of the superblock.
    pub(super) compact: bool,
    pub(super) layout: DataLayout,
    pub(super) file_type: FileType,
    /// Size of the attributes in units of 4 bytes, the body header counting as one; 0 for none.
    pub(super) xattr_count: u16,
    /// Permission bits.
    pub(super) permissions: u16,
    pub(super) size: u64,
    /// First data block, device number or chunk format.
    pub(super) union: u32,
    /// Position in the inode table, from 0.
    pub(super) ino: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    pub(super) nlink: u32,
}

impl InodeHeader {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let format = u16::from(!self.compact) | (self.layout as u16) << 1;
        out.extend(format.to_le_bytes());
        out.extend(self.xattr_count.to_le_bytes());
        out.extend((self.file_type.mode() | self.permissions).to_le_bytes());
        if self.compact {
            out.extend((self.nlink as u16).to_le_bytes());
            out.extend((self.size as u32).to_le_bytes());
            out.extend([0; 4]);
            out.extend(self.union.to_le_bytes());
            out.extend(self.ino.to_le_bytes());
            out.extend((self.uid as u16).to_le_bytes());
            out.extend((self.gid as u16).to_le_bytes());
            out.extend([0; 4]);
        } else {
            out.extend([0; 2]);
            out.extend(self.size.to_le_bytes());
            out.extend(self.union.to_le_bytes());
            out.extend(self.ino.to_le_bytes());
            out.extend(self.uid.to_le_bytes());
            out.extend(self.gid.to_le_bytes());
            out.extend(self.mtime.to_le_bytes());
            out.extend([0; 4]); // nanoseconds
            out.extend(self.nlink.to_le_bytes());
            out.extend([0; 16]);
        }
    }
}

/// The header before an inode's attributes. A clear bit of the filter on disk says that a name hashing to it is here.
pub(super) fn write_xattr_body(out: &mut Vec<u8>, present: u32, shared: u8) {
    out.extend((!present).to_le_bytes());
    out.push(shared);
    out.extend([0; 7]);
}

/// One directory entry; `name_offset` counts from the start of its block.
pub(super) fn write_dirent(out: &mut Vec<u8>, nid: u64, name_offset: u16, file_type: FileType) {
    out.extend(nid.to_le_bytes());
    out.extend(name_offset.to_le_bytes());
    out.extend([file_type as u8, 0]);
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
