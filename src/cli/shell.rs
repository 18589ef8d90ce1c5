//! `pnb shell`: a shell in the sandbox of a stage.

use super::{
    Exit,
    args::{Common, StageRef},
    context::{origins, project, run_options, store},
    failure::{Failure, Fatal},
    report::Report,
    selection::stage_node,
    terminal::TerminalModes,
};
use clap::Args;
use pnb::{
    model::{Hint, NodeId},
    pipeline::{self, BuildContext, OutputsByNode, resolve_stage, shell_spec},
    sandbox::{Executor, OutputSpec, RootFs},
    store::Content,
};
use std::io;

/// The stage whose tree holds a shell and the usual programs.
const TOOLS: &str = "tools";

/// Options of `pnb shell`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb shell kernel\n  pnb shell rootfs --command 'ls /inputs/packages | head'")]
pub(super) struct ShellArgs {
    /// The stage.
    #[command(flatten)]
    pub(super) stage: StageRef,
    /// Run this command instead of an interactive shell
    #[arg(long, short, value_name = "COMMAND")]
    pub(super) command: Option<String>,
}

/// The stage that has the shell gave no tree.
#[derive(Debug, thiserror::Error)]
#[error("find a shell: the stage {tools} gave no tree")]
struct NoShell {
    tools: NodeId,
}

impl Fatal for NoShell {
    fn exit(&self) -> Exit {
        Exit::Stage
    }
}

impl Hint for NoShell {}

pub(super) fn shell(common: &Common, args: &ShellArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let origins = origins(common)?;
    let options = run_options()?;
    let node = stage_node(common, &project, &args.stage.stage, args.stage.arch)?;
    let mut needs = project.graph.dependencies(&node)?;
    // A stage with an empty root has no shell; it gets that of the tools.
    let tools = project.graph.node(TOOLS, node.arch)?;
    if !needs.contains(&tools) {
        needs.push(tools.clone());
    }
    let context = BuildContext {
        project: &project,
        store: &store,
        origins: &origins,
        options: &options,
        shared: None,
        elsewhere: None,
        events: &|event| report.event(event),
    };
    let built = context.build(&needs, 2)?;
    let outputs: OutputsByNode = built
        .nodes
        .into_iter()
        .map(|(id, done)| (id, done.record.outputs))
        .collect();
    let stage = resolve_stage(&project, &store, &node, &outputs)?;
    let mut placement = shell_spec(&context, &stage, args.command.as_deref())?;
    if placement.spec.root == RootFs::Empty {
        let tree = outputs.get(&tools).and_then(|o| o.get("tree"));
        let tree = tree.ok_or_else(|| NoShell { tools: tools.clone() })?;
        placement.spec.root = RootFs::Tree(store.own_checkout(tree.digest())?);
    }
    report.clear();
    if args.command.is_none() {
        report.note(format_args!(
            "shell in the sandbox of {node}; inputs in /inputs, write to /build, which is empty at the beginning; exit ends it"
        ));
    }
    let executor = Executor {
        helper: options.helper,
        strict: false,
    };
    let mut put = |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("a shell has no outputs"));
    let modes = TerminalModes::save(report);
    let ended = executor.run(&placement.spec, &mut put, &mut io::sink());
    drop(modes);
    match ended {
        Ok(_) => Ok(Exit::Success),
        Err(pnb::sandbox::SandboxError::Failed { status, .. }) => {
            let code = code_of(&status);
            if args.command.is_none() {
                report.note(format_args!("the shell ended with {status}"));
            }
            Ok(code.map_or(Exit::Stage, Exit::Command))
        }
        Err(error) => Err(pipeline::PipelineError::Sandbox(Box::new(error)).into()),
    }
}

/// The code with which a shell would report the end `exit code N` or `signal N` of a command.
fn code_of(status: &str) -> Option<u8> {
    match status.split_once("signal ") {
        Some((_, signal)) => Some(128 + signal.parse::<u8>().ok().filter(|signal| *signal < 128)?),
        None => status.strip_prefix("exit code ")?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_a_shell() {
        assert_eq!(code_of("exit code 3"), Some(3));
        assert_eq!(code_of("exit code 127"), Some(127));
        assert_eq!(code_of("signal 9"), Some(137));
        assert_eq!(code_of("something else"), None);
    }
}
