//! Import of files of the repository as trees, which stages see and whose digests enter stage keys.

use super::{
    ObjectMode, Store,
    error::{IoContext, Operation, StoreError},
    objects::sorted_names,
};
use crate::model::{Entry, Epoch, Meta, Node, RelPath, Tree};
use std::{
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

/// Most entries of a directory of stage files; more of them is a mistake, such as the path of a build directory.
const MAX_ENTRIES: usize = 20_000;

impl Store {
    /// Stores the directory `dir` (or a single file, under its own name) as a tree: owned by root, mode 0755 or 0644 by the owner's
    /// execute bit, as in git, times set to `epoch`. Names for which `skip` returns true are left out.
    pub fn snapshot(&self, dir: &Path, epoch: Epoch, skip: &dyn Fn(&RelPath) -> bool) -> Result<Tree, StoreError> {
        let mut tree = Tree::new(Meta::root(0o755, epoch));
        let meta = fs::symlink_metadata(dir).at(Operation::Open, dir)?;
        if meta.is_dir() {
            self.import_directory(&mut tree, dir, None, epoch, skip)?;
        } else {
            let name = dir.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
            self.import_entry(&mut tree, dir, rel(dir, name)?, epoch)?;
        }
        Ok(tree)
    }

    /// Adds everything below `dir` to the tree.
    fn import_directory(
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
                    problem: format!("the directory holds more than {MAX_ENTRIES} files"),
                });
            }
            self.import_entry(tree, &path, name.clone(), epoch)?;
            if tree.get(&name).is_some_and(|e| e.node == Node::Directory) {
                self.import_directory(tree, &path, Some(&name), epoch, skip)?;
            }
        }
        Ok(())
    }

    /// Adds one file, directory or symbolic link to the tree.
    fn import_entry(&self, tree: &mut Tree, path: &Path, name: RelPath, epoch: Epoch) -> Result<(), StoreError> {
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
            let (digest, size) = self.put_object(ObjectMode::of_executable(executable), &mut file)?;
            (Node::File { size, digest }, if executable { 0o755 } else { 0o644 })
        } else {
            return Err(StoreError::Input {
                path: path.to_owned(),
                problem: "only files, directories and symbolic links can be inputs".to_owned(),
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
