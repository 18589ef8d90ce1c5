//! Reads ext4 that anybody may have made: nothing is trusted, every loop ends, memory does not grow with what a field claims.
//!
//! ```text
//! byte 1024                superblock
//! block s_first_data_block+1   group descriptors, 32 or s_desc_size bytes each
//! inode n                  entry (n-1) % s_inodes_per_group of the table of group (n-1) / s_inodes_per_group
//! i_block                  root of the extent tree: header of 12 bytes, then entries of 12 bytes, sorted
//! directory                entries of 8 bytes and a name, filling each block; an index hides in entries of inode 0
//! verity                   behind the data at the next 64 KiB: Merkle tree; descriptor and its le32 length end the last block
//! ```
//!
//! Only what a read-only image without journal needs: extents, no block maps, no inline data, no encryption. Source:
//! <https://docs.kernel.org/filesystems/ext4/>; verity: `fs/ext4/verity.c`.

use crate::{
    image::{ImageError, ReadAt},
    model::RelPath,
    verity::{DESCRIPTOR_SIZE, MerkleTree},
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};

const FORMAT: &str = "an ext4 image";
/// Where the superblock begins, and how much of it is read.
const SUPERBLOCK_OFFSET: u64 = 1024;
const SUPERBLOCK_SIZE: usize = 1024;
const MAGIC: u16 = 0xef53;
const EXTENT_MAGIC: u16 = 0xf30a;
/// The root directory's inode.
const ROOT_INODE: u32 = 2;
/// INCOMPAT features this reader understands: filetype, extents, 64bit, flex_bg, csum_seed, largedir.
const KNOWN_INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200 | 0x2000 | 0x4000;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_64BIT: u32 = 0x80;
/// i_flags.
const FLAG_ENCRYPT: u32 = 0x800;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_VERITY: u32 = 0x10_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;
/// Extents longer than this are allocated but not written: they read as zeros.
const MAX_WRITTEN: u16 = 0x8000;
/// Depth of an extent tree, `EXT4_MAX_EXTENT_DEPTH`.
const MAX_DEPTH: u16 = 5;
/// More extents than this in one file are refused: 16 MiB of memory.
const MAX_EXTENTS: usize = 1 << 19;
/// A larger directory is refused, bytes.
const MAX_DIRECTORY: u64 = 64 << 20;
/// A longer target of a symbolic link is refused, `PATH_MAX`.
const MAX_LINK: u64 = 4096;
/// The verity metadata begins at the next multiple of this behind the data.
const VERITY_ALIGN: u64 = 65536;

/// What an inode is.
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

/// An inode, as it stands in its table.
#[derive(Clone, Debug)]
pub struct Inode {
    number: u32,
    /// Where it lies in the image.
    offset: u64,
    mode: u16,
    flags: u32,
    size: u64,
    block: [u8; 60],
}

impl Inode {
    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }
    /// What it is.
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
    /// Length of its data in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Whether the kernel checks every read against its Merkle tree.
    pub fn has_verity(&self) -> bool {
        self.flags & FLAG_VERITY != 0
    }
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// The name: no NUL, no `/`, not `.` or `..`.
    pub name: Vec<u8>,
    /// The inode it stands for.
    pub inode: u32,
}

/// What an inode with verity carries behind its data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerityTail {
    /// The Merkle tree, root level first.
    pub tree: Vec<u8>,
    /// `struct fsverity_descriptor`.
    pub descriptor: [u8; DESCRIPTOR_SIZE],
}

/// A run of blocks.
#[derive(Clone, Copy, Debug)]
struct Extent {
    logical: u64,
    len: u64,
    /// First block in the image; none for blocks that were never written.
    physical: Option<u64>,
}

/// An ext4 file system.
#[derive(Debug)]
pub struct Ext4<R> {
    image: R,
    block_size: u64,
    blocks: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_size: u64,
    descriptors: u64,
    descriptor_size: u64,
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}
fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

