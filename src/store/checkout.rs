//! Checkouts: trees of the store laid out as directories, for mounting.

use super::{
    ObjectMode, Store,
    error::{IoContext, Operation, StoreError},
    hash_cache::Stamp,
    objects::set_mtime,
};
use crate::model::{EMPTY_FILE, Node, RelPath, Tree, VerityDigest, lock, parse_dump, write_dump};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// The path of a copied checkout. The first thread that asks makes the copy while it holds the lock.
type CheckoutSlot = Arc<Mutex<Option<PathBuf>>>;

/// Copied checkouts, by the tree's digest.
#[derive(Debug, Default)]
pub(super) struct Copies(Mutex<BTreeMap<VerityDigest, CheckoutSlot>>);

impl Copies {
    fn slot(&self, digest: &VerityDigest) -> CheckoutSlot {
        Arc::clone(lock(&self.0).entry(*digest).or_default())
    }
}

/// Whether a checkout's files share the store's inodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// Hard links to objects.
    Links,
    /// Copies of objects.
    Copies,
}

impl Store {
    /// Stores a tree's dump; its contents must already be objects. Returns the dump's digest.
    pub fn put_tree(&self, tree: &Tree) -> Result<VerityDigest, StoreError> {
        let (digest, _) = self.put_object(ObjectMode::Plain, &mut write_dump(tree).as_bytes())?;
        Ok(digest)
    }

    /// Reads a tree back and checks its dump against `digest`.
    pub fn tree(&self, digest: &VerityDigest) -> Result<Tree, StoreError> {
        let bytes = self.read_object(digest)?;
        parse_dump(&String::from_utf8_lossy(&bytes)).map_err(|source| StoreError::Model {
            what: format!("the tree {digest}"),
            source,
        })
    }

    /// Hashes every object of a tree, on all processors. A tree is hashed once in the life of a program.
    pub fn verify_tree(&self, digest: &VerityDigest, tree: &Tree) -> Result<(), StoreError> {
        if lock(&self.verified).contains(digest) {
            return Ok(());
        }
        // Checkouts do not link to the empty object, so the store need not have it.
        let mut objects: Vec<VerityDigest> = tree.objects().into_keys().collect();
        objects.retain(|d| *d != EMPTY_FILE);
        on_all_processors(&objects, |digest| self.verify_object(digest))?;
        lock(&self.verified).insert(*digest);
        Ok(())
    }

    /// A directory with the tree's files as hard links to hashed objects: mode 0444 or 0555, one fixed time, owned by the store's owner.
    /// Devices and pipes are left out. The dump has the owners and modes of the tree.
    pub fn checkout(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        let tree = self.tree(digest)?;
        self.verify_tree(digest, &tree)?;
        let path = self.root.join("checkouts").join(digest.to_string());
        if path.exists() {
            self.recheck(&path, &tree, Layout::Links)?;
            return Ok(path);
        }
        let fresh = self.scratch_path("checkout");
        self.lay_out(&tree, &fresh)?;
        settle(&fresh, path)
    }

    /// As [`Store::checkout`], but each file has an inode of its own, with one link: the number of links of an object tells which other
    /// trees the store has. In the store of one program it is a [`Store::copied_checkout`].
    pub fn own_checkout(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        if self.ephemeral {
            return self.copied_checkout(digest);
        }
        let tree = self.tree(digest)?;
        let path = self.root.join("trees").join(digest.to_string());
        // One thread makes the copies; the others wait for it.
        let slot = self.copies.slot(digest);
        let _making = lock(&slot);
        if path.exists() {
            self.recheck(&path, &tree, Layout::Copies)?;
            return Ok(path);
        }
        self.verify_tree(digest, &tree)?;
        let fresh = self.scratch_path("checkout");
        self.lay_out_files(&tree, &fresh, Layout::Copies)?;
        settle(&fresh, path)
    }

    /// As [`Store::checkout`], but with copies instead of links. Each tree is copied once; the copies are removed when this program ends.
    pub fn copied_checkout(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        let slot = self.copies.slot(digest);
        let mut copied = lock(&slot);
        if let Some(path) = &*copied {
            return Ok(path.clone());
        }
        let target = self.scratch_path("copied");
        self.copy_tree(digest, &target)?;
        Ok(copied.insert(target).clone())
    }

