//! Partition tables as values: partitions placed one after the other, or read and checked.

use super::format::{ENTRIES, FORMAT, NAME_UNITS, back, front};
use crate::{
    image::{Guid, ImageError},
    model::SectorSize,
};

/// 1 MiB. Partitions begin at multiples of it, which suit the blocks of every disk and flash, and disks end at one.
const ALIGN: u64 = 1 << 20;
/// Most bytes of a disk, whose size must fit a signed 64-bit number.
const MAX_SIZE: u64 = i64::MAX as u64;

/// Type GUIDs of partitions.
pub mod types {
    use crate::image::Guid;

    /// GRUB's core image, for a BIOS (GRUB's `GRUB_GPT_PARTITION_TYPE_BIOS_BOOT`).
    pub const BIOS_BOOT: Guid = Guid::new(0x21686148_6449_6e6f_744e_656564454649);
    /// The EFI system partition (UEFI 2.10, table 5-7).
    pub const EFI_SYSTEM: Guid = Guid::new(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
    /// Linux file systems (`GPT fdisk` 8300).
    pub const LINUX_DATA: Guid = Guid::new(0x0fc63daf_8483_4772_8e79_3d69d8477de4);
    /// FAT and NTFS file systems of Windows (`GPT fdisk` 0700).
    pub const BASIC_DATA: Guid = Guid::new(0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7);
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Label, at most 36 UTF-16 units.
    pub name: String,
    /// Type: one of [`types`], or another.
    pub type_guid: Guid,
    /// Unique GUID.
    pub guid: Guid,
    /// First sector.
    pub first_lba: u64,
    /// Number of sectors.
    pub sectors: u64,
    /// Flags: bit 0 required by the platform, bit 2 bootable by a BIOS, bits 48 to 63 defined by the type.
    pub attributes: u64,
}

impl Partition {
    /// First byte on a disk with sectors of `size`.
    pub fn offset(&self, size: SectorSize) -> u64 {
        self.first_lba.saturating_mul(size.bytes())
    }
    /// Length in bytes on a disk with sectors of `size`.
    pub fn size(&self, size: SectorSize) -> u64 {
        self.sectors.saturating_mul(size.bytes())
    }
}

/// The partition table of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskTable {
    /// Unique GUID of the disk.
    pub guid: Guid,
    /// Its logical sectors, in which the table counts.
    pub sector_size: SectorSize,
    /// Partitions in the order of their entries; Linux counts them from 1.
    pub partitions: Vec<Partition>,
    /// Number of sectors of the whole disk.
    pub sectors: u64,
}

impl DiskTable {
    /// Length of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.sectors.saturating_mul(self.sector_size.bytes())
    }

    /// Checks a table that is to be written; the error is the first problem.
    pub(super) fn check(&self) -> Result<(), String> {
        let (front, back) = (front(self.sector_size), back(self.sector_size));
        if !(front + back + 1..=MAX_SIZE / self.sector_size.bytes()).contains(&self.sectors) {
            return Err(format!("a disk cannot have {} sectors", self.sectors));
        }
        if self.partitions.len() > ENTRIES {
            return Err(format!(
                "{} partitions are more than the {ENTRIES} entries",
                self.partitions.len()
            ));
        }
        let usable = front..self.sectors - back;
        for (number, partition) in (1..).zip(&self.partitions) {
            let Partition { first_lba, sectors, .. } = *partition;
            let end = first_lba.checked_add(sectors);
            if sectors == 0 || first_lba < usable.start || end.is_none_or(|end| end > usable.end) {
                return Err(format!(
                    "partition {number} of {sectors} sectors from sector {first_lba} on does not lie within the sectors {} to {}",
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
                    "partition {number} cannot have the name {:?} of {units} UTF-16 units",
                    partition.name
                ));
            }
        }
        let mut names: Vec<Guid> = self.partitions.iter().map(|p| p.guid).chain([self.guid]).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("the GUID {} is used twice", pair[0]));
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

/// A partition without a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionRequest {
    /// Label, at most 36 UTF-16 units.
    pub name: String,
    /// Type.
    pub type_guid: Guid,
    /// Unique GUID.
    pub guid: Guid,
    /// Least size in bytes, at least 1.
    pub size: u64,
    /// Flags, as in [`Partition`].
    pub attributes: u64,
}

/// Places the partitions `wanted`, in this order, each at the next multiple of 1 MiB of a disk with sectors of `sector_size`. The disk
/// has `size` bytes, a multiple of a sector, or without a `size` the least multiple of 1 MiB. A partition that does not fit, or has an
/// invalid name, is an error.
pub fn plan(
    guid: Guid,
    sector_size: SectorSize,
    wanted: &[PartitionRequest],
    size: Option<u64>,
) -> Result<DiskTable, ImageError> {
    let refuse = |problem: String| ImageError::Request {
        format: FORMAT,
        problem,
    };
    let sector = sector_size.bytes();
    let (align, back) = (ALIGN / sector, back(sector_size));
    let beyond = |name: &str| refuse(format!("partition {name:?} ends beyond any disk"));
    let mut end = front(sector_size);
    let mut partitions = Vec::new();
    for one in wanted {
        let first_lba = end.next_multiple_of(align);
        let sectors = one.size.div_ceil(sector);
        end = first_lba
            .checked_add(sectors)
            .filter(|end| *end < MAX_SIZE / sector - back - align)
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
        Some(size) if !size.is_multiple_of(sector) => {
            return Err(refuse(format!(
                "a disk of {size} bytes does not end at a sector of {sector} bytes"
            )));
        }
        Some(size) => size / sector,
        None => (end + back).next_multiple_of(align),
    };
    let disk = DiskTable {
        guid,
        sector_size,
        partitions,
        sectors,
    };
    disk.check().map_err(refuse)?;
    Ok(disk)
}
