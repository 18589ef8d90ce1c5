//! GUID partition tables on disks of 512-byte sectors.
//!
//! ```text
//! sector 0            protective master boot record, with GRUB's boot code where a BIOS is to boot the disk
//! sector 1            header: 92 bytes, CRC-32 of itself and of the array, zeros
//! sectors 2 to 33     128 entries of 128 bytes
//! sector 2048 on      partitions, each at a multiple of 1 MiB
//! last 33 sectors     the array again, and the backup header in the last sector
//! ```
//!
//! Source: UEFI specification 2.10, sections 5.2 and 5.3.
//!
//! Written here and not with the crate `gpt`: that reads its own array back from the device to sum it up, where a writer
//! here has only `Write + Seek`, makes random GUIDs that then must be replaced, and, reading, panics on an entry size it does
//! not expect, allocates what a header claims, and takes a bad primary header for a good disk. The tests read what is written
//! here with it.

mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use layout::{DiskTable, Partition, PartitionRequest, plan, types};
pub use reader::read;
pub use writer::{hybrid, write};

use super::mbr::SECTOR;

/// Name of the format in messages.
const FORMAT: &str = "a GUID partition table";
/// Begins a header.
const SIGNATURE: [u8; 8] = *b"EFI PART";
/// Revision 1.0, the only one.
const REVISION: u32 = 0x0001_0000;
/// Bytes of a header.
const HEADER_SIZE: usize = 92;
/// Entries in the array; UEFI wants room for at least 16 KiB.
const ENTRIES: usize = 128;
/// Bytes of an entry.
const ENTRY_SIZE: usize = 128;
/// Sectors of the array.
const ARRAY_SECTORS: u64 = (ENTRIES * ENTRY_SIZE) as u64 / SECTOR;
/// Sectors in front of the first that a partition may have: record, header, array.
const FRONT: u64 = 2 + ARRAY_SECTORS;
/// Sectors behind the last that a partition may have: array, header.
const BACK: u64 = 1 + ARRAY_SECTORS;
/// UTF-16 units of a name.
const NAME_UNITS: usize = 36;

/// CRC-32 as UEFI, zlib and IEEE 802.3 have it.
fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
