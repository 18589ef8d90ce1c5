//! Checks the files of the file system and numbers them.

use super::format::{BLOCK, FORMAT, IMAGE_PATH, LOST_FOUND, OBJECTS_PATH, VERITY_ALIGN};
use crate::{
    image::ImageError,
    model::{RelPath, VerityDigest},
    verity::{DESCRIPTOR_SIZE, MerkleTree},
};
use std::collections::BTreeSet;

/// Largest file, in bytes: half of what 2^32 blocks with their verity metadata hold, far above any file of an image.
const MAX_FILE: u64 = 1 << 43;

/// A file to be stored under fs-verity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerityFile {
    /// Path in the file system.
    pub path: RelPath,
    /// Length of the data in bytes.
    pub size: u64,
    /// fs-verity digest that the data must have.
    pub digest: VerityDigest,
}

/// Files in the order in which their bytes are stored, and their directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ext4Layout {
    pub(super) items: Vec<VerityFile>,
    pub(super) directories: BTreeSet<RelPath>,
}

impl Ext4Layout {
    /// The files, in the order in which they are stored.
    pub fn items(&self) -> &[VerityFile] {
        &self.items
    }
}

/// The files of a root: `objects` by digest and size, in the order in which they are to be stored, and behind them the composefs
/// image with the digest `image` and `size` bytes, which every change of the root changes.
pub fn root_items(
    image: VerityDigest,
    size: u64,
    objects: &[(VerityDigest, u64)],
) -> Result<Vec<VerityFile>, ImageError> {
    let named = |path: String, size, digest| {
        let path = RelPath::new(&path).map_err(|e| refuse(&path, e.to_string()))?;
        Ok(VerityFile { path, size, digest })
    };
    let mut items = Vec::with_capacity(objects.len() + 1);
    for (digest, size) in objects {
        let hex = digest.to_hex();
        items.push(named(
            format!("{OBJECTS_PATH}/{}/{}", &hex[..2], &hex[2..]),
            *size,
            *digest,
        )?);
    }
    items.push(named(IMAGE_PATH.to_owned(), size, image)?);
    Ok(items)
}

/// Checks `items`, whose order is that of their bytes in the file system. Two files cannot have one path, and `lost+found` at the top
/// belongs to the file system.
pub fn plan(items: Vec<VerityFile>) -> Result<Ext4Layout, ImageError> {
    let mut files = BTreeSet::new();
    let mut directories = BTreeSet::new();
    for item in &items {
        let refused = |problem: String| Err(refuse(&item.path.to_string(), problem));
        if item.path.components().next() == Some(LOST_FOUND) {
            return refused("the directory belongs to the file system".to_owned());
        }
        if item.size > MAX_FILE {
            return refused(format!("{} bytes are more than {MAX_FILE}", item.size));
        }
        let mut parent = item.path.parent();
        while let Some(directory) = parent {
            parent = directory.parent();
            directories.insert(directory);
        }
        if !files.insert(&item.path) {
            return refused("two files have this path".to_owned());
        }
    }
    if let Some(both) = directories.iter().find(|d| files.contains(*d)) {
        return Err(refuse(
            &both.to_string(),
            "the path is both a file and the directory of another file".to_owned(),
        ));
    }
    Ok(Ext4Layout { items, directories })
}

/// Byte offsets of the parts of a verity file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extents {
    /// Begin of the Merkle tree.
    pub(super) tree: u64,
    /// Begin of the descriptor.
    pub(super) descriptor: u64,
    /// End of the file's last block.
    pub(super) end: u64,
}

impl Extents {
    pub(super) fn new(size: u64) -> Self {
        let tree = size.next_multiple_of(VERITY_ALIGN);
        let descriptor = tree + MerkleTree::size(size);
        Self {
            tree,
            descriptor,
            end: (descriptor + DESCRIPTOR_SIZE as u64 + 4).next_multiple_of(BLOCK),
        }
    }
}

pub(super) fn refuse(path: &str, problem: String) -> ImageError {
    ImageError::Entry {
        format: FORMAT,
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_lies_behind_the_next_64_kib_boundary() {
        let extents = |tree, descriptor, end| Extents { tree, descriptor, end };
        assert_eq!(Extents::new(0), extents(0, 0, 4096));
        assert_eq!(Extents::new(1), extents(65_536, 65_536, 69_632));
        assert_eq!(Extents::new(65_536), extents(65_536, 69_632, 73_728));
        assert_eq!(Extents::new(65_537), extents(131_072, 135_168, 139_264));
    }

    #[test]
    fn bad_items_are_refused_by_name() {
        let item = |path: &str, size| VerityFile {
            path: path.parse().expect("valid path"),
            size,
            digest: VerityDigest::new([0; 32]),
        };
        for (bad, items, value) in [
            ("x", vec![item("x", u64::MAX)], "18446744073709551615"),
            ("twice", vec![item("twice", 1), item("twice", 2)], "two files"),
            ("d", vec![item("d", 1), item("d/f", 2)], "both a file and"),
            ("lost+found", vec![item("lost+found", 1)], "belongs to"),
            ("lost+found/a", vec![item("lost+found/a", 1)], "belongs to"),
        ] {
            let text = plan(items).expect_err("bad").to_string();
            assert!(
                text.starts_with(&format!("store \"{bad}\" in")) && text.contains(value),
                "{text}"
            );
        }
        let layout = plan(vec![item("b", 1), item("a b/c", 2)]).expect("good");
        assert_eq!(layout.items()[0].path.to_string(), "b");
        assert_eq!(layout.directories.len(), 1);
    }
}
