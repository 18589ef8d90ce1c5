//! Reads a table of unknown origin, and accepts it only if both copies are sound and agree.

use super::{
    DiskTable, Partition,
    format::{
        ALTERNATE_LBA, ARRAY_CRC32, ATTRIBUTES, DISK_GUID, ENDING_LBA, ENTRIES, ENTRY_SIZE, FIRST_USABLE_LBA, FORMAT,
        HEADER_CRC32, HEADER_LENGTH, HEADER_REVISION, HEADER_SIZE, LAST_USABLE_LBA, MY_LBA, NAME_UNITS,
        NUMBER_OF_ENTRIES, PARTITION_ENTRY_LBA, PARTITION_NAME, PARTITION_TYPE_GUID, REVISION, SECTOR, SECTOR_SIZES,
        SIGNATURE, SIZE_OF_ENTRY, STARTING_LBA, UNIQUE_PARTITION_GUID,
    },
};
use crate::image::{
    Guid, ImageError, ReadAt,
    mbr::{self, PROTECTIVE},
};

/// The fields of a header in which both copies must agree; the others are checked when it is read.
#[derive(PartialEq, Eq)]
struct GptHeader {
    first_usable: u64,
    last_usable: u64,
    guid: Guid,
    /// CRC-32 of the array.
    sum: u32,
}

/// A header and its array of entries.
type TableCopy = (GptHeader, Vec<u8>);

fn corrupt(offset: u64, problem: impl Into<String>) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem: problem.into(),
    }
}

/// A table of which a part may be damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GptFindings {
    /// Bytes of a sector of the disk for which the table was written: 512 or 4096.
    pub sector_size: u64,
    /// Unique GUID of the disk.
    pub guid: Guid,
    /// Sectors of the disk.
    pub sectors: u64,
    /// The partitions that lie on the disk, with the numbers of their entries, from 1.
    pub partitions: Vec<(u32, Partition)>,
    /// The damage, as fragments of sentences; empty when all is sound.
    pub problems: Vec<String>,
}

