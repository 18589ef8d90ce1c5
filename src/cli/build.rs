//! `pnb build`: artifacts into `images/<variant>/<arch>/`.

use super::{
    Exit,
    args::{Common, GivenArgs, Selection},
    closing::{Closing, count},
    command_text::from_here,
    context::{ContextError, Selected, give, hermetic, project, run_options, select, store, with_registries},
    failure::Failure,
    host::{host, now, processors},
    interrupt,
    remote::{Engine, RemoteArgs},
    report::{Report, seconds, size},
    servers::ServerArgs,
    timeline::Timeline,
    verify_repro::UnwrittenReport,
    workers::WorkerArgs,
};
use clap::Args;
use pnb::{
    graph::{StageFile, closure_of},
    model::{ArtifactForm, NodeId, Target, Variant, visible_path},
    page,
    pipeline::{self, BuildContext, BuildOutcome, Circumstances, Program, Project, RanAt, RunOptions},
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Options of `pnb build`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb build --hermetic --arch amd64 --variant kernel-initrd\n  \
    ARCH=amd64 VARIANT=kernel-initrd pnb build\n  pnb build --timings --jobs 1\n  pnb build --timings=timeline.html"
)]
pub(super) struct BuildArgs {
    /// The artifacts or stages to build.
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Fail if a layer of the sandbox is missing or stage files are uncommitted
    #[arg(long)]
    pub(super) hermetic: bool,
    /// With --hermetic: build although stage files are uncommitted; the manifest states it
    #[arg(long)]
    pub(super) allow_dirty: bool,
    /// Number of stages that run at the same time [default: number of processors]
    #[arg(long, short, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Directory of the artifacts [default: images/ in the project]
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Keep the build directory of a failed stage
    #[arg(long)]
    pub(super) keep_failed: bool,
    /// Put build directories below this directory on disk instead of in memory
    #[arg(long, value_name = "DIR")]
    pub(super) build_dir: Option<PathBuf>,
    /// Print every line that stages print
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Print the time and memory of each stage at the end, or write a timeline as one HTML file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(super) timings: Option<Option<PathBuf>>,
    /// Inputs that replace the project's.
    #[command(flatten)]
    pub(super) given: GivenArgs,
    /// Registries that have the base image.
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    /// A cache that several machines share.
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
    /// The workers of an engine.
    #[command(flatten)]
    pub(super) workers: WorkerArgs,
}

