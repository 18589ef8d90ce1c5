//! The console of the machine: shown while it runs, and judged.

use pnb::{
    boot::{BootVerdict, Judge},
    sandbox::LogSink,
};
use std::{
    io::{self, Write},
    ops::ControlFlow,
};

/// Shows the machine's console and ends the machine once there is a verdict.
pub(super) struct BootConsole {
    pub(super) judge: Judge,
    pub(super) show: bool,
}

impl LogSink for BootConsole {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        if self.show {
            // Drop escape sequences of the machine, which would move the cursor of the terminal.
            let text: Vec<u8> = bytes
                .iter()
                .copied()
                .filter(|b| *b == b'\n' || *b == b'\t' || *b >= 0x20)
                .collect();
            let _ = io::stdout().write_all(&text);
        }
        Ok(match self.judge.take(bytes) {
            // An installing machine powers off by itself once the disk is written.
            None | Some(BootVerdict::Installed { .. }) => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        })
    }
}
