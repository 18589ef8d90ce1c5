//! Reads a volume that anybody may have made: nothing is trusted, every loop ends, memory does not grow with what a field
//! claims.

use super::{
    ATTR_DIRECTORY, ATTR_LABEL, ATTR_LONG, ENTRY, FIRST_CLUSTER, FatKind, LONG_LAST, LONG_UNITS, MAX_DIRECTORY,
    MAX_FAT32, SECTOR,
    names::{DosTime, Short, UNIT_PLACES, checksum, fold, show},
};
use crate::{
    image::{ImageError, ReadAt},
    model::{Epoch, RelPath},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

const FORMAT: &str = "a FAT image";
/// Bytes of a table read at a time.
const WINDOW: u64 = 4096;
/// A file in more pieces is refused: 4 MiB of memory.
const MAX_RUNS: usize = 1 << 19;
/// A volume with more files and directories is refused.
const MAX_NODES: usize = 1 << 20;
/// First byte of an entry: nothing follows; was deleted; stands for 0xe5.
const END: u8 = 0;
const DELETED: u8 = 0xe5;
const REPLACED: u8 = 0x05;
/// Bits of byte 12: the base or the extension is in small letters (Windows NT).
const SMALL_BASE: u8 = 0x08;
const SMALL_EXTENSION: u8 = 0x10;

fn corrupt(offset: u64, problem: impl Into<String>) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem: problem.into(),
    }
}

/// What a directory says of a file or a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FatEntry {
    /// Its name, the long one if it has one.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Length of a file in bytes.
    pub size: u32,
    /// Time of the last change, taken as UTC; `None` when it is no time.
    pub modified: Option<Epoch>,
    pub(super) first: u32,
    /// Where the entry lies in the image.
    pub(super) offset: u64,
}

impl FatEntry {
    /// Where its entry lies in the volume, the short one of 32 bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// A volume.
#[derive(Clone, Debug)]
pub struct Fat<R> {
    source: R,
    kind: FatKind,
    cluster: u64,
    clusters: u32,
    tables: u8,
    pub(super) table_offset: u64,
    pub(super) table_size: u64,
    /// Offset and bytes of the root of FAT12 and FAT16.
    fixed_root: (u64, u64),
    data_offset: u64,
    /// First cluster of the root of FAT32.
    root: u32,
    serial: u32,
    label: Short,
    hidden: u32,
    size: u64,
    fs_info: u64,
    backup: u64,
}

impl<R: ReadAt> Fat<R> {
    /// Checks the boot sector. Only sectors of 512 bytes are read, and only volumes that the source holds whole.
    pub fn open(source: R) -> Result<Self, ImageError> {
        let mut boot = [0; SECTOR as usize];
        read(&source, &mut boot, 0)?;
        let half = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let word = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);
        let bad = |at: u64, problem: String| Err(corrupt(at, problem));
        if boot[510..] != [0x55, 0xaa] {
            return bad(510, "the boot sector does not end with 55aa".to_owned());
        }
        if half(11) != SECTOR {
            return bad(11, format!("sectors of {} bytes", half(11)));
        }
        let cluster_sectors = u64::from(boot[13]);
        if !cluster_sectors.is_power_of_two() {
            return bad(13, format!("clusters of {cluster_sectors} sectors"));
        }
        let (reserved, tables, root_entries) = (half(14), boot[16], half(17));
        let either = |short: u64, long: u32| if short != 0 { short } else { u64::from(long) };
        let sectors = either(half(19), word(32));
        let fat32 = half(22) == 0;
        let table = either(half(22), word(36));
        if reserved == 0 || tables == 0 || table == 0 || fat32 == (root_entries != 0) {
            return bad(
                14,
                format!(
                    "{reserved} reserved sectors, {tables} tables of {table} sectors, a root of {root_entries} entries"
                ),
            );
        }
        let table_offset = reserved * SECTOR;
        let root_offset = (reserved + u64::from(tables) * table) * SECTOR;
        let root_size = (root_entries * ENTRY as u64).next_multiple_of(SECTOR);
        let data_offset = root_offset + root_size;
        let size = sectors * SECTOR;
        let whole = source.size().map_err(|source| input(0, source))?;
        if size > whole || data_offset > size {
            return bad(
                19,
                format!("{size} bytes of which {data_offset} are not clusters, in an image of {whole}"),
            );
        }
        let cluster = cluster_sectors * SECTOR;
        let clusters = (size - data_offset) / cluster;
        let clusters = u32::try_from(clusters).ok().filter(|n| *n <= MAX_FAT32);
        let Some(clusters) = clusters.filter(|n| *n > 0) else {
            return bad(
                19,
                format!("clusters of {cluster} bytes in {} bytes", size - data_offset),
            );
        };
        let kind = FatKind::of(clusters);
        if (kind == FatKind::Fat32) != fat32 {
            return bad(
                22,
                format!("{clusters} clusters make it {kind:?}, the table's field does not"),
            );
        }
        let numbers = u64::from(clusters) + u64::from(FIRST_CLUSTER);
        if (numbers * kind.bits()).div_ceil(8) > table * SECTOR {
            return bad(22, format!("a table of {table} sectors for {clusters} clusters"));
        }
        let extended = if fat32 { 64 } else { 36 };
        let mut label = [b' '; 11];
        let mut serial = 0;
        if boot[extended + 2] == 0x29 {
            label.copy_from_slice(&boot[extended + 7..extended + 18]);
            serial = word(extended + 3);
        }
        if fat32 && word(40) & 0xffff_0000 != 0 {
            return bad(42, format!("version {:#x}", word(40) >> 16));
        }
        Ok(Self {
            source,
            kind,
            cluster,
            clusters,
            tables,
            table_offset,
            table_size: table * SECTOR,
            fixed_root: (root_offset, root_size),
            data_offset,
            root: if fat32 { word(44) } else { 0 },
            serial,
            label,
            hidden: word(28),
            size,
            fs_info: if fat32 { half(48) } else { 0 },
            backup: if fat32 { half(50) } else { 0 },
        })
    }

