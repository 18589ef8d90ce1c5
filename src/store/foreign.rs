//! Opens files of others, by a name that the user gave or that lies in a directory of others.

use crate::model::RelPath;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2},
    sys::statfs::{FsType, fstatfs},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

/// Magic number of the file system of pipes without a name (`PIPEFS_MAGIC` in linux/magic.h).
const PIPEFS: i64 = 0x5049_5045;
/// Most calls of openat2(2) for one path: it fails with EAGAIN when a directory is renamed during the lookup.
const TRIES: usize = 100;

/// Opens a regular file to read it. Opening a named pipe would wait for a writer, opening a device can have effects, and reading either may
/// never end; a pipe without a name, such as `<(command)` of a shell, has a writer already and is accepted.
///
/// # Errors
/// The file cannot be opened, or is a directory, a named pipe, a socket or a device.
pub fn open_foreign(path: &Path) -> io::Result<File> {
    // Without waiting for the writer of a named pipe.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    regular(file)
}

/// Opens a regular file at `path` below the directory `dir`, as [`open_foreign`]. Below `dir`, nothing may be a link: neither the file nor a
/// directory above it.
///
/// # Errors
/// As [`open_foreign`]; a component of `path` is a link.
pub fn open_foreign_below(dir: &Path, path: &RelPath) -> io::Result<File> {
    let above = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_PATH).bits())
        .open(dir)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    let mut last = Errno::EAGAIN;
    for _ in 0..TRIES {
        match openat2(&above, path.as_path(), how) {
            Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => last = errno,
            Err(Errno::ELOOP) => {
                let problem = "it is a link, or a directory above it is one";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
            Err(errno) => return Err(errno.into()),
            Ok(file) => return regular(file.into()),
        }
    }
    Err(last.into())
}

/// The file, if it is a regular one or a pipe without a name.
fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    let other = match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a directory"),
        () if kind.is_fifo() => {
            let nameless = fstatfs(&file).is_ok_and(|found| found.filesystem_type() == FsType(PIPEFS as _));
            (!nameless).then_some("a named pipe")
        }
        () if kind.is_char_device() || kind.is_block_device() => Some("a device"),
        () => Some("no file"),
    };
    if let Some(other) = other {
        let problem = format!("it is {other}, not a regular file");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// As [`open_foreign`]; the file cannot be read, or is larger.
pub fn read_foreign(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_foreign(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let problem = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{sys::stat::Mode, unistd::mkfifo};
    use std::{fs, io::Write, os::fd::AsRawFd, os::unix::net::UnixListener};

    #[test]
    fn below_a_directory_no_link_is_followed() {
        let dir = tempfile::tempdir().expect("scratch");
        let below = |name: &str| open_foreign_below(dir.path(), &name.parse().expect("a path"));
        fs::create_dir(dir.path().join("real")).expect("made");
        fs::write(dir.path().join("real/file"), "content").expect("written");
        std::os::unix::fs::symlink("file", dir.path().join("real/link")).expect("made");
        std::os::unix::fs::symlink("real", dir.path().join("other")).expect("made");
        mkfifo(&dir.path().join("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).expect("made");
        let mut text = String::new();
        below("real/file")
            .expect("opens")
            .read_to_string(&mut text)
            .expect("text");
        assert_eq!(text, "content");
        let link = "it is a link, or a directory above it is one";
        for (name, problem) in [
            ("real/link", link),
            ("other/file", link),
            ("fifo", "it is a named pipe, not a regular file"),
            ("real", "it is a directory, not a regular file"),
        ] {
            assert_eq!(below(name).expect_err("refused").to_string(), problem, "{name}");
        }
        assert_eq!(
            below("real/absent").expect_err("absent").kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "content").expect("written");
        std::os::unix::fs::symlink("file", path("link")).expect("made");
        std::os::unix::fs::symlink("fifo", path("link-to-fifo")).expect("made");
        mkfifo(&path("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).expect("made");
        let _socket = UnixListener::bind(path("socket")).expect("bound");
        for name in ["file", "link"] {
            assert_eq!(read_foreign(&path(name), 7).expect("read"), b"content");
            let error = read_foreign(&path(name), 6).expect_err("too large");
            assert_eq!(error.to_string(), "it has more than 6 bytes");
        }
        for (name, problem) in [
            (path("fifo"), "it is a named pipe, not a regular file"),
            (path("link-to-fifo"), "it is a named pipe, not a regular file"),
            (dir.path().to_owned(), "it is a directory, not a regular file"),
            ("/dev/zero".into(), "it is a device, not a regular file"),
        ] {
            assert_eq!(
                open_foreign(&name).expect_err("refused").to_string(),
                problem,
                "{name:?}"
            );
        }
        assert!(open_foreign(&path("socket")).is_err() && open_foreign(&path("absent")).is_err());
        // Of a named pipe with a writer, too.
        let _both = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path("fifo"))
            .expect("open");
        assert!(open_foreign(&path("fifo")).is_err());
        // The output of a command, given by a shell.
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"content").expect("written");
        drop(writer);
        let name = format!("/proc/self/fd/{}", reader.as_raw_fd());
        assert_eq!(read_foreign(Path::new(&name), 7).expect("read"), b"content");
    }
}
