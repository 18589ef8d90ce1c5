//! Relocking: reads the wanted packages of the stages and the list of archives, fetches the indexes, and replaces `lockfile.toml`.

use super::{
    LOCKFILE, Origins, PipelineError, Project, STAGES,
    listed::pinned_files,
    project::{below_stages, in_project},
    wanted_sets,
};
use crate::{
    fetch::{Base, FetchError, Location, LocationKind, RetryPolicy, SmallFile, Transports, read_small},
    lock::{
        self, ArchiveLocation, BaseImage, Indexes, LockChange, LockError, LockProblem, LockRequest, Lockfile,
        MAX_INRELEASE, PinnedFile, WantedArchive, WantedSet,
    },
    model::{Hint, Moment, NodeId, RelPath, Sha256Digest},
    source::{MAX_TEXT, SourceError, SourceTree},
    store::Store,
    verity,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

/// Name of the list of archives, below the stages.
const ARCHIVES: &str = "archives.toml";

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
    /// The list of archives or one of their keyrings is missing.
    #[error("read {path}: there is no such file in the project")]
    Missing {
        /// The file.
        path: RelPath,
    },
    /// A file of the project could not be read, or the lock not be written.
    #[error(transparent)]
    Source(#[from] SourceError),
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
            RelockError::Source(error) => error.hint(),
            RelockError::Lock(error) => error.hint(),
            RelockError::Origins(error) => error.hint(),
            _ => None,
        }
    }
}

/// The requirements of a project on its lock, and the present lock.
#[derive(Debug)]
pub struct LockWants {
    tree: SourceTree,
    sets: Vec<WantedSet>,
    files: Vec<PinnedFile>,
    previous: Option<Lockfile>,
    /// The nodes whose packages are installed on a base image.
    on_base: Vec<NodeId>,
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
    /// The lock has a file that `stages/files.toml` does not name.
    UnlistedFile {
        /// Its name.
        name: String,
    },
    /// The base image was not read yet, or has a package that is not in the lock.
    Base {
        /// The fault.
        problem: String,
    },
}

impl fmt::Display for RelockProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelockProblem::Packages(problem) => problem.fmt(f),
            RelockProblem::File { name, sha256 } => {
                write!(f, "the file {name} with the SHA-256 {sha256} is not locked")
            }
            RelockProblem::Base { problem } => f.write_str(problem),
            RelockProblem::UnlistedFile { name } => {
                write!(f, "the file {name} is locked, and {STAGES}/files.toml does not name it")
            }
        }
    }
}

/// The options for a new lock.
#[derive(Clone, Debug)]
pub struct RelockRequest<'a> {
    /// Whether the newest versions are chosen; otherwise the archives keep the state that they have in the present lock.
    pub update: bool,
    /// The moment of the archives; `None` for the newest state, or that of the present lock.
    pub snapshot: Option<Moment>,
    /// The optional archives to add, which is an update.
    pub suites: &'a [String],
    /// The present time, seconds since 1970.
    pub now: u32,
    /// The base image of the new lock.
    pub base: BaseRequest<'a>,
}

/// The base image of a new lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BaseRequest<'a> {
    /// That of the present lock, if it has one.
    Keep,
    /// The image of this name, `NAME@sha256:…`.
    Pin(&'a str),
    /// None.
    Remove,
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
    /// A fact about an archive that is no error.
    Remark {
        /// Name of the archive.
        archive: &'a str,
        /// The fact, in one line.
        text: &'a str,
    },
    /// The server of a place asks for a wait.
    Waiting {
        /// The place.
        place: &'a Location,
        /// The wait.
        wait: std::time::Duration,
    },
    /// The base image was read.
    ReadBase {
        /// The image.
        base: &'a BaseImage,
    },
}

/// A lock that was written.
#[derive(Debug)]
pub struct Relocked {
    /// The lock.
    pub lock: Lockfile,
    /// The differences from the replaced lock; `None` without one.
    pub changes: Option<Vec<LockChange>>,
    /// The optional archives of the project that the lock does not use.
    pub unused: Vec<String>,
}

