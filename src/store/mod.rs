//! The content-addressed store: objects by fs-verity digest, trees, build records.
//!
//! ```text
//! <store>/
//!   format                  "pnb store 1"
//!   lock                    shared by builders, exclusive for garbage collection
//!   objects/ab/cdef…        content, read-only; `…​.x` is the same content as an executable inode
//!   sha256/ab/cdef…         fs-verity digest of the object with that SHA-256
//!   records/<stage key>     what a stage made (canonical JSON)
//!   checkouts/<tree>/       trees laid out as hard links, for mounting
//!   logs/<stage key>.log    output of the run that made a record
//!   locks/<stage key>       held while a stage runs
//!   notes/<name>            hints that may be lost
//!   tmp/<random>/           one directory per running program; swept when its owner is gone
//! ```
//!
//! Everything is written under `tmp/` first and renamed, so a name that exists is whole. Nothing is trusted for being
//! there: objects are hashed before a stage may read them, unless this very program wrote or hashed them.

mod artifact;
mod buffer;
mod checkout;
mod error;
mod gc;
mod hash_cache;
mod import;
mod incoming;
mod memory;
mod objects;
mod record;
mod scratch;
mod sparse;

pub use buffer::PageBuffer;
pub use error::{Operation, StoreError};
pub use gc::{Damage, GcSummary, StoreCheck};
pub use incoming::{Content, Once};
pub use record::{Output, Record};
pub use scratch::{Scratch, quiet_directory};
pub use sparse::copy_sparse;

use error::IoContext;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::model::{Arch, StageKey, VerityDigest};
use std::sync::Arc;

const FORMAT: &str = "pnb store 1\n";
/// What lies in a store beside its format and its lock.
const DIRECTORIES: &[&str] = &[
    "objects",
    "sha256",
    "records",
    "checkouts",
    "logs",
    "locks",
    "notes",
    "downloads",
    "failed",
    "tmp",
];

/// An open store. Cheap to share between threads; holds the store's shared lock while it lives.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Whether it is needed for this program only.
    ephemeral: bool,
    /// Where `objects/` and `sha256/` are: in `root`, or in the store that lends them.
    content: PathBuf,
    /// The stores that this one borrows from, which have to live as long.
    shared: SharedStores,
    scratch: Scratch,
    _lock: File,
    /// Trees whose objects were hashed by this program: once per run is enough.
    verified: Mutex<BTreeSet<VerityDigest>>,
    /// Objects that this program has hashed.
    known: Arc<hash_cache::HashCache>,
    /// Trees that were copied for this program.
    copies: checkout::Copies,
    /// Copies of objects that this program will export.
    spares: artifact::Spares,
    buffers: buffer::Buffers,
}

/// What a store has from others.
#[derive(Clone, Debug, Default)]
pub struct SharedStores {
    /// The store that has the pinned files, and gets those that are fetched.
    pub pinned: Option<Arc<Store>>,
    /// The store whose objects this one uses, and adds to.
    pub objects: Option<Arc<Store>>,
}

/// How a store is opened.
enum OpenMode {
    /// With other builders.
    Shared,
    /// Alone.
    Exclusive,
    /// For this program only.
    Ephemeral(SharedStores),
}

impl Store {
    /// Opens the store at `root`, making it if it is not there, and sweeps what dead programs left in `tmp/`.
    pub fn open(root: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_as(root, OpenMode::Shared)
    }

    /// Opens a store at `root` that is needed for this program only: files of artifacts may be links to its objects.
    ///
    /// With the objects of another one it has none of that one's records, so everything is made again, while what comes out the same
    /// is not written again. An object is still asked for by the digest of what was made here.
    pub fn open_ephemeral(root: &Path, shared: SharedStores) -> Result<Arc<Self>, StoreError> {
        Self::open_as(root, OpenMode::Ephemeral(shared))
    }

    /// The store that has the pinned files: this one, if none lends them.
    pub fn of_pinned(&self) -> &Self {
        self.shared.pinned.as_deref().unwrap_or(self)
    }

    /// Opens the store alone: fails while a builder uses it. For garbage collection.
    pub fn open_exclusive(root: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_as(root, OpenMode::Exclusive)
    }

