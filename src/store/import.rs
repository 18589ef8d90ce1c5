//! Files of the repository as trees: what a stage sees of them, and what enters its key.

use super::{
    Store,
    error::{IoContext, Operation, StoreError},
    objects::sorted_names,
};
use crate::model::{Entry, Epoch, Meta, Node, RelPath, Tree};
use std::{
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

/// More than this in one directory of stage files is a mistake, such as pointing at a build directory.
const MAX_ENTRIES: usize = 20_000;

impl Store {
    /// Takes the directory `dir` (or a single file, under its own name) into the store: root-owned, 0755 or 0644 by the
    /// owner's execute bit as git keeps it, times set to `epoch`. Names for which `skip` says so are left out.
    pub fn snapshot(&self, dir: &Path, epoch: Epoch, skip: &dyn Fn(&RelPath) -> bool) -> Result<Tree, StoreError> {
        let mut tree = Tree::new(Meta::root(0o755, epoch));
        let meta = fs::symlink_metadata(dir).at(Operation::Open, dir)?;
        if meta.is_dir() {
            self.take_directory(&mut tree, dir, None, epoch, skip)?;
        } else {
            let name = dir.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
            self.take(&mut tree, dir, rel(dir, name)?, epoch)?;
        }
        Ok(tree)
    }

    fn take_directory(
        &self,
        tree: &mut Tree,
        dir: &Path,
        base: Option<&RelPath>,
        epoch: Epoch,
        skip: &dyn Fn(&RelPath) -> bool,
    ) -> Result<(), StoreError> {
        for name in sorted_names(dir)? {
            let path = dir.join(&name);
            let name = rel(&path, name.as_bytes())?;
            let name = base.map_or_else(|| name.clone(), |b| b.join(&name));
            if skip(&name) {
                continue;
            }
            if tree.len() >= MAX_ENTRIES {
                return Err(StoreError::Input {
                    path: dir.to_owned(),
                    problem: format!("it holds more than {MAX_ENTRIES} files"),
                });
            }
            self.take(tree, &path, name.clone(), epoch)?;
            if tree.get(&name).is_some_and(|e| e.node == Node::Directory) {
                self.take_directory(tree, &path, Some(&name), epoch, skip)?;
            }
        }
        Ok(())
    }

    fn take(&self, tree: &mut Tree, path: &Path, name: RelPath, epoch: Epoch) -> Result<(), StoreError> {
        let found = fs::symlink_metadata(path).at(Operation::Open, path)?;
        let executable = found.permissions().mode() & 0o100 != 0;
        let (node, mode) = if found.is_dir() {
            (Node::Directory, 0o755)
        } else if found.is_symlink() {
            let target = fs::read_link(path).at(Operation::Read, path)?;
            let target = target.as_os_str().as_bytes().to_vec();
            (Node::Symlink { target }, 0o777)
        } else if found.is_file() {
            let mut file = File::open(path).at(Operation::Open, path)?;
            let (digest, size) = self.put_object(executable, &mut file)?;
            (Node::File { size, digest }, if executable { 0o755 } else { 0o644 })
        } else {
            return Err(StoreError::Input {
                path: path.to_owned(),
                problem: "it is neither a file, a directory nor a symbolic link".to_owned(),
            });
        };
        let meta = Meta::root(mode, epoch);
        tree.insert(name, Entry { meta, node }).map_err(|e| StoreError::Input {
            path: path.to_owned(),
            problem: e.to_string(),
        })
    }
}

fn rel(path: &Path, name: &[u8]) -> Result<RelPath, StoreError> {
    RelPath::new(name).map_err(|e| StoreError::Input {
        path: path.to_owned(),
        problem: e.to_string(),
    })
}
