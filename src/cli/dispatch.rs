//! Reads the command line and runs the command that it names.

use super::{
    Exit,
    args::Common,
    artifact_path::complete_paths,
    audit::{AuditArgs, audit},
    boot::{BootArgs, boot},
    build::{BuildArgs, build},
    challenge::{ChallengeArgs, challenge},
    command_text::TypedLine,
    completion::{CompletionArgs, completion},
    context::store_path,
    diff::{DiffArgs, diff},
    doctor::doctor,
    exit,
    failure::Failure,
    fetch::{FetchArgs, fetch},
    full,
    graph::{GraphArgs, graph},
    inspect::{InspectArgs, inspect},
    interrupt,
    lock::{LockArgs, lock},
    log::{LogArgs, log},
    module::{ModuleArgs, module},
    plan::{PlanArgs, plan},
    publish::{PublishArgs, publish},
    remote_check::{RemoteCommandArgs, remote},
    report::{self, Report},
    serve::{ServeArgs, serve},
    shell::{ShellArgs, shell},
    store::{StoreArgs, store},
    usage::WrongLine,
    vendor::{VendorArgs, vendor},
    verify_repro::{VerifyReproArgs, verify_repro},
    verify_signature::{VerifySignatureArgs, verify_signature},
    worker,
};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};
use std::{collections::BTreeSet, ffi::OsString, path::Path, process::ExitCode};

/// The examples of `pnb help`.
const EXAMPLES: &str = "Examples:\n  pnb build --hermetic --arch amd64 --variant kernel-initrd\n  pnb boot images/kernel-initrd/amd64\n  \
    pnb audit images/kernel-initrd/amd64";

/// The whole command line.
#[derive(Parser, Debug)]
#[command(
    name = "pnb",
    version,
    about = "Builds the boot artifacts of Powernode nodes: hermetic, reproducible, auditable",
    after_help = format!("{EXAMPLES}\n\n{}", exit::help())
)]
pub(super) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(super) common: Common,
    /// The command.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Build artifacts into images/<variant>/<arch>/
    Build(Box<BuildArgs>),
    /// List the stages that a build would run, with the reasons
    Plan(PlanArgs),
    /// Show the stages and their dependencies
    Graph(GraphArgs),
    /// Fetch every pinned file that a build needs into the store
    Fetch(FetchArgs),
    /// Write every pinned download into a directory, a mirror for builds without a network
    #[command(
        after_help = "Example:\n  pnb vendor /media/usb/pnb\n  PNB_MIRROR=file:///media/usb/pnb pnb build --offline --hermetic"
    )]
    Vendor(VendorArgs),
    /// Choose and pin every input: write lockfile.toml
    Lock(LockArgs),
    /// Print the log of the last run of a stage with its present inputs
    Log(LogArgs),
    /// Open a shell in the sandbox of a stage
    Shell(ShellArgs),
    /// Boot an artifact in QEMU and judge the console of the machine
    Boot(Box<BootArgs>),
    /// Serve a directory over HTTP and TFTP to machines that boot over a network, until Ctrl-C
    Serve(ServeArgs),
    /// Build twice under different circumstances, compare every output, and explain the differences
    VerifyRepro(Box<VerifyReproArgs>),
    /// Compare an artifact with its manifest, and check what the manifest states
    Audit(AuditArgs),
    /// Verify who signed a file or the files of an artifact, without a network
    VerifySignature(VerifySignatureArgs),
    /// Hand verified artifacts to the place where nodes or the platform look for them
    Publish(Box<PublishArgs>),
    /// Make modules of nodes, lists of them and their keys, and check them
    Module(ModuleArgs),
    /// Ask a remote cache what it allows, and how fast it is
    Remote(RemoteCommandArgs),
    /// Compare the manifests of independent builders of one artifact; exit code 12 if too few agree
    Challenge(ChallengeArgs),
    /// Show the content of an artifact: partitions, file systems, boot entries, digests
    Inspect(InspectArgs),
    /// List the differences between two artifacts; exit code 1 if there are any
    Diff(DiffArgs),
    /// Check, clean or show the store
    Store(StoreArgs),
    /// Check what this machine offers for hermetic builds, and say how to fix what is missing
    Doctor,
    /// Print a script for completion in a shell
    Completion(CompletionArgs),
}

