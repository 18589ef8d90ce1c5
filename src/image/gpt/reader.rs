//! Reads a table of unknown origin: from the copy that is whole, with each fault of the table as a finding.
//!
//! The backup is looked for where the primary header says that it is, in the last sector, and where the protective partition ends: on a
//! disk that was made longer, it stays in the middle. Where no copy is whole, the header of one and the array of the other may
//! still fit together.

use super::{
    DiskTable, Partition,
    copies::{GptHeader, TableCopy, array_at, guid_at, u64_at},
    format::{
        ARRAY_SIZE, ATTRIBUTES, ENDING_LBA, FORMAT, NAME_UNITS, PARTITION_NAME, PARTITION_TYPE_GUID, STARTING_LBA,
        UNIQUE_PARTITION_GUID,
    },
};
use crate::{
    image::{
        Guid, ImageError, ReadAt,
        mbr::{self, PROTECTIVE},
    },
    model::SectorSize,
};
use std::collections::BTreeMap;

/// Findings above this number are not kept.
const MAX_PROBLEMS: usize = 16;
/// The number of sectors by which a protective partition says "more than 32 bits can count".
const ANY_LENGTH: u32 = u32::MAX;

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
    /// The sectors for which the table was written.
    pub sector_size: SectorSize,
    /// Unique GUID of the disk.
    pub guid: Guid,
    /// Sectors of the disk.
    pub sectors: u64,
    /// The partitions that begin on the disk, with the numbers of their entries, from 1. One may go on behind the end of the disk.
    pub partitions: Vec<(u32, Partition)>,
    /// Name, offset and length in bytes of the headers and arrays, in the order of the disk.
    pub tables: Vec<(&'static str, u64, u64)>,
    /// The damage, as fragments of sentences; empty when all is sound.
    pub problems: Vec<String>,
}

/// Both copies of a table, read for one size of sectors.
struct Copies {
    sector_size: SectorSize,
    sectors: u64,
    primary: TableCopy,
    backup: TableCopy,
}

/// The header and the array that are believed.
struct Believed {
    /// How much had to be put together: 0 when the primary copy is whole.
    rank: u8,
    header: GptHeader,
    array: Vec<u8>,
    /// A fragment that says which copy is shown.
    shown: &'static str,
}

/// Faults with the offset of what has them.
#[derive(Default)]
struct Faults {
    found: Vec<(u64, String)>,
    more: usize,
}

impl Faults {
    fn add(&mut self, offset: u64, problem: String) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push((offset, problem));
        } else {
            self.more += 1;
        }
    }

    fn texts(self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("{} more findings", self.more));
        self.found.into_iter().map(|(_, problem)| problem).chain(more).collect()
    }
}

/// Reads as much as possible of the table of a disk, for sectors of 512 and of 4096 bytes; damage is a finding.
///
/// # Errors
/// No header or no array can be read, for neither size.
pub fn examine(disk: &dyn ReadAt) -> Result<GptFindings, ImageError> {
    let (findings, faults) = examined(disk)?;
    Ok(GptFindings {
        problems: faults.texts(),
        ..findings
    })
}

/// Reads and checks the table of a disk: the protective master boot record; both headers and arrays with their checksums; that each
/// header names the other and both agree; and that partitions lie in the usable sectors without overlap. One error names the problems
/// of both copies.
pub fn read(disk: &dyn ReadAt) -> Result<DiskTable, ImageError> {
    let (found, faults) = examined(disk)?;
    if let Some((offset, _)) = faults.found.first() {
        let offset = *offset;
        return Err(corrupt(offset, faults.texts().join("; ")));
    }
    Ok(DiskTable {
        guid: found.guid,
        sector_size: found.sector_size,
        partitions: found.partitions.into_iter().map(|(_, partition)| partition).collect(),
        sectors: found.sectors,
    })
}

fn examined(disk: &dyn ReadAt) -> Result<(GptFindings, Faults), ImageError> {
    let size = disk.size().map_err(|source| ImageError::Input {
        format: FORMAT,
        offset: 0,
        source,
    })?;
    let mut best: Option<(Copies, Believed)> = None;
    let mut failed = None;
    for sector_size in SectorSize::ALL {
        let sectors = size / sector_size.bytes();
        if sectors < 3 {
            continue;
        }
        let copies = Copies::read(disk, sector_size, sectors);
        match copies.believed(disk) {
            Some(found) if best.as_ref().is_none_or(|(_, best)| found.rank < best.rank) => best = Some((copies, found)),
            Some(_) => {}
            None if copies.primary.signature || copies.backup.signature => {
                failed.get_or_insert(copies);
            }
            None => {}
        }
    }
    match (best, failed) {
        (Some((copies, found)), _) => Ok(copies.findings(disk, size, &found)),
        (None, Some(copies)) => Err(corrupt(copies.sector_size.bytes(), copies.told())),
        (None, None) => Err(corrupt(
            0,
            format!(
                "there is no header with the signature \"EFI PART\": the {size} bytes have none in sector 1 and none at the \
                 end, for sectors of 512 and of 4096 bytes"
            ),
        )),
    }
}

