//! The structures of a composefs image and their encoding. All integers are little-endian.
//!
//! Sources: <https://erofs.docs.kernel.org/en/latest/ondisk/core_ondisk.html>, `fs/erofs/erofs_fs.h` of Linux;
//! the composefs header: `libcomposefs/lcfs-erofs.h` of composefs 1.0.8.

/// Name of the format in messages.
pub(super) const FORMAT: &str = "a composefs image";
/// Longest file that is stored in the image, in bytes: the limit that mkcomposefs applies when it reads a directory.
pub const INLINE_MAX: u64 = 64;

/// Block size of the image, in bytes.
pub(super) const BLOCK: u64 = 1 << BLOCK_BITS;
/// `blkszbits` of the superblock.
pub(super) const BLOCK_BITS: u8 = 12;
/// Inodes begin at multiples of this; an inode's number (nid) is its offset divided by it (`EROFS_ISLOTBITS` = 5).
pub(super) const SLOT: u64 = 32;
/// Unit of attribute sizes and of references to shared attributes, in bytes.
pub(super) const XATTR_UNIT: u64 = 4;

/// Offset of the superblock (`EROFS_SUPER_OFFSET`).
pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
/// Offset of the first inode, the root directory, behind the superblock.
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
/// Highest log2 of the number of blocks in a chunk (`EROFS_CHUNK_FORMAT_BLKBITS_MASK`).
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
// Offsets in the superblock. Every other field stays zero: checksum, uuid, features that make old kernels refuse the image.
const SB_FEATURE_COMPAT: usize = 8;
pub(super) const SB_BLOCK_BITS: usize = 12;
pub(super) const SB_ROOT_NID: usize = 14;
const SB_INODES: usize = 16;
/// `epoch`: modification time of every compact inode.
pub(super) const SB_BUILD_TIME: usize = 24;
const SB_BLOCKS: usize = 36;
pub(super) const SB_XATTR_BLOCK: usize = 44;

// Offsets in an inode, and sizes that differ between its two forms.
pub(super) const INODE_FORMAT: u64 = 0;
pub(super) const INODE_XATTR_COUNT: u64 = 2;
pub(super) const INODE_MODE: u64 = 4;
/// 32 bits in the compact form, 64 in the extended one.
pub(super) const INODE_SIZE: u64 = 8;
/// First data block, device number or chunk format.
pub(super) const INODE_UNION: u64 = 16;
/// Owner and group: 16 bits each in the compact form, 32 in the extended one.
pub(super) const INODE_UID: u64 = 24;
pub(super) const COMPACT_GID: u64 = 26;
pub(super) const EXTENDED_GID: u64 = 28;
/// The extended form only.
pub(super) const EXTENDED_MTIME: u64 = 32;
/// Bit 0 of `i_format`: the inode has the extended form. The bits above are its [`DataLayout`].
pub(super) const FORMAT_EXTENDED: u16 = 1;

// Offsets in a directory entry, whose number is first, and in the header of an inode's attributes.
pub(super) const DIRENT_NAME: u64 = 8;
pub(super) const XATTR_SHARED_COUNT: u64 = 4;

/// How an inode's data is stored (bits 1 to 3 of `i_format`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// In blocks of its own, or no data (`EROFS_INODE_FLAT_PLAIN`).
    Plain = 0,
    /// The tail that does not fill a block lies behind the inode (`EROFS_INODE_FLAT_INLINE`).
    Inline = 2,
    /// Chunk indexes lie behind the inode (`EROFS_INODE_CHUNK_BASED`).
    Chunks = 4,
}

/// Type of a file, with its value in directory entries (`EROFS_FT_*`).
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

/// The fields of the superblock that differ between images.
pub(super) struct Superblock {
    /// Number of the root directory's inode.
    pub(super) root_nid: u16,
    /// Number of inodes.
    pub(super) inodes: u64,
    /// The modification time of every compact inode, in seconds.
    pub(super) build_time: u64,
    /// Size of the image, in blocks.
    pub(super) blocks: u32,
    /// The block that references to shared attributes are counted from.
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
    /// Whether the 32-byte form is written. It needs a size below 4 GiB, `uid`, `gid` and `nlink` below 65536, and the
    /// modification time of the superblock.
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

/// Writes the header of an inode's attributes. On disk a clear bit of the filter means that the inode may have a name with that
/// hash.
pub(super) fn write_xattr_body(out: &mut Vec<u8>, present: u32, shared: u8) {
    out.extend((!present).to_le_bytes());
    out.push(shared);
    out.extend([0; 7]);
}

/// Writes a directory entry; `name_offset` counts from the start of its block.
pub(super) fn write_dirent(out: &mut Vec<u8>, nid: u64, name_offset: u16, file_type: FileType) {
    out.extend(nid.to_le_bytes());
    out.extend(name_offset.to_le_bytes());
    out.extend([file_type as u8, 0]);
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