    /// Removes the copy that [`Store::copied_checkout`] made of a tree, if there is one. It must not be in use.
    pub fn remove_copied_checkout(&self, digest: &VerityDigest) {
        let slot = self.copies.slot(digest);
        if let Some(path) = lock(&slot).take() {
            // Files that cannot be removed now are removed with the scratch directory.
            let _ = fs::remove_dir_all(path);
        }
    }

    /// Makes the directory `target` with copies of the tree's files; modes and times are those of [`Store::checkout`].
    pub fn copy_tree(&self, digest: &VerityDigest, target: &Path) -> Result<(), StoreError> {
        let tree = self.tree(digest)?;
        self.verify_tree(digest, &tree)?;
        self.lay_out_files(&tree, target, Layout::Copies)
    }

    /// The store's file `file` if it has no other hard link, otherwise a copy of it, which is removed when this program ends.
    pub fn copy_if_linked(&self, file: &Path) -> Result<PathBuf, StoreError> {
        if fs::metadata(file).at(Operation::Open, file)?.nlink() == 1 {
            return Ok(file.to_owned());
        }
        let target = self.scratch_path("copied");
        self.copy_file(file, &target)?;
        Ok(target)
    }

    /// A new hard link to the store's file `file`, which is removed when this program ends.
    pub fn link_again(&self, file: &Path) -> Result<PathBuf, StoreError> {
        let target = self.scratch_path("linked");
        link_or_copy(file, &target)?;
        Ok(target)
    }

    /// Copies the store's file `file` to `target`, with its mode and time.
    pub fn copy_file(&self, file: &Path, target: &Path) -> Result<(), StoreError> {
        fs::copy(file, target).at(Operation::Create, target)?;
        set_mtime(target)
    }

    /// Makes the directory `target` with the tree's files as hard links.
    pub fn lay_out(&self, tree: &Tree, target: &Path) -> Result<(), StoreError> {
        self.lay_out_files(tree, target, Layout::Links)
    }

    fn lay_out_files(&self, tree: &Tree, target: &Path, layout: Layout) -> Result<(), StoreError> {
        fs::create_dir(target).at(Operation::Create, target)?;
        for (rel, entry) in tree.iter() {
            let path = target.join(rel.as_path());
            match &entry.node {
                Node::Directory => fs::create_dir(&path).at(Operation::Create, &path)?,
                Node::File { size: 0, .. } => {
                    let permissions = ObjectMode::of(entry.meta.mode).permissions();
                    File::create(&path).at(Operation::Create, &path)?;
                    set_mtime(&path)?;
                    fs::set_permissions(&path, permissions).at(Operation::Write, &path)?;
                }
                Node::File { digest, .. } => {
                    let mode = ObjectMode::of(entry.meta.mode);
                    if layout == Layout::Copies {
                        self.copy_file(&self.object_inode(digest, mode)?, &path)?;
                        let made = fs::symlink_metadata(&path).at(Operation::Open, &path)?;
                        self.known.insert_copy(digest, Stamp::from(&made));
                    // The object nearly always has a file of this mode, so its existence is not checked first.
                    } else if fs::hard_link(self.object_file(digest, mode), &path).is_err() {
                        link_or_copy(&self.object_inode(digest, mode)?, &path)?;
                    }
                }
                Node::Symlink { target } => {
                    symlink(OsStr::from_bytes(target), &path).at(Operation::Create, &path)?;
                    set_mtime(&path)?;
                }
                Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Fifo => {}
            }
        }
        // After the files, because adding a name to a directory sets its time.
        let directories = tree.iter().rev().filter(|(_, entry)| entry.node == Node::Directory);
        for (rel, _) in directories {
            set_mtime(&target.join(rel.as_path()))?;
        }
        set_mtime(target)
    }