impl Copies {
    fn read(disk: &dyn ReadAt, sector_size: SectorSize, sectors: u64) -> Self {
        let bytes = sector_size.bytes();
        let copy = |lba| TableCopy::read(disk, bytes, sectors, lba);
        let primary = copy(1);
        let last = sectors - 1;
        let stated = primary.header.as_ref().map(|header| header.other);
        let protected = mbr::examine(disk).ok().and_then(|record| {
            let partition = record.0.partitions.into_iter().find(|p| p.kind == PROTECTIVE)?;
            u64::from(partition.first_lba)
                .checked_add(u64::from(partition.sectors))?
                .checked_sub(1)
        });
        let places = match (primary.whole(), stated) {
            (Some(_), Some(stated)) => vec![stated, last],
            _ => [Some(last), protected, stated].into_iter().flatten().collect(),
        };
        let mut backups: Vec<TableCopy> = places.into_iter().filter(|lba| *lba > 1).map(copy).collect();
        let best = backups.iter().position(|copy| copy.whole().is_some());
        let best = best.or_else(|| backups.iter().position(|copy| copy.header.is_some()));
        let backup = if backups.is_empty() {
            copy(last)
        } else {
            backups.swap_remove(best.unwrap_or(0))
        };
        Self {
            sector_size,
            sectors,
            primary,
            backup,
        }
    }

    /// The state of both copies.
    fn told(&self) -> String {
        let tell = |which: &str, copy: &TableCopy| match copy.problem() {
            Some(problem) => format!("the {which} copy: {problem}"),
            None => format!("the {which} copy is sound"),
        };
        format!("{}; {}", tell("primary", &self.primary), tell("backup", &self.backup))
    }

    fn believed(&self, disk: &dyn ReadAt) -> Option<Believed> {
        let believed = |rank, header: &GptHeader, array: &[u8], shown| Believed {
            rank,
            header: header.clone(),
            array: array.to_vec(),
            shown,
        };
        for (rank, copy, shown) in [
            (0, &self.primary, "the primary copy is shown"),
            (1, &self.backup, "the backup copy is shown"),
        ] {
            if let Some((header, array)) = copy.whole() {
                return Some(believed(rank, header, array, shown));
            }
        }
        let bytes = self.sector_size.bytes();
        for (copy, other, shown) in [
            (
                &self.primary,
                &self.backup,
                "the header of the primary copy and the array of the backup copy are shown",
            ),
            (
                &self.backup,
                &self.primary,
                "the header of the backup copy and the array of the primary copy are shown",
            ),
        ] {
            let Some(header) = copy.header.as_ref().filter(|_| copy.header_problem.is_none()) else {
                continue;
            };
            // The usual places: behind the primary header, and in front of the backup header.
            let usual = if other.lba == 1 {
                2
            } else {
                other.lba.saturating_sub((ARRAY_SIZE as u64).div_ceil(bytes))
            };
            let theirs = other
                .array
                .clone()
                .or_else(|| array_at(disk, bytes, header, usual).ok());
            if let Some(array) =
                theirs.filter(|array| array.len() as u64 == header.array_size() && crc32fast::hash(array) == header.sum)
            {
                return Some(believed(2, header, &array, shown));
            }
        }
        // Headers that are whole before those that are not.
        for (rank, whole_header) in [(3, true), (4, false)] {
            for (copy, shown) in [
                (
                    &self.primary,
                    "no copy is whole, and the primary copy is shown as it is",
                ),
                (&self.backup, "no copy is whole, and the backup copy is shown as it is"),
            ] {
                if let (Some(header), Some(array)) = (&copy.header, &copy.array)
                    && copy.header_problem.is_none() == whole_header
                {
                    return Some(believed(rank, header, array, shown));
                }
            }
        }
        None
    }

    /// The findings, and the faults of the table.
    fn findings(self, disk: &dyn ReadAt, size: u64, believed: &Believed) -> (GptFindings, Faults) {
        let mut faults = Faults::default();
        if !size.is_multiple_of(self.sector_size.bytes()) {
            faults.add(size, format!("the {size} bytes of the disk are not whole sectors"));
        }
        self.compare_copies(believed, &mut faults);
        self.check_record(disk, &mut faults);
        let partitions = self.partitions(believed, &mut faults);
        let findings = GptFindings {
            sector_size: self.sector_size,
            guid: believed.header.guid,
            sectors: self.sectors,
            partitions,
            tables: self.tables(),
            problems: Vec::new(),
        };
        (findings, faults)
    }

