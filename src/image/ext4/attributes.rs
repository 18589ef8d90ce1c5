//! Extended attributes, in the inode behind its fields and in a block of their own, and inline data, of which one holds a part.
//!
//! ```text
//! inode     128 + i_extra_isize: le32 0xea020000, then entries; values are counted from the first entry
//! block     le32 0xea020000, 28 further bytes, then entries; values are counted from the begin of the block
//! entry     length of the name, index of the prefix, le16 offset of the value, le32 inode of the value or 0, le32 its size, le32 hash,
//!           name; padded to 4. A zero word is the end.
//! inline    the first 60 bytes lie in i_block, the rest is the value of "system.data"
//! ```
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/attributes.html>, `…/inlinedata.html`.

use super::{
    Ext4, Ext4Inode,
    extents::DataRun,
    format::{
        FLAG_ENCRYPT, FLAG_INLINE_DATA, I_BLOCK, I_BLOCK_SIZE, I_EXTRA_ISIZE, I_FILE_ACL_HIGH, I_FILE_ACL_LO,
        INODE_READ, le16, le32,
    },
    volume::{corrupt, read_at},
};
use crate::image::{ImageError, ReadAt};

const MAGIC: u32 = 0xea02_0000;
/// Bytes of the header in a block, and of an entry without its name.
const BLOCK_HEADER: usize = 32;
const ENTRY: usize = 16;
/// Largest value (`XATTR_SIZE_MAX`), and attributes of one inode that are read.
const MAX_VALUE: u64 = 64 << 10;
const MAX_ATTRIBUTES: usize = 4096;
/// Prefix of the index 7, and the name behind it of the rest of inline data.
const SYSTEM: u8 = 7;
const DATA: &[u8] = b"data";

/// An extended attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ext4Attribute {
    /// Name with its prefix.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// An entry: its name, and the place of its value.
struct Entry {
    index: u8,
    name: Vec<u8>,
    /// Offset of the value in the bytes that hold the entry.
    at: usize,
    size: u64,
    /// Inode that holds the value; 0 for a value beside the entries.
    inode: u32,
}

/// Prefix of an index.
const fn prefix(index: u8) -> &'static [u8] {
    match index {
        0 => b"",
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        SYSTEM => b"system.",
        8 => b"system.richacl",
        9 => b"encryption.",
        10 => b"hurd.",
        _ => b"(unknown prefix).",
    }
}

/// The entries in `bytes` from `first` on; offsets of values are counted from `base`. The error is the problem with them.
fn entries(bytes: &[u8], first: usize, base: usize) -> Result<Vec<Entry>, String> {
    let mut out = Vec::new();
    let mut at = first;
    while at + 4 <= bytes.len() && le32(bytes, at) != 0 {
        let Some(name) = bytes.get(at + ENTRY..at + ENTRY + usize::from(bytes[at])) else {
            return Err(format!("the extended attribute at byte {at} does not fit its place"));
        };
        let entry = Entry {
            index: bytes[at + 1],
            name: name.to_vec(),
            at: base + usize::from(le16(bytes, at + 2)),
            inode: le32(bytes, at + 4),
            size: u64::from(le32(bytes, at + 8)),
        };
        let fits = usize::try_from(entry.size).is_ok_and(|size| bytes.len().saturating_sub(entry.at) >= size);
        if entry.inode == 0 && !fits {
            return Err(format!(
                "the value of the extended attribute at byte {at} does not fit its place"
            ));
        }
        at += (ENTRY + name.len()).next_multiple_of(4);
        out.push(entry);
        if out.len() > MAX_ATTRIBUTES {
            return Err(format!("it has more than {MAX_ATTRIBUTES} extended attributes"));
        }
    }
    Ok(out)
}

impl Ext4Inode {
    /// Whether the data, or the first of them, lie in the inode itself.
    pub fn is_inline(&self) -> bool {
        self.flags & FLAG_INLINE_DATA != 0
    }
    /// Whether content and names are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.flags & FLAG_ENCRYPT != 0
    }
}

impl<R: ReadAt> Ext4<R> {
    /// The entries within an inode, with the bytes that hold them.
    fn own_entries(&self, inode: &Ext4Inode) -> Result<(Vec<u8>, Vec<Entry>), ImageError> {
        let mut raw = vec![0; self.inode_size as usize];
        read_at(&self.image, &mut raw, inode.offset)?;
        let first = INODE_READ + usize::from(le16(&raw, I_EXTRA_ISIZE)) + 4;
        // An inode of 128 bytes has no place for attributes.
        if raw.len() <= INODE_READ || first > raw.len() || le32(&raw, first - 4) != MAGIC {
            return Ok((raw, Vec::new()));
        }
        let found = entries(&raw, first, first).map_err(|problem| bad(inode, &problem))?;
        Ok((raw, found))
    }