impl LockWants {
    /// Reads the stages, the list of pinned files and, if there is one, the lock of the project in `tree`.
    ///
    /// # Errors
    /// A file is malformed, or a pinned file of the project is missing.
    pub fn load(tree: SourceTree) -> Result<Self, RelockError> {
        let text = tree.read_text(&in_project(LOCKFILE)?)?;
        let previous = text.map(|text| lock::parse_lock(&text, LOCKFILE)).transpose()?;
        let graph = Project::load_graph(&tree)?;
        Ok(Self {
            sets: wanted_sets(&graph),
            on_base: graph.on_base(),
            files: pinned_files(&tree)?,
            previous,
            tree,
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
        let listed = |pinned: &&PinnedFile| {
            self.files
                .iter()
                .any(|f| (&f.name, f.arch) == (&pinned.name, pinned.arch))
        };
        let unlisted = lock.files.iter().filter(|pinned| !listed(pinned));
        let unlisted = unlisted.map(|file| RelockProblem::UnlistedFile {
            name: file.name.clone(),
        });
        let packages = packages.into_iter().map(RelockProblem::Packages);
        let unread = lock.base.as_ref().filter(|base| base.platforms.is_empty());
        let unread = unread.map(|base| format!("the base image {} was not read", base.image));
        let other = lock::check_base(lock, &self.on_base).err();
        let base = unread.or(other.map(|error| format!("failed to {error}")));
        let base = base.map(|problem| RelockProblem::Base { problem });
        Ok(packages.chain(files).chain(unlisted).chain(base).collect())
    }

    /// The base image that a new lock would have, if it has to be read for that: [`LockWants::relock`] needs a store then.
    ///
    /// # Errors
    /// The name has no digest.
    pub fn unread_base(&self, request: &RelockRequest<'_>) -> Result<Option<BaseImage>, RelockError> {
        let present = self.previous.as_ref().and_then(|lock| lock.base.as_ref());
        Ok(match request.base {
            BaseRequest::Remove => None,
            BaseRequest::Pin(image) => match present {
                Some(base) if base.image == image && !base.platforms.is_empty() => None,
                _ => Some(BaseImage::named(image)?),
            },
            BaseRequest::Keep => present.filter(|base| base.platforms.is_empty()).cloned(),
        })
    }

    /// Chooses and pins every input, and writes the lock. What the present lock lacks is taken from the archives as they were when it was
    /// made, so that no version moves, unless newer ones are asked for; pinned files are always read again. `origins` is called only when archives or a base image have to be read, and `store` is for the
    /// blobs of a base image.
    ///
    /// # Errors
    /// An archive cannot be read or is refused, a package set cannot be resolved, or the lock cannot be written.
    pub fn relock(
        &self,
        request: &RelockRequest<'_>,
        origins: impl Fn() -> Result<Origins, FetchError>,
        store: Option<&Store>,
        events: &dyn Fn(RelockEvent<'_>),
    ) -> Result<Relocked, RelockError> {
        let moves = request.update || request.snapshot.is_some() || !request.suites.is_empty();
        let archives = self.archives()?;
        let mut lock = match &self.previous {
            Some(old) if !moves && lock::check(old, &self.sets).is_empty() => Lockfile {
                files: self.files.clone(),
                ..old.clone()
            },
            _ => self.resolve(request, !moves, &archives, &origins()?, events)?,
        };
        match (self.unread_base(request)?, request.base) {
            (Some(image), _) => {
                let store = store.ok_or(PipelineError::NoBase)?;
                let base = origins()?.read_base(store, &image, lock.source_date_epoch, &|_| {})?;
                events(RelockEvent::ReadBase { base: &base });
                lock.base = Some(base);
            }
            (None, BaseRequest::Remove) => lock.base = None,
            (None, BaseRequest::Keep | BaseRequest::Pin(_)) => {}
        }
        lock::check_base(&lock, &self.on_base)?;
        let text = lock::write_lock(&lock)?;
        self.tree.replace(LOCKFILE, text.as_bytes())?;
        let changes = self.previous.as_ref().map(|old| lock::diff(old, &lock));
        let unused = archives.into_iter().filter(|archive| archive.optional);
        let unused = unused.filter(|archive| lock.archive(&archive.name).is_none());
        let unused = unused.map(|archive| archive.name).collect();
        Ok(Relocked { lock, changes, unused })
    }

    /// The list of archives; it is empty when there is none, which is an error only where packages are wanted.
    fn archives(&self) -> Result<Vec<WantedArchive>, RelockError> {
        let path = below_stages(ARCHIVES)?;
        match self.tree.read_text(&path)? {
            Some(text) => Ok(lock::parse_archives(&text, &format!("{STAGES}/{ARCHIVES}"))?),
            None => Ok(Vec::new()),
        }
    }

    fn resolve(
        &self,
        request: &RelockRequest<'_>,
        keep: bool,
        archives: &[WantedArchive],
        origins: &Origins,
        events: &dyn Fn(RelockEvent<'_>),
    ) -> Result<Lockfile, RelockError> {
        if archives.is_empty() {
            let path = below_stages(ARCHIVES)?;
            return Err(RelockError::Missing { path });
        }
        let mut keyrings = BTreeMap::new();
        for archive in archives {
            let path = in_project(STAGES)?.join(&archive.keyring);
            let bytes = self.tree.read(&path, MAX_TEXT)?.ok_or(RelockError::Missing { path })?;
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
            transport: origins.transports(),
            events,
        };
        let wanted = LockRequest {
            archives,
            keyrings: &keyrings,
            suites: &suites,
            wanted: &self.sets,
            files: &self.files,
            now: request.now,
            snapshot: request.snapshot,
            previous,
            keep,
        };
        Ok(lock::update(&wanted, &indexes)?)
    }
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

    fn remark(&self, archive: &str, text: &str) {
        (self.events)(RelockEvent::Remark { archive, text });
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
        let file = SmallFile {
            limit,
            size: expected.map(|(size, _)| size),
            policy: RetryPolicy::default(),
        };
        let told = |wait| (self.events)(RelockEvent::Waiting { place, wait });
        let bytes = read_small(&self.transport, place, file, &std::thread::sleep, &told)?;
        if let Some((_, sha256)) = expected {
            let mut both = verity::Both::new();
            both.update(&bytes);
            if both.finish().sha256 != sha256 {
                return Err("the file has another SHA-256 than the one that is locked or signed".to_owned());
            }
        }
        Ok(bytes)
    }
}
