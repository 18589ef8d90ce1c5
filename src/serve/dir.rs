//! The directory that is served: names lead to regular files in it, or to nothing.

use super::ServeError;
use crate::model::RelPath;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{FileStat, Mode, fstat},
};
use std::{fs::File, io, os::fd::OwnedFd, path::Path};

/// An open directory. Renaming it or what it lies in changes nothing.
#[derive(Debug)]
pub struct ServedDirectory {
    fd: OwnedFd,
}

/// A file to be sent.
pub(super) struct Opened {
    pub(super) file: File,
    /// Its length when it was opened.
    pub(super) size: u64,
}

/// Why there is no file to be sent.
pub(super) enum Missing {
    /// There is no regular file of that name below the directory.
    Absent,
    /// It may not be read.
    Forbidden,
    /// Reading it failed.
    Broken(io::Error),
}

impl From<Errno> for Missing {
    fn from(errno: Errno) -> Self {
        match errno {
            // EXDEV is a symbolic link that leads out; ENXIO a socket or a fifo that nobody writes to.
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV | Errno::ENAMETOOLONG | Errno::ENXIO => {
                Missing::Absent
            }
            Errno::EACCES | Errno::EPERM => Missing::Forbidden,
            other => Missing::Broken(other.into()),
        }
    }
}

/// openat2(2) answers EAGAIN when something is renamed while it looks; so often it is asked again.
const TRIES: usize = 16;

impl ServedDirectory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    ///
    /// [`ServeError::DirectoryBlocks`] when it is missing, not a directory, or may not be entered.
    pub fn open(path: &Path) -> Result<Self, ServeError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(|errno| ServeError::Directory {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self { fd })
    }

    /// Opens the regular file `path`. Symbolic links are followed as long as they stay below the directory.
    pub(super) fn file(&self, path: &RelPath) -> Result<Opened, Missing> {
        // Looked at before it is opened, for opening a device or a fifo can do something.
        let found = self.look(path, OFlag::O_PATH)?;
        regular(&fstat(&found)?)?;
        let file = self.look(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let stat = fstat(&file)?;
        regular(&stat)?;
        Ok(Opened {
            file: file.into(),
            size: u64::try_from(stat.st_size).map_err(|_| Missing::Absent)?,
        })
    }

    fn look(&self, path: &RelPath, flags: OFlag) -> Result<OwnedFd, Errno> {
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
