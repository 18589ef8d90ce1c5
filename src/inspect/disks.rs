//! Disks with GUID partition tables or master boot records, and qcow2 images with a disk inside.

use super::{
    error::one_line,
    part::{Look, Part, PartExtent, PartKind},
};
use crate::image::{
    Guid, ReadAt, Source,
    gpt::{self, types},
    mbr::{self, BOOT_CODE, SECTOR},
    qcow2::Qcow2,
};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

pub(super) const GPT_MAGIC: &[u8] = b"EFI PART";
pub(super) const GPT_MAGIC_AT: usize = SECTOR as usize;
pub(super) const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
/// A larger disk in a qcow2 image is not inspected, bytes: even zeros take time to read.
const MAX_DISK: u64 = 64 << 30;
/// Size of a cached piece of a disk in a qcow2 image, in bytes, and the number of cached pieces.
const PIECE: u64 = 64 * 1024;
const PIECES: usize = 128;

/// Whether a master boot record with a plausible table begins here.
pub(super) fn is_mbr(head: &[u8]) -> bool {
    let Some(record) = head.get(..SECTOR as usize) else {
        return false;
    };
    let entries = record[BOOT_CODE + 6..SECTOR as usize - 2].as_chunks::<16>().0;
    let plausible = entries.iter().all(|e| matches!(e[0], 0 | 0x80));
    let used = entries.iter().any(|e| e[4] != 0 && e[12..16] != [0; 4]);
    record.ends_with(&[0x55, 0xaa]) && plausible && used
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

/// A disk with a GUID partition table.
pub(super) fn gpt(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "GPT disk",
        ..Look::default()
    };
    record(source, &mut look);
    let array = 32 * SECTOR;
    let last = size.saturating_sub(SECTOR);
    for (name, from, len) in [
        ("primary GPT header", SECTOR, SECTOR),
        ("primary GPT array", 2 * SECTOR, array),
        ("backup GPT array", last.saturating_sub(array), array),
        ("backup GPT header", last, SECTOR),
    ] {
        if from.checked_add(len).is_some_and(|end| end <= size) {
            look.children
                .push(Part::slice(name, PartKind::Region, source, from, len));
        }
    }
    let disk = match gpt::read(source) {
        Ok(disk) => disk,
        Err(error) => {
            look.problem = Some(one_line(&error));
            return look;
        }
    };
    look.fields.insert("guid".to_owned(), disk.guid.to_string());
    look.fields.insert("sectors".to_owned(), disk.sectors.to_string());
    for (number, partition) in (1..).zip(&disk.partitions) {
        let key = format!("partition {number}");
        let part = Part::slice(
            format!("{key} {:?}", partition.name),
            PartKind::Partition,
            source,
            partition.offset(),
            partition.size(),
        );
        look.children.push(
            part.keyed(key)
                .with("name", &partition.name)
                .with("type", purpose(partition.type_guid))
                .with("guid", partition.guid)
                .with("attributes", format!("{:#x}", partition.attributes))
                .with("first sector", partition.first_lba)
                .with("sectors", partition.sectors),
        );
    }
    look
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
    let read = match mbr::read(source) {
        Ok(read) => read,
        Err(error) => {
            look.problem = Some(one_line(&error));
            return look;
        }
    };
    look.fields
        .insert("signature".to_owned(), format!("{:#010x}", read.signature));
    for partition in read.partitions {
        let (from, len) = (
            u64::from(partition.first_lba) * SECTOR,
            u64::from(partition.sectors) * SECTOR,
        );
        if from + len > size {
            look.problem = Some(format!(
                "partition {} ends behind the end of the disk",
                partition.slot + 1
            ));
            continue;
        }
        let part = Part::slice(
            format!("partition {}", partition.slot + 1),
            PartKind::Partition,
            source,
            from,
            len,
        );
        look.children.push(
            part.with("type", format!("{:#04x}", partition.kind))
                .with("active", if partition.active { "yes" } else { "no" }),
        );
    }
    look
}

/// A qcow2 image.
pub(super) fn qcow2(source: &Source, size: u64) -> Look {
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
            let disk: Source = Arc::new(Pieces {
                inner: Arc::new(disk),
                size: len,
                kept: Mutex::default(),
            });
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

/// Caches the pieces of a disk that were read last, so that scattered small reads do not decompress a cluster each.
struct Pieces {
    inner: Source,
    size: u64,
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
        let number = offset / PIECE;
        let start = number * PIECE;
        let within = (offset - start) as usize;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let clock = kept.clock;
        if let Some((used, piece)) = kept.pieces.get_mut(&number) {
            *used = clock;
            buffer.copy_from_slice(&piece[within..within + buffer.len()]);
            return Ok(());
        }
        let mut piece = vec![0; PIECE.min(self.size - start) as usize];
        self.inner.read_exact_at(&mut piece, start)?;
        buffer.copy_from_slice(&piece[within..within + buffer.len()]);
        if kept.pieces.len() >= PIECES
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
        if buffer.len() as u64 >= PIECE {
            return self.inner.read_exact_at(buffer, offset);
        }
        while !buffer.is_empty() {
            let n = (PIECE - offset % PIECE).min(buffer.len() as u64) as usize;
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
