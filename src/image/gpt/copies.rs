//! The copies of a table as they are on a disk: a header and an array each, with the reason why one of them is not whole.

use super::format::{
    ALTERNATE_LBA, ARRAY_CRC32, DISK_GUID, ENTRY_SIZE, FIRST_USABLE_LBA, HEADER_CRC32, HEADER_LENGTH, HEADER_SIZE,
    LAST_USABLE_LBA, MAX_ARRAY, MY_LBA, NUMBER_OF_ENTRIES, PARTITION_ENTRY_LBA, SIGNATURE, SIZE_OF_ENTRY,
};
use crate::image::{Guid, ReadAt};

/// The fields of a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct GptHeader {
    /// Sector of this header, and of that of the other copy, as the header states them.
    pub(super) own: u64,
    pub(super) other: u64,
    pub(super) first_usable: u64,
    pub(super) last_usable: u64,
    pub(super) guid: Guid,
    /// First sector of the array.
    pub(super) array: u64,
    pub(super) entries: u32,
    pub(super) entry_size: u32,
    /// CRC-32 of the array.
    pub(super) sum: u32,
}

impl GptHeader {
    /// Bytes of the array.
    pub(super) fn array_size(&self) -> u64 {
        u64::from(self.entries) * u64::from(self.entry_size)
    }

    /// The first field in which two copies differ that must be equal in both, with both values.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let hex = |sum: u32| format!("{sum:08x}");
        [
            ("disk GUID", self.guid.to_string(), other.guid.to_string()),
            (
                "first usable sector",
                self.first_usable.to_string(),
                other.first_usable.to_string(),
            ),
            (
                "last usable sector",
                self.last_usable.to_string(),
                other.last_usable.to_string(),
            ),
            ("number of entries", self.entries.to_string(), other.entries.to_string()),
            (
                "size of an entry",
                self.entry_size.to_string(),
                other.entry_size.to_string(),
            ),
            ("CRC-32 of the array", hex(self.sum), hex(other.sum)),
        ]
        .into_iter()
        .find(|(_, a, b)| a != b)
        .map(|(field, a, b)| format!("the {field} is {a} in the primary copy and {b} in the backup copy"))
    }
}

/// A copy as far as it can be read.
#[derive(Clone, Debug)]
pub(super) struct TableCopy {
    /// Sector in which the header was looked for.
    pub(super) lba: u64,
    /// Whether a header begins there.
    pub(super) signature: bool,
    /// The header; `None` where there is none that can be interpreted.
    pub(super) header: Option<GptHeader>,
    pub(super) header_problem: Option<String>,
    /// The bytes of the array; `None` when they are not on the disk.
    pub(super) array: Option<Vec<u8>>,
    pub(super) array_problem: Option<String>,
}

impl TableCopy {
    /// The copy whose header is in sector `lba` of a disk with `sectors` sectors of `size` bytes.
    pub(super) fn read(disk: &dyn ReadAt, size: u64, sectors: u64, lba: u64) -> Self {
        let mut copy = Self {
            lba,
            signature: false,
            header: None,
            header_problem: None,
            array: None,
            array_problem: None,
        };
        if lba >= sectors {
            copy.header_problem = Some(format!("the disk has no sector {lba}"));
            return copy;
        }
        let mut sector = vec![0; size as usize];
        if let Err(error) = disk.read_exact_at(&mut sector, lba * size) {
            copy.header_problem = Some(format!("sector {lba} cannot be read ({error})"));
            return copy;
        }
        copy.signature = sector.starts_with(&SIGNATURE);
        match parse(&sector, lba) {
            Err(problem) => copy.header_problem = Some(problem),
            Ok((header, problem)) => {
                copy.header_problem = problem;
                match array_at(disk, size, &header, header.array) {
                    Err(problem) => copy.array_problem = Some(problem),
                    Ok(array) => {
                        copy.array_problem = check_sum("array", header.sum, &array).err();
                        copy.array = Some(array);
                    }
                }
                copy.header = Some(header);
            }
        }
        copy
    }

    /// Header and array, if both are whole.
    pub(super) fn whole(&self) -> Option<(&GptHeader, &[u8])> {
        let sound = self.header_problem.is_none() && self.array_problem.is_none();
        self.header.as_ref().zip(self.array.as_deref()).filter(|_| sound)
    }

    /// Why the copy is not whole.
    pub(super) fn problem(&self) -> Option<&str> {
        self.header_problem.as_deref().or(self.array_problem.as_deref())
    }
}

/// The array of `header` from sector `lba` on.
pub(super) fn array_at(disk: &dyn ReadAt, size: u64, header: &GptHeader, lba: u64) -> Result<Vec<u8>, String> {
    let mut array = vec![0; header.array_size() as usize];
    let from = lba.checked_mul(size).ok_or("the array lies beyond any disk")?;
    disk.read_exact_at(&mut array, from)
        .map_err(|e| format!("the array at sector {lba} cannot be read ({e})"))?;
    Ok(array)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

pub(super) fn guid_at(bytes: &[u8], at: usize) -> Guid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[at..at + 16]);
    Guid::from_disk(guid)
}

/// The fields of the header in `sector`, which has number `lba`, and its problem, if they can be used all the same.
fn parse(sector: &[u8], lba: u64) -> Result<(GptHeader, Option<String>), String> {
    if !sector.starts_with(&SIGNATURE) {
        return Err("no signature \"EFI PART\"".to_owned());
    }
    let header = GptHeader {
        own: u64_at(sector, MY_LBA),
        other: u64_at(sector, ALTERNATE_LBA),
        first_usable: u64_at(sector, FIRST_USABLE_LBA),
        last_usable: u64_at(sector, LAST_USABLE_LBA),
        guid: guid_at(sector, DISK_GUID),
        array: u64_at(sector, PARTITION_ENTRY_LBA),
        entries: u32_at(sector, NUMBER_OF_ENTRIES),
        entry_size: u32_at(sector, SIZE_OF_ENTRY),
        sum: u32_at(sector, ARRAY_CRC32),
    };
    let length = u32_at(sector, HEADER_LENGTH) as usize;
    let problem = check_header(&header, sector, length, lba);
    // Of the fields of a damaged header, the form of the array decides whether the entries can be found.
    let (entries, size) = (header.entries, header.entry_size);
    let form = size.is_power_of_two() && size as usize >= ENTRY_SIZE && entries > 0 && header.array_size() <= MAX_ARRAY;
    if !form {
        let form = format!("an array of {entries} entries of {size} bytes is not supported");
        return Err(problem.unwrap_or(form));
    }
    Ok((header, problem))
}

fn check_header(header: &GptHeader, sector: &[u8], length: usize, lba: u64) -> Option<String> {
    if !(HEADER_SIZE..=sector.len()).contains(&length) {
        return Some(format!(
            "the header states a length of {length} bytes, not of {HEADER_SIZE} to {}",
            sector.len()
        ));
    }
    let mut plain = sector[..length].to_vec();
    plain[HEADER_CRC32..HEADER_CRC32 + 4].fill(0);
    if let Err(problem) = check_sum("header", u32_at(sector, HEADER_CRC32), &plain) {
        return Some(problem);
    }
    if header.own != lba {
        return Some(format!(
            "the header says that it is in sector {}, and it is in sector {lba}",
            header.own
        ));
    }
    (header.first_usable > header.last_usable).then(|| {
        format!(
            "the usable sectors go from {} to {}",
            header.first_usable, header.last_usable
        )
    })
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
