//! The formats of images: one folder or file for each, with its layout, a writer and a reader where they are needed.

pub mod composefs;
mod copy;
pub mod cpio;
pub mod elf;
mod error;
pub mod ext4;
pub mod fat;
pub mod gpt;
pub mod grub;
mod guid;
pub mod iso;
pub mod kmod;
pub mod lz4;
pub mod mbr;
pub mod oci;
pub mod qcow2;
pub mod raspi;
mod read_at;
pub mod zstd;

use copy::copy_exact;
pub use copy::{CountingWriter, Open};
pub use error::ImageError;
pub use guid::Guid;
pub use read_at::{ReadAt, ReadCursor, Source, Window, open_source};
