//! Writes an image: collects the inodes, lays them out, and writes each structure at its place.

use super::{
    entry::{body, check_attributes},
    format::{
        BLOCK, CHUNK_HOLE, DIRENT_SIZE, INLINE_MAX, InodeHeader, SUPERBLOCK_OFFSET, Superblock, composefs_header,
        write_dirent,
    },
    inodes::{self, Body, Child, ErofsInode},
    layout::{ErofsLayout, InodePlacement, chunks},
    xattr::{self, Attribute},
};
use crate::{
    image::{ImageError, Open},
    model::{Meta, Tree, VerityDigest},
    verity::digest_bytes,
};
use std::collections::BTreeMap;

/// Permissions of the root's hidden entries.
const HIDDEN_MODE: u32 = 0o644;
/// The bits of a mode that are not the file type.
const PERMISSIONS: u16 = 0o7777;

/// Digest and size of every file content that is stored as an object: those of more than [`INLINE_MAX`] bytes.
pub fn external_objects(tree: &Tree) -> BTreeMap<VerityDigest, u64> {
    let mut objects = tree.objects();
    objects.retain(|_, size| *size > INLINE_MAX);
    objects
}

/// The image of `tree` and its fs-verity digest, which is the root digest. `open` is called only for contents of 1 to
/// [`INLINE_MAX`] bytes, which are checked against their digests. Memory: a few times the image.
pub fn write_image(tree: &Tree, open: Open<'_>) -> Result<(Vec<u8>, VerityDigest), ImageError> {
    let root = tree.root();
    check_attributes(None, root)?;
    let hidden = Meta {
        mode: HIDDEN_MODE,
        xattrs: xattr::of_hidden(root),
        ..root.clone()
    };
    let mut inodes = inodes::collect(tree, &hidden, |path, entry| {
        check_attributes(Some(path), &entry.meta)?;
        body(path, entry, open)
    })?;
    let has_acl = inodes.iter().any(|inode| inode.attributes.has_acl());
    let shared = xattr::share(inodes.iter_mut().map(|inode| &mut inode.attributes));
    let layout = ErofsLayout::new(&inodes, &shared)?;
    let image = Image {
        inodes,
        shared,
        has_acl,
        layout,
    };
    let bytes = image.to_bytes();
    let digest = digest_bytes(&bytes);
    Ok((bytes, digest))
}

/// The parts of an image.
struct Image<'a> {
    /// Root first.
    inodes: Vec<ErofsInode<'a>>,
    /// Attributes that several inodes have, in the order of the layout's references.
    shared: Vec<Attribute<'a>>,
    /// Whether an entry has a POSIX access control list.
    has_acl: bool,
    layout: ErofsLayout,
}

impl Image<'_> {
    /// The whole image, a multiple of 4096 bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let layout = &self.layout;
        let mut out = Vec::with_capacity(layout.blocks as usize * BLOCK as usize);
        out.extend(composefs_header(self.has_acl));
        pad_to(&mut out, SUPERBLOCK_OFFSET);
        let superblock = Superblock {
            root_nid: layout.root_nid,
            inodes: self.inodes.len() as u64,
            build_time: layout.build_time,
            blocks: layout.blocks,
            xattr_block: layout.xattr_block,
        };
        out.extend(superblock.encode());
        let inodes = || self.inodes.iter().zip(&layout.places);
        for (ino, (inode, place)) in inodes().enumerate() {
            pad_to(&mut out, place.offset);
            self.write_inode(&mut out, ino as u32, inode, place);
        }
        pad_to(&mut out, layout.inodes_end);
        for attribute in &self.shared {
            attribute.write(&mut out);
        }
        pad_to(&mut out, layout.data);
        for (inode, place) in inodes() {
            self.write_blocks(&mut out, inode, place);
        }
        out
    }

    /// Writes an inode's header, its attributes, and the data or chunk indexes behind them.
    fn write_inode(&self, out: &mut Vec<u8>, ino: u32, inode: &ErofsInode<'_>, place: &InodePlacement) {
        InodeHeader {
            compact: place.compact,
            layout: place.layout,
            file_type: inode.body.file_type(),
            xattr_count: inode.attributes.count(),
            permissions: inode.meta.mode as u16 & PERMISSIONS,
            size: place.size,
            union: place.union,
            ino,
            uid: inode.meta.uid,
            gid: inode.meta.gid,
            mtime: inode.meta.mtime.seconds(),
            nlink: inode.nlink,
        }
        .write(out);
        inode.attributes.write(out, &self.layout.references);
        match &inode.body {
            Body::Directory(directory) => self.write_directory(out, directory.tail()),
            Body::Small(bytes) => out.extend_from_slice(bytes),
            Body::Symlink(target) if !place.target_apart() => out.extend_from_slice(target),
            Body::Object { size, .. } => (0..chunks(*size)).for_each(|_| out.extend(CHUNK_HOLE)),
            _ => {}
        }
    }

    /// Writes the data that an inode has in blocks of its own.
    fn write_blocks(&self, out: &mut Vec<u8>, inode: &ErofsInode<'_>, place: &InodePlacement) {
        match &inode.body {
            Body::Directory(directory) => {
                for children in directory.blocks() {
                    self.write_directory(out, children);
                    fill_block(out);
                }
            }
            Body::Symlink(target) if place.target_apart() => {
                out.extend_from_slice(target);
                fill_block(out);
            }
            _ => {}
        }
    }

    /// Writes one block of a directory: the entries, then their names without separators.
    fn write_directory(&self, out: &mut Vec<u8>, children: &[Child<'_>]) {
        // No overflow: entries and names take at most a block.
        let mut name_offset = DIRENT_SIZE as usize * children.len();
        for child in children {
            let file_type = self.inodes[child.inode].body.file_type();
            write_dirent(out, self.layout.nid(child.inode), name_offset as u16, file_type);
            name_offset += child.name.len();
        }
        for child in children {
            out.extend_from_slice(child.name);
        }
    }
}

fn pad_to(out: &mut Vec<u8>, offset: u64) {
    out.resize(offset as usize, 0);
}

fn fill_block(out: &mut Vec<u8>) {
    pad_to(out, (out.len() as u64).next_multiple_of(BLOCK));
}