/// The command line, with the global options in the help of those commands on which they act.
pub(super) fn program() -> clap::Command {
    let mut program = Cli::command();
    let options: Vec<clap::Arg> = program.get_arguments().filter(|a| a.is_global_set()).cloned().collect();
    let names: Vec<String> = program.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in names {
        let hidden = options.iter().filter(|option| !acts(&name, option.get_id().as_str()));
        let hidden: Vec<clap::Arg> = hidden.map(|option| option.clone().hide(true)).collect();
        program = program.mut_subcommand(name, |command| command.args(hidden));
    }
    program
}

/// Whether the global option has an effect on the command.
fn acts(command: &str, option: &str) -> bool {
    let builds = ["build", "verify-repro", "shell", "boot", "module"].contains(&command);
    match option {
        "mirror" | "offline" => builds || ["fetch", "vendor", "lock"].contains(&command),
        "project" => ![
            "audit",
            "challenge",
            "inspect",
            "diff",
            "remote",
            "serve",
            "verify-signature",
        ]
        .contains(&command),
        "store" => ![
            "graph",
            "challenge",
            "remote",
            "serve",
            "verify-signature",
            "completion",
        ]
        .contains(&command),
        _ => command != "completion",
    }
}

/// Runs the program with `arguments` (the first is its name) and returns how it ended.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    pnb::sandbox::use_linked_name_services();
    // The sandbox starts this program as its helper; the command line below is not for the helper.
    if arguments.get(1).is_some_and(|a| a == "__sandbox") {
        let mut builtins = pnb::writers::table();
        builtins.extend(pnb::boot::table());
        return pnb::sandbox::helper_main(builtins);
    }
    // A worker of an engine starts this program in the input root of a job.
    if let [_, word, job] = &arguments[..]
        && word == "__stage"
        && job == "job.json"
    {
        return worker::stage();
    }
    if let [_, word] = &arguments[..]
        && word == pnb::pipeline::PROBE
    {
        return worker::probe();
    }
    // The modes of files that stages get must not depend on the user's umask.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    command(arguments).into()
}

fn command(arguments: Vec<OsString>) -> Exit {
    let words = arguments.get(1..).unwrap_or_default();
    let parsed = program()
        .try_get_matches_from(&arguments)
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, typed(&matches))));
    let (mut cli, typed_options) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as HelpInstead;
            if !error.use_stderr() || error.kind() == HelpInstead {
                report::answer(&error);
                return if error.use_stderr() { Exit::Usage } else { Exit::Success };
            }
            // The options were not read: `--json` is one of the words, or it is not there.
            let options = words.split(|word| word == "--").next().unwrap_or_default();
            let json = options.iter().any(|word| word == "--json");
            Report::new(json, false).wrong_line(&WrongLine::new(error, words));
            return Exit::Usage;
        }
    };
    cli.common.line = TypedLine::new(words);
    cli.common.typed_options = typed_options;
    let report = Report::new(cli.common.json, cli.common.quiet);
    interrupt::announce(&cli);
    let ran = complete_paths(&cli.common, &mut cli.command).and_then(|()| run(&cli, &report));
    interrupt::wait_for_end();
    match ran {
        Ok(exit) => exit,
        Err(error) => {
            let space = match error.is_full() {
                true => space(&cli),
                false => String::new(),
            };
            report.error(&error, &space);
            error.exit()
        }
    }
}

