//! Reads an image of unknown origin: nothing is trusted, every loop ends, and memory does not grow with a field's claim.

use super::{
    IsoVolume,
    boot::{self, BootCatalog, BootEntry, BootInfo},
    descriptor::Descriptors,
    format::{FORMAT, SECTOR, corrupt, input, read_sector},
    record::{ASSOCIATED, DIRECTORY, DirectoryRecord, MULTI_EXTENT},
    rock_ridge::{self, Posix, RockRidge},
};
use crate::{
    image::{ImageError, ReadAt, Window},
    model::RelPath,
};
use std::collections::{BTreeMap, BTreeSet};

/// Limits, beyond which an image is refused: bytes of a directory, levels, entries, bytes of all directories.
const MAX_DIRECTORY: u64 = 16 << 20;
const MAX_DEPTH: usize = 64;
const MAX_ENTRIES: usize = 200_000;
const MAX_DIRECTORIES: u64 = 256 << 20;

/// Bytes of the paths of all entries.
const MAX_PATHS: usize = 64 << 20;
/// Errors above this number are not kept.
const MAX_DAMAGE: usize = 16;

/// Receives the errors of entries, and decides whether reading goes on.
type Damage<'a> = dyn FnMut(ImageError) -> Result<(), ImageError> + 'a;

/// Type of a file.
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

/// The origin of the names that are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IsoNames {
    /// Names of POSIX, in the tree of the primary descriptor.
    RockRidge,
    /// Unicode names, in a tree of their own.
    Joliet,
    /// Names of ISO 9660, mostly in upper case and cut.
    Plain,
}

/// A file or a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsoEntry {
    /// The Rock Ridge name, or else the Joliet name, or else the ISO 9660 name, both without version: no NUL, no `/`, not `.` or `..`.
    /// Empty for the root.
    pub name: Vec<u8>,
    /// Type of the file.
    pub kind: IsoKind,
    /// Length of the data in bytes.
    pub size: u64,
    /// Offset of the data in the image, in bytes.
    pub start: u64,
    /// Mode and owner, with Rock Ridge.
    pub posix: Option<Posix>,
    /// Time of the last change, in seconds since the Unix epoch: the Rock Ridge time, or else that of the record.
    pub modified: Option<i64>,
    /// The reason why the data cannot be read, if it cannot.
    problem: Option<&'static str>,
}

/// An ISO 9660 file system.
#[derive(Debug)]
pub struct Iso<R> {
    image: R,
    volume: IsoVolume,
    root: IsoEntry,
    /// Offset of the root in the tree of the primary descriptor.
    volume_root: u64,
    joliet: bool,
    names: IsoNames,
    udf: Option<&'static str>,
    path_tables: Vec<(&'static str, u64, u64)>,
    boot_catalog: Option<u32>,
    /// The block of the primary descriptor.
    descriptor: u32,
    /// Bytes to skip in front of the Rock Ridge entries of a record; `None` without Rock Ridge.
    rock_ridge: Option<usize>,
}

impl<R: ReadAt> Iso<R> {
    /// Reads the volume descriptors. The image must be at least as long as its primary descriptor states.
    pub fn open(image: R) -> Result<Self, ImageError> {
        match Self::open_cut(image)? {
            (iso, None) => Ok(iso),
            (_, Some(error)) => Err(error),
        }
    }

    /// Like [`Iso::open`] for an image that may be cut off, which is the second value.
    pub fn open_cut(image: R) -> Result<(Self, Option<ImageError>), ImageError> {
        let found = Descriptors::read(&image)?;
        let (volume, record) = found.primary()?;
        let cut = found.cut(&volume, image.size().map_err(|e| input(0, e))?);
        let mut root = IsoEntry {
            name: Vec::new(),
            kind: IsoKind::Directory,
            size: record.size,
            start: record.start,
            posix: None,
            modified: record.modified,
            problem: record.problem,
        };
        // The first record of the root directory stands for the root itself. It announces Rock Ridge and carries the root's own
        // Rock Ridge entries.
        let own = read_sector(&image, root.start)?;
        let own = DirectoryRecord::parse(&own[..usize::from(own[0])], root.start)?;
        let rock_ridge = rock_ridge::announced(own.system_use);
        if rock_ridge.is_some() {
            let found = rock_ridge::parse(&image, own.system_use, root.start)?;
            root.posix = found.posix;
            root.modified = found.modified.or(root.modified);
        }
        // As the kernel does, Joliet names are taken where there are no Rock Ridge names.
        let mut names = match rock_ridge {
            Some(_) => IsoNames::RockRidge,
            None => IsoNames::Plain,
        };
        if let Some(record) = found.joliet_root()?.filter(|_| rock_ridge.is_none()) {
            names = IsoNames::Joliet;
            (root.start, root.size, root.problem) = (record.start, record.size, record.problem);
        }
        let iso = Self {
            volume,
            volume_root: record.start,
            root,
            joliet: found.has_joliet(),
            names,
            udf: found.udf,
            path_tables: found.path_tables(),
            boot_catalog: found.boot_catalog,
            descriptor: found.block,
            rock_ridge,
            image,
        };
        Ok((iso, cut))
    }

