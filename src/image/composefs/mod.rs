//! composefs images: the metadata of a tree as an EROFS file system, whose files are named by fs-verity digest.
//!
//! ```text
//! 0            composefs header, 32 bytes
//! 1024         EROFS superblock, 128 bytes
//! 1152         inodes, each with its attributes and a short tail of data, in 32-byte slots; the root is the first
//! after them   shared attributes, 4-byte aligned
//! next block   directory blocks, and link targets too long for an inode, in the order of the inodes
//! ```
//!
//! The image is composefs format version 1. The kernel mounts it as EROFS and stacks it with overlayfs over the objects: each
//! regular file carries the attributes `trusted.overlay.redirect` = `/ab/cdef…` (the path of its object) and
//! `trusted.overlay.metacopy` with its digest, so that `verity=require` checks every byte read. A file of at most [`INLINE_MAX`]
//! bytes lies in the image itself, which the image's own digest covers. The bytes are those that `mkcomposefs --min-version=1`
//! of composefs 1.0.8 makes of the same tree.
//! Source: <https://github.com/composefs/composefs/blob/main/docs/composefs.md>; `format.rs` has the structures.
//!
//! Own code instead of the crate `composefs`: docs/dependencies.md.

mod entry;
mod format;
mod inodes;
mod layout;
mod list;
mod objects;
mod raw;
mod writer;
mod xattr;

pub use format::INLINE_MAX;
pub use list::{Listed, list};
pub use objects::referenced_objects;
pub use raw::is_composefs;
pub use writer::{external_objects, write_image};
