//! A tree as a list of inodes: breadth first, each directory's entries in the order of their names.
//!
//! The root also gets those of the entries `00` to `ff` that the tree lacks, as 0:0 character devices: overlayfs whiteouts,
//! which hide the directories of the objects below the image in the stack. A 0:0 device of the tree itself becomes an empty
//! regular file with attributes that make overlayfs show a whiteout. Order and attributes are those of
//! `libcomposefs/lcfs-writer-erofs.c` of composefs 1.0.8.

use super::{
    format::{BLOCK, DIRENT_SIZE, FORMAT, FileType},
    xattr::Attributes,
};
use crate::{
    image::ImageError,
    model::{Entry, Meta, RelPath, Tree, VerityDigest},
};

/// Names of the hidden entries, one for each directory of objects.
static HIDDEN: [[u8; 2]; 256] = {
    let (digits, mut names, mut i) = (b"0123456789abcdef", [[0; 2]; 256], 0);
    while i < 256 {
        names[i] = [digits[i >> 4], digits[i & 15]];
        i += 1;
    }
    names
};

/// Type and data of an inode.
pub(super) enum Body<'a> {
    Directory(DirectoryBlocks<'a>),
    /// A regular file whose content is stored in the image.
    Small(Vec<u8>),
    /// A regular file whose content is an object.
    Object {
        size: u64,
        digest: VerityDigest,
    },
    Symlink(&'a [u8]),
    /// A device number as the kernel encodes it in 32 bits.
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    /// A 0:0 character device of the tree.
    Whiteout,
}

impl Body<'_> {
    pub(super) fn file_type(&self) -> FileType {
        match self {
            Self::Directory(_) => FileType::Directory,
            Self::Small(_) | Self::Object { .. } | Self::Whiteout => FileType::Regular,
            Self::Symlink(_) => FileType::Symlink,
            Self::CharDevice(_) => FileType::CharDevice,
            Self::BlockDevice(_) => FileType::BlockDevice,
            Self::Fifo => FileType::Fifo,
        }
    }
}

/// One name in a directory.
pub(super) struct Child<'a> {
    pub(super) name: &'a [u8],
    /// Index into the list of inodes.
    pub(super) inode: usize,
}

/// The content of a directory, `.` and `..` among the names, cut into blocks.
#[derive(Default)]
pub(super) struct DirectoryBlocks<'a> {
    children: Vec<Child<'a>>,
    /// Index behind the last child of each full block.
    ends: Vec<usize>,
    /// Bytes of the tail: the rest that does not fill a block and is stored behind the inode, at most half a block.
    pub(super) tail_size: u64,
}

impl<'a> DirectoryBlocks<'a> {
    /// Fills each block with whole entries; a rest of more than half a block gets a block of its own.
    fn new(children: Vec<Child<'a>>) -> Self {
        let (mut ends, mut size) = (Vec::new(), 0);
        for (index, child) in children.iter().enumerate() {
            let entry = DIRENT_SIZE + child.name.len() as u64;
            size += entry;
            if size > BLOCK {
                ends.push(index);
                size = entry;
            }
        }
        if size > BLOCK / 2 {
            ends.push(children.len());
            size = 0;
        }
        Self {
            children,
            ends,
            tail_size: size,
        }
    }

    /// The children of each full block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[Child<'a>]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.children[start..*end])
    }

    pub(super) fn block_count(&self) -> u64 {
        self.ends.len() as u64
    }

    /// The children behind the last full block.
    pub(super) fn tail(&self) -> &[Child<'a>] {
        &self.children[self.ends.last().copied().unwrap_or(0)..]
    }
}

/// One inode.
pub(super) struct ErofsInode<'a> {
    pub(super) meta: &'a Meta,
    pub(super) nlink: u32,
    pub(super) attributes: Attributes<'a>,
    pub(super) body: Body<'a>,
}

/// An inode whose place in the final list is not known yet; `children` are indexes into the list of drafts.
struct Draft<'a> {
    name: &'a [u8],
    parent: usize,
    children: Vec<usize>,
    inode: ErofsInode<'a>,
}

