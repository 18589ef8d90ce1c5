//! Whether a machine is slow or stands still: judged by the lines of its console and the moments at which they came.

use serde::Serialize;
use std::time::Duration;

/// Share of a machine's time without a new line after which it counts as standing still: one quarter.
const STILL_SHARE: u32 = 4;
/// A machine that printed a line within this time moves, however short its whole time was.
const STILL_AT_LEAST: Duration = Duration::from_secs(60);
/// Bytes of a line that are kept.
const MAX_LINE: usize = 200;
/// Words of the kernel's reports that a processor makes no progress. A machine that stands still repeats them.
const STALLS: [&str; 4] = ["rcu:", "rcu_", "soft lockup", "blocked for more than"];

/// The state of a machine that gave no verdict within its time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "console", rename_all = "kebab-case")]
pub enum Pace {
    /// The console still moved: the machine is slow, and more time may be enough.
    Slow {
        /// The last line of the console.
        line: String,
    },
    /// The console had stopped.
    Still {
        /// Seconds since the last line.
        seconds: u64,
        /// That line.
        line: String,
    },
    /// The console never had a line.
    Silent,
}

/// The lines of a console, with the moment of the last one.
#[derive(Clone, Debug, Default)]
pub struct ConsoleProgress {
    line: Vec<u8>,
    /// Whether the next bytes belong to an escape sequence.
    escape: bool,
    last: Option<(Duration, String)>,
}

impl ConsoleProgress {
    /// Takes the next bytes of the console, which came at `now` since the machine's start.
    pub fn take(&mut self, bytes: &[u8], now: Duration) {
        for &byte in bytes {
            if self.escape {
                // A sequence such as `ESC [ 3 2 m` ends with a letter.
                self.escape = !byte.is_ascii_alphabetic();
                continue;
            }
            match byte {
                0x1b => self.escape = true,
                b'\n' => {
                    let text = String::from_utf8_lossy(&self.line).trim().to_owned();
                    self.line.clear();
                    if !text.is_empty() && !STALLS.iter().any(|words| text.contains(words)) {
                        self.last = Some((now, text));
                    }
                }
                // Other control characters are not for messages.
                0x20.. if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    /// The state of the machine when its time was over at `now`.
    pub fn pace(&self, now: Duration) -> Pace {
        let Some((at, line)) = &self.last else {
            return Pace::Silent;
        };
        let (quiet, line) = (now.saturating_sub(*at), line.clone());
        if quiet < STILL_AT_LEAST.max(now / STILL_SHARE) {
            Pace::Slow { line }
        } else {
            let seconds = quiet.as_secs();
            Pace::Still { seconds, line }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_console_that_moved_lately_is_slow_and_one_that_stopped_stands_still() {
        let mut progress = ConsoleProgress::default();
        assert_eq!(progress.pace(seconds(400)), Pace::Silent);
        progress.take(b"[  1.0] Linux version\n[  2", seconds(100));
        let line = "[  1.0] Linux version".to_owned();
        assert_eq!(progress.pace(seconds(130)), Pace::Slow { line: line.clone() });
        assert_eq!(progress.pace(seconds(159)), Pace::Slow { line: line.clone() });
        let still = Pace::Still {
            seconds: 300,
            line: line.clone(),
        };
        assert_eq!(progress.pace(seconds(400)), still);
        // The end of a line counts, not its beginning; a quarter of the whole time may pass without one.
        progress.take(b".0] \x1b[32mmounted\x1b[0m\r\n", seconds(310));
        let line = "[  2.0] mounted".to_owned();
        assert_eq!(progress.pace(seconds(400)), Pace::Slow { line });
    }

    #[test]
    fn reports_of_a_stall_are_no_progress() {
        let mut progress = ConsoleProgress::default();
        progress.take(b"systemd[1]: Started dbus\n", seconds(50));
        for at in [110, 200, 290, 380] {
            progress.take(b"rcu: INFO: rcu_preempt self-detected stall on CPU\n\n", seconds(at));
            progress.take(b"watchdog: BUG: soft lockup - CPU#1 stuck for 26s!\r\n", seconds(at));
        }
        let line = "systemd[1]: Started dbus".to_owned();
        assert_eq!(progress.pace(seconds(400)), Pace::Still { seconds: 350, line });
    }
}
