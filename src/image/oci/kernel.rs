//! The kernel and the initramfs of an image, which its root does not have.

use super::FORMAT;
use crate::{
    image::ImageError,
    model::{Node, RelPath, Tree, VerityDigest},
};

/// Directory of the kernels, one directory for each version.
const MODULES: &str = "usr/lib/modules";
/// Name of the kernel below the directory of its version.
pub const IMAGE_KERNEL: &str = "vmlinuz";
/// Name of the initramfs there.
pub const IMAGE_INITRAMFS: &str = "initramfs.img";

/// The kernel of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageKernel {
    /// Its version, by the name of its directory.
    pub version: String,
    /// The kernel.
    pub kernel: VerityDigest,
    /// The initramfs.
    pub initramfs: VerityDigest,
}

/// The path of `name` of the kernel `version`.
pub fn kernel_path(version: &str, name: &str) -> Result<RelPath, ImageError> {
    RelPath::new(format!("{MODULES}/{version}/{name}")).map_err(|e| refuse(e.to_string()))
}

/// Takes kernel and initramfs out of the tree of an image; what remains is its root. An image has exactly one of each.
pub fn take_kernel(tree: &mut Tree) -> Result<ImageKernel, ImageError> {
    let modules = RelPath::new(MODULES).map_err(|e| refuse(e.to_string()))?;
    let mut found = None;
    for directory in tree.children(Some(&modules)) {
        let version = String::from_utf8_lossy(directory.name()).into_owned();
        let kernel = kernel_path(&version, IMAGE_KERNEL)?;
        let initramfs = kernel_path(&version, IMAGE_INITRAMFS)?;
        let file = |path: &RelPath| match tree.get(path).map(|entry| &entry.node) {
            Some(Node::File { digest, .. }) => Some(*digest),
            _ => None,
        };
        match (file(&kernel), file(&initramfs)) {
            (None, None) => {}
            (Some(image), Some(archive)) if found.is_none() => {
                found = Some((version, kernel, image, initramfs, archive))
            }
            (Some(_), Some(_)) => return Err(refuse("it has more than one kernel".to_owned())),
            (Some(_), None) => return Err(refuse(format!("it has {kernel} without {initramfs}"))),
            (None, Some(_)) => return Err(refuse(format!("it has {initramfs} without {kernel}"))),
        }
    }
    let found = found.ok_or_else(|| refuse(format!("it has no {MODULES}/<version>/{IMAGE_KERNEL}")))?;
    let (version, kernel_file, kernel, initramfs_file, initramfs) = found;
    tree.remove(&kernel_file);
    tree.remove(&initramfs_file);
    Ok(ImageKernel {
        version,
        kernel,
        initramfs,
    })
}

fn refuse(problem: String) -> ImageError {
    ImageError::Request {
        format: FORMAT,
        problem,
    }
}
