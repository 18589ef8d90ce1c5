//! Ctrl-C and the other ways to end pnb: what is said, and what is cancelled on the workers of an engine.

use super::{
    dispatch::{Cli, Command},
    report::{Report, print_value, say},
};
use nix::sys::signal::Signal;
use pnb::pipeline::{CancelledWork, Elsewhere};
use std::{
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Whether the program is about to end by a signal.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Time in which a further signal is the first one once more.
const TWICE: Duration = Duration::from_millis(500);
/// Longest wait for an engine that is to cancel actions.
const LONGEST: Duration = Duration::from_secs(5);

/// Has Ctrl-C say what becomes of the work. A server ends by it, and a shell or a machine takes it for itself.
pub(super) fn announce(cli: &Cli) {
    let kept = match cli.command {
        Command::Serve(_) | Command::Shell(_) | Command::Boot(_) => return,
        Command::Build(_) | Command::Fetch(_) | Command::Vendor(_) | Command::Publish(_) => true,
        _ => false,
    };
    let (fd, text): (i32, &[u8]) = match (cli.common.json, kept) {
        (true, _) => (1, b"{\"event\":\"interrupted\",\"exit\":130}\n"),
        (false, true) => (2, b"\ninterrupted; what is finished is kept\n"),
        (false, false) => (2, b"\ninterrupted\n"),
    };
    pnb::sandbox::announce_interrupt(fd, text);
}

/// Has the end of the program by a signal cancel the actions that an engine has, and say so, in place of [`announce`]. `kept` is whether
/// what is finished is there for the next run.
pub(super) fn cancel_elsewhere(report: &Report, elsewhere: &Elsewhere, kept: bool) {
    let (json, server) = (report.json(), elsewhere.name());
    let (underway, lines) = (elsewhere.underway(), report.lines());
    // Without the pipe a signal ends the program as it does without an engine.
    let Ok(mut signals) = pnb::sandbox::watch_ends() else {
        return;
    };
    let mut next = move || {
        let mut number = [0; size_of::<i32>()];
        signals
            .read_exact(&mut number)
            .ok()
            .map(|()| i32::from_ne_bytes(number))
    };
    thread::spawn(move || {
        let Some(signal) = next() else { return };
        ENDING.store(true, Ordering::Release);
        // From now on nothing draws over what is said here.
        lines.end();
        let first = Instant::now();
        thread::spawn(move || {
            // A terminal and a program that passes signals on give one Ctrl-C twice.
            while let Some(signal) = next() {
                if first.elapsed() >= TWICE {
                    pnb::sandbox::end_by(signal);
                }
            }
        });
        if !json && underway.is_busy() {
            let again = match Signal::try_from(signal) {
                Ok(Signal::SIGINT) => " (Ctrl-C again does not wait)",
                _ => "",
            };
            say(&format!("\ninterrupted: cancelling what runs on {server}{again}\n"));
        }
        let ended = underway.cancel(LONGEST);
        match json {
            true => print_value(&serde_json::json!({
                "event": "interrupted", "exit": 128 + signal, "server": server, "cancelled": ended.cancelled, "left": ended.left
            })),
            false => say(&sentence(&server, &ended, kept)),
        }
        pnb::sandbox::end_by(signal)
    });
}

fn sentence(server: &str, ended: &CancelledWork, kept: bool) -> String {
    let mut said = match kept {
        true => "\ninterrupted; what is finished is kept\n".to_owned(),
        false => "\ninterrupted\n".to_owned(),
    };
    if !ended.cancelled.is_empty() {
        said.push_str(&format!("cancelled on {server}: {}\n", ended.cancelled.join(", ")));
    }
    if !ended.left.is_empty() {
        said.push_str(&format!(
            "warning: {server} did not say that it ends {}: a worker may go on with it\n",
            ended.left.join(", ")
        ));
    }
    said
}

/// Whether the program is about to end by a signal. Nothing more is said then.
pub(super) fn is_ending() -> bool {
    ENDING.load(Ordering::Acquire)
}

/// Does not return if the program is about to end by a signal: what it was doing failed because of that.
pub(super) fn wait_for_end() {
    while is_ending() {
        thread::park();
    }
}
