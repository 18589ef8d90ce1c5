//! Reads the structures of an image of unknown origin: a range outside of the image is an error.

use super::{
    format::{
        BLOCK, BLOCK_BITS, COMPACT_SIZE, DIRENT_NAME, DIRENT_SIZE, DataLayout, EROFS_MAGIC, EXTENDED_SIZE, FORMAT,
        FORMAT_EXTENDED, INODE_FORMAT, INODE_MODE, INODE_SIZE, INODE_UNION, INODE_XATTR_COUNT, SB_BLOCK_BITS,
        SB_ROOT_NID, SB_XATTR_BLOCK, SLOT, SUPERBLOCK_OFFSET, XATTR_BODY_SIZE, XATTR_ENTRY_SIZE, XATTR_SHARED_COUNT,
        XATTR_UNIT,
    },
    xattr::{
        self, METACOPY_PREFIX, METACOPY_SUFFIX, OPAQUE_SUFFIX, OVERLAY_INDEX, OVERLAY_SUFFIX, REDIRECT_SUFFIX,
        redirect_to,
    },
};
use crate::{image::ImageError, model::VerityDigest};

/// `S_IFMT`, `S_IFREG`, `S_IFDIR` and `S_IFLNK`.
pub(super) const TYPE_MASK: u16 = 0o170_000;
pub(super) const TYPE_FILE: u16 = 0o100_000;
pub(super) const TYPE_DIRECTORY: u16 = 0o040_000;
pub(super) const TYPE_SYMLINK: u16 = 0o120_000;

pub(super) fn corrupt(offset: u64, problem: String) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem,
    }
}

/// A whole image whose superblock is checked.
pub(super) struct RawImage<'a> {
    bytes: Bytes<'a>,
    /// Offset from which references to shared attributes are counted.
    shared: u64,
    /// Number of the root directory's inode.
    pub(super) root: u64,
}

/// The fields of an inode that both forms have.
pub(super) struct RawInode {
    pub(super) mode: u16,
    /// Value of [`DataLayout`].
    pub(super) layout: u16,
    pub(super) extended: bool,
    pub(super) size: u64,
    /// First data block, or the number of a device.
    block: u64,
    /// Offset of the attributes.
    xattrs: u64,
    /// Offset behind the attributes.
    pub(super) tail: u64,
}

impl RawInode {
    /// Bytes of the header and of the attributes.
    pub(super) fn head(&self) -> u64 {
        let head = if self.extended { EXTENDED_SIZE } else { COMPACT_SIZE };
        head + (self.tail - self.xattrs)
    }

    /// Number of a device, in the kernel's 32-bit form.
    pub(super) fn device(&self) -> u64 {
        self.block
    }

    /// Offset of the data in blocks of its own.
    pub(super) fn data(&self) -> u64 {
        self.block * BLOCK
    }
}

/// Whether an EROFS image begins here: `head` is its first 2 KiB or more.
pub fn is_composefs(head: &[u8]) -> bool {
    Bytes(head)
        .u32(SUPERBLOCK_OFFSET)
        .is_ok_and(|magic| magic == EROFS_MAGIC)
}

/// The bytes of an image.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn range(self, at: u64, len: u64) -> Result<&'a [u8], ImageError> {
        let end = at.checked_add(len).filter(|end| *end <= self.0.len() as u64);
        let found = end.and_then(|end| self.0.get(at as usize..end as usize));
        found.ok_or_else(|| {
            let size = self.0.len();
            corrupt(
                at,
                format!("a structure of {len} bytes lies outside of the image of {size} bytes"),
            )
        })
    }

    fn array<const N: usize>(self, at: u64) -> Result<[u8; N], ImageError> {
        let mut out = [0; N];
        out.copy_from_slice(self.range(at, N as u64)?);
        Ok(out)
    }

    fn u16(self, at: u64) -> Result<u16, ImageError> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    fn u32(self, at: u64) -> Result<u32, ImageError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(self, at: u64) -> Result<u64, ImageError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }
}

impl<'a> RawImage<'a> {
    /// Checks the superblock of `image`.
    pub(super) fn open(image: &'a [u8]) -> Result<Self, ImageError> {
        let bytes = Bytes(image);
        if bytes.u32(SUPERBLOCK_OFFSET)? != EROFS_MAGIC {
            return Err(corrupt(SUPERBLOCK_OFFSET, "no EROFS superblock".to_owned()));
        }
        let field = |at: usize| SUPERBLOCK_OFFSET + at as u64;
        let bits = bytes.range(field(SB_BLOCK_BITS), 1)?[0];
        if bits != BLOCK_BITS {
            let problem = format!("the block size is 2^{bits} instead of 2^{BLOCK_BITS}");
            return Err(corrupt(SUPERBLOCK_OFFSET, problem));
        }
        Ok(Self {
            bytes,
            shared: u64::from(bytes.u32(field(SB_XATTR_BLOCK))?) * BLOCK,
            root: u64::from(bytes.u16(field(SB_ROOT_NID))?),
        })
    }

