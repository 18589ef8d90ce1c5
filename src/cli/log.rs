//! `pnb log`: the log of a stage's last run.

use super::{
    Exit,
    args::{Common, StageRef},
    context::{project, store},
    failure::Failure,
    report::Report,
};
use clap::Args;
use std::fs;

/// Options of `pnb log`.
#[derive(Args, Debug)]
pub(super) struct LogArgs {
    /// Of which stage.
    #[command(flatten)]
    pub(super) stage: StageRef,
}

pub(super) fn log(common: &Common, args: &LogArgs, report: &Report) -> Result<Exit, Failure> {
    let args = &args.stage;
    let project = project(common)?;
    let store = store(common)?;
    let node = project.graph.node(&args.stage, args.arch)?;
    let none = || {
        let way = format!(
            "hint: build it with `pnb build --stage {} --arch {}`",
            args.stage, args.arch
        );
        Failure::said(Exit::Failure, format!("find a log of {node}: it has not run\n\n{way}"))
    };
    // The newest run may have failed, and then it has a log but no record: take the newest log of the two.
    let last = store.latest_log(&node.stage, node.arch)?.ok_or_else(none)?;
    let text = fs::read(&last).map_err(|e| Failure::said(Exit::Store, format!("read {last:?}: {e}")))?;
    report.bytes(&text);
    Ok(Exit::Success)
}
