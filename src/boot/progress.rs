//! Whether a machine is slow or stands still: judged by the lines of its console, the moments at which they came, and the processor time
//! that its emulator has used.

use super::BootPhase;
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
        /// Seconds since it came.
        seconds: u64,
    },
    /// The console shows nothing but systemd's remark that a job is not done: the machine runs, and waits.
    Waiting {
        /// Seconds since the last other line.
        seconds: u64,
        /// The remark.
        job: String,
    },
    /// The console had stopped.
    Still {
        /// Seconds since the last line.
        seconds: u64,
        /// That line.
        line: String,
        /// Seconds of processor time that were used since then.
        processor: u64,
    },
    /// The console never had a line.
    Silent {
        /// Seconds of processor time that were used.
        processor: u64,
    },
}

/// The last line of a console that was progress.
#[derive(Clone, Debug)]
struct LastLine {
    at: Duration,
    text: String,
    /// The processor time that had been used then.
    processor: u64,
}

/// The lines of a console, with the moment of the last one.
#[derive(Clone, Debug, Default)]
pub struct ConsoleProgress {
    line: Vec<u8>,
    /// Whether the next bytes belong to an escape sequence.
    escape: bool,
    last: Option<LastLine>,
    /// The last remark on a job, behind the last line.
    waiting: Option<String>,
    phase: BootPhase,
    /// Seconds of processor time that have been used.
    processor: u64,
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
                b'\n' => self.end_line(now),
                // Other control characters are not for messages.
                0x20.. if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self, now: Duration) {
        let text = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.line.clear();
        if text.is_empty() || STALLS.iter().any(|words| text.contains(words)) {
            return;
        }
        if let Some(job) = job_not_done(&text) {
            self.waiting = Some(job.to_owned());
            return;
        }
        self.phase = self.phase.after(&text);
        self.waiting = None;
        self.last = Some(LastLine {
            at: now,
            text,
            processor: self.processor,
        });
    }

    /// Notes that the machine's emulator has used `seconds` more of processor time.
    pub fn worked(&mut self, seconds: u64) {
        self.processor = self.processor.saturating_add(seconds);
    }

    /// The stage of the boot that the console has shown last.
    pub fn phase(&self) -> BootPhase {
        self.phase
    }

    /// The state of the machine when its time was over at `now`.
    pub fn pace(&self, now: Duration) -> Pace {
        let Some(last) = &self.last else {
            let processor = self.processor;
            return Pace::Silent { processor };
        };
        let quiet = now.saturating_sub(last.at);
        let seconds = quiet.as_secs();
        let line = last.text.clone();
        if quiet < STILL_AT_LEAST.max(now / STILL_SHARE) {
            return Pace::Slow { line, seconds };
        }
        match self.waiting.clone() {
            Some(job) => Pace::Waiting { seconds, job },
            None => Pace::Still {
                seconds,
                line,
                processor: self.processor.saturating_sub(last.processor),
            },
        }
    }
}

/// The job in a line with which systemd shows that it waits: `[ *** ] Job x.service/start running (23s / no limit)`, with `(1 of 2) ` before
/// the name if there are several, and `A start job is running for …` where it describes units instead of naming them. It repeats these
/// lines while nothing else happens.
fn job_not_done(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('[')?;
    let (stars, rest) = rest.split_once(']')?;
    let rest = rest.trim();
    let animated = stars.contains('*') && stars.chars().all(|c| c == '*' || c == ' ');
    (animated && rest.contains("running")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn slow(line: &str, seconds: u64) -> Pace {
        let line = line.to_owned();
        Pace::Slow { line, seconds }
    }

    #[test]
    fn a_console_that_moved_lately_is_slow_and_one_that_stopped_stands_still() {
        let mut progress = ConsoleProgress::default();
        progress.worked(7);
        assert_eq!(progress.pace(seconds(400)), Pace::Silent { processor: 7 });
        progress.take(b"[  1.0] Linux version\n[  2", seconds(100));
        let line = "[  1.0] Linux version".to_owned();
        assert_eq!(progress.pace(seconds(130)), slow(&line, 30));
        assert_eq!(progress.pace(seconds(159)), slow(&line, 59));
        progress.worked(250);
        let still = Pace::Still {
            seconds: 300,
            line: line.clone(),
            processor: 250,
        };
        assert_eq!(progress.pace(seconds(400)), still);
        // The end of a line counts, not its beginning; a quarter of the whole time may pass without one.
        progress.take(b".0] \x1b[32mmounted\x1b[0m\r\n", seconds(310));
        assert_eq!(progress.pace(seconds(400)), slow("[  2.0] mounted", 90));
    }

    #[test]
    fn reports_of_a_stall_are_no_progress() {
        let mut progress = ConsoleProgress::default();
        progress.take(b"systemd[1]: Started dbus\n", seconds(50));
        for at in [110, 200, 290, 380] {
            progress.take(b"rcu: INFO: rcu_preempt self-detected stall on CPU\n\n", seconds(at));
            progress.take(b"watchdog: BUG: soft lockup - CPU#1 stuck for 26s!\r\n", seconds(at));
        }
        let still = Pace::Still {
            seconds: 350,
            line: "systemd[1]: Started dbus".to_owned(),
            processor: 0,
        };
        assert_eq!(progress.pace(seconds(400)), still);
    }

    #[test]
    fn a_job_that_does_not_end_is_waited_for_and_is_no_progress() {
        for (line, job) in [
            (
                "\x1bM\r\x1b[K[  \x1b[0;31m*\x1b[0;1;31m*\x1b[0m\x1b[0;31m* \x1b[0m] Job powernode-ready.service/start running (23s / no limit)\r\n",
                "Job powernode-ready.service/start running (23s / no limit)",
            ),
            (
                "[***   ] (1 of 2) Job dev-sda.device/start running (5s / 1min 30s)\n",
                "(1 of 2) Job dev-sda.device/start running (5s / 1min 30s)",
            ),
            (
                "[*     ] A start job is running for Powernode agent (9s / 30s)\n",
                "A start job is running for Powernode agent (9s / 30s)",
            ),
        ] {
            let mut progress = ConsoleProgress::default();
            progress.take(b"[  OK  ] Started dbus\n", seconds(50));
            for at in 51..400 {
                progress.take(line.as_bytes(), seconds(at));
            }
            assert_eq!(progress.pace(seconds(70)), slow("[  OK  ] Started dbus", 20));
            let waiting = Pace::Waiting {
                seconds: 350,
                job: job.to_owned(),
            };
            assert_eq!(progress.pace(seconds(400)), waiting);
            // A line that is something else ends the waiting.
            progress.take(b"[  OK  ] Finished x.service, which was running.\n", seconds(401));
            assert_eq!(
                progress.pace(seconds(402)),
                slow("[  OK  ] Finished x.service, which was running.", 1)
            );
        }
    }
}
