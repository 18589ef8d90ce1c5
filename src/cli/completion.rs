//! `pnb completion`: a script with which a shell completes the command line.

use super::{Exit, report::Report};
use clap::Args;

/// Options of `pnb completion`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  pnb completion bash > ~/.local/share/bash-completion/completions/pnb")]
pub(super) struct CompletionArgs {
    /// Shell for which the script is
    shell: clap_complete::Shell,
}

/// Prints the script for `command`, the whole command line.
pub(super) fn completion(args: &CompletionArgs, command: clap::Command, report: &Report) -> Exit {
    report.raw(&script(args.shell, command));
    Exit::Success
}

/// The script as `shell` reads it.
pub(super) fn script(shell: clap_complete::Shell, mut command: clap::Command) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command, "pnb", &mut out);
    out
}