    /// The fields of the primary volume descriptor.
    pub fn volume(&self) -> &IsoVolume {
        &self.volume
    }
    /// Whether names, modes and links come from Rock Ridge.
    pub fn has_rock_ridge(&self) -> bool {
        self.rock_ridge.is_some()
    }
    /// Whether the image has a second tree with Joliet names. It is read if there are no Rock Ridge names.
    pub fn has_joliet(&self) -> bool {
        self.joliet
    }
    /// The origin of the names of entries.
    pub fn names(&self) -> IsoNames {
        self.names
    }
    /// The identifier with which a UDF file system beside this one announces itself; that is not read.
    pub fn udf(&self) -> Option<&'static str> {
        self.udf
    }
    /// The path tables: name, offset and length in bytes. They repeat the directories, and are not read.
    pub fn path_tables(&self) -> &[(&'static str, u64, u64)] {
        &self.path_tables
    }
    /// Offset of the root directory in the tree of the primary descriptor, also where Joliet's is read.
    pub fn volume_root(&self) -> u64 {
        self.volume_root
    }
    /// The root directory.
    pub fn root(&self) -> &IsoEntry {
        &self.root
    }

    /// The entries of a directory, sorted by name.
    pub fn read_dir(&self, directory: &IsoEntry) -> Result<Vec<IsoEntry>, ImageError> {
        let mut entries = Vec::new();
        self.visit_dir(directory, &mut entries, &mut Err)?;
        Ok(entries)
    }

    /// Adds the entries of a directory to `out`, sorted by name. A damaged record is left out if `damage` accepts its error.
    fn visit_dir(
        &self,
        directory: &IsoEntry,
        out: &mut Vec<IsoEntry>,
        damage: &mut Damage<'_>,
    ) -> Result<(), ImageError> {
        let bad = |problem: String| corrupt(directory.start, format!("directory: {problem}"));
        if directory.kind != IsoKind::Directory {
            return Err(bad("it is not a directory".to_owned()));
        }
        if let Some(problem) = directory.problem {
            return Err(bad(format!("{problem}, which is not supported")));
        }
        if directory.size > MAX_DIRECTORY {
            return Err(bad(format!(
                "it has {} bytes, more than {MAX_DIRECTORY}",
                directory.size
            )));
        }
        let mut found = BTreeMap::new();
        // A file whose next extent is in the next record.
        let mut open: Option<IsoEntry> = None;
        for sector_start in (0..directory.size).step_by(SECTOR as usize) {
            let offset = directory.start + sector_start;
            let sector = match read_sector(&self.image, offset) {
                Ok(sector) => sector,
                Err(error) => {
                    damage(error)?;
                    break;
                }
            };
            let mut at = 0;
            // A record of length 0 ends the sector.
            while let Some(len) = sector.get(at).map(|len| usize::from(*len)).filter(|len| *len > 0) {
                let here = offset + at as u64;
                let Some(bytes) = sector.get(at..at + len) else {
                    damage(corrupt(here, "directory record: it crosses a sector"))?;
                    break;
                };
                at += len;
                match self.record(bytes, here, &mut open) {
                    Ok(None) => {}
                    Ok(Some(entry)) => {
                        if let Some(twice) = found.insert(entry.name.clone(), entry) {
                            damage(bad(format!(
                                "two entries have the name \"{}\"",
                                twice.name.escape_ascii()
                            )))?;
                        }
                    }
                    Err(error) => damage(error)?,
                }
            }
        }
        if open.is_some() {
            damage(bad("the last extent of a file is missing".to_owned()))?;
        }
        out.extend(found.into_values());
        Ok(())
    }

    /// The entry of the record in `bytes`, which lies at `offset`; `None` when it is not shown or its next extent follows, in `open`.
    fn record(&self, bytes: &[u8], offset: u64, open: &mut Option<IsoEntry>) -> Result<Option<IsoEntry>, ImageError> {
        let record = DirectoryRecord::parse(bytes, offset)?;
        // The names 0 and 1 stand for the directory itself and its parent. Associated files are not part of the tree.
        if matches!(record.name, [0 | 1]) || record.flags & ASSOCIATED != 0 {
            return Ok(None);
        }
        let Some(mut entry) = self.entry(&record, offset)? else {
            return Ok(None);
        };
        if let Some(mut first) = open.take() {
            first.extend(&entry, offset)?;
            entry = first;
        }
        if record.flags & MULTI_EXTENT != 0 {
            *open = Some(entry);
            return Ok(None);
        }
        Ok(Some(entry))
    }

    /// The entry of a record; `None` for the record of a directory at the place to which it was moved.
    fn entry(&self, record: &DirectoryRecord<'_>, offset: u64) -> Result<Option<IsoEntry>, ImageError> {
        let found = match self.rock_ridge {
            Some(skip) => {
                let area = record.system_use.get(skip..).unwrap_or_default();
                rock_ridge::parse(&self.image, area, offset)?
            }
            None => RockRidge::default(),
        };
        let name = found.name.unwrap_or_else(|| match self.names {
            IsoNames::Joliet => joliet_name(record.name),
            IsoNames::RockRidge | IsoNames::Plain => plain_name(record.name).to_vec(),
        });
        if matches!(&name[..], b"" | b"." | b"..") || name.iter().any(|b| matches!(b, 0 | b'/')) {
            return Err(corrupt(
                offset,
                format!("\"{}\" is not a valid name", name.escape_ascii()),
            ));
        }
        if found.moved {
            return Ok(None);
        }
        let directory = record.flags & DIRECTORY != 0;
        if let Some(block) = found.moved_to {
            // A directory that Rock Ridge moved because of its depth is recorded as a file at its original place. The first record of a
            // directory stands for the directory itself, with its size.
            let start = u64::from(block) * SECTOR;
            let own = read_sector(&self.image, start)?;
            let own = DirectoryRecord::parse(&own[..usize::from(own[0])], start)?;
            return Ok(Some(IsoEntry {
                name,
                kind: IsoKind::Directory,
                size: own.size,
                start,
                posix: found.posix,
                modified: found.modified.or(record.modified),
                problem: own.problem,
            }));
        }
        let kind = match (found.posix.map(|p| p.mode & 0o170_000), found.target) {
            (None | Some(0o120_000), Some(target)) if !directory => IsoKind::Symlink(target),
            (None | Some(0o100_000), None) if !directory => IsoKind::File,
            (None | Some(0o040_000), None) if directory => IsoKind::Directory,
            (Some(0o010_000 | 0o020_000 | 0o060_000 | 0o140_000), None) if !directory => IsoKind::Special,
            _ => {
                let problem = format!(
                    "the record and Rock Ridge disagree on the type of \"{}\"",
                    name.escape_ascii()
                );
                return Err(corrupt(offset, problem));
            }
        };
        Ok(Some(IsoEntry {
            name,
            kind,
            size: record.size,
            start: record.start,
            posix: found.posix,
            modified: found.modified.or(record.modified),
            problem: found.problem.or(record.problem),
        }))
    }

    /// The entry at `path`; `None` when there is none. Symbolic links are not followed. ISO 9660 names are compared as they are
    /// stored, mostly in upper case.
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

    /// Every entry by its path. A directory that is reached twice, more than 64 levels, more than 200,000 entries and more than 256 MiB
    /// of directories are errors.
    pub fn tree(&self) -> Result<BTreeMap<RelPath, IsoEntry>, ImageError> {
        self.walk(&mut Err)
    }

    /// Every entry that can be read, by its path, and the damage because of which others are missing.
    pub fn tree_and_damage(&self) -> (BTreeMap<RelPath, IsoEntry>, Vec<ImageError>) {
        let mut found = Vec::new();
        let tree = self.walk(&mut |error| {
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

    fn walk(&self, damage: &mut Damage<'_>) -> Result<BTreeMap<RelPath, IsoEntry>, ImageError> {
        let mut tree = BTreeMap::new();
        let mut seen = BTreeSet::from([self.root.start]);
        let mut open = vec![(None, self.root.clone())];
        let (mut left, mut paths) = (MAX_DIRECTORIES, 0);
        while let Some((path, directory)) = open.pop() {
            let Some(rest) = left.checked_sub(directory.size) else {
                damage(corrupt(
                    directory.start,
                    "the directories of the image have more than 256 MiB",
                ))?;
                break;
            };
            left = rest;
            let mut entries = Vec::new();
            if let Err(error) = self.visit_dir(&directory, &mut entries, damage) {
                damage(error)?;
            }
            for entry in entries {
                let name = match RelPath::new(&entry.name) {
                    Ok(name) => name,
                    Err(source) => {
                        damage(ImageError::Tree { format: FORMAT, source })?;
                        continue;
                    }
                };
                let child = path
                    .as_ref()
                    .map_or_else(|| name.clone(), |path: &RelPath| path.join(&name));
                let bad = |problem: &str| corrupt(entry.start, format!("{child}: {problem}"));
                if entry.kind == IsoKind::Directory {
                    let problem = match entry.problem {
                        Some(problem) => Some(format!("{problem}, which is not supported")),
                        None if !seen.insert(entry.start) => Some("the directory is reached twice".to_owned()),
                        None if child.depth() >= MAX_DEPTH => Some("the tree has more than 64 levels".to_owned()),
                        None => None,
                    };
                    match problem {
                        Some(problem) => damage(bad(&problem))?,
                        None => open.push((Some(child.clone()), entry.clone())),
                    }
                }
                paths += child.as_bytes().len();
                if let IsoKind::Symlink(target) = &entry.kind {
                    paths += target.len();
                }
                if tree.len() == MAX_ENTRIES || paths > MAX_PATHS {
                    let problem = format!("the tree has more than {MAX_ENTRIES} entries or {MAX_PATHS} bytes of paths");
                    damage(bad(&problem))?;
                    return Ok(tree);
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
            return Err(bad("it is not a regular file"));
        }
        if let Some(problem) = entry.problem {
            return Err(bad(&format!("{problem}, which is not supported")));
        }
        // The extent of an empty file may be anywhere.
        let start = if entry.size == 0 { 0 } else { entry.start };
        Window::new(&self.image, start, entry.size).map_err(|_| bad("its extent goes past the end of the image"))
    }

    /// The boot catalog; `None` without El Torito.
    pub fn boot_catalog(&self) -> Result<Option<BootCatalog>, ImageError> {
        self.boot_catalog.map(|lba| boot::catalog(&self.image, lba)).transpose()
    }

    /// The boot image that firmware loads for `entry`.
    pub fn boot_image(&self, entry: &BootEntry) -> Result<Window<&R>, ImageError> {
        let window = Window::new(&self.image, entry.start(), entry.load_bytes());
        window.map_err(|_| corrupt(entry.start(), "a boot image goes past the end of the image"))
    }

    /// The boot info table in the boot image of `entry`; `None` without one.
    pub fn boot_info(&self, entry: &BootEntry) -> Result<Option<BootInfo>, ImageError> {
        boot::info(&self.image, entry, self.descriptor)
    }
}

impl IsoEntry {
    /// Whether the extent holds the data in compressed form (zisofs).
    pub fn is_compressed(&self) -> bool {
        self.problem == Some(rock_ridge::COMPRESSED)
    }

    /// The reason why the data cannot be read from the extent as they are, if they cannot.
    pub fn problem(&self) -> Option<&'static str> {
        self.problem
    }

    /// Adds the next extent of the same file. Only adjacent extents can be read.
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

/// A name in big-endian UTF-16, without its version (`;1`) and without dots at its end, which the kernel drops too.
fn joliet_name(name: &[u8]) -> Vec<u8> {
    let units = name.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    let name = text.strip_suffix(";1").unwrap_or(&text);
    let trimmed = name.trim_end_matches('.');
    let name = if trimmed.is_empty() { name } else { trimmed };
    name.as_bytes().to_vec()
}

/// A name without its version (`;1`), and without the final dot of a name without extension.
fn plain_name(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|b| *b == b';').unwrap_or(name.len());
    let name = &name[..end];
    name.strip_suffix(b".").unwrap_or(name)
}
