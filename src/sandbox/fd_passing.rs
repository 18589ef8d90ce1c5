//! Large files leave the sandbox by descriptor: pid 1 lends them, one at a time, and the executor reads them itself.
//!
//! ```text
//! pid 1      entry, over the control socket     …     waits                 goes on
//! pid 1      descriptor, over its own socket ─┐            ▲
//! executor                                    └► checks, reads, stores, closes, says so
//! ```
//!
//! When this happens nothing else runs in the sandbox, so the bytes do not change while they are read; they are hashed as
//! they are stored all the same, from one reading. (A store that may have them already reads them once more before, and stores
//! nothing of that reading.) Pid 1 waits, so no more than one descriptor is on its way and no file of the sandbox outlives it.

use super::helper::{receive_descriptors, send_descriptors};
use crate::store::Content;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::FileExt, net::UnixStream},
    },
};

/// Files of this many bytes or more are passed, smaller ones sent: below, the messages cost more than the bytes.
pub(super) const PASS_FD_FROM: u64 = 1 << 20;

/// The byte that gives back what was passed.
const DONE: u8 = b'd';

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Lends the executor a file and waits until it needs it no more. The file is open for reading only.
pub(super) fn pass_file(files: &UnixStream, file: OwnedFd) -> io::Result<()> {
    send_descriptors(files, &[file])?;
    let mut byte = [0u8];
    (&*files).read_exact(&mut byte)?;
    if byte[0] == DONE {
        Ok(())
    } else {
        Err(invalid("something else came back than was passed"))
    }
}

/// A file that pid 1 has passed. Read by offset, for where the descriptor stands is pid 1's to change.
pub(super) struct PassedFile {
    file: File,
    at: u64,
}

impl PassedFile {
    /// Receives what [`pass_file`] sends.
    pub(super) fn receive(files: &UnixStream) -> io::Result<Self> {
        let mut passed = receive_descriptors(files, 1)?;
        match (passed.pop(), passed.is_empty()) {
            (Some(file), true) => Ok(Self {
                file: file.into(),
                at: 0,
            }),
            _ => Err(invalid("none or several files are passed where it should be one")),
        }
    }

    /// Says what is wrong if this is not a regular file of `size` bytes that can be read and nothing else.
    pub(super) fn check(&self, size: u64) -> Result<(), String> {
        let found = self.file.metadata().map_err(|e| e.to_string())?;
        let flags = fcntl(&self.file, FcntlArg::F_GETFL).map_err(|e| e.to_string())?;
        let flags = OFlag::from_bits_retain(flags);
        if !found.is_file() {
            return Err("is passed as something else than a regular file".to_owned());
        }
        if found.len() != size {
            return Err(format!(
                "was announced with {size} bytes and is passed with {}",
                found.len()
            ));
        }
        // With O_PATH the mode of access is 0, which is that of reading.
        if flags.intersection(OFlag::O_ACCMODE | OFlag::O_PATH) != OFlag::O_RDONLY {
            return Err("is passed with other rights than to read it".to_owned());
        }
        Ok(())
    }

    /// Closes the file and says so.
    pub(super) fn give_back(self, files: &UnixStream) -> io::Result<()> {
        drop(self.file);
        (&*files).write_all(&[DONE])
    }
}

impl Read for PassedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Content for PassedFile {
    fn restart(&mut self) -> io::Result<bool> {
        self.at = 0;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::OpenOptionsExt, thread};

    #[test]
    fn a_passed_file_is_read_from_its_start_and_given_back() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"content").expect("written");
        let sender = thread::spawn(move || pass_file(&theirs, file.into()));
        let mut passed = PassedFile::receive(&ours).expect("passed");
        let mut text = String::new();
        passed.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "content");
        assert!(passed.restart().expect("a file can"));
        assert_eq!(io::read_to_string(&mut passed).expect("readable"), "content");
        assert!(!sender.is_finished(), "it waits until the file is given back");
        passed.give_back(&ours).expect("given back");
        sender.join().expect("ends").expect("passed");
    }

    #[test]
    fn only_a_regular_file_of_the_size_that_was_said_open_for_reading_passes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, "content").expect("written");
        let with = |options: &mut std::fs::OpenOptions| options.open(&path).expect("there");
        let read = || std::fs::OpenOptions::new().read(true).to_owned();
        let (pipe, _writer) = io::pipe().expect("a pipe");
        let cases: [(&str, OwnedFd, u64, Option<&str>); 7] = [
            ("as it should be", with(&mut read()).into(), 7, None),
            (
                "shorter",
                with(&mut read()).into(),
                8,
                Some("was announced with 8 bytes and is passed with 7"),
            ),
            (
                "longer",
                with(&mut read()).into(),
                6,
                Some("was announced with 6 bytes"),
            ),
            ("to write too", with(read().write(true)).into(), 7, Some("other rights")),
            (
                "by name only",
                with(read().custom_flags(libc::O_PATH)).into(),
                7,
                Some("other rights"),
            ),
            (
                "a directory",
                File::open(dir.path()).expect("there").into(),
                7,
                Some("something else"),
            ),
            ("a pipe", pipe.into(), 0, Some("something else")),
        ];
        for (name, file, size, says) in cases {
            let passed = PassedFile {
                file: file.into(),
                at: 0,
            };
            match (passed.check(size), says) {
                (Ok(()), None) => {}
                (Err(problem), Some(says)) => assert!(problem.contains(says), "{name}: {problem}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn none_or_several_descriptors_are_refused() {
        let file = || OwnedFd::from(tempfile::tempfile().expect("a file"));
        for passed in [vec![], vec![file(), file()]] {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            send_descriptors(&theirs, &passed).expect("sent");
            assert!(PassedFile::receive(&ours).is_err(), "{} descriptors", passed.len());
        }
        // A count of one, and a message with two.
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (a, b) = (file(), file());
        super::super::wire::send_value(&mut &theirs, &1).expect("sent");
        let raw = [&a, &b].map(std::os::fd::AsRawFd::as_raw_fd);
        nix::sys::socket::sendmsg::<nix::sys::socket::UnixAddr>(
            std::os::fd::AsRawFd::as_raw_fd(&theirs),
            &[io::IoSlice::new(b"d")],
            &[nix::sys::socket::ControlMessage::ScmRights(&raw)],
            nix::sys::socket::MsgFlags::empty(),
            None,
        )
        .expect("sent");
        assert!(PassedFile::receive(&ours).is_err(), "two where one was announced");
    }

    #[test]
    fn an_executor_that_goes_away_ends_the_wait() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let sender = thread::spawn(move || pass_file(&theirs, tempfile::tempfile().expect("a file").into()));
        drop(PassedFile::receive(&ours).expect("passed"));
        drop(ours);
        assert!(sender.join().expect("ends").is_err());
    }
}