fn corrupt(offset: u64, problem: impl Into<String>) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem: problem.into(),
    }
}

impl<R: ReadAt> Ext4<R> {
    /// Reads the superblock. The image must be whole: as long as its superblock says, or longer.
    pub fn open(image: R) -> Result<Self, ImageError> {
        let bad = |problem: String| corrupt(SUPERBLOCK_OFFSET, problem);
        let mut sb = [0; SUPERBLOCK_SIZE];
        read_at(&image, &mut sb, SUPERBLOCK_OFFSET)?;
        if le16(&sb, 0x38) != MAGIC {
            return Err(bad(format!("magic is {:#06x}, not {MAGIC:#06x}", le16(&sb, 0x38))));
        }
        let incompat = le32(&sb, 0x60);
        if incompat & !KNOWN_INCOMPAT != 0 || incompat & INCOMPAT_FILETYPE == 0 {
            return Err(bad(format!("features {incompat:#x} are not read here")));
        }
        let log = le32(&sb, 0x18);
        if log > 5 {
            return Err(bad(format!("block size is 2^{} bytes", u64::from(log) + 10)));
        }
        let block_size = 1024u64 << log;
        let high = |at| {
            if incompat & INCOMPAT_64BIT != 0 {
                u64::from(le32(&sb, at))
            } else {
                0
            }
        };
        let blocks = u64::from(le32(&sb, 0x4)) | high(0x150) << 32;
        let size = image.size().map_err(|source| ImageError::Input {
            format: FORMAT,
            offset: 0,
            source,
        })?;
        if blocks.checked_mul(block_size).is_none_or(|need| need > size) {
            let problem =
                format!("it says it has {blocks} blocks of {block_size} bytes, but the image has {size} bytes");
            return Err(bad(problem));
        }
        let inode_size = if le32(&sb, 0x4c) == 0 {
            128
        } else {
            u64::from(le16(&sb, 0x58))
        };
        if !inode_size.is_power_of_two() || !(128..=block_size).contains(&inode_size) {
            return Err(bad(format!("inodes have {inode_size} bytes")));
        }
        let descriptor_size = match incompat & INCOMPAT_64BIT {
            0 => 32,
            _ => u64::from(le16(&sb, 0xfe)),
        };
        if !descriptor_size.is_power_of_two() || !(32..=1024).contains(&descriptor_size) {
            return Err(bad(format!("group descriptors have {descriptor_size} bytes")));
        }
        let (inodes, inodes_per_group) = (le32(&sb, 0), le32(&sb, 0x28));
        if inodes_per_group == 0 || inodes < ROOT_INODE {
            return Err(bad(format!("it has {inodes} inodes in groups of {inodes_per_group}")));
        }
        Ok(Self {
            image,
            block_size,
            blocks,
            inodes,
            inodes_per_group,
            inode_size,
            descriptors: (u64::from(le32(&sb, 0x14)) + 1) * block_size,
            descriptor_size,
        })
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> u64 {
        self.block_size
    }

    /// The root directory.
    pub fn root(&self) -> Result<Inode, ImageError> {
        self.inode(ROOT_INODE)
    }

    /// Inode `number`.
    pub fn inode(&self, number: u32) -> Result<Inode, ImageError> {
        if number == 0 || number > self.inodes {
            return Err(corrupt(
                0,
                format!("inode {number} does not exist (there are {})", self.inodes),
            ));
        }
        let group = u64::from((number - 1) / self.inodes_per_group);
        let index = u64::from((number - 1) % self.inodes_per_group);
        let at = self.descriptors + group * self.descriptor_size;
        let mut descriptor = [0; 64];
        let used = self.descriptor_size.min(64) as usize;
        read_at(&self.image, &mut descriptor[..used], at)?;
        let table = u64::from(le32(&descriptor, 0x8)) | u64::from(le32(&descriptor, 0x28)) << 32;
        if table == 0 || table >= self.blocks {
            return Err(corrupt(
                at,
                format!("the inode table of group {group} is at block {table}"),
            ));
        }
        let offset = table * self.block_size + index * self.inode_size;
        let mut raw = [0; 128];
        read_at(&self.image, &mut raw, offset)?;
        let mut block = [0; 60];
        block.copy_from_slice(&raw[0x28..0x64]);
        let inode = Inode {
            number,
            offset,
            mode: le16(&raw, 0),
            flags: le32(&raw, 0x20),
            size: u64::from(le32(&raw, 0x4)) | u64::from(le32(&raw, 0x6c)) << 32,
            block,
        };
        if inode.mode == 0 || le16(&raw, 0x1a) == 0 {
            return Err(corrupt(offset, format!("inode {number} is not in use")));
        }
        if inode.flags & (FLAG_ENCRYPT | FLAG_INLINE_DATA) != 0 {
            return Err(corrupt(offset, format!("inode {number} has flags {:#x}", inode.flags)));
        }
        Ok(inode)
    }

    /// What a directory holds, sorted by name.
    pub fn read_dir(&self, inode: &Inode) -> Result<Vec<DirEntry>, ImageError> {
        let bad = |problem: String| corrupt(inode.offset, format!("directory, inode {}: {problem}", inode.number));
        if inode.kind() != FileKind::Directory {
            return Err(bad("it is no directory".to_owned()));
        }
        if inode.size > MAX_DIRECTORY || !inode.size.is_multiple_of(self.block_size) {
            return Err(bad(format!("it has {} bytes", inode.size)));
        }
        let extents = self.extents(inode)?;
        let mut found = BTreeMap::new();
        let mut block = vec![0; self.block_size as usize];
        for logical in 0..inode.size / self.block_size {
            self.read_mapped(&extents, &mut block, logical * self.block_size)?;
            let mut at = 0;
            while at < block.len() {
                let rec_len = usize::from(le16(&block, at + 4));
                let name_len = block.get(at + 6).map_or(0, |n| usize::from(*n));
                if rec_len < 8 || !rec_len.is_multiple_of(4) || rec_len > block.len() - at || name_len + 8 > rec_len {
                    return Err(bad(format!("broken entry at byte {at} of its block {logical}")));
                }
                let number = le32(&block, at);
                let name = &block[at + 8..at + 8 + name_len];
                at += rec_len;
                if number == 0 || name == b"." || name == b".." {
                    continue;
                }
                if name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
                    return Err(bad(format!("bad name \"{}\"", name.escape_ascii())));
                }
                if found.insert(name.to_vec(), number).is_some() {
                    return Err(bad(format!("\"{}\" is there twice", name.escape_ascii())));
                }
            }
        }
        let entries = found.into_iter();
        Ok(entries.map(|(name, inode)| DirEntry { name, inode }).collect())
    }

