//! Reads ISO 9660 that anybody may have made: nothing is trusted, every loop ends, memory does not grow with what a field
//! claims.

use super::{
    FORMAT,
    boot::{self, BootCatalog, BootEntry, BootInfo},
    format::{SECTOR, both16, both32, corrupt, input, le32, long_date, padded, read_sector, short_date},
    rock_ridge::{self, Posix, RockRidge},
};
use crate::{
    image::{ImageError, ReadAt, Window},
    model::RelPath,
};
use std::collections::{BTreeMap, BTreeSet};

/// Where volume descriptors begin, and how many are read.
const FIRST_DESCRIPTOR: u32 = 16;
const MAX_DESCRIPTORS: u32 = 64;
/// Types of volume descriptors.
const BOOT_RECORD: u8 = 0;
const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;
/// Escape sequences of the three levels of Joliet, in a supplementary descriptor at 88.
const JOLIET: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];
/// Length of a directory record without name, and where in the primary descriptor the root's is.
const RECORD: usize = 33;
const ROOT_RECORD: usize = 156;
/// Flags of a directory record.
const DIRECTORY: u8 = 2;
const ASSOCIATED: u8 = 4;
const MULTI_EXTENT: u8 = 128;
/// A larger directory, in bytes, is refused; so is a deeper or larger tree.
const MAX_DIRECTORY: u64 = 16 << 20;
const MAX_DEPTH: usize = 64;
const MAX_ENTRIES: usize = 1 << 20;
const MAX_DIRECTORIES: u64 = 256 << 20;

/// What the primary volume descriptor says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsoVolume {
    /// The label, by which boot loaders and the kernel find the medium.
    pub label: Vec<u8>,
    /// System, volume set, publisher, preparer and application, each without its padding.
    pub system: Vec<u8>,
    /// Volume set.
    pub set: Vec<u8>,
    /// Publisher.
    pub publisher: Vec<u8>,
    /// Who prepared the data.
    pub preparer: Vec<u8>,
    /// The application that wrote it.
    pub application: Vec<u8>,
    /// Bytes of the volume; the image may be longer.
    pub size: u64,
    /// When it was made, in seconds since the Unix epoch.
    pub created: Option<i64>,
    /// When it was changed; GRUB makes its UUID of this.
    pub modified: Option<i64>,
    /// Until when it is valid.
    pub expires: Option<i64>,
    /// Since when it is valid.
    pub effective: Option<i64>,
}

/// What a directory entry stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum IsoKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A device, pipe or socket.
    Special,
}

/// A file or directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsoEntry {
    /// The Rock Ridge name, or the plain one without version: no NUL, no `/`, not `.` or `..`. Empty for the root.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: IsoKind,
    /// Length of its data in bytes.
    pub size: u64,
    /// Where its data begins in the image, in bytes.
    pub start: u64,
    /// Mode and owner, with Rock Ridge.
    pub posix: Option<Posix>,
    /// When it was changed, in seconds since the Unix epoch: the Rock Ridge time, or that of the record.
    pub modified: Option<i64>,
    /// Why its data cannot be read.
    problem: Option<&'static str>,
}

/// An ISO 9660 file system.
#[derive(Debug)]
pub struct Iso<R> {
    image: R,
    volume: IsoVolume,
    root: IsoEntry,
    joliet: bool,
    boot_catalog: Option<u32>,
    /// The block of the primary descriptor.
    descriptor: u32,
    /// Bytes to skip in front of Rock Ridge entries, if there are any.
    rock_ridge: Option<usize>,
}

/// A directory record, its Rock Ridge entries not looked at.
struct Record<'a> {
    name: &'a [u8],
    system_use: &'a [u8],
    start: u64,
    size: u64,
    flags: u8,
    modified: Option<i64>,
    problem: Option<&'static str>,
}

