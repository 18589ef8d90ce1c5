//! Directories and symbolic links.

use super::{
    Ext4, Ext4Inode, FileKind,
    format::{FLAG_EXTENTS, I_BLOCK_SIZE, le16, le32},
    volume::corrupt,
};
use crate::{
    image::{ImageError, ReadAt},
    model::RelPath,
};
use std::collections::BTreeMap;

/// A larger directory is refused, bytes.
const MAX_DIRECTORY: u64 = 64 << 20;
/// Damages of one directory that are kept.
const MAX_DAMAGE: usize = 16;
/// A longer target of a symbolic link is refused (`PATH_MAX`).
const MAX_LINK: u64 = 4096;

/// A directory entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// The name, not `.` or `..`: no NUL, no `/`; of an encrypted directory the encrypted name, any bytes.
    pub name: Vec<u8>,
    /// Number of the inode.
    pub inode: u32,
}

/// The entries found so far, and the damage; errors above [`MAX_DAMAGE`] are not kept.
#[derive(Default)]
struct Listing {
    found: BTreeMap<Vec<u8>, u32>,
    problems: Vec<ImageError>,
    /// An encrypted name consists of any bytes.
    encrypted: bool,
}

impl Listing {
    fn add(&mut self, error: ImageError) {
        if self.problems.len() < MAX_DAMAGE {
            self.problems.push(error);
        }
    }

    /// Adds the entries of a block, up to one that does not fit.
    fn block(&mut self, block: &[u8], logical: u64, bad: &dyn Fn(String) -> ImageError) {
        let mut at = 0;
        while at < block.len() {
            let rec_len = record_len(le16(block, at + 4), block.len());
            let name_len = block.get(at + 6).map_or(0, |n| usize::from(*n));
            if rec_len < 8 || !rec_len.is_multiple_of(4) || rec_len > block.len() - at || name_len + 8 > rec_len {
                return self.add(bad(format!(
                    "the entry at byte {at} of block {logical} does not fit its block"
                )));
            }
            let number = le32(block, at);
            let name = &block[at + 8..at + 8 + name_len];
            at += rec_len;
            // Entries of inode 0 are unused; an index of the directory hides in them.
            if number == 0 || name == b"." || name == b".." {
                continue;
            }
            if name.is_empty() || !self.encrypted && name.iter().any(|b| matches!(b, 0 | b'/')) {
                self.add(bad(format!("\"{}\" is not a valid name", name.escape_ascii())));
            } else if self.found.insert(name.to_vec(), number).is_some() {
                self.add(bad(format!("two entries have the name \"{}\"", name.escape_ascii())));
            }
        }
    }

    fn done(self) -> (Vec<DirEntry>, Vec<ImageError>) {
        let entries = self.found.into_iter();
        (
            entries.map(|(name, inode)| DirEntry { name, inode }).collect(),
            self.problems,
        )
    }
}

/// Length of an entry. In blocks of 64 KiB, 0 and 65535 stand for the whole block, and the low two bits are the high ones.
fn record_len(stored: u16, block: usize) -> usize {
    const WHOLE: usize = 1 << 16;
    match stored {
        0 | 0xffff if block == WHOLE => WHOLE,
        _ if block == WHOLE => usize::from(stored & 0xfffc) | usize::from(stored & 3) << 16,
        _ => usize::from(stored),
    }
}

impl<R: ReadAt> Ext4<R> {
    /// The entries of a directory, sorted by name.
    pub fn read_dir(&self, inode: &Ext4Inode) -> Result<Vec<DirEntry>, ImageError> {
        let (found, problems) = self.list_dir(inode)?;
        match problems.into_iter().next() {
            None => Ok(found),
            Some(error) => Err(error),
        }
    }

    /// The entries of a directory that can be read, sorted by name, and the damage because of which others are missing.
    pub fn list_dir(&self, inode: &Ext4Inode) -> Result<(Vec<DirEntry>, Vec<ImageError>), ImageError> {
        let bad = |problem: String| corrupt(inode.offset, format!("directory, inode {}: {problem}", inode.number));
        if inode.kind() != FileKind::Directory {
            return Err(bad("it is not a directory".to_owned()));
        }
        let mut listing = Listing {
            encrypted: inode.is_encrypted(),
            ..Listing::default()
        };
        if inode.is_inline() {
            // The first four bytes are the parent; the entries behind them and those of the second place do not know of each other.
            let data = self.inline_bytes(inode)?;
            let (first, rest) = data.split_at(data.len().min(I_BLOCK_SIZE));
            for (number, entries) in [first.get(4..).unwrap_or_default(), rest].into_iter().enumerate() {
                listing.block(entries, number as u64, &bad);
            }
            return Ok(listing.done());
        }
        if inode.size > MAX_DIRECTORY || !inode.size.is_multiple_of(self.block_size) {
            return Err(bad(format!(
                "its size of {} bytes is not a whole number of blocks up to 64 MiB",
                inode.size
            )));
        }
        let extents = self.extents(inode)?;
        let mut block = vec![0; self.block_size as usize];
        for logical in 0..inode.size / self.block_size {
            if let Err(error) = self.read_mapped(&extents, &mut block, logical * self.block_size) {
                listing.add(error);
                continue;
            }
            if !self.directory_block_fits(inode, &block) {
                listing.add(bad(format!("block {logical} does not have its checksum")));
            }
            listing.block(&block, logical, &bad);
        }
        Ok(listing.done())
    }

    /// The inode at `path`; `None` when there is none. Symbolic links are not followed.
    pub fn lookup(&self, path: &RelPath) -> Result<Option<Ext4Inode>, ImageError> {
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

    /// The target of a symbolic link.
    pub fn read_link(&self, inode: &Ext4Inode) -> Result<Vec<u8>, ImageError> {
        if inode.kind() != FileKind::Symlink || inode.size >= MAX_LINK {
            let problem = format!("inode {} is not a symbolic link of at most 4095 bytes", inode.number);
            return Err(corrupt(inode.offset, problem));
        }
        let mut target = vec![0; inode.size as usize];
        if inode.is_inline() {
            return self.inline_bytes(inode);
        }
        // A short target is stored in the place of the extent tree.
        if target.len() < inode.block.len() && inode.flags & FLAG_EXTENTS == 0 {
            target.copy_from_slice(&inode.block[..inode.size as usize]);
        } else {
            self.read_mapped(&self.extents(inode)?, &mut target, 0)?;
        }
        Ok(target)
    }
}
