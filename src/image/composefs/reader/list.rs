//! Every entry of a composefs image, with what its inode says, for a reader that explains bytes.

use super::{
    BLOCK, BLOCK_BITS, COMPACT_SIZE, DIRENT_SIZE, DataLayout, EROFS_MAGIC, EXTENDED_SIZE, RawInode, Reader,
    SB_BLOCK_BITS, SB_ROOT_NID, SB_XATTR_BLOCK, SLOT, SUPERBLOCK_OFFSET, TYPE_DIRECTORY, TYPE_MASK, corrupt,
};
use crate::{image::ImageError, model::VerityDigest};
use std::collections::BTreeSet;

/// Where the superblock has the modification time of every compact inode.
const SB_BUILD_TIME: u64 = 24;
/// Bit 0 of `i_format`: the inode has its 64-byte form.
const FORMAT_EXTENDED: u16 = 1;
const TYPE_SYMLINK: u16 = 0o120_000;
/// Longest target of a symbolic link, and longest path that is built, bytes (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// One entry of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its path, beginning with `/`.
    pub path: Vec<u8>,
    /// File type and permissions.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes of its content.
    pub size: u64,
    /// The object that holds its content; none when the content lies in the image or there is none.
    pub object: Option<VerityDigest>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// Where its inode with attributes and inline content begins in the image, and its length.
    pub inode: (u64, u64),
    /// Where content that lies in the image begins, and its length.
    pub inline: Option<(u64, u64)>,
}

/// Whether an EROFS image begins here: `head` is its first 2 KiB or more.
pub fn is_composefs(head: &[u8]) -> bool {
    Reader(head)
        .u32(SUPERBLOCK_OFFSET)
        .is_ok_and(|magic| magic == EROFS_MAGIC)
}

/// Every entry of `image`, a whole composefs image, in no certain order, at most `limit`. A directory that is entered twice
/// is an error. Memory: its paths.
pub fn list(image: &[u8], limit: usize) -> Result<Vec<Listed>, ImageError> {
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
    let mut out = Vec::new();
    let mut seen = BTreeSet::from([root]);
    let mut waiting = vec![(Vec::new(), root)];
    out.push(reader.listed(b"/".to_vec(), root, shared)?.0);
    while let Some((path, nid)) = waiting.pop() {
        let inode = reader.inode(nid)?;
        for (name, child) in reader.named(&inode)? {
            if matches!(name, b"." | b"..") {
                continue;
            }
            let at = nid.saturating_mul(SLOT);
            let mut full = path.clone();
            full.push(b'/');
            full.extend_from_slice(name);
            if full.len() > MAX_PATH || name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
                return Err(corrupt(at, format!("the bad name \"{}\"", name.escape_ascii())));
            }
            if out.len() == limit {
                return Err(corrupt(at, format!("more than {limit} entries")));
            }
            let (listed, found) = reader.listed(full.clone(), child, shared)?;
            out.push(listed);
            if found.mode & TYPE_MASK == TYPE_DIRECTORY {
                if !seen.insert(child) {
                    return Err(corrupt(
                        at,
                        format!("the directory \"{}\" is also elsewhere", full.escape_ascii()),
                    ));
                }
                waiting.push((full, child));
            }
        }
    }
    Ok(out)
}

impl<'a> Reader<'a> {
    fn listed(&self, path: Vec<u8>, nid: u64, shared: u64) -> Result<(Listed, RawInode), ImageError> {
        let found = self.inode(nid)?;
        let at = nid.saturating_mul(SLOT);
        let extended = self.u16(at)? & FORMAT_EXTENDED != 0;
        let (uid, gid, mtime) = if extended {
            (self.u32(at + 24)?, self.u32(at + 28)?, self.u64(at + 32)?)
        } else {
            let built = self.u64(SUPERBLOCK_OFFSET + SB_BUILD_TIME)?;
            (self.u16(at + 24)?.into(), self.u16(at + 26)?.into(), built)
        };
        let object = self.object(&found, shared)?;
        let stored = match found.layout {
            layout if layout == DataLayout::Plain as u16 => found.size,
            layout if layout == DataLayout::Inline as u16 => found.size / BLOCK * BLOCK,
            _ => 0,
        };
        let directory = found.mode & TYPE_MASK == TYPE_DIRECTORY;
        let tail = if found.layout == DataLayout::Inline as u16 {
            found.size - stored
        } else {
            0
        };
        let tail = if object.is_some() || directory { 0 } else { tail };
        let mut target = None;
        if found.mode & TYPE_MASK == TYPE_SYMLINK {
            if found.size > MAX_PATH as u64 {
                return Err(corrupt(at, format!("a link's target of {} bytes", found.size)));
            }
            let mut bytes = self.bytes(found.block * BLOCK, stored)?.to_vec();
            bytes.extend_from_slice(self.bytes(found.tail, tail)?);
            target = Some(bytes);
        }
        let inline = (tail > 0 && stored == 0).then_some((found.tail, tail));
        if let Some((from, len)) = inline {
            self.bytes(from, len)?;
        }
        let head = if extended { EXTENDED_SIZE } else { COMPACT_SIZE };
        let listed = Listed {
            path,
            mode: found.mode,
            uid,
            gid,
            mtime,
            size: found.size,
            object,
            target,
            inode: (at, head + (found.tail - found.xattrs)),
            inline,
        };
        Ok((listed, found))
    }

