//! `Stop`: waits that a request to stop ends.

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// Ends servers and all their waits. A request cannot be withdrawn.
#[derive(Debug)]
pub struct Stop {
    waiting: UnixStream,
    /// Shut down by a request: from then on, `waiting` is readable in all threads.
    asking: UnixStream,
}

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// The descriptor is ready, or has an error, which the next call on it returns.
    Ready,
    /// The deadline has passed.
    TimedOut,
    /// A stop was requested.
    Stopped,
}

/// Longest single poll(2); a longer wait takes several.
const MAX_POLL: Duration = Duration::from_secs(60);

impl Stop {
    /// A stop that is not requested yet.
    ///
    /// # Errors
    ///
    /// The process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        let (waiting, asking) = UnixStream::pair()?;
        Ok(Self { waiting, asking })
    }

    /// Requests every server with this stop to end.
    pub fn request(&self) {
        // Fails only if it was requested before.
        let _ = self.asking.shutdown(Shutdown::Both);
    }

    /// Waits until `fd` is readable, the stop is requested, or `deadline` has passed.
    ///
    /// # Errors
    ///
    /// Those of poll(2).
    pub fn readable(&self, fd: impl AsFd, deadline: Option<Instant>) -> io::Result<Wake> {
        self.wait(Some((fd.as_fd(), PollFlags::POLLIN)), deadline)
    }

    /// As [`Self::readable`], for writing.
    pub(super) fn writable(&self, fd: impl AsFd, deadline: Instant) -> io::Result<Wake> {
        self.wait(Some((fd.as_fd(), PollFlags::POLLOUT)), Some(deadline))
    }

    /// Waits for `time`, or until the stop is requested.
    ///
    /// # Errors
    ///
    /// Those of poll(2).
    pub fn pause(&self, time: Duration) -> io::Result<Wake> {
        self.wait(None, Some(Instant::now() + time))
    }

    fn wait(&self, fd: Option<(BorrowedFd<'_>, PollFlags)>, deadline: Option<Instant>) -> io::Result<Wake> {
        loop {
            let mut fds = vec![PollFd::new(self.waiting.as_fd(), PollFlags::POLLIN)];
            fds.extend(fd.map(|(fd, events)| PollFd::new(fd, events)));
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let timeout = match left {
                None => PollTimeout::NONE,
                // Rounded up: a wait of less than a millisecond must not become a busy loop.
                Some(left) => {
                    let millis = left.min(MAX_POLL).as_micros().div_ceil(1000);
                    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
                }
            };
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |at: usize| fds.get(at).and_then(PollFd::any) == Some(true);
            if ready(0) {
                return Ok(Wake::Stopped);
            }
            if ready(1) {
                return Ok(Wake::Ready);
            }
            if deadline.is_some_and(|d| d <= Instant::now()) {
                return Ok(Wake::TimedOut);
            }
        }
    }
}