    /// Its kind, which its number of clusters decides.
    pub fn kind(&self) -> FatKind {
        self.kind
    }
    /// Its serial number; 0 if it has none.
    pub fn serial(&self) -> u32 {
        self.serial
    }
    /// Length of the volume in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        self.cluster
    }
    /// Number of clusters.
    pub fn clusters(&self) -> u32 {
        self.clusters
    }
    /// First sector of its partition, as it says.
    pub fn hidden_sectors(&self) -> u32 {
        self.hidden
    }

    /// Its label: the root's, or else the boot sector's; `None` when there is none.
    pub fn label(&self) -> Result<Option<String>, ImageError> {
        let root = self.directory_bytes(&self.root())?;
        let in_root = root
            .chunks_exact(ENTRY)
            .take_while(|e| e[0] != END)
            .find(|e| e[0] != DELETED && e[11] & ATTR_LONG != ATTR_LONG && e[11] & ATTR_LABEL != 0)
            .map(|e| &e[..11]);
        let stored = in_root.unwrap_or(&self.label);
        let text = String::from_utf8_lossy(stored.trim_ascii_end()).into_owned();
        Ok(Some(text).filter(|t| !t.is_empty() && (in_root.is_some() || t != "NO NAME")))
    }

    /// The root.
    pub fn root(&self) -> FatEntry {
        FatEntry {
            name: String::new(),
            directory: true,
            size: 0,
            modified: None,
            first: self.root,
            offset: 0,
        }
    }

    /// What a directory holds, in its own order, without `.` and `..`, deleted entries and the label. A long name that
    /// belongs to no entry, and a name that cannot be one, are errors.
    pub fn read_dir(&self, directory: &FatEntry) -> Result<Vec<FatEntry>, ImageError> {
        let bytes = self.directory_bytes(directory)?;
        let mut found = Vec::new();
        let mut long = Long::default();
        for (index, raw) in bytes.chunks_exact(ENTRY).enumerate() {
            // Where exactly it lies only matters to a reader of messages: within a directory in pieces this is not it.
            let offset = self.place(directory) + (index * ENTRY) as u64;
            match raw[0] {
                END => break,
                DELETED if long.pieces.is_empty() => continue,
                _ if raw[11] & 0x3f == ATTR_LONG => {
                    long.push(raw).map_err(|problem| corrupt(offset, problem))?;
                    continue;
                }
                _ => {}
            }
            let mut short = [0; 11];
            short.copy_from_slice(&raw[..11]);
            let name = long.take(&short).map_err(|problem| corrupt(offset, problem))?;
            if raw[11] & ATTR_LABEL != 0 || matches!(&short, b".          " | b"..         ") {
                continue;
            }
            let name = match name {
                Some(name) => name,
                None => short_name(short, raw[12])
                    .ok_or_else(|| corrupt(offset, format!("the short name {:?}", short.escape_ascii().to_string())))?,
            };
            if name.contains('/') || RelPath::new(&name).is_err() {
                return Err(corrupt(offset, format!("the name {name:?}")));
            }
            let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
            let high = if self.kind == FatKind::Fat32 { half(20) } else { 0 };
            let time = DosTime {
                date: half(24),
                time: half(22),
                rest: 0,
            };
            let entry = FatEntry {
                name,
                directory: raw[11] & ATTR_DIRECTORY != 0,
                size: u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]]),
                modified: time.epoch(),
                first: u32::from(high) << 16 | u32::from(half(26)),
                offset,
            };
            if entry.directory && entry.size != 0 {
                return Err(corrupt(offset, format!("a directory of {} bytes", entry.size)));
            }
            found.push(entry);
        }
        if !long.pieces.is_empty() {
            return Err(corrupt(self.place(directory), "a long name ends the directory"));
        }
        Ok(found)
    }

    /// Everything below the root. A directory that is reached twice, as in a circle, two entries of one name, and a path
    /// longer than 4095 bytes are errors.
    pub fn walk(&self) -> Result<BTreeMap<RelPath, FatEntry>, ImageError> {
        let mut all = BTreeMap::new();
        let mut seen = BTreeSet::from([self.root, 0]);
        let mut open: Vec<(Option<RelPath>, FatEntry)> = vec![(None, self.root())];
        while let Some((path, directory)) = open.pop() {
            let mut names = BTreeSet::new();
            for entry in self.read_dir(&directory)? {
                let bad = |problem: String| corrupt(entry.offset, problem);
                if !names.insert(fold(&entry.name)) {
                    return Err(bad(format!("the name {:?} is there twice", entry.name)));
                }
                let name = match &path {
                    Some(path) => [path.as_bytes(), b"/", entry.name.as_bytes()].concat(),
                    None => entry.name.clone().into_bytes(),
                };
                let name = RelPath::new(name).map_err(|e| bad(e.to_string()))?;
                if entry.directory {
                    if !seen.insert(entry.first) {
                        return Err(bad(format!("the directory {name} is another one too")));
                    }
                    open.push((Some(name.clone()), entry.clone()));
                }
                all.insert(name, entry);
                if all.len() > MAX_NODES {
                    return Err(corrupt(0, format!("more than {MAX_NODES} files and directories")));
                }
            }
        }
        Ok(all)
    }

    /// The entry at a path, found without regard to case; `None` when there is none.
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
            match self.read_dir(&at)?.into_iter().find(|e| fold(&e.name) == name) {
                Some(entry) => at = entry,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Offset in the volume and length of each piece of a file, in the order of its bytes.
    pub fn extents(&self, file: &FatEntry) -> Result<Vec<(u64, u64)>, ImageError> {
        if file.directory {
            return Err(corrupt(file.offset, "a directory where a file should be"));
        }
        if file.size == 0 && file.first == 0 {
            return Ok(Vec::new());
        }
        let mut left = u64::from(file.size);
        let runs = self.runs(file.first, Some(left.div_ceil(self.cluster)))?;
        let extents = runs.into_iter().map(|(first, clusters)| {
            let length = left.min(u64::from(clusters) * self.cluster);
            left -= length;
            (self.offset(first), length)
        });
        Ok(extents.collect())
    }

    /// Opens a file for reading at any offset.
    pub fn file(&self, file: &FatEntry) -> Result<FatFile<&R>, ImageError> {
        let mut start = 0;
        let pieces = self.extents(file)?.into_iter().map(|(offset, length)| {
            let piece = (start, offset, length);
            start += length;
            piece
        });
        Ok(FatFile {
            pieces: pieces.collect(),
            size: u64::from(file.size),
            source: &self.source,
        })
    }

    /// Number of clusters that are free.
    pub fn free_clusters(&self) -> Result<u32, ImageError> {
        let mut table = Table::new(self);
        let mut free = 0;
        for cluster in FIRST_CLUSTER..self.clusters + FIRST_CLUSTER {
            free += u32::from(table.get(cluster)? == 0);
        }
        Ok(free)
    }

    /// Checks the whole volume: the tables agree; every cluster is free or belongs to just one file or directory; FAT32's
    /// copy of the boot sector is one, and FSInfo counts the free clusters rightly.
    pub fn check(&self) -> Result<(), ImageError> {
        self.compare_tables()?;
        let nodes = self.walk()?;
        let mut taken = vec![0u64; (self.clusters as usize).div_ceil(64)];
        let mut used = 0;
        let root = (self.kind == FatKind::Fat32).then(|| self.root());
        for node in root.iter().chain(nodes.values()) {
            let wanted = (!node.directory).then(|| u64::from(node.size).div_ceil(self.cluster));
            if wanted == Some(0) && node.first == 0 {
                continue;
            }
            for (first, clusters) in self.runs(node.first, wanted)? {
                for cluster in first..first + clusters {
                    let index = (cluster - FIRST_CLUSTER) as usize;
                    if taken[index / 64] & 1 << (index % 64) != 0 {
                        return Err(corrupt(
                            node.offset,
                            format!("{:?} shares cluster {cluster}", node.name),
                        ));
                    }
                    taken[index / 64] |= 1 << (index % 64);
                    used += 1;
                }
            }
        }
        let free = self.free_clusters()?;
        if used + free != self.clusters {
            let lost = self.clusters - free - used;
            return Err(corrupt(self.table_offset, format!("{lost} clusters belong to nothing")));
        }
        if self.kind == FatKind::Fat32 {
            self.check_fat32(free)?;
        }
        Ok(())
    }

    fn compare_tables(&self) -> Result<(), ImageError> {
        let (mut one, mut other) = ([0; 1 << 16], [0; 1 << 16]);
        for table in 1..u64::from(self.tables) {
            let mut done = 0;
            while done < self.table_size {
                let n = (self.table_size - done).min(1 << 16);
                let at = self.table_offset + done;
                let copy = at + table * self.table_size;
                read(&self.source, &mut one[..n as usize], at)?;
                read(&self.source, &mut other[..n as usize], copy)?;
                if one[..n as usize] != other[..n as usize] {
                    return Err(corrupt(copy, "a copy of the table differs from the first"));
                }
                done += n;
            }
        }
        Ok(())
    }

    fn check_fat32(&self, free: u32) -> Result<(), ImageError> {
        let sector = |number: u64| {
            let mut bytes = [0; SECTOR as usize];
            read(&self.source, &mut bytes, number * SECTOR).map(|()| bytes)
        };
        let reserved = self.table_offset / SECTOR;
        for (what, number) in [("FSInfo", self.fs_info), ("the boot sector's copy", self.backup)] {
            if !(1..reserved).contains(&number) {
                return Err(corrupt(48, format!("{what} in sector {number}")));
            }
        }
        if sector(0)? != sector(self.backup)? {
            return Err(corrupt(self.backup * SECTOR, "the boot sector's copy differs from it"));
        }
        let info = sector(self.fs_info)?;
        let word = |at: usize| u32::from_le_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let signatures = (word(0), word(484), word(508));
        if signatures != (0x4161_5252, 0x6141_7272, 0xaa55_0000) {
            return Err(corrupt(self.fs_info * SECTOR, "FSInfo has not its signatures"));
        }
        if word(488) != free {
            let problem = format!("FSInfo counts {} free clusters and there are {free}", word(488));
            return Err(corrupt(self.fs_info * SECTOR + 488, problem));
        }
        Ok(())
    }

    fn offset(&self, cluster: u32) -> u64 {
        self.data_offset + u64::from(cluster - FIRST_CLUSTER) * self.cluster
    }

    /// Where a directory begins, for messages.
    fn place(&self, directory: &FatEntry) -> u64 {
        match directory.first {
            0 | 1 => self.fixed_root.0,
            first => self.offset(first),
        }
    }

    fn directory_bytes(&self, directory: &FatEntry) -> Result<Vec<u8>, ImageError> {
        if !directory.directory {
            return Err(corrupt(directory.offset, "a file where a directory should be"));
        }
        // Only the root of FAT12 and FAT16 has no cluster; no entry of 0 may pass for it.
        if self.kind != FatKind::Fat32 && directory.first == 0 && directory.offset == 0 {
            let (offset, size) = self.fixed_root;
            let mut bytes = vec![0; size as usize];
            read(&self.source, &mut bytes, offset)?;
            return Ok(bytes);
        }
        let mut bytes = Vec::new();
        for (first, clusters) in self.runs(directory.first, None)? {
            let start = bytes.len();
            bytes.resize(start + (u64::from(clusters) * self.cluster) as usize, 0);
            read(&self.source, &mut bytes[start..], self.offset(first))?;
        }
        Ok(bytes)
    }

    /// The clusters from `first` on as runs of neighbours: just as many as `wanted`, or of a directory as many as there are.
    fn runs(&self, first: u32, wanted: Option<u64>) -> Result<Vec<(u32, u32)>, ImageError> {
        let most = MAX_DIRECTORY.div_ceil(self.cluster).max(1);
        let end = self.clusters + FIRST_CLUSTER;
        let mut table = Table::new(self);
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut cluster = first;
        let mut count = 0;
        loop {
            if !(FIRST_CLUSTER..end).contains(&cluster) {
                return Err(corrupt(
                    self.table_offset,
                    format!("a chain goes on at cluster {cluster:#x}"),
                ));
            }
            match runs.last_mut() {
                Some((start, length)) if *start + *length == cluster => *length += 1,
                _ => runs.push((cluster, 1)),
            }
            if runs.len() > MAX_RUNS {
                return Err(corrupt(
                    self.table_offset,
                    format!("a file in more than {MAX_RUNS} pieces"),
                ));
            }
            count += 1;
            let next = table.get(cluster)?;
            let last = next > self.kind.mask() - 8;
            match wanted {
                // At the latest here a circle ends, and an empty file that has clusters.
                Some(wanted) if last != (count == wanted) || count > wanted => {
                    let problem = format!("a chain has not just the {wanted} clusters of its file");
                    return Err(corrupt(self.table_offset, problem));
                }
                None if count > most || (count == most && !last) => {
                    return Err(corrupt(self.table_offset, "a directory of more than 65536 entries"));
                }
                _ if last => return Ok(runs),
                _ => cluster = next,
            }
        }
    }
}

