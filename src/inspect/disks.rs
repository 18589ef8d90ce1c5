//! Disks with GUID partition tables or master boot records, and qcow2 images with a disk inside.

use super::{
    budget::{Budget, Metered},
    detect::Holder,
    error::one_line,
    part::{Look, Part, PartExtent, PartKind},
};
use crate::{
    image::{
        Guid, ReadAt, Source, Window,
        gpt::{self, types},
        mbr::{self, BOOT_CODE, MbrPartition, PROTECTIVE, SECTOR},
        qcow2::Qcow2,
    },
    model::SectorSize,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
};

pub(super) const GPT_MAGIC: &[u8] = b"EFI PART";
/// Offset of the primary header on disks with sectors of 512 and of 4096 bytes.
pub(super) const GPT_MAGIC_AT: [usize; 2] = [SECTOR as usize, 4096];
/// Fewer sectors hold no table and no partition.
const LEAST_SECTORS: u64 = 6;
/// Types of an extended partition, which holds logical ones.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Number of the first logical partition, and of the last one that is listed.
const FIRST_LOGICAL: u32 = 5;
const LAST_LOGICAL: u32 = 132;
/// Name of the format of a disk with a footer behind it.
pub(super) const VHD: &str = "VHD";
pub(super) const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
/// A larger disk in a qcow2 image is not inspected, bytes: even zeros take time to read.
const MAX_DISK: u64 = 64 << 30;
/// Least size of a cached piece of a disk in a qcow2 image, and the size of all cached pieces, in bytes.
const PIECE: u64 = 64 * 1024;
const CACHE: u64 = 8 << 20;

/// Whether a master boot record begins here: the signature, a used entry, and at most one entry with a status that is not defined.
pub(super) fn is_mbr(head: &[u8]) -> bool {
    let Some(record) = head.get(..SECTOR as usize) else {
        return false;
    };
    let entries = record[BOOT_CODE + 6..SECTOR as usize - 2].as_chunks::<16>().0;
    let odd = entries.iter().filter(|e| !matches!(e[0], 0 | 0x80)).count();
    let used = |e: &[u8; 16]| matches!(e[0], 0 | 0x80) && e[4] != 0 && e[12..16] != [0; 4];
    record.ends_with(&[0x55, 0xaa]) && odd <= 1 && entries.iter().any(used)
}

/// Whether a header of a GUID partition table begins in the last sector of 512 or of 4096 bytes: the front of such a disk may be lost.
pub(super) fn has_backup_table(source: &Source, size: u64) -> bool {
    SectorSize::ALL.iter().any(|sector| {
        let sectors = size / sector.bytes();
        let mut magic = [0; GPT_MAGIC.len()];
        sectors >= LEAST_SECTORS
            && source.read_exact_at(&mut magic, (sectors - 1) * sector.bytes()).is_ok()
            && magic == GPT_MAGIC
    })
}

/// Adds the regions of the master boot record, with which every disk begins.
fn record(source: &Source, look: &mut Look) {
    let code = BOOT_CODE as u64;
    look.children
        .push(Part::slice("boot code", PartKind::Region, source, 0, code));
    look.children.push(Part::slice(
        "master boot record",
        PartKind::Region,
        source,
        code,
        SECTOR - code,
    ));
    let mut bytes = [0; BOOT_CODE];
    let used = source.read_exact_at(&mut bytes, 0).is_ok() && bytes.iter().any(|b| *b != 0);
    look.fields
        .insert("boot code".to_owned(), if used { "yes" } else { "no" }.to_owned());
}

