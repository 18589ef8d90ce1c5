//! Directories and symbolic links.

use super::{
    Ext4, Ext4Inode, FileKind,
    format::{FLAG_EXTENTS, le16, le32},
    volume::corrupt,
};
use crate::{
    image::{ImageError, ReadAt},
    model::RelPath,
};
use std::collections::BTreeMap;

/// A larger directory is refused, bytes.
const MAX_DIRECTORY: u64 = 64 << 20;
/// A longer target of a symbolic link is refused (`PATH_MAX`).
const MAX_LINK: u64 = 4096;

/// A directory entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// The name: no NUL, no `/`, not `.` or `..`.
    pub name: Vec<u8>,
    /// Number of the inode.
    pub inode: u32,
}

impl<R: ReadAt> Ext4<R> {
    /// The entries of a directory, sorted by name.
    pub fn read_dir(&self, inode: &Ext4Inode) -> Result<Vec<DirEntry>, ImageError> {
        let bad = |problem: String| corrupt(inode.offset, format!("directory, inode {}: {problem}", inode.number));
        if inode.kind() != FileKind::Directory {
            return Err(bad("it is not a directory".to_owned()));
        }
        if inode.size > MAX_DIRECTORY || !inode.size.is_multiple_of(self.block_size) {
            return Err(bad(format!(
                "its size of {} bytes is not a whole number of blocks up to 64 MiB",
                inode.size
            )));
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
                    return Err(bad(format!(
                        "the entry at byte {at} of block {logical} does not fit its block"
                    )));
                }
                let number = le32(&block, at);
                let name = &block[at + 8..at + 8 + name_len];
                at += rec_len;
                // Entries of inode 0 are unused; an index of the directory hides in them.
                if number == 0 || name == b"." || name == b".." {
                    continue;
                }
                if name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
                    return Err(bad(format!("\"{}\" is not a valid name", name.escape_ascii())));
                }
                if found.insert(name.to_vec(), number).is_some() {
                    return Err(bad(format!("two entries have the name \"{}\"", name.escape_ascii())));
                }
            }
        }
        let entries = found.into_iter();
        Ok(entries.map(|(name, inode)| DirEntry { name, inode }).collect())
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
        // A short target is stored in the place of the extent tree.
        if target.len() < inode.block.len() && inode.flags & FLAG_EXTENTS == 0 {
            target.copy_from_slice(&inode.block[..inode.size as usize]);
        } else {
            self.read_mapped(&self.extents(inode)?, &mut target, 0)?;
        }
        Ok(target)
    }
}
