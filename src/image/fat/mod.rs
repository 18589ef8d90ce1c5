//! FAT16 and FAT32 volumes: EFI system partitions, the Raspberry Pi's boot partition, the EFI image of an ISO.
//!
//! ```text
//! reserved sectors    boot sector; FAT32: FSInfo in sector 1, copies of both in sectors 6 and 7
//! first table         one number for each cluster: the next of its file, or "last"; 0 is free
//! second table        the same
//! FAT16: root         512 entries
//! clusters from 2 on  FAT32: the root; then directories and files in the order of their paths, each in one piece
//! ```
//!
//! An entry of a directory has 32 bytes; one whose name is not upper-case 8.3 has entries with its name in UTF-16 before it.
//! Source: Microsoft's "FAT32 File System Specification" 1.03 (`fatgen103`), which UEFI 2.10 section 13.3 refers to.
//!
//! Written here and not with the crate `fatfs`: laid out first, every file lies in one known extent, which auditors and
//! `config.txt` readers need and a file system written to step by step does not promise; and only what is not zero is written,
//! to an output that need not be readable.

mod layout;
mod names;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use layout::{FatItem, FatLayout, FatVolume, VolumeSize, plan};
pub use reader::{Fat, FatEntry, FatFile};
pub use writer::{FatSummary, write};

use crate::{image::Guid, model::VerityDigest};

/// Name of the format in messages.
const FORMAT: &str = "a FAT volume";
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Bytes of a directory's entry.
const ENTRY: usize = 32;
/// Number of tables.
const TABLES: u64 = 2;
/// The first cluster's number.
const FIRST_CLUSTER: u32 = 2;
/// Fewer clusters than this are FAT12, fewer than the next FAT16.
const MIN_FAT16: u32 = 4085;
const MIN_FAT32: u32 = 65_525;
/// Most clusters of FAT32: numbers from 0x0ffffff7 on have other meanings.
const MAX_FAT32: u32 = 0x0fff_fff4;
/// Largest directory: its entries are counted with 16 bits.
const MAX_DIRECTORY: u64 = 65_536 * ENTRY as u64;
/// UTF-16 units of a name in one entry.
const LONG_UNITS: usize = 13;
/// Attributes of an entry.
const ATTR_LABEL: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_ARCHIVE: u8 = 0x20;
const ATTR_LONG: u8 = 0x0f;
/// Of the first byte of a long name's entries: it is the last piece, which comes first.
const LONG_LAST: u8 = 0x40;

/// How wide the numbers in the table are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FatKind {
    /// 12 bits: floppies and the smallest images. Only read.
    Fat12,
    /// 16 bits: 2 MiB and more.
    Fat16,
    /// 32 bits, of which 28 count: 33 MiB and more; what UEFI wants of a fixed disk.
    Fat32,
}

impl FatKind {
    /// The kind that a volume of so many clusters has.
    fn of(clusters: u32) -> Self {
        match clusters {
            ..MIN_FAT16 => Self::Fat12,
            MIN_FAT16..MIN_FAT32 => Self::Fat16,
            MIN_FAT32.. => Self::Fat32,
        }
    }
    /// Bits of a number in the table.
    fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }
    /// The numbers' bits that count; all ones mark a file's last cluster.
    fn mask(self) -> u32 {
        match self {
            Self::Fat12 => 0xfff,
            Self::Fat16 => 0xffff,
            Self::Fat32 => 0x0fff_ffff,
        }
    }
}

/// A serial number that depends on nothing but the purpose and the root.
pub fn serial(purpose: &str, root: &VerityDigest) -> u32 {
    let [a, b, c, d, ..] = Guid::derived("fat", purpose, root).to_disk();
    u32::from_le_bytes([a, b, c, d])
}