    fn open_as(root: &Path, kind: OpenMode) -> Result<Arc<Self>, StoreError> {
        if root.exists() && !root.join("format").exists() {
            // A store that is just being made has its format last.
            let ours = |name: &std::ffi::OsString| DIRECTORIES.iter().any(|d| name == d) || name == "lock";
            if !objects::sorted_names(root)?.iter().all(ours) {
                let path = root.to_owned();
                return Err(StoreError::NotAStore { path });
            }
        }
        for dir in DIRECTORIES {
            let path = root.join(dir);
            fs::create_dir_all(&path).at(Operation::Create, &path)?;
        }
        let root = root.canonicalize().at(Operation::Open, root)?;
        let format = root.join("format");
        match fs::read_to_string(&format) {
            Ok(text) if text == FORMAT => {}
            Ok(text) => {
                return Err(StoreError::Format {
                    path: format,
                    found: text,
                });
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let fresh = root.join("tmp").join(format!("format.{}", std::process::id()));
                fs::write(&fresh, FORMAT).at(Operation::Write, &fresh)?;
                fs::rename(&fresh, &format).at(Operation::Rename, &format)?;
            }
            Err(e) => return Err(e).at(Operation::Read, &format),
        }
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .at(Operation::Open, &path)?;
        let taken = if matches!(kind, OpenMode::Exclusive) {
            lock.try_lock()
        } else {
            lock.try_lock_shared()
        };
        match taken {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Busy { path: root }),
            Err(fs::TryLockError::Error(e)) => return Err(e).at(Operation::Lock, &path),
        }
        let scratch = Scratch::new(&root.join("tmp"))?;
        memory::sweep_memory()?;
        let (ephemeral, shared) = match kind {
            OpenMode::Ephemeral(shared) => (true, shared),
            _ => (false, SharedStores::default()),
        };
        let other = shared.objects.as_ref();
        Ok(Arc::new(Self {
            ephemeral,
            content: other.map_or_else(|| root.clone(), |other| other.content.clone()),
            known: other.map_or_else(Arc::default, |other| Arc::clone(&other.known)),
            shared,
            root,
            scratch,
            _lock: lock,
            verified: Mutex::new(BTreeSet::new()),
            copies: checkout::Copies::default(),
            spares: artifact::Spares::default(),
            buffers: buffer::Buffers::default(),
        }))
    }

    /// Absolute path of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A fresh path below this program's own scratch directory; nothing is there yet.
    pub fn scratch_path(&self, name: &str) -> PathBuf {
        self.scratch.fresh(name)
    }

    /// Directory for partly downloaded files, shared by all builders so that a download is resumed.
    pub fn downloads(&self) -> Result<PathBuf, StoreError> {
        Ok(self.root.join("downloads"))
    }

    /// Begins the log of the run `key` of a stage; its path. It becomes the stage's latest log.
    pub fn start_log(&self, key: &StageKey, stage: &str, arch: Arch) -> Result<PathBuf, StoreError> {
        let name = format!("{key}.log");
        self.set_latest(&name, stage, arch)
    }

    /// Makes the log `name` a stage's latest; its path.
    fn set_latest(&self, name: &str, stage: &str, arch: Arch) -> Result<PathBuf, StoreError> {
        let logs = self.root.join("logs");
        self.write_atomic(&logs.join(format!("latest-{stage}-{arch}")), name.as_bytes())?;
        Ok(logs.join(name))
    }

    /// The log of a stage's last run, whether it ended well or not.
    pub fn latest_log(&self, stage: &str, arch: Arch) -> Result<Option<PathBuf>, StoreError> {
        let logs = self.root.join("logs");
        let Ok(name) = fs::read_to_string(logs.join(format!("latest-{stage}-{arch}"))) else {
            return Ok(None);
        };
        let path = logs.join(name);
        Ok(path.is_file().then_some(path))
    }

    /// Keeps a stage's latest log of a ephemeral store, and makes it the stage's latest one here: from where to where it was copied.
    pub fn take_log(&self, from: &Store, stage: &str, arch: Arch) -> Result<Option<(PathBuf, PathBuf)>, StoreError> {
        let Some(source) = from.latest_log(stage, arch)? else {
            return Ok(None);
        };
        let name = format!("repeated-{stage}-{arch}.log");
        let text = fs::read(&source).at(Operation::Read, &source)?;
        self.write_atomic(&self.root.join("logs").join(&name), &text)?;
        Ok(Some((source, self.set_latest(&name, stage, arch)?)))
    }

    /// A small note kept under `name` between runs; only ever a hint.
    pub fn note(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join("notes").join(name)).ok()
    }

    /// Keeps a note.
    pub fn put_note(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_atomic(&self.root.join("notes").join(name), bytes)
    }

    /// Waits for the right to run the stage `key`; another builder may finish it meanwhile, so look for its record next.
    pub fn lock_stage(&self, key: &StageKey) -> Result<StageLock, StoreError> {
        let path = self.root.join("locks").join(key.to_string());
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .at(Operation::Open, &path)?;
        file.lock().at(Operation::Lock, &path)?;
        Ok(StageLock { _file: file })
    }
}

/// Held while a stage runs; released when dropped, also by a kill.
#[derive(Debug)]
pub struct StageLock {
    _file: File,
}

#[cfg(test)]
mod tests;
