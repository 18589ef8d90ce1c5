//! `pnb store`: checks, cleans and shows the store.

use super::{
    Exit,
    args::{AskedStage, Common, arch},
    closing::{Closing, count},
    command_text::CommandText,
    context::{build_it, project, store as open, store_path},
    failure::{Failure, Fatal},
    report::{Report, size},
    selection::stage_node,
};
use clap::{Args, Subcommand};
use pnb::{
    lock::BaseImage,
    model::{Arch, Hint, NodeId, nearest, visible_path},
    pipeline,
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
    /// Remove every object that neither the lock, nor the project as it is, nor the newest record of a stage needs
    Gc,
    /// Print the path of the store, or of an output of a stage in it
    Path {
        /// Stage, as NAME or NAME/ARCH
        stage: Option<AskedStage>,
        /// Architecture that the stage is run for
        #[arg(long, default_value = "amd64", env = "ARCH", hide_env_values = true, value_name = "ARCH", value_parser = arch())]
        arch: Arch,
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
            arch,
            output,
        } => path(common, stage, *arch, output, report),
    }
}

fn verify(common: &Common, repair: bool, report: &Report) -> Result<Exit, Failure> {
    // A repair removes objects that a running build may be reading.
    let store = if repair {
        Store::open_exclusive(&store_path(common)?)?
    } else {
        open(common)?
    };
    let reading = report.reading("checked");
    let check = store.check(repair, &mut |bytes| reading.bar().set_position(bytes))?;
    drop(reading);
    let damaged = check.damage.len();
    let end = match (damaged, repair) {
        (0, _) | (_, false) => "",
        (_, true) => " and removed; a build makes or fetches again what it needs",
    };
    let sentence = format!(
        "{} ({}) and {}, {damaged} damaged{end}, {}",
        count(usize::try_from(check.objects).unwrap_or(usize::MAX), "object"),
        size(check.bytes),
        count(usize::try_from(check.records).unwrap_or(usize::MAX), "record"),
        report.elapsed()
    );
    let next = match (damaged, repair) {
        (0, _) => None,
        (_, false) => Some(common.line.text().arg("--repair")),
        (_, true) => Some(common.build_command()),
    };
    let closing = Closing::verdict(sentence).nexts(next);
    let value = {
        let damage: Vec<_> = check
            .damage
            .iter()
            .map(|d| serde_json::json!({ "path": d.path, "problem": d.problem }))
            .collect();
        let (objects, bytes, records) = (check.objects, check.bytes, check.records);
        serde_json::json!({ "objects": objects, "bytes": bytes, "records": records, "damage": damage })
    };
    let mut text = String::new();
    for damage in &check.damage {
        text.push_str(&format!("damaged {}: {}\n", visible_path(&damage.path), damage.problem));
    }
    report.close_with(value, &text, &closing);
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
    let present = pipeline::present_keys(&project, &store)?;
    let task = report.task("collect", "garbage");
    let done = store.collect(&pinned, &present)?;
    drop(task);
    let text = format!(
        "removed {} files ({}), kept {} objects\n",
        done.removed,
        size(done.freed),
        done.kept
    );
    let sentence = format!(
        "the outputs of {} of the project as it is are kept",
        count(present.len(), "stage")
    );
    let closing = Closing::new(sentence)
        .next(common.command("plan"))
        .field("stages", present.len());
    report.close_with(
        serde_json::json!({ "removed": done.removed, "freed": done.freed, "kept": done.kept }),
        &text,
        &closing,
    );
    Ok(Exit::Success)
}

/// Why no path can be printed; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
enum PathError {
    #[error("find {node} in the store: it was not built with its present inputs")]
    NotBuilt { node: NodeId, build: CommandText },
    #[error("find the output {output:?} of {node}: the outputs are {}", known.join(", "))]
    NoOutput {
        node: NodeId,
        output: String,
        known: Vec<String>,
        meant: CommandText,
    },
}

impl Fatal for PathError {
    fn exit(&self) -> Exit {
        match self {
            PathError::NoOutput { .. } => Exit::Usage,
            PathError::NotBuilt { .. } => Exit::Store,
        }
    }
}

impl Hint for PathError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            PathError::NotBuilt { build, .. } => Some(format!("`{build}`").into()),
            PathError::NoOutput { meant, .. } => Some(format!("`{meant}`").into()),
        }
    }
}

fn path(common: &Common, stage: &AskedStage, arch: Arch, output: &str, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = open(common)?;
    let node = stage_node(common, &project, stage, arch)?;
    let Some((_, Some(record))) = pipeline::present(&project, &store, &node)? else {
        let build = build_it(common, &node);
        return Err(PathError::NotBuilt { node, build }.into());
    };
    let path = match record.outputs.get(output) {
        Some(Output::Tree { digest }) => store.checkout(digest)?,
        Some(Output::File { digest, .. }) => store.object_path(digest)?,
        None => {
            let known: Vec<String> = record.outputs.keys().cloned().collect();
            let right = nearest(output, known.iter().map(String::as_str)).or(known.first().map(String::as_str));
            let meant = common.line.with_option("--output", right.unwrap_or_default());
            let output = output.to_owned();
            return Err(PathError::NoOutput {
                node,
                output,
                known,
                meant,
            }
            .into());
        }
    };
    report.path(&path);
    Ok(Exit::Success)
}
