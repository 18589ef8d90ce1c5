//! The served directory: names lead to regular files below it, or to none.

use super::{AskedName, ServeError};
use crate::model::RelPath;
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{FileStat, Mode, fstat},
};
use std::{fs::File, io, os::fd::OwnedFd, path::Path};

/// An open directory. It stays the same one when it or a directory above it is renamed.
#[derive(Debug)]
pub struct ServedDirectory {
    fd: OwnedFd,
}

/// A file to be sent.
#[derive(Debug)]
pub struct ServedFile {
    /// The file, open for reading.
    pub file: File,
    /// Its length at the time it was opened.
    pub size: u64,
}

/// Why no file can be sent.
#[derive(Debug)]
pub enum Missing {
    /// The directory has no regular file of this name.
    Absent,
    /// The server is not permitted to read it.
    Forbidden,
    /// Opening it failed.
    Broken(io::Error),
}

impl From<Errno> for Missing {
    fn from(errno: Errno) -> Self {
        match errno {
            // EXDEV is a symbolic link that leads out of the directory, ENXIO a socket, or a fifo without a writer.
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV | Errno::ENAMETOOLONG | Errno::ENXIO => {
                Missing::Absent
            }
            Errno::EACCES | Errno::EPERM => Missing::Forbidden,
            other => Missing::Broken(other.into()),
        }
    }
}

/// Most calls of openat2(2) for one path: it fails with EAGAIN when a directory is renamed during the lookup.
const TRIES: usize = 16;
/// Most entries of a directory, and most components of a path, that are compared without regard to case.
const MOST_COMPARED: (usize, usize) = (4096, 16);

impl ServedDirectory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    ///
    /// [`ServeError::Directory`] when it is missing, not a directory, or not permitted to be entered.
    pub fn open(path: &Path) -> Result<Self, ServeError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(|errno| ServeError::Directory {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self { fd })
    }

    /// Opens the regular file that a client asks for: the first of the paths that its name may mean, and where there is none, the only one
    /// that differs from one of them by case, if the name allows that. Returns its path too.
    ///
    /// # Errors
    ///
    /// As [`ServedDirectory::file`].
    pub fn asked(&self, name: &AskedName) -> Result<(RelPath, ServedFile), Missing> {
        for path in name.candidates() {
            match self.file(path) {
                Err(Missing::Absent) => {}
                other => return other.map(|file| (path.clone(), file)),
            }
        }
        for path in name.candidates().iter().filter(|_| name.folds()) {
            if let Some(path) = self.only_folded(path) {
                return self.file(&path).map(|file| (path, file));
            }
        }
        Err(Missing::Absent)
    }

    /// The only path that differs from `path` by the case of ASCII letters; `None` for none, several, or one that would take long.
    fn only_folded(&self, path: &RelPath) -> Option<RelPath> {
        let mut parents: Vec<Option<RelPath>> = vec![None];
        for (depth, part) in path.components().enumerate() {
            if depth >= MOST_COMPARED.1 {
                return None;
            }
            let mut found = Vec::new();
            for parent in &parents {
                for name in self
                    .names(parent.as_ref())
                    .into_iter()
                    .filter(|name| name.eq_ignore_ascii_case(part))
                {
                    let name = RelPath::new(name).ok()?;
                    found.push(Some(
                        parent
                            .as_ref()
                            .map_or_else(|| name.clone(), |parent| parent.join(&name)),
                    ));
                }
            }
            // Two directories `EFI` and `efi` may both be meant; more are not a medium's.
            if found.is_empty() || found.len() > 4 {
                return None;
            }
            parents = found;
        }
        let mut files = parents.into_iter().flatten().filter(|path| self.file(path).is_ok());
        files.next().filter(|_| files.next().is_none())
    }

    /// The names in a directory; none if it cannot be read or has too many.
    fn names(&self, path: Option<&RelPath>) -> Vec<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let opened = self.lookup(path.map_or(Path::new("."), RelPath::as_path), flags);
        let Ok(mut dir) = opened.and_then(Dir::from_fd) else {
            return Vec::new();
        };
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in dir.iter() {
            let Ok(entry) = entry else { return Vec::new() };
            if names.len() >= MOST_COMPARED.0 {
                return Vec::new();
            }
            names.push(entry.file_name().to_bytes().to_vec());
        }
        names.sort();
        names
    }

    /// Opens the regular file `path`. Symbolic links are followed while they stay below the directory.
    ///
    /// # Errors
    ///
    /// The reason, of which the client is told no more than the class.
    pub fn file(&self, path: &RelPath) -> Result<ServedFile, Missing> {
        // The type is checked before the file is opened, because opening a device or a fifo has effects.
        let found = self.lookup(path.as_path(), OFlag::O_PATH)?;
        regular(&fstat(&found)?)?;
        let file = self.lookup(path.as_path(), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let stat = fstat(&file)?;
        regular(&stat)?;
        Ok(ServedFile {
            file: file.into(),
            size: u64::try_from(stat.st_size).map_err(|_| Missing::Absent)?,
        })
    }

    /// openat2(2) below the directory.
    fn lookup(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let mut last = Errno::EAGAIN;
        for _ in 0..TRIES {
            match openat2(&self.fd, path, how) {
                Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => last = errno,
                other => return other,
            }
        }
        Err(last)
    }
}

fn regular(stat: &FileStat) -> Result<(), Missing> {
    if stat.st_mode & libc::S_IFMT == libc::S_IFREG {
        Ok(())
    } else {
        Err(Missing::Absent)
    }
}
