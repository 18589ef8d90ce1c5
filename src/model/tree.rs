//! `Tree`: the metadata of a file tree, with the content of each file named by its fs-verity digest.

use super::{Epoch, ModelError, RelPath, VerityDigest};
use std::collections::{BTreeMap, btree_map};

/// Ownership, permissions and time of one entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Permission bits including set-id and sticky, `0o7777` at most; no file type.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Epoch,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Root-owned, no extended attributes.
    pub fn root(mode: u32, mtime: Epoch) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: BTreeMap::new(),
        }
    }
}

/// The kind and content of an entry. A hard link is stored as another file with the same digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file of `size` bytes whose content is the object `digest` (an empty file too).
    File {
        /// Length in bytes.
        size: u64,
        /// fs-verity digest of the content.
        digest: VerityDigest,
    },
    /// A symbolic link; the target is any bytes without NUL.
    Symlink {
        /// The target.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Device number, major.
        major: u32,
        /// Device number, minor.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Device number, major.
        major: u32,
        /// Device number, minor.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// An entry of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Ownership, permissions, time.
    pub meta: Meta,
    /// Kind and content.
    pub node: Node,
}

/// A checked tree: every entry's parent is a directory of the same tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    root: Meta,
    entries: BTreeMap<RelPath, Entry>,
}

impl Tree {
    /// An empty tree whose root directory has `root` as metadata.
    pub fn new(root: Meta) -> Self {
        Self {
            root,
            entries: BTreeMap::new(),
        }
    }

    /// Metadata of the root directory.
    pub fn root(&self) -> &Meta {
        &self.root
    }

    /// Replaces the metadata of the root directory.
    pub fn set_root(&mut self, meta: Meta) {
        self.root = meta;
    }

