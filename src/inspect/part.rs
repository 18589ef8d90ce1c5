//! A part of an artifact: bytes with a name and a place. Its format is found on demand.

use super::{
    budget::{Budget, MAX_NESTING, Metered, Work},
    detect::{self, Holder},
    error::InspectError,
    layouts,
};
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
/// Parts of one holder that are listed, and bytes of their names, each with some more for itself.
const MAX_PARTS: usize = 200_000;
const MAX_NAMES: usize = 64 << 20;
const NAME: usize = 32;
/// Behind a text of problems longer than this, bytes, further ones are not added.
const MAX_PROBLEM: usize = 600;
const MORE_PROBLEMS: &str = "; and more";
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
    /// An image of an OCI layout, whose parts are blobs.
    Image,
    /// A structure of the format itself, e.g. a table.
    Region,
}

impl PartKind {
    /// Whether bytes of this kind may have a format with parts inside.
    pub(super) const fn can_hold_parts(self) -> bool {
        matches!(
            self,
            PartKind::File | PartKind::Partition | PartKind::Segment | PartKind::Content | PartKind::Image
        )
    }

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
            PartKind::Image => "image",
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
    /// The reason why the part has other bytes than it should, or none.
    pub(super) problem: Option<String>,
    /// The parts inside of a part without bytes.
    pub(super) parts: Option<Vec<Part>>,
    /// Number of parts around it.
    depth: usize,
    /// The budget of the artifact; `None` until the part is given to a holder.
    budget: Option<Arc<Budget>>,
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
    /// Bytes of the names of the listed parts.
    pub(super) names: usize,
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
            problem: None,
            parts: None,
            depth: 0,
            budget: None,
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
            problem: None,
            parts: None,
            depth: 0,
            budget: None,
        }
    }

    /// A part that consists of `parts`, which have their bytes from elsewhere. Its size is theirs together.
    pub(super) fn of_parts(name: impl Into<String>, kind: PartKind, parts: Vec<Part>) -> Self {
        let size = parts.iter().fold(0, |sum, part| part.size.saturating_add(sum));
        let mut part = Self::empty(name, kind);
        part.budget = parts.first().and_then(|part| part.budget.clone());
        part.size = size;
        part.parts = Some(parts);
        part
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

    /// Makes the part another name of the content of `other`, a part of the same holder.
    pub(super) fn take_content(&mut self, other: &Self) {
        self.offset = other.offset;
        self.size = other.size;
        self.source = other.source.clone();
        self.extents.clone_from(&other.extents);
    }

    /// The same with this problem, if it has none yet.
    pub(super) fn damaged(mut self, problem: impl Into<String>) -> Self {
        self.problem.get_or_insert_with(|| problem.into());
        self
    }

    /// The bytes of the part.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The format that the first bytes tell; `None` when they cannot be read.
    pub(super) fn format_of_beginning(&self) -> Option<detect::Format> {
        let head = detect::head(&self.source, self.size).ok()?;
        Some(detect::format(&head))
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

    /// Finds the format of the bytes and the parts inside. A limit of the artifact that is reached is a problem of the look.
    pub fn look(&self, scratch: &SpoolDirectory) -> Look {
        if !self.kind.can_hold_parts() {
            return Look::data(None);
        }
        if self.depth >= MAX_NESTING {
            let problem = format!("it lies within {MAX_NESTING} other parts, and deeper nesting is not examined");
            return Look::data(Some(problem));
        }
        let budget = self.budget();
        if let Err(problem) = budget.examined.take(1) {
            return Look::data(Some(format!("its format is not examined: {problem}")));
        }
        let mut look = match &self.parts {
            Some(parts) => Look {
                format: "OCI image",
                children: parts.clone(),
                ..Look::default()
            },
            None => detect::look(&Holder {
                source: &self.source,
                size: self.size,
                scratch,
                budget: &budget,
            }),
        };
        let damaged = look.children.iter().filter(|c| c.problem.is_some()).count();
        if damaged > 0 {
            look.add_problem(format!("{damaged} of its parts cannot be read right"));
        }
        let found = look.children.len();
        if let Err(problem) = budget.parts.take(found as u64) {
            look.children = Vec::new();
            look.add_problem(format!("its {found} parts are not listed: {problem}"));
        }
        for child in &mut look.children {
            child.depth = self.depth + 1;
            child.budget = Some(budget.clone());
        }
        look
    }

    /// The budget of the artifact in which the part lies.
    pub(super) fn budget(&self) -> Arc<Budget> {
        self.budget.clone().unwrap_or_else(|| Budget::new(self.size))
    }

    /// Work that was done so far for the artifact in which the part lies.
    pub fn work(&self) -> Work {
        self.budget().work()
    }

    /// SHA-256 of the bytes within the budget of the artifact; the outer error is its limit, the inner one that of reading.
    pub(super) fn budgeted_digest(&self) -> Result<io::Result<Sha256Digest>, String> {
        if let Some(budget) = &self.budget {
            budget.hashed.take(self.size)?;
        }
        Ok(self.digest())
    }

    /// The part as an artifact, whose work counts on `budget`.
    fn artifact(mut self, budget: &Arc<Budget>) -> Self {
        self.source = Metered::source(self.source, budget);
        self.budget = Some(budget.clone());
        self
    }
}

impl Look {
    /// A look at bytes of no format.
    pub(super) fn data(problem: Option<String>) -> Self {
        Self {
            format: "data",
            problem,
            ..Self::default()
        }
    }

    /// Adds a part; `false`, with a problem, when there are too many already, or their names are too long.
    pub(super) fn list(&mut self, part: Part) -> bool {
        self.names += NAME + part.name.len() + part.fields.values().map(String::len).sum::<usize>();
        if self.children.len() >= MAX_PARTS || self.names > MAX_NAMES {
            if self.names < usize::MAX / 2 {
                self.add_problem(format!(
                    "it has more than {MAX_PARTS} parts, or their names more than {} MiB",
                    MAX_NAMES >> 20
                ));
                self.names = usize::MAX / 2;
            }
            return false;
        }
        self.children.push(part);
        true
    }

    /// Adds a problem to those that were found before. Many are cut: the first ones name the cause.
    pub(super) fn add_problem(&mut self, problem: impl Into<String>) {
        let problem = problem.into();
        match &mut self.problem {
            None => self.problem = Some(problem),
            Some(before) if before.ends_with(MORE_PROBLEMS) => {}
            Some(before) if before.len() > MAX_PROBLEM => before.push_str(MORE_PROBLEMS),
            Some(before) => {
                before.push_str("; ");
                before.push_str(&problem);
            }
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
    let part = whole(source, name)?;
    let budget = Budget::new(part.size);
    Ok(part.artifact(&budget))
}

fn whole(source: Source, name: impl Into<String>) -> io::Result<Part> {
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
                whole(file, name).map_err(at(&full))?
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
    // One budget for all files: a hostile directory has many.
    let budget = Budget::new(found.values().fold(0, |sum, part| part.size.saturating_add(sum)));
    let parts = found.into_values().map(|part| part.artifact(&budget)).collect();
    Ok((
        Part::empty(name, PartKind::Directory),
        Some(layouts::gather(parts, &budget)),
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
                None => {
                    self.holder.spend(n as u64)?;
                    now.fill(0);
                }
            }
            buffer = rest;
            offset += n as u64;
        }
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
    fn spend(&self, bytes: u64) -> io::Result<()> {
        self.holder.spend(bytes)
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
