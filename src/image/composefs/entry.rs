//! Checks the entries of a tree and turns each into the body of its inode.

use super::{
    format::{FORMAT, INLINE_MAX},
    inodes::{Body, DirectoryBlocks},
    xattr,
};
use crate::{
    image::{ImageError, Open},
    model::{Entry, Meta, Node, RelPath, VerityDigest},
    verity::digest_bytes,
};
use std::io::Read;

/// Largest file of ext4 with 4 KiB blocks, in bytes; nothing larger can be an object.
const MAX_FILE: u64 = (1 << 44) - 4096;
/// Longest link target, in bytes (`PATH_MAX` without its NUL).
const MAX_TARGET: usize = 4095;
/// Highest numbers for which user space's `makedev` and the kernel's 32-bit form agree.
const MAX_MAJOR: u32 = 0xfff;
const MAX_MINOR: u32 = 0xf_ffff;
/// Limits of the kernel on one attribute (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX`), and ours on all of one entry.
const MAX_XATTR_NAME: usize = 255;
const MAX_XATTR_VALUE: usize = 65_535;
const MAX_XATTRS: usize = 128;
const MAX_XATTR_TOTAL: usize = 128 * 1024;

/// The body of the inode of `entry`; an entry that the image cannot hold is an error.
pub(super) fn body<'a>(path: &RelPath, entry: &'a Entry, open: Open<'_>) -> Result<Body<'a>, ImageError> {
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
        Node::Symlink { target } if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) => {
            return Err(refuse(format!(
                "the link target \"{}\" is empty, longer than {MAX_TARGET} bytes or holds a NUL byte",
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

/// The content of a file that is stored in the image, checked against its length and its digest.
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

/// Checks that the kernel accepts the extended attributes of an entry; `None` is the root.
pub(super) fn check_attributes(path: Option<&RelPath>, meta: &Meta) -> Result<(), ImageError> {
    let mut total = 0;
    for (name, value) in &meta.xattrs {
        let escaped = if name.starts_with(xattr::OVERLAY_PREFIX) {
            xattr::OVERLAY_ESCAPE.len()
        } else {
            0
        };
        let problem = if name.is_empty() || name.contains(&0) {
            Some("has an empty name or a NUL byte in its name")
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