pub(super) fn build(common: &Common, args: &BuildArgs, report: &Report) -> Result<Exit, Failure> {
    let started = now();
    let mut project = project(common)?;
    args.workers.beside(args.given.tools)?;
    give(&mut project, &args.given)?;
    project.use_native(args.workers.native())?;
    let store = store(common)?;
    let origins = with_registries(common, &args.servers)?;
    project.check_lock()?;
    let selected = select(common, &project, &args.selection)?;
    if args.hermetic {
        hermetic(&project, args.allow_dirty)?;
    }
    let images = args
        .output
        .clone()
        .unwrap_or_else(|| project.tree.path().join("images"));
    pipeline::examine_output(&store, &project.graph, &images, &selected.targets)?;
    let exports = !selected.targets.is_empty() && on_one_file_system(store.root(), &images);
    let options = RunOptions {
        hermetic: args.hermetic,
        keep_failed: args.keep_failed,
        verbose: args.verbose,
        build_dir: args.build_dir.clone(),
        described: selected.targets.iter().copied().collect(),
        exported: selected.nodes.iter().filter(|_| exports).cloned().collect(),
        ..run_options()?
    };
    let jobs = args.jobs.unwrap_or_else(processors);
    let engine = args.remote.elsewhere(common, &args.workers, &options.helper)?;
    let cache = match &engine {
        // A variable may name a cache for all commands; the engine's is nearer.
        Some(_) => None,
        None => args.remote.shared(common, &|error| report.cache_lost(error))?,
    };
    args.workers.need(engine.is_some(), cache.is_some())?;
    if let Some(Engine { elsewhere, .. }) = &engine {
        interrupt::cancel_elsewhere(report, elsewhere, true);
    }
    let timeline = Timeline::new();
    let context = BuildContext {
        project: &project,
        store: &store,
        origins: &origins,
        options: &options,
        shared: engine.as_ref().map(|engine| &engine.shared).or(cache.as_ref()),
        elsewhere: engine.as_ref().map(|engine| &engine.elsewhere),
        events: &|event| {
            if !interrupt::is_ending() {
                timeline.event(&event);
                report.event(event);
            }
        },
    };
    let outcome = context.build(&selected.nodes, jobs)?;
    if args.hermetic && project.revision_now()? != project.revision {
        return Err(ContextError::Changed.into());
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
    let variants: BTreeSet<Variant> = selected.targets.iter().map(|target| target.variant).collect();
    let has_layout =
        |file: &StageFile| matches!(&file.variant, Some(declared) if declared.form == ArtifactForm::OciImage);
    for (variant, file) in project.graph.variants() {
        if has_layout(file) && variants.contains(&variant) {
            pipeline::join_images(&context, variant, &images)?;
        }
    }
    match &args.timings {
        None => {}
        Some(None) => timings(&outcome, report),
        Some(Some(path)) => {
            let closure = closure_of(&project.graph, &selected.nodes)?;
            let page = page::timeline(&timeline.times(&outcome, &closure.needs, jobs));
            fs::write(path, page).map_err(|source| UnwrittenReport {
                path: path.clone(),
                source,
            })?;
        }
    }
    report.close(
        "build",
        &closing(common, &project, &selected, &outcome, &images, report),
    );
    Ok(Exit::Success)
}

/// The numbers of stages, the place of the artifacts, and the commands that check and use them.
fn closing(
    common: &Common,
    project: &Project,
    selected: &Selected,
    outcome: &BuildOutcome,
    images: &Path,
    report: &Report,
) -> Closing {
    let (stages, cached) = (
        outcome.nodes.len(),
        outcome.nodes.values().filter(|done| done.cached).count(),
    );
    let built = stages - cached;
    let parts = [(built, "built"), (cached, "cached")];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    let parts: Vec<String> = parts.map(|(number, what)| format!("{number} {what}")).collect();
    let mut sentence = format!("{}: {}, {}", count(stages, "stage"), parts.join(", "), report.elapsed());
    let images = from_here(images);
    let artifacts = selected.targets.len();
    if artifacts > 0 {
        sentence.push_str(&format!(
            "; {} in {}",
            count(artifacts, "artifact"),
            visible_path(images)
        ));
    }
    let place = |target: &Target| images.join(target.path());
    let audited = match &selected.targets[..] {
        [only] => Some(place(only)),
        [_, ..] => Some(images.to_owned()),
        [] => None,
    };
    let boots = |target: &&Target| {
        let declared = project.graph.variants().find(|(variant, _)| *variant == target.variant);
        let form = declared.and_then(|(_, file)| file.variant.as_ref());
        form.is_some_and(|declared| declared.form != ArtifactForm::Other)
    };
    let booted = selected.targets.iter().find(boots);
    let command = |name: &str, dir: PathBuf| common.command(name).arg(dir);
    let outputs = selected.nodes.iter().filter(|_| artifacts == 0).filter_map(|node| {
        let outputs = &outcome.nodes.get(node)?.record.outputs;
        let first = outputs.keys().find(|name| *name == "tree").or(outputs.keys().next())?;
        let option = (first != "tree").then_some(first);
        Some(
            common
                .command("store path")
                .arg(node.to_string())
                .option("--output", option),
        )
    });
    Closing::new(sentence)
        .nexts(audited.map(|dir| command("audit", dir)))
        .nexts(booted.map(|target| command("boot", place(target))))
        .nexts(outputs)
        .field("stages", stages)
        .field("built", built)
        .field("cached", cached)
        .field("wall_ms", report.elapsed_ms())
        .field(
            "artifacts",
            selected.targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
}

/// Whether files can be moved between the two directories; one that is missing is made on the file system of its nearest ancestor.
fn on_one_file_system(a: &Path, b: &Path) -> bool {
    let device = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        path.ancestors().find_map(|p| p.metadata().ok()).map(|m| m.dev())
    };
    device(a).is_some_and(|dev| device(b) == Some(dev))
}

/// Prints one row per stage with its time and memory, and a bar as long as its share of the CPU time.
fn timings(outcome: &BuildOutcome, report: &Report) {
    let rows: Vec<(&NodeId, &pipeline::Done)> = outcome
        .order
        .iter()
        .filter_map(|id| Some((id, outcome.nodes.get(id)?)))
        .collect();
    if report.json() {
        for (id, done) in rows {
            let r = &done.record;
            report.value(serde_json::json!({
                "event": "timing", "node": id, "cached": done.cached, "wall_ms": r.wall_ms, "cpu_ms": r.cpu_ms, "peak_memory": r.peak_memory,
                "at": done.place()
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
        "{:<24} {:<7} {:>9} {:>9} {:>11}",
        "stage", "where", "wall", "CPU", "memory"
    ));
    let mut total = 0;
    for (id, done) in rows {
        let r = &done.record;
        let place = done.place();
        if done.cached {
            let place = match place {
                RanAt::Here => "store",
                _ => "cache",
            };
            report.line(format_args!("{id:<24} {place:<7} {:>9}", "cached"));
            continue;
        }
        let (place, split) = match place {
            RanAt::Here => ("here", None),
            RanAt::Cache { .. } => ("cache", None),
            RanAt::Worker { name, times } => ("worker", Some((name, times.parts()))),
        };
        total += r.cpu_ms;
        let bar = "█".repeat(usize::try_from(r.cpu_ms * 30 / longest).unwrap_or(0));
        let (wall, cpu, memory) = (seconds(r.wall_ms), seconds(r.cpu_ms), size(r.peak_memory));
        report.line(format_args!(
            "{id:<24} {place:<7} {wall:>9} {cpu:>9} {memory:>11} {bar}"
        ));
        if let Some((name, parts)) = split {
            let parts: Vec<String> = parts
                .iter()
                .map(|(part, ms)| format!("{part} {}", seconds(*ms)))
                .collect();
            let parts = if parts.is_empty() {
                String::new()
            } else {
                format!(": {}", parts.join(", "))
            };
            report.line(format_args!("  on {name}{parts}"));
        }
    }
    report.line(format_args!(
        "{:<24} {:<7} {:>9} {:>9}",
        "total",
        "",
        "",
        seconds(total)
    ));
}
