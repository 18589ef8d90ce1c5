//! Trees in the store, and trees laid out for mounting.

use super::{
    Store,
    error::{IoContext, Operation, StoreError},
    objects::set_mtime,
};
use crate::model::{Node, RelPath, Tree, VerityDigest, parse_dump, write_dump};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// A place that is filled by who comes first, while others wait.
type CheckoutSlot = Arc<Mutex<Option<PathBuf>>>;

/// Where the copy of each tree is that one was made of.
#[derive(Debug, Default)]
pub(super) struct Copies(Mutex<BTreeMap<VerityDigest, CheckoutSlot>>);

impl Copies {
    fn place(&self, digest: &VerityDigest) -> CheckoutSlot {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(*digest).or_default())
    }
}

impl Store {
    /// Stores a tree's dump; its contents must already be objects. Returns the dump's digest.
    pub fn put_tree(&self, tree: &Tree) -> Result<VerityDigest, StoreError> {
        let (digest, _) = self.put_object(false, &mut write_dump(tree).as_bytes())?;
        Ok(digest)
    }

    /// Reads a tree back, its dump checked against `digest`.
    pub fn tree(&self, digest: &VerityDigest) -> Result<Tree, StoreError> {
        let bytes = self.read_object(digest)?;
        parse_dump(&String::from_utf8_lossy(&bytes)).map_err(|source| StoreError::Model {
            what: format!("the tree {digest}"),
            source,
        })
    }

    /// Hashes every object of a tree, on all processors; once per tree and program.
    pub fn verify_tree(&self, digest: &VerityDigest, tree: &Tree) -> Result<(), StoreError> {
        if self.verified.lock().is_ok_and(|done| done.contains(digest)) {
            return Ok(());
        }
        let objects: Vec<VerityDigest> = tree.objects().into_keys().collect();
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let chunk = objects.len().div_ceil(workers).max(1);
        thread::scope(|scope| {
            let handles: Vec<_> = objects
                .chunks(chunk)
                .map(|part| scope.spawn(move || part.iter().try_for_each(|d| self.verify_object_or_empty(d))))
                .collect();
            handles
                .into_iter()
                .map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<()>, _>>()
        })?;
        if let Ok(mut done) = self.verified.lock() {
            done.insert(*digest);
        }
        Ok(())
    }

    fn verify_object_or_empty(&self, digest: &VerityDigest) -> Result<(), StoreError> {
        if *digest == crate::verity::digest_bytes(b"") {
            Ok(())
        } else {
            self.verify_object(digest)
        }
    }

    /// A directory holding the tree's files as hard links to checked objects: 0444 or 0555, one fixed time, owned by
    /// the store's owner. Devices and pipes are left out; owners and modes are in the dump.
    pub fn checkout(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        let tree = self.tree(digest)?;
        self.verify_tree(digest, &tree)?;
        let path = self.root.join("checkouts").join(digest.to_string());
        if path.exists() {
            self.recheck(&path, &tree)?;
            return Ok(path);
        }
        let fresh = self.scratch_path("checkout");
        self.lay_out(&tree, &fresh)?;
        match fs::rename(&fresh, &path) {
            Ok(()) => Ok(path),
            // Another builder was first: its checkout is as good as ours.
            Err(_) if path.exists() => {
                let _ = fs::remove_dir_all(&fresh);
                Ok(path)
            }
            Err(e) => Err(e).at(Operation::Rename, &path),
        }
    }

    /// As [`Store::checkout`], of files that are copies: made once, and gone when this program ends.
    pub fn copied_checkout(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        let place = self.copies.place(digest);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &*place {
            return Ok(path.clone());
        }
        let target = self.scratch_path("copied");
        self.copy_tree(digest, &target)?;
        Ok(place.insert(target).clone())
    }

    /// Removes the copy that [`Store::copied_checkout`] made of a tree, if there is one. Nothing may use it any more.
    pub fn remove_copied_checkout(&self, digest: &VerityDigest) {
        let place = self.copies.place(digest);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = place.take() {
            // What cannot be removed now goes with the scratch directory it is in.
            let _ = fs::remove_dir_all(path);
        }
    }

    /// Makes `target`, with copies of the tree's files as [`Store::checkout`] would have them.
    pub fn copy_tree(&self, digest: &VerityDigest, target: &Path) -> Result<(), StoreError> {
        let tree = self.tree(digest)?;
        self.verify_tree(digest, &tree)?;
        self.lay_out_files(&tree, target, true)
    }

