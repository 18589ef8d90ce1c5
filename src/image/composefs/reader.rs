//! What a composefs image refers to, read from its bytes. Nothing in them is taken on trust: whatever points outside the
//! image, or in a circle, is an error.

use super::{
    FORMAT,
    format::{
        BLOCK, BLOCK_BITS, COMPACT_SIZE, DIRENT_SIZE, DataLayout, EROFS_MAGIC, EXTENDED_SIZE, SB_BLOCK_BITS,
        SB_ROOT_NID, SB_XATTR_BLOCK, SLOT, SUPERBLOCK_OFFSET, XATTR_BODY_SIZE, XATTR_ENTRY_SIZE, XATTR_UNIT,
    },
    xattr::{METACOPY_PREFIX, METACOPY_SUFFIX, OVERLAY_INDEX, REDIRECT_SUFFIX, redirect_to},
};
use crate::{image::ImageError, model::VerityDigest};
use std::collections::BTreeSet;

/// `S_IFMT` and `S_IFDIR`.
const TYPE_MASK: u16 = 0o170_000;
const TYPE_DIRECTORY: u16 = 0o040_000;

/// Digests of the objects the files of `image`, a whole composefs image, refer to. Memory: a set of its inodes.
pub fn referenced_objects(image: &[u8]) -> Result<BTreeSet<VerityDigest>, ImageError> {
    let reader = Reader(image);
    if reader.u32(SUPERBLOCK_OFFSET)? != EROFS_MAGIC {
        return Err(corrupt(SUPERBLOCK_OFFSET, "no EROFS superblock".to_owned()));
    }
    let bits = reader.bytes(SUPERBLOCK_OFFSET + SB_BLOCK_BITS as u64, 1)?[0];
    if bits != BLOCK_BITS {
        return Err(corrupt(
            SUPERBLOCK_OFFSET,
            format!("block size 2^{bits}, not 2^{BLOCK_BITS}"),
        ));
    }
    let shared = u64::from(reader.u32(SUPERBLOCK_OFFSET + SB_XATTR_BLOCK as u64)?) * BLOCK;
    let root = u64::from(reader.u16(SUPERBLOCK_OFFSET + SB_ROOT_NID as u64)?);
    let mut objects = BTreeSet::new();
    let mut seen = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(nid) = open.pop() {
        let inode = reader.inode(nid)?;
        objects.extend(reader.object(&inode, shared)?);
        if inode.mode & TYPE_MASK == TYPE_DIRECTORY {
            reader.directory(&inode, |child| {
                if seen.insert(child) {
                    open.push(child);
                }
            })?;
        }
    }
    Ok(objects)
}

mod list;

pub use list::{Listed, is_composefs, list};

struct Reader<'a>(&'a [u8]);

/// What is read of an inode.
struct RawInode {
    mode: u16,
    layout: u16,
    size: u64,
    /// First data block.
    block: u64,
    /// Byte offsets of the attributes, and of what is behind them.
    xattrs: u64,
    tail: u64,
}

