//! `pnb plan`: the stages that a build would run, and the reasons.

use super::{
    Exit,
    args::{Common, Selection},
    closing::{Closing, count},
    context::{project, select, store},
    failure::Failure,
    remote::RemoteArgs,
    report::Report,
    workers::WorkerArgs,
};
use clap::Args;
use pnb::pipeline;

/// Options of `pnb plan`.
#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    /// The artifacts or stages of the build.
    #[command(flatten)]
    pub(super) selection: Selection,
    /// A cache that is asked for what the store lacks.
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
    /// The workers of an engine.
    #[command(flatten)]
    pub(super) workers: WorkerArgs,
}

pub(super) fn plan(common: &Common, args: &PlanArgs, report: &Report) -> Result<Exit, Failure> {
    let mut project = project(common)?;
    project.use_native(args.workers.native())?;
    project.check_lock()?;
    let store = store(common)?;
    let selected = select(common, &project, &args.selection)?;
    let (cache, engine) = args
        .remote
        .planned(common, &args.workers, &|error| report.cache_lost(error))?;
    args.workers.need(engine, cache.is_some())?;
    let challenged = args.workers.challenges();
    let entries = pipeline::plan(
        &project,
        &store,
        cache.as_ref(),
        challenged,
        &selected.nodes,
        &|event| {
            report.event(event);
        },
    )?;
    let (stages, run) = (entries.len(), entries.iter().filter(|entry| entry.run).count());
    let shared = entries.iter().filter(|entry| entry.source.is_some()).count();
    for entry in entries {
        if report.json() {
            report.value(serde_json::json!(entry));
            continue;
        }
        let what = match (entry.run, &entry.source) {
            (true, _) => "run",
            (false, Some(_)) => "shared",
            (false, None) => "cached",
        };
        let mut reasons: Vec<String> = entry.reasons.iter().map(ToString::to_string).collect();
        reasons.extend(entry.source.map(|server| format!("from the cache {server}")));
        report.line(format!("{what:<7} {:<24} {}", entry.node, reasons.join("; ")).trim_end());
    }
    let mut sentence = match run {
        0 => format!("none of {} would run", count(stages, "stage")),
        _ => format!("{run} of {} would run", count(stages, "stage")),
    };
    if let (1.., Some(cache)) = (shared, &cache) {
        sentence.push_str(&format!("; {shared} from {}", cache.name()));
    }
    let build = common
        .build_command()
        .args(args.selection.words())
        .args(args.remote.words(common))
        .args(args.workers.words());
    let closing = Closing::new(sentence)
        .next(build)
        .field("stages", stages)
        .field("run", run)
        .field("shared", shared);
    report.close("plan", &closing);
    Ok(Exit::Success)
}
