//! A file tree with its recognised files, and the following of its paths through links.

use crate::{
    image::elf::{Elf, ElfMachine},
    model::{Entry, Node, RelPath, Tree, VerityDigest},
};
use std::collections::{BTreeMap, VecDeque};

/// Most links that are followed for one path, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

/// A recognised file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FileContent {
    /// An ELF file.
    Elf(Elf),
    /// A compressed ELF file, whose first bytes were read.
    Packed(ElfMachine),
    /// A script with the path of its interpreter.
    Script(Vec<u8>),
    /// An index of kernel modules, as text.
    Index(String),
    /// A file that should be one of these, but cannot be read; with the problem.
    Broken(String),
}

/// The recognised files by digest. Other files are not in the map.
pub(super) type ContentsByDigest = BTreeMap<VerityDigest, FileContent>;

/// A tree and its recognised files.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// Names, links and modes.
    pub(super) tree: &'a Tree,
    /// Contents.
    pub(super) contents: &'a ContentsByDigest,
}

impl<'a> View<'a> {
    /// The recognised content of an entry.
    pub(super) fn content(&self, entry: &Entry) -> Option<&'a FileContent> {
        match &entry.node {
            Node::File { digest, .. } => self.contents.get(digest),
            _ => None,
        }
    }

    /// The entry that a path leads to and its path without links; every link is followed inside the tree. A relative path begins at the
    /// top. `None` when no entry is there, or when the path leads to the top itself.
    pub(super) fn follow(&self, path: &[u8]) -> Option<(RelPath, &'a Entry)> {
        let mut left: VecDeque<Vec<u8>> = names(path).collect();
        let mut here: Option<RelPath> = None;
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == b".." {
                here = here.and_then(|h| h.parent());
                continue;
            }
            let name = RelPath::new(&name).ok()?;
            let next = here.as_ref().map_or_else(|| name.clone(), |here| here.join(&name));
            match &self.tree.get(&next)?.node {
                Node::Symlink { target } => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        here = None;
                    }
                    for name in names(target).rev() {
                        left.push_front(name);
                    }
                }
                Node::Directory => here = Some(next),
                _ if left.is_empty() => here = Some(next),
                _ => return None,
            }
        }
        let here = here?;
        let entry = self.tree.get(&here)?;
        Some((here, entry))
    }
}

fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|b| *b == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;

    #[test]
    fn links_are_followed_inside_the_tree() {
        let mut sample = Sample::default();
        sample.link("lib", "usr/lib");
        sample.link("usr/lib/a", "../../lib/./b");
        sample.link("usr/lib/b", "/usr/share//c");
        sample.link("usr/lib/up", "../../../../usr/share");
        sample.link("usr/loop", "loop");
        sample.link("usr/gone", "share/nothing");
        sample.link("usr/file-as-directory", "share/c/d");
        sample.file("usr/share/c", b"text");
        let view = sample.view();
        let led = |path: &str| view.follow(path.as_bytes()).map(|(path, _)| path.to_string());
        for path in [
            "usr/share/c",
            "/lib/a",
            "//lib/./b",
            "lib/up/c",
            "usr/lib/up/../share/c",
        ] {
            assert_eq!(led(path).as_deref(), Some("usr/share/c"), "{path}");
        }
        assert_eq!(led("lib").as_deref(), Some("usr/lib"));
        for path in [
            "usr/loop",
            "usr/gone",
            "usr/share/c/d",
            "usr/file-as-directory",
            "nothing",
            "/",
            "",
            "usr/..",
        ] {
            assert_eq!(led(path), None, "{path}");
        }
    }
}
