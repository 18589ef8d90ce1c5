//! Writes a volume that is laid out: its sectors, tables and directories, and what of its files is not zero.

use super::{
    ATTR_ARCHIVE, ATTR_DIRECTORY, ATTR_LABEL, ENTRY, FIRST_CLUSTER, FORMAT, FatKind, SECTOR, TABLES,
    layout::{FatItem, FatLayout, PlacedItem, ROOT_ENTRIES},
    names::Short,
};
use crate::{
    image::{ImageError, copy_exact},
    model::RelPath,
};
use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom, Write},
};

/// The name that Microsoft's specification recommends: some programs know no other.
const OEM: &[u8; 8] = b"MSWIN4.1";
/// `int 18h`, "this cannot be booted"; then halt for ever.
const BOOT_CODE: [u8; 5] = [0xcd, 0x18, 0xf4, 0xeb, 0xfd];
/// A fixed disk, and its drive number.
const MEDIA: u8 = 0xf8;
const DRIVE: u8 = 0x80;
/// Geometry for programs that want one: sectors of a track, heads.
const TRACK: u16 = 63;
const HEADS: u16 = 255;
/// Says that serial number, label and type follow.
const EXTENDED: u8 = 0x29;
/// Sectors of FSInfo and of the boot sector's copy.
pub(super) const FS_INFO: u16 = 1;
pub(super) const BACKUP: u16 = 6;
/// Zeros of this many bytes at a multiple of it are not written.
const HOLE: u64 = 4096;
/// Bytes of the table made at a time.
const TABLE_CHUNK: usize = 64 * 1024;

/// A volume that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FatSummary {
    /// Its length in bytes.
    pub size: u64,
    /// Offset in the volume and length of each file that is not empty.
    pub extents: BTreeMap<RelPath, (u64, u64)>,
}

/// Writes the volume of `layout` from byte `at` of `out` on. There must be nothing but zeros yet, such as a file has that was
/// made as long as it is to be: zeros are not written, and behind the last other byte nothing is. `open` gives the content of
/// the file at a path.
pub fn write<W: Write + Seek>(
    layout: &FatLayout,
    at: u64,
    open: &dyn Fn(&RelPath) -> io::Result<Box<dyn Read>>,
    out: &mut W,
) -> Result<FatSummary, ImageError> {
    let failed = |source| ImageError::Write { format: FORMAT, source };
    let geometry = &layout.geometry;
    let boot = boot_sector(layout);
    Sparse::new(out, at).write_all(&boot).map_err(failed)?;
    if layout.volume.kind == FatKind::Fat32 {
        let info = fs_info(layout);
        for (sector, bytes) in [(FS_INFO, &info), (BACKUP, &boot), (BACKUP + FS_INFO, &info)] {
            Sparse::new(out, at + u64::from(sector) * SECTOR)
                .write_all(bytes)
                .map_err(failed)?;
        }
    }
    for table in 0..TABLES {
        let offset = (geometry.reserved + table * geometry.table) * SECTOR;
        write_table(layout, &mut Sparse::new(out, at + offset)).map_err(failed)?;
    }
    let mut directories = directories(layout);
    let root = directories.remove(&None).unwrap_or_default();
    Sparse::new(out, at + geometry.root_offset())
        .write_all(&root)
        .map_err(failed)?;
    for (path, node) in &layout.nodes {
        match node.item {
            FatItem::Directory => {
                let bytes = directories.remove(&Some(path.clone())).unwrap_or_default();
                Sparse::new(out, at + geometry.offset(node.first))
                    .write_all(&bytes)
                    .map_err(failed)?;
            }
            FatItem::File { size } => {
                let shown = path.to_string();
                let mut content = open(path).map_err(|source| ImageError::Read {
                    path: shown.clone(),
                    source,
                })?;
                let offset = geometry.offset(node.first.max(FIRST_CLUSTER));
                copy_exact(
                    FORMAT,
                    &shown,
                    u64::from(size),
                    &mut content,
                    &mut Sparse::new(out, at + offset),
                )?;
            }
        }
    }
    Ok(FatSummary {
        size: layout.size(),
        extents: layout.extents(),
    })
}

/// Leaves holes where zeros would be written.
struct Sparse<'a, W> {
    out: &'a mut W,
    at: u64,
}

impl<'a, W> Sparse<'a, W> {
    fn new(out: &'a mut W, at: u64) -> Self {
        Self { out, at }
    }
}

