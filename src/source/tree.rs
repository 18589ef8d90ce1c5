//! `SourceTree`: the directory of a project. Every file of the project is opened below it, and no symbolic link is followed.

use super::SourceError;
use crate::model::RelPath;
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat},
    sys::stat::{FileStat, Mode, fstat},
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Most bytes of a text file of a project: a lock of tens of thousands of packages.
pub const MAX_TEXT: u64 = 64 << 20;
/// Most calls of openat2(2) for one path: it fails with EAGAIN when a directory is renamed during the lookup.
const TRIES: usize = 16;

/// An open directory of a project. It stays the same one when it or a directory above it is renamed.
#[derive(Debug)]
pub struct SourceTree {
    path: PathBuf,
    fd: OwnedFd,
    /// The users whose files are read; `None` where the project was named and every owner is accepted.
    owners: Option<Vec<u32>>,
}

/// A file, directory or symbolic link of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEntry {
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Its target, as it is stored.
        target: Vec<u8>,
    },
    /// A FIFO, socket or device, in words with an article.
    Special(&'static str),
}

impl SourceTree {
    /// Opens the project at `path`, which the user named; its files may belong to anybody.
    ///
    /// # Errors
    /// There is no directory at `path`, or it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let absolute = path.canonicalize().map_err(SourceError::io("open", path.to_owned()))?;
        Self::at(absolute, None)
    }

    /// Finds the nearest directory at or above `start` that has an entry `marker`, and opens it; `None` when there is none.
    ///
    /// Unless it is `start` itself and `named` by the user, it must belong to this user, to root, or to the user who called sudo, and so
    /// must every file that is read: in a shared directory, such as `/tmp`, others could leave a project of theirs to be found.
    ///
    /// # Errors
    /// `start` does not exist, or the project belongs to somebody else.
    pub fn find(start: &Path, marker: &str, named: bool) -> Result<Option<Self>, SourceError> {
        let start = start
            .canonicalize()
            .map_err(SourceError::io("open", start.to_owned()))?;
        let mut found = None;
        for dir in start.ancestors() {
            if entry_at(&dir.join(marker))?.is_some_and(|meta| meta.is_dir() || meta.is_symlink()) {
                found = Some(dir);
                break;
            }
        }
        let Some(found) = found else { return Ok(None) };
        let owners = (!named || found != start).then(|| trusted_owners(geteuid().as_raw()));
        let tree = Self::at(found.to_owned(), owners)?;
        let own = fstat(&tree.fd).map_err(SourceError::io("open", tree.path.clone()))?;
        tree.check_owner(&tree.path, own.st_uid)?;
        Ok(Some(tree))
    }

    fn at(path: PathBuf, owners: Option<Vec<u32>>) -> Result<Self, SourceError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(&path, flags, Mode::empty()).map_err(SourceError::io("open", path.clone()))?;
        Ok(Self { path, fd, owners })
    }

    /// Absolute path of the directory, for messages and for what is written beside the project's files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entry at `path`; `None` when there is none.
    ///
    /// # Errors
    /// `path` leads through a symbolic link, or cannot be looked up.
    pub fn entry(&self, path: &RelPath) -> Result<Option<SourceEntry>, SourceError> {
        let fd = match self.lookup(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(self.refused(path, errno)),
        };
        let stat = self.stat(path, fd.as_fd())?;
        Ok(Some(match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => SourceEntry::File {
                executable: stat.st_mode & libc::S_IXUSR != 0,
            },
            libc::S_IFDIR => SourceEntry::Directory,
            libc::S_IFLNK => {
                let target = readlinkat(&fd, "").map_err(SourceError::io("read", self.full(path)))?;
                SourceEntry::Symlink {
                    target: target.as_bytes().to_vec(),
                }
            }
            other => SourceEntry::Special(kind_of(other)),
        }))
    }

    /// The names in the directory at `path`, or in that of the project, sorted by bytes.
    ///
    /// # Errors
    /// `path` leads through a symbolic link or to no directory, or cannot be read.
    pub fn names(&self, path: Option<&RelPath>) -> Result<Vec<Vec<u8>>, SourceError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let shown = path.map_or_else(|| self.path.clone(), |path| self.full(path));
        let mut dir = match path {
            Some(path) => {
                let fd = self.lookup(path, flags).map_err(|errno| self.refused(path, errno))?;
                self.stat(path, fd.as_fd())?;
                Dir::from_fd(fd)
            }
            // A descriptor of its own: a directory is read from the position of its descriptor.
            None => Dir::openat(&self.fd, ".", flags | OFlag::O_CLOEXEC, Mode::empty()),
        }
        .map_err(SourceError::io("read", shown.clone()))?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(SourceError::io("read", shown.clone()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens the regular file at `path`, and returns its length too.
    ///
    /// # Errors
    /// `path` leads through a symbolic link or to no regular file, or cannot be opened.
    pub fn open_file(&self, path: &RelPath) -> Result<(File, u64), SourceError> {
        // Opening a FIFO would wait, and opening a device has effects: the kind is checked on a descriptor that only names the file.
        let named = self.lookup(path, OFlag::O_PATH | OFlag::O_NOFOLLOW);
        let named = named.map_err(|errno| self.refused(path, errno))?;
        self.regular(path, &self.stat(path, named.as_fd())?)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = self.lookup(path, flags).map_err(|errno| self.refused(path, errno))?;
        let stat = self.stat(path, file.as_fd())?;
        self.regular(path, &stat)?;
        Ok((file.into(), u64::try_from(stat.st_size).unwrap_or_default()))
    }

    /// Reads the regular file at `path`, of at most `most` bytes; `None` when there is none.
    ///
    /// # Errors
    /// As of [`Self::open_file`], and when the file is longer.
    pub fn read(&self, path: &RelPath, most: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let file = match self.open_file(path) {
            Ok((file, _)) => file,
            Err(SourceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(SourceError::io("read", self.full(path)))?;
        if bytes.len() as u64 > most {
            let path = self.full(path);
            return Err(SourceError::TooLong { path, most });
        }
        Ok(Some(bytes))
    }

    /// Reads the text file at `path`, of at most [`MAX_TEXT`] bytes; `None` when there is none.
    ///
    /// # Errors
    /// As of [`Self::read`], and when the file is not UTF-8.
    pub fn read_text(&self, path: &RelPath) -> Result<Option<String>, SourceError> {
        let Some(bytes) = self.read(path, MAX_TEXT)? else {
            return Ok(None);
        };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + memchr::memchr_iter(b'\n', good).count();
                let path = self.full(path);
                Err(SourceError::Text { path, line })
            }
        }
    }

    /// Writes `bytes` to the file `name` of the project's directory. The file is replaced when the new one is whole, so that an
    /// interrupted write leaves the old one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), SourceError> {
        let part = format!("{name}.part");
        let failed = |path: &str| SourceError::io::<io::Error>("write", self.path.join(path));
        match unlinkat(&self.fd, part.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(&part)(errno.into())),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        let fd = nix::fcntl::openat(&self.fd, part.as_str(), flags, mode)
            .map_err(io::Error::from)
            .map_err(failed(&part))?;
        let mut file = File::from(fd);
        file.write_all(bytes).map_err(failed(&part))?;
        nix::fcntl::renameat(&self.fd, part.as_str(), &self.fd, name)
            .map_err(io::Error::from)
            .map_err(failed(name))
    }

    /// The absolute path of a file, for messages.
    pub fn full(&self, path: &RelPath) -> PathBuf {
        self.path.join(path.as_path())
    }

    /// openat2(2) below the directory.
    fn lookup(&self, path: &RelPath, flags: OFlag) -> Result<OwnedFd, Errno> {
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        let mut last = Errno::EAGAIN;
        for _ in 0..TRIES {
            match openat2(&self.fd, path.as_path(), how) {
                Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => last = errno,
                other => return other,
            }
        }
        Err(last)
    }

    fn stat(&self, path: &RelPath, fd: impl AsFd) -> Result<FileStat, SourceError> {
        let stat = fstat(fd).map_err(SourceError::io("read", self.full(path)))?;
        self.check_owner(&self.full(path), stat.st_uid)?;
        Ok(stat)
    }

    /// Fails when the file at `path` belongs to a user whose files are not read.
    pub(super) fn check_owner(&self, path: &Path, uid: u32) -> Result<(), SourceError> {
        match &self.owners {
            Some(owners) if !owners.contains(&uid) => Err(SourceError::Owner {
                project: self.path.clone(),
                path: path.to_owned(),
                uid,
            }),
            _ => Ok(()),
        }
    }

    fn regular(&self, path: &RelPath, stat: &FileStat) -> Result<(), SourceError> {
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Ok(()),
            libc::S_IFLNK => Err(SourceError::Link {
                path: self.full(path),
                link: path.clone(),
            }),
            other => Err(SourceError::Kind {
                path: self.full(path),
                found: kind_of(other),
            }),
        }
    }

    /// The error of a lookup. The kernel says that a link is on the way, not which one.
    fn refused(&self, path: &RelPath, errno: Errno) -> SourceError {
        if errno == Errno::ELOOP || errno == Errno::ENOTDIR {
            let mut ancestors: Vec<RelPath> = std::iter::successors(Some(path.clone()), RelPath::parent).collect();
            ancestors.reverse();
            for link in ancestors {
                if let Ok(Some(SourceEntry::Symlink { .. })) = self.entry(&link) {
                    let path = self.full(path);
                    return SourceError::Link { path, link };
                }
            }
        }
        SourceError::io("read", self.full(path))(errno)
    }
}

/// The file, directory or link at a path outside the project's tree; `None` when there is none, or none that this user can reach.
pub(super) fn entry_at(path: &Path) -> Result<Option<fs::Metadata>, SourceError> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied => Ok(None),
            _ => Err(SourceError::io("look at", path.to_owned())(error)),
        },
    }
}

/// The owners of files that a program of the user `own` may trust: that user, root, and the one who called sudo.
fn trusted_owners(own: u32) -> Vec<u32> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the caller of sudo decides on trust and enters no result"
    )]
    let caller = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    [own, 0].into_iter().chain(caller.filter(|_| own == 0)).collect()
}

/// A kind of file in words, with an article.
fn kind_of(format: libc::mode_t) -> &'static str {
    match format {
        libc::S_IFREG => "a regular file",
        libc::S_IFDIR => "a directory",
        libc::S_IFLNK => "a symbolic link",
        libc::S_IFIFO => "a FIFO",
        libc::S_IFSOCK => "a socket",
        _ => "a device",
    }
}
