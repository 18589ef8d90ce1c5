//! Directories: their entries, with names pieced together, and the walk over all of them.

use super::{
    Fat, FatKind,
    format::{
        ATTR_DIRECTORY, ATTR_LABEL, ATTR_LONG, ATTR_LONG_MASK, DIR_ATTR, DIR_FILE_SIZE, DIR_FST_CLUS_HI,
        DIR_FST_CLUS_LO, DIR_NT_RES, DIR_WRT_DATE, DIR_WRT_TIME, ENTRY, ENTRY_DELETED, ENTRY_END, ENTRY_KANJI,
        LAST_LONG_ENTRY, LDIR_CHKSUM, LDIR_ORD, LONG_UNITS, MAX_LONG_ENTRIES, NT_SMALL_BASE, NT_SMALL_EXTENSION,
        SHORT_SIZE, UNIT_OFFSETS, u16_at, u32_at,
    },
    names::{DosTime, Short, checksum, fold, show},
    volume::{corrupt, read},
};
use crate::{
    image::{ImageError, ReadAt},
    model::{Epoch, RelPath},
};
use std::collections::{BTreeMap, BTreeSet};

/// A volume with more files and directories is refused.
const MAX_NODES: usize = 200_000;
/// Bytes of the paths of all files and directories.
const MAX_PATHS: usize = 64 << 20;
/// Errors above this number are not kept.
const MAX_DAMAGE: usize = 16;

/// Pieces of a directory, in the order of its bytes: offset in the directory, and in the volume.
type Pieces = Vec<(u64, u64)>;

/// Receives the errors of entries, and decides whether reading goes on.
type Damage<'a> = dyn FnMut(ImageError) -> Result<(), ImageError> + 'a;

/// A directory entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FatEntry {
    /// The long name, or the short name where there is no long one.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Length of a file in bytes.
    pub size: u32,
    /// Time of the last change, taken as UTC; `None` when the fields hold no valid time.
    pub modified: Option<Epoch>,
    /// First cluster; 0 for an empty file.
    pub(super) first: u32,
    /// Offset of the entry in the volume.
    pub(super) offset: u64,
}

impl FatEntry {
    /// Offset in the volume of the 32-byte entry with the short name.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl<R: ReadAt> Fat<R> {
    /// The entries of a directory, in its own order, without `.` and `..`, deleted entries and the label. A long name that
    /// belongs to no entry, and a name that `RelPath` cannot hold, are errors.
    pub fn read_dir(&self, directory: &FatEntry) -> Result<Vec<FatEntry>, ImageError> {
        let mut found = Vec::new();
        self.visit_dir(directory, &mut found, &mut Err)?;
        Ok(found)
    }

    /// Adds the entries of a directory to `found`. If `damage` accepts an error, an entry whose long name is damaged has its short name,
    /// and an entry that is damaged itself is left out.
    fn visit_dir(
        &self,
        directory: &FatEntry,
        found: &mut Vec<FatEntry>,
        damage: &mut Damage<'_>,
    ) -> Result<(), ImageError> {
        let (bytes, places) = self.directory_bytes(directory)?;
        let mut long = LongName::default();
        for (index, raw) in bytes.chunks_exact(ENTRY).enumerate() {
            let offset = offset_in(&places, (index * ENTRY) as u64);
            match raw[0] {
                ENTRY_END => break,
                ENTRY_DELETED if long.pieces.is_empty() => continue,
                _ if raw[DIR_ATTR] & ATTR_LONG_MASK == ATTR_LONG => {
                    if let Err(problem) = long.push(raw) {
                        damage(corrupt(offset, problem))?;
                        long = LongName::default();
                    }
                    continue;
                }
                _ => {}
            }
            let mut short = [0; SHORT_SIZE];
            short.copy_from_slice(&raw[..SHORT_SIZE]);
            // Taken before anything is skipped: a long name in front of a label belongs to no entry either.
            let name = match long.take(&short) {
                Ok(name) => name,
                Err(problem) => {
                    damage(corrupt(offset, problem))?;
                    None
                }
            };
            // A deleted entry behind a long name, which is reported above.
            if raw[0] == ENTRY_DELETED {
                continue;
            }
            if raw[DIR_ATTR] & ATTR_LABEL != 0 || matches!(&short, b".          " | b"..         ") {
                continue;
            }
            let Some(name) = name.or_else(|| short_name(short, raw[DIR_NT_RES])) else {
                let shown = short.escape_ascii().to_string();
                damage(corrupt(offset, format!("{shown:?} is not a valid short name")))?;
                continue;
            };
            if name.contains('/') || RelPath::new(&name).is_err() {
                damage(corrupt(offset, format!("{name:?} is not a valid name")))?;
                continue;
            }
            let mut entry = self.entry(raw, name, offset);
            if entry.directory && entry.size != 0 {
                let problem = format!(
                    "the size of the directory {:?} is {} instead of 0",
                    entry.name, entry.size
                );
                damage(corrupt(offset, problem))?;
                entry.size = 0;
            }
            found.push(entry);
        }
        if !long.pieces.is_empty() {
            let problem = "the directory ends with a long name that belongs to no entry";
            damage(corrupt(self.place(directory), problem))?;
        }
        Ok(())
    }

