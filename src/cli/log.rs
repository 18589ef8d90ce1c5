//! `pnb log`: the log of the last run of a stage with its present inputs.

use super::{
    Exit,
    args::{Common, StageRef},
    command_text::CommandText,
    context::{build_it, project, store},
    failure::{Failure, Fatal},
    report::Report,
    selection::stage_node,
};
use clap::Args;
use pnb::{
    model::{Hint, NodeId},
    pipeline,
};
use std::{borrow::Cow, fs, io, path::PathBuf};

/// Options of `pnb log`.
#[derive(Args, Debug)]
pub(super) struct LogArgs {
    /// The stage.
    #[command(flatten)]
    pub(super) stage: StageRef,
    /// Print the log of the newest run in the store, with whatever inputs, and not that of the stage as the project is now
    #[arg(long)]
    pub(super) last: bool,
}

/// Why there is no log to print; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("find a log of {node}: the stage has not run with its present inputs")]
    NotRun {
        node: NodeId,
        build: CommandText,
        last: Option<CommandText>,
    },
    #[error("read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Fatal for LogError {
    fn exit(&self) -> Exit {
        match self {
            LogError::NotRun { .. } | LogError::Read { .. } => Exit::Store,
        }
    }
}

impl Hint for LogError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            LogError::NotRun { build, last: None, .. } => Some(format!("`{build}` runs it").into()),
            LogError::NotRun {
                build,
                last: Some(last),
                ..
            } => Some(format!("`{build}` runs it; `{last}` prints the log of an earlier run").into()),
            LogError::Read { .. } => None,
        }
    }
}

pub(super) fn log(common: &Common, args: &LogArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let node = stage_node(common, &project, &args.stage.stage, args.stage.arch)?;
    let path = if args.last {
        store.latest_log(&node.stage, node.arch)?
    } else {
        // A run that failed has a log, and no record.
        pipeline::present(&project, &store, &node)?.and_then(|(key, _)| store.log_of(&key))
    };
    let Some(path) = path else {
        let last = store.latest_log(&node.stage, node.arch)?.filter(|_| !args.last);
        let last = last.map(|_| common.line.text().arg("--last"));
        let build = build_it(common, &node);
        return Err(LogError::NotRun { node, build, last }.into());
    };
    match fs::read(&path) {
        Ok(text) if text.is_empty() => report.note(format_args!("the last run of {node} printed nothing")),
        Ok(text) => report.log(&text),
        Err(source) => return Err(LogError::Read { path, source }.into()),
    }
    Ok(Exit::Success)
}