/// A disk with a GUID partition table, or with a record that protects one.
pub(super) fn gpt(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "GPT disk",
        ..Look::default()
    };
    record(source, &mut look);
    hybrid_entries(source, &mut look);
    let disk = match gpt::examine(source) {
        Ok(disk) => disk,
        Err(error) => {
            look.add_problem(one_line(&error));
            let record = mbr::examine(source).map_or_else(|_| Vec::new(), |(record, _)| record.partitions);
            for entry in record.iter().filter(|p| p.kind != PROTECTIVE) {
                mbr_partition(source, size, u32::from(entry.slot) + 1, 0, entry, &mut look);
            }
            return look;
        }
    };
    for (name, from, len) in disk.tables {
        if from.checked_add(len).is_some_and(|end| end <= size) {
            look.children
                .push(Part::slice(name, PartKind::Region, source, from, len));
        }
    }
    if !disk.problems.is_empty() {
        look.add_problem(disk.problems.join("; "));
    }
    look.fields.insert("guid".to_owned(), disk.guid.to_string());
    look.fields.insert("sectors".to_owned(), disk.sectors.to_string());
    let sector = disk.sector_size.bytes();
    if sector != SECTOR {
        look.fields.insert("sector size".to_owned(), sector.to_string());
    }
    for (number, partition) in &disk.partitions {
        let key = format!("partition {number}");
        let name = format!("{key} {:?}", partition.name);
        let (from, len) = (partition.offset(disk.sector_size), partition.size(disk.sector_size));
        let part = partition_part(name, source, size, (from, len));
        let listed = look.list(
            part.keyed(key)
                .with("name", &partition.name)
                .with("type", purpose(partition.type_guid))
                .with("guid", partition.guid)
                .with("attributes", format!("{:#x}", partition.attributes))
                .with("first sector", partition.first_lba)
                .with("sectors", partition.sectors),
        );
        if !listed {
            break;
        }
    }
    look
}

/// The part of the `len` bytes from `from` on, as far as they are on the disk of `size` bytes.
fn partition_part(name: String, source: &Source, size: u64, (from, len): (u64, u64)) -> Part {
    let there = size.saturating_sub(from).min(len);
    let part = Part::slice(name, PartKind::Partition, source, from, there);
    if there == len {
        return part;
    }
    part.damaged(format!("{there} of its {len} bytes are on the disk"))
}

/// Whether the record in front of a disk protects a GUID partition table.
pub(super) fn is_protective(head: &[u8]) -> bool {
    let record = head.get(..SECTOR as usize).map(<[u8]>::to_vec);
    let record = record.and_then(|record| mbr::examine(&record).ok());
    record.is_some_and(|(record, _)| record.partitions.iter().any(|p| p.kind == PROTECTIVE))
}

/// Adds the entries of a hybrid record, which name ranges of the disk for programs that do not read the GPT. Most are partitions of it too.
fn hybrid_entries(source: &Source, look: &mut Look) {
    let Ok((record, _)) = mbr::examine(source) else { return };
    for entry in record.partitions.iter().filter(|p| p.kind != PROTECTIVE) {
        let end = u64::from(entry.first_lba) + u64::from(entry.sectors);
        look.fields.insert(
            format!("hybrid entry {}", entry.slot + 1),
            format!("type {:#04x}, sectors {} to {}", entry.kind, entry.first_lba, end - 1),
        );
    }
}

/// Name of a partition's type.
fn purpose(guid: Guid) -> String {
    match guid {
        types::BIOS_BOOT => "BIOS boot".to_owned(),
        types::EFI_SYSTEM => "EFI system".to_owned(),
        types::LINUX_DATA => "Linux files".to_owned(),
        types::BASIC_DATA => "basic data".to_owned(),
        other => other.to_string(),
    }
}

/// A disk with a master boot record and no GPT.
pub(super) fn mbr(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "MBR disk",
        ..Look::default()
    };
    record(source, &mut look);
    let (read, problems) = match mbr::examine(source) {
        Ok(read) => read,
        Err(error) => {
            look.problem = Some(one_line(&error));
            return look;
        }
    };
    for problem in problems {
        look.add_problem(problem);
    }
    look.fields
        .insert("signature".to_owned(), format!("{:#010x}", read.signature));
    overlapping_entries(&read.partitions, &mut look);
    let mut logical = FIRST_LOGICAL;
    for entry in read.partitions {
        let number = u32::from(entry.slot) + 1;
        if EXTENDED.contains(&entry.kind) {
            let text = format!("type {:#04x} at sector {}", entry.kind, entry.first_lba);
            look.fields.insert(format!("extended partition {number}"), text);
            if let Err(problem) = logical_partitions(source, size, &entry, &mut logical, &mut look) {
                look.add_problem(format!("extended partition {number}: {problem}"));
            }
        } else {
            mbr_partition(source, size, number, 0, &entry, &mut look);
        }
    }
    look
}

