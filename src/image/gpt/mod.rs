//! GUID partition tables on disks with sectors of 512 or 4096 bytes.
//!
//! ```text
//! sector 0            protective master boot record, with GRUB's boot code where a BIOS is to boot the disk
//! sector 1            header: 92 bytes, CRC-32 of itself and of the array, zeros
//! sectors 2 to 33     128 entries of 128 bytes (sectors of 4096 bytes: 2 to 5)
//! from 1 MiB on       partitions, each at a multiple of 1 MiB
//! last 33 sectors     the array again, and the backup header in the last sector (sectors of 4096 bytes: the last 5)
//! ```
//!
//! Tables are written in this form only. Those that are read may have another number of entries, larger entries and arrays in other
//! places, and be damaged: [`examine`] says what of a table is whole.
//!
//! Source: UEFI specification 2.10, sections 5.2 and 5.3.
//!
//! Own code instead of the crate `gpt` (docs/dependencies.md): the crate needs `Read` of its output to compute the checksum of the
//! array, generates random GUIDs that would have to be replaced, and in reading panics on an unexpected entry size, allocates the
//! amount that a header claims, and accepts a disk with a damaged primary header. The tests read the written tables with it.

mod copies;
mod format;
mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use layout::{DiskTable, Partition, PartitionRequest, plan, types};
pub use reader::{GptFindings, examine, read};
pub use writer::{hybrid, write};