    /// The inode at `path`, through directories only; `None` when nothing is there.
    pub fn lookup(&self, path: &RelPath) -> Result<Option<Inode>, ImageError> {
        let mut inode = self.root()?;
        for component in path.components() {
            if inode.kind() != FileKind::Directory {
                return Ok(None);
            }
            let entries = self.read_dir(&inode)?;
            let Ok(index) = entries.binary_search_by(|e| e.name.as_slice().cmp(component)) else {
                return Ok(None);
            };
            inode = self.inode(entries[index].inode)?;
        }
        Ok(Some(inode))
    }

    /// Where a symbolic link points.
    pub fn read_link(&self, inode: &Inode) -> Result<Vec<u8>, ImageError> {
        if inode.kind() != FileKind::Symlink || inode.size >= MAX_LINK {
            let problem = format!("inode {} is no usable symbolic link", inode.number);
            return Err(corrupt(inode.offset, problem));
        }
        let mut target = vec![0; inode.size as usize];
        if target.len() < inode.block.len() && inode.flags & FLAG_EXTENTS == 0 {
            target.copy_from_slice(&inode.block[..inode.size as usize]);
        } else {
            self.read_mapped(&self.extents(inode)?, &mut target, 0)?;
        }
        Ok(target)
    }

    /// Reads a regular file from its first byte.
    pub fn file(&self, inode: &Inode) -> Result<FileReader<'_, R>, ImageError> {
        if inode.kind() != FileKind::File {
            return Err(corrupt(
                inode.offset,
                format!("inode {} is no regular file", inode.number),
            ));
        }
        Ok(FileReader {
            fs: self,
            extents: self.extents(inode)?,
            size: inode.size,
            position: 0,
        })
    }

    /// The Merkle tree and the descriptor behind a file's data, found as the kernel finds them. `None` without verity.
    pub fn verity(&self, inode: &Inode) -> Result<Option<VerityTail>, ImageError> {
        if !inode.has_verity() {
            return Ok(None);
        }
        let bad = |problem: String| corrupt(inode.offset, format!("verity of inode {}: {problem}", inode.number));
        let extents = self.extents(inode)?;
        let end = extents.last().map_or(0, |e| (e.logical + e.len) * self.block_size);
        let tree_at = inode.size.checked_next_multiple_of(VERITY_ALIGN);
        let tree_size = MerkleTree::size(inode.size);
        let tree_end = tree_at.and_then(|at| at.checked_add(tree_size));
        let (Some(tree_at), Some(tree_end)) = (tree_at, tree_end.filter(|e| *e < end)) else {
            return Err(bad("there is nothing behind the data".to_owned()));
        };
        let mut length = [0; 4];
        self.read_mapped(&extents, &mut length, end - 4)?;
        let length = u64::from(u32::from_le_bytes(length));
        let descriptor_at = (end - 4)
            .checked_sub(length)
            .map(|at| at / self.block_size * self.block_size);
        let Some(descriptor_at) = descriptor_at.filter(|at| length == DESCRIPTOR_SIZE as u64 && *at >= tree_end) else {
            return Err(bad(format!("the descriptor has {length} bytes, not {DESCRIPTOR_SIZE}")));
        };
        let mut descriptor = [0; DESCRIPTOR_SIZE];
        self.read_mapped(&extents, &mut descriptor, descriptor_at)?;
        // Extents may claim the same blocks over and over, so memory is bounded by what the image has.
        let stored = extents.iter().map(|e| e.len).sum::<u64>().min(self.blocks) * self.block_size;
        if tree_size > stored {
            return Err(bad("the Merkle tree is not stored".to_owned()));
        }
        let mut tree = vec![0; tree_size as usize];
        self.read_mapped(&extents, &mut tree, tree_at)?;
        Ok(Some(VerityTail { tree, descriptor }))
    }

    /// Every run of blocks of an inode, sorted, none overlapping, all inside the image.
    fn extents(&self, inode: &Inode) -> Result<Vec<Extent>, ImageError> {
        if inode.flags & FLAG_EXTENTS == 0 {
            // An empty file or a device may have no map at all.
            if inode.block.iter().all(|b| *b == 0) {
                return Ok(Vec::new());
            }
            return Err(corrupt(inode.offset, format!("inode {} has no extents", inode.number)));
        }
        let mut out = Vec::new();
        let depth = le16(&inode.block, 6);
        if depth > MAX_DEPTH {
            return Err(corrupt(inode.offset + 0x28, format!("extent tree of depth {depth}")));
        }
        self.extent_node(&inode.block, inode.offset + 0x28, depth, true, &mut out)?;
        Ok(out)
    }

    fn extent_node(
        &self,
        node: &[u8],
        at: u64,
        depth: u16,
        root: bool,
        out: &mut Vec<Extent>,
    ) -> Result<(), ImageError> {
        let (magic, count) = (le16(node, 0), usize::from(le16(node, 2)));
        // A node below the root holds something: so every node that is visited brings the end nearer.
        if magic != EXTENT_MAGIC || le16(node, 6) != depth || 12 + count * 12 > node.len() || (count == 0 && !root) {
            let problem = format!(
                "extent node with magic {magic:#06x}, {count} entries, depth {}",
                le16(node, 6)
            );
            return Err(corrupt(at, problem));
        }
        for entry in node[12..12 + count * 12].as_chunks::<12>().0 {
            if depth == 0 {
                let extent = self.extent(entry, at, out.last())?;
                out.push(extent);
                if out.len() > MAX_EXTENTS {
                    return Err(corrupt(at, format!("a file has more than {MAX_EXTENTS} extents")));
                }
                continue;
            }
            let block = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
            if block == 0 || block >= self.blocks {
                return Err(corrupt(at, format!("extent node at block {block} of {}", self.blocks)));
            }
            let mut child = vec![0; self.block_size as usize];
            let child_at = block * self.block_size;
            read_at(&self.image, &mut child, child_at)?;
            self.extent_node(&child, child_at, depth - 1, false, out)?;
        }
        Ok(())
    }

    fn extent(&self, entry: &[u8; 12], at: u64, last: Option<&Extent>) -> Result<Extent, ImageError> {
        let logical = u64::from(le32(entry, 0));
        let len = le16(entry, 4);
        let start = u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32;
        let (len, written) = match len {
            ..=MAX_WRITTEN => (len, true),
            _ => (len - MAX_WRITTEN, false),
        };
        let len = u64::from(len);
        let after = last.map_or(0, |e| e.logical + e.len);
        if len == 0 || logical < after || start == 0 || start + len > self.blocks {
            let problem = format!(
                "extent of {len} blocks at {logical}, stored at block {start} of {}",
                self.blocks
            );
            return Err(corrupt(at, problem));
        }
        Ok(Extent {
            logical,
            len,
            physical: written.then_some(start),
        })
    }

    /// Fills `buffer` with a file's bytes at `position`; what no extent covers reads as zeros.
    fn read_mapped(&self, extents: &[Extent], mut buffer: &mut [u8], mut position: u64) -> Result<(), ImageError> {
        while !buffer.is_empty() {
            let logical = position / self.block_size;
            let next = extents.partition_point(|e| e.logical + e.len <= logical);
            let (physical, until) = match extents.get(next) {
                Some(e) if e.logical <= logical => {
                    let physical = e.physical.map(|p| p + (logical - e.logical));
                    (physical, (e.logical + e.len) * self.block_size)
                }
                Some(e) => (None, e.logical * self.block_size),
                None => (None, u64::MAX),
            };
            let n = usize::try_from(until - position).map_or(buffer.len(), |n| n.min(buffer.len()));
            let (now, rest) = buffer.split_at_mut(n);
            match physical {
                Some(block) => read_at(&self.image, now, block * self.block_size + position % self.block_size)?,
                None => now.fill(0),
            }
            buffer = rest;
            position += n as u64;
        }
        Ok(())
    }
}

fn read_at<R: ReadAt>(image: &R, buffer: &mut [u8], offset: u64) -> Result<(), ImageError> {
    image
        .read_exact_at(buffer, offset)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => corrupt(offset, "the image ends before that"),
            _ => ImageError::Input {
                format: FORMAT,
                offset,
                source,
            },
        })
}

/// The bytes of a regular file.
#[derive(Debug)]
pub struct FileReader<'a, R> {
    fs: &'a Ext4<R>,
    extents: Vec<Extent>,
    size: u64,
    position: u64,
}

impl<R: ReadAt> Read for FileReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.position;
        let n = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.fs
            .read_mapped(&self.extents, &mut buffer[..n], self.position)
            .map_err(io::Error::other)?;
        self.position += n as u64;
        Ok(n)
    }
}

mod places;

pub use places::{Facts, Place, Run};