    /// Offset of the block with extended attributes of an inode; `None` when it has none.
    pub fn attribute_block(&self, inode: &Ext4Inode) -> Result<Option<u64>, ImageError> {
        let mut raw = [0; INODE_READ];
        read_at(&self.image, &mut raw, inode.offset)?;
        let number = u64::from(le32(&raw, I_FILE_ACL_LO)) | u64::from(le16(&raw, I_FILE_ACL_HIGH)) << 32;
        if number >= self.blocks {
            let problem = format!(
                "its extended attributes are said to be at block {number} of {}",
                self.blocks
            );
            return Err(bad(inode, &problem));
        }
        Ok((number > 0).then(|| number * self.block_size))
    }

    /// The extended attributes of an inode, those in the inode first; inline data are none.
    pub fn attributes(&self, inode: &Ext4Inode) -> Result<Vec<Ext4Attribute>, ImageError> {
        let mut found = vec![self.own_entries(inode)?];
        if let Some(at) = self.attribute_block(inode)? {
            let mut block = vec![0; self.block_size as usize];
            read_at(&self.image, &mut block, at)?;
            if le32(&block, 0) != MAGIC {
                return Err(corrupt(
                    at,
                    format!("inode {}: no block of extended attributes", inode.number),
                ));
            }
            let listed = entries(&block, BLOCK_HEADER, 0).map_err(|problem| bad(inode, &problem))?;
            found.push((block, listed));
        }
        let mut out = Vec::new();
        for (bytes, entry) in found
            .iter()
            .flat_map(|(bytes, list)| list.iter().map(move |entry| (bytes, entry)))
        {
            if inode.is_inline() && entry.index == SYSTEM && entry.name == DATA {
                continue;
            }
            let value = match entry.inode {
                0 => bytes[entry.at..entry.at + entry.size as usize].to_vec(),
                number => self.value_of(inode, number, entry.size)?,
            };
            let name = [prefix(entry.index), &entry.name].concat();
            out.push(Ext4Attribute { name, value });
        }
        Ok(out)
    }

    /// A value that fills an inode of its own, with the feature ea_inode.
    fn value_of(&self, inode: &Ext4Inode, number: u32, size: u64) -> Result<Vec<u8>, ImageError> {
        let holder = self.inode(number)?;
        if size > MAX_VALUE || size > holder.size {
            let problem = format!(
                "the value of an extended attribute has {size} bytes, inode {number} {}",
                holder.size
            );
            return Err(bad(inode, &problem));
        }
        let mut value = vec![0; size as usize];
        self.read_mapped(&self.extents(&holder)?, &mut value, 0)?;
        Ok(value)
    }

    /// The places of the bytes of an inode with inline data; the second is there when they do not fit the place of the extent tree.
    pub(super) fn inline_runs(&self, inode: &Ext4Inode) -> Result<Vec<DataRun>, ImageError> {
        let run = |at: u64, from: u64, len: u64| DataRun {
            at,
            from: Some(from),
            len,
        };
        let first = inode.size.min(I_BLOCK_SIZE as u64);
        let mut runs = vec![run(0, inode.offset + I_BLOCK as u64, first)];
        let rest = inode.size - first;
        let (_, own) = self.own_entries(inode)?;
        let data = own.iter().find(|e| e.index == SYSTEM && e.name == DATA && e.inode == 0);
        let stored = data.map_or(0, |entry| entry.size);
        if rest > stored {
            let problem = format!(
                "it has {} bytes of inline data, of which {} are there",
                inode.size,
                first + stored
            );
            return Err(bad(inode, &problem));
        }
        if let Some(entry) = data.filter(|_| rest > 0) {
            runs.push(run(first, inode.offset + entry.at as u64, rest));
        }
        Ok(runs)
    }

    /// The bytes of an inode with inline data.
    pub(super) fn inline_bytes(&self, inode: &Ext4Inode) -> Result<Vec<u8>, ImageError> {
        let mut out = Vec::new();
        for run in self.inline_runs(inode)? {
            let mut piece = vec![0; run.len as usize];
            read_at(&self.image, &mut piece, run.from.unwrap_or_default())?;
            out.extend(piece);
        }
        Ok(out)
    }
}

fn bad(inode: &Ext4Inode, problem: &str) -> ImageError {
    corrupt(inode.offset, format!("inode {}: {problem}", inode.number))
}