fn input(offset: u64, source: io::Error) -> ImageError {
    ImageError::Input {
        format: FORMAT,
        offset,
        source,
    }
}

fn read(source: &impl ReadAt, buffer: &mut [u8], offset: u64) -> Result<(), ImageError> {
    source
        .read_exact_at(buffer, offset)
        .map_err(|source| input(offset, source))
}

/// The first table, a window of it in memory.
struct Table<'a, R> {
    fat: &'a Fat<R>,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, R: ReadAt> Table<'a, R> {
    fn new(fat: &'a Fat<R>) -> Self {
        Self {
            fat,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The number of a cluster that exists.
    fn get(&mut self, cluster: u32) -> Result<u32, ImageError> {
        let bits = u64::from(cluster) * self.fat.kind.bits();
        let at = bits / 8;
        let width = self.fat.kind.bits().div_ceil(8);
        if at < self.start || at + width > self.start + self.bytes.len() as u64 {
            self.start = at / SECTOR * SECTOR;
            let length = WINDOW.min(self.fat.table_size - self.start);
            self.bytes.resize(length as usize, 0);
            read(&self.fat.source, &mut self.bytes, self.fat.table_offset + self.start)?;
        }
        let from = (at - self.start) as usize;
        let number = self.bytes[from..from + width as usize]
            .iter()
            .rev()
            .fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        Ok(number >> (bits % 8) & self.fat.kind.mask())
    }
}

/// The pieces of a long name seen so far, last first.
#[derive(Default)]
struct Long {
    pieces: Vec<[u16; LONG_UNITS]>,
    next: u8,
    sum: u8,
}

impl Long {
    fn push(&mut self, raw: &[u8]) -> Result<(), &'static str> {
        let number = raw[0] & !LONG_LAST;
        if raw[0] & LONG_LAST != 0 {
            if !self.pieces.is_empty() || !(1..=20).contains(&number) {
                return Err("a long name begins where it cannot");
            }
            self.sum = raw[13];
        } else if self.pieces.is_empty() || number != self.next || number == 0 || raw[13] != self.sum {
            return Err("a piece of a long name that does not follow the one before");
        }
        self.next = number - 1;
        self.pieces
            .push(UNIT_PLACES.map(|at| u16::from_le_bytes([raw[at], raw[at + 1]])));
        Ok(())
    }

    /// The name collected for the entry with this short name, and begins anew.
    fn take(&mut self, short: &Short) -> Result<Option<String>, &'static str> {
        let pieces = std::mem::take(&mut self.pieces);
        if pieces.is_empty() {
            return Ok(None);
        }
        if self.next != 0 || self.sum != checksum(short) {
            return Err("a long name that is not of the entry behind it");
        }
        let units = pieces.iter().rev().flatten().copied();
        let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        String::from_utf16(&units)
            .map(Some)
            .map_err(|_| "a long name that is not UTF-16")
    }
}