/// The inodes of `tree`, root first. `hidden` is the metadata of the root's hidden entries; `body` makes the body of an entry,
/// without children for a directory.
pub(super) fn collect<'a>(
    tree: &'a Tree,
    hidden: &'a Meta,
    mut body: impl FnMut(&'a RelPath, &'a Entry) -> Result<Body<'a>, ImageError>,
) -> Result<Vec<ErofsInode<'a>>, ImageError> {
    let mut drafts = Vec::with_capacity(tree.len() + HIDDEN.len() + 1);
    drafts.push(draft(b"", 0, tree.root(), Body::Directory(DirectoryBlocks::default())));
    // The open directories, from the root to the one of the previous entry: a tree lists each directory directly in front of
    // its content.
    let mut open = vec![0];
    for (path, entry) in tree.iter() {
        open.truncate(path.depth());
        let (Some(parent), true) = (open.last().copied(), open.len() == path.depth()) else {
            return Err(ImageError::Entry {
                format: FORMAT,
                path: path.to_string(),
                problem: "its parent directory is not in the tree".to_owned(),
            });
        };
        let draft = draft(path.name(), parent, &entry.meta, body(path, entry)?);
        if matches!(draft.inode.body, Body::Directory(_)) {
            open.push(drafts.len());
        }
        add(&mut drafts, draft);
    }
    let root = &drafts[0].children;
    let taken = |name: &[u8]| root.binary_search_by_key(&name, |child| drafts[*child].name).is_ok();
    let missing: Vec<_> = HIDDEN.iter().filter(|name| !taken(*name)).collect();
    for name in missing {
        add(&mut drafts, draft(name, 0, hidden, Body::CharDevice(0)));
    }
    let mut children = std::mem::take(&mut drafts[0].children);
    children.sort_by_key(|child| drafts[*child].name);
    drafts[0].children = children;
    drafts[0].inode.attributes.set_root();
    Ok(arrange(drafts))
}

fn draft<'a>(name: &'a [u8], parent: usize, meta: &'a Meta, body: Body<'a>) -> Draft<'a> {
    let mut attributes = Attributes::new(meta);
    match &body {
        Body::Object { digest, .. } => attributes.set_object(digest),
        Body::Whiteout => attributes.set_whiteout(),
        _ => {}
    }
    Draft {
        name,
        parent,
        children: Vec::new(),
        inode: ErofsInode {
            meta,
            nlink: if matches!(body, Body::Directory(_)) { 2 } else { 1 },
            attributes,
            body,
        },
    }
}

fn add<'a>(drafts: &mut Vec<Draft<'a>>, draft: Draft<'a>) {
    let index = drafts.len();
    let parent = &mut drafts[draft.parent];
    parent.children.push(index);
    match draft.inode.body {
        Body::Directory(_) => parent.inode.nlink += 1,
        Body::Whiteout => parent.inode.attributes.set_whiteouts(),
        _ => {}
    }
    drafts.push(draft);
}

/// Sorts the drafts breadth first and fills in the directories.
fn arrange(mut drafts: Vec<Draft<'_>>) -> Vec<ErofsInode<'_>> {
    // Breadth first: the list of directories still to be visited is the list of the result itself.
    let mut order = Vec::with_capacity(drafts.len());
    order.push(0);
    let mut next = 0;
    while let Some(directory) = order.get(next).copied() {
        order.extend_from_slice(&drafts[directory].children);
        next += 1;
    }
    // Directory entries refer to inodes by their final positions.
    let mut rank = vec![0; drafts.len()];
    for (position, draft) in order.iter().enumerate() {
        rank[*draft] = position;
    }
    for index in 0..drafts.len() {
        if !matches!(drafts[index].inode.body, Body::Directory(_)) {
            continue;
        }
        let draft = &drafts[index];
        let mut children = Vec::with_capacity(draft.children.len() + 2);
        children.extend(draft.children.iter().map(|child| Child {
            name: drafts[*child].name,
            inode: rank[*child],
        }));
        for (name, inode) in [(&b"."[..], index), (b"..", draft.parent)] {
            let at = children.partition_point(|child| child.name < name);
            let inode = rank[inode];
            children.insert(at, Child { name, inode });
        }
        drafts[index].inode.body = Body::Directory(DirectoryBlocks::new(children));
    }
    let mut ranked: Vec<_> = rank.into_iter().zip(drafts).collect();
    ranked.sort_unstable_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, draft)| draft.inode).collect()
}
