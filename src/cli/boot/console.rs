//! The console of the machine: shown while it runs, and judged.

use super::super::report::Report;
use pnb::{
    boot::{BootVerdict, Judge},
    sandbox::LogSink,
};
use std::{io, ops::ControlFlow};

/// Shows the console of the machine, and ends the machine once there is a verdict.
pub(super) struct BootConsole<'a> {
    pub(super) judge: Judge,
    /// Where the console is shown, if it is.
    pub(super) screen: Option<&'a Report>,
}

impl LogSink for BootConsole<'_> {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        if let Some(screen) = self.screen {
            // Drop escape sequences of the machine, which would move the cursor of the terminal.
            let text: Vec<u8> = bytes
                .iter()
                .copied()
                .filter(|b| *b == b'\n' || *b == b'\t' || *b >= 0x20)
                .collect();
            screen.bytes(&text);
        }
        Ok(match self.judge.take(bytes) {
            // An installing machine powers off by itself once the disk is written.
            None | Some(BootVerdict::Installed { .. }) => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        })
    }
}
