//! `pnb log`: the log of a stage's last run.

use super::{
    Exit,
    args::{Common, StageRef},
    context::{build_it, project, store},
    failure::{Failure, Fatal},
    report::Report,
};
use clap::Args;
use pnb::model::{Hint, NodeId};
use std::{borrow::Cow, fs, io, path::PathBuf};

/// Options of `pnb log`.
#[derive(Args, Debug)]
pub(super) struct LogArgs {
    /// The stage.
    #[command(flatten)]
    pub(super) stage: StageRef,
}

/// Why there is no log to print; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("find a log of {node}: the stage has not run")]
    NotRun { node: NodeId },
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
            LogError::NotRun { .. } => Exit::Failure,
            LogError::Read { .. } => Exit::Store,
        }
    }
}

impl Hint for LogError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            LogError::NotRun { node } => Some(build_it(node).into()),
            LogError::Read { .. } => None,
        }
    }
}

pub(super) fn log(common: &Common, args: &LogArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let node = project.graph.node(&args.stage.stage, args.stage.arch)?;
    // The newest run may have failed, and then it has a log but no record: take the newest log of the two.
    let last = store.latest_log(&node.stage, node.arch)?;
    let path = last.ok_or(LogError::NotRun { node })?;
    match fs::read(&path) {
        Ok(text) => report.log(&text),
        Err(source) => return Err(LogError::Read { path, source }.into()),
    }
    Ok(Exit::Success)
}