/// Entries of one record with sectors in common.
fn overlapping_entries(entries: &[MbrPartition], look: &mut Look) {
    let range = |entry: &MbrPartition| {
        let first = u64::from(entry.first_lba);
        first..first + u64::from(entry.sectors)
    };
    for (index, entry) in entries.iter().enumerate() {
        for other in &entries[index + 1..] {
            let (one, two) = (range(entry), range(other));
            if one.start < two.end && two.start < one.end {
                look.add_problem(format!("partitions {} and {} overlap", entry.slot + 1, other.slot + 1));
            }
        }
    }
}

/// Adds the partition of an entry in a record at byte `base`, from which its place counts.
fn mbr_partition(source: &Source, size: u64, number: u32, base: u64, entry: &MbrPartition, look: &mut Look) {
    let (from, len) = (
        base + u64::from(entry.first_lba) * SECTOR,
        u64::from(entry.sectors) * SECTOR,
    );
    if from >= size {
        look.add_problem(format!(
            "partition {number} begins at byte {from}, behind the {size} bytes of the disk"
        ));
        return;
    }
    if entry.first_lba == 0 {
        look.add_problem(format!("partition {number} holds the record that lists it"));
        return;
    }
    let part = partition_part(format!("partition {number}"), source, size, (from, len));
    look.children.push(
        part.with("type", format!("{:#04x}", entry.kind))
            .with("active", if entry.active { "yes" } else { "no" }),
    );
}

/// Adds the partitions inside of an extended one. Its records are a chain: each has an entry for a partition, which counts from the
/// record, and one for the next record, which counts from the extended partition. The chain may go back on the disk: fdisk adds a
/// partition in a gap to its end. Source: `parse_extended` in Linux's block/partitions/msdos.c.
fn logical_partitions(
    source: &Source,
    size: u64,
    extended: &MbrPartition,
    number: &mut u32,
    look: &mut Look,
) -> Result<(), String> {
    let start = u64::from(extended.first_lba) * SECTOR;
    let end = start + u64::from(extended.sectors) * SECTOR;
    let mut seen = BTreeSet::new();
    let mut at = start;
    for _ in FIRST_LOGICAL..=LAST_LOGICAL {
        if at == 0 || at >= size {
            return Err(format!("the record at byte {at} is not on the disk of {size} bytes"));
        }
        if !seen.insert(at) {
            return Err(format!(
                "the chain of its records goes in a circle: it comes back to byte {at}"
            ));
        }
        let window = Window::new(source.clone(), at, size - at).map_err(|e| e.to_string())?;
        let (record, _) = mbr::examine(&window).map_err(|e| one_line(&e.shifted(at)))?;
        let name = format!("extended boot record {number}");
        look.children
            .push(Part::slice(name, PartKind::Region, source, at, SECTOR));
        let mut next = None;
        for entry in &record.partitions {
            if EXTENDED.contains(&entry.kind) {
                next = next.or(Some(start + u64::from(entry.first_lba) * SECTOR));
                continue;
            }
            let from = at + u64::from(entry.first_lba) * SECTOR;
            let inside = from >= start && from + u64::from(entry.sectors) * SECTOR <= end;
            // Linux expects anything in the last two entries, and takes them only if they fit.
            if entry.slot > 1 && !inside {
                continue;
            }
            if *number > LAST_LOGICAL {
                return Err(format!("it has partitions after number {LAST_LOGICAL}"));
            }
            if !inside {
                look.add_problem(format!("partition {number} goes beyond its extended partition"));
            }
            mbr_partition(source, size, *number, at, entry, look);
            *number += 1;
        }
        match next {
            None => return Ok(()),
            Some(next) if next >= end => {
                return Err(format!(
                    "the record at byte {at} names one at byte {next}, outside of it"
                ));
            }
            Some(next) => at = next,
        }
    }
    Err("its chain of records is too long".to_owned())
}

