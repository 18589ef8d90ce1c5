//! qcow2, the disk image that hypervisors and clouds import: version 3, clusters of 64 KiB, each compressed alone with zstd.
//!
//! ```text
//! cluster 0            header · feature name table
//! cluster 1…           L1 table: offset of each L2 table
//! then                 the disk's clusters, in the order of the disk: one zstd frame each, without padding, or plain
//! then                 L2 tables: offset of each cluster of the disk; 0 for a cluster of zeros, which is not stored
//! then                 refcount blocks: number of uses of each cluster of this file
//! end                  refcount table: offset of each refcount block
//! ```
//!
//! [`write()`] converts a disk; [`Qcow2`] reads the disk in any stand-alone qcow2 image. QEMU reads zstd since version 5.1.
//! Source: <https://www.qemu.org/docs/master/interop/qcow2.html>; for the packing of compressed clusters `qcow2_alloc_bytes` in
//! QEMU's `block/qcow2-refcount.c`.
//!
//! Own code instead of a crate (docs/dependencies.md): no crate writes clusters compressed with zstd whose bytes are the same for
//! any number of threads.

mod format;
mod reader;
mod writer;

pub use reader::{Qcow2, needs};
pub use writer::{Qcow2Summary, write};
