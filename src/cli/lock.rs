//! `pnb lock`: chooses and pins every input.

use super::{
    Exit,
    args::Common,
    closing::{Closing, count},
    context::{project_tree, store, with_registries},
    failure::Failure,
    host::now,
    report::{Report, size},
    servers::ServerArgs,
};
use clap::Args;
use pnb::{
    model::Moment,
    pipeline::{BaseRequest, LOCKFILE, LockWants, RelockEvent, RelockRequest},
};

/// Options of `pnb lock`.
#[derive(Args, Debug)]
#[command(
    after_help = "Security updates are in a suite of their own, which is optional: trixie-security. `pnb lock --suite trixie-security` takes \
                  it, and from then on it stays in the lock.\n\nExamples:\n  pnb lock\n  pnb lock --check\n  pnb lock --update\n  pnb lock --snapshot 20261123T000000Z\n  \
                  pnb lock --suite trixie-security\n  pnb lock --base \\\n    registry.example/base@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
)]
pub(super) struct LockArgs {
    /// Only compare the lock with the stages; write nothing and use no network
    #[arg(long, conflicts_with_all = ["update", "snapshot", "suite", "base", "no_base"])]
    pub(super) check: bool,
    /// Choose the newest versions of all packages; without this option the lock gets what it lacks, and no version moves
    #[arg(long)]
    pub(super) update: bool,
    /// Choose the versions that the archives had at this moment (YYYYMMDDThhmmssZ); implies --update
    #[arg(long, value_name = "T")]
    pub(super) snapshot: Option<Moment>,
    /// Add an optional suite of stages/archives.toml, such as trixie-security with the security updates; implies --update
    #[arg(long, value_name = "NAME")]
    pub(super) suite: Vec<String>,
    /// Pin the OCI image on which the root is installed (docs/base-image.md)
    #[arg(long, value_name = "NAME@sha256:DIGEST", conflicts_with = "no_base")]
    pub(super) base: Option<String>,
    /// Install the root from packages alone
    #[arg(long)]
    pub(super) no_base: bool,
    /// Registries that have the base image.
    #[command(flatten)]
    pub(super) servers: ServerArgs,
}

pub(super) fn lock(common: &Common, args: &LockArgs, report: &Report) -> Result<Exit, Failure> {
    let wants = LockWants::load(project_tree(common)?)?;
    if args.check {
        return check(common, &wants, report);
    }
    let request = RelockRequest {
        update: args.update,
        snapshot: args.snapshot,
        suites: &args.suite,
        now: u32::try_from(now()).unwrap_or(u32::MAX),
        base: match (&args.base, args.no_base) {
            (Some(image), _) => BaseRequest::Pin(image),
            (None, true) => BaseRequest::Remove,
            (None, false) => BaseRequest::Keep,
        },
    };
    let unread = wants.unread_base(&request)?;
    if let Some(base) = &unread {
        report.note(format_args!("     read {}", base.image));
    }
    let store = unread.map(|_| store(common)).transpose()?;
    let origins = || with_registries(common, &args.servers);
    let done = wants.relock(&request, origins, store.as_deref(), &|event| match event {
        RelockEvent::ReadBase { base } => {
            for platform in &base.platforms {
                let bytes = platform.layers.iter().map(|layer| layer.size).sum();
                report.note(format_args!(
                    "     read {}: {} layers ({}), {} packages",
                    platform.arch,
                    platform.layers.len(),
                    size(bytes),
                    platform.packages.len()
                ));
            }
        }
        RelockEvent::Remark { archive, text } => report.note(format_args!("     note {archive} {text}")),
        RelockEvent::Resolving { sets } => report.note(format_args!("     lock {sets} package sets")),
        RelockEvent::Waiting { place, wait } => {
            let seconds = wait.as_secs().max(1);
            report.note(format_args!("    waits {seconds} s, as the server asks: {place}"));
        }
        RelockEvent::Read { archive, path, bytes } => {
            report.note(format_args!("     read {archive} {path} ({})", size(bytes)));
        }
    })?;
    if let Some(changes) = &done.changes {
        for change in changes {
            report.line(change);
        }
        if changes.is_empty() {
            report.note("nothing changed");
        }
    }
    let (packages, archives, files) = (
        done.lock.packages.len(),
        done.lock.archives.len(),
        done.lock.files.len(),
    );
    for suite in &done.unused {
        let updates = if suite.ends_with("-security") {
            ", the security updates"
        } else {
            ""
        };
        report.note(format_args!(
            "without the optional suite {suite}{updates}; `pnb lock --suite {suite}` takes it"
        ));
    }
    let sentence = format!(
        "{LOCKFILE}: {} of {}, {}, {}",
        count(packages, "package"),
        count(archives, "archive"),
        count(files, "other file"),
        report.elapsed()
    );
    let closing = Closing::new(sentence)
        .next(common.command("plan"))
        .field("packages", packages)
        .field("archives", archives)
        .field("files", files);
    report.close("lock", &closing);
    Ok(Exit::Success)
}

fn check(common: &Common, wants: &LockWants, report: &Report) -> Result<Exit, Failure> {
    let problems = wants.problems()?;
    for problem in &problems {
        if report.json() {
            report.value(serde_json::json!({ "problem": problem.to_string() }));
        } else {
            report.line(problem);
        }
    }
    if problems.is_empty() {
        let sentence = format!("{LOCKFILE} has everything the stages want");
        report.close("lock", &Closing::new(sentence).next(common.command("build")));
        return Ok(Exit::Success);
    }
    let sentence = format!("{LOCKFILE} lacks {}", count(problems.len(), "thing"));
    let closing = Closing::new(sentence)
        .next(common.command("lock"))
        .field("problems", problems.len());
    report.close("lock", &closing);
    Ok(Exit::Lock)
}
