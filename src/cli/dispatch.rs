//! Reads the command line and runs the command that it names.

use super::{
    Exit,
    args::Common,
    audit::{AuditArgs, audit},
    boot::{BootArgs, boot},
    build::{BuildArgs, build},
    challenge::{ChallengeArgs, challenge},
    completion::{CompletionArgs, completion},
    diff::{DiffArgs, diff},
    doctor::doctor,
    failure::Failure,
    fetch::{FetchArgs, fetch},
    graph::{GraphArgs, graph},
    inspect::{InspectArgs, inspect},
    lock::{LockArgs, lock},
    log::{LogArgs, log},
    plan::{PlanArgs, plan},
    report::Report,
    serve::{ServeArgs, serve},
    shell::{ShellArgs, shell},
    store::{StoreArgs, store},
    vendor::{VendorArgs, vendor},
    verify_repro::{VerifyReproArgs, verify_repro},
};
use clap::{CommandFactory, Parser, Subcommand};
use std::{ffi::OsString, process::ExitCode};

/// Everything typed.
#[derive(Parser, Debug)]
#[command(
    name = "pnb",
    version,
    about = "Builds the boot artifacts of Powernode nodes: hermetic, reproducible, auditable",
    after_help = "Exit codes: 0 done · 1 failure · 2 usage · 3 lock · 4 fetch · 5 store · 6 stage files · 7 stage failed · \
                  8 not hermetic · 9 boot · 10 not reproducible · 11 not readable (inspect, diff) · 12 challenge: too few builders agree · \
                  30 manifest not readable · 31 manifest of another schema version · 32 other lock · 33 other revision · 34 other pnb · \
                  35 its files missing or edited · \
                  40–51 audit: sums, files, manifest, artifacts, pins, root, sandbox, SBOM, provenance, variants, reproducibility, policy\n\n\
                  Examples:\n  pnb build --hermetic --arch amd64 --variant kernel-initrd\n  pnb boot images/kernel-initrd/amd64\n  pnb audit images/kernel-initrd/amd64"
)]
pub(super) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(super) common: Common,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What can be asked for.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Build artifacts into `images/<variant>/<arch>/`.
    Build(BuildArgs),
    /// Say what a build would run, and why.
    Plan(PlanArgs),
    /// Show the stages and what they need.
    Graph(GraphArgs),
    /// Put every pinned file a build needs into the store.
    Fetch(FetchArgs),
    /// Write every pinned input into a directory that serves as a mirror without a network.
    #[command(
        after_help = "Example:\n  pnb vendor /media/usb/pnb\n  PNB_MIRROR=file:///media/usb/pnb pnb build --offline --hermetic"
    )]
    Vendor(VendorArgs),
    /// Choose and pin every input: writes lockfile.toml.
    Lock(LockArgs),
    /// Print the log of a stage's last run.
    Log(LogArgs),
    /// Open a shell in exactly a stage's sandbox.
    Shell(ShellArgs),
    /// Boot an artifact in QEMU and judge its console.
    Boot(BootArgs),
    /// Serve a directory over HTTP and TFTP to machines that boot over a network, until Ctrl-C.
    Serve(ServeArgs),
    /// Build twice under different circumstances, compare everything, and say what differs and why.
    VerifyRepro(VerifyReproArgs),
    /// Check an artifact against its manifest, and the manifest against its promises.
    Audit(AuditArgs),
    /// Compare what independent builders say of the same artifact. Exit code 12 when too few agree.
    Challenge(ChallengeArgs),
    /// Say what is in an artifact: partitions, file systems, boot entries, digests.
    Inspect(InspectArgs),
    /// Say what differs between two artifacts, and where. Exit code 1 when something does.
    Diff(DiffArgs),
    /// Look after the store.
    Store(StoreArgs),
    /// Say what this machine offers for hermetic builds, and how to fix what it lacks.
    Doctor,
    /// Print a completion script.
    Completion(CompletionArgs),
}

/// Runs the program with `arguments` (the first is its name) and returns how it ended.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    // The sandbox helper is this program too; nothing of the command line below applies to it.
    if arguments.get(1).is_some_and(|a| a == "__sandbox") {
        let mut builtins = pnb::writers::table();
        builtins.extend(pnb::boot::table());
        return pnb::sandbox::helper_main(builtins);
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

fn run(cli: &Cli, report: &Report) -> Result<Exit, Failure> {
    let common = &cli.common;
    match &cli.command {
        Command::Build(args) => build(common, args, report),
        Command::Plan(args) => plan(common, args, report),
        Command::Graph(args) => graph(common, args, report),
        Command::Log(args) => log(common, args, report),
        Command::Shell(args) => shell(common, args, report),
        Command::Fetch(args) => fetch(common, args, report),
        Command::Vendor(args) => vendor(common, args, report),
        Command::Lock(args) => lock(common, args, report),
        Command::Boot(args) => boot(common, args, report),
        Command::Serve(args) => serve(args, report),
        Command::VerifyRepro(args) => verify_repro(common, args, report),
        Command::Audit(args) => audit(common, args, report),
        Command::Challenge(args) => challenge(args, report),
        Command::Inspect(args) => inspect(common, args, report),
        Command::Diff(args) => diff(common, args, report),
        Command::Store(args) => store(common, args, report),
        Command::Doctor => doctor(common, report),
        Command::Completion(args) => Ok(completion(args, Cli::command(), report)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::completion::script, *};

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
        let axes: Vec<&str> = pnb::repro::Axis::ALL.iter().map(|a| a.as_str()).collect();
        assert_eq!(listed, axes);
    }

    #[test]
    fn completion_knows_the_commands() {
        let script = String::from_utf8(script(clap_complete::Shell::Bash, Cli::command())).expect("UTF-8");
        assert!(script.contains("vendor") && script.contains("--hermetic"));
    }
}
