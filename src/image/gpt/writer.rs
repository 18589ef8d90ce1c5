//! Writes the master boot record, both headers and both arrays; the bytes between them are not touched.

use super::{
    DiskTable, Partition,
    format::{
        ARRAY_SIZE, ENTRIES, ENTRY_SIZE, FORMAT, HEADER_CRC32, HEADER_SIZE, REVISION, SIGNATURE, array_sectors, back,
        front,
    },
};
use crate::image::{
    ImageError,
    mbr::{BOOT_CODE, Mbr, MbrPartition},
};
use std::io::{Seek, SeekFrom, Write};

/// Writes the table of `disk` at the beginning and the end of the disk; `out` begins at its first byte. `boot_code` is the code that a
/// BIOS runs, e.g. GRUB's from [`crate::image::grub::embed`]; without it the place stays zeros. An invalid table is an error, and
/// nothing is written.
pub fn write<W: Write + Seek>(
    disk: &DiskTable,
    boot_code: Option<&[u8; BOOT_CODE]>,
    out: &mut W,
) -> Result<(), ImageError> {
    disk.check().map_err(|problem| ImageError::Request {
        format: FORMAT,
        problem,
    })?;
    let array = array(disk);
    let sum = crc32fast::hash(&array);
    let sector = disk.sector_size.bytes();
    let last = disk.sectors - 1;
    let mut first = Mbr::protective(disk.sectors, boot_code.unwrap_or(&[0; BOOT_CODE]))
        .to_bytes()
        .to_vec();
    first.resize(sector as usize, 0);
    first.extend(header(disk, sum, [1, last, 2]));
    first.extend(&array);
    let mut copy = array;
    copy.extend(header(disk, sum, [last, 1, last - array_sectors(disk.sector_size)]));
    for (lba, bytes) in [(0, first), (disk.sectors - back(disk.sector_size), copy)] {
        out.seek(SeekFrom::Start(lba * sector))
            .and_then(|_| out.write_all(&bytes))
            .map_err(|source| ImageError::Write { format: FORMAT, source })?;
    }
    Ok(())
}

/// A hybrid master boot record, for firmware that does not support GPT: it has `partition` with the type `kind` beside the
/// protective entry. Linux and other programs that support GPT still use the GPT (block/partitions/efi.c, `GPT_MBR_HYBRID`). A
/// partition beyond 2 TiB is an error.
pub fn hybrid(partition: &Partition, kind: u8) -> Result<Mbr, ImageError> {
    let number = |n: u64| {
        u32::try_from(n).map_err(|_| ImageError::Request {
            format: FORMAT,
            problem: format!(
                "partition {:?} lies beyond the 2 TiB that a master boot record can address",
                partition.name
            ),
        })
    };
    let (first_lba, sectors) = (number(partition.first_lba)?, number(partition.sectors)?);
    let mut record = Mbr::protective(partition.first_lba, &[0; BOOT_CODE]);
    for protective in &mut record.partitions {
        protective.slot = 1;
    }
    record.partitions.insert(
        0,
        MbrPartition {
            slot: 0,
            active: false,
            kind,
            first_lba,
            sectors,
        },
    );
    Ok(record)
}

fn array(disk: &DiskTable) -> Vec<u8> {
    let mut array = Vec::with_capacity(ARRAY_SIZE);
    for partition in &disk.partitions {
        let end = array.len() + ENTRY_SIZE;
        array.extend(partition.type_guid.to_disk());
        array.extend(partition.guid.to_disk());
        array.extend(partition.first_lba.to_le_bytes());
        array.extend((partition.first_lba + partition.sectors - 1).to_le_bytes());
        array.extend(partition.attributes.to_le_bytes());
        array.extend(partition.name.encode_utf16().flat_map(u16::to_le_bytes));
        array.resize(end, 0);
    }
    array.resize(ARRAY_SIZE, 0);
    array
}

/// A header, padded to its sector. `own`, `other` and `array` are the sectors of this header, of the other one, and of the array.
fn header(disk: &DiskTable, sum: u32, [own, other, array]: [u64; 3]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend(REVISION.to_le_bytes());
    bytes.extend((HEADER_SIZE as u32).to_le_bytes());
    // The CRC-32 of the header, computed while it is 0, and four reserved bytes.
    bytes.extend([0; 8]);
    let usable = (front(disk.sector_size), disk.sectors - back(disk.sector_size) - 1);
    for lba in [own, other, usable.0, usable.1] {
        bytes.extend(lba.to_le_bytes());
    }
    bytes.extend(disk.guid.to_disk());
    bytes.extend(array.to_le_bytes());
    for number in [ENTRIES as u32, ENTRY_SIZE as u32, sum] {
        bytes.extend(number.to_le_bytes());
    }
    let own_sum = crc32fast::hash(&bytes).to_le_bytes();
    bytes[HEADER_CRC32..HEADER_CRC32 + 4].copy_from_slice(&own_sum);
    bytes.resize(disk.sector_size.bytes() as usize, 0);
    bytes
}
