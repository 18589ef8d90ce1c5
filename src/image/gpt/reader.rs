//! Reads a table that anybody may have made, and believes it only if both its copies are whole and say the same.

use super::{
    DiskTable, ENTRIES, ENTRY_SIZE, FORMAT, HEADER_SIZE, NAME_UNITS, Partition, REVISION, SECTOR, SIGNATURE, crc32,
};
use crate::image::{
    Guid, ImageError, ReadAt,
    mbr::{self, PROTECTIVE},
};

/// The places a header names; the rest of it is checked and forgotten.
struct GptHeader {
    first_usable: u64,
    last_usable: u64,
    guid: Guid,
    sum: u32,
}

/// Reads and checks the table of a disk of 512-byte sectors: the protective record, both headers and both arrays with their
/// sums, that each names the other and they agree, and that partitions lie in the usable sectors and apart. What is wrong with
/// the primary and with the backup copy is said in one error. Only arrays of 128 entries of 128 bytes are read; every tool
/// makes these.
pub fn read(disk: &dyn ReadAt) -> Result<DiskTable, ImageError> {
    let size = disk.size().map_err(|source| ImageError::Input {
        format: FORMAT,
        offset: 0,
        source,
    })?;
    let corrupt = |offset: u64, problem: String| ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem,
    };
    if !size.is_multiple_of(SECTOR) || size < 3 * SECTOR {
        return Err(corrupt(0, format!("{size} bytes are not a disk")));
    }
    let sectors = size / SECTOR;
    let record = mbr::read(disk)?;
    if !record
        .partitions
        .iter()
        .any(|p| p.kind == PROTECTIVE && p.first_lba == 1)
    {
        return Err(corrupt(
            0,
            "no protective partition in the master boot record".to_owned(),
        ));
    }
    let last = sectors - 1;
    let primary = copy(disk, 1, last);
    let backup = copy(disk, last, 1);
    let ((header, array), (other, _)) = match (primary, backup) {
        (Ok(primary), Ok(backup)) => (primary, backup),
        (primary, backup) => {
            let bad = [
                (SECTOR, "primary", primary.err()),
                (last * SECTOR, "backup", backup.err()),
            ];
            let offset = bad.iter().find(|b| b.2.is_some()).map_or(0, |b| b.0);
            let told = bad.iter().map(|(_, which, problem)| match problem {
                Some(problem) => format!("the {which} copy: {problem}"),
                None => format!("the {which} copy is whole"),
            });
            return Err(corrupt(offset, told.collect::<Vec<_>>().join("; ")));
        }
    };
    // Equal sums and lengths: the arrays are checked through them.
    let fields = |h: &GptHeader| (h.first_usable, h.last_usable, h.guid, h.sum);
    if fields(&header) != fields(&other) {
        return Err(corrupt(
            last * SECTOR,
            "the backup copy differs from the primary".to_owned(),
        ));
    }
    let table = DiskTable {
        guid: header.guid,
        partitions: partitions(&array, &header).map_err(|problem| corrupt(2 * SECTOR, problem))?,
        sectors,
    };
    table.check().map_err(|problem| corrupt(2 * SECTOR, problem))?;
    Ok(table)
}

/// The header at sector `own` and its array; what is wrong with them, in words.
fn copy(disk: &dyn ReadAt, own: u64, other: u64) -> Result<(GptHeader, Vec<u8>), String> {
    let mut sector = [0; SECTOR as usize];
    disk.read_exact_at(&mut sector, own * SECTOR)
        .map_err(|e| format!("sector {own} cannot be read ({e})"))?;
    let word = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    if sector[..8] != SIGNATURE {
        return Err("no signature \"EFI PART\"".to_owned());
    }
    if word(8) != REVISION || word(12) != HEADER_SIZE as u32 {
        return Err(format!("revision {:#x} with headers of {} bytes", word(8), word(12)));
    }
    let mut plain = sector[..HEADER_SIZE].to_vec();
    plain[16..20].fill(0);
    if crc32(&plain) != word(16) {
        return Err(sums("header", word(16), crc32(&plain)));
    }
    if (long(24), long(32)) != (own, other) {
        return Err(format!(
            "it says it lies at sector {} and the other at {}, not {own} and {other}",
            long(24),
            long(32)
        ));
    }
    if (word(80), word(84)) != (ENTRIES as u32, ENTRY_SIZE as u32) {
        return Err(format!("an array of {} entries of {} bytes", word(80), word(84)));
    }
    let mut guid = [0; 16];
    guid.copy_from_slice(&sector[56..72]);
    let header = GptHeader {
        first_usable: long(40),
        last_usable: long(48),
        guid: Guid::from_disk(guid),
        sum: word(88),
    };
    let at = long(72);
    let mut array = vec![0; ENTRIES * ENTRY_SIZE];
    let end = at.checked_add((array.len() as u64).div_ceil(SECTOR));
    let inside = |end: u64| {
        let before = at > 1 && end <= header.first_usable;
        let behind = at > header.last_usable && end <= own.max(other);
        if own < other { before } else { behind }
    };
    if !end.is_some_and(inside) || header.first_usable > header.last_usable || header.last_usable >= own.max(other) {
        return Err(format!(
            "the array at sector {at} and usable sectors {} to {} are not where they can be",
            header.first_usable, header.last_usable
        ));
    }
    disk.read_exact_at(&mut array, at * SECTOR)
        .map_err(|e| format!("its array at sector {at} cannot be read ({e})"))?;
    if crc32(&array) != header.sum {
        return Err(sums("array", header.sum, crc32(&array)));
    }
    Ok((header, array))
}

fn sums(what: &str, stated: u32, actual: u32) -> String {
    format!("the {what}'s CRC-32 should be {stated:08x} and is {actual:08x}")
}

fn partitions(array: &[u8], header: &GptHeader) -> Result<Vec<Partition>, String> {
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(array.chunks_exact(ENTRY_SIZE)) {
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&entry[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let guid = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&entry[at..at + 16]);
            Guid::from_disk(bytes)
        };
        if guid(0) == Guid::NIL {
            continue;
        }
        let (first, last) = (long(32), long(40));
        if first > last || first < header.first_usable || last > header.last_usable {
            let (from, to) = (header.first_usable, header.last_usable);
            return Err(format!(
                "entry {number} of sectors {first} to {last} leaves the usable {from} to {to}"
            ));
        }
        let units = entry[56..56 + 2 * NAME_UNITS].chunks_exact(2);
        let units: Vec<u16> = units
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        found.push(Partition {
            name: String::from_utf16(&units).map_err(|_| format!("the name of entry {number} is not UTF-16"))?,
            type_guid: guid(0),
            guid: guid(16),
            first_lba: first,
            sectors: last - first + 1,
            attributes: long(48),
        });
    }
    Ok(found)
}
