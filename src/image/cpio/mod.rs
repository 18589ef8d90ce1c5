//! cpio archives in the "newc" form, which the kernel unpacks as its initramfs.
//!
//! ```text
//! entry    110-byte header of ASCII hexadecimal · name and NUL, padded to 4 · content, padded to 4
//! archive  entries · an entry named "TRAILER!!!" · zeros to a multiple of 512
//! ```
//!
//! An initramfs may consist of several archives one after the other, each plain or compressed, with zeros between them; each
//! plain archive begins at a multiple of 4.
//! Source: <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>.
//!
//! Own code instead of the crate `cpio` (docs/dependencies.md): the crate accepts a content shorter than its header states, and
//! a content of 4 GiB and more, whose length does not fit the header.

mod decode;
mod format;
mod reader;
mod segments;
mod tree;
mod writer;

pub use decode::FrameReader;
pub use reader::{CpioEntry, CpioReader};
pub use segments::{
    Compression, MAX_MAGIC, Segment, next_nonzero, segments, segments_until_damage, unread_compression,
};
pub use tree::{Keep, Root, read_tree, write_tree};
pub use writer::{CpioWriter, Device};