    /// Whether both copies are whole and agree, and the table is for a disk of this length.
    fn compare_copies(&self, believed: &Believed, faults: &mut Faults) {
        let bytes = self.sector_size.bytes();
        let (own, other) = (believed.header.own, believed.header.other);
        // The sector of the backup header, by the header that is believed.
        let end = if believed.rank == 0 { other } else { own.max(other) };
        let last = self.sectors - 1;
        let cut = end > last;
        match (self.primary.whole(), self.backup.whole()) {
            (Some((primary, _)), Some((backup, _))) => {
                if let Some(difference) = primary.difference(backup) {
                    faults.add(
                        self.backup.lba * bytes,
                        format!("the copies differ: {difference}; {}", believed.shown),
                    );
                }
                if primary.other != self.backup.lba || backup.other != 1 {
                    faults.add(
                        bytes,
                        format!(
                            "the primary copy names sector {} as the backup's, and the backup copy in sector {} names sector {} \
                             as the primary's",
                            primary.other, self.backup.lba, backup.other
                        ),
                    );
                }
            }
            (Some(_), None) if cut => {}
            (primary, _) => {
                let at = if primary.is_some() {
                    self.backup.lba * bytes
                } else {
                    bytes
                };
                faults.add(at, format!("{}; {}", self.told(), believed.shown));
            }
        }
        if believed.rank < 2 && end != last {
            let how = if cut {
                "the disk was cut off, and the backup copy with it"
            } else {
                "the disk grew after the table was written"
            };
            let (table, sectors) = (u128::from(end) + 1, self.sectors);
            faults.add(
                end.min(last) * bytes,
                format!(
                    "the table is for a disk of {table} sectors of {bytes} bytes, and the disk has {sectors}: {how}"
                ),
            );
        }
        for (which, copy) in [("primary", &self.primary), ("backup", &self.backup)] {
            if let Some((header, _)) = copy.whole() {
                let after = header.array.saturating_add(header.array_size().div_ceil(bytes));
                let inside = if copy.lba == 1 {
                    header.array > 1 && after <= header.first_usable
                } else {
                    header.array > header.last_usable && after <= copy.lba
                };
                if !inside {
                    faults.add(
                        header.array.saturating_mul(bytes),
                        format!(
                            "the array of the {which} copy has the sectors {} to {}, which the usable sectors {} to {} or the \
                             header have too",
                            header.array,
                            after.saturating_sub(1),
                            header.first_usable,
                            header.last_usable
                        ),
                    );
                }
            }
        }
    }

    /// Checks the protective partition of the master boot record.
    fn check_record(&self, disk: &dyn ReadAt, faults: &mut Faults) {
        let record = match mbr::examine(disk) {
            Ok((record, problems)) => {
                for problem in problems {
                    faults.add(0, format!("the master boot record: {problem}"));
                }
                record
            }
            Err(error) => return faults.add(0, error.to_string()),
        };
        let Some(protective) = record.partitions.iter().find(|p| p.kind == PROTECTIVE) else {
            return faults.add(0, "the master boot record has no protective partition".to_owned());
        };
        if protective.first_lba != 1 {
            let at = protective.first_lba;
            return faults.add(
                0,
                format!("the protective partition begins at sector {at} instead of 1"),
            );
        }
        // In a hybrid record, it ends in front of another partition.
        if record.partitions.len() > 1 {
            return;
        }
        let ends = [self.backup.lba, self.sectors - 1].map(|end| u32::try_from(end).unwrap_or(ANY_LENGTH));
        if protective.sectors != ANY_LENGTH && !ends.contains(&protective.sectors) {
            faults.add(
                0,
                format!(
                    "the protective partition has {} sectors instead of {}",
                    protective.sectors, ends[1]
                ),
            );
        }
    }

