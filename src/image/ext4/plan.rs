//! Checks and sorts the files of the file system.

use super::format::{BLOCK, FORMAT, IMAGE_PATH, OBJECTS_PATH, VERITY_ALIGN};
use crate::{
    image::ImageError,
    model::{RelPath, VerityDigest},
    verity::{DESCRIPTOR_SIZE, MerkleTree},
};
use std::collections::{BTreeMap, BTreeSet};

/// Largest file: 2^32 blocks less the verity metadata, far above any file of an image.
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

/// Files in the order of their paths, and their directories.
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

    /// Bytes of data in all files.
    pub fn content(&self) -> u64 {
        self.items.iter().map(|i| i.size).sum()
    }
}

/// The files of a root: the composefs image with the digest `image` and `size` bytes, and `objects` by digest and size.
pub fn root_items(
    image: VerityDigest,
    size: u64,
    objects: &BTreeMap<VerityDigest, u64>,
) -> Result<Vec<VerityFile>, ImageError> {
    let named = |path: String, size, digest| {
        let path = RelPath::new(&path).map_err(|e| refuse(&path, e.to_string()))?;
        Ok(VerityFile { path, size, digest })
    };
    let mut items = vec![named(IMAGE_PATH.to_owned(), size, image)?];
    for (digest, size) in objects {
        let hex = digest.to_hex();
        items.push(named(
            format!("{OBJECTS_PATH}/{}/{}", &hex[..2], &hex[2..]),
            *size,
            *digest,
        )?);
    }
    Ok(items)
}

/// Checks and sorts `items`. Paths may have at most 100 bytes and only ASCII letters, digits, `-`, `.`, `_` and `/`, because they
/// pass through tar headers and debugfs commands.
pub fn plan(items: &[VerityFile]) -> Result<Ext4Layout, ImageError> {
    let mut files = BTreeMap::new();
    let mut directories = BTreeSet::new();
    for item in items {
        let name = item.path.to_string();
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._/".contains(b);
        if !item.path.as_bytes().iter().all(plain) || name.len() > 100 {
            return Err(refuse(
                &name,
                "the path is longer than 100 bytes or has other characters than letters, digits, \"-\", \".\" and \"_\""
                    .to_owned(),
            ));
        }
        if item.size > MAX_FILE {
            return Err(refuse(&name, format!("{} bytes are more than {MAX_FILE}", item.size)));
        }
        let mut parent = item.path.parent();
        while let Some(directory) = parent {
            parent = directory.parent();
            directories.insert(directory);
        }
        if files.insert(item.path.clone(), item.clone()).is_some() {
            return Err(refuse(&name, "two files have this path".to_owned()));
        }
    }
    if let Some(both) = directories.iter().find(|d| files.contains_key(*d)) {
        return Err(refuse(
            &both.to_string(),
            "the path is both a file and the directory of another file".to_owned(),
        ));
    }
    Ok(Ext4Layout {
        items: files.into_values().collect(),
        directories,
    })
}

/// Byte offsets of the parts of a verity file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extents {
    /// End of the data, padded to a block.
    pub(super) data_end: u64,
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
            data_end: size.next_multiple_of(BLOCK),
            tree,
            descriptor,
            end: (descriptor + DESCRIPTOR_SIZE as u64 + 4).next_multiple_of(BLOCK),
        }
    }
}

fn refuse(path: &str, problem: String) -> ImageError {
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
        let extents = |data_end, tree, descriptor, end| Extents {
            data_end,
            tree,
            descriptor,
            end,
        };
        assert_eq!(Extents::new(0), extents(0, 0, 0, 4096));
        assert_eq!(Extents::new(1), extents(4096, 65_536, 65_536, 69_632));
        assert_eq!(Extents::new(65_536), extents(65_536, 65_536, 69_632, 73_728));
        assert_eq!(Extents::new(65_537), extents(69_632, 131_072, 135_168, 139_264));
    }

    #[test]
    fn bad_items_are_refused_by_name() {
        let item = |path: &str, size| VerityFile {
            path: path.parse().expect("valid path"),
            size,
            digest: VerityDigest::new([0; 32]),
        };
        for (bad, items) in [
            ("a b", vec![item("a b", 1)]),
            ("a\\\"b", vec![item("a\"b", 1)]),
            ("x", vec![item("x", u64::MAX)]),
            ("twice", vec![item("twice", 1), item("twice", 2)]),
            ("d", vec![item("d", 1), item("d/f", 2)]),
            ("lost+found", vec![item("lost+found", 1)]),
        ] {
            let text = plan(&items).expect_err("bad").to_string();
            assert!(text.starts_with(&format!("store \"{bad}\" in")), "{text}");
        }
        let layout = plan(&[item("b", 1), item("a/c", 2)]).expect("good");
        assert_eq!(layout.items()[0].path.to_string(), "a/c");
        assert_eq!((layout.directories.len(), layout.content()), (1, 3));
    }
}
