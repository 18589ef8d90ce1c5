//! Relocking: reads the wanted packages of the stages and the list of archives, fetches the indexes, and replaces `lockfile.toml`.

use super::{LOCKFILE, Origins, PipelineError, Project, STAGES, vendor::sha256_of, wanted_sets};
use crate::{
    fetch::{
        Base, FetchError, FileTransport, HttpOptions, HttpTransport, Location, LocationKind, Transport, Transports,
    },
    lock::{
        self, ArchiveLocation, Indexes, LockChange, LockError, LockProblem, LockRequest, Lockfile, MAX_INRELEASE,
        PinnedFile, WantedArchive, WantedSet,
    },
    model::{Arch, Hint, Moment, RelPath, Sha256Digest, visible_message},
    verity,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Name of the list of archives, below the stages.
const ARCHIVES: &str = "archives.toml";
/// Name of the list of pinned files that are not packages, below the stages.
const FILES: &str = "files.toml";

/// An error of reading, comparing or writing the lock; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum RelockError {
    /// A stage file is faulty.
    #[error(transparent)]
    Stages(#[from] PipelineError),
    /// The lock or an archive is faulty, or a package set cannot be resolved.
    #[error(transparent)]
    Lock(Box<LockError>),
    /// The list of mirrors is wrong.
    #[error(transparent)]
    Origins(FetchError),
    /// There is no lock that could be compared with the stages.
    #[error("read {LOCKFILE}: there is none yet")]
    NoLock,
    /// A file could not be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `stages/files.toml` is malformed, or a listed file is missing.
    #[error("read {STAGES}/{FILES}: {problem}")]
    Files {
        /// The fault, with the file.
        problem: String,
    },
    /// The lock could not be written.
    #[error("write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl From<FetchError> for RelockError {
    fn from(error: FetchError) -> Self {
        RelockError::Origins(error)
    }
}

impl From<LockError> for RelockError {
    fn from(error: LockError) -> Self {
        RelockError::Lock(Box::new(error))
    }
}

impl Hint for RelockError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            RelockError::NoLock => Some("`pnb lock` writes it".into()),
            RelockError::Stages(error) => error.hint(),
            RelockError::Lock(error) => error.hint(),
            RelockError::Origins(error) => error.hint(),
            _ => None,
        }
    }
}

/// The requirements of a project on its lock, and the present lock.
#[derive(Debug)]
pub struct LockWants {
    root: PathBuf,
    sets: Vec<WantedSet>,
    files: Vec<PinnedFile>,
    previous: Option<Lockfile>,
}

/// A difference between the lock and the requirements of the project; its `Display` is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RelockProblem {
    /// A package set differs from the wanted one.
    Packages(LockProblem),
    /// The lock lacks a file of `stages/files.toml`, or has it with another address or digest.
    File {
        /// Its name.
        name: String,
        /// The required SHA-256.
        sha256: Sha256Digest,
    },
}

impl fmt::Display for RelockProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelockProblem::Packages(problem) => problem.fmt(f),
            RelockProblem::File { name, sha256 } => {
                write!(f, "the file {name} with the SHA-256 {sha256} is not locked")
            }
        }
    }
}

/// The options for a new lock.
#[derive(Clone, Debug)]
pub struct RelockRequest<'a> {
    /// Whether the newest versions are chosen even if the present lock is complete.
    pub update: bool,
    /// The moment of the archives; `None` for the newest state.
    pub snapshot: Option<Moment>,
    /// The optional archives to add.
    pub suites: &'a [String],
    /// The present time, seconds since 1970.
    pub now: u32,
}

/// A step of [`LockWants::relock`], for display.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RelockEvent<'a> {
    /// The package sets are being resolved.
    Resolving {
        /// Number of package sets.
        sets: usize,
    },
    /// An index was read.
    Read {
        /// Name of its archive.
        archive: &'a str,
        /// Its path in the archive.
        path: &'a RelPath,
        /// Its size in bytes.
        bytes: u64,
    },
}

/// A lock that was written.
#[derive(Debug)]
pub struct Relocked {
    /// The lock.
    pub lock: Lockfile,
    /// The differences from the replaced lock; `None` without one.
    pub changes: Option<Vec<LockChange>>,
}