    /// The partitions that begin on the disk.
    fn partitions(&self, believed: &Believed, faults: &mut Faults) -> Vec<(u32, Partition)> {
        let header = &believed.header;
        let last = self.sectors - 1;
        let at = |number: u32| {
            let entry = u64::from(number - 1) * u64::from(header.entry_size);
            header
                .array
                .saturating_mul(self.sector_size.bytes())
                .saturating_add(entry)
        };
        let mut found = Vec::new();
        for (number, entry) in (1..).zip(believed.array.chunks_exact(header.entry_size as usize)) {
            if guid_at(entry, PARTITION_TYPE_GUID) == Guid::NIL {
                continue;
            }
            let (partition, problem) = partition(number, entry);
            if let Some(problem) = problem {
                faults.add(at(number), problem);
            }
            let (first, end) = (u64_at(entry, STARTING_LBA), u64_at(entry, ENDING_LBA));
            let usable = format!("the usable sectors {} to {}", header.first_usable, header.last_usable);
            let problem = match () {
                () if first > end => Some(format!("entry {number} begins at sector {first}, behind its end {end}")),
                () if first < 2 => Some(format!("entry {number} begins at sector {first}, in the table itself")),
                () if first > last => Some(format!(
                    "entry {number} begins at sector {first}, behind the last sector {last} of the disk"
                )),
                () => None,
            };
            if let Some(problem) = problem {
                faults.add(at(number), problem);
                continue;
            }
            if end > last {
                faults.add(
                    at(number),
                    format!("entry {number} ends at sector {end}, behind the last sector {last} of the disk"),
                );
            } else if first < header.first_usable || end > header.last_usable {
                faults.add(
                    at(number),
                    format!("entry {number} with the sectors {first} to {end} does not lie within {usable}"),
                );
            }
            found.push((number, partition));
        }
        check_guids(header.guid, &found, at, faults);
        check_overlaps(&found, at, faults);
        found
    }

    /// Headers and arrays where they are, or else where they should be.
    fn tables(&self) -> Vec<(&'static str, u64, u64)> {
        let bytes = self.sector_size.bytes();
        let place = |copy: &TableCopy, usual: u64| match &copy.header {
            Some(header) => (header.array.saturating_mul(bytes), header.array_size()),
            None => (usual.saturating_mul(bytes), ARRAY_SIZE as u64),
        };
        let last = self.backup.lba;
        let first = place(&self.primary, 2);
        let second = place(&self.backup, last.saturating_sub(ARRAY_SIZE as u64 / bytes));
        vec![
            ("primary GPT header", bytes, bytes),
            ("primary GPT array", first.0, first.1),
            ("backup GPT array", second.0, second.1),
            ("backup GPT header", last.saturating_mul(bytes), bytes),
        ]
    }
}

/// Two partitions with one GUID, or one with that of the disk.
fn check_guids(disk: Guid, found: &[(u32, Partition)], at: impl Fn(u32) -> u64, faults: &mut Faults) {
    let mut seen: BTreeMap<Guid, u32> = BTreeMap::new();
    for (number, partition) in found {
        let guid = partition.guid;
        if guid == disk {
            faults.add(
                at(*number),
                format!("partition {number} has the GUID {guid} of the disk"),
            );
        } else if let Some(first) = seen.get(&guid) {
            faults.add(
                at(*number),
                format!("partitions {first} and {number} have the GUID {guid}"),
            );
        } else {
            seen.insert(guid, *number);
        }
    }
}

/// Partitions with sectors of a partition that begins before them.
fn check_overlaps(found: &[(u32, Partition)], at: impl Fn(u32) -> u64, faults: &mut Faults) {
    let mut ranges: Vec<_> = found
        .iter()
        .map(|(number, p)| (p.first_lba, p.first_lba.saturating_add(p.sectors), *number))
        .collect();
    ranges.sort_unstable();
    let mut before: Option<(u64, u32)> = None;
    for (start, end, number) in ranges {
        if let Some((reached, other)) = before
            && start < reached
        {
            let (one, two) = (other.min(number), other.max(number));
            faults.add(at(two), format!("partitions {one} and {two} overlap"));
        }
        if before.is_none_or(|(reached, _)| end > reached) {
            before = Some((end, number));
        }
    }
}

/// The partition of an entry, and the problem with its name, if any.
fn partition(number: u32, entry: &[u8]) -> (Partition, Option<String>) {
    let (first, last) = (u64_at(entry, STARTING_LBA), u64_at(entry, ENDING_LBA));
    let units = entry[PARTITION_NAME..][..2 * NAME_UNITS].chunks_exact(2);
    let units: Vec<u16> = units
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let broken = String::from_utf16(&units).is_err();
    let partition = Partition {
        name: String::from_utf16_lossy(&units),
        type_guid: guid_at(entry, PARTITION_TYPE_GUID),
        guid: guid_at(entry, UNIQUE_PARTITION_GUID),
        first_lba: first,
        sectors: last.saturating_sub(first).saturating_add(1),
        attributes: u64_at(entry, ATTRIBUTES),
    };
    (
        partition,
        broken.then(|| format!("the name of entry {number} is not UTF-16")),
    )
}
