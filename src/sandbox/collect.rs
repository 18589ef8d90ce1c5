//! Takes the outputs, in pid 1, when nothing else runs in the sandbox any more.
//!
//! Walks through directory descriptors without ever following a symbolic link or blocking on a fifo, and streams what is
//! there to the executor, which checks all of it again and stores it in files of its own. Large files are not streamed but
//! passed as descriptors, one at a time: the executor gets a descriptor that can only read.

use super::{
    Ids, Limits, OutputKind, OutputSpec, Spec,
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
pub(super) fn collect(spec: &Spec, control: &mut UnixStream, files: &UnixStream) -> Result<(), Option<Fault>> {
    // The walk holds one descriptor a level.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).step("read the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).step("raise the limit of descriptors")?;
    let build = openat(nix::fcntl::AT_FDCWD, "/build", DIRECTORY, Mode::empty()).step("open /build")?;
    let mut stream = Stream::new(control);
    let taken = spec.outputs.iter().enumerate().try_for_each(|(index, output)| {
        wire::send(&mut stream, Tag::Output, &index).map_err(|_| None)?;
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
        Ok(()) => wire::send(&mut stream, Tag::Complete, &()).map_err(|_| None)?,
        // A fault comes between two entries: what was said before it has to be out.
        Err(Some(_)) => {}
        // In the middle of a file there is no way on but to close the stream.
        Err(None) => return Err(None),
    }
    stream.flush().map_err(|_| None)?;
    taken
}

/// Bytes that are said at once. Most files are far smaller, and a system call for each costs more than its bytes.
const CHUNK: usize = 256 << 10;

/// The way to the executor, through a buffer.
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

    /// Sends `size` bytes of `file`, read straight into the buffer; one that has less is an error.
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

/// State of taking one output.
struct Walk<'a, 'b> {
    output: &'a OutputSpec,
    limits: &'a Limits,
    single: bool,
    stream: &'a mut Stream<'b>,
    files: &'a UnixStream,
    entries: u64,
    bytes: u64,
    device: u64,
    /// First path of every file with several links.
    links: BTreeMap<u64, Vec<u8>>,
}

/// One directory on the way down: its descriptor, its path, names still to be visited (last first).
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

    fn over(&self, limit: impl std::fmt::Display) -> Fault {
        Fault::new(
            FaultKind::Limit,
            format!("{limit} of output {:?}", self.output.name),
            "",
        )
    }

    fn run(&mut self, build: &OwnedFd) -> Result<(), Option<Fault>> {
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
                return Err(Some(
                    self.refuse(b"", format!("/build/{} is missing", self.output.path)),
                ));
            }
            Err(Errno::ELOOP) => return Err(Some(self.refuse(b"", "a symbolic link is on the way to it"))),
            other => other.map_err(|e| self.refuse(b"", e))?,
        };
        let stat = fstat(&opened).map_err(|e| self.refuse(b"", e))?;
        self.device = stat.st_dev;
        match (stat.st_mode & libc::S_IFMT, self.output.kind) {
            (libc::S_IFREG, OutputKind::File) => {
                if stat.st_size == 0 {
                    return Err(Some(self.refuse(b"", "is an empty file")));
                }
                let file = place(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK);
                self.file(b"", file.map_err(|e| self.refuse(b"", e))?, &stat)
            }
            (libc::S_IFDIR, OutputKind::Tree) => {
                let dir = place(DIRECTORY).map_err(|e| self.refuse(b"", e))?;
                self.tree(dir, &stat)
            }
            (libc::S_IFLNK, _) => Err(Some(self.refuse(b"", "is a symbolic link"))),
            (_, OutputKind::File) => Err(Some(self.refuse(b"", "is not a regular file"))),
            (_, OutputKind::Tree) => Err(Some(self.refuse(b"", "is not a directory"))),
        }
    }

    fn tree(&mut self, dir: OwnedFd, stat: &FileStat) -> Result<(), Option<Fault>> {
        let root = self.directory(Vec::new(), dir, stat)?;
        if root.names.is_empty() {
            return Err(Some(self.refuse(b"", "is an empty directory")));
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
                return Err(Some(self.refuse(&path, "lies on another file system")));
            }
            match stat.st_mode & libc::S_IFMT {
                libc::S_IFDIR => {
                    let child = openat(&level.dir, &*name, DIRECTORY, Mode::empty()).map_err(refuse)?;
                    if levels.len() >= self.limits.output_depth as usize {
                        return Err(Some(self.over(format!("depth {}", self.limits.output_depth))));
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

    fn special(&mut self, format: u32, path: &[u8], stat: &FileStat) -> Result<(), Option<Fault>> {
        let (kind, name) = match format {
            libc::S_IFIFO => (WireEntryKind::Fifo, "fifo"),
            libc::S_IFCHR => (WireEntryKind::CharDevice, "character device"),
            libc::S_IFBLK => (WireEntryKind::BlockDevice, "block device"),
            libc::S_IFSOCK => return Err(Some(self.refuse(path, "is a socket"))),
            other => return Err(Some(self.refuse(path, format!("has the unknown type {other:o}")))),
        };
        if !self.output.allow_devices {
            return Err(Some(self.refuse(path, format!("is a {name}, which is not declared"))));
        }
        let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
        self.announce(kind, path, stat, u64::from(major) << 32 | u64::from(minor), b"")
    }

    fn directory(&mut self, path: Vec<u8>, dir: OwnedFd, stat: &FileStat) -> Result<Level, Option<Fault>> {
        self.same(&path, &dir, stat)?;
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
                return Err(Some(self.over(format!("{} entries", self.limits.output_entries))));
            }
        }
        // Visited from the end.
        names.sort_by(|a, b| b.cmp(a));
        Ok(Level { dir, path, names })
    }

    fn file(&mut self, path: &[u8], file: OwnedFd, stat: &FileStat) -> Result<(), Option<Fault>> {
        self.same(path, &file, stat)?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino).cloned() {
                return self.announce(WireEntryKind::Link, path, stat, 0, &first);
            }
            self.links.insert(stat.st_ino, path.to_vec());
        }
        match sys::check_no_writer(&file) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                return Err(Some(self.refuse(path, "is still being written to")));
            }
            // Leases are for a file's owner; that no process is left is what counts.
            _ => {}
        }
        let size = u64::try_from(stat.st_size).map_err(|e| self.refuse(path, e))?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.output_bytes {
            return Err(Some(self.over(format!("{} bytes", self.limits.output_bytes))));
        }
        self.announce(WireEntryKind::File, path, stat, size, b"")?;
        // The executor expects all of it: when that fails there is no way on but to close the stream.
        let sent = if size < PASS_FD_FROM {
            self.stream.send_file(&mut File::from(file), size)
        } else {
            self.stream.flush().and_then(|()| pass_file(self.files, file))
        };
        sent.map_err(|_| None)
    }

    /// Checks that what was opened is what was found, and has no extended attributes.
    fn same(&self, path: &[u8], opened: impl AsFd, found: &FileStat) -> Result<(), Fault> {
        let stat = fstat(opened.as_fd()).map_err(|e| self.refuse(path, e))?;
        if (stat.st_dev, stat.st_ino, stat.st_mode) != (found.st_dev, found.st_ino, found.st_mode) {
            return Err(self.refuse(path, "changed while it was taken"));
        }
        let names = sys::list_xattrs(opened).map_err(|e| self.refuse(path, e))?;
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
    ) -> Result<(), Option<Fault>> {
        self.entries += 1;
        if self.entries > self.limits.output_entries {
            return Err(Some(self.over(format!("{} entries", self.limits.output_entries))));
        }
        let mode = stat.st_mode & 0o7777;
        // The set-group-id bit of a directory only says which group new entries get.
        if mode & 0o6000 != 0 && !self.output.allow_setid {
            return Err(Some(
                self.refuse(path, format!("has mode {mode:o}, and set-id bits are not declared")),
            ));
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
        wire::send_bytes(self.stream, Tag::Entry, &entry.encode()).map_err(|_| None)
    }
}
