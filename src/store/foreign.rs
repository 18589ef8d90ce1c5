//! Opens files of others, by a name that the user gave or that lies in a directory of others.

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
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

/// Opens a regular file to read it. Opening a named pipe would wait for a writer, opening a device can have effects, and reading either may
/// never end; a pipe without a name, such as `<(command)` of a shell, has a writer already and is accepted.
///
/// # Errors
/// The file cannot be opened, or is a directory, a named pipe, a socket or a device.
pub fn open_foreign(path: &Path) -> io::Result<File> {
    // Without waiting for the writer of a named pipe.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
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
