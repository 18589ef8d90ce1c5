//! Collects the outputs, in pid 1, when no other process is left in the sandbox.
//!
//! The walk uses directory descriptors, never follows a symbolic link and never blocks on a fifo. It streams every entry to the
//! executor, which checks all of them again and stores them in files of its own. Large files are not streamed but passed as
//! descriptors, one at a time, open for reading only.

use super::{
    Ids, Limits, OutputKind, OutputSpec, Spec,
    ablation::{SandboxLayer, is_off},
    ending::{Ending, OrDisconnected},
    fd_passing::{PASS_FD_FROM, pass_file},
    sys,
    wire::{self, Fault, FaultKind, Step, Tag, WireEntry, WireEntryKind, shown},
};
use crate::store::PageBuffer;
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::{FileStat, Mode, fstat, fstatat},
    },
};
use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
};

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Streams every declared output over `control`; large files are passed as descriptors over `files`.
pub(super) fn collect(spec: &Spec, control: &mut UnixStream, files: &UnixStream) -> Result<(), Ending> {
    // The walk holds one descriptor per level.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).step("read the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).step("raise the limit of descriptors")?;
    let build = openat(nix::fcntl::AT_FDCWD, "/build", DIRECTORY, Mode::empty()).step("open /build")?;
    let mut stream = Stream::new(control);
    let taken = spec.outputs.iter().enumerate().try_for_each(|(index, output)| {
        wire::send(&mut stream, Tag::Output, &index).or_disconnected()?;
        let mut walk = Walk {
            output,
            limits: &spec.limits,
            single: spec.ids == Ids::Single,
            stream: &mut stream,
            files,
            entries: 0,
            bytes: 0,
            device: 0,
            links: BTreeMap::new(),
        };
        walk.run(&build)
    });
    match taken {
        Ok(()) => wire::send(&mut stream, Tag::Complete, &()).or_disconnected()?,
        // The fault's frame follows these entries, so they are flushed first.
        Err(Ending::Fault(_)) => {}
        // Within a file's content no frame can be sent: the executor reads the end of the stream.
        Err(Ending::Disconnected) => return Err(Ending::Disconnected),
    }
    stream.flush().or_disconnected()?;
    taken
}

/// Bytes sent at once. Most files are far smaller, and a system call for each costs more than copying its bytes.
const CHUNK: usize = 256 << 10;

/// The stream to the executor, buffered.
struct Stream<'a> {
    control: &'a mut UnixStream,
    buffer: PageBuffer,
    used: usize,
}

impl<'a> Stream<'a> {
    fn new(control: &'a mut UnixStream) -> Self {
        Self {
            control,
            buffer: PageBuffer::new(CHUNK),
            used: 0,
        }
    }

    /// Sends `size` bytes of `file`, read straight into the buffer; a shorter file is an error.
    fn send_file(&mut self, file: &mut File, mut size: u64) -> io::Result<()> {
        while size > 0 {
            if self.used == self.buffer.len() {
                self.flush()?;
            }
            let free = &mut self.buffer[self.used..];
            let most = usize::try_from(size).map_or(free.len(), |s| s.min(free.len()));
            match file.read(&mut free[..most]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.used += n;
                    size -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.used == self.buffer.len() {
            self.flush()?;
        }
        let free = &mut self.buffer[self.used..];
        let n = bytes.len().min(free.len());
        free[..n].copy_from_slice(&bytes[..n]);
        self.used += n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.used);
        self.control.write_all(&self.buffer[..used])
    }
}

/// The walk through one output.
struct Walk<'a, 'b> {
    output: &'a OutputSpec,
    limits: &'a Limits,
    /// Whether the stage has a single id, which owns all entries.
    single: bool,
    stream: &'a mut Stream<'b>,
    files: &'a UnixStream,
    entries: u64,
    bytes: u64,
    /// Device number of the file system the output lies on.
    device: u64,
    /// First path of every file with several hard links, by inode.
    links: BTreeMap<u64, Vec<u8>>,
}

/// A directory from the output's root to the current entry: its descriptor, its path, and the names to be visited, in reverse order.
struct Level {
    dir: OwnedFd,
    path: Vec<u8>,
    names: Vec<CString>,
}

impl Walk<'_, '_> {
    fn refuse(&self, path: &[u8], problem: impl std::fmt::Display) -> Fault {
        let entry = match path {
            b"" => String::new(),
            path => format!("entry {:?} ", shown(path)),
        };
        Fault::new(FaultKind::Output, self.output.name.clone(), format!("{entry}{problem}"))
    }

