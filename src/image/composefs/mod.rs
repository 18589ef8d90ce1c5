//! composefs images: a tree's metadata as EROFS, its contents named by fs-verity digest.
//!
//! The image is composefs format version 1, which the kernel mounts as EROFS and stacks with overlayfs over the objects:
//! each regular file carries `trusted.overlay.redirect` = `/ab/cdef…` (its object) and `trusted.overlay.metacopy` with its
//! digest, so that `verity=require` checks every byte read. A file of at most [`INLINE_MAX`] bytes lies in the image
//! itself, whose own digest vouches for it. Byte for byte what `mkcomposefs --min-version=1` of composefs 1.0.8 makes of
//! the same tree. Source: <https://github.com/composefs/composefs/blob/main/docs/composefs.md>.

use super::{ImageError, Open};
use crate::{
    model::{Entry, Meta, Node, RelPath, Tree, VerityDigest},
    verity::digest_bytes,
};
use composefs::{
    erofs::{format::FormatVersion, writer},
    fsverity::Sha256HashValue,
    generic_tree::{Inode, LeafContent, Stat},
    tree::{Directory, FileSystem, RegularFile},
};
use std::{collections::BTreeMap, ffi::OsStr, io::Read, os::unix::ffi::OsStrExt};

/// Longest file that is kept in the image, in bytes: the limit mkcomposefs applies when it reads a directory.
pub const INLINE_MAX: u64 = 64;

const FORMAT: &str = "a composefs image";
/// Largest file ext4 with 4 KiB blocks holds; nothing larger can be an object.
const MAX_FILE: u64 = (1 << 44) - 4096;
/// `makedev` of user space and the kernel's 32-bit form agree below these.
const MAX_MAJOR: u32 = 0xfff;
const MAX_MINOR: u32 = 0xf_ffff;
/// Limits of the kernel on one attribute (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX`), and ours on all of one entry.
const MAX_XATTR_NAME: usize = 255;
const MAX_XATTR_VALUE: usize = 65_535;
const MAX_XATTRS: usize = 128;
const MAX_XATTR_TOTAL: usize = 128 * 1024;
/// Added to the names of attributes that overlayfs would take for its own.
const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";

/// Digest and size of every content that must be an object: those of more than [`INLINE_MAX`] bytes.
pub fn external_objects(tree: &Tree) -> BTreeMap<VerityDigest, u64> {
    let mut objects = tree.objects();
    objects.retain(|_, size| *size > INLINE_MAX);
    objects
}

/// The image of `tree` and its fs-verity digest, which names the root. `open` is asked only for contents of 1 to
/// [`INLINE_MAX`] bytes, which are checked against their digests. Memory: a few times the image.
pub fn write_image(tree: &Tree, open: Open<'_>) -> Result<(Vec<u8>, VerityDigest), ImageError> {
    let mut image = FileSystem::<Sha256HashValue>::new(stat(None, tree.root())?);
    for (path, entry) in tree.iter() {
        let stat = stat(Some(path), &entry.meta)?;
        let inode = match content(path, entry, open)? {
            None => Inode::Directory(Box::new(Directory::new(stat))),
            Some(content) => Inode::leaf(image.push_leaf(stat, content)),
        };
        let parent = match path.parent() {
            None => &mut image.root,
            Some(parent) => image
                .root
                .get_directory_mut(OsStr::from_bytes(parent.as_bytes()))
                .map_err(|e| refuse(Some(path), e.to_string()))?,
        };
        parent.insert(OsStr::from_bytes(path.name()), inode);
    }
    let image = writer::ValidatedFileSystem::new(image).map_err(|e| refuse(None, e.to_string()))?;
    let bytes = writer::mkfs_erofs_versioned(&image, FormatVersion::V1).into_vec();
    let digest = digest_bytes(&bytes);
    Ok((bytes, digest))
}