impl<'a> Reader<'a> {
    fn bytes(&self, at: u64, len: u64) -> Result<&'a [u8], ImageError> {
        let end = at.checked_add(len).filter(|end| *end <= self.0.len() as u64);
        let found = end.and_then(|end| self.0.get(at as usize..end as usize));
        found.ok_or_else(|| corrupt(at, format!("{len} bytes lie outside of its {}", self.0.len())))
    }

    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], ImageError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(at, N as u64)?);
        Ok(out)
    }

    fn u16(&self, at: u64) -> Result<u16, ImageError> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    fn u32(&self, at: u64) -> Result<u32, ImageError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(&self, at: u64) -> Result<u64, ImageError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    fn inode(&self, nid: u64) -> Result<RawInode, ImageError> {
        let at = nid.saturating_mul(SLOT);
        let format = self.u16(at)?;
        let (head, size) = match format & 1 {
            0 => (COMPACT_SIZE, u64::from(self.u32(at + 8)?)),
            _ => (EXTENDED_SIZE, self.u64(at + 8)?),
        };
        self.bytes(at, head)?;
        let xattrs = at + head;
        let length = match u64::from(self.u16(at + 2)?) {
            0 => 0,
            count => XATTR_BODY_SIZE + (count - 1) * XATTR_UNIT,
        };
        self.bytes(xattrs, length)?;
        Ok(RawInode {
            mode: self.u16(at + 4)?,
            layout: format >> 1,
            size,
            block: self.u32(at + 16)?.into(),
            xattrs,
            tail: xattrs + length,
        })
    }

    /// Gives the inode number of every entry, `.` and `..` too.
    fn directory(&self, inode: &RawInode, mut child: impl FnMut(u64)) -> Result<(), ImageError> {
        let whole = match inode.layout {
            layout if layout == DataLayout::Plain as u16 => inode.size,
            layout if layout == DataLayout::Inline as u16 => inode.size / BLOCK * BLOCK,
            layout => return Err(corrupt(inode.xattrs, format!("a directory with data layout {layout}"))),
        };
        let start = inode.block * BLOCK;
        self.bytes(start, whole)?;
        let tail = inode.size - whole;
        self.bytes(inode.tail, tail)?;
        let blocks = (0..whole).step_by(BLOCK as usize);
        let blocks = blocks.map(|at| (start + at, BLOCK.min(whole - at)));
        for (at, len) in blocks.chain((tail > 0).then_some((inode.tail, tail))) {
            // The first name follows the last entry.
            let names = u64::from(self.u16(at + 8)?);
            if names > len {
                let problem = format!("the names of a directory block of {len} bytes begin at its byte {names}");
                return Err(corrupt(at, problem));
            }
            for entry in 0..names / DIRENT_SIZE {
                child(self.u64(at + entry * DIRENT_SIZE)?);
            }
        }
        Ok(())
    }

    /// The object the inode's attributes name, if they name one: by its digest and by its path, which must agree.
    fn object(&self, inode: &RawInode, shared: u64) -> Result<Option<VerityDigest>, ImageError> {
        if inode.tail == inode.xattrs {
            return Ok(None);
        }
        let (mut metacopy, mut redirect) = (None, None);
        let mut take = |attribute: &Raw<'a>| match (attribute.index, attribute.suffix) {
            (OVERLAY_INDEX, METACOPY_SUFFIX) => metacopy = Some(attribute.value),
            (OVERLAY_INDEX, REDIRECT_SUFFIX) => redirect = Some(attribute.value),
            _ => {}
        };
        let count = u64::from(self.bytes(inode.xattrs + 4, 1)?[0]);
        let mut at = inode.xattrs + XATTR_BODY_SIZE;
        for _ in 0..count {
            let reference = u64::from(self.u32(at)?);
            take(&self.attribute(shared + reference * XATTR_UNIT)?);
            at += XATTR_UNIT;
        }
        while at < inode.tail {
            let attribute = self.attribute(at)?;
            take(&attribute);
            at += attribute.size;
        }
        let (Some(metacopy), redirect) = (metacopy, redirect) else {
            return match redirect {
                None => Ok(None),
                Some(_) => Err(corrupt(inode.xattrs, "a redirect without a digest".to_owned())),
            };
        };
        let digest = metacopy.strip_prefix(&METACOPY_PREFIX);
        let Some(digest) = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok()) else {
            let problem = format!("\"{}\" is no fs-verity SHA-256 digest", metacopy.escape_ascii());
            return Err(corrupt(inode.xattrs, problem));
        };
        let digest = VerityDigest::new(digest);
        if redirect != Some(redirect_to(&digest).as_slice()) {
            let redirect = redirect.unwrap_or_default().escape_ascii();
            let problem = format!("the object {digest} is looked for at \"{redirect}\"");
            return Err(corrupt(inode.xattrs, problem));
        }
        Ok(Some(digest))
    }

    fn attribute(&self, at: u64) -> Result<Raw<'a>, ImageError> {
        let [suffix_len, index] = self.array(at)?;
        let value_len = u64::from(self.u16(at + 2)?);
        let suffix_at = at + XATTR_ENTRY_SIZE;
        let value_at = suffix_at + u64::from(suffix_len);
        Ok(Raw {
            index,
            suffix: self.bytes(suffix_at, suffix_len.into())?,
            value: self.bytes(value_at, value_len)?,
            size: (value_at + value_len - at).next_multiple_of(XATTR_UNIT),
        })
    }
}

/// One attribute as it is stored.
struct Raw<'a> {
    index: u8,
    suffix: &'a [u8],
    value: &'a [u8],
    /// On disk, in bytes.
    size: u64,
}

fn corrupt(offset: u64, problem: String) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem,
    }
}