    /// The entry of the 32 bytes `raw`.
    fn entry(&self, raw: &[u8], name: String, offset: u64) -> FatEntry {
        // FAT12 and FAT16 have another use for the upper half.
        let high = if self.boot.kind == FatKind::Fat32 {
            u16_at(raw, DIR_FST_CLUS_HI)
        } else {
            0
        };
        let time = DosTime {
            date: u16_at(raw, DIR_WRT_DATE),
            time: u16_at(raw, DIR_WRT_TIME),
            rest: 0,
        };
        FatEntry {
            name,
            directory: raw[DIR_ATTR] & ATTR_DIRECTORY != 0,
            size: u32_at(raw, DIR_FILE_SIZE),
            modified: time.epoch(),
            first: u32::from(high) << 16 | u32::from(u16_at(raw, DIR_FST_CLUS_LO)),
            offset,
        }
    }

    /// Every file and directory below the root. A directory reached twice, as in a circle, two entries of one name, and a path
    /// longer than 4095 bytes are errors.
    pub fn walk(&self) -> Result<BTreeMap<RelPath, FatEntry>, ImageError> {
        self.walk_with(&mut Err)
    }

    /// Every file and directory that can be read, and the damage because of which others are missing.
    pub fn walk_and_damage(&self) -> (BTreeMap<RelPath, FatEntry>, Vec<ImageError>) {
        let mut found = Vec::new();
        let tree = self.walk_with(&mut |error| {
            if found.len() < MAX_DAMAGE {
                found.push(error);
            }
            Ok(())
        });
        let tree = tree.unwrap_or_else(|error| {
            found.push(error);
            BTreeMap::new()
        });
        (tree, found)
    }

    fn walk_with(&self, damage: &mut Damage<'_>) -> Result<BTreeMap<RelPath, FatEntry>, ImageError> {
        let mut all = BTreeMap::new();
        let mut paths = 0;
        let mut seen = BTreeSet::from([self.boot.root, 0]);
        let mut open: Vec<(Option<RelPath>, FatEntry)> = vec![(None, self.root())];
        while let Some((path, directory)) = open.pop() {
            let mut names = BTreeSet::new();
            let mut entries = Vec::new();
            if let Err(error) = self.visit_dir(&directory, &mut entries, damage) {
                damage(error)?;
            }
            for entry in entries {
                let bad = |problem: String| corrupt(entry.offset, problem);
                if !names.insert(fold(&entry.name)) {
                    damage(bad(format!(
                        "two entries of one directory have the name {:?}",
                        entry.name
                    )))?;
                    continue;
                }
                let name = match &path {
                    Some(path) => [path.as_bytes(), b"/", entry.name.as_bytes()].concat(),
                    None => entry.name.clone().into_bytes(),
                };
                let name = match RelPath::new(name) {
                    Ok(name) => name,
                    Err(error) => {
                        damage(bad(error.to_string()))?;
                        continue;
                    }
                };
                if entry.directory {
                    if seen.insert(entry.first) {
                        open.push((Some(name.clone()), entry.clone()));
                    } else {
                        damage(bad(format!(
                            "the directory {name} has the clusters of another directory"
                        )))?;
                    }
                }
                paths += name.as_bytes().len();
                if all.len() == MAX_NODES || paths > MAX_PATHS {
                    let problem = format!("more than {MAX_NODES} files and directories, or {MAX_PATHS} bytes of paths");
                    damage(corrupt(0, problem))?;
                    return Ok(all);
                }
                all.insert(name, entry);
            }
        }
        Ok(all)
    }

