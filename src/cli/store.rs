//! `pnb store …`: looking after the store.

use super::{
    Exit,
    args::Common,
    context::{project, store as open, store_path},
    failure::Failure,
    report::{Report, size},
};
use clap::{Args, Subcommand};
use pnb::{model::Arch, store::Store};
use std::collections::BTreeSet;

/// Options of `pnb store`.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: StoreCommand,
}

/// Commands of `pnb store`.
#[derive(Subcommand, Debug)]
pub(super) enum StoreCommand {
    /// Hash every object and read every record.
    Verify {
        /// Remove what is damaged, so that the next build makes or fetches it again.
        #[arg(long)]
        repair: bool,
    },
    /// Remove what neither the lock nor the newest record of a stage needs.
    Gc,
    /// Print where the store is, or where an output of a stage is in it.
    Path {
        /// A stage, `stage` or `stage/arch`.
        stage: Option<String>,
        /// Which output.
        #[arg(long, default_value = "tree")]
        output: String,
    },
}

pub(super) fn store(common: &Common, args: &StoreArgs, report: &Report) -> Result<Exit, Failure> {
    match &args.command {
        StoreCommand::Verify { repair } => verify(common, *repair, report),
        StoreCommand::Gc => gc(common, report),
        StoreCommand::Path { stage: None, .. } => {
            report.line(store_path(common)?.display());
            Ok(Exit::Success)
        }
        StoreCommand::Path {
            stage: Some(stage),
            output,
        } => path(common, stage, output, report),
    }
}

fn verify(common: &Common, repair: bool, report: &Report) -> Result<Exit, Failure> {
    // Repairing takes away what a build may be reading.
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
        report.line(serde_json::json!({ "objects": objects, "bytes": bytes, "records": records, "damage": damage }));
    } else {
        for damage in &check.damage {
            report.line(format_args!("damaged {}: {}", damage.path.display(), damage.problem));
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
    let pinned: BTreeSet<_> = packages.chain(project.lock.files.iter().map(|f| f.sha256)).collect();
    let done = store.collect(&pinned)?;
    if report.json() {
        report.line(serde_json::json!({ "removed": done.removed, "freed": done.freed, "kept": done.kept }));
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

fn path(common: &Common, stage: &str, output: &str, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = open(common)?;
    let (name, arch) = match stage.split_once('/') {
        Some((name, arch)) => (
            name,
            arch.parse::<Arch>()
                .map_err(|e| Failure::said(Exit::Usage, format!("read {stage:?}: {e}")))?,
        ),
        None => (stage, Arch::Amd64),
    };
    let node = project.graph.node(name, arch)?;
    let missing = |what: String| {
        Failure::said(
            Exit::Store,
            format!("find {what} of {node} in the store\n\nhint: build it with `pnb build --stage {name}`"),
        )
    };
    let (_, record) = store
        .latest_record(&node.stage, node.arch)?
        .ok_or_else(|| missing("a record".to_owned()))?;
    let found = record.outputs.get(output).ok_or_else(|| {
        let known: Vec<&str> = record.outputs.keys().map(String::as_str).collect();
        missing(format!("the output {output:?} (there are: {})", known.join(", ")))
    })?;
    let place = match found {
        pnb::store::Output::Tree { digest } => store.checkout(digest)?,
        pnb::store::Output::File { digest, .. } => store.object_path(digest)?,
    };
    report.line(place.display());
    Ok(Exit::Success)
}
