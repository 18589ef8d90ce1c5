//! Reads ext4 of unknown origin: nothing is trusted, every loop ends, and memory does not grow with a field's claim.
//!
//! [`Ext4::open`] takes a file system as pnb makes it: read-only, without a journal. [`Ext4::open_any`] takes ext2, ext3 and ext4 as
//! other machines leave them, with the reasons why files may be missing or old.

use super::checksum::{superblock_fits, uuid_seed};
use super::format::{
    BG_INODE_TABLE, COMPAT_JOURNAL, DESCRIPTOR_32, DESCRIPTOR_READ, FLAG_VERITY, I_ATIME, I_BLOCK, I_BLOCK_SIZE,
    I_CTIME, I_FLAGS, I_GENERATION, I_GID, I_LINKS_COUNT, I_MODE, I_MTIME, I_SIZE_HIGH, I_SIZE_LO, I_UID, IMAGE_FORMAT,
    INCOMPAT_64BIT, INCOMPAT_CSUM_SEED, INCOMPAT_FILETYPE, INCOMPAT_RECOVER, INODE_READ, PLAIN_INCOMPAT, READ_INCOMPAT,
    RO_METADATA_CSUM, ROOT_INODE, S_BLOCKS_COUNT_HI, S_BLOCKS_COUNT_LO, S_CHECKSUM_SEED, S_DESC_SIZE, S_FEATURE_COMPAT,
    S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT, S_INODE_SIZE, S_INODES_COUNT, S_INODES_PER_GROUP, S_JOURNAL_INUM,
    S_LOG_BLOCK_SIZE, S_REV_LEVEL, SUPERBLOCK_OFFSET, halves, le16, le32,
};
use super::{groups::Groups, superblock::feature_names, superblock::superblock};
use crate::image::{ImageError, ReadAt};
use std::io;

/// Highest value of `s_log_block_size` that is accepted: blocks of 64 KiB.
const MAX_LOG_BLOCK_SIZE: u32 = 6;
/// Largest group descriptor that is accepted, in bytes.
const MAX_DESCRIPTOR: u64 = 1024;

pub(super) fn corrupt(offset: u64, problem: impl Into<String>) -> ImageError {
    ImageError::Corrupt {
        format: IMAGE_FORMAT,
        offset,
        problem: problem.into(),
    }
}

/// Fills `buffer` from `offset` on.
pub(super) fn read_at<R: ReadAt>(image: &R, buffer: &mut [u8], offset: u64) -> Result<(), ImageError> {
    image
        .read_exact_at(buffer, offset)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => corrupt(offset, "the image ends before a structure that lies there"),
            _ => ImageError::Input {
                format: IMAGE_FORMAT,
                offset,
                source,
            },
        })
}

/// Type of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Special,
}

/// An inode.
#[derive(Clone, Debug)]
pub struct Ext4Inode {
    pub(super) number: u32,
    /// Offset in the image.
    pub(super) offset: u64,
    mode: u16,
    pub(super) flags: u32,
    pub(super) size: u64,
    pub(super) generation: u32,
    pub(super) block: [u8; I_BLOCK_SIZE],
}

impl Ext4Inode {
    /// Number of the inode.
    pub fn number(&self) -> u32 {
        self.number
    }
    /// Type of the file.
    pub fn kind(&self) -> FileKind {
        match self.mode & 0xf000 {
            0x8000 => FileKind::File,
            0x4000 => FileKind::Directory,
            0xa000 => FileKind::Symlink,
            _ => FileKind::Special,
        }
    }
    /// Permission bits, `0o7777` at most.
    pub fn mode(&self) -> u16 {
        self.mode & 0o7777
    }
    /// Length of the data in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Whether the kernel checks every read against a Merkle tree.
    pub fn has_verity(&self) -> bool {
        self.flags & FLAG_VERITY != 0
    }
    /// Offset in the image.
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// `i_flags`.
    pub fn flags(&self) -> u32 {
        self.flags
    }
}

/// An ext4 file system that is read.
#[derive(Debug)]
pub struct Ext4<R> {
    pub(super) image: R,
    pub(super) block_size: u64,
    pub(super) blocks: u64,
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u64,
    pub(super) descriptor_size: u64,
    pub(super) groups: Groups,
    /// Seed of the checksums, with the feature metadata_csum.
    pub(super) checksum_seed: Option<u32>,
}