    /// The entry at a path, found without regard to case; `None` when there is none. Damage to other entries does not matter.
    pub fn lookup(&self, path: &RelPath) -> Result<Option<FatEntry>, ImageError> {
        let mut at = self.root();
        for name in path.components() {
            let Ok(name) = std::str::from_utf8(name) else {
                return Ok(None);
            };
            if !at.directory {
                return Ok(None);
            }
            let name = fold(name);
            let mut entries = Vec::new();
            self.visit_dir(&at, &mut entries, &mut |_| Ok(()))?;
            match entries.into_iter().find(|e| fold(&e.name) == name) {
                Some(entry) => at = entry,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Offset of a directory, for messages.
    fn place(&self, directory: &FatEntry) -> u64 {
        match directory.first {
            0 | 1 => self.boot.fixed_root.0,
            first => self.offset(first),
        }
    }

    /// All bytes of a directory, and their pieces: offset in the directory, and in the volume.
    pub(super) fn directory_bytes(&self, directory: &FatEntry) -> Result<(Vec<u8>, Pieces), ImageError> {
        if !directory.directory {
            return Err(corrupt(directory.offset, "a file where a directory should be"));
        }
        // Only the root of FAT12 and FAT16 has no cluster; an entry whose first cluster is 0 must not be taken for it.
        if self.boot.kind != FatKind::Fat32 && directory.first == 0 && directory.offset == 0 {
            let (offset, size) = self.boot.fixed_root;
            let mut bytes = vec![0; size as usize];
            read(&self.source, &mut bytes, offset)?;
            return Ok((bytes, vec![(0, offset)]));
        }
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (first, clusters) in self.runs(directory.first, None)? {
            let start = bytes.len();
            bytes.resize(start + (u64::from(clusters) * self.boot.cluster) as usize, 0);
            read(&self.source, &mut bytes[start..], self.offset(first))?;
            places.push((start as u64, self.offset(first)));
        }
        Ok((bytes, places))
    }
}

/// Offset in the volume of byte `at` of a directory with these pieces.
fn offset_in(places: &[(u64, u64)], at: u64) -> u64 {
    let piece = places.partition_point(|(start, _)| *start <= at).checked_sub(1);
    piece
        .and_then(|piece| places.get(piece))
        .map_or(0, |(start, offset)| offset + (at - start))
}

/// The pieces of a long name read so far; the last piece is stored first.
#[derive(Default)]
struct LongName {
    pieces: Vec<[u16; LONG_UNITS]>,
    /// Number of the piece that must follow; 0 when the name is complete.
    next: u8,
    /// Checksum of the short name, which every piece repeats.
    sum: u8,
}

impl LongName {
    fn push(&mut self, raw: &[u8]) -> Result<(), &'static str> {
        let number = raw[LDIR_ORD] & !LAST_LONG_ENTRY;
        if raw[LDIR_ORD] & LAST_LONG_ENTRY != 0 {
            if !self.pieces.is_empty() || !(1..=MAX_LONG_ENTRIES).contains(&number) {
                return Err("a long name begins within another one, or has no piece or too many");
            }
            self.sum = raw[LDIR_CHKSUM];
        } else if self.pieces.is_empty() || number != self.next || number == 0 || raw[LDIR_CHKSUM] != self.sum {
            return Err("a piece of a long name does not follow the one before");
        }
        self.next = number - 1;
        self.pieces.push(UNIT_OFFSETS.map(|at| u16_at(raw, at)));
        Ok(())
    }

    /// The name collected for the entry with this short name; then begins anew.
    fn take(&mut self, short: &Short) -> Result<Option<String>, &'static str> {
        let pieces = std::mem::take(&mut self.pieces);
        if pieces.is_empty() {
            return Ok(None);
        }
        if self.next != 0 || self.sum != checksum(short) {
            return Err("a long name does not belong to the entry behind it");
        }
        let units = pieces.iter().rev().flatten().copied();
        let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        String::from_utf16(&units)
            .map(Some)
            .map_err(|_| "a long name is not UTF-16")
    }
}

/// The name of an entry without a long name; `None` when the bytes are not a valid short name.
fn short_name(mut short: Short, case: u8) -> Option<String> {
    if short[0] == ENTRY_KANJI {
        short[0] = ENTRY_DELETED;
    }
    if short[0] == b' ' || short.iter().any(u8::is_ascii_control) {
        return None;
    }
    if case & NT_SMALL_BASE != 0 {
        short[..8].make_ascii_lowercase();
    }
    if case & NT_SMALL_EXTENSION != 0 {
        short[8..].make_ascii_lowercase();
    }
    Some(show(&short))
}