    /// One of the store's files if that is its only name, and else a copy of it, which goes when this program ends.
    pub fn copy_if_linked(&self, file: &Path) -> Result<PathBuf, StoreError> {
        if fs::metadata(file).at(Operation::Open, file)?.nlink() == 1 {
            return Ok(file.to_owned());
        }
        let target = self.scratch_path("copied");
        self.copy_file(file, &target)?;
        Ok(target)
    }

    /// Copies one of the store's files to `target`, with its mode and time.
    pub fn copy_file(&self, file: &Path, target: &Path) -> Result<(), StoreError> {
        fs::copy(file, target).at(Operation::Create, target)?;
        set_mtime(target)
    }

    /// Makes `target` and lays the tree out below it.
    pub fn lay_out(&self, tree: &Tree, target: &Path) -> Result<(), StoreError> {
        self.lay_out_files(tree, target, false)
    }

    fn lay_out_files(&self, tree: &Tree, target: &Path, copies: bool) -> Result<(), StoreError> {
        fs::create_dir(target).at(Operation::Create, target)?;
        for (rel, entry) in tree.iter() {
            let path = target.join(rel.as_path());
            match &entry.node {
                Node::Directory => fs::create_dir(&path).at(Operation::Create, &path)?,
                Node::File { size: 0, .. } => {
                    let mode = if entry.meta.mode & 0o111 == 0 { 0o444 } else { 0o555 };
                    File::create(&path).at(Operation::Create, &path)?;
                    set_mtime(&path)?;
                    fs::set_permissions(&path, Permissions::from_mode(mode)).at(Operation::Write, &path)?;
                }
                Node::File { digest, .. } => {
                    let executable = entry.meta.mode & 0o111 != 0;
                    if copies {
                        self.copy_file(&self.object_inode(digest, executable)?, &path)?;
                    // Nearly always the inode is there.
                    } else if fs::hard_link(self.object_file(digest, executable), &path).is_err() {
                        link_or_copy(&self.object_inode(digest, executable)?, &path)?;
                    }
                }
                Node::Symlink { target } => {
                    symlink(OsStr::from_bytes(target), &path).at(Operation::Create, &path)?;
                    set_mtime(&path)?;
                }
                Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Fifo => {}
            }
        }
        // Last, because adding a name to a directory sets its time.
        let directories = tree.iter().rev().filter(|(_, entry)| entry.node == Node::Directory);
        for (rel, _) in directories {
            set_mtime(&target.join(rel.as_path()))?;
        }
        set_mtime(target)
    }

    /// A checkout that exists is used only if every directory holds what it should and no more, and every file is one of
    /// the store's inodes (which were just hashed) or hashes right itself.
    fn recheck(&self, path: &Path, tree: &Tree) -> Result<(), StoreError> {
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
            let place = path.join(rel.as_path());
            let same = match &entry.node {
                Node::File { digest, size } => self.is_object(&place, digest, *size, entry.meta.mode & 0o111 != 0)?,
                Node::Symlink { target } => fs::read_link(&place).is_ok_and(|t| t.as_os_str().as_bytes() == target),
                _ => fs::symlink_metadata(&place).is_ok_and(|m| m.is_dir()),
            };
            if !same {
                return Err(StoreError::Checkout { path: place });
            }
        }
        for (dir, expected) in children {
            let dir = dir.map_or_else(|| path.to_owned(), |d| path.join(d.as_path()));
            if super::objects::sorted_names(&dir)?.len() != expected {
                return Err(StoreError::Checkout { path: dir });
            }
        }
        Ok(())
    }

    fn is_object(&self, place: &Path, digest: &VerityDigest, size: u64, executable: bool) -> Result<bool, StoreError> {
        let Ok(found) = fs::symlink_metadata(place) else {
            return Ok(false);
        };
        if !found.is_file() || found.len() != size {
            return Ok(false);
        }
        if size == 0 || self.known.holds(digest, executable, &found) {
            return Ok(true);
        }
        let inode = self.object_inode(digest, executable)?;
        if fs::metadata(&inode).at(Operation::Open, &inode)?.ino() == found.ino() {
            return Ok(true);
        }
        let file = File::open(place).at(Operation::Open, place)?;
        Ok(crate::verity::digest_reader(file).at(Operation::Read, place)?.0 == *digest)
    }
}

/// Hard links where the file system has room for one more, copies otherwise (ext4 holds 65,000 links to an inode).
fn link_or_copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::hard_link(from, to) {
        Err(e) if e.kind() == io::ErrorKind::TooManyLinks || e.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).at(Operation::Link, to)?;
            Ok(())
        }
        linked => linked.at(Operation::Link, to),
    }
}
