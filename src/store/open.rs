//! `Store`: an open store, and how one is opened.

use super::{
    Scratch,
    artifact::Spares,
    buffer::Buffers,
    checkout::Copies,
    error::{IoContext, Operation, StoreError},
    hash_cache::HashCache,
    memory::sweep_memory,
    objects::{is_there, sorted_names},
    scratch::making,
};
use crate::model::VerityDigest;
use nix::unistd::geteuid;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Content of the file `format`.
const FORMAT: &str = "pnb store 1\n";
/// Directories of a store.
const DIRECTORIES: &[&str] = &[
    "objects",
    "sha256",
    "records",
    "checkouts",
    "trees",
    "logs",
    "locks",
    "notes",
    "downloads",
    "failed",
    "tmp",
];

/// Mode of the store's directory: no other user reads what is in it.
const PRIVATE: u32 = 0o700;

/// An open store. It can be shared between threads, and holds the store's lock while it lives.
#[derive(Debug)]
pub struct Store {
    pub(super) root: PathBuf,
    /// Whether the store is used by this program only.
    pub(super) ephemeral: bool,
    /// Directory of `objects/` and `sha256/`: `root`, or that of the store that shares its objects.
    pub(super) content: PathBuf,
    /// The stores that this one uses, which must live as long.
    pub(super) shared: SharedStores,
    scratch: Scratch,
    _lock: File,
    /// Trees whose objects this program has hashed.
    pub(super) verified: Mutex<BTreeSet<VerityDigest>>,
    /// Objects that this program has hashed.
    pub(super) known: Arc<HashCache>,
    /// Trees that were copied for this program.
    pub(super) copies: Copies,
    /// Copies of objects that this program will export.
    pub(super) spares: Spares,
    pub(super) buffers: Buffers,
}

/// Other stores that a store uses.
#[derive(Clone, Debug, Default)]
pub struct SharedStores {
    /// The store that holds the pinned files, and receives those that are fetched.
    pub pinned: Option<Arc<Store>>,
    /// The store whose objects this one uses, and adds to.
    pub objects: Option<Arc<Store>>,
}

/// How a store is opened.
enum OpenMode {
    /// Together with other builders.
    Shared,
    /// Alone.
    Exclusive,
    /// For this program only.
    Ephemeral(SharedStores),
}

impl Store {
    /// Opens the store at `root`, makes it if there is none, and removes scratch directories of programs that are gone.
    pub fn open(root: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_as(root, OpenMode::Shared)
    }

    /// Opens a store at `root` that is used by this program only: files of artifacts may be links to its objects.
    ///
    /// A store that uses the objects of another one has none of its records. Every stage therefore runs again, but an output that comes
    /// out the same is not written again. An object is still found only by the digest of content that was made here.
    pub fn open_ephemeral(root: &Path, shared: SharedStores) -> Result<Arc<Self>, StoreError> {
        Self::open_as(root, OpenMode::Ephemeral(shared))
    }

    /// Opens the store alone, for garbage collection; fails while a builder uses it.
    pub fn open_exclusive(root: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_as(root, OpenMode::Exclusive)
    }

    fn open_as(root: &Path, mode: OpenMode) -> Result<Arc<Self>, StoreError> {
        let root = prepare(root)?;
        check_format(&root)?;
        let lock = lock(&root, &mode)?;
        let scratch = Scratch::new(&root.join("tmp"))?;
        sweep_memory()?;
        let (ephemeral, shared) = match mode {
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
            verified: Mutex::default(),
            copies: Copies::default(),
            spares: Spares::default(),
            buffers: Buffers::default(),
        }))
    }

    /// Whether the store is used by this program only, and removed by it.
    pub fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// The store that holds the pinned files: this one, unless another one shares them.
    pub fn of_pinned(&self) -> &Self {
        self.shared.pinned.as_deref().unwrap_or(self)
    }

    /// Absolute path of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below this program's own scratch directory that was not used before.
    pub fn scratch_path(&self, name: &str) -> PathBuf {
        self.scratch.fresh(name)
    }

    /// Directory of unfinished downloads, shared by all builders so that each can resume them.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }
}

/// Makes the directories of the store; returns its absolute path. A directory that holds other files is an error.
fn prepare(root: &Path) -> Result<PathBuf, StoreError> {
    if is_there(root)? && !is_there(&root.join("format"))? {
        // While another program makes the store, the directories and the lock exist before the format.
        let ours = |name: &OsString| DIRECTORIES.iter().any(|d| name == d) || name == "lock";
        if !sorted_names(root)?.iter().all(ours) {
            let path = root.to_owned();
            return Err(StoreError::NotAStore { path });
        }
    }
    for dir in DIRECTORIES {
        let path = root.join(dir);
        fs::create_dir_all(&path).at(Operation::Create, &path)?;
    }
    let root = root.canonicalize().at(Operation::Open, root)?;
    // Objects have the modes of outputs, which others may read, and inputs may be files that only this user may.
    let found = fs::metadata(&root).at(Operation::Open, &root)?;
    if found.permissions().mode() & 0o077 != 0 && found.uid() == geteuid().as_raw() {
        fs::set_permissions(&root, Permissions::from_mode(PRIVATE)).at(Operation::Create, &root)?;
    }
    Ok(root)
}

/// Checks the store's format; writes it in a new store.
fn check_format(root: &Path) -> Result<(), StoreError> {
    let format = root.join("format");
    match fs::read_to_string(&format) {
        Ok(text) if text == FORMAT => Ok(()),
        Ok(text) => Err(StoreError::Format {
            path: format,
            found: text,
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let tmp = root.join("tmp");
            let _making = making(&tmp)?;
            let fresh = tmp.join("format");
            fs::write(&fresh, FORMAT).at(Operation::Write, &fresh)?;
            fs::rename(&fresh, &format).at(Operation::Rename, &format)
        }
        Err(e) => Err(e).at(Operation::Read, &format),
    }
}

/// Locks the store, without waiting.
fn lock(root: &Path, mode: &OpenMode) -> Result<File, StoreError> {
    let path = root.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .at(Operation::Open, &path)?;
    let taken = match mode {
        OpenMode::Exclusive => lock.try_lock(),
        OpenMode::Shared | OpenMode::Ephemeral(_) => lock.try_lock_shared(),
    };
    match taken {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path: root.to_owned() }),
        Err(TryLockError::Error(e)) => Err(e).at(Operation::Lock, &path),
    }
}
