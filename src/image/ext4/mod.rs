//! ext4 whose files carry fs-verity from the start.

mod read;

pub use read::{DirEntry, Ext4, FileKind, FileReader, Inode, ReadAt, VerityTail};
