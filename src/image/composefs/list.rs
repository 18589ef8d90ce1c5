//! Lists every entry of an image with its metadata and the ranges of the image that describe it.

use super::{
    format::{
        BLOCK, COMPACT_GID, DataLayout, EXTENDED_GID, EXTENDED_MTIME, INODE_UID, SB_BUILD_TIME, SLOT, SUPERBLOCK_OFFSET,
    },
    raw::{RawImage, RawInode, TYPE_DIRECTORY, TYPE_MASK, TYPE_SYMLINK, corrupt},
};
use crate::{image::ImageError, model::VerityDigest};
use std::collections::BTreeSet;

/// Longest target of a symbolic link, and longest path that is built, in bytes (`PATH_MAX`).
const MAX_PATH: usize = 4096;
/// Bytes of the paths of all entries.
const MAX_PATHS: usize = 64 << 20;

/// One entry of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Path, beginning with `/`.
    pub path: Vec<u8>,
    /// File type and permissions.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes of the content.
    pub size: u64,
    /// The object with the content; `None` when the content lies in the image or the entry is not a file.
    pub object: Option<VerityDigest>,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Number of a device, in the kernel's 32-bit form; of no meaning for other entries.
    pub device: u64,
    /// An attribute of overlayfs that composefs does not give to such an entry.
    pub foreign: Option<String>,
    /// The extended attributes in words, without those that composefs adds; long ones are cut.
    pub attributes: Option<String>,
    /// Offset in the image and length of the inode with its attributes.
    pub inode: (u64, u64),
    /// Offset and length of content that lies in the image.
    pub inline: Option<(u64, u64)>,
}

/// Every entry of `image`, a whole composefs image, in no particular order; more than `limit` entries are an error, and so is a
/// directory that is reached twice. Memory: the paths.
pub fn list(image: &[u8], limit: usize) -> Result<Vec<Listed>, ImageError> {
    let image = RawImage::open(image)?;
    let mut out = Vec::new();
    let mut seen = BTreeSet::from([image.root]);
    let mut waiting = vec![(Vec::new(), image.root)];
    out.push(image.listed(b"/".to_vec(), image.root)?.0);
    let mut paths = 0;
    while let Some((path, nid)) = waiting.pop() {
        let inode = image.inode(nid)?;
        for (name, child) in image.directory(&inode)? {
            if matches!(name, b"." | b"..") {
                continue;
            }
            let at = nid.saturating_mul(SLOT);
            let mut full = path.clone();
            full.push(b'/');
            full.extend_from_slice(name);
            if full.len() > MAX_PATH || name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
                let problem = format!("\"{}\" is not a valid name", name.escape_ascii());
                return Err(corrupt(at, problem));
            }
            paths += full.len();
            if out.len() == limit || paths > MAX_PATHS {
                let problem = format!("more than {limit} entries, or {MAX_PATHS} bytes of paths");
                return Err(corrupt(at, problem));
            }
            let (listed, found) = image.listed(full.clone(), child)?;
            out.push(listed);
            if found.mode & TYPE_MASK == TYPE_DIRECTORY {
                if !seen.insert(child) {
                    let full = full.escape_ascii();
                    let problem = format!("the directory \"{full}\" has the inode of another directory");
                    return Err(corrupt(at, problem));
                }
                waiting.push((full, child));
            }
        }
    }
    Ok(out)
}

impl RawImage<'_> {
    fn listed(&self, path: Vec<u8>, nid: u64) -> Result<(Listed, RawInode), ImageError> {
        let found = self.inode(nid)?;
        let at = nid.saturating_mul(SLOT);
        let (uid, gid, mtime) = if found.extended {
            (
                self.u32(at + INODE_UID)?,
                self.u32(at + EXTENDED_GID)?,
                self.u64(at + EXTENDED_MTIME)?,
            )
        } else {
            // The compact form has no time of its own.
            let built = self.u64(SUPERBLOCK_OFFSET + SB_BUILD_TIME as u64)?;
            (
                self.u16(at + INODE_UID)?.into(),
                self.u16(at + COMPACT_GID)?.into(),
                built,
            )
        };
        let object = self.object(&found)?;
        let inlined = found.layout == DataLayout::Inline as u16;
        let stored = match found.layout {
            layout if layout == DataLayout::Plain as u16 => found.size,
            _ if inlined => found.size / BLOCK * BLOCK,
            _ => 0,
        };
        let directory = found.mode & TYPE_MASK == TYPE_DIRECTORY;
        let tail = if inlined && object.is_none() && !directory {
            found.size - stored
        } else {
            0
        };
        let mut target = None;
        if found.mode & TYPE_MASK == TYPE_SYMLINK {
            if found.size > MAX_PATH as u64 {
                let problem = format!("a link target has {} bytes, more than {MAX_PATH}", found.size);
                return Err(corrupt(at, problem));
            }
            let mut bytes = self.range(found.data(), stored)?.to_vec();
            bytes.extend_from_slice(self.range(found.tail, tail)?);
            target = Some(bytes);
        }
        let inline = (tail > 0 && stored == 0).then_some((found.tail, tail));
        if let Some((from, len)) = inline {
            self.range(from, len)?;
        }
        let listed = Listed {
            path,
            mode: found.mode,
            uid,
            gid,
            mtime,
            size: found.size,
            object,
            target,
            device: found.device(),
            foreign: self.foreign_attribute(&found, nid == self.root)?,
            attributes: self.attributes_in_words(&found)?,
            inode: (at, found.head()),
            inline,
        };
        Ok((listed, found))
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
            if name == "large" {
                let value = [vec![1, 0], vec![7; 70]].concat();
                meta.xattrs.insert(b"security.capability".to_vec(), value);
            }
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
        let shown = format!("security.capability=0x0100{}… (72 bytes)", "07".repeat(62));
        assert_eq!(find("/large").attributes, Some(shown));
        assert_eq!(small.attributes, None);
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
