//! A root of unpacked packages: the entries of one package after the other, put together as dpkg does (`src/main/archives.c`). No maintainer
//! script runs, so there are no diversions.
//!
//! Paths are followed through links of packages that were unpacked before. A link of the package itself is put in place at its end, so nothing
//! can lie below it. What is there decides:
//!
//! | new entry | where a directory is | where something else is |
//! |---|---|---|
//! | directory | nothing changes, also not owner and mode | refused |
//! | symbolic link | the directory stays | replaced |
//! | file, hard link | refused | replaced |
//!
//! A file of another package is replaced only where one of the two packages declares `Replaces`: the files of the package that declares it
//! win. Two entries of one package at one path must be of one kind; the later one wins.

use super::{DebError, EntryHeader, PackageNames, TarEntryKind};
use crate::model::{Entry, Meta, ModelError, Node, RelPath, Tree};
use std::collections::BTreeMap;

/// Most links that are followed to resolve a path, as Linux does.
const MAX_LINKS: u32 = 40;

/// A new entry of a package, with the content of files stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackedEntry {
    /// Its path below the root; `None` for the root itself.
    pub path: Option<RelPath>,
    /// Its header.
    pub header: EntryHeader,
    /// The content of a file.
    pub file: Option<Node>,
}

/// The file at the path of a new entry.
struct Found {
    /// Index of the package that it comes from.
    owner: usize,
    /// The inode, by which hard links are told from equal files.
    inode: u64,
}

/// Packages unpacked into one tree.
pub struct UnpackedRoot {
    tree: Tree,
    packages: Vec<(String, PackageNames)>,
    /// The packages that have a path, by the name that it has in them.
    owners: BTreeMap<RelPath, Vec<usize>>,
    /// The origin of everything that is no directory, by its place in the tree.
    found: BTreeMap<RelPath, Found>,
    inodes: u64,
}

impl UnpackedRoot {
    /// A root without packages; `root` is the metadata of the root directory.
    pub fn new(root: Meta) -> Self {
        Self {
            tree: Tree::new(root),
            packages: Vec::new(),
            owners: BTreeMap::new(),
            found: BTreeMap::new(),
            inodes: 0,
        }
    }

    /// The tree of all unpacked packages.
    pub fn into_tree(self) -> Tree {
        self.tree
    }

    /// Unpacks a package: `name` names it in errors, `names` states what it declares.
    ///
    /// # Errors
    /// The entry that dpkg would refuse, with the other package where there is one.
    pub fn unpack(&mut self, name: &str, names: PackageNames, entries: Vec<PackedEntry>) -> Result<(), DebError> {
        self.packages.push((name.to_owned(), names));
        for PackedEntry { path, header, file } in entries {
            // The root directory is there already, and stays as it is.
            let Some(path) = path else { continue };
            self.place(&path, header, file).map_err(|problem| DebError::Entry {
                package: name.to_owned(),
                member: "data.tar".to_owned(),
                entry: format!("entry \"{path}\""),
                problem,
            })?;
            let own = self.packages.len() - 1;
            let owners = self.owners.entry(path).or_default();
            if owners.last() != Some(&own) {
                owners.push(own);
            }
        }
        Ok(())
    }

    fn place(&mut self, path: &RelPath, header: EntryHeader, file: Option<Node>) -> Result<(), String> {
        let place = self.resolve(path)?;
        let old = self.tree.get(&place).map(|entry| entry.node.clone());
        let own = self.packages.len() - 1;
        if old == Some(Node::Directory) {
            return match header.kind {
                TarEntryKind::Directory | TarEntryKind::Symlink(_) => Ok(()),
                TarEntryKind::File | TarEntryKind::HardLink(_) => Err(format!(
                    "would replace a directory{}",
                    self.of_other(path, own)
                        .map_or(String::new(), |other| format!(" of {other}"))
                )),
            };
        }
        if header.kind == TarEntryKind::Directory && self.leads_to_directory(&place) {
            return Ok(());
        }
        if let Some(other) = self.owner(path).filter(|owner| *owner != own) {
            if self.packages[own].1.replaces(&self.packages[other].1) {
                // The new file comes in the place of the old one.
            } else if self.packages[other].1.replaces(&self.packages[own].1) {
                return Ok(());
            } else {
                return Err(format!(
                    "is also in {}, and neither declares Replaces",
                    self.packages[other].0
                ));
            }
        }
        let node = match header.kind {
            TarEntryKind::Directory => Node::Directory,
            TarEntryKind::Symlink(target) => Node::Symlink { target },
            TarEntryKind::File => file.ok_or_else(|| "has no content".to_owned())?,
            TarEntryKind::HardLink(target) => return self.link(place, &target, header.meta),
        };
        self.check_kind(&place, &old, &node)?;
        self.inodes += 1;
        let inode = self.inodes;
        self.put(
            place,
            Entry {
                meta: header.meta,
                node,
            },
            inode,
        )
    }

