//! The console of the machine: shown while it runs, and judged.

use super::{super::report::Report, console_text::ConsoleText};
use pnb::{
    boot::{
        Accelerator, BootPhase, BootVerdict, ConsoleProgress, Expected, Judge, KvmWatch, PROCESSOR_SECOND, PULSE, Pace,
    },
    sandbox::LogSink,
};
use std::{
    io, mem,
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// Shows the console of the machine, and ends the machine once it is judged.
pub(super) struct BootConsole<'a> {
    judge: Judge,
    progress: ConsoleProgress,
    /// The first byte of the console, which comes soon after the machine's start.
    started: Option<Instant>,
    /// Whether anything has come from the machine's sandbox.
    begun: bool,
    /// Text of the console behind its last line, where lines are drawn over.
    pending: String,
    /// The moment of the ready line.
    ready: Option<Instant>,
    /// Time for which a ready machine is watched.
    settle: Duration,
    settled: bool,
    expected: &'a Expected,
    accelerator: Accelerator,
    kvm: KvmWatch,
    phase: BootPhase,
    /// Seconds that such a boot takes, if that is known.
    about: Option<u64>,
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
    /// The last stage of the boot that was seen.
    pub(super) phase: BootPhase,
    /// Seconds from the first byte of the console to its end.
    pub(super) seconds: u64,
    /// What QEMU said of KVM: that it cannot go on, or its first message.
    pub(super) kvm: KvmWatch,
}

impl<'a> BootConsole<'a> {
    pub(super) fn new(
        screen: Option<&'a Report>,
        expected: &'a Expected,
        settle: Duration,
        accelerator: Accelerator,
        about: Option<u64>,
    ) -> Self {
        Self {
            judge: Judge::default(),
            progress: ConsoleProgress::default(),
            accelerator,
            kvm: KvmWatch::default(),
            phase: BootPhase::default(),
            about,
            begun: false,
            pending: String::new(),
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
        if let Some(screen) = self.screen {
            screen.end_boot();
            if !self.pending.is_empty() {
                screen.text(&format!("{}\n", self.pending));
            }
        }
        ConsoleEnd {
            phase: self.progress.phase(),
            seconds: now.as_secs(),
            kvm: self.kvm,
            contradiction: self.judge.contradiction().map(str::to_owned),
            settled: self.settled,
            verdict: self.judge.verdict(),
            pace: self.progress.pace(now),
        }
    }
}

impl BootConsole<'_> {
    /// Tells the stage of the boot once it is another one.
    fn show_phase(&mut self) {
        let phase = self.progress.phase();
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        if let (Some(screen), Some(started)) = (self.screen, self.started) {
            screen.boot_phase(phase.as_str(), started.elapsed().as_secs(), self.about);
        }
    }
}

impl LogSink for BootConsole<'_> {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        if let Some(screen) = self.screen.filter(|_| !self.begun) {
            self.begun = true;
            screen.begin_boot(self.about);
        }
        // The pulse of the built-in that runs the machine, and the processor time of QEMU.
        let worked = bytes.iter().filter(|byte| **byte == PROCESSOR_SECOND).count() as u64;
        self.progress.worked(worked);
        let signals = [PULSE, PROCESSOR_SECOND];
        let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| !signals.contains(byte)).collect();
        if let Some(screen) = self.screen.filter(|_| !bytes.is_empty()) {
            let text = self.text.take(&bytes);
            self.pending.push_str(&text);
            screen.text(&whole_lines(&mut self.pending, screen.live()));
        }
        if !bytes.is_empty() {
            let started = *self.started.get_or_insert_with(Instant::now);
            self.progress.take(&bytes, started.elapsed());
        }
        self.show_phase();
        if self.accelerator == Accelerator::Kvm {
            self.kvm.take(&bytes);
            if self.kvm.broken().is_some() && self.judge.is_open() {
                return Ok(ControlFlow::Break(()));
            }
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

/// Longest text that waits for the end of its line.
const MAX_PENDING: usize = 4096;

/// Takes the text that can be shown out of `pending`: all of it, or, where the last line is drawn over, what ends with a line.
fn whole_lines(pending: &mut String, live: bool) -> String {
    let end = match pending.rfind('\n') {
        _ if !live => pending.len(),
        Some(at) => at + 1,
        None if pending.len() > MAX_PENDING => {
            pending.push('\n');
            pending.len()
        }
        None => 0,
    };
    let rest = pending.split_off(end);
    mem::replace(pending, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_drawn_over_is_shown_when_it_is_whole() {
        let mut pending = "one\ntwo".to_owned();
        assert_eq!(whole_lines(&mut pending, true), "one\n");
        assert_eq!(whole_lines(&mut pending, true), "");
        assert_eq!(whole_lines(&mut pending, false), "two");
        assert_eq!(pending, "");
        pending = "x".repeat(MAX_PENDING + 1);
        assert_eq!(
            whole_lines(&mut pending, true),
            format!("{}\n", "x".repeat(MAX_PENDING + 1))
        );
    }
}
