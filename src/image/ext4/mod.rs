//! The ext4 file system that carries the root: the composefs image and its objects, each already under fs-verity.
//!
//! ```text
//! /image.cfs          the composefs image
//! /objects/ab/cdef…   one file per content, named by its fs-verity digest
//! ```
//!
//! A verity file on ext4 is its data · a hole up to the next multiple of 64 KiB · the Merkle tree, root level first · the
//! 256-byte descriptor at the next block · zeros · the descriptor's size as le32 in the last four bytes of that block. All
//! of it belongs to the file; `i_size` is the length of the data and the inode has the flags EXTENTS and VERITY.
//! Source: the kernel's `fs/ext4/verity.c`, and <https://docs.kernel.org/filesystems/ext4/verity.html>.
//!
//! No mount and no privilege is needed. [`plan()`] checks what goes in; [`write_staging_tar`] writes a sparse tar of files that
//! are as long as data and tail together, and learns how many blocks they take; [`make`] lets `mke2fs -d` build a file system
//! of just that size, lets `debugfs` shorten the files and set the flags ([`debugfs_script`]), and lets `e2fsck` judge it.
//! There is no journal and nothing is reserved: the file system is only ever mounted read-only.

mod plan;
mod read;
mod size;
mod staging;
mod tools;

pub use plan::{Ext4Layout, VerityFile, plan, root_items};
pub use read::{DataRun, DirEntry, Ext4, Ext4File, Ext4Inode, FileKind, Region, SuperblockFacts, VerityTail};
pub use staging::{Staged, write_staging_tar};
pub use tools::{Paths, ToolCall, ToolOutput, ToolRunner, calls, debugfs_script, make};

/// Name of the format in messages.
const FORMAT: &str = "an ext4 file system";
/// Bytes in a block.
const BLOCK: u64 = 4096;
/// Bytes of an inode.
const INODE_SIZE: u64 = 256;
/// Where the composefs image lies in the file system.
pub const IMAGE_PATH: &str = "image.cfs";
/// Where the objects lie.
pub const OBJECTS_PATH: &str = "objects";
/// Label of the volume.
pub const LABEL: &str = "powernode-root";
