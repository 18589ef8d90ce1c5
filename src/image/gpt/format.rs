//! Sizes and values of the table, and the offsets of its fields; all integers are little-endian.
//!
//! The names are those of the UEFI specification 2.10, section 5.3 (tables 5-5 and 5-6).

use crate::model::SectorSize;

/// Name of the format in messages.
pub(super) const FORMAT: &str = "a GUID partition table";
/// First bytes of a header.
pub(super) const SIGNATURE: [u8; 8] = *b"EFI PART";
/// Revision 1.0, the only one.
pub(super) const REVISION: u32 = 0x0001_0000;
/// Bytes of a header that is written, and the least of one that is read.
pub(super) const HEADER_SIZE: usize = 92;
/// Number of entries in an array that is written; UEFI requires at least 16 KiB for it.
pub(super) const ENTRIES: usize = 128;
/// Bytes of an entry that is written, and the least of one that is read, which has a power of two.
pub(super) const ENTRY_SIZE: usize = 128;
/// Bytes of an array that is written.
pub(super) const ARRAY_SIZE: usize = ENTRIES * ENTRY_SIZE;
/// Bytes of the longest array that is read. Linux reads 4 MiB.
pub(super) const MAX_ARRAY: u64 = 4 << 20;

/// Sectors of an array that is written.
pub(super) const fn array_sectors(size: SectorSize) -> u64 {
    ARRAY_SIZE as u64 / size.bytes()
}

/// Sectors in front of the first usable one: master boot record, header, array.
pub(super) const fn front(size: SectorSize) -> u64 {
    2 + array_sectors(size)
}

/// Sectors behind the last usable one: array, header.
pub(super) const fn back(size: SectorSize) -> u64 {
    1 + array_sectors(size)
}

/// Most UTF-16 units of a name.
pub(super) const NAME_UNITS: usize = 36;

// Offsets in a header.
pub(super) const HEADER_LENGTH: usize = 12;
/// CRC-32 of the header, taken while this field is 0; four reserved bytes follow.
pub(super) const HEADER_CRC32: usize = 16;
pub(super) const MY_LBA: usize = 24;
pub(super) const ALTERNATE_LBA: usize = 32;
pub(super) const FIRST_USABLE_LBA: usize = 40;
pub(super) const LAST_USABLE_LBA: usize = 48;
pub(super) const DISK_GUID: usize = 56;
pub(super) const PARTITION_ENTRY_LBA: usize = 72;
pub(super) const NUMBER_OF_ENTRIES: usize = 80;
pub(super) const SIZE_OF_ENTRY: usize = 84;
pub(super) const ARRAY_CRC32: usize = 88;

// Offsets in an entry.
pub(super) const PARTITION_TYPE_GUID: usize = 0;
pub(super) const UNIQUE_PARTITION_GUID: usize = 16;
pub(super) const STARTING_LBA: usize = 32;
pub(super) const ENDING_LBA: usize = 40;
pub(super) const ATTRIBUTES: usize = 48;
pub(super) const PARTITION_NAME: usize = 56;
