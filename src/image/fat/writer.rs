//! Writes a volume that is laid out: boot sectors, tables, directories and files, without the zeros.

use super::{
    FatKind,
    format::{
        ATTR_ARCHIVE, ATTR_DIRECTORY, ATTR_LABEL, BOOT_SIGNATURE, BOOT_SIGNATURE_AT, BOOT_SIZE, BPB_BK_BOOT_SEC,
        BPB_BYTS_PER_SEC, BPB_FAT_SZ16, BPB_FAT_SZ32, BPB_FS_INFO, BPB_HIDD_SEC, BPB_MEDIA, BPB_NUM_FATS,
        BPB_NUM_HEADS, BPB_ROOT_CLUS, BPB_ROOT_ENT_CNT, BPB_RSVD_SEC_CNT, BPB_SEC_PER_CLUS, BPB_SEC_PER_TRK,
        BPB_TOT_SEC16, BPB_TOT_SEC32, BS_BOOT_CODE, BS_BOOT_SIG, BS_DRV_NUM, BS_FIL_SYS_TYPE, BS_JMP_BOOT, BS_OEM_NAME,
        BS_VOL_ID, BS_VOL_LAB, ENTRY, EXTENDED_BOOT_SIGNATURE, EXTENDED_FAT16, EXTENDED_FAT32, FIRST_CLUSTER, FORMAT,
        FSI_FREE_COUNT, FSI_NXT_FREE, FSI_SIGNATURES, TABLES,
    },
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

/// `BS_OEMName` that the specification recommends: some programs accept no other.
const OEM: &[u8; 8] = b"MSWIN4.1";
/// `BS_jmpBoot`: a short jump to the boot code, and `nop`.
const JUMP_FAT16: [u8; 3] = [0xeb, (EXTENDED_FAT16 + BS_BOOT_CODE - 2) as u8, 0x90];
const JUMP_FAT32: [u8; 3] = [0xeb, (EXTENDED_FAT32 + BS_BOOT_CODE - 2) as u8, 0x90];
/// `int 18h`, which tells a BIOS that this volume cannot be booted; then an endless halt.
const BOOT_CODE: [u8; 5] = [0xcd, 0x18, 0xf4, 0xeb, 0xfd];
/// `BPB_Media` and `BS_DrvNum` of a fixed disk.
const MEDIA: u8 = 0xf8;
const DRIVE: u8 = 0x80;
/// `BPB_SecPerTrk` and `BPB_NumHeads`, for programs that want a geometry.
const TRACK: u16 = 63;
const HEADS: u16 = 255;
/// `BPB_FSInfo` and `BPB_BkBootSec`: sectors of FSInfo and of the boot sector's copy.
const FS_INFO: u16 = 1;
const BACKUP: u16 = 6;
/// A block of zeros that begins at a multiple of its size is not written; bytes.
const HOLE: u64 = 4096;
/// Bytes of a table that are encoded before they are written.
const TABLE_CHUNK: usize = 64 * 1024;

/// A volume that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FatSummary {
    /// Its length in bytes.
    pub size: u64,
    /// Offset in the volume and length of each file that is not empty.
    pub extents: BTreeMap<RelPath, (u64, u64)>,
}

/// Writes the volume of `layout` from byte `at` of `out` on. The range must read as zeros, like a file that was extended to its
/// final length: zeros are not written, also not at the end. `open` gives the content of the file at a path.
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
            Sparse::new(out, at + u64::from(sector) * geometry.sector)
                .write_all(bytes)
                .map_err(failed)?;
        }
    }
    for table in 0..TABLES {
        let offset = (geometry.reserved + table * geometry.table) * geometry.sector;
        write_table(layout, &mut Sparse::new(out, at + offset)).map_err(failed)?;
    }
    // The root directory lies behind the tables, also on FAT32, where it is the first cluster.
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

/// A writer that leaves a hole in place of each block of zeros.
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

fn boot_sector(layout: &FatLayout) -> [u8; BOOT_SIZE] {
    let (volume, geometry) = (&layout.volume, &layout.geometry);
    let fat32 = volume.kind == FatKind::Fat32;
    let mut bytes = [0; BOOT_SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    // The geometry has checked that each number fits its field.
    let half = |value: u64| (value as u16).to_le_bytes();
    let word = |value: u64| (value as u32).to_le_bytes();
    put(BS_JMP_BOOT, if fat32 { &JUMP_FAT32 } else { &JUMP_FAT16 });
    put(BS_OEM_NAME, OEM);
    put(BPB_BYTS_PER_SEC, &half(geometry.sector));
    put(BPB_SEC_PER_CLUS, &[geometry.cluster_sectors as u8]);
    put(BPB_RSVD_SEC_CNT, &half(geometry.reserved));
    put(BPB_NUM_FATS, &[TABLES as u8]);
    put(BPB_MEDIA, &[MEDIA]);
    put(BPB_SEC_PER_TRK, &TRACK.to_le_bytes());
    put(BPB_NUM_HEADS, &HEADS.to_le_bytes());
    put(BPB_HIDD_SEC, &volume.hidden_sectors.to_le_bytes());
    // A number that does not fit 16 bits has a second field, and the first is 0; FAT32 always uses the second.
    if !fat32 && geometry.sectors <= u64::from(u16::MAX) {
        put(BPB_TOT_SEC16, &half(geometry.sectors));
    } else {
        put(BPB_TOT_SEC32, &word(geometry.sectors));
    }
    let extended = if fat32 {
        put(BPB_FAT_SZ32, &word(geometry.table));
        put(BPB_ROOT_CLUS, &FIRST_CLUSTER.to_le_bytes());
        put(BPB_FS_INFO, &FS_INFO.to_le_bytes());
        put(BPB_BK_BOOT_SEC, &BACKUP.to_le_bytes());
        EXTENDED_FAT32
    } else {
        put(BPB_ROOT_ENT_CNT, &half(ROOT_ENTRIES));
        put(BPB_FAT_SZ16, &half(geometry.table));
        EXTENDED_FAT16
    };
    put(extended + BS_DRV_NUM, &[DRIVE]);
    put(extended + BS_BOOT_SIG, &[EXTENDED_BOOT_SIGNATURE]);
    put(extended + BS_VOL_ID, &volume.serial.to_le_bytes());
    put(extended + BS_VOL_LAB, &layout.label);
    put(
        extended + BS_FIL_SYS_TYPE,
        if fat32 { b"FAT32   " } else { b"FAT16   " },
    );
    put(extended + BS_BOOT_CODE, &BOOT_CODE);
    put(BOOT_SIGNATURE_AT, &BOOT_SIGNATURE);
    bytes
}

fn fs_info(layout: &FatLayout) -> [u8; BOOT_SIZE] {
    let end = layout.geometry.clusters + FIRST_CLUSTER;
    let next = if layout.next < end { layout.next } else { u32::MAX };
    let mut bytes = [0; BOOT_SIZE];
    let counts = [(FSI_FREE_COUNT, end - layout.next), (FSI_NXT_FREE, next)];
    for (at, value) in FSI_SIGNATURES.into_iter().chain(counts) {
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    bytes
}

/// Writes one number for each cluster in use; the numbers of free clusters are zeros.
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
    // The first number repeats `BPB_Media`; the second says "unmounted cleanly, no errors".
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
            // ".." of a directory in the root has cluster 0, also on FAT32, where the root begins at another cluster.
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