    pub(super) fn range(&self, at: u64, len: u64) -> Result<&'a [u8], ImageError> {
        self.bytes.range(at, len)
    }

    pub(super) fn u16(&self, at: u64) -> Result<u16, ImageError> {
        self.bytes.u16(at)
    }

    pub(super) fn u32(&self, at: u64) -> Result<u32, ImageError> {
        self.bytes.u32(at)
    }

    pub(super) fn u64(&self, at: u64) -> Result<u64, ImageError> {
        self.bytes.u64(at)
    }

    /// The inode with this number.
    pub(super) fn inode(&self, nid: u64) -> Result<RawInode, ImageError> {
        let at = nid.saturating_mul(SLOT);
        let format = self.u16(at + INODE_FORMAT)?;
        let extended = format & FORMAT_EXTENDED != 0;
        let (head, size) = if extended {
            (EXTENDED_SIZE, self.u64(at + INODE_SIZE)?)
        } else {
            (COMPACT_SIZE, u64::from(self.u32(at + INODE_SIZE)?))
        };
        self.range(at, head)?;
        let xattrs = at + head;
        let length = match u64::from(self.u16(at + INODE_XATTR_COUNT)?) {
            0 => 0,
            count => XATTR_BODY_SIZE + (count - 1) * XATTR_UNIT,
        };
        self.range(xattrs, length)?;
        Ok(RawInode {
            mode: self.u16(at + INODE_MODE)?,
            layout: format >> 1,
            extended,
            size,
            block: self.u32(at + INODE_UNION)?.into(),
            xattrs,
            tail: xattrs + length,
        })
    }

    /// The blocks of a directory with their offsets; the last may lie behind the inode.
    fn directory_blocks(&self, inode: &RawInode) -> Result<Vec<(u64, &'a [u8])>, ImageError> {
        let whole = match inode.layout {
            layout if layout == DataLayout::Plain as u16 => inode.size,
            layout if layout == DataLayout::Inline as u16 => inode.size / BLOCK * BLOCK,
            layout => {
                let problem = format!("a directory has the data layout {layout}, which directories cannot have");
                return Err(corrupt(inode.xattrs, problem));
            }
        };
        let start = inode.data();
        // Checked as a whole first: memory does not grow with the size that the inode claims.
        self.range(start, whole)?;
        let tail = inode.size - whole;
        let tail_block = (inode.tail, self.range(inode.tail, tail)?);
        let mut blocks = Vec::new();
        for at in (0..whole).step_by(BLOCK as usize) {
            blocks.push((start + at, self.range(start + at, BLOCK.min(whole - at))?));
        }
        if tail > 0 {
            blocks.push(tail_block);
        }
        Ok(blocks)
    }

    /// Name and inode number of every entry of a directory, `.` and `..` included, in their stored order.
    pub(super) fn directory(&self, inode: &RawInode) -> Result<Vec<(&'a [u8], u64)>, ImageError> {
        let mut out = Vec::new();
        for (at, bytes) in self.directory_blocks(inode)? {
            let bad = || corrupt(at, "the names of a directory block lie outside of the block".to_owned());
            let name_offset = |entry: usize| {
                let field = entry * DIRENT_SIZE as usize + DIRENT_NAME as usize;
                let raw = bytes.get(field..field + 2)?;
                Some(usize::from(u16::from_le_bytes([raw[0], raw[1]])))
            };
            // The first name follows the last entry, so its offset gives the number of entries.
            let names = name_offset(0).ok_or_else(bad)?;
            let count = names / DIRENT_SIZE as usize;
            for entry in 0..count {
                let from = name_offset(entry).ok_or_else(bad)?;
                let to = if entry + 1 < count {
                    name_offset(entry + 1).ok_or_else(bad)?
                } else {
                    bytes.len()
                };
                let name = bytes.get(from..to).ok_or_else(bad)?;
                // The last name of a block is padded with zeros.
                let name = name.split(|b| *b == 0).next().unwrap_or_default();
                out.push((name, self.u64(at + entry as u64 * DIRENT_SIZE)?));
            }
        }
        Ok(out)
    }

    /// The attributes of an inode: references to shared ones come first, then those of the inode alone.
    fn attributes(&self, inode: &RawInode) -> Result<Vec<RawAttribute<'a>>, ImageError> {
        let mut out = Vec::new();
        if inode.tail == inode.xattrs {
            return Ok(out);
        }
        let count = u64::from(self.range(inode.xattrs + XATTR_SHARED_COUNT, 1)?[0]);
        let mut at = inode.xattrs + XATTR_BODY_SIZE;
        for _ in 0..count {
            let reference = u64::from(self.u32(at)?);
            out.push(self.attribute(self.shared + reference * XATTR_UNIT)?);
            at += XATTR_UNIT;
        }
        while at < inode.tail {
            let attribute = self.attribute(at)?;
            at += attribute.size;
            out.push(attribute);
        }
        Ok(out)
    }

    /// The first attribute of overlayfs that composefs does not give to such an inode. It would hide, move or borrow files of other layers.
    pub(super) fn foreign_attribute(&self, inode: &RawInode, root: bool) -> Result<Option<String>, ImageError> {
        let file = inode.mode & TYPE_MASK == TYPE_FILE;
        let own = |attribute: &RawAttribute<'_>| match attribute.suffix {
            METACOPY_SUFFIX | REDIRECT_SUFFIX => file,
            suffix => root && suffix == OPAQUE_SUFFIX && attribute.value == b"y",
        };
        let mut attributes = self.attributes(inode)?.into_iter();
        let foreign = attributes.find(|a| a.index == OVERLAY_INDEX && a.suffix.starts_with(OVERLAY_SUFFIX) && !own(a));
        Ok(foreign.map(|a| format!("trusted.{}", a.suffix.escape_ascii())))
    }

    /// The attributes of the tree itself in words, without those that composefs adds. Long values are cut, and so are long lists: the
    /// text of a hostile image must stay short.
    pub(super) fn attributes_in_words(&self, inode: &RawInode) -> Result<Option<String>, ImageError> {
        const MOST: usize = 16;
        const VALUE: usize = 64;
        let attributes = self.attributes(inode)?;
        let mut own = attributes
            .iter()
            .filter(|a| a.index != OVERLAY_INDEX || !a.suffix.starts_with(OVERLAY_SUFFIX));
        let mut words: Vec<String> = own
            .by_ref()
            .take(MOST)
            .map(|attribute| {
                let (kept, length) = (
                    &attribute.value[..attribute.value.len().min(VALUE)],
                    attribute.value.len(),
                );
                let cut = if length > VALUE {
                    format!("… ({length} bytes)")
                } else {
                    String::new()
                };
                let prefix = xattr::prefix(attribute.index);
                format!(
                    "{prefix}{}=0x{}{cut}",
                    attribute.suffix.escape_ascii(),
                    hex::encode(kept)
                )
            })
            .collect();
        let more = own.count();
        if more > 0 {
            words.push(format!("and {more} more"));
        }
        Ok((!words.is_empty()).then(|| words.join(", ")))
    }

    /// The object that the attributes of an inode name, if any. They name it by digest and by path, which must agree.
    pub(super) fn object(&self, inode: &RawInode) -> Result<Option<VerityDigest>, ImageError> {
        let (mut metacopy, mut redirect) = (None, None);
        for attribute in self.attributes(inode)? {
            match (attribute.index, attribute.suffix) {
                (OVERLAY_INDEX, METACOPY_SUFFIX) => metacopy = Some(attribute.value),
                (OVERLAY_INDEX, REDIRECT_SUFFIX) => redirect = Some(attribute.value),
                _ => {}
            }
        }
        let Some(metacopy) = metacopy else {
            return match redirect {
                None => Ok(None),
                Some(_) => Err(corrupt(
                    inode.xattrs,
                    "a file names the path of an object but no digest".to_owned(),
                )),
            };
        };
        let digest = metacopy.strip_prefix(&METACOPY_PREFIX);
        let Some(digest) = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok()) else {
            let problem = format!("\"{}\" is not an fs-verity SHA-256 digest", metacopy.escape_ascii());
            return Err(corrupt(inode.xattrs, problem));
        };
        let digest = VerityDigest::new(digest);
        if redirect != Some(redirect_to(&digest).as_slice()) {
            let redirect = redirect.unwrap_or_default().escape_ascii();
            let problem = format!("the object {digest} is said to be at \"{redirect}\", the path of another digest");
            return Err(corrupt(inode.xattrs, problem));
        }
        Ok(Some(digest))
    }

    fn attribute(&self, at: u64) -> Result<RawAttribute<'a>, ImageError> {
        let [suffix_len, index] = self.bytes.array(at)?;
        let value_len = u64::from(self.u16(at + 2)?);
        let suffix_at = at + XATTR_ENTRY_SIZE;
        let value_at = suffix_at + u64::from(suffix_len);
        Ok(RawAttribute {
            index,
            suffix: self.range(suffix_at, suffix_len.into())?,
            value: self.range(value_at, value_len)?,
            size: (value_at + value_len - at).next_multiple_of(XATTR_UNIT),
        })
    }
}

/// One attribute as it is stored.
struct RawAttribute<'a> {
    /// Index of a well-known prefix.
    index: u8,
    suffix: &'a [u8],
    value: &'a [u8],
    /// Bytes on disk.
    size: u64,
}