    /// Checks an existing checkout: every directory has exactly the entries of the tree, and every file is an inode of the store (which
    /// was just hashed) or has the right digest itself. A copy also has its mode and no other link.
    fn recheck(&self, path: &Path, tree: &Tree, layout: Layout) -> Result<(), StoreError> {
        let mut unknown = Vec::new();
        let mut children: BTreeMap<Option<RelPath>, usize> = BTreeMap::from([(None, 0)]);
        for (rel, entry) in tree.iter() {
            if matches!(
                entry.node,
                Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Fifo
            ) {
                continue;
            }
            *children.entry(rel.parent()).or_default() += 1;
            if entry.node == Node::Directory {
                children.entry(Some(rel.clone())).or_default();
            }
            let file = path.join(rel.as_path());
            let same = match &entry.node {
                Node::File { digest, size } if layout == Layout::Copies => {
                    let Ok(found) = fs::symlink_metadata(&file) else {
                        return Err(StoreError::Checkout { path: file });
                    };
                    let permissions = ObjectMode::of(entry.meta.mode).permissions();
                    if *size > 0 && !self.known.holds_copy(digest, &found) {
                        unknown.push((file.clone(), *digest));
                    }
                    found.is_file()
                        && found.len() == *size
                        && found.nlink() == 1
                        && found.mode() & 0o7777 == permissions.mode() & 0o7777
                }
                Node::File { digest, size } => self.is_object(&file, digest, *size, ObjectMode::of(entry.meta.mode))?,
                Node::Symlink { target } => fs::read_link(&file).is_ok_and(|t| t.as_os_str().as_bytes() == target),
                _ => fs::symlink_metadata(&file).is_ok_and(|m| m.is_dir()),
            };
            if !same {
                return Err(StoreError::Checkout { path: file });
            }
        }
        for (dir, expected) in children {
            let dir = dir.map_or_else(|| path.to_owned(), |d| path.join(d.as_path()));
            if super::objects::sorted_names(&dir)?.len() != expected {
                return Err(StoreError::Checkout { path: dir });
            }
        }
        on_all_processors(&unknown, |(file, digest)| {
            let content = File::open(file).at(Operation::Open, file)?;
            let found = content.metadata().at(Operation::Open, file)?;
            if crate::verity::digest_reader(content).at(Operation::Read, file)?.0 != *digest {
                return Err(StoreError::Checkout { path: file.clone() });
            }
            self.known.insert_copy(digest, Stamp::from(&found));
            Ok(())
        })
    }

    /// Whether `file` has the content of the object `digest`.
    fn is_object(&self, file: &Path, digest: &VerityDigest, size: u64, mode: ObjectMode) -> Result<bool, StoreError> {
        let Ok(found) = fs::symlink_metadata(file) else {
            return Ok(false);
        };
        if !found.is_file() || found.len() != size {
            return Ok(false);
        }
        if size == 0 || self.known.holds(digest, mode, &found) {
            return Ok(true);
        }
        let inode = self.object_inode(digest, mode)?;
        if fs::metadata(&inode).at(Operation::Open, &inode)?.ino() == found.ino() {
            return Ok(true);
        }
        let content = File::open(file).at(Operation::Open, file)?;
        Ok(crate::verity::digest_reader(content).at(Operation::Read, file)?.0 == *digest)
    }
}

/// Gives a complete checkout its name `path`.
fn settle(fresh: &Path, path: PathBuf) -> Result<PathBuf, StoreError> {
    match fs::rename(fresh, &path) {
        Ok(()) => Ok(path),
        // Another builder was faster; its checkout is the same.
        Err(_) if path.exists() => {
            let _ = fs::remove_dir_all(fresh);
            Ok(path)
        }
        Err(e) => Err(e).at(Operation::Rename, &path),
    }
}

/// Does the work for all items, in as many threads as there are processors.
fn on_all_processors<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let chunk = items.len().div_ceil(workers).max(1);
    let work = &work;
    thread::scope(|scope| {
        let handles: Vec<_> = items
            .chunks(chunk)
            .map(|part| scope.spawn(move || part.iter().try_for_each(work)))
            .collect();
        handles
            .into_iter()
            .try_for_each(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Makes a hard link, or a copy where the file system allows no further link (ext4 has at most 65,000 links to an inode).
fn link_or_copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::hard_link(from, to) {
        Err(e) if e.kind() == io::ErrorKind::TooManyLinks || e.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).at(Operation::Link, to)?;
            Ok(())
        }
        linked => linked.at(Operation::Link, to),
    }
}
