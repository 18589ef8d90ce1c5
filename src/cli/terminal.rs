//! The terminal of an interactive stage or machine: its modes are restored when that has ended, however it ended.

use super::report::Report;
use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal},
    termios::{FlowArg, SetArg, Termios, tcflow, tcgetattr, tcsetattr},
};
use std::{
    io::{self, IsTerminal},
    os::fd::{AsFd, OwnedFd},
};

/// Sequences that end what a program can have switched on: colours, a hidden cursor, no wrapping, the insert mode, another character set,
/// the alternate screen, reports of the mouse and of pasting. Terminals ignore those that they lack.
const SANE: &[u8] =
    b"\x1b[0m\x1b[?25h\x1b[?7h\x1b[4l\x1b(B\x0f\x1b[?1047l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l";

/// The modes of a terminal, restored when this is dropped. A program that crashes leaves a terminal without echo or lines, and one that is
/// hostile does so on purpose.
pub(super) struct TerminalModes<'a> {
    terminal: OwnedFd,
    modes: Termios,
    report: Option<&'a Report>,
}

impl<'a> TerminalModes<'a> {
    /// The modes of standard input; `None` when it is no terminal.
    pub(super) fn save(report: &'a Report) -> Option<Self> {
        let shown = io::stdout().is_terminal().then_some(report);
        Self::of(io::stdin(), shown)
    }

    fn of(terminal: impl AsFd, report: Option<&'a Report>) -> Option<Self> {
        let modes = tcgetattr(&terminal).ok()?;
        Some(Self {
            terminal: terminal.as_fd().try_clone_to_owned().ok()?,
            modes,
            report,
        })
    }
}

impl Drop for TerminalModes<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a failure: the terminal is gone.
        let mut terminal_output = SigSet::empty();
        terminal_output.add(Signal::SIGTTOU);
        if let Ok(before) = terminal_output.thread_swap_mask(SigmaskHow::SIG_BLOCK) {
            let _ = tcflow(&self.terminal, FlowArg::TCOON);
            let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.modes);
            let _ = before.thread_set_mask();
        }
        if let Some(report) = self.report {
            report.raw(SANE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        pty::openpty,
        sys::termios::{InputFlags, LocalFlags, OutputFlags, cfmakeraw},
    };

    #[test]
    fn the_modes_of_a_terminal_are_restored() {
        let pty = openpty(None, None).expect("a terminal");
        let flags = || {
            let modes = tcgetattr(&pty.slave).expect("a terminal");
            (
                modes.input_flags,
                modes.output_flags,
                modes.local_flags,
                modes.control_chars,
            )
        };
        let before = flags();
        assert!(
            before
                .2
                .contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
        );
        for spoil in [
            |modes: &mut Termios| cfmakeraw(modes),
            |modes: &mut Termios| modes.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON),
            |modes: &mut Termios| {
                modes.output_flags.remove(OutputFlags::OPOST);
                modes.input_flags.remove(InputFlags::ICRNL);
                modes.control_chars.fill(b'x');
            },
        ] {
            let saved = TerminalModes::of(&pty.slave, None);
            assert!(saved.is_some());
            let mut modes = tcgetattr(&pty.slave).expect("a terminal");
            spoil(&mut modes);
            tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).expect("set");
            assert_ne!(flags(), before);
            drop(saved);
            assert_eq!(flags(), before);
        }
        let (pipe, _) = io::pipe().expect("a pipe");
        assert!(TerminalModes::of(&pipe, None).is_none());
    }
}
