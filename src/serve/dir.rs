//! The served directory: names lead to regular files below it, or to none.

use super::ServeError;
use crate::model::RelPath;
use nix::{
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

    /// Opens the regular file `path`. Symbolic links are followed while they stay below the directory.
    ///
    /// # Errors
    ///
    /// The reason, of which the client is told no more than the class.
    pub fn file(&self, path: &RelPath) -> Result<ServedFile, Missing> {
        // The type is checked before the file is opened, because opening a device or a fifo has effects.
        let found = self.lookup(path, OFlag::O_PATH)?;
        regular(&fstat(&found)?)?;
        let file = self.lookup(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let stat = fstat(&file)?;
        regular(&stat)?;
        Ok(ServedFile {
            file: file.into(),
            size: u64::try_from(stat.st_size).map_err(|_| Missing::Absent)?,
        })
    }

    /// openat2(2) below the directory.
    fn lookup(&self, path: &RelPath, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let mut last = Errno::EAGAIN;
        for _ in 0..TRIES {
            match openat2(&self.fd, path.as_path(), how) {
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
