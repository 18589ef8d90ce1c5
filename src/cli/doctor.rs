//! `pnb doctor`: the sandbox layers, the locked archives and the store of this machine.

use super::{
    Exit,
    args::Common,
    context::{project_tree_if_any, run_options, store as open, store_path},
    failure::Failure,
    report::Report,
};
use pnb::{
    model::{chain, visible_path},
    pipeline::Project,
    sandbox,
};

pub(super) fn doctor(common: &Common, report: &Report) -> Result<Exit, Failure> {
    let options = run_options()?;
    let mut whole = true;
    for layer in sandbox::probe(&options.helper) {
        whole &= layer.problem.is_none();
        if report.json() {
            let (name, offered, problem, fix) = (layer.name, layer.offered, layer.problem, layer.fix);
            report.value(serde_json::json!({ "layer": name, "offered": offered, "problem": problem, "fix": fix }));
            continue;
        }
        let mark = if layer.problem.is_none() { "ok" } else { "MISSING" };
        report.line(format_args!("{mark:<8} {:<22} {}", layer.name, layer.offered));
        if let Some(problem) = &layer.problem {
            report.line(format_args!("{:<8} {problem}", ""));
            report.line(format_args!("{:<8} fix: {}", "", layer.fix));
        }
    }
    if let Some(tree) = project_tree_if_any(common)? {
        let project = Project::load(tree)?;
        for archive in &project.lock.archives {
            let (name, suite, snapshot) = (&archive.name, &archive.suite, &archive.snapshot);
            if report.json() {
                report.value(serde_json::json!({ "archive": name, "suite": suite, "snapshot": snapshot }));
            } else {
                report.line(format_args!("{:<8} {:<22} {} at {snapshot}", "locked", name, suite));
            }
        }
    }
    let path = store_path(common)?;
    match open(common) {
        Ok(store) if report.json() => report.value(serde_json::json!({ "store": store.root() })),
        Ok(store) => report.line(format_args!(
            "{:<8} {:<22} {}",
            "ok",
            "store",
            visible_path(store.root())
        )),
        Err(error) if report.json() => {
            whole = false;
            report.value(serde_json::json!({ "store": path, "problem": chain(error.error()) }));
        }
        Err(error) => {
            whole = false;
            report.line(format_args!(
                "{:<8} {:<22} {}: {}",
                "MISSING",
                "store",
                visible_path(&path),
                chain(error.error())
            ));
            if let Some(hint) = error.hint() {
                report.line(format_args!("{:<8} fix: {hint}", ""));
            }
        }
    }
    Ok(if whole { Exit::Success } else { Exit::Hermetic })
}
