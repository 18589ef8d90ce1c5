//! A part of an artifact: bytes with a name and a place. Its format is found on demand.

use super::{detect, error::InspectError};
use crate::{
    image::{ReadAt, ReadCursor, Source},
    model::Sha256Digest,
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// Named facts about a part, such as a label or a time.
pub type Fields = BTreeMap<String, String>;

/// A directory of the host with more files is refused.
const MAX_ENTRIES: usize = 100_000;
/// Files of the host above this size stay open after the first read, bytes.
const KEEP_OPEN: u64 = 1 << 20;

/// Kind of a part within its holder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartKind {
    /// A file.
    File,
    /// A directory; its bytes, if it has any, are its entries as stored.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Special,
    /// A partition of a disk.
    Partition,
    /// One of several pieces of a file, e.g. an archive of an initramfs.
    Segment,
    /// The content of a compressed stream or of a virtual disk.
    Content,
    /// A structure of the format itself, e.g. a table.
    Region,
}

impl PartKind {
    /// The name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            PartKind::File => "file",
            PartKind::Directory => "directory",
            PartKind::Symlink => "symlink",
            PartKind::Special => "special",
            PartKind::Partition => "partition",
            PartKind::Segment => "segment",
            PartKind::Content => "content",
            PartKind::Region => "region",
        }
    }
}

/// A run of a part's bytes, and its place in the holder of the part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PartExtent {
    /// Offset in the part.
    pub(super) at: u64,
    /// Offset in the holder.
    pub(super) from: u64,
    /// Length in bytes.
    pub(super) len: u64,
}

/// A directory for unlinked files with the content of compressed streams.
#[derive(Clone, Debug)]
pub struct SpoolDirectory {
    dir: PathBuf,
}

impl SpoolDirectory {
    /// Uses the existing directory `dir`; no file remains in it.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// A file without a name.
    pub(super) fn file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.dir)
    }
}

/// A part of an artifact.
#[derive(Clone)]
pub struct Part {
    /// Name, unique within the holder.
    pub name: String,
    /// Kind within the holder.
    pub kind: PartKind,
    /// Offset of the first byte in the holder; 0 when the bytes are not stored as they are.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Facts from the holder.
    pub fields: Fields,
    /// Key by which a comparison matches the part: its name, or a part of the name.
    pub(super) key: String,
    pub(super) source: Source,
    /// Place of the bytes in the holder; of a `derived` part, of the bytes from which it is made.
    pub(super) extents: Vec<PartExtent>,
    /// Whether the bytes are made from the holder's, e.g. decompressed, instead of being a range of them.
    pub(super) derived: bool,
    /// Ranges of the holder that describe the part: a header, an inode.
    pub(super) about: Vec<PartExtent>,
}

/// The findings in a part's bytes.
#[derive(Clone, Default)]
pub struct Look {
    /// Format, e.g. `ext4`; `data` when it is unknown.
    pub format: &'static str,
    /// Facts from the bytes themselves.
    pub fields: Fields,
    /// The parts inside.
    pub children: Vec<Part>,
    /// The damaged or unsupported structure because of which the findings are incomplete.
    pub problem: Option<String>,
}

impl Part {
    /// A part whose bytes are `len` bytes of `holder` from `from` on.
    pub(super) fn slice(name: impl Into<String>, kind: PartKind, holder: &Source, from: u64, len: u64) -> Self {
        let extents = if len == 0 {
            Vec::new()
        } else {
            vec![PartExtent { at: 0, from, len }]
        };
        Self::scattered(name, kind, holder, extents, len)
    }

    /// A part of `size` bytes, placed in `holder` by `extents`, which are sorted by `at`; a range without an extent reads as zeros.
    pub(super) fn scattered(
        name: impl Into<String>,
        kind: PartKind,
        holder: &Source,
        extents: Vec<PartExtent>,
        size: u64,
    ) -> Self {
        let name = name.into();
        Self {
            key: name.clone(),
            name,
            kind,
            offset: extents.first().map_or(0, |e| e.from),
            size,
            fields: Fields::new(),
            source: Arc::new(Scattered {
                holder: holder.clone(),
                extents: extents.clone(),
                size,
            }),
            extents,
            derived: false,
            about: Vec::new(),
        }
    }

    /// A part with bytes of its own, made from the ranges `made_from` of its holder.
    pub(super) fn derived(name: impl Into<String>, source: Source, size: u64, made_from: Vec<PartExtent>) -> Self {
        let name = name.into();
        Self {
            key: name.clone(),
            name,
            kind: PartKind::Content,
            offset: 0,
            size,
            fields: Fields::new(),
            source,
            extents: made_from,
            derived: true,
            about: Vec::new(),
        }
    }

    /// A part without bytes.
    pub(super) fn empty(name: impl Into<String>, kind: PartKind) -> Self {
        let nothing: Source = Arc::new(Vec::new());
        Self::slice(name, kind, &nothing, 0, 0)
    }

    pub(super) fn with(mut self, field: &str, value: impl ToString) -> Self {
        self.fields.insert(field.to_owned(), value.to_string());
        self
    }

    pub(super) fn described_by(mut self, from: u64, len: u64) -> Self {
        self.about.push(PartExtent { at: 0, from, len });
        self
    }