/// The reasons, by the superblock alone, why files may be missing or old.
fn reservations(sb: &[u8]) -> Vec<ImageError> {
    let mut problems = Vec::new();
    let mut add = |problem: String| problems.push(corrupt(SUPERBLOCK_OFFSET, problem));
    let incompat = le32(sb, S_FEATURE_INCOMPAT);
    if incompat & INCOMPAT_RECOVER != 0 {
        let journal = match (
            le32(sb, S_FEATURE_COMPAT) & COMPAT_JOURNAL != 0,
            le32(sb, S_JOURNAL_INUM),
        ) {
            (true, 0) => "the journal, which is on another device, was not replayed",
            (true, _) => "the journal was not replayed",
            (false, _) => "it has the feature needs_recovery, but no journal",
        };
        add(format!(
            "it was not unmounted: {journal}, so files may be older or other than the kernel will show them"
        ));
    }
    let unknown = incompat & !READ_INCOMPAT;
    if unknown != 0 {
        let names = feature_names([0, unknown, 0]).join(", ");
        add(format!(
            "it has incompatible features that are not supported: {names}; files may be missing or wrong"
        ));
    }
    if le32(sb, S_FEATURE_RO_COMPAT) & RO_METADATA_CSUM != 0 && !superblock_fits(sb) {
        add("the superblock does not have its checksum".to_owned());
    }
    problems
}

/// Block size in bytes, and number of blocks.
fn blocks(sb: &[u8], wide: bool) -> Result<(u64, u64), ImageError> {
    let log = le32(sb, S_LOG_BLOCK_SIZE);
    if log > MAX_LOG_BLOCK_SIZE {
        let problem = format!("the block size is 2^{} bytes", u64::from(log) + 10);
        return Err(corrupt(SUPERBLOCK_OFFSET, problem));
    }
    let blocks = if wide {
        halves(sb, (S_BLOCKS_COUNT_LO, S_BLOCKS_COUNT_HI))
    } else {
        u64::from(le32(sb, S_BLOCKS_COUNT_LO))
    };
    Ok((1024 << log, blocks))
}

impl<R: ReadAt> Ext4<R> {
    /// Reads the superblock of a file system as pnb makes it. The image must be whole: at least as long as its superblock states.
    pub fn open(image: R) -> Result<Self, ImageError> {
        let incompat = le32(&superblock(&image)?, S_FEATURE_INCOMPAT);
        let bad = |problem: String| corrupt(SUPERBLOCK_OFFSET, problem);
        let other = incompat & !PLAIN_INCOMPAT;
        if other != 0 {
            let names = feature_names([0, other, 0]).join(", ");
            return Err(bad(format!("incompatible features that are not supported: {names}")));
        }
        if incompat & INCOMPAT_FILETYPE == 0 {
            return Err(bad(
                "it lacks the feature filetype, without which it is not supported".to_owned()
            ));
        }
        let (fs, problems) = Self::open_any(image)?;
        match problems.into_iter().next() {
            None => Ok(fs),
            Some(error) => Err(error),
        }
    }