    /// All entries but the root, each directory directly before its contents.
    pub fn iter(&self) -> btree_map::Iter<'_, RelPath, Entry> {
        self.entries.iter()
    }

    /// The entry at `path`.
    pub fn get(&self, path: &RelPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Number of entries without the root.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the tree has no entry but its root.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The paths directly in the directory `path`; `None` is the root.
    pub fn children(&self, path: Option<&RelPath>) -> Vec<RelPath> {
        let inside = |p: &&RelPath| p.parent().as_ref() == path;
        match path {
            None => self.entries.keys().filter(inside).cloned().collect(),
            Some(dir) => {
                let below = self.entries.range(dir.clone()..).map(|(p, _)| p);
                below.take_while(|p| p.is_within(dir)).filter(inside).cloned().collect()
            }
        }
    }

    /// Adds an entry. Its parent must be a directory of the tree, and `path` must be free.
    pub fn insert(&mut self, path: RelPath, entry: Entry) -> Result<(), ModelError> {
        let bad = |problem: &str| ModelError::Tree {
            path: path.to_string(),
            problem: problem.to_owned(),
        };
        if entry.meta.mode > 0o7777 {
            return Err(bad("has a mode above 07777"));
        }
        if let Some(parent) = path.parent() {
            match self.entries.get(&parent) {
                Some(Entry {
                    node: Node::Directory, ..
                }) => {}
                Some(_) => return Err(bad("lies below something that is not a directory")),
                None => return Err(bad("has no parent directory")),
            }
        }
        match self.entries.entry(path) {
            btree_map::Entry::Vacant(slot) => {
                slot.insert(entry);
                Ok(())
            }
            btree_map::Entry::Occupied(slot) => Err(ModelError::Tree {
                path: slot.key().to_string(),
                problem: "is there twice".to_owned(),
            }),
        }
    }

    /// Adds the missing parent directories of `path`, root-owned with mode 0755.
    pub fn make_parents(&mut self, path: &RelPath, mtime: Epoch) -> Result<(), ModelError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.entries.contains_key(&parent) {
            return Ok(());
        }
        self.make_parents(&parent, mtime)?;
        let entry = Entry {
            meta: Meta::root(0o755, mtime),
            node: Node::Directory,
        };
        self.insert(parent, entry)
    }

    /// Replaces the metadata of the entry at `path`, if there is one.
    pub fn set_meta(&mut self, path: &RelPath, meta: Meta) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.meta = meta;
        }
    }

    /// Removes `path` and everything below it; returns the number of removed entries.
    pub fn remove(&mut self, path: &RelPath) -> usize {
        // The contents of a directory stand directly behind it.
        let below = self.entries.range(path.clone()..).map(|(p, _)| p);
        let gone: Vec<RelPath> = below.take_while(|p| p.is_within(path)).cloned().collect();
        for path in &gone {
            self.entries.remove(path);
        }
        gone.len()
    }

    /// Adds every entry of `other`. A directory may be in both, and keeps the metadata that it has in `self`. Any other path in
    /// both is an error, unless `replace` is set: then the entry of `other` wins, if neither is a directory.
    pub fn merge(&mut self, other: &Tree, replace: bool) -> Result<(), ModelError> {
        for (path, entry) in &other.entries {
            match (self.entries.get(path).map(|e| &e.node), &entry.node) {
                (None, _) => self.insert(path.clone(), entry.clone())?,
                (Some(Node::Directory), Node::Directory) => {}
                (Some(a), b) if replace && *a != Node::Directory && *b != Node::Directory => {
                    self.entries.insert(path.clone(), entry.clone());
                }
                (Some(_), _) => {
                    return Err(ModelError::Tree {
                        path: path.to_string(),
                        problem: "is in both trees".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Sets every modification time, that of the root too, to `mtime`.
    pub fn set_mtimes(&mut self, mtime: Epoch) {
        self.root.mtime = mtime;
        for entry in self.entries.values_mut() {
            entry.meta.mtime = mtime;
        }
    }

    /// The digest and size of every distinct file content.
    pub fn objects(&self) -> BTreeMap<VerityDigest, u64> {
        let files = self.entries.values().filter_map(|e| match e.node {
            Node::File { size, digest } => Some((digest, size)),
            _ => None,
        });
        files.collect()
    }

    /// The number of subdirectories of the root and of each directory that has any. Two more is the link count on disk.
    pub(crate) fn subdirectory_counts(&self) -> (u32, BTreeMap<RelPath, u32>) {
        let mut root = 0;
        let mut counts = BTreeMap::new();
        for (path, _) in self.entries.iter().filter(|(_, e)| e.node == Node::Directory) {
            match path.parent() {
                None => root += 1,
                Some(parent) => *counts.entry(parent).or_insert(0) += 1,
            }
        }
        (root, counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> Entry {
        Entry {
            meta: Meta::root(0o755, Epoch::new(1)),
            node: Node::Directory,
        }
    }
    fn link(target: &str) -> Entry {
        Entry {
            meta: Meta::root(0o777, Epoch::new(1)),
            node: Node::Symlink { target: target.into() },
        }
    }
    fn path(p: &str) -> RelPath {
        p.parse().expect("valid path")
    }

    #[test]
    fn an_entry_needs_a_directory_above_it_and_a_free_place() {
        let mut tree = Tree::new(Meta::root(0o755, Epoch::new(0)));
        assert!(tree.insert(path("a/b"), link("x")).is_err());
        tree.insert(path("a"), link("x")).expect("free");
        let below = tree.insert(path("a/b"), link("x")).expect_err("below a link");
        assert!(below.to_string().contains("not a directory"), "{below}");
        assert!(tree.insert(path("a"), dir()).is_err());
    }

    #[test]
    fn merging_refuses_two_files_at_one_path_but_shares_directories() {
        let mut one = Tree::new(Meta::root(0o755, Epoch::new(0)));
        one.insert(path("d"), dir()).expect("free");
        one.insert(path("d/x"), link("1")).expect("free");
        let mut two = Tree::new(Meta::root(0o755, Epoch::new(0)));
        two.insert(path("d"), dir()).expect("free");
        two.insert(path("d/x"), link("2")).expect("free");
        let err = one.clone().merge(&two, false).expect_err("both have d/x");
        assert!(err.to_string().contains("d/x"), "{err}");
        one.merge(&two, true).expect("replacing is asked for");
        assert_eq!(one.get(&path("d/x")), Some(&link("2")));
    }
}