    /// Refuses an entry that is of another kind than one of the same package at the same path: what dpkg makes of the two depends on its
    /// version. A directory in the place of another package's file is refused too.
    fn check_kind(&self, place: &RelPath, old: &Option<Node>, new: &Node) -> Result<(), String> {
        let Some(old) = old else { return Ok(()) };
        let (own, found) = (self.packages.len() - 1, self.found.get(place));
        let same = std::mem::discriminant(old) == std::mem::discriminant(new);
        if *new == Node::Directory || (!same && found.is_some_and(|found| found.owner == own)) {
            let other = found.map(|found| found.owner).filter(|owner| *owner != own);
            return Err(match other {
                Some(other) => format!("is no directory in {}", self.packages[other].0),
                None => "is there twice, as different kinds of files".to_owned(),
            });
        }
        Ok(())
    }

    /// Makes another name of the file at `target`; the mode, owner and time of the entry become those of all its names.
    fn link(&mut self, place: RelPath, target: &RelPath, meta: Meta) -> Result<(), String> {
        let from = self.resolve(target)?;
        let node = match self.tree.get(&from).map(|entry| &entry.node) {
            Some(node @ Node::File { .. }) => node.clone(),
            Some(_) => return Err(format!("is a hard link to {target}, which is not a regular file")),
            None => {
                return Err(format!(
                    "is a hard link to {target}, which is not before it in the package"
                ));
            }
        };
        if from == place {
            return Err("is a hard link to itself".to_owned());
        }
        let old = self.tree.get(&place).map(|entry| entry.node.clone());
        self.check_kind(&place, &old, &node)?;
        let inode = self.found.get(&from).map_or(0, |found| found.inode);
        let names = self.found.iter().filter(|(_, found)| found.inode == inode);
        let names: Vec<RelPath> = names.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.tree.set_meta(&name, meta.clone());
        }
        self.put(place, Entry { meta, node }, inode)
    }

    fn put(&mut self, place: RelPath, entry: Entry, inode: u64) -> Result<(), String> {
        self.tree.remove(&place);
        let owner = self.packages.len() - 1;
        match entry.node {
            Node::Directory => self.found.remove(&place),
            _ => self.found.insert(place.clone(), Found { owner, inode }),
        };
        self.tree.insert(place, entry).map_err(|error| match error {
            ModelError::Tree { problem, .. } => problem,
            other => other.to_string(),
        })
    }

    /// The package from which the file at `path` was taken, or that has a directory there.
    fn owner(&self, path: &RelPath) -> Option<usize> {
        self.owners.get(path)?.last().copied()
    }

    /// The file name of another package that has `path`.
    fn of_other(&self, path: &RelPath, own: usize) -> Option<&str> {
        let owners = self.owners.get(path)?;
        let other = owners.iter().find(|owner| **owner != own)?;
        Some(&self.packages[*other].0)
    }

    /// Whether a link at `place` leads to a directory.
    fn leads_to_directory(&self, place: &RelPath) -> bool {
        let Some(Node::Symlink { .. }) = self.tree.get(place).map(|entry| &entry.node) else {
            return false;
        };
        let mut links = 0;
        let end = self.follow(place, &mut links);
        end.is_some_and(|end| end.is_none_or(|end| self.is_directory(&end)))
    }

    fn is_directory(&self, path: &RelPath) -> bool {
        self.tree.get(path).is_some_and(|entry| entry.node == Node::Directory)
    }

    /// The place of `path`, with the links in its parent directories followed.
    fn resolve(&self, path: &RelPath) -> Result<RelPath, String> {
        let Some(parent) = path.parent() else {
            return Ok(path.clone());
        };
        let mut links = 0;
        let parent = self.follow(&parent, &mut links).ok_or_else(|| {
            format!("lies below \"{parent}\", where a link leads in a circle or belongs to the package itself")
        })?;
        let name = path.components().last().unwrap_or_default();
        let joined = match parent {
            None => RelPath::new(name),
            Some(parent) if self.is_directory(&parent) => RelPath::new([parent.as_bytes(), b"/", name].concat()),
            Some(parent) if self.tree.get(&parent).is_some() => {
                return Err(format!("lies below \"{parent}\", which is not a directory"));
            }
            Some(parent) => {
                return Err(format!(
                    "lies below \"{parent}\", which is not before it in the package"
                ));
            }
        };
        joined.map_err(|error| error.to_string())
    }

    /// Where `path` leads, within the root: `Some(None)` is the root itself, `None` that there are too many links, or one of the package
    /// itself.
    fn follow(&self, path: &RelPath, links: &mut u32) -> Option<Option<RelPath>> {
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut rest: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        rest.reverse();
        while let Some(part) = rest.pop() {
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            let here = RelPath::new(at.join(&b'/')).ok()?;
            if let Some(Node::Symlink { target }) = self.tree.get(&here).map(|entry| &entry.node) {
                *links += 1;
                let own = self.packages.len() - 1;
                let unfinished = self.found.get(&here).is_some_and(|found| found.owner == own);
                if *links > MAX_LINKS || unfinished {
                    return None;
                }
                match target.first() {
                    Some(b'/') => at.clear(),
                    _ => drop(at.pop()),
                }
                rest.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
            }
        }
        match at.is_empty() {
            true => Some(None),
            false => Some(Some(RelPath::new(at.join(&b'/')).ok()?)),
        }
    }
}