/// A qcow2 image.
pub(super) fn qcow2(holder: &Holder<'_>) -> Look {
    let (source, size) = (holder.source, holder.size);
    let mut look = Look {
        format: "qcow2",
        ..Look::default()
    };
    let disk = Qcow2::open(source.clone()).map_err(|e| one_line(&e));
    let disk = disk.and_then(|disk| disk.size().map(|len| (disk, len)).map_err(|e| e.to_string()));
    match disk {
        Err(problem) => look.problem = Some(problem),
        Ok((_, len)) if len > MAX_DISK => {
            look.problem = Some(format!("its disk has {len} bytes, more than {MAX_DISK}"))
        }
        Ok((disk, len)) => {
            look.fields.insert("disk size".to_owned(), len.to_string());
            look.fields.extend(header(source));
            if disk.snapshots() > 0 {
                let count = format!("{} (not shown)", disk.snapshots());
                look.fields.insert("snapshots".to_owned(), count);
            }
            if disk.is_dirty() {
                let text = "may be wrong: the image was not closed (its dirty bit is set)";
                look.fields.insert("reference counts".to_owned(), text.to_owned());
            }
            let pieces = Pieces {
                piece: disk.cluster_size().max(PIECE),
                inner: Arc::new(disk),
                size: len,
                budget: holder.budget.clone(),
                kept: Mutex::default(),
            };
            let disk = Metered::source(pieces, holder.budget);
            look.children.push(Part::derived(
                "disk",
                disk,
                len,
                vec![PartExtent {
                    at: 0,
                    from: 0,
                    len: size,
                }],
            ));
        }
    }
    look
}

/// The version in a header that was found valid.
fn header(source: &Source) -> Option<(String, String)> {
    let mut bytes = [0; 8];
    source.read_exact_at(&mut bytes, 0).ok()?;
    let version = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    Some(("version".to_owned(), version.to_string()))
}

/// Caches the pieces of a disk that were read last, so that scattered small reads do not decompress a cluster each. What is read from
/// the image counts as decompressed.
struct Pieces {
    inner: Source,
    size: u64,
    /// Bytes of a piece: whole clusters.
    piece: u64,
    budget: Arc<Budget>,
    kept: Mutex<Kept>,
}

/// Pieces by their number, each with the time of its last use.
#[derive(Default)]
struct Kept {
    pieces: BTreeMap<u64, (u64, Vec<u8>)>,
    clock: u64,
}

impl Pieces {
    /// Fills `buffer` from `offset` on; the range lies in one piece.
    fn read_in_piece(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let number = offset / self.piece;
        let start = number * self.piece;
        let within = (offset - start) as usize;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let clock = kept.clock;
        if let Some((used, piece)) = kept.pieces.get_mut(&number) {
            *used = clock;
            buffer.copy_from_slice(&piece[within..within + buffer.len()]);
            return Ok(());
        }
        self.budget.unpacked.spend(self.piece)?;
        let mut piece = vec![0; self.piece.min(self.size - start) as usize];
        self.inner.read_exact_at(&mut piece, start)?;
        buffer.copy_from_slice(&piece[within..within + buffer.len()]);
        if kept.pieces.len() as u64 >= CACHE / self.piece
            && let Some(oldest) = kept
                .pieces
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(number, _)| *number)
        {
            kept.pieces.remove(&oldest);
        }
        kept.pieces.insert(number, (clock, piece));
        Ok(())
    }
}

impl ReadAt for Pieces {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Long reads bypass the cache: they would only replace pieces that are used again.
        if buffer.len() as u64 >= self.piece {
            self.budget.unpacked.spend(buffer.len() as u64)?;
            return self.inner.read_exact_at(buffer, offset);
        }
        while !buffer.is_empty() {
            let n = (self.piece - offset % self.piece).min(buffer.len() as u64) as usize;
            let (now, rest) = buffer.split_at_mut(n);
            self.read_in_piece(now, offset)?;
            buffer = rest;
            offset += n as u64;
        }
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}