impl<W: Write + Seek> Write for Sparse<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        let mut full: &[u8] = &[];
        let mut start = self.at;
        let mut flush = |start: u64, full: &[u8]| {
            if full.is_empty() {
                return Ok(());
            }
            self.out.seek(SeekFrom::Start(start))?;
            self.out.write_all(full)
        };
        let mut position = self.at;
        while !rest.is_empty() {
            let piece = usize::try_from(HOLE - position % HOLE).map_or(rest.len(), |n| n.min(rest.len()));
            let done = bytes.len() - rest.len();
            if rest[..piece].iter().all(|b| *b == 0) {
                flush(start, full)?;
                start = position + piece as u64;
                full = &[];
            } else {
                full = &bytes[done - full.len()..done + piece];
            }
            position += piece as u64;
            rest = &rest[piece..];
        }
        flush(start, full)?;
        self.at = position;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn boot_sector(layout: &FatLayout) -> [u8; SECTOR as usize] {
    let (volume, geometry) = (&layout.volume, &layout.geometry);
    let fat32 = volume.kind == FatKind::Fat32;
    let mut bytes = [0; SECTOR as usize];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    // The geometry has checked that each number fits its field.
    let half = |value: u64| (value as u16).to_le_bytes();
    let word = |value: u64| (value as u32).to_le_bytes();
    put(
        0,
        if fat32 {
            &[0xeb, 0x58, 0x90]
        } else {
            &[0xeb, 0x3c, 0x90]
        },
    );
    put(3, OEM);
    put(11, &half(SECTOR));
    put(13, &[geometry.cluster_sectors as u8]);
    put(14, &half(geometry.reserved));
    put(16, &[TABLES as u8]);
    put(21, &[MEDIA]);
    put(24, &TRACK.to_le_bytes());
    put(26, &HEADS.to_le_bytes());
    put(28, &volume.hidden_sectors.to_le_bytes());
    if !fat32 {
        put(17, &half(ROOT_ENTRIES));
        put(22, &half(geometry.table));
    }
    if !fat32 && geometry.sectors <= u64::from(u16::MAX) {
        put(19, &half(geometry.sectors));
    } else {
        put(32, &word(geometry.sectors));
    }
    let extended = if fat32 {
        put(36, &word(geometry.table));
        put(44, &FIRST_CLUSTER.to_le_bytes());
        put(48, &FS_INFO.to_le_bytes());
        put(50, &BACKUP.to_le_bytes());
        64
    } else {
        36
    };
    put(extended, &[DRIVE, 0, EXTENDED]);
    put(extended + 3, &volume.serial.to_le_bytes());
    put(extended + 7, &layout.label);
    put(extended + 18, if fat32 { b"FAT32   " } else { b"FAT16   " });
    put(extended + 26, &BOOT_CODE);
    put(510, &[0x55, 0xaa]);
    bytes
}

fn fs_info(layout: &FatLayout) -> [u8; SECTOR as usize] {
    let end = layout.geometry.clusters + FIRST_CLUSTER;
    let next = if layout.next < end { layout.next } else { u32::MAX };
    let mut bytes = [0; SECTOR as usize];
    for (at, value) in [
        (0, 0x4161_5252),
        (484, 0x6141_7272),
        (488, end - layout.next),
        (492, next),
        (508, 0xaa55_0000),
    ] {
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    bytes
}

/// One number for each cluster in use; those behind are zeros already.
fn write_table(layout: &FatLayout, out: &mut impl Write) -> io::Result<()> {
    let kind = layout.volume.kind;
    let mut chunk = Vec::with_capacity(TABLE_CHUNK + 4);
    let mut put = |value: u32| {
        let bytes = value.to_le_bytes();
        chunk.extend(if kind == FatKind::Fat32 {
            &bytes[..]
        } else {
            &bytes[..2]
        });
        if chunk.len() >= TABLE_CHUNK {
            out.write_all(&chunk)?;
            chunk.clear();
        }
        io::Result::Ok(())
    };
    let last = kind.mask();
    // The media's byte, and "unmounted cleanly, no errors".
    put(last & !0xff | u32::from(MEDIA))?;
    put(last)?;
    let chains = layout.nodes.values().map(|n| (n.first, n.clusters));
    for (first, clusters) in [(FIRST_CLUSTER, layout.root_clusters)].into_iter().chain(chains) {
        for cluster in first..first + clusters {
            put(if cluster + 1 == first + clusters {
                last
            } else {
                cluster + 1
            })?;
        }
    }
    out.write_all(&chunk)
}

/// The entries of every directory; the root's under `None`.
fn directories(layout: &FatLayout) -> BTreeMap<Option<RelPath>, Vec<u8>> {
    let entry = |name: &Short, attributes, first, size| entry(layout, name, attributes, first, size);
    let mut found = BTreeMap::from([(None, entry(&layout.label, ATTR_LABEL, 0, 0))]);
    for (path, node) in &layout.nodes {
        let PlacedItem { name, first, .. } = node;
        let parent = path.parent();
        if node.item == FatItem::Directory {
            // The root counts as cluster 0 here, wherever it lies.
            let above = parent.as_ref().and_then(|p| layout.nodes.get(p)).map_or(0, |p| p.first);
            let mut own = entry(b".          ", ATTR_DIRECTORY, *first, 0);
            own.extend(entry(b"..         ", ATTR_DIRECTORY, above, 0));
            found.insert(Some(path.clone()), own);
        }
        let (attributes, size) = match node.item {
            FatItem::Directory => (ATTR_DIRECTORY, 0),
            FatItem::File { size } => (ATTR_ARCHIVE, size),
        };
        let entries = found.entry(parent).or_default();
        entries.extend(name.long_entries());
        entries.extend(entry(&name.short, attributes, *first, size));
    }
    found
}

fn entry(layout: &FatLayout, name: &Short, attributes: u8, first: u32, size: u32) -> Vec<u8> {
    let time = layout.time;
    let [low0, low1, high0, high1] = first.to_le_bytes();
    let mut bytes = name.to_vec();
    bytes.extend([attributes, 0, time.rest]);
    for part in [time.time, time.date, time.date] {
        bytes.extend(part.to_le_bytes());
    }
    bytes.extend([high0, high1]);
    for part in [time.time, time.date] {
        bytes.extend(part.to_le_bytes());
    }
    bytes.extend([low0, low1]);
    bytes.extend(size.to_le_bytes());
    debug_assert_eq!(bytes.len(), ENTRY);
    bytes
}
