//! cpio archives in the "newc" form, which the kernel unpacks as its initramfs.
//!
//! ```text
//! entry    110-byte header of ASCII hexadecimal · name and NUL, padded to 4 · content, padded to 4
//! archive  entries · an entry named "TRAILER!!!" · zeros to a multiple of 512
//! ```
//!
//! An initramfs may be several archives one after the other, each plain or compressed, with zeros between them; each
//! plain one begins at a multiple of 4. Source: <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>.

mod header;
mod reader;
mod segments;
mod writer;

pub use reader::{CpioEntry, CpioReader, Keep, read_tree};
pub use segments::{Compression, Segment, segments};
pub use writer::{CpioWriter, Device, Root, write_tree};

/// Name of the format in messages.
const FORMAT: &str = "a cpio archive";
/// Name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";
/// What the end of an archive is padded to, as cpio(1) does.
const ARCHIVE_ALIGN: u64 = 512;
