//! The command line: what is typed, what is done, what is said.

mod args;
mod artifacts;
mod boot;
mod build;
mod challenge;
mod context;
mod exit;
mod inputs;
mod inspect;
mod lock;
mod look;
mod report;
mod serve;
mod store;
mod verify;

pub use args::Cli;
pub use exit::Exit;

use args::Command;
use clap::{CommandFactory, Parser};
use report::Report;
use std::{ffi::OsString, process::ExitCode};

/// Runs the program with `arguments` (the first is its name) and returns how it ended.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    // The sandbox helper is this program too; nothing of the command line below applies to it.
    if arguments.get(1).is_some_and(|a| a == "__sandbox") {
        let mut builtins = crate::writers::table();
        builtins.extend(crate::boot::table());
        return crate::sandbox::helper_main(builtins);
    }
    // Permissions of what is laid out for stages must not depend on who builds.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    command(arguments).into()
}

fn command(arguments: Vec<OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success };
        }
    };
    let report = Report::new(cli.common.json, cli.common.quiet);
    match run(&cli, &report) {
        Ok(exit) => exit,
        Err(error) => {
            report.error(&error);
            error.exit()
        }
    }
}

fn run(cli: &Cli, report: &Report) -> Result<Exit, context::Failure> {
    match &cli.command {
        Command::Build(args) => build::build(&cli.common, args, report),
        Command::Plan(args) => inspect::plan(&cli.common, args, report),
        Command::Graph(args) => inspect::graph(&cli.common, args, report),
        Command::Log(args) => inspect::log(&cli.common, args, report),
        Command::Shell(args) => inspect::shell(&cli.common, args, report),
        Command::Fetch(args) => inputs::fetch(&cli.common, args, report),
        Command::Vendor(args) => inputs::vendor(&cli.common, args, report),
        Command::Lock(args) => lock::lock(&cli.common, args, report),
        Command::Boot(args) => boot::boot(&cli.common, args, report),
        Command::Serve(args) => serve::serve(args, report),
        Command::VerifyRepro(args) => verify::verify(&cli.common, args, report),
        Command::Audit(args) => artifacts::audit(&cli.common, args, report),
        Command::Challenge(args) => challenge::challenge(args, report),
        Command::Inspect(args) => look::inspect(&cli.common, args, report),
        Command::Diff(args) => look::diff(&cli.common, args, report),
        Command::Store(args) => store::store(&cli.common, &args.command, report),
        Command::Doctor => store::doctor(&cli.common, report),
        Command::Completion { shell } => {
            report.bytes(&completion(*shell));
            Ok(Exit::Success)
        }
    }
}

fn completion(shell: clap_complete::Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pnb", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_everything_that_can_be_varied() {
        let mut command = Cli::command();
        let verify = command.find_subcommand_mut("verify-repro").expect("there");
        let vary = verify.get_arguments().find(|a| a.get_id() == "vary").expect("there");
        let help = vary.get_help().expect("said").to_string();
        let listed: Vec<&str> = help
            .split(" or of ")
            .nth(1)
            .expect("a list")
            .trim_end_matches('.')
            .split([',', ' '])
            .filter(|w| !w.is_empty())
            .collect();
        let axes: Vec<&str> = crate::repro::Axis::ALL.iter().map(|a| a.as_str()).collect();
        assert_eq!(listed, axes);
    }

    #[test]
    fn completion_knows_the_commands() {
        let script = String::from_utf8(completion(clap_complete::Shell::Bash)).expect("UTF-8");
        assert!(script.contains("vendor") && script.contains("--hermetic"));
    }
}
