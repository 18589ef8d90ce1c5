//! The console of the machine: shown while it runs, and judged.

use super::{super::report::Report, console_text::ConsoleText};
use pnb::{
    boot::{BootVerdict, ConsoleProgress, Expected, Judge, Pace},
    sandbox::LogSink,
};
use std::{
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// Shows the console of the machine, and ends the machine once it is judged.
pub(super) struct BootConsole<'a> {
    judge: Judge,
    progress: ConsoleProgress,
    /// The first byte of the console, which comes soon after the machine's start.
    started: Option<Instant>,
    /// The moment of the ready line.
    ready: Option<Instant>,
    /// Time for which a ready machine is watched.
    settle: Duration,
    settled: bool,
    expected: &'a Expected,
    /// Where the console is shown, if it is.
    screen: Option<&'a Report>,
    text: ConsoleText,
}

/// What was on the console of a machine that has ended.
pub(super) struct ConsoleEnd {
    pub(super) verdict: Option<BootVerdict>,
    /// The line that contradicts the verdict.
    pub(super) contradiction: Option<String>,
    /// Whether the machine was watched for the whole time after its ready line.
    pub(super) settled: bool,
    /// For a machine without a verdict.
    pub(super) pace: Pace,
}

impl<'a> BootConsole<'a> {
    pub(super) fn new(screen: Option<&'a Report>, expected: &'a Expected, settle: Duration) -> Self {
        Self {
            judge: Judge::default(),
            progress: ConsoleProgress::default(),
            started: None,
            ready: None,
            settle,
            settled: false,
            expected,
            screen,
            text: ConsoleText::default(),
        }
    }

    pub(super) fn end(self) -> ConsoleEnd {
        let now = self.started.map(|at| at.elapsed()).unwrap_or_default();
        ConsoleEnd {
            contradiction: self.judge.contradiction().map(str::to_owned),
            settled: self.settled,
            verdict: self.judge.verdict(),
            pace: self.progress.pace(now),
        }
    }
}

impl LogSink for BootConsole<'_> {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        // The pulse of the built-in that runs the machine. A console has no use for a NUL either.
        let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
        if let Some(screen) = self.screen.filter(|_| !bytes.is_empty()) {
            let text = self.text.take(&bytes);
            screen.text(&text);
        }
        if !bytes.is_empty() {
            let started = *self.started.get_or_insert_with(Instant::now);
            self.progress.take(&bytes, started.elapsed());
        }
        let verdict = self.judge.take(&bytes);
        let over = match verdict {
            // An installing machine powers off by itself once the disk is written.
            None | Some(BootVerdict::Installed { .. }) => false,
            Some(ready @ BootVerdict::Ready { .. }) => {
                let since = self.ready.get_or_insert_with(Instant::now).elapsed();
                self.settled = since >= self.settle;
                self.settled || self.expected.problem(ready).is_some() || self.judge.contradiction().is_some()
            }
            Some(_) => true,
        };
        Ok(match over {
            false => ControlFlow::Continue(()),
            true => ControlFlow::Break(()),
        })
    }
}