/// `None` for a directory.
fn content(
    path: &RelPath,
    entry: &Entry,
    open: Open<'_>,
) -> Result<Option<LeafContent<RegularFile<Sha256HashValue>>>, ImageError> {
    let refuse = |problem: String| refuse(Some(path), problem);
    let device = |major: u32, minor: u32| {
        if major > MAX_MAJOR || minor > MAX_MINOR {
            return Err(refuse(format!(
                "device number {major}:{minor} is above {MAX_MAJOR}:{MAX_MINOR}"
            )));
        }
        let (major, minor) = (u64::from(major), u64::from(minor));
        Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
    };
    Ok(Some(match &entry.node {
        Node::Directory => return Ok(None),
        Node::File { size: 0, .. } => LeafContent::Regular(RegularFile::Inline(Box::default())),
        Node::File { size, digest } if *size <= INLINE_MAX => {
            LeafContent::Regular(RegularFile::Inline(read_small(path, *size, digest, open)?))
        }
        Node::File { size, .. } if *size > MAX_FILE => {
            return Err(refuse(format!("{size} bytes are more than {MAX_FILE}")));
        }
        Node::File { size, digest } => {
            LeafContent::Regular(RegularFile::External(Sha256HashValue::from(*digest.as_bytes()), *size))
        }
        Node::Symlink { target } if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
            return Err(refuse(format!(
                "the link target \"{}\" is empty, longer than 4095 bytes or holds a NUL byte",
                target[..target.len().min(80)].escape_ascii()
            )));
        }
        Node::Symlink { target } => LeafContent::Symlink(OsStr::from_bytes(target).into()),
        Node::CharDevice { major, minor } => LeafContent::CharacterDevice(device(*major, *minor)?),
        Node::BlockDevice { major, minor } => LeafContent::BlockDevice(device(*major, *minor)?),
        Node::Fifo => LeafContent::Fifo,
    }))
}

fn read_small(path: &RelPath, size: u64, expected: &VerityDigest, open: Open<'_>) -> Result<Box<[u8]>, ImageError> {
    let failed = |source| ImageError::Read {
        path: path.to_string(),
        source,
    };
    let mut bytes = Vec::new();
    let reader = open(expected).map_err(failed)?;
    reader.take(INLINE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 != size {
        return Err(ImageError::Length {
            path: path.to_string(),
            expected: size,
            actual: bytes.len() as u64,
            more: bytes.len() as u64 > INLINE_MAX,
        });
    }
    let actual = digest_bytes(&bytes);
    if actual != *expected {
        return Err(ImageError::Digest {
            path: path.to_string(),
            expected: *expected,
            actual,
        });
    }
    Ok(bytes.into())
}

fn stat(path: Option<&RelPath>, meta: &Meta) -> Result<Stat, ImageError> {
    let mut total = 0;
    for (name, value) in &meta.xattrs {
        let escaped = if name.starts_with(OVERLAY_PREFIX) {
            "overlay.".len()
        } else {
            0
        };
        let problem = if name.is_empty() || name.contains(&0) {
            Some("has no name or a NUL byte in it")
        } else if name.len() + escaped > MAX_XATTR_NAME {
            Some("has a name of more than 255 bytes")
        } else if value.len() > MAX_XATTR_VALUE {
            Some("has a value of more than 65535 bytes")
        } else {
            None
        };
        if let Some(problem) = problem {
            let name = name[..name.len().min(80)].escape_ascii();
            return Err(refuse(path, format!("the extended attribute \"{name}\" {problem}")));
        }
        total += name.len() + value.len();
    }
    if meta.xattrs.len() > MAX_XATTRS || total > MAX_XATTR_TOTAL {
        let count = meta.xattrs.len();
        return Err(refuse(
            path,
            format!("{count} extended attributes of {total} bytes are more than {MAX_XATTRS} of {MAX_XATTR_TOTAL}"),
        ));
    }
    Ok(Stat {
        st_mode: meta.mode,
        st_uid: meta.uid,
        st_gid: meta.gid,
        // An epoch has 32 bits.
        st_mtim_sec: meta.mtime.seconds() as i64,
        st_mtim_nsec: 0,
        xattrs: meta
            .xattrs
            .iter()
            .map(|(name, value)| (OsStr::from_bytes(name).into(), value.as_slice().into()))
            .collect(),
    })
}

fn refuse(path: Option<&RelPath>, problem: String) -> ImageError {
    ImageError::Entry {
        format: FORMAT,
        path: path.map_or(".".to_owned(), ToString::to_string),
        problem,
    }
}
