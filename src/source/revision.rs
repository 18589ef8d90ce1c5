//! The revision of a project: the commit that the checkout is at, and the files of the project that differ from it.
//!
//! Files are compared by their bytes, their kind and the execute bit of their owner. git's index, its configuration and its attributes
//! have no part in it: they say what git would overlook or convert.

use super::{
    SourceEntry, SourceError, SourceTree,
    commit::{CommitEntry, Objects},
    repository::{GIT, Repository},
    tree::entry_at,
};
use crate::model::{GitSha, RelPath};
use gix_hash::ObjectId;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    os::unix::ffi::OsStrExt,
};

/// The revision of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The commit; `None` outside a repository, before its first commit, and when the commit has nothing of the project.
    pub sha: Option<GitSha>,
    /// Differences between the commit and the files that a build reads, by path.
    pub dirty: Vec<Uncommitted>,
}

/// A difference between the commit and a file of the project; a few words and the path, relative to the project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uncommitted {
    /// The path.
    pub path: RelPath,
    /// What is different about it.
    pub difference: &'static str,
}

impl fmt::Display for Uncommitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.difference)
    }
}

impl Revision {
    /// Compares `paths`, the parts of the project that a build reads, with the commit of the checkout that the project is in.
    ///
    /// # Errors
    /// The repository or a file of the project cannot be read.
    pub fn of(tree: &SourceTree, paths: &BTreeSet<RelPath>) -> Result<Self, SourceError> {
        let Some((repository, inside)) = Repository::of(tree)? else {
            return Ok(Self::default());
        };
        let Some(head) = repository.head()? else {
            return Ok(Self::default());
        };
        let objects = repository.objects(head.kind())?;
        let mut project = CommitEntry::Directory {
            id: objects.top(&head)?,
        };
        for name in inside.components() {
            match child(&objects, &project, name.as_os_str().as_bytes())? {
                Some(entry) => project = entry,
                None => return Ok(Self::default()),
            }
        }
        let mut compare = Compare {
            tree,
            dirty: BTreeSet::new(),
        };
        let mut tracked = false;
        for path in paths {
            let mut committed = Some(project);
            for name in path.components() {
                committed = match &committed {
                    Some(entry) => child(&objects, entry, name)?,
                    None => None,
                };
            }
            tracked |= committed.is_some();
            compare.path(&objects, path, committed)?;
        }
        // The surrounding repository may have nothing of this directory. Its commit would then say nothing about the files.
        if !tracked {
            return Ok(Self::default());
        }
        Ok(Self {
            sha: Some(
                head.to_string()
                    .parse()
                    .map_err(|_| super::repository::bad(tree.path(), format!("{head} is no commit of git")))?,
            ),
            dirty: compare.dirty.into_iter().collect(),
        })
    }
}

/// The entry `name` of a directory in the commit.
fn child(objects: &Objects, entry: &CommitEntry, name: &[u8]) -> Result<Option<CommitEntry>, SourceError> {
    match entry {
        CommitEntry::Directory { id } => Ok(objects.directory(id)?.remove(name)),
        _ => Ok(None),
    }
}

struct Compare<'a> {
    tree: &'a SourceTree,
    dirty: BTreeSet<Uncommitted>,
}

impl Compare<'_> {
    fn differs(&mut self, path: &RelPath, difference: &'static str) {
        let path = path.clone();
        self.dirty.insert(Uncommitted { path, difference });
    }

    /// Compares the entry at `path` with that of the commit.
    fn path(&mut self, objects: &Objects, path: &RelPath, committed: Option<CommitEntry>) -> Result<(), SourceError> {
        let present = self.tree.entry(path)?;
        match (committed, present) {
            (None, None) => {}
            (None, Some(SourceEntry::Directory)) => self.uncommitted_directory(objects, path)?,
            (None, Some(_)) => self.differs(path, "not committed"),
            (Some(_), None) => self.differs(path, "missing"),
            (
                Some(CommitEntry::File {
                    id,
                    executable: committed,
                }),
                Some(SourceEntry::File { executable }),
            ) => {
                let (file, size) = self.tree.open_file(path)?;
                let digest = objects.digest(file, size);
                let digest = digest.map_err(SourceError::io("read", self.tree.full(path)))?;
                if digest != Some(id) {
                    self.differs(path, "other content");
                } else if executable != committed {
                    self.differs(path, if committed { "not executable" } else { "executable" });
                }
            }
            (Some(CommitEntry::Symlink { id }), Some(SourceEntry::Symlink { target })) => {
                let digest = objects.digest(target.as_slice(), target.len() as u64);
                if digest.map_err(SourceError::io("read", self.tree.full(path)))? != Some(id) {
                    self.differs(path, "other target");
                }
            }
            (Some(CommitEntry::Directory { id }), Some(SourceEntry::Directory)) => {
                self.directory(objects, path, objects.directory(&id)?)?;
            }
            (Some(CommitEntry::Submodule { id }), Some(SourceEntry::Directory)) => self.submodule(path, &id)?,
            (Some(_), Some(_)) => self.differs(path, "another kind of file"),
        }
        Ok(())
    }

    /// Compares the directory at `path`, which the commit has.
    fn directory(
        &mut self,
        objects: &Objects,
        path: &RelPath,
        mut committed: BTreeMap<Vec<u8>, CommitEntry>,
    ) -> Result<(), SourceError> {
        for name in self.tree.names(Some(path))? {
            // The repository of a submodule, which is no input either.
            if name != GIT.as_bytes() {
                let entry = committed.remove(&name);
                self.path(objects, &below(path, &name)?, entry)?;
            }
        }
        for name in committed.into_keys() {
            self.differs(&below(path, &name)?, "missing");
        }
        Ok(())
    }

    /// Names every file of a directory that the commit does not have. git keeps no empty directories, but a build takes them.
    fn uncommitted_directory(&mut self, objects: &Objects, path: &RelPath) -> Result<(), SourceError> {
        let before = self.dirty.len();
        self.directory(objects, path, BTreeMap::new())?;
        if self.dirty.len() == before {
            self.differs(path, "an empty directory, which git does not keep");
        }
        Ok(())
    }

    /// Compares a submodule with the commit that the project's commit names, in the submodule's own repository.
    fn submodule(&mut self, path: &RelPath, commit: &ObjectId) -> Result<(), SourceError> {
        let git = self.tree.full(path).join(GIT);
        if entry_at(&git)?.is_none() {
            self.differs(path, "a submodule that is not checked out");
            return Ok(());
        }
        let objects = Repository::at(&git)?.objects(commit.kind())?;
        if !objects.has(commit) {
            self.differs(path, "a submodule without the commit that the project names");
            return Ok(());
        }
        self.directory(&objects, path, objects.directory(&objects.top(commit)?)?)
    }
}

/// The entry `name` of the directory at `path`.
fn below(path: &RelPath, name: &[u8]) -> Result<RelPath, SourceError> {
    let name = RelPath::new(name).map_err(|e| super::repository::bad(path.as_path(), e.to_string()))?;
    Ok(path.join(&name))
}
