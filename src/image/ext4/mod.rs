//! The ext4 file system that carries the root: the composefs image and its objects, each already under fs-verity.
//!
//! ```text
//! /image.cfs          the composefs image
//! /objects/ab/cdef…   one file for each content, named by its fs-verity digest
//! ```
//!
//! A verity file on ext4 consists of its data · a hole up to the next multiple of 64 KiB · the Merkle tree, root level first · the
//! 256-byte descriptor at the next block · zeros · the descriptor's size as le32 in the last four bytes of that block. All of it
//! belongs to the file; `i_size` is the length of the data, and the inode has the flags EXTENTS and VERITY.
//! Source: the kernel's `fs/ext4/verity.c`, and <https://docs.kernel.org/filesystems/ext4/verity.html>.
//!
//! No mount, no privilege and no other program is needed. [`plan()`] checks the files; [`write()`] reads each once and writes the file
//! system from front to back, in the order of the plan; `space` says which block is whose. The file system has no journal and
//! reserves nothing: it is only ever mounted read-only.
//!
//! The reader, [`Ext4`], reads ext2, ext3 and ext4 of other machines too:
//!
//! ```text
//! byte 1024                    superblock
//! behind the superblock's block  group descriptors, 32 or s_desc_size bytes each
//! inode n                      entry (n-1) % s_inodes_per_group of the table of group (n-1) / s_inodes_per_group
//! i_block                      root of the extent tree: header of 12 bytes, then entries of 12 bytes, sorted; or a block map, or data
//! directory                    entries of 8 bytes and a name, filling each block; an index hides in entries of inode 0
//! ```
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/>. It is own code instead of the crate `ext4-view` (docs/dependencies.md):
//! comparing two images needs the extents of each file and the verity metadata, which the crate does not give.

mod attributes;
mod block_map;
mod checksum;
mod directory;
mod extent_tree;
mod extents;
mod file;
mod format;
mod groups;
mod journal;
mod listing;
mod plan;
mod records;
mod regions;
mod space;
mod superblock;
mod verity;
mod volume;
mod write;

pub use attributes::Ext4Attribute;
pub use directory::DirEntry;
pub use extents::DataRun;
pub use file::Ext4File;
pub use format::{IMAGE_PATH, LABEL, OBJECTS_PATH};
pub use journal::{JournalFacts, Replayed, ReplayedImage, replay};
pub use plan::{Ext4Layout, VerityFile, plan, root_items};
pub use regions::Region;
pub use superblock::{ExtKind, SuperblockFacts};
pub use verity::VerityTail;
pub use volume::{Ext4, Ext4Inode, FileKind};
pub use write::{StoreAt, write};
