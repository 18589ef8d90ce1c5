//! `pnb build`.

use super::{
    Exit,
    args::{Common, GivenArgs, Selection},
    context::{give, hermetic, host, inputs, now, processors, project, run_options, select, store},
    failure::Failure,
    report::{Report, seconds, size},
};
use clap::Args;
use pnb::{
    model::NodeId,
    pipeline::{self, BuildContext, BuildOutcome, Circumstances, PipelineError, Program},
};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Options of `pnb build`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb build --hermetic --arch amd64 --variant kernel-initrd\n  \
    ARCH=amd64 VARIANT=kernel-initrd pnb build\n  pnb build --timings --jobs 1"
)]
pub(super) struct BuildArgs {
    /// What to build.
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Refuse anything that could make the result depend on this machine.
    #[arg(long)]
    pub(super) hermetic: bool,
    /// With --hermetic: build although stage files are uncommitted, and say so in the manifest.
    #[arg(long)]
    pub(super) allow_dirty: bool,
    /// Stages at once [default: processors].
    #[arg(long, short, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Where the artifacts go [default: images/ in the project].
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Keep the build directory of a stage that fails.
    #[arg(long)]
    pub(super) keep_failed: bool,
    /// Build on disk in this directory instead of in memory.
    #[arg(long, value_name = "DIR")]
    pub(super) build_dir: Option<PathBuf>,
    /// Show every line that stages print.
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Say at the end where the time went.
    #[arg(long)]
    pub(super) timings: bool,
    /// What is given on top of the project.
    #[command(flatten)]
    pub(super) given: GivenArgs,
}

pub(super) fn build(common: &Common, args: &BuildArgs, report: &Report) -> Result<Exit, Failure> {
    let started = now();
    let mut project = project(common)?;
    give(&mut project, &args.given)?;
    let store = store(common)?;
    let inputs = inputs(common)?;
    project.check_lock()?;
    let selected = select(&project, &args.selection)?;
    if args.hermetic {
        hermetic(&project, args.allow_dirty)?;
    }
    let mut options = run_options()?;
    options.hermetic = args.hermetic;
    options.keep_failed = args.keep_failed;
    options.verbose = args.verbose;
    options.build_dir = args.build_dir.clone();
    let images = args.output.clone().unwrap_or_else(|| project.root.join("images"));
    if !selected.targets.is_empty() && on_one_file_system(store.root(), &images) {
        options.exported = selected.nodes.iter().cloned().collect();
    }
    let jobs = args.jobs.unwrap_or_else(processors);
    let context = BuildContext {
        project: &project,
        store: &store,
        origins: &inputs,
        options: &options,
        events: &|event| report.event(event),
    };
    let outcome = context.build(&selected.nodes, jobs)?;
    if args.hermetic && project.revision_now()? != project.revision {
        return Err(PipelineError::NotHermetic {
            problem: "the project changed while it was built".to_owned(),
            hint: "build again",
        }
        .into());
    }
    let circumstances = Circumstances {
        started,
        finished: now(),
        host: host(),
        program: Program::new(options.helper.clone()),
        allow_dirty: args.allow_dirty,
    };
    for &target in &selected.targets {
        pipeline::export(&context, &outcome, target, &images, &circumstances)?;
    }
    if args.timings {
        timings(&outcome, report);
    }
    report.clear();
    Ok(Exit::Success)
}

/// Whether files can be moved from one place to the other; what is not there yet will be made where it is to lie.
fn on_one_file_system(a: &Path, b: &Path) -> bool {
    let device = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        path.ancestors().find_map(|p| p.metadata().ok()).map(|m| m.dev())
    };
    device(a).is_some_and(|dev| device(b) == Some(dev))
}

/// Where the time went: one row per stage, with a bar as long as its share.
fn timings(outcome: &BuildOutcome, report: &Report) {
    let rows: Vec<(&NodeId, &pipeline::Done)> = outcome
        .order
        .iter()
        .filter_map(|id| Some((id, outcome.nodes.get(id)?)))
        .collect();
    if report.json() {
        for (id, done) in rows {
            let r = &done.record;
            report.line(serde_json::json!({
                "event": "timing", "node": id, "cached": done.cached, "wall_ms": r.wall_ms, "cpu_ms": r.cpu_ms, "peak_memory": r.peak_memory
            }));
        }
        return;
    }
    let longest = rows
        .iter()
        .filter(|(_, d)| !d.cached)
        .map(|(_, d)| d.record.cpu_ms)
        .max()
        .unwrap_or(0)
        .max(1);
    report.line(format_args!(
        "{:<24} {:>9} {:>9} {:>11}",
        "stage", "wall", "CPU", "memory"
    ));
    let mut total = 0;
    for (id, done) in rows {
        let r = &done.record;
        if done.cached {
            report.line(format_args!("{id:<24} {:>9} {:>9} {:>11}", "cached", "", ""));
            continue;
        }
        total += r.cpu_ms;
        let bar = "█".repeat(usize::try_from(r.cpu_ms * 30 / longest).unwrap_or(0));
        let (wall, cpu, memory) = (seconds(r.wall_ms), seconds(r.cpu_ms), size(r.peak_memory));
        report.line(format_args!("{id:<24} {wall:>9} {cpu:>9} {memory:>11} {bar}"));
    }
    report.line(format_args!("{:<24} {:>9} {:>9}", "total", "", seconds(total)));
}