/// The free space of the directories that a command writes to, as a hint.
fn space(cli: &Cli) -> String {
    let store = store_path(&cli.common).ok();
    let project = cli.common.project.as_deref().unwrap_or(Path::new("."));
    let mut others = vec![project];
    if let Command::Build(args) = &cli.command {
        others.extend(args.output.as_deref());
        others.extend(args.build_dir.as_deref());
    }
    full::hint(store.as_deref(), &others)
}

/// The names of the options on the command line, in contrast to those with a value from a variable or a default.
fn typed(matches: &ArgMatches) -> BTreeSet<String> {
    let given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let ids: Vec<&str> = matches.ids().map(|id| id.as_str()).collect();
    let mut names: BTreeSet<String> = ids.iter().filter(|id| given(id)).map(|id| (*id).to_owned()).collect();
    if let Some((_, below)) = matches.subcommand() {
        names.extend(typed(below));
    }
    names
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
        Command::VerifySignature(args) => verify_signature(common, args, report),
        Command::Publish(args) => publish(common, args, report),
        Command::Module(args) => module(common, args, report),
        Command::Remote(args) => remote(common, args, report),
        Command::Challenge(args) => challenge(common, args, report),
        Command::Inspect(args) => inspect(common, args, report),
        Command::Diff(args) => diff(common, args, report),
        Command::Store(args) => store(common, args, report),
        Command::Doctor => doctor(common, report),
        Command::Completion(args) => Ok(completion(common, args, program(), report)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::completion::script, *};

    #[test]
    fn the_command_line_is_consistent() {
        program().debug_assert();
    }

    #[test]
    fn completion_knows_commands_options_and_values() {
        let values = [
            ("stage", vec!["a-stage".to_owned()]),
            ("variant", vec!["a-variant".to_owned()]),
        ];
        let script = String::from_utf8(script(clap_complete::Shell::Bash, program(), &values)).expect("UTF-8");
        let axes = pnb::repro::Axis::ALL.iter().map(|axis| axis.as_str());
        for word in ["vendor", "--hermetic", "arm64", "a-stage", "a-variant"]
            .into_iter()
            .chain(axes)
        {
            assert!(script.contains(word), "{word} is not completed");
        }
    }

    #[test]
    fn global_options_are_last_and_only_where_they_act() {
        for (name, shown, hidden) in [
            (
                "build",
                &["--project", "--store", "--mirror", "--offline", "--json"][..],
                &[][..],
            ),
            ("audit", &["--store", "--json"], &["--project", "--mirror", "--offline"]),
            (
                "serve",
                &["--json", "--quiet"],
                &["--project", "--store", "--mirror", "--offline"],
            ),
            ("doctor", &["--project", "--store"], &["--mirror", "--offline"]),
            ("completion", &["--project"], &["--store", "--mirror", "--json"]),
        ] {
            let mut program = program();
            program.build();
            let command = program.find_subcommand_mut(name).expect("there");
            let help = command.render_long_help().to_string();
            let (own, global) = help.split_once("\nGlobal options:\n").expect("a heading");
            for option in shown {
                assert!(
                    global.contains(option) && !own.contains(&format!("{option} ")),
                    "{name} {option}: {help}"
                );
            }
            for option in hidden {
                assert!(!help.contains(&format!("{option} ")), "{name} {option}: {help}");
            }
        }
        // An option that is not shown is still taken, as in scripts that give it to all commands.
        let words = ["pnb", "--offline", "audit", "--project", "x", "images"];
        let matches = program().try_get_matches_from(words).expect("taken");
        let cli = Cli::from_arg_matches(&matches).expect("read");
        assert!(cli.common.offline && cli.common.project.is_some());
    }

    #[test]
    fn help_is_one_line_per_command_and_links_nothing() {
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            assert!(!help.contains("[`"), "a link of rustdoc in:\n{help}");
            let about = command.get_about().expect("described").to_string();
            assert!(about.len() <= 100 && !about.contains('\n'), "{about}");
        }
    }
}