    pub(super) fn keyed(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// The bytes of the part.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// SHA-256 of the bytes, which are all read.
    pub fn digest(&self) -> io::Result<Sha256Digest> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut reader = ReadCursor::new(&self.source);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Sha256Digest::new(hash.finalize().into())),
                n => hash.update(&buffer[..n]),
            }
        }
    }

    /// Finds the format of the bytes and the parts inside.
    pub fn look(&self, scratch: &SpoolDirectory) -> Look {
        match self.kind {
            PartKind::File | PartKind::Partition | PartKind::Segment | PartKind::Content => {
                detect::look(&self.source, self.size, scratch)
            }
            PartKind::Directory | PartKind::Symlink | PartKind::Special | PartKind::Region => Look {
                format: "data",
                ..Look::default()
            },
        }
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Part({:?}, {}, {} bytes at {})",
            self.name,
            self.kind.as_str(),
            self.size,
            self.offset
        )
    }
}

/// A part of bytes without a holder.
pub fn open(source: Source, name: impl Into<String>) -> io::Result<Part> {
    let size = source.size()?;
    let mut part = Part::derived(name, source, size, Vec::new());
    part.kind = PartKind::File;
    Ok(part)
}

/// The part of the file or directory at `path`, and for a directory the parts of its files, named by relative path.
pub fn open_path(path: &Path) -> Result<(Part, Option<Vec<Part>>), InspectError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| InspectError::Io { path, source }
    };
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    let meta = fs::metadata(path).map_err(at(path))?;
    if !meta.is_dir() {
        if !meta.is_file() {
            return Err(at(path)(io::Error::other("it is neither a file nor a directory")));
        }
        let part = open(Arc::new(File::open(path).map_err(at(path))?), name).map_err(at(path))?;
        return Ok((part, None));
    }
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let dir = path.join(&below);
        #[expect(clippy::disallowed_methods, reason = "what is found goes into a sorted map")]
        let listing = fs::read_dir(&dir).map_err(at(&dir))?;
        for entry in listing {
            let entry = entry.map_err(at(&dir))?;
            let relative = below.join(entry.file_name());
            let full = path.join(&relative);
            let name = relative.to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(at(&full))?;
            let part = if kind.is_dir() {
                waiting.push(relative.clone());
                continue;
            } else if kind.is_symlink() {
                let target = fs::read_link(&full).map_err(at(&full))?;
                Part::empty(name, PartKind::Symlink).with("target", target.to_string_lossy())
            } else if kind.is_file() {
                let size = entry.metadata().map_err(at(&full))?.len();
                let file: Source = Arc::new(Lazy {
                    path: full.clone(),
                    size,
                    open: OnceLock::new(),
                });
                open(file, name).map_err(at(&full))?
            } else {
                Part::empty(name, PartKind::Special)
            };
            found.insert(relative, part);
            if found.len() > MAX_ENTRIES {
                return Err(at(path)(io::Error::other(format!(
                    "the directory holds more than {MAX_ENTRIES} files"
                ))));
            }
        }
    }
    Ok((
        Part::empty(name, PartKind::Directory),
        Some(found.into_values().collect()),
    ))
}

/// A file of the host that is opened at the first read.
struct Lazy {
    path: PathBuf,
    size: u64,
    open: OnceLock<File>,
}

impl ReadAt for Lazy {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(file) = self.open.get() {
            return FileExt::read_exact_at(file, buffer, offset);
        }
        let file = File::open(&self.path)?;
        FileExt::read_exact_at(&file, buffer, offset)?;
        if self.size > KEEP_OPEN {
            let _ = self.open.set(file);
        }
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// Bytes from several runs of a holder; a range without a run reads as zeros.
struct Scattered {
    holder: Source,
    /// Sorted by `at`, without overlap.
    extents: Vec<PartExtent>,
    size: u64,
}

impl ReadAt for Scattered {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !buffer.is_empty() {
            let next = self.extents.partition_point(|e| e.at + e.len <= offset);
            let (from, until) = match self.extents.get(next) {
                Some(e) if e.at <= offset => (Some(e.from + (offset - e.at)), e.at + e.len),
                Some(e) => (None, e.at),
                None => (None, u64::MAX),
            };
            let n = usize::try_from(until - offset).map_or(buffer.len(), |n| n.min(buffer.len()));
            let (now, rest) = buffer.split_at_mut(n);
            match from {
                Some(from) => self.holder.read_exact_at(now, from)?,
                None => now.fill(0),
            }
            buffer = rest;
            offset += n as u64;
        }
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scattered_part_reads_across_runs_and_holes() {
        let holder: Source = Arc::new((0..=255u8).collect::<Vec<_>>());
        let extents = vec![
            PartExtent {
                at: 2,
                from: 100,
                len: 3,
            },
            PartExtent {
                at: 7,
                from: 10,
                len: 2,
            },
        ];
        let part = Part::scattered("x", PartKind::File, &holder, extents, 10);
        let mut all = [9; 10];
        part.source().read_exact_at(&mut all, 0).expect("inside");
        assert_eq!(all, [0, 0, 100, 101, 102, 0, 0, 10, 11, 0]);
        assert!(part.source().read_exact_at(&mut all, 1).is_err());
        assert_eq!(part.digest().expect("readable").as_bytes()[..], Sha256::digest(all)[..]);
    }
}
