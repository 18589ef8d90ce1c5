//! A tree for tests, with its recognised files.

use super::{
    recognise::look,
    view::{ContentsByDigest, View},
};
use crate::{
    model::{Entry, Epoch, Meta, Node, RelPath, Tree},
    verity::digest_bytes,
};

pub(super) struct Sample {
    pub(super) tree: Tree,
    pub(super) contents: ContentsByDigest,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            tree: Tree::new(Meta::root(0o755, Epoch::new(0))),
            contents: ContentsByDigest::new(),
        }
    }
}

impl Sample {
    pub(super) fn view(&self) -> View<'_> {
        View {
            tree: &self.tree,
            contents: &self.contents,
        }
    }

    pub(super) fn remove(&mut self, path: &str) {
        assert!(self.tree.remove(&path.parse().expect("a path")) > 0, "{path}");
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        let target = target.into();
        self.insert(path, 0o777, Node::Symlink { target });
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.file_of_mode(path, bytes, 0o755);
    }

    pub(super) fn file_of_mode(&mut self, path: &str, bytes: &[u8], mode: u32) {
        let digest = digest_bytes(bytes);
        let size = bytes.len() as u64;
        self.insert(path, mode, Node::File { size, digest });
        let path: RelPath = path.parse().expect("a path");
        if let Some(content) = look(&path, &bytes.to_vec(), true).expect("in memory") {
            self.contents.insert(digest, content);
        }
    }

    /// Replaces an entry, or adds it.
    fn insert(&mut self, path: &str, mode: u32, node: Node) {
        let path: RelPath = path.parse().expect("a path");
        let meta = Meta::root(mode, Epoch::new(0));
        self.tree.remove(&path);
        self.tree.make_parents(&path, Epoch::new(0)).expect("directories");
        self.tree.insert(path, Entry { meta, node }).expect("free");
    }
}