    /// Like [`Ext4::open`] for ext2, ext3 and ext4 of any origin. The second value are the reasons why files may be missing or old: the
    /// image is cut off, its journal was not replayed, it has features that are not known, its superblock has another checksum.
    pub fn open_any(image: R) -> Result<(Self, Vec<ImageError>), ImageError> {
        let bad = |problem: String| corrupt(SUPERBLOCK_OFFSET, problem);
        let sb = superblock(&image)?;
        let incompat = le32(&sb, S_FEATURE_INCOMPAT);
        let wide = incompat & INCOMPAT_64BIT != 0;
        let (block_size, blocks) = blocks(&sb, wide)?;
        let size = image.size().map_err(|source| ImageError::Input {
            format: IMAGE_FORMAT,
            offset: 0,
            source,
        })?;
        // Offsets of blocks fit 64 bits.
        if blocks > i64::MAX as u64 / block_size {
            return Err(bad(format!(
                "a file system cannot have {blocks} blocks of {block_size} bytes"
            )));
        }
        let mut problems = reservations(&sb);
        if blocks * block_size > size {
            problems.push(bad(format!(
                "the file system has {blocks} blocks of {block_size} bytes, but the image has {size} bytes"
            )));
        }
        let inode_size = match le32(&sb, S_REV_LEVEL) {
            0 => INODE_READ as u64,
            _ => u64::from(le16(&sb, S_INODE_SIZE)),
        };
        if !inode_size.is_power_of_two() || !(INODE_READ as u64..=block_size).contains(&inode_size) {
            return Err(bad(format!("the size of an inode is {inode_size} bytes")));
        }
        let descriptor_size = if wide {
            u64::from(le16(&sb, S_DESC_SIZE))
        } else {
            DESCRIPTOR_32
        };
        if !descriptor_size.is_power_of_two() || !(DESCRIPTOR_32..=MAX_DESCRIPTOR).contains(&descriptor_size) {
            return Err(bad(format!(
                "the size of a group descriptor is {descriptor_size} bytes"
            )));
        }
        let (inodes, inodes_per_group) = (le32(&sb, S_INODES_COUNT), le32(&sb, S_INODES_PER_GROUP));
        if inodes_per_group == 0 || inodes < ROOT_INODE {
            return Err(bad(format!(
                "{inodes} inodes in groups of {inodes_per_group} cannot be"
            )));
        }
        let has_checksums = le32(&sb, S_FEATURE_RO_COMPAT) & RO_METADATA_CSUM != 0;
        let fs = Self {
            image,
            block_size,
            blocks,
            inodes,
            inodes_per_group,
            inode_size,
            descriptor_size,
            groups: Groups::new(&sb, block_size, descriptor_size),
            // With another checksum of the superblock the seed, which is in it, is not to be trusted.
            checksum_seed: (has_checksums && superblock_fits(&sb)).then(|| match incompat & INCOMPAT_CSUM_SEED {
                0 => uuid_seed(&sb),
                _ => le32(&sb, S_CHECKSUM_SEED),
            }),
        };
        Ok((fs, problems))
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> u64 {
        self.block_size
    }

    /// The root directory.
    pub fn root(&self) -> Result<Ext4Inode, ImageError> {
        self.inode(ROOT_INODE)
    }

    /// Inode `number`.
    pub fn inode(&self, number: u32) -> Result<Ext4Inode, ImageError> {
        if number == 0 || number > self.inodes {
            return Err(corrupt(
                0,
                format!("inode {number} does not exist (there are {})", self.inodes),
            ));
        }
        let group = u64::from((number - 1) / self.inodes_per_group);
        let index = u64::from((number - 1) % self.inodes_per_group);
        let (at, descriptor) = self.descriptor(group)?;
        let table = halves(&descriptor, BG_INODE_TABLE);
        if table == 0 || table >= self.blocks {
            return Err(corrupt(
                at,
                format!(
                    "the inode table of group {group} is said to be at block {table} of {}",
                    self.blocks
                ),
            ));
        }
        let offset = table * self.block_size + index * self.inode_size;
        let mut raw = [0; INODE_READ];
        read_at(&self.image, &mut raw, offset)?;
        let mut block = [0; I_BLOCK_SIZE];
        block.copy_from_slice(&raw[I_BLOCK..I_BLOCK + I_BLOCK_SIZE]);
        let inode = Ext4Inode {
            number,
            offset,
            mode: le16(&raw, I_MODE),
            flags: le32(&raw, I_FLAGS),
            // In ext2 the high half of a directory's size has another meaning, and a directory of 4 GiB is refused anyway.
            size: match le16(&raw, I_MODE) & 0xf000 {
                0x4000 => u64::from(le32(&raw, I_SIZE_LO)),
                _ => halves(&raw, (I_SIZE_LO, I_SIZE_HIGH)),
            },
            generation: le32(&raw, I_GENERATION),
            block,
        };
        if inode.mode == 0 || le16(&raw, I_LINKS_COUNT) == 0 {
            return Err(corrupt(offset, format!("inode {number} is not in use")));
        }
        Ok(inode)
    }

    /// The problem of an inode whose bytes do not have the checksum that they state: the kernel refuses it.
    pub fn checksum_problem(&self, inode: &Ext4Inode) -> Result<Option<String>, ImageError> {
        let mut raw = vec![0; self.inode_size as usize];
        read_at(&self.image, &mut raw, inode.offset)?;
        let problem = || {
            format!(
                "inode {} at byte {} does not have its checksum",
                inode.number, inode.offset
            )
        };
        Ok((!self.inode_fits(inode.number, &raw)).then(problem))
    }

    /// Offset and bytes of the descriptor of a group; the high halves are zeros in a descriptor of 32 bytes.
    pub(super) fn descriptor(&self, group: u64) -> Result<(u64, [u8; DESCRIPTOR_READ]), ImageError> {
        let at = self.groups.descriptor(group);
        let mut descriptor = [0; DESCRIPTOR_READ];
        let used = self.descriptor_size.min(DESCRIPTOR_READ as u64) as usize;
        read_at(&self.image, &mut descriptor[..used], at)?;
        Ok((at, descriptor))
    }

    /// Bytes of one inode.
    pub fn inode_size(&self) -> u64 {
        self.inode_size
    }

    /// Owner and times of an inode: uid, gid, and in seconds since 1970 mtime, ctime and atime.
    pub fn owner_and_times(&self, inode: &Ext4Inode) -> Result<[u32; 5], ImageError> {
        let mut raw = [0; INODE_READ];
        read_at(&self.image, &mut raw, inode.offset)?;
        let id = |(low, high)| u32::from(le16(&raw, low)) | u32::from(le16(&raw, high)) << 16;
        Ok([
            id(I_UID),
            id(I_GID),
            le32(&raw, I_MTIME),
            le32(&raw, I_CTIME),
            le32(&raw, I_ATIME),
        ])
    }
}
