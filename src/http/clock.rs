//! The clock of the client, an argument, so that tests of waits take no time.

use std::{
    fmt::Debug,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A clock that can wait.
pub trait HttpClock: Send + Sync + Debug {
    /// Time since a moment that stays the same for the clock.
    fn elapsed(&self) -> Duration;
    /// Seconds since 1970-01-01 UTC, with which dates of servers are compared.
    fn unix(&self) -> i64;
    /// Waits.
    fn wait(&self, time: Duration);
}

/// The clock of this machine.
#[derive(Debug)]
pub struct MachineClock(Instant);

impl Default for MachineClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl HttpClock for MachineClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix(&self) -> i64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "dates of servers are compared with it; no output of a build depends on it"
        )]
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
