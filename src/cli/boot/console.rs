//! The console of the machine: shown while it runs, and judged.

use super::{super::report::Report, console_text::ConsoleText};
use pnb::{
    boot::{BootVerdict, ConsoleProgress, Judge, Pace},
    sandbox::LogSink,
};
use std::{io, ops::ControlFlow, time::Instant};

/// Shows the console of the machine, and ends the machine once there is a verdict.
pub(super) struct BootConsole<'a> {
    judge: Judge,
    progress: ConsoleProgress,
    /// The first byte of the console, which comes soon after the machine's start.
    started: Option<Instant>,
    /// Where the console is shown, if it is.
    screen: Option<&'a Report>,
    text: ConsoleText,
}

impl<'a> BootConsole<'a> {
    pub(super) fn new(screen: Option<&'a Report>) -> Self {
        Self {
            judge: Judge::default(),
            progress: ConsoleProgress::default(),
            started: None,
            screen,
            text: ConsoleText::default(),
        }
    }

    /// The verdict, and the pace of the machine, which is for a machine without a verdict.
    pub(super) fn end(self) -> (Option<BootVerdict>, Pace) {
        let now = self.started.map(|at| at.elapsed()).unwrap_or_default();
        (self.judge.verdict(), self.progress.pace(now))
    }
}

impl LogSink for BootConsole<'_> {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        if let Some(screen) = self.screen {
            let text = self.text.take(bytes);
            screen.text(&text);
        }
        let started = *self.started.get_or_insert_with(Instant::now);
        self.progress.take(bytes, started.elapsed());
        Ok(match self.judge.take(bytes) {
            // An installing machine powers off by itself once the disk is written.
            None | Some(BootVerdict::Installed { .. }) => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        })
    }
}
