//! Where the repository of a project is, and the commit that its `HEAD` names.
//!
//! Layout: gitrepository-layout(5). A checkout has a directory `.git`, or a file `.git` with the line `gitdir: PATH` in a linked worktree
//! or a submodule. Of the repository's configuration nothing is read.

use super::{SourceError, SourceTree, commit::Objects, tree::entry_at};
use gix_hash::{Kind, ObjectId};
use nix::fcntl::OFlag;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// Name of the repository in the top directory of a checkout.
pub(super) const GIT: &str = ".git";
/// Most bytes of a file that names another file or a commit.
const MAX_POINTER: u64 = 64 << 10;
/// Most bytes of the file with all packed references.
const MAX_PACKED: u64 = 256 << 20;
/// Most symbolic references in a row, as in git.
const MAX_HOPS: usize = 5;

/// The directories of a repository.
#[derive(Debug)]
pub(super) struct Repository {
    /// That of this checkout, with `HEAD`.
    own: PathBuf,
    /// That of all checkouts of the repository, with the references and objects.
    common: PathBuf,
}

impl Repository {
    /// Finds the repository of the checkout that `tree` is in, and the path of `tree` in that checkout; `None` outside a checkout.
    pub(super) fn of(tree: &SourceTree) -> Result<Option<(Self, PathBuf)>, SourceError> {
        for dir in tree.path().ancestors() {
            let git = dir.join(GIT);
            let Some(meta) = entry_at(&git)? else { continue };
            tree.check_owner(&git, meta.uid())?;
            let inside = tree.path().strip_prefix(dir).unwrap_or(Path::new("")).to_owned();
            return Ok(Some((Self::at(&git)?, inside)));
        }
        Ok(None)
    }

    /// Opens the repository at `git`, the entry `.git` of a checkout.
    pub(super) fn at(git: &Path) -> Result<Self, SourceError> {
        let meta = fs::metadata(git).map_err(SourceError::io("read", git.to_owned()))?;
        let own = if meta.is_dir() {
            git.to_owned()
        } else {
            let bytes = pointer(git)?.ok_or_else(|| bad(git, "it is gone"))?;
            let named = bytes.strip_prefix(b"gitdir: ").ok_or_else(|| {
                bad(
                    git,
                    "a file of this name has the line \"gitdir: PATH\", and this one has another",
                )
            })?;
            beside(git, named)
        };
        let common = match pointer(&own.join("commondir"))? {
            Some(named) => own.join(OsStr::from_bytes(&named)),
            None => own.clone(),
        };
        Ok(Self { own, common })
    }

    /// The commit that `HEAD` names; `None` before the first commit.
    pub(super) fn head(&self) -> Result<Option<ObjectId>, SourceError> {
        let mut name = b"HEAD".to_vec();
        for _ in 0..=MAX_HOPS {
            let path = self.reference(&name);
            let Some(value) = pointer(&path)? else {
                if name == b"HEAD" {
                    return Err(bad(&path, "there is no such file, so this is no repository"));
                }
                return self.packed(&name);
            };
            let Some(next) = value.strip_prefix(b"ref: ") else {
                return ObjectId::from_hex(&value)
                    .map(Some)
                    .map_err(|_| bad(&path, "it names neither a commit nor a reference"));
            };
            let next = next.trim_ascii_start();
            // The name becomes a path, which must not lead elsewhere.
            let plain = next.starts_with(b"refs/") && crate::model::RelPath::new(next).is_ok();
            if !plain {
                return Err(bad(
                    &path,
                    format!("it names the reference {:?}", String::from_utf8_lossy(next)),
                ));
            }
            name = next.to_vec();
        }
        Err(bad(
            &self.own,
            format!("HEAD leads through more than {MAX_HOPS} references"),
        ))
    }

    /// The objects, read as `kind` of digests.
    pub(super) fn objects(&self, kind: Kind) -> Result<Objects, SourceError> {
        Objects::open(self.common.join("objects"), kind)
    }

    /// The file of a loose reference. `HEAD`, and references below `refs/worktree`, `refs/bisect` and `refs/rewritten`, are of this
    /// checkout only.
    fn reference(&self, name: &[u8]) -> PathBuf {
        let own = [&b"refs/worktree/"[..], b"refs/bisect/", b"refs/rewritten/"];
        let dir = if name == b"HEAD" || own.iter().any(|start| name.starts_with(start)) {
            &self.own
        } else {
            &self.common
        };
        dir.join(OsStr::from_bytes(name))
    }

    /// The commit of a reference without a file of its own: in `packed-refs`, one line `COMMIT NAME` for each.
    fn packed(&self, name: &[u8]) -> Result<Option<ObjectId>, SourceError> {
        if entry_at(&self.common.join("reftable"))?.is_some() {
            let problem = "its references are in the format reftable, which is not read here; \
                           `git refs migrate --ref-format=files` converts them";
            return Err(bad(&self.common, problem));
        }
        let path = self.common.join("packed-refs");
        let Some(text) = read(&path, MAX_PACKED)? else {
            return Ok(None);
        };
        for line in text.split(|b| *b == b'\n') {
            if let Some(id) = line.strip_suffix(name).and_then(|start| start.strip_suffix(b" ")) {
                let id = ObjectId::from_hex(id);
                return id
                    .map(Some)
                    .map_err(|_| bad(&path, "a line does not begin with a commit"));
            }
        }
        Ok(None)
    }
}

/// The first line of a small file; `None` when there is none.
fn pointer(path: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    let bytes = read(path, MAX_POINTER)?;
    Ok(bytes.map(|bytes| {
        let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        line.trim_ascii_end().to_vec()
    }))
}

/// Reads a regular file of at most `most` bytes; `None` when there is none. A FIFO or device is refused without waiting for it.
fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, SourceError> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(SourceError::io("read", path.to_owned())(error)),
    };
    let meta = file.metadata().map_err(SourceError::io("read", path.to_owned()))?;
    if meta.is_dir() {
        // A reference may share its name with the directory of others.
        return Ok(None);
    }
    if !meta.is_file() {
        return Err(bad(path, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    let done = file.take(most + 1).read_to_end(&mut bytes);
    done.map_err(SourceError::io("read", path.to_owned()))?;
    if bytes.len() as u64 > most {
        let path = path.to_owned();
        return Err(SourceError::TooLong { path, most });
    }
    Ok(Some(bytes))
}

/// The path `named` in the file at `path`, relative to its directory.
fn beside(path: &Path, named: &[u8]) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).join(OsStr::from_bytes(named))
}

/// A fault of the repository at `path`.
pub(super) fn bad(path: &Path, problem: impl Into<String>) -> SourceError {
    SourceError::Repository {
        path: path.to_owned(),
        problem: problem.into(),
    }
}