    fn limit(&self, limit: impl std::fmt::Display) -> Fault {
        Fault::new(
            FaultKind::Limit,
            format!("{limit} of output {:?}", self.output.name),
            "",
        )
    }

    fn run(&mut self, build: &OwnedFd) -> Result<(), Ending> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let path = self.output.path.as_path();
        let place = |flags| {
            openat2(
                build,
                path,
                OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve),
            )
        };
        let opened = match place(OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Err(Errno::ENOENT) => {
                return Err(self
                    .refuse(b"", format!("/build/{} is missing", self.output.path))
                    .into());
            }
            Err(Errno::ELOOP) => return Err(self.refuse(b"", "a symbolic link is on the way to it").into()),
            other => other.map_err(|e| self.refuse(b"", e))?,
        };
        let stat = fstat(&opened).map_err(|e| self.refuse(b"", e))?;
        self.device = stat.st_dev;
        match (stat.st_mode & libc::S_IFMT, self.output.kind) {
            (libc::S_IFREG, OutputKind::File) => {
                if stat.st_size == 0 {
                    return Err(self.refuse(b"", "is an empty file").into());
                }
                let file = place(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK);
                self.file(b"", file.map_err(|e| self.refuse(b"", e))?, &stat)
            }
            (libc::S_IFDIR, OutputKind::Tree) => {
                let dir = place(DIRECTORY).map_err(|e| self.refuse(b"", e))?;
                self.tree(dir, &stat)
            }
            (libc::S_IFLNK, _) => Err(self.refuse(b"", "is a symbolic link").into()),
            (_, OutputKind::File) => Err(self.refuse(b"", "is not a regular file").into()),
            (_, OutputKind::Tree) => Err(self.refuse(b"", "is not a directory").into()),
        }
    }

    fn tree(&mut self, dir: OwnedFd, stat: &FileStat) -> Result<(), Ending> {
        let root = self.directory(Vec::new(), dir, stat)?;
        if root.names.is_empty() {
            return Err(self.refuse(b"", "is an empty directory").into());
        }
        let mut levels = vec![root];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let mut path = level.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(name.as_bytes());
            let refuse = |e: Errno| self.refuse(&path, format!("cannot be read: {e}"));
            let stat = fstatat(&level.dir, &*name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(refuse)?;
            if stat.st_dev != self.device {
                return Err(self.refuse(&path, "lies on another file system").into());
            }
            match stat.st_mode & libc::S_IFMT {
                libc::S_IFDIR => {
                    let child = openat(&level.dir, &*name, DIRECTORY, Mode::empty()).map_err(refuse)?;
                    if levels.len() >= self.limits.output_depth as usize {
                        return Err(self.limit(format!("depth {}", self.limits.output_depth)).into());
                    }
                    let child = self.directory(path, child, &stat)?;
                    levels.push(child);
                }
                libc::S_IFREG => {
                    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                    let file = openat(&level.dir, &*name, flags, Mode::empty()).map_err(refuse)?;
                    self.file(&path, file, &stat)?;
                }
                libc::S_IFLNK => {
                    let target = readlinkat(&level.dir, &*name).map_err(refuse)?;
                    self.announce(WireEntryKind::Symlink, &path, &stat, 0, target.as_bytes())?;
                }
                kind => self.special(kind, &path, &stat)?,
            }
        }
        Ok(())
    }

    fn special(&mut self, format: u32, path: &[u8], stat: &FileStat) -> Result<(), Ending> {
        let (kind, name) = match format {
            libc::S_IFIFO => (WireEntryKind::Fifo, "fifo"),
            libc::S_IFCHR => (WireEntryKind::CharDevice, "character device"),
            libc::S_IFBLK => (WireEntryKind::BlockDevice, "block device"),
            libc::S_IFSOCK => return Err(self.refuse(path, "is a socket").into()),
            other => return Err(self.refuse(path, format!("has the unknown type {other:o}")).into()),
        };
        if !self.output.allow_devices {
            return Err(self.refuse(path, format!("is a {name}, which is not declared")).into());
        }
        let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
        self.announce(kind, path, stat, u64::from(major) << 32 | u64::from(minor), b"")
    }

    fn directory(&mut self, path: Vec<u8>, dir: OwnedFd, stat: &FileStat) -> Result<Level, Ending> {
        self.check_opened(&path, &dir, stat)?;
        self.announce(WireEntryKind::Directory, &path, stat, 0, b"")?;
        let refuse = |e: Errno| self.refuse(&path, format!("cannot be listed: {e}"));
        let mut names = Vec::new();
        for entry in Dir::openat(&dir, ".", DIRECTORY, Mode::empty()).map_err(refuse)?.iter() {
            let entry = entry.map_err(refuse)?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
            if self.entries + names.len() as u64 > self.limits.output_entries {
                return Err(self.limit(format!("{} entries", self.limits.output_entries)).into());
            }
        }
        // The walk takes names from the end.
        names.sort_by(|a, b| b.cmp(a));
        Ok(Level { dir, path, names })
    }

    fn file(&mut self, path: &[u8], file: OwnedFd, stat: &FileStat) -> Result<(), Ending> {
        self.check_opened(path, &file, stat)?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino).cloned() {
                return self.announce(WireEntryKind::Link, path, stat, 0, &first);
            }
            self.links.insert(stat.st_ino, path.to_vec());
        }
        match sys::check_no_writer(&file) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                return Err(self.refuse(path, "is still being written to").into());
            }
            // Only the owner of a file may take a lease on it. Where this process may not, the guarantee is that no process is left.
            _ => {}
        }
        let size = u64::try_from(stat.st_size).map_err(|e| self.refuse(path, e))?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.output_bytes {
            return Err(self.limit(format!("{} bytes", self.limits.output_bytes)).into());
        }
        self.announce(WireEntryKind::File, path, stat, size, b"")?;
        // The executor now expects `size` bytes. If they cannot be sent, only the end of the stream can say so.
        let sent = if size < PASS_FD_FROM {
            self.stream.send_file(&mut File::from(file), size)
        } else {
            self.stream.flush().and_then(|()| pass_file(self.files, file))
        };
        sent.or_disconnected()
    }

    /// Checks that the opened file is the one that was found, and that it has no extended attributes.
    fn check_opened(&self, path: &[u8], opened: impl AsFd, found: &FileStat) -> Result<(), Fault> {
        let stat = fstat(opened.as_fd()).map_err(|e| self.refuse(path, e))?;
        if (stat.st_dev, stat.st_ino, stat.st_mode) != (found.st_dev, found.st_ino, found.st_mode) {
            return Err(self.refuse(path, "changed while it was collected"));
        }
        let names = sys::list_xattrs(opened).map_err(|e| self.refuse(path, e))?;
        if is_off(SandboxLayer::Collector) {
            return Ok(());
        }
        match names.split(|b| *b == 0).find(|n| !n.is_empty()) {
            None => Ok(()),
            Some(name) => Err(self.refuse(path, format!("has the extended attribute {:?}", shown(name)))),
        }
    }

    fn announce(
        &mut self,
        kind: WireEntryKind,
        path: &[u8],
        stat: &FileStat,
        number: u64,
        rest: &[u8],
    ) -> Result<(), Ending> {
        self.entries += 1;
        if self.entries > self.limits.output_entries {
            return Err(self.limit(format!("{} entries", self.limits.output_entries)).into());
        }
        let mode = stat.st_mode & 0o7777;
        // This includes the set-group-id bit of a directory, although it only chooses the group of new entries.
        if mode & 0o6000 != 0 && !self.output.allow_setid && !is_off(SandboxLayer::Collector) {
            return Err(self
                .refuse(path, format!("has mode {mode:o}, and set-id bits are not declared"))
                .into());
        }
        let entry = WireEntry {
            kind,
            mode,
            uid: if self.single { 0 } else { stat.st_uid },
            gid: if self.single { 0 } else { stat.st_gid },
            number,
            path: path.to_vec(),
            rest: rest.to_vec(),
        };
        wire::send_bytes(self.stream, Tag::Entry, &entry.encode()).or_disconnected()
    }
}
