//! Large files leave the sandbox by descriptor: pid 1 passes them, one at a time, and the executor reads them itself.
//!
//! ```text
//! pid 1      entry, over the control socket      …      waits               continues
//! pid 1      descriptor, over a second socket ─┐           ▲
//! executor                                     └► checks, reads, stores, closes, sends DONE
//! ```
//!
//! No other process is left in the sandbox at this time, so the bytes do not change while they are read. Their digest is still computed
//! over the same reading that is stored. (A store that may already have the content reads it once before, and stores nothing of that
//! reading.) Pid 1 waits, so at most one descriptor is outside, and no file of the sandbox outlives it.

use super::descriptors::{receive_descriptors, send_descriptors};
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

/// Files of this many bytes or more are passed, smaller ones are streamed: for those the messages cost more than the bytes.
pub(super) const PASS_FD_FROM: u64 = 1 << 20;

/// The executor's answer after it has closed the descriptor.
const DONE: u8 = b'd';

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Passes a file, open for reading only, to the executor and waits until the executor has closed it.
pub(super) fn pass_file(files: &UnixStream, file: OwnedFd) -> io::Result<()> {
    send_descriptors(files, &[file])?;
    let mut byte = [0u8];
    (&*files).read_exact(&mut byte)?;
    if byte[0] == DONE {
        Ok(())
    } else {
        Err(invalid("the executor answered a passed file with an unknown byte"))
    }
}

/// A file that pid 1 has passed. It is read at explicit offsets, because pid 1 can move the shared file offset.
pub(super) struct PassedFile {
    file: File,
    at: u64,
}

impl PassedFile {
    /// Receives the file of one [`pass_file`].
    pub(super) fn receive(files: &UnixStream) -> io::Result<Self> {
        let mut passed = receive_descriptors(files, 1)?;
        match (passed.pop(), passed.is_empty()) {
            (Some(file), true) => Ok(Self {
                file: file.into(),
                at: 0,
            }),
            _ => Err(invalid("zero or several descriptors were passed instead of one")),
        }
    }

    /// Checks that this is a regular file of `size` bytes, open for reading only; the error says what it is instead.
    pub(super) fn check(&self, size: u64) -> Result<(), String> {
        let found = self.file.metadata().map_err(|e| e.to_string())?;
        let flags = fcntl(&self.file, FcntlArg::F_GETFL).map_err(|e| e.to_string())?;
        let flags = OFlag::from_bits_retain(flags);
        if !found.is_file() {
            return Err("was passed as something else than a regular file".to_owned());
        }
        if found.len() != size {
            return Err(format!(
                "was announced with {size} bytes and passed with {}",
                found.len()
            ));
        }
        // O_PATH is checked too: its access mode is 0, the same as O_RDONLY.
        if flags.intersection(OFlag::O_ACCMODE | OFlag::O_PATH) != OFlag::O_RDONLY {
            return Err("was passed with other rights than to read it".to_owned());
        }
        Ok(())
    }

    /// Closes the file and tells pid 1.
    pub(super) fn release(self, files: &UnixStream) -> io::Result<()> {
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
    fn a_passed_file_is_read_from_its_start_and_released() {
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
        assert!(!sender.is_finished(), "it waits until the file is released");
        passed.release(&ours).expect("released");
        sender.join().expect("ends").expect("passed");
    }

    #[test]
    fn only_a_regular_file_of_the_announced_size_open_for_reading_is_accepted() {
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
                Some("was announced with 8 bytes and passed with 7"),
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
        // The count is one, and the message holds two.
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