impl LockWants {
    /// Reads the stages, the list of pinned files and, if there is one, the lock of the project at `root`.
    ///
    /// # Errors
    /// A file is malformed, or a pinned file of the project is missing.
    pub fn load(root: &Path) -> Result<Self, RelockError> {
        let path = root.join(LOCKFILE);
        let previous = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(RelockError::Read { path, source }),
            Ok(text) => Some(lock::parse_lock(&text, LOCKFILE)?),
        };
        Ok(Self {
            root: root.to_owned(),
            sets: wanted_sets(&Project::load_graph(root)?),
            files: pinned_files(root)?,
            previous,
        })
    }

    /// The parts that the lock lacks or no longer needs, as far as it shows without a network.
    ///
    /// # Errors
    /// There is no lock.
    pub fn problems(&self) -> Result<Vec<RelockProblem>, RelockError> {
        let lock = self.previous.as_ref().ok_or(RelockError::NoLock)?;
        let packages = lock::check(lock, &self.sets);
        let files = self.files.iter().filter(|file| !lock.files.contains(file));
        let files = files.map(|file| RelockProblem::File {
            name: file.name.clone(),
            sha256: file.sha256,
        });
        Ok(packages.into_iter().map(RelockProblem::Packages).chain(files).collect())
    }

    /// Chooses and pins every input, and writes the lock. A complete lock keeps its versions unless newer ones are asked for;
    /// pinned files are always read again. `origins` is called only when archives have to be read.
    ///
    /// # Errors
    /// An archive cannot be read or is refused, a package set cannot be resolved, or the lock cannot be written.
    pub fn relock(
        &self,
        request: &RelockRequest<'_>,
        origins: impl FnOnce() -> Result<Origins, FetchError>,
        events: &dyn Fn(RelockEvent<'_>),
    ) -> Result<Relocked, RelockError> {
        let newest = request.update || request.snapshot.is_some() || !request.suites.is_empty();
        let lock = match &self.previous {
            Some(old) if !newest && lock::check(old, &self.sets).is_empty() => Lockfile {
                files: self.files.clone(),
                ..old.clone()
            },
            _ => self.resolve(request, &origins()?, events)?,
        };
        let text = lock::write_lock(&lock)?;
        let path = self.root.join(LOCKFILE);
        // Renamed when it is whole, so that an interrupted write leaves the old lock.
        let part = path.with_extension("toml.part");
        let written = fs::write(&part, text).and_then(|()| fs::rename(&part, &path));
        written.map_err(|source| RelockError::Write { path, source })?;
        let changes = self.previous.as_ref().map(|old| lock::diff(old, &lock));
        Ok(Relocked { lock, changes })
    }

    fn resolve(
        &self,
        request: &RelockRequest<'_>,
        origins: &Origins,
        events: &dyn Fn(RelockEvent<'_>),
    ) -> Result<Lockfile, RelockError> {
        let stages = self.root.join(STAGES);
        let path = stages.join(ARCHIVES);
        let text = fs::read_to_string(&path).map_err(|source| RelockError::Read { path, source })?;
        let archives = lock::parse_archives(&text, &format!("{STAGES}/{ARCHIVES}"))?;
        let mut keyrings = BTreeMap::new();
        for archive in &archives {
            let path = stages.join(archive.keyring.as_path());
            let bytes = fs::read(&path).map_err(|source| RelockError::Read { path, source })?;
            keyrings.insert(archive.keyring.clone(), bytes);
        }
        // Optional archives of the present lock stay: without them an update would go back to older versions.
        let previous = self.previous.as_ref();
        let has = |archive: &&WantedArchive| previous.is_some_and(|old| old.archive(&archive.name).is_some());
        let kept = archives.iter().filter(|archive| archive.optional).filter(has);
        let kept = kept.map(|archive| archive.name.clone());
        let suites: BTreeSet<String> = request.suites.iter().cloned().chain(kept).collect();
        events(RelockEvent::Resolving { sets: self.sets.len() });
        let indexes = RemoteIndexes {
            origins,
            transport: Transports {
                http: HttpTransport::new(&HttpOptions::default()),
                file: FileTransport,
            },
            events,
        };
        let wanted = LockRequest {
            archives: &archives,
            keyrings: &keyrings,
            suites: &suites,
            wanted: &self.sets,
            files: &self.files,
            now: request.now,
            snapshot: request.snapshot,
            previous,
        };
        Ok(lock::update(&wanted, &indexes)?)
    }
}

/// The format of `stages/files.toml`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    #[serde(default)]
    file: Vec<WantedFile>,
}

/// A file of the list: one of the project (`path`) or a download (`url`).
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedFile {
    name: String,
    arch: Option<Arch>,
    path: Option<RelPath>,
    url: Option<String>,
    sha256: Option<Sha256Digest>,
    size: Option<u64>,
}

/// The files of `stages/files.toml`; those of the project have their present digests.
fn pinned_files(root: &Path) -> Result<Vec<PinnedFile>, RelockError> {
    let path = root.join(STAGES).join(FILES);
    let bad = |problem: String| RelockError::Files { problem };
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|source| RelockError::Read { path, source })?,
    };
    let parsed: Files = toml::from_str(&text).map_err(|e| bad(visible_message(&e.to_string())))?;
    let mut files = parsed
        .file
        .into_iter()
        .map(|file| pin(root, file))
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad)?;
    files.sort();
    Ok(files)
}

/// Pins a listed file. The size and digest are measured for a file of the project, and taken from the list for a download.
fn pin(root: &Path, file: WantedFile) -> Result<PinnedFile, String> {
    let name = file.name;
    let (size, sha256) = match (&file.path, &file.url, file.size, file.sha256) {
        (Some(path), None, None, None) => {
            let place = root.join(path.as_path());
            let measured = fs::metadata(&place).and_then(|meta| Ok((meta.len(), sha256_of(&place)?)));
            measured.map_err(|e| format!("{name}: {path}: {e}"))?
        }
        (None, Some(_), Some(size), Some(sha256)) => (size, sha256),
        _ => {
            let forms = "{ name, path } for a file of the project or { name, url, size, sha256 } for a download";
            return Err(format!("the file {name:?} has other keys than {forms}"));
        }
    };
    Ok(PinnedFile {
        name,
        arch: file.arch,
        path: file.path,
        url: file.url,
        size,
        sha256,
    })
}

