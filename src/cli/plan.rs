//! `pnb plan`: the stages that a build would run, and the reasons.

use super::{
    Exit,
    args::{Common, Selection},
    closing::{Closing, count},
    context::{project, select, store},
    failure::Failure,
    report::Report,
};
use clap::Args;
use pnb::pipeline;

/// Options of `pnb plan`.
#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    /// The artifacts or stages of the build.
    #[command(flatten)]
    pub(super) selection: Selection,
}

pub(super) fn plan(common: &Common, args: &PlanArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    project.check_lock()?;
    let store = store(common)?;
    let selected = select(common, &project, &args.selection)?;
    let entries = pipeline::plan(&project, &store, &selected.nodes)?;
    let (stages, run) = (entries.len(), entries.iter().filter(|entry| entry.run).count());
    for entry in entries {
        if report.json() {
            report.value(serde_json::json!(entry));
            continue;
        }
        let what = if entry.run { "run" } else { "cached" };
        let reasons: Vec<String> = entry.reasons.iter().map(ToString::to_string).collect();
        report.line(format!("{what:<7} {:<24} {}", entry.node, reasons.join("; ")).trim_end());
    }
    let sentence = match run {
        0 => format!("none of {} would run", count(stages, "stage")),
        _ => format!("{run} of {} would run", count(stages, "stage")),
    };
    let build = common.build_command().args(args.selection.words());
    let closing = Closing::new(sentence)
        .next(build)
        .field("stages", stages)
        .field("run", run);
    report.close("plan", &closing);
    Ok(Exit::Success)
}
