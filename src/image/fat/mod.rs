//! FAT16 and FAT32 volumes: EFI system partitions, the Raspberry Pi's boot partition, the EFI image of an ISO.
//!
//! ```text
//! reserved sectors    boot sector; FAT32: FSInfo in sector 1, copies of both in sectors 6 and 7
//! first table         one number for each cluster: the next cluster of the same file, or "last"; 0 is free
//! second table        the same
//! FAT16: root         512 entries
//! clusters from 2 on  FAT32: the root; then directories and files in the order of their paths, each in one extent
//! ```
//!
//! A directory entry has 32 bytes; a name that is not upper-case 8.3 is stored in UTF-16 in further entries in front of it.
//! Source: Microsoft's "FAT32 File System Specification" 1.03 (`fatgen103`), which UEFI 2.10 section 13.3 refers to;
//! `format.rs` has its fields.
//!
//! Own code instead of the crate `fatfs` (docs/dependencies.md): the volume is laid out before it is written, so that every
//! file lies in one extent known beforehand, and zeros are not written, to an output that need not be readable.

mod boot_sector;
mod check;
mod directory;
mod file;
mod format;
mod kind;
mod layout;
mod names;
mod table;
#[cfg(test)]
mod tests;
mod volume;
mod writer;

pub use directory::FatEntry;
pub use file::FatFile;
pub use kind::FatKind;
pub use layout::{FatItem, FatLayout, FatVolume, VolumeSize, plan, serial};
pub use volume::Fat;
pub use writer::{FatSummary, write};
