//! Import of files of the repository as trees, which stages see and whose digests enter stage keys.

use super::{ObjectMode, Store, error::StoreError};
use crate::{
    model::{Entry, Epoch, Meta, Node, RelPath, Tree},
    source::{SourceEntry, SourceTree},
};

/// Most entries of a directory of stage files; more of them is a mistake, such as the path of a build directory.
const MAX_ENTRIES: usize = 20_000;

/// Name of a repository or, in a submodule, of the file that names it. git tracks none, so it is no input.
const GIT: &[u8] = b".git";

impl Store {
    /// Stores the directory `path` of a project (or a single file, under its own name) as a tree: owned by root, mode 0755 or 0644 by the
    /// owner's execute bit, as in git, times set to `epoch`. Names for which `skip` returns true, and `.git`, are left out.
    pub fn import(
        &self,
        source: &SourceTree,
        path: &RelPath,
        epoch: Epoch,
        skip: &dyn Fn(&RelPath) -> bool,
    ) -> Result<Tree, StoreError> {
        let mut tree = Tree::new(Meta::root(0o755, epoch));
        match source.entry(path)? {
            Some(SourceEntry::Directory) => self.import_directory(&mut tree, source, path, None, epoch, skip)?,
            found => {
                let name = RelPath::new(path.name()).map_err(|e| input(source, path, e.to_string()))?;
                self.import_entry(&mut tree, source, path, found, name, epoch)?;
            }
        }
        Ok(tree)
    }

    /// Adds everything below `dir` to the tree, in its directory `base`.
    fn import_directory(
        &self,
        tree: &mut Tree,
        source: &SourceTree,
        dir: &RelPath,
        base: Option<&RelPath>,
        epoch: Epoch,
        skip: &dyn Fn(&RelPath) -> bool,
    ) -> Result<(), StoreError> {
        for name in source.names(Some(dir))? {
            if name == GIT {
                continue;
            }
            let name = RelPath::new(&name).map_err(|e| input(source, dir, e.to_string()))?;
            let path = dir.join(&name);
            let name = base.map_or_else(|| name.clone(), |b| b.join(&name));
            if skip(&name) {
                continue;
            }
            if tree.len() >= MAX_ENTRIES {
                let problem = format!("the directory holds more than {MAX_ENTRIES} files");
                return Err(input(source, dir, problem));
            }
            let found = source.entry(&path)?;
            let is_directory = found == Some(SourceEntry::Directory);
            self.import_entry(tree, source, &path, found, name.clone(), epoch)?;
            if is_directory {
                self.import_directory(tree, source, &path, Some(&name), epoch, skip)?;
            }
        }
        Ok(())
    }

    /// Adds one file, directory or symbolic link to the tree.
    fn import_entry(
        &self,
        tree: &mut Tree,
        source: &SourceTree,
        path: &RelPath,
        found: Option<SourceEntry>,
        name: RelPath,
        epoch: Epoch,
    ) -> Result<(), StoreError> {
        let (node, mode) = match found {
            Some(SourceEntry::Directory) => (Node::Directory, 0o755),
            Some(SourceEntry::Symlink { target }) => (Node::Symlink { target }, 0o777),
            Some(SourceEntry::File { executable }) => {
                let (mut file, _) = source.open_file(path)?;
                let (digest, size) = self.put_object(ObjectMode::of_executable(executable), &mut file)?;
                (Node::File { size, digest }, if executable { 0o755 } else { 0o644 })
            }
            Some(SourceEntry::Special(kind)) => {
                let problem = format!("it is {kind}; only files, directories and symbolic links can be inputs");
                return Err(input(source, path, problem));
            }
            None => return Err(input(source, path, "there is no such file".to_owned())),
        };
        let meta = Meta::root(mode, epoch);
        let inserted = tree.insert(name, Entry { meta, node });
        inserted.map_err(|e| input(source, path, e.to_string()))
    }
}

fn input(source: &SourceTree, path: &RelPath, problem: String) -> StoreError {
    StoreError::Input {
        path: source.full(path),
        problem,
    }
}
