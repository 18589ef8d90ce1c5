//! `pnb plan`, `graph`, `log` and `shell`: looking without building.

use super::{
    Exit,
    args::{Common, Graph, LogArgs, Selection, ShellArgs},
    context::{Failure, inputs, project, run_options, select, store},
    report::Report,
};
use crate::{
    graph::{Rendering, closure_of, render},
    pipeline::{self, OutputsByNode, resolve_stage, shell_spec, stage_spec},
    sandbox::{Executor, OutputSpec, RootFs},
    store::Content,
};
use std::{fs, io};

/// The stage whose tree has a shell.
const TOOLS: &str = "tools";

pub(super) fn plan(common: &Common, args: &Selection, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    project.check_lock()?;
    let store = store(common)?;
    let selected = select(&project, args)?;
    for entry in pipeline::plan(&project, &store, &selected.nodes)? {
        if report.json() {
            report.line(serde_json::json!(entry));
            continue;
        }
        let what = if entry.run { "run" } else { "cached" };
        let reasons: Vec<String> = entry.reasons.iter().map(ToString::to_string).collect();
        report.line(format!("{what:<7} {:<24} {}", entry.node, reasons.join("; ")).trim_end());
    }
    Ok(Exit::Success)
}

pub(super) fn graph(common: &Common, args: &Graph, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let selected = select(&project, &args.selection)?;
    let closure = closure_of(&project.graph, &selected.nodes)?;
    let how = match (args.dot, args.svg, report.json()) {
        (true, _, _) => Rendering::Dot,
        (_, true, _) => Rendering::Svg,
        (_, _, true) => Rendering::Json,
        _ => Rendering::Text,
    };
    report.bytes(render(&project.graph, &closure, how)?.as_bytes());
    Ok(Exit::Success)
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

pub(super) fn shell(common: &Common, args: &ShellArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let inputs = inputs(common)?;
    let options = run_options()?;
    let node = project.graph.node(&args.stage.stage, args.stage.arch)?;
    let mut needs = project.graph.dependencies(&node)?;
    // A stage without programs of its own is looked at with those of the tools.
    let tools = project.graph.node(TOOLS, node.arch)?;
    if !needs.contains(&tools) {
        needs.push(tools.clone());
    }
    let built = pipeline::build(&project, &store, &inputs, &needs, 2, &options, &|e| report.event(e))?;
    let outputs: OutputsByNode = built
        .nodes
        .into_iter()
        .map(|(id, done)| (id, done.record.outputs))
        .collect();
    let prepared = resolve_stage(&project, &store, &node, &outputs)?;
    let spec = stage_spec(&project, &store, &inputs, &prepared, &options, &|e| report.event(e))?;
    let mut spec = shell_spec(spec, args.command.as_deref());
    if spec.root == RootFs::Empty {
        let tree = outputs.get(&tools).and_then(|o| o.get("tree"));
        let tree = tree.ok_or_else(|| Failure::said(Exit::Stage, format!("find a shell: {tools} gave no tree")))?;
        spec.root = RootFs::Tree(store.checkout(tree.digest())?);
    }
    report.clear();
    report.note(format_args!(
        "shell in the sandbox of {node}; inputs in /inputs, write to /build; exit ends it"
    ));
    let executor = Executor {
        helper: options.helper,
        strict: false,
    };
    let mut put = |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("a shell has no outputs"));
    match executor.run(&spec, &mut put, &mut io::sink()) {
        Ok(_) => Ok(Exit::Success),
        Err(crate::sandbox::SandboxError::Failed { status, .. }) => {
            report.note(format_args!("the shell ended with {status}"));
            Ok(Exit::Stage)
        }
        Err(source) => Err(pipeline::PipelineError::Sandbox {
            node,
            source: Box::new(source),
        }
        .into()),
    }
}
