//! composefs images: a tree's metadata as EROFS, its contents named by fs-verity digest.
//!
//! The image is composefs format version 1, which the kernel mounts as EROFS and stacks with overlayfs over the objects:
//! each regular file carries `trusted.overlay.redirect` = `/ab/cdef…` (its object) and `trusted.overlay.metacopy` with its
//! digest, so that `verity=require` checks every byte read. A file of at most [`INLINE_MAX`] bytes lies in the image
//! itself, whose own digest vouches for it. Byte for byte what `mkcomposefs --min-version=1` of composefs 1.0.8 makes of
//! the same tree. Source: <https://github.com/composefs/composefs/blob/main/docs/composefs.md>.

mod format;
mod inodes;
mod layout;
mod reader;
mod writer;
mod xattr;

pub use reader::{Listed, is_composefs, list, referenced_objects};

use super::{ImageError, Open};
use crate::{
    model::{Entry, Meta, Node, RelPath, Tree, VerityDigest},
    verity::digest_bytes,
};
use inodes::{Body, DirectoryBlocks};
use layout::ErofsLayout;
use std::{collections::BTreeMap, io::Read};
use writer::Image;

/// Longest file that is kept in the image, in bytes: the limit mkcomposefs applies when it reads a directory.
pub const INLINE_MAX: u64 = 64;

const FORMAT: &str = "a composefs image";
/// Permissions of the root's hidden entries.
const HIDDEN_MODE: u32 = 0o644;
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

/// Digest and size of every content that must be an object: those of more than [`INLINE_MAX`] bytes.
pub fn external_objects(tree: &Tree) -> BTreeMap<VerityDigest, u64> {
    let mut objects = tree.objects();
    objects.retain(|_, size| *size > INLINE_MAX);
    objects
}

/// The image of `tree` and its fs-verity digest, which names the root. `open` is asked only for contents of 1 to
/// [`INLINE_MAX`] bytes, which are checked against their digests. Memory: a few times the image.
pub fn write_image(tree: &Tree, open: Open<'_>) -> Result<(Vec<u8>, VerityDigest), ImageError> {
    let root = tree.root();
    check_attributes(None, root)?;
    let hidden = Meta {
        mode: HIDDEN_MODE,
        xattrs: xattr::of_hidden(root),
        ..root.clone()
    };
    let mut inodes = inodes::collect(tree, &hidden, |path, entry| {
        check_attributes(Some(path), &entry.meta)?;
        body(path, entry, open)
    })?;
    let has_acl = inodes.iter().any(|inode| inode.attributes.has_acl());
    let shared = xattr::share(inodes.iter_mut().map(|inode| &mut inode.attributes));
    let layout = ErofsLayout::new(&inodes, &shared)?;
    let image = Image {
        inodes,
        shared,
        has_acl,
        layout,
    };
    let bytes = image.to_bytes();
    let digest = digest_bytes(&bytes);
    Ok((bytes, digest))
}

/// What `entry` is in the image, checked.
fn body<'a>(path: &RelPath, entry: &'a Entry, open: Open<'_>) -> Result<Body<'a>, ImageError> {
    let refuse = |problem: String| refuse(Some(path), problem);
    let device = |major: u32, minor: u32| {
        if major > MAX_MAJOR || minor > MAX_MINOR {
            return Err(refuse(format!(
                "device number {major}:{minor} is above {MAX_MAJOR}:{MAX_MINOR}"
            )));
        }
        Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
    };
    Ok(match &entry.node {
        Node::Directory => Body::Directory(DirectoryBlocks::default()),
        Node::File { size: 0, .. } => Body::Small(Vec::new()),
        Node::File { size, digest } if *size <= INLINE_MAX => Body::Small(read_small(path, *size, digest, open)?),
        Node::File { size, .. } if *size > MAX_FILE => {
            return Err(refuse(format!("{size} bytes are more than {MAX_FILE}")));
        }
        Node::File { size, digest } => Body::Object {
            size: *size,
            digest: *digest,
        },
        Node::Symlink { target } if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
            return Err(refuse(format!(
                "the link target \"{}\" is empty, longer than 4095 bytes or holds a NUL byte",
                target[..target.len().min(80)].escape_ascii()
            )));
        }
        Node::Symlink { target } => Body::Symlink(target),
        Node::CharDevice { major: 0, minor: 0 } => Body::Whiteout,
        Node::CharDevice { major, minor } => Body::CharDevice(device(*major, *minor)?),
        Node::BlockDevice { major, minor } => Body::BlockDevice(device(*major, *minor)?),
        Node::Fifo => Body::Fifo,
    })
}

fn read_small(path: &RelPath, size: u64, expected: &VerityDigest, open: Open<'_>) -> Result<Vec<u8>, ImageError> {
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
    Ok(bytes)
}

fn check_attributes(path: Option<&RelPath>, meta: &Meta) -> Result<(), ImageError> {
    let mut total = 0;
    for (name, value) in &meta.xattrs {
        let escaped = if name.starts_with(xattr::OVERLAY_PREFIX) {
            xattr::OVERLAY_ESCAPE.len()
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
    Ok(())
}

fn refuse(path: Option<&RelPath>, problem: String) -> ImageError {
    ImageError::Entry {
        format: FORMAT,
        path: path.map_or(".".to_owned(), ToString::to_string),
        problem,
    }
}
