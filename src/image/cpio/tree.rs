//! Trees to and from archives.

use super::{
    format::{FORMAT, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT},
    reader::{CpioEntry, CpioReader, corrupt},
    writer::{CpioWriter, Device},
};
use crate::{
    image::{ImageError, Open},
    model::{EMPTY_FILE, Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest},
};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

/// Whether an archive has an entry for its root directory, which the kernel applies to the root of the initramfs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// The first entry is `.`.
    Entry,
    /// No entry for the root.
    Omit,
}

/// Writes `tree` as one archive, in the tree's order, and returns the writer. A tree with extended attributes is an error.
pub fn write_tree<W: Write>(tree: &Tree, root: Root, open: Open<'_>, writer: W) -> Result<W, ImageError> {
    let (root_links, links) = tree.subdirectory_counts();
    let mut archive = CpioWriter::new(writer);
    if root == Root::Entry {
        archive.directory_linked(None, tree.root(), 2 + root_links)?;
    }
    for (path, item) in tree.iter() {
        let meta = &item.meta;
        match &item.node {
            Node::Directory => {
                let nlink = 2 + links.get(path).copied().unwrap_or(0);
                archive.directory_linked(Some(path), meta, nlink)?;
            }
            Node::File { size: 0, .. } => archive.file(path, meta, 0, &mut std::io::empty())?,
            Node::File { size, digest } => {
                let mut content = open(digest).map_err(|source| ImageError::Read {
                    path: path.to_string(),
                    source,
                })?;
                archive.file(path, meta, *size, &mut content)?;
            }
            Node::Symlink { target } => archive.symlink(path, meta, target)?,
            Node::CharDevice { major, minor } => archive.device(path, meta, Device::Char(*major, *minor))?,
            Node::BlockDevice { major, minor } => archive.device(path, meta, Device::Block(*major, *minor))?,
            Node::Fifo => archive.device(path, meta, Device::Fifo)?,
        }
    }
    archive.finish()
}

/// Called by [`read_tree`] with the content of each file: stores it and returns its digest and length.
pub type Keep<'a> = &'a mut dyn FnMut(&CpioEntry, &mut dyn Read) -> io::Result<(VerityDigest, u64)>;

/// The links of one file; one of them carries the content.
struct Links {
    content: Node,
    paths: Vec<RelPath>,
}

/// The tree of all archives of `reader`, as the kernel unpacks them: an entry replaces an earlier entry of the same path (but a
/// directory is only replaced by a directory), and links of one file share its content. Without an entry for the root, its mode is
/// 0755 and its time 0.
pub fn read_tree(reader: impl Read, keep: Keep<'_>) -> Result<Tree, ImageError> {
    let mut reader = CpioReader::new(reader);
    let mut root = Meta::root(0o755, Epoch::new(0));
    let mut entries: BTreeMap<RelPath, Entry> = BTreeMap::new();
    let mut links = LinkedFiles::new();
    while let Some(entry) = reader.next_entry()? {
        let meta = Meta {
            mode: entry.mode & !S_IFMT & 0o7777,
            uid: entry.uid,
            gid: entry.gid,
            mtime: Epoch::new(entry.mtime),
            xattrs: BTreeMap::new(),
        };
        let mut node = node(&entry, &mut reader, keep)?;
        let Some(path) = &entry.path else {
            root = meta;
            continue;
        };
        if matches!(node, Node::File { .. }) && entry.nlink > 1 {
            node = share_content(&entry, path, node, reader.archives(), &mut links, &mut entries);
        }
        let replaced = entries.get(path).map(|entry| &entry.node);
        if replaced == Some(&Node::Directory) && node != Node::Directory {
            return Err(corrupt(entry.offset, format!("\"{path}\" replaces a directory")));
        }
        entries.insert(path.clone(), Entry { meta, node });
    }
    let mut tree = Tree::new(root);
    for (path, entry) in entries {
        tree.insert(path, entry)
            .map_err(|source| ImageError::Tree { format: FORMAT, source })?;
    }
    Ok(tree)
}

/// The files with several links, by number of the archive, and device and inode.
type LinkedFiles = BTreeMap<(u64, (u32, u32, u32)), Links>;

/// The node of an entry; its content is read from `reader`.
fn node(entry: &CpioEntry, reader: &mut CpioReader<impl Read>, keep: Keep<'_>) -> Result<Node, ImageError> {
    let (major, minor) = entry.rdev;
    Ok(match entry.mode & S_IFMT {
        S_IFDIR => Node::Directory,
        S_IFLNK => Node::Symlink {
            target: reader.link_target()?,
        },
        S_IFCHR => Node::CharDevice { major, minor },
        S_IFBLK => Node::BlockDevice { major, minor },
        S_IFIFO => Node::Fifo,
        _ if entry.size == 0 => Node::File {
            size: 0,
            digest: EMPTY_FILE,
        },
        _ => {
            let (digest, size) = keep(entry, reader).map_err(|source| ImageError::Read {
                path: entry.name(),
                source,
            })?;
            if size != u64::from(entry.size) {
                return Err(ImageError::Length {
                    path: entry.name(),
                    expected: u64::from(entry.size),
                    actual: size,
                    more: false,
                });
            }
            Node::File { size, digest }
        }
    })
}

/// The node of an entry that is one of several links of a file. Only one link carries the content, and it may come after others:
/// their entries get it then.
fn share_content(
    entry: &CpioEntry,
    path: &RelPath,
    node: Node,
    archive: u64,
    files: &mut LinkedFiles,
    entries: &mut BTreeMap<RelPath, Entry>,
) -> Node {
    let links = files.entry((archive, entry.inode)).or_insert_with(|| Links {
        content: node.clone(),
        paths: Vec::new(),
    });
    if entry.size > 0 {
        links.content = node;
        for other in &links.paths {
            if let Some(other) = entries.get_mut(other) {
                other.node = links.content.clone();
            }
        }
    }
    links.paths.push(path.clone());
    links.content.clone()
}