    /// The entries of a directory, in the order they are stored.
    fn named(&self, inode: &RawInode) -> Result<Vec<(&'a [u8], u64)>, ImageError> {
        let whole = match inode.layout {
            layout if layout == DataLayout::Plain as u16 => inode.size,
            layout if layout == DataLayout::Inline as u16 => inode.size / BLOCK * BLOCK,
            layout => return Err(corrupt(inode.xattrs, format!("a directory with data layout {layout}"))),
        };
        let start = inode.block * BLOCK;
        self.bytes(start, whole)?;
        let tail = inode.size - whole;
        let tail_bytes = self.bytes(inode.tail, tail)?;
        let mut pieces: Vec<(u64, &'a [u8])> = Vec::new();
        for at in (0..whole).step_by(BLOCK as usize) {
            pieces.push((start + at, self.bytes(start + at, BLOCK.min(whole - at))?));
        }
        if tail > 0 {
            pieces.push((inode.tail, tail_bytes));
        }
        let mut out = Vec::new();
        for (at, bytes) in pieces {
            let bad = || corrupt(at, "a directory block whose names lie outside of it".to_owned());
            let offset_of = |entry: usize| {
                let field = entry * DIRENT_SIZE as usize + 8;
                let raw = bytes.get(field..field + 2)?;
                Some(usize::from(u16::from_le_bytes([raw[0], raw[1]])))
            };
            let names = offset_of(0).ok_or_else(bad)?;
            let count = names / DIRENT_SIZE as usize;
            for entry in 0..count {
                let from = offset_of(entry).ok_or_else(bad)?;
                let to = if entry + 1 < count {
                    offset_of(entry + 1).ok_or_else(bad)?
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::composefs::write_image;
    use crate::model::{Entry, Epoch, Meta, Node, RelPath, Tree};
    use crate::verity::digest_bytes;
    use proptest::prelude::*;

    fn image() -> Vec<u8> {
        let path = |text: &str| text.parse::<RelPath>().expect("valid");
        let mut tree = Tree::new(Meta::root(0o755, Epoch::new(7)));
        let mut add = |name: &str, mtime: u32, node: Node| {
            let mut meta = Meta::root(0o640, Epoch::new(mtime));
            meta.uid = 12;
            tree.insert(path(name), Entry { meta, node }).expect("free");
        };
        add("dir", 7, Node::Directory);
        for i in 0..300 {
            let node = Node::Symlink {
                target: format!("to{i}").into_bytes(),
            };
            add(&format!("dir/link{i:03}"), 7, node);
        }
        add(
            "small",
            9,
            Node::File {
                size: 5,
                digest: digest_bytes(b"small"),
            },
        );
        add(
            "large",
            7,
            Node::File {
                size: 1 << 20,
                digest: VerityDigest::new([3; 32]),
            },
        );
        write_image(&tree, &|_| Ok(Box::new(&b"small"[..])))
            .expect("an image")
            .0
    }

    #[test]
    fn every_entry_is_listed_with_what_it_is() {
        let image = image();
        let listed = list(&image, 10_000).expect("an image");
        let find = |path: &str| listed.iter().find(|l| l.path == path.as_bytes()).expect("listed");
        let links = listed.iter().filter(|l| l.path.starts_with(b"/dir/link")).count();
        assert_eq!(links, 300);
        assert_eq!(find("/dir/link123").target.as_deref(), Some(&b"to123"[..]));
        let small = find("/small");
        let (from, len) = small.inline.expect("in the image");
        assert_eq!(&image[from as usize..][..len as usize], b"small");
        assert_eq!((small.mode, small.uid, small.mtime), (0o100_640, 12, 9));
        assert_eq!(find("/large").object, Some(VerityDigest::new([3; 32])));
        assert_eq!(find("/large").size, 1 << 20);
        assert!(list(&image, 100).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn damaged_images_never_panic(flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8), cut in any::<proptest::sample::Index>()) {
            let mut image = image();
            for (at, value) in flips {
                let at = at.index(image.len());
                image[at] = value;
            }
            let _ = list(&image, 10_000);
            let cut = cut.index(image.len());
            let _ = list(&image[..cut], 10_000);
        }
    }
}
