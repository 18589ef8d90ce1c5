//! What a disk holds, and where: partitions planned one after the other, or checked where somebody put them.

use super::format::{BACK, ENTRIES, FORMAT, FRONT, NAME_UNITS, SECTOR};
use crate::image::{Guid, ImageError};

/// Sectors of 1 MiB: partitions begin at its multiples, which suits every disk and flash, and disks end at one.
const ALIGN: u64 = (1 << 20) / SECTOR;
/// More sectors than a disk can have: its bytes must be a signed 64-bit number.
const MAX_SECTORS: u64 = i64::MAX as u64 / SECTOR;

/// What partitions are for, by type GUID.
pub mod types {
    use crate::image::Guid;

    /// GRUB's core image, for a BIOS (GRUB's `GRUB_GPT_PARTITION_TYPE_BIOS_BOOT`).
    pub const BIOS_BOOT: Guid = Guid::new(0x21686148_6449_6e6f_744e_656564454649);
    /// The EFI system partition (UEFI 2.10, table 5-7).
    pub const EFI_SYSTEM: Guid = Guid::new(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
    /// Files of Linux (`GPT fdisk` 8300).
    pub const LINUX_DATA: Guid = Guid::new(0x0fc63daf_8483_4772_8e79_3d69d8477de4);
    /// FAT and NTFS of Windows (`GPT fdisk` 0700).
    pub const BASIC_DATA: Guid = Guid::new(0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7);
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its label, 36 UTF-16 units at most.
    pub name: String,
    /// What it is for: one of [`types`], or another.
    pub type_guid: Guid,
    /// Its own name, unlike any other.
    pub guid: Guid,
    /// First sector.
    pub first_lba: u64,
    /// Number of sectors.
    pub sectors: u64,
    /// Flags: bit 0 required by the platform, bit 2 to be booted by a BIOS, bits 48 to 63 as the type says.
    pub attributes: u64,
}

impl Partition {
    /// First byte on the disk.
    pub fn offset(&self) -> u64 {
        self.first_lba.saturating_mul(SECTOR)
    }
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }
}

/// A disk's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskTable {
    /// Its name, unlike any other.
    pub guid: Guid,
    /// Partitions in the order of their entries; Linux counts them from 1.
    pub partitions: Vec<Partition>,
    /// Sectors of the whole disk.
    pub sectors: u64,
}

impl DiskTable {
    /// Length of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// What keeps this from being a valid table, in words; `Ok` if nothing does.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(FRONT + BACK + 1..=MAX_SECTORS).contains(&self.sectors) {
            return Err(format!("a disk of {} sectors cannot be", self.sectors));
        }
        if self.partitions.len() > ENTRIES {
            return Err(format!(
                "{} partitions are more than the {ENTRIES} entries",
                self.partitions.len()
            ));
        }
        let usable = FRONT..self.sectors - BACK;
        for (number, partition) in (1..).zip(&self.partitions) {
            let Partition { first_lba, sectors, .. } = *partition;
            let end = first_lba.checked_add(sectors);
            if sectors == 0 || first_lba < usable.start || end.is_none_or(|end| end > usable.end) {
                return Err(format!(
                    "partition {number} with {sectors} sectors from {first_lba} on does not lie within sectors {} to {}",
                    usable.start,
                    usable.end - 1,
                ));
            }
            if partition.type_guid == Guid::NIL {
                return Err(format!("partition {number} has no type"));
            }
            let units = partition.name.encode_utf16().count();
            if units > NAME_UNITS || partition.name.contains('\0') {
                return Err(format!(
                    "partition {number} cannot have the name {:?} of {units} units",
                    partition.name
                ));
            }
        }
        let mut names: Vec<Guid> = self.partitions.iter().map(|p| p.guid).chain([self.guid]).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("the GUID {} names two things", pair[0]));
        }
        let mut ranges: Vec<_> = (1..)
            .zip(&self.partitions)
            .map(|(number, p)| (p.first_lba, p.first_lba + p.sectors, number))
            .collect();
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            let ((_, end, one), (start, _, other)): (_, (_, _, u32)) = (pair[0], pair[1]);
            if start < end {
                return Err(format!("partitions {one} and {other} overlap"));
            }
        }
        Ok(())
    }
}

/// A partition that still needs a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionRequest {
    /// Its label, 36 UTF-16 units at most.
    pub name: String,
    /// What it is for.
    pub type_guid: Guid,
    /// Its own name.
    pub guid: Guid,
    /// Bytes it must have, at least 1.
    pub size: u64,
    /// Flags, as in [`Partition`].
    pub attributes: u64,
}

/// Gives each of `wanted` a place, in this order, at the next multiple of 1 MiB. The disk is as long as `size` says in bytes, a
/// multiple of 512, or else as short as a multiple of 1 MiB can be. What does not fit or cannot be named is an error.
pub fn plan(guid: Guid, wanted: &[PartitionRequest], size: Option<u64>) -> Result<DiskTable, ImageError> {
    let refuse = |problem: String| ImageError::Request {
        format: FORMAT,
        problem,
    };
    let beyond = |name: &str| refuse(format!("partition {name:?} ends beyond any disk"));
    let mut end = FRONT;
    let mut partitions = Vec::new();
    for one in wanted {
        let first_lba = end.next_multiple_of(ALIGN);
        let sectors = one.size.div_ceil(SECTOR);
        end = first_lba
            .checked_add(sectors)
            .filter(|end| *end < MAX_SECTORS - BACK - ALIGN)
            .ok_or_else(|| beyond(&one.name))?;
        partitions.push(Partition {
            name: one.name.clone(),
            type_guid: one.type_guid,
            guid: one.guid,
            first_lba,
            sectors,
            attributes: one.attributes,
        });
    }
    let sectors = match size {
        Some(size) if !size.is_multiple_of(SECTOR) => {
            return Err(refuse(format!("{size} bytes are not a number of whole sectors")));
        }
        Some(size) => size / SECTOR,
        None => (end + BACK).next_multiple_of(ALIGN),
    };
    let disk = DiskTable {
        guid,
        partitions,
        sectors,
    };
    disk.check().map_err(refuse)?;
    Ok(disk)
}
