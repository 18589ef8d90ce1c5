//! The image's bytes, each structure at the place its layout gives it.

use super::{
    format::{
        BLOCK, CHUNK_HOLE, DIRENT_SIZE, InodeHeader, SUPERBLOCK_OFFSET, Superblock, composefs_header, write_dirent,
    },
    inodes::{Body, Child, ErofsInode},
    layout::{ErofsLayout, InodePlacement, chunks},
    xattr::Attribute,
};

/// Everything an image is made of.
pub(super) struct Image<'a> {
    /// Root first.
    pub(super) inodes: Vec<ErofsInode<'a>>,
    /// Attributes that several inodes have, in the order of the layout's references.
    pub(super) shared: Vec<Attribute<'a>>,
    /// Whether an entry has a POSIX access control list.
    pub(super) has_acl: bool,
    pub(super) layout: ErofsLayout,
}

impl Image<'_> {
    /// The whole image, a multiple of 4096 bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
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

    /// Header, attributes and what lies behind them.
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

    /// Data in blocks of its own.
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

    /// The entries, then their names without anything between.
    fn write_directory(&self, out: &mut Vec<u8>, children: &[Child<'_>]) {
        // Entries and names fill a block at most.
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

/// What of a mode is not the file type.
const PERMISSIONS: u16 = 0o7777;

fn pad_to(out: &mut Vec<u8>, offset: u64) {
    out.resize(offset as usize, 0);
}

fn fill_block(out: &mut Vec<u8>) {
    pad_to(out, (out.len() as u64).next_multiple_of(BLOCK));
}
