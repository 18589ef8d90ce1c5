//! qcow2, the disk image that hypervisors and clouds import: version 3, clusters of 64 KiB, each compressed with zstd alone.
//!
//! ```text
//! cluster 0            header · feature name table
//! cluster 1…           L1 table: where each L2 table is
//! then                 the disk's clusters, in the order of the disk: one zstd frame each, byte after byte, or plain
//! then                 L2 tables: where each cluster of the disk is; 0 for one of zeros, which is not stored
//! then                 refcount blocks: how often each cluster of this file is used
//! end                  refcount table: where each refcount block is
//! ```
//!
//! [`write()`] makes it of any bytes; [`Qcow2`] shows the bytes of any stand-alone qcow2 image. QEMU reads zstd since 5.1.
//! Source: <https://www.qemu.org/docs/master/interop/qcow2.html>; how compressed clusters are packed: `qcow2_alloc_bytes` in
//! QEMU's `block/qcow2-refcount.c`.

mod format;
mod reader;
mod writer;

pub use reader::Qcow2;
pub use writer::{DEFAULT_LEVEL, Qcow2Summary, write};