/// The name an entry has without a long one; `None` when it is none.
fn short_name(mut short: Short, case: u8) -> Option<String> {
    if short[0] == REPLACED {
        short[0] = 0xe5;
    }
    if short[0] == b' ' || !short.is_ascii() || short.iter().any(u8::is_ascii_control) {
        return None;
    }
    if case & SMALL_BASE != 0 {
        short[..8].make_ascii_lowercase();
    }
    if case & SMALL_EXTENSION != 0 {
        short[8..].make_ascii_lowercase();
    }
    Some(show(&short))
}

/// A file's bytes.
#[derive(Clone, Debug)]
pub struct FatFile<R> {
    source: R,
    /// Where each piece begins in the file and in the volume, and its length.
    pieces: Vec<(u64, u64, u64)>,
    size: u64,
}

impl<R: ReadAt> ReadAt for FatFile<R> {
    fn read_exact_at(&self, mut buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        let mut index = self.pieces.partition_point(|(start, _, length)| start + length <= at);
        while !buffer.is_empty() {
            let (start, place, length) = *self.pieces.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
            let inside = at - start;
            let n = usize::try_from(length - inside).map_or(buffer.len(), |n| n.min(buffer.len()));
            let (head, tail) = buffer.split_at_mut(n);
            self.source.read_exact_at(head, place + inside)?;
            buffer = tail;
            at += n as u64;
            index += 1;
        }
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}
