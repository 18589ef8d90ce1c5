//! `pnb completion`: a script with which a shell completes the command line.

use super::{Exit, args::Common, report::Report, usage::stage_names};
use clap::Args;
use std::path::Path;

/// Options of `pnb completion`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  pnb completion bash > ~/.local/share/bash-completion/completions/pnb\n\n\
    The script has the names of the stages of the project in which it is made."
)]
pub(super) struct CompletionArgs {
    /// Shell for which the script is
    shell: clap_complete::Shell,
}

/// Prints the script for `command`, the whole command line, with the stages of the project here.
pub(super) fn completion(common: &Common, args: &CompletionArgs, command: clap::Command, report: &Report) -> Exit {
    let start = common.project.as_deref().unwrap_or(Path::new("."));
    report.raw(&script(args.shell, command, &stage_names(start)));
    Exit::Success
}

/// The script as `shell` reads it; `stages` are completed where a stage is asked for.
pub(super) fn script(shell: clap_complete::Shell, command: clap::Command, stages: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut with_stages(command, stages), "pnb", &mut out);
    out
}

/// The command line with `stages` as the values of all arguments `stage`.
fn with_stages(command: clap::Command, stages: &[String]) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let mut command = command;
    for name in names {
        command = command.mut_subcommand(name, |below| with_stages(below, stages));
    }
    if stages.is_empty() || !command.get_arguments().any(|a| a.get_id() == "stage") {
        return command;
    }
    // The parser lives as long as the program, which ends when the script is printed.
    let names: Vec<&'static str> = stages.iter().map(|name| &*name.clone().leak()).collect();
    command.mut_arg("stage", |stage| stage.value_parser(names))
}