impl<'a> Record<'a> {
    /// `bytes` are the whole record, which lies at `offset`.
    fn parse(bytes: &'a [u8], offset: u64) -> Result<Self, ImageError> {
        let bad = |problem: &str| corrupt(offset, format!("directory record: {problem}"));
        let name_len = usize::from(*bytes.get(32).ok_or_else(|| bad("it is cut short"))?);
        let name = bytes.get(RECORD..RECORD + name_len).filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| bad("the name does not fit in it"))?;
        let block = both32(bytes, 2).ok_or_else(|| bad("the two forms of its extent differ"))?;
        let size = both32(bytes, 10).ok_or_else(|| bad("the two forms of its size differ"))?;
        // A name of even length is followed by a byte of padding.
        let system_use = bytes.get(RECORD + (name_len | 1)..).unwrap_or_default();
        Ok(Self {
            name,
            system_use,
            start: (u64::from(block) + u64::from(bytes[1])) * SECTOR,
            size: u64::from(size),
            flags: bytes[25],
            modified: short_date(&bytes[18..25]),
            problem: (bytes[26] != 0 || bytes[27] != 0).then_some("it is interleaved"),
        })
    }
}

impl<R: ReadAt> Iso<R> {
    /// Reads the volume descriptors. The image must be as long as its primary descriptor says, or longer.
    pub fn open(image: R) -> Result<Self, ImageError> {
        let mut primary = None;
        let (mut joliet, mut boot_catalog) = (false, None);
        let mut ended = false;
        for block in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
            let offset = u64::from(block) * SECTOR;
            let sector = read_sector(&image, offset)?;
            if &sector[1..6] != b"CD001" {
                return Err(corrupt(offset, "there is no volume descriptor"));
            }
            match sector[0] {
                BOOT_RECORD if sector[7..].starts_with(boot::IDENTIFIER) && boot_catalog.is_none() => {
                    boot_catalog = Some(le32(&sector, 0x47));
                }
                PRIMARY if primary.is_none() => primary = Some((block, sector)),
                SUPPLEMENTARY => joliet |= JOLIET.iter().any(|level| sector[88..].starts_with(level)),
                TERMINATOR => {
                    ended = true;
                    break;
                }
                _ => {}
            }
        }
        let (Some((descriptor, sector)), true) = (primary, ended) else {
            let problem = format!("no primary volume descriptor and terminator in {MAX_DESCRIPTORS} descriptors");
            return Err(corrupt(u64::from(FIRST_DESCRIPTOR) * SECTOR, problem));
        };
        let offset = u64::from(descriptor) * SECTOR;
        let bad = |problem: String| corrupt(offset, format!("primary volume descriptor: {problem}"));
        if both16(&sector, 128).map(u64::from) != Some(SECTOR) {
            return Err(bad("logical blocks do not have 2048 bytes".to_owned()));
        }
        let blocks = both32(&sector, 80).ok_or_else(|| bad("the two forms of its size differ".to_owned()))?;
        let size = u64::from(blocks) * SECTOR;
        let actual = image.size().map_err(|e| input(0, e))?;
        if size > actual {
            return Err(bad(format!("it says it has {size} bytes, but the image has {actual}")));
        }
        let volume = IsoVolume {
            system: padded(&sector[8..40]),
            label: padded(&sector[40..72]),
            size,
            set: padded(&sector[190..318]),
            publisher: padded(&sector[318..446]),
            preparer: padded(&sector[446..574]),
            application: padded(&sector[574..702]),
            created: long_date(&sector[813..]),
            modified: long_date(&sector[830..]),
            expires: long_date(&sector[847..]),
            effective: long_date(&sector[864..]),
        };
        let at = offset + ROOT_RECORD as u64;
        let record = Record::parse(&sector[ROOT_RECORD..ROOT_RECORD + RECORD + 1], at)?;
        if record.flags & DIRECTORY == 0 {
            return Err(corrupt(at, "the root is no directory"));
        }
        let mut root = IsoEntry {
            name: Vec::new(),
            kind: IsoKind::Directory,
            size: record.size,
            start: record.start,
            posix: None,
            modified: record.modified,
            problem: record.problem,
        };
        // The root's record of itself says whether there is Rock Ridge, and has the root's own entries.
        let own = read_sector(&image, root.start)?;
        let own = Record::parse(&own[..usize::from(own[0])], root.start)?;
        let rock_ridge = rock_ridge::announced(own.system_use);
        if rock_ridge.is_some() {
            let found = rock_ridge::parse(&image, own.system_use, root.start)?;
            root.posix = found.posix;
            root.modified = found.modified.or(root.modified);
        }
        Ok(Self {
            image,
            volume,
            root,
            joliet,
            boot_catalog,
            descriptor,
            rock_ridge,
        })
    }

    /// What the primary volume descriptor says.
    pub fn volume(&self) -> &IsoVolume {
        &self.volume
    }
    /// Whether names, modes and links are those of Rock Ridge.
    pub fn has_rock_ridge(&self) -> bool {
        self.rock_ridge.is_some()
    }
    /// Whether there is a second tree with Joliet names. It is not read.
    pub fn has_joliet(&self) -> bool {
        self.joliet
    }
    /// The root directory.
    pub fn root(&self) -> &IsoEntry {
        &self.root
    }

    /// What a directory holds, sorted by name.
    pub fn read_dir(&self, directory: &IsoEntry) -> Result<Vec<IsoEntry>, ImageError> {
        let bad = |problem: String| corrupt(directory.start, format!("directory: {problem}"));
        if directory.kind != IsoKind::Directory {
            return Err(bad("it is none".to_owned()));
        }
        if let Some(problem) = directory.problem {
            return Err(bad(format!("{problem}, which is not read here")));
        }
        if directory.size > MAX_DIRECTORY {
            return Err(bad(format!("it has {} bytes", directory.size)));
        }
        let mut found = BTreeMap::new();
        // A file of which more extents follow.
        let mut open: Option<IsoEntry> = None;
        for sector_start in (0..directory.size).step_by(SECTOR as usize) {
            let offset = directory.start + sector_start;
            let sector = read_sector(&self.image, offset)?;
            let mut at = 0;
            // A length of 0 ends the sector.
            while let Some(len) = sector.get(at).map(|len| usize::from(*len)).filter(|len| *len > 0) {
                let here = offset + at as u64;
                let bytes = sector.get(at..at + len);
                let bytes = bytes.ok_or_else(|| corrupt(here, "directory record: it crosses a sector"))?;
                at += len;
                let record = Record::parse(bytes, here)?;
                // The directory itself and its parent; and associated files, which are not asked for.
                if matches!(record.name, [0 | 1]) || record.flags & ASSOCIATED != 0 {
                    continue;
                }
                let mut entry = self.entry(&record, here)?;
                if let Some(mut first) = open.take() {
                    first.extend(&entry, here)?;
                    entry = first;
                }
                if record.flags & MULTI_EXTENT != 0 {
                    open = Some(entry);
                    continue;
                }
                let name = entry.name.clone();
                if let Some(twice) = found.insert(name, entry) {
                    return Err(bad(format!("\"{}\" is there twice", twice.name.escape_ascii())));
                }
            }
        }
        if open.is_some() {
            return Err(bad("the last extent of a file is missing".to_owned()));
        }
        Ok(found.into_values().collect())
    }

    fn entry(&self, record: &Record<'_>, offset: u64) -> Result<IsoEntry, ImageError> {
        let found = match self.rock_ridge {
            Some(skip) => {
                let area = record.system_use.get(skip..).unwrap_or_default();
                rock_ridge::parse(&self.image, area, offset)?
            }
            None => RockRidge::default(),
        };
        let name = found.name.unwrap_or_else(|| plain_name(record.name).to_vec());
        if matches!(&name[..], b"" | b"." | b"..") || name.iter().any(|b| matches!(b, 0 | b'/')) {
            return Err(corrupt(offset, format!("bad name \"{}\"", name.escape_ascii())));
        }
        let directory = record.flags & DIRECTORY != 0;
        let kind = match (found.posix.map(|p| p.mode & 0o170_000), found.target) {
            (None | Some(0o120_000), Some(target)) if !directory => IsoKind::Symlink(target),
            (None | Some(0o100_000), None) if !directory => IsoKind::File,
            (None | Some(0o040_000), None) if directory => IsoKind::Directory,
            // A directory that was moved is a file where it was.
            (Some(0o040_000), None) if found.problem.is_some() => IsoKind::Directory,
            (Some(0o010_000 | 0o020_000 | 0o060_000 | 0o140_000), None) if !directory => IsoKind::Special,
            _ => {
                let problem = format!("\"{}\" is of two kinds", name.escape_ascii());
                return Err(corrupt(offset, problem));
            }
        };
        Ok(IsoEntry {
            name,
            kind,
            size: record.size,
            start: record.start,
            posix: found.posix,
            modified: found.modified.or(record.modified),
            problem: found.problem.or(record.problem),
        })
    }

    /// What is at `path`, through directories only; `None` when nothing is there. Plain names are as they stand in the image,
    /// mostly in upper case.
    pub fn lookup(&self, path: &RelPath) -> Result<Option<IsoEntry>, ImageError> {
        let mut found = self.root.clone();
        for component in path.components() {
            if found.kind != IsoKind::Directory {
                return Ok(None);
            }
            let mut entries = self.read_dir(&found)?;
            let Ok(index) = entries.binary_search_by(|e| e.name.as_slice().cmp(component)) else {
                return Ok(None);
            };
            found = entries.swap_remove(index);
        }
        Ok(Some(found))
    }

    /// All there is, by path. Directories that are there twice, more than 64 levels, more than 2^20 entries and more than
    /// 256 MiB of directories are refused.
    pub fn tree(&self) -> Result<BTreeMap<RelPath, IsoEntry>, ImageError> {
        let mut tree = BTreeMap::new();
        let mut seen = BTreeSet::from([self.root.start]);
        let mut open = vec![(None, self.root.clone())];
        let mut left = MAX_DIRECTORIES;
        while let Some((path, directory)) = open.pop() {
            left = left
                .checked_sub(directory.size)
                .ok_or_else(|| corrupt(directory.start, "its directories are too large"))?;
            for entry in self.read_dir(&directory)? {
                let failed = |source| ImageError::Tree { format: FORMAT, source };
                let name = RelPath::new(&entry.name).map_err(failed)?;
                let child = path
                    .as_ref()
                    .map_or_else(|| name.clone(), |path: &RelPath| path.join(&name));
                let bad = |problem: &str| corrupt(entry.start, format!("{child}: {problem}"));
                if entry.kind == IsoKind::Directory {
                    if let Some(problem) = entry.problem {
                        return Err(bad(&format!("{problem}, which is not read here")));
                    }
                    if !seen.insert(entry.start) {
                        return Err(bad("the directory is there twice"));
                    }
                    if child.depth() >= MAX_DEPTH {
                        return Err(bad("the tree is too deep"));
                    }
                    open.push((Some(child.clone()), entry.clone()));
                }
                if tree.len() == MAX_ENTRIES {
                    return Err(bad("the tree is too large"));
                }
                tree.insert(child, entry);
            }
        }
        Ok(tree)
    }

    /// The data of a regular file.
    pub fn file(&self, entry: &IsoEntry) -> Result<Window<&R>, ImageError> {
        let bad = |problem: &str| corrupt(entry.start, format!("\"{}\": {problem}", entry.name.escape_ascii()));
        if entry.kind != IsoKind::File {
            return Err(bad("it is no regular file"));
        }
        if let Some(problem) = entry.problem {
            return Err(bad(&format!("{problem}, which is not read here")));
        }
        // An empty file has no place.
        let start = if entry.size == 0 { 0 } else { entry.start };
        Window::new(&self.image, start, entry.size).map_err(|_| bad("its data goes past the end of the image"))
    }

    /// The boot catalog; `None` without El Torito.
    pub fn boot_catalog(&self) -> Result<Option<BootCatalog>, ImageError> {
        self.boot_catalog.map(|lba| boot::catalog(&self.image, lba)).transpose()
    }

    /// What firmware loads for `entry`.
    pub fn boot_image(&self, entry: &BootEntry) -> Result<Window<&R>, ImageError> {
        let window = Window::new(&self.image, entry.start(), entry.load_bytes());
        window.map_err(|_| corrupt(entry.start(), "a boot image goes past the end of the image"))
    }

    /// The boot info table in the image of `entry`; `None` when it has none.
    pub fn boot_info(&self, entry: &BootEntry) -> Result<Option<BootInfo>, ImageError> {
        boot::info(&self.image, entry, self.descriptor)
    }
}

impl IsoEntry {
    /// Takes the next extent of the same file. Only extents that follow each other are read.
    fn extend(&mut self, next: &IsoEntry, offset: u64) -> Result<(), ImageError> {
        if next.name != self.name || next.kind != IsoKind::File || self.kind != IsoKind::File {
            let problem = format!("the next extent of \"{}\" is missing", self.name.escape_ascii());
            return Err(corrupt(offset, problem));
        }
        if next.start != self.start + self.size {
            self.problem = Some("its extents do not follow each other");
        }
        self.size += next.size;
        Ok(())
    }
}

/// A name without its version (`;1`) and without the dot that ends one that has no extension.
fn plain_name(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|b| *b == b';').unwrap_or(name.len());
    let name = &name[..end];
    name.strip_suffix(b".").unwrap_or(name)
}
