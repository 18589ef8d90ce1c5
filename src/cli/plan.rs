//! `pnb plan`: the stages that a build would run, and the reasons.

use super::{
    Exit,
    args::{Common, Selection},
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
    let selected = select(&project, &args.selection)?;
    for entry in pipeline::plan(&project, &store, &selected.nodes)? {
        if report.json() {
            report.value(serde_json::json!(entry));
            continue;
        }
        let what = if entry.run { "run" } else { "cached" };
        let reasons: Vec<String> = entry.reasons.iter().map(ToString::to_string).collect();
        report.line(format!("{what:<7} {:<24} {}", entry.node, reasons.join("; ")).trim_end());
    }
    Ok(Exit::Success)
}
