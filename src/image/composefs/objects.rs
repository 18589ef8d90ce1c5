//! The objects that an image refers to.

use super::raw::{RawImage, TYPE_DIRECTORY, TYPE_MASK};
use crate::{image::ImageError, model::VerityDigest};
use std::collections::BTreeSet;

/// Digests of the objects that the files of `image`, a whole composefs image, refer to. Memory: a set of its inodes.
pub fn referenced_objects(image: &[u8]) -> Result<BTreeSet<VerityDigest>, ImageError> {
    let image = RawImage::open(image)?;
    let mut objects = BTreeSet::new();
    // A directory that is reached again, as in a circle, is not walked again.
    let mut seen = BTreeSet::from([image.root]);
    let mut open = vec![image.root];
    while let Some(nid) = open.pop() {
        let inode = image.inode(nid)?;
        objects.extend(image.object(&inode)?);
        if inode.mode & TYPE_MASK == TYPE_DIRECTORY {
            let children = image.directory(&inode)?.into_iter().map(|(_, child)| child);
            open.extend(children.filter(|child| seen.insert(*child)));
        }
    }
    Ok(objects)
}