/// The source of index files: the mirror, the mirrors of this machine's apt, and the snapshot service.
struct RemoteIndexes<'a> {
    origins: &'a Origins,
    transport: Transports,
    events: &'a dyn Fn(RelockEvent<'_>),
}

impl Indexes for RemoteIndexes<'_> {
    fn get(
        &self,
        archive: ArchiveLocation<'_>,
        path: &RelPath,
        expected: Option<(u64, Sha256Digest)>,
    ) -> io::Result<Vec<u8>> {
        let mut tried = String::new();
        for place in self.places(archive, path)? {
            match self.read(&place, expected) {
                Ok(bytes) => {
                    (self.events)(RelockEvent::Read {
                        archive: archive.name,
                        path,
                        bytes: bytes.len() as u64,
                    });
                    return Ok(bytes);
                }
                Err(problem) => tried.push_str(&format!("\n  {place}: {problem}")),
            }
        }
        Err(io::Error::other(format!(
            "{path} is at none of these addresses:{tried}"
        )))
    }
}

impl RemoteIndexes<'_> {
    /// The locations of a file of an archive, in the order of trying.
    fn places(&self, archive: ArchiveLocation<'_>, path: &RelPath) -> io::Result<Vec<Location>> {
        let sources = &self.origins.sources;
        let below = archive.base.join(path);
        let mirror = sources.mirror.iter().map(|m| m.place(LocationKind::Mirror, &below));
        let mut places: Vec<Location> = mirror.collect();
        let base: Base = archive.snapshot_url.parse().map_err(io::Error::other)?;
        let apt = sources.apt.iter().filter(|mirror| mirror.ends_with(archive.base));
        let apt = apt.map(|mirror| mirror.place(LocationKind::AptMirror, path));
        let snapshot = base.place(LocationKind::Snapshot, path);
        // Only the snapshot service has past moments; the present one comes from the nearest mirror first.
        if archive.fixed {
            places.push(snapshot);
            places.extend(apt);
        } else {
            places.extend(apt);
            places.push(snapshot);
        }
        places.retain(|place| !self.origins.offline || !place.address.is_network());
        Ok(places)
    }

    fn read(&self, place: &Location, expected: Option<(u64, Sha256Digest)>) -> Result<Vec<u8>, String> {
        let limit = expected.map_or(MAX_INRELEASE, |(size, _)| size);
        let response = self.transport.open(place, 0, None).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        response
            .body
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| e.to_string())?;
        if bytes.len() as u64 > limit {
            return Err(format!("the file has more than {limit} bytes"));
        }
        if let Some((_, sha256)) = expected {
            let mut both = verity::Both::new();
            both.update(&bytes);
            if both.finish().sha256 != sha256 {
                return Err("the file has another SHA-256 than the release file states".to_owned());
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(files: &str) -> Result<Vec<PinnedFile>, String> {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join(STAGES)).expect("made");
        fs::write(dir.path().join(STAGES).join(FILES), files).expect("written");
        fs::write(dir.path().join("agent"), "abc").expect("written");
        pinned_files(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_of_the_project_is_measured_and_a_download_is_taken_as_stated() {
        let zeros = "0".repeat(64);
        let download =
            format!("[[file]]\nname = \"b\"\nurl = \"https://example.org/b\"\nsize = 7\nsha256 = \"{zeros}\"\n");
        let files = pinned(&format!("{download}[[file]]\nname = \"a\"\npath = \"agent\"\n")).expect("two files");
        let found: Vec<(&str, u64)> = files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        assert_eq!(found, [("a", 3), ("b", 7)]);
        // SHA-256 of "abc", from FIPS 180-2, appendix B.1.
        assert_eq!(
            files[0].sha256.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(files[1].sha256.to_string(), zeros);
    }

    #[test]
    fn a_file_that_is_neither_is_named() {
        for (files, problem) in [
            ("[[file]]\nname = \"a\"\npath = \"gone\"\n", "a: gone: "),
            (
                "[[file]]\nname = \"a\"\npath = \"agent\"\nsize = 3\n",
                "the file \"a\" has other keys than",
            ),
            (
                "[[file]]\nname = \"a\"\nurl = \"https://example.org/a\"\n",
                "the file \"a\" has other keys than",
            ),
            ("[[file]]\nname = \"a\"\npath = \"../x\"\n", "path \"../x\""),
            ("[[files]]\n", "unknown field `files`"),
        ] {
            let error = pinned(files).expect_err(files);
            assert!(
                error.starts_with("read stages/files.toml: ") && error.contains(problem),
                "{error}"
            );
        }
        let empty = tempfile::tempdir().expect("a directory");
        assert_eq!(pinned_files(empty.path()).expect("no file is no error"), []);
    }
}
