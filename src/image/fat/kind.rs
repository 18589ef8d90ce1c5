//! The three kinds of FAT, which differ in the width of the numbers in the table.

use super::format::{MAX_FAT32, MIN_FAT16, MIN_FAT32};

/// Width of the numbers in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FatKind {
    /// 12 bits: floppies and the smallest images. Only read.
    Fat12,
    /// 16 bits: 2 MiB and more.
    Fat16,
    /// 32 bits, of which 28 count: 33 MiB and more; the kind that UEFI requires on a fixed disk.
    Fat32,
}

impl FatKind {
    /// The kind of a volume with this number of clusters, and the fields of FAT32 or of the others.
    pub(super) fn of(clusters: u64, fat32: bool) -> Self {
        match clusters {
            _ if fat32 => Self::Fat32,
            clusters if clusters < u64::from(MIN_FAT16) => Self::Fat12,
            _ => Self::Fat16,
        }
    }

    /// Most clusters of a volume.
    pub(super) fn most(self) -> u32 {
        match self {
            Self::Fat12 => MIN_FAT16 - 1,
            Self::Fat16 => MIN_FAT32 - 1,
            Self::Fat32 => MAX_FAT32,
        }
    }

    /// Bits of a number in the table.
    pub(super) fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// The bits of a number that count; all ones mark the last cluster of a file.
    pub(super) fn mask(self) -> u32 {
        match self {
            Self::Fat12 => 0xfff,
            Self::Fat16 => 0xffff,
            Self::Fat32 => 0x0fff_ffff,
        }
    }
}