/// Reads as much as possible of the table of a disk: both copies are tried, for sectors of 512 and of 4096 bytes, and damage is a finding.
///
/// # Errors
/// Neither copy can be read.
pub fn examine(disk: &dyn ReadAt) -> Result<GptFindings, ImageError> {
    let size = disk.size().map_err(|source| ImageError::Input {
        format: FORMAT,
        offset: 0,
        source,
    })?;
    let mut failed = None;
    for sector in SECTOR_SIZES {
        match examine_with(disk, size, sector) {
            Ok(found) => return Ok(found),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    Err(failed.unwrap_or_else(|| corrupt(0, "there is no table")))
}

/// [`examine`] for sectors of `sector` bytes.
fn examine_with(disk: &dyn ReadAt, size: u64, sector: u64) -> Result<GptFindings, ImageError> {
    let sectors = size / sector;
    if sectors < 3 {
        return Err(corrupt(
            0,
            format!("{size} bytes are not a disk of at least three sectors"),
        ));
    }
    let mut problems = Vec::new();
    if !size.is_multiple_of(sector) {
        problems.push(format!("the {size} bytes of the disk are not whole sectors"));
    }
    let last = sectors - 1;
    let strict = agreed_copy(
        copy(disk, sector, 1, Some(last)),
        copy(disk, sector, last, Some(1)),
        sector,
        last,
    );
    let (header, array) = match strict {
        Ok(agreed) => agreed,
        Err(error) => {
            // A primary copy may be sound by itself, e.g. on a disk that was made longer.
            let alone = copy(disk, sector, 1, None).map(|copy| (copy, "primary"));
            let either = alone.or_else(|_| copy(disk, sector, last, Some(1)).map(|copy| (copy, "backup")));
            let Ok((copy, which)) = either else { return Err(error) };
            let problem = if let ImageError::Corrupt { problem, .. } = error {
                problem
            } else {
                error.to_string()
            };
            problems.push(format!("{problem}; the {which} copy is shown"));
            copy
        }
    };
    let protects = |p: &mbr::MbrPartition| p.kind == PROTECTIVE && p.first_lba == 1;
    match mbr::read(disk) {
        Ok(record) if record.partitions.iter().any(protects) => {}
        Ok(_) => problems.push("the master boot record has no protective partition".to_owned()),
        Err(error) => problems.push(error.to_string()),
    }
    let mut partitions = Vec::new();
    for (number, entry) in entries(&array, &header) {
        match entry {
            Ok((partition, problem)) if partition.first_lba + partition.sectors <= sectors => {
                partitions.push((number, partition));
                problems.extend(problem);
            }
            Ok(_) => problems.push(format!("entry {number} ends behind the end of the disk")),
            Err(problem) => problems.push(problem),
        }
    }
    let table = DiskTable {
        guid: header.guid,
        partitions: partitions.iter().map(|(_, partition)| partition.clone()).collect(),
        sectors,
    };
    problems.extend(table.check_with(sector).err());
    Ok(GptFindings {
        sector_size: sector,
        guid: header.guid,
        sectors,
        partitions,
        problems,
    })
}

/// Reads and checks the table of a disk of 512-byte sectors: the protective master boot record; both headers and arrays with their
/// checksums; that each header names the other and both agree; and that partitions lie in the usable sectors without overlap. One
/// error names the problems of both copies. Only arrays of 128 entries of 128 bytes are read, which every tool writes.
pub fn read(disk: &dyn ReadAt) -> Result<DiskTable, ImageError> {
    let size = disk.size().map_err(|source| ImageError::Input {
        format: FORMAT,
        offset: 0,
        source,
    })?;
    if !size.is_multiple_of(SECTOR) || size < 3 * SECTOR {
        let problem = format!("{size} bytes are not a disk of at least three sectors of {SECTOR} bytes");
        return Err(corrupt(0, problem));
    }
    let protects = |p: &mbr::MbrPartition| p.kind == PROTECTIVE && p.first_lba == 1;
    if !mbr::read(disk)?.partitions.iter().any(protects) {
        return Err(corrupt(0, "the master boot record has no protective partition"));
    }
    let sectors = size / SECTOR;
    let last = sectors - 1;
    let (header, array) = agreed_copy(
        copy(disk, SECTOR, 1, Some(last)),
        copy(disk, SECTOR, last, Some(1)),
        SECTOR,
        last,
    )?;
    let bad = |problem| corrupt(2 * SECTOR, problem);
    let table = DiskTable {
        guid: header.guid,
        partitions: entries(&array, &header)
            .map(|(_, entry)| match entry? {
                (partition, None) => Ok(partition),
                (_, Some(problem)) => Err(problem),
            })
            .collect::<Result<_, _>>()
            .map_err(bad)?,
        sectors,
    };
    table.check().map_err(bad)?;
    Ok(table)
}

/// The primary copy, if the backup copy at sector `last` is sound too and agrees with it.
fn agreed_copy(
    primary: Result<TableCopy, String>,
    backup: Result<TableCopy, String>,
    sector: u64,
    last: u64,
) -> Result<TableCopy, ImageError> {
    match (primary, backup) {
        // The arrays agree if their checksums do, for each was compared with its own.
        (Ok(primary), Ok(backup)) if primary.0 == backup.0 => Ok(primary),
        (Ok(_), Ok(_)) => Err(corrupt(last * sector, "the backup copy differs from the primary copy")),
        (primary, backup) => {
            let copies = [
                (sector, "primary", primary.err()),
                (last * sector, "backup", backup.err()),
            ];
            let offset = copies.iter().find(|copy| copy.2.is_some()).map_or(0, |copy| copy.0);
            let told = copies.iter().map(|(_, which, problem)| match problem {
                Some(problem) => format!("the {which} copy: {problem}"),
                None => format!("the {which} copy is sound"),
            });
            Err(corrupt(offset, told.collect::<Vec<_>>().join("; ")))
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[at..at + 16]);
    Guid::from_disk(guid)
}

/// The header at sector `own` of a disk with sectors of `size` bytes, and its array; the error is the problem of this copy. The other copy
/// must be at sector `other`, if that is given.
fn copy(disk: &dyn ReadAt, size: u64, own: u64, other: Option<u64>) -> Result<TableCopy, String> {
    let mut sector = [0; SECTOR as usize];
    disk.read_exact_at(&mut sector, own * size)
        .map_err(|e| format!("sector {own} cannot be read ({e})"))?;
    let (header, other) = header(&sector, own, other)?;
    let at = u64_at(&sector, PARTITION_ENTRY_LBA);
    let mut array = vec![0; ENTRIES * ENTRY_SIZE];
    // Each array lies on its side of the usable sectors.
    let end = at.checked_add((array.len() as u64).div_ceil(size));
    let inside = |end: u64| {
        let before = at > 1 && end <= header.first_usable;
        let behind = at > header.last_usable && end <= own.max(other);
        if own < other { before } else { behind }
    };
    if !end.is_some_and(inside) || header.first_usable > header.last_usable || header.last_usable >= own.max(other) {
        return Err(format!(
            "the array at sector {at} and the usable sectors {} to {} are not where they can be",
            header.first_usable, header.last_usable
        ));
    }
    let from = at.checked_mul(size).ok_or("the array lies beyond any disk")?;
    disk.read_exact_at(&mut array, from)
        .map_err(|e| format!("the array at sector {at} cannot be read ({e})"))?;
    check_sum("array", header.sum, &array)?;
    Ok((header, array))
}

/// The fields of a header, and the sector of the other copy.
fn header(sector: &[u8], own: u64, other: Option<u64>) -> Result<(GptHeader, u64), String> {
    if sector[..SIGNATURE.len()] != SIGNATURE {
        return Err("no signature \"EFI PART\"".to_owned());
    }
    let (revision, length) = (u32_at(sector, HEADER_REVISION), u32_at(sector, HEADER_LENGTH));
    if revision != REVISION || length != HEADER_SIZE as u32 {
        return Err(format!(
            "revision {revision:#x} with headers of {length} bytes is not supported"
        ));
    }
    let mut plain = sector[..HEADER_SIZE].to_vec();
    plain[HEADER_CRC32..HEADER_CRC32 + 4].fill(0);
    check_sum("header", u32_at(sector, HEADER_CRC32), &plain)?;
    let stated = (u64_at(sector, MY_LBA), u64_at(sector, ALTERNATE_LBA));
    let other = other.unwrap_or(stated.1);
    if stated != (own, other) || own == other {
        return Err(format!(
            "the header names sector {} as its own and {} as the other's instead of {own} and {other}",
            stated.0, stated.1
        ));
    }
    let (entries, size) = (u32_at(sector, NUMBER_OF_ENTRIES), u32_at(sector, SIZE_OF_ENTRY));
    if (entries, size) != (ENTRIES as u32, ENTRY_SIZE as u32) {
        return Err(format!(
            "an array of {entries} entries of {size} bytes is not supported"
        ));
    }
    let header = GptHeader {
        first_usable: u64_at(sector, FIRST_USABLE_LBA),
        last_usable: u64_at(sector, LAST_USABLE_LBA),
        guid: guid_at(sector, DISK_GUID),
        sum: u32_at(sector, ARRAY_CRC32),
    };
    Ok((header, other))
}

fn check_sum(what: &str, stated: u32, bytes: &[u8]) -> Result<(), String> {
    let actual = crc32fast::hash(bytes);
    if actual == stated {
        return Ok(());
    }
    Err(format!(
        "the {what} states the CRC-32 {stated:08x}, but has {actual:08x}"
    ))
}

/// The used entries of an array with their numbers, from 1.
fn entries<'a>(
    array: &'a [u8],
    header: &'a GptHeader,
) -> impl Iterator<Item = (u32, Result<(Partition, Option<String>), String>)> + 'a {
    let numbered = (1..).zip(array.chunks_exact(ENTRY_SIZE));
    let used = numbered.filter(|(_, entry)| guid_at(entry, PARTITION_TYPE_GUID) != Guid::NIL);
    used.map(|(number, entry)| (number, partition(number, entry, header)))
}

/// The partition of an entry, and the problem with its name, if any.
fn partition(number: u32, entry: &[u8], header: &GptHeader) -> Result<(Partition, Option<String>), String> {
    let (first, last) = (u64_at(entry, STARTING_LBA), u64_at(entry, ENDING_LBA));
    if first > last || first < header.first_usable || last > header.last_usable {
        let (from, to) = (header.first_usable, header.last_usable);
        return Err(format!(
            "entry {number} with the sectors {first} to {last} does not lie within the usable sectors {from} to {to}"
        ));
    }
    let units = entry[PARTITION_NAME..][..2 * NAME_UNITS].chunks_exact(2);
    let units: Vec<u16> = units
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let name = String::from_utf16_lossy(&units);
    let broken = String::from_utf16(&units).is_err();
    let problem = broken.then(|| format!("the name of entry {number} is not UTF-16"));
    let partition = Partition {
        name,
        type_guid: guid_at(entry, PARTITION_TYPE_GUID),
        guid: guid_at(entry, UNIQUE_PARTITION_GUID),
        first_lba: first,
        sectors: last - first + 1,
        attributes: u64_at(entry, ATTRIBUTES),
    };
    Ok((partition, problem))
}
