//! `pnb store`: checks, cleans and shows the store.

use super::{
    Exit,
    args::Common,
    context::{build_it, project, store as open, store_path},
    failure::{Failure, Fatal},
    report::{Report, size},
};
use clap::{Args, Subcommand};
use pnb::{
    lock::BaseImage,
    model::{Arch, Hint, ModelError, NodeId, visible_path},
    store::{Output, Store},
};
use std::{borrow::Cow, collections::BTreeSet};

/// Options of `pnb store`.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    /// The operation.
    #[command(subcommand)]
    pub(super) command: StoreCommand,
}

/// Commands of `pnb store`.
#[derive(Subcommand, Debug)]
pub(super) enum StoreCommand {
    /// Hash every object and read every record
    Verify {
        /// Remove damaged objects and records, so that the next build makes or fetches them again
        #[arg(long)]
        repair: bool,
    },
    /// Remove every object that neither the lock nor the newest record of a stage needs
    Gc,
    /// Print the path of the store, or of an output of a stage in it
    Path {
        /// Stage, as NAME or NAME/ARCH
        stage: Option<String>,
        /// Name of the output
        #[arg(long, default_value = "tree")]
        output: String,
    },
}

pub(super) fn store(common: &Common, args: &StoreArgs, report: &Report) -> Result<Exit, Failure> {
    match &args.command {
        StoreCommand::Verify { repair } => verify(common, *repair, report),
        StoreCommand::Gc => gc(common, report),
        StoreCommand::Path { stage: None, .. } => {
            report.path(&store_path(common)?);
            Ok(Exit::Success)
        }
        StoreCommand::Path {
            stage: Some(stage),
            output,
        } => path(common, stage, output, report),
    }
}

fn verify(common: &Common, repair: bool, report: &Report) -> Result<Exit, Failure> {
    // A repair removes objects that a running build may be reading.
    let store = if repair {
        Store::open_exclusive(&store_path(common)?)?
    } else {
        open(common)?
    };
    let mut next = 1 << 30;
    let check = store.check(repair, &mut |bytes| {
        if bytes >= next {
            next += 1 << 30;
            report.note(format_args!("  checked {}", size(bytes)));
        }
    })?;
    if report.json() {
        let damage: Vec<_> = check
            .damage
            .iter()
            .map(|d| serde_json::json!({ "path": d.path, "problem": d.problem }))
            .collect();
        let (objects, bytes, records) = (check.objects, check.bytes, check.records);
        report.value(serde_json::json!({ "objects": objects, "bytes": bytes, "records": records, "damage": damage }));
    } else {
        for damage in &check.damage {
            report.line(format_args!(
                "damaged {}: {}",
                visible_path(&damage.path),
                damage.problem
            ));
        }
        let (objects, bytes, records) = (check.objects, size(check.bytes), check.records);
        report.line(format_args!(
            "{objects} objects ({bytes}) and {records} records, {} damaged",
            check.damage.len()
        ));
    }
    Ok(if check.damage.is_empty() || repair {
        Exit::Success
    } else {
        Exit::Store
    })
}

fn gc(common: &Common, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = Store::open_exclusive(&store_path(common)?)?;
    let packages = project.lock.packages.iter().map(|p| p.sha256);
    let files = project.lock.files.iter().map(|f| f.sha256);
    let base = project.lock.base.iter().flat_map(BaseImage::blobs);
    let pinned: BTreeSet<_> = packages.chain(files).chain(base.map(|(digest, _)| digest)).collect();
    let done = store.collect(&pinned)?;
    if report.json() {
        report.value(serde_json::json!({ "removed": done.removed, "freed": done.freed, "kept": done.kept }));
    } else {
        report.line(format_args!(
            "removed {} files ({}), kept {} objects",
            done.removed,
            size(done.freed),
            done.kept
        ));
    }
    Ok(Exit::Success)
}

/// Why no path can be printed; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
enum PathError {
    #[error("read the stage {text:?}")]
    Stage {
        text: String,
        #[source]
        source: ModelError,
    },
    #[error("find {node} in the store: it was not built")]
    NotBuilt { node: NodeId },
    #[error("find the output {output:?} of {node}: the outputs are {}", known.join(", "))]
    NoOutput {
        node: NodeId,
        output: String,
        known: Vec<String>,
    },
}

impl Fatal for PathError {
    fn exit(&self) -> Exit {
        match self {
            PathError::Stage { .. } => Exit::Usage,
            PathError::NotBuilt { .. } | PathError::NoOutput { .. } => Exit::Store,
        }
    }
}

impl Hint for PathError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            PathError::NotBuilt { node } => Some(build_it(node).into()),
            _ => None,
        }
    }
}

fn path(common: &Common, stage: &str, output: &str, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = open(common)?;
    let (name, arch) = match stage.split_once('/') {
        None => (stage, Arch::Amd64),
        Some((name, arch)) => {
            let arch: Result<Arch, ModelError> = arch.parse();
            let arch = arch.map_err(|source| PathError::Stage {
                text: stage.to_owned(),
                source,
            })?;
            (name, arch)
        }
    };
    let node = project.graph.node(name, arch)?;
    let Some((_, record)) = store.latest_record(&node.stage, node.arch)? else {
        return Err(PathError::NotBuilt { node }.into());
    };
    let path = match record.outputs.get(output) {
        Some(Output::Tree { digest }) => store.checkout(digest)?,
        Some(Output::File { digest, .. }) => store.object_path(digest)?,
        None => {
            return Err(PathError::NoOutput {
                node,
                output: output.to_owned(),
                known: record.outputs.keys().cloned().collect(),
            }
            .into());
        }
    };
    report.path(&path);
    Ok(Exit::Success)
}
