//! The waits between tries.
//!
//! Source: RFC 9110, §10.2.3 (`Retry-After`), §5.6.7 (dates).

use super::{clock::HttpClock, request::Answer};
use std::time::Duration;
use ureq::http::{HeaderMap, header};

/// The wait before the second try; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait that no server asked for.
const LONGEST: Duration = Duration::from_secs(30);

/// Whether a status says that the same request may succeed later.
pub fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The wait after the try of this number, counted from 1, if the server did not say another.
pub(super) fn wait(made: u32) -> Duration {
    FIRST.saturating_mul(1 << made.saturating_sub(1).min(16)).min(LONGEST)
}

/// The tries of one piece of work: their number, and the time in which they begin.
#[derive(Debug)]
pub struct Tries<'a> {
    clock: &'a dyn HttpClock,
    /// The number of the present try, counted from 1.
    pub(super) made: u32,
    /// The most tries.
    pub(super) most: u32,
    begin: Duration,
    total: Duration,
}

impl<'a> Tries<'a> {
    pub(super) fn new(clock: &'a dyn HttpClock, most: u32, total: Duration) -> Self {
        Self {
            clock,
            made: 1,
            most: most.max(1),
            begin: clock.elapsed(),
            total,
        }
    }

    /// The number of the present try, counted from 1.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// The time that is left.
    pub fn left(&self) -> Duration {
        let used = self.clock.elapsed().saturating_sub(self.begin);
        self.total.saturating_sub(used)
    }

    /// Waits, and says whether there is another try: as long as `answer` asks for, else twice as long as before.
    pub fn again(&mut self, answer: Option<&Answer>) -> bool {
        let asked = answer.and_then(|answer| retry_after(&answer.headers, self.clock.unix()));
        let pause = asked.unwrap_or_else(|| wait(self.made));
        let another = self.made < self.most && pause < self.left();
        if another {
            self.clock.wait(pause);
            self.made += 1;
        }
        another
    }

    /// Gives the work its whole time again, after a try that took long because it moved many bytes.
    pub fn restart(&mut self) {
        self.begin = self.clock.elapsed();
    }
}

/// The time that an answer's `Retry-After` asks for, in seconds or as a date, which is compared with `now` (seconds since 1970). `None` for
/// no or another value.
pub fn retry_after(headers: &HeaderMap, now: i64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // A number that does not fit is longer than anybody waits.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second();
    Some(Duration::from_secs(
        u64::try_from(date.saturating_sub(now)).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_that_a_server_asks_for_is_seconds_or_a_date() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a value"));
            // 1994-11-06 08:49:30 UTC.
            retry_after(&headers, 784_111_770).map(|wait| wait.as_secs())
        };
        assert_eq!(asked("0"), Some(0));
        assert_eq!(asked(" 120 "), Some(120));
        assert_eq!(asked("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0));
        for bad in ["", "-1", "1.5", "soon", "Sun, 06 Nov"] {
            assert_eq!(asked(bad), None, "{bad:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), 0), None);
    }

    #[test]
    fn waits_double_and_have_an_end() {
        let waits: Vec<u64> = (1..8).map(|made| wait(made).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(wait(u32::MAX), LONGEST);
    }
}
