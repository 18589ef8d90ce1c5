//! `pnb completion`: a script with which a shell completes the command line.

use super::{
    Exit,
    args::{Common, possible_variants},
    report::Report,
    usage::stage_names,
};
use clap::Args;
use std::path::Path;

/// Options of `pnb completion`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  pnb completion bash > ~/.local/share/bash-completion/completions/pnb\n\n\
    The script has the names of the stages and variants of the project in which it is made."
)]
pub(super) struct CompletionArgs {
    /// Shell for which the script is
    shell: clap_complete::Shell,
}

/// Prints the script for `command`, the whole command line, with the stages and variants of the project here.
pub(super) fn completion(common: &Common, args: &CompletionArgs, command: clap::Command, report: &Report) -> Exit {
    let start = common.project.as_deref().unwrap_or(Path::new("."));
    let values = [("stage", stage_names(start)), ("variant", possible_variants(start))];
    report.raw(&script(args.shell, command, &values));
    Exit::Success
}

/// The values of an argument, by its name.
type ArgumentValues = (&'static str, Vec<String>);

/// The script as `shell` reads it; `values` has the names of the project that are completed.
pub(super) fn script(shell: clap_complete::Shell, command: clap::Command, values: &[ArgumentValues]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut command = values.iter().fold(command, with_values);
    clap_complete::generate(shell, &mut command, "pnb", &mut out);
    out
}

/// The command line with these values of all arguments of the name.
fn with_values(command: clap::Command, values: &ArgumentValues) -> clap::Command {
    let (argument, values_of) = values;
    let below: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let mut command = command;
    for name in below {
        command = command.mut_subcommand(name, |below| with_values(below, values));
    }
    if values_of.is_empty() || !command.get_arguments().any(|a| a.get_id() == argument) {
        return command;
    }
    // The parser lives as long as the program, which ends when the script is printed.
    let names: Vec<&'static str> = values_of.iter().map(|name| &*name.clone().leak()).collect();
    command.mut_arg(argument, |argument| argument.value_parser(names))
}
