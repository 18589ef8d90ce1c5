//! `pnb store …` and `pnb doctor`.

use super::{
    Exit,
    args::{Common, StoreCommand},
    context::{Failure, project, project_root, run_options, store_path},
    report::{Report, size},
};
use crate::{model::Arch, sandbox, store::Store};
use std::collections::BTreeSet;

pub(super) fn store(common: &Common, command: &StoreCommand, report: &Report) -> Result<Exit, Failure> {
    match command {
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

fn open(common: &Common) -> Result<std::sync::Arc<Store>, Failure> {
    super::context::store(common)
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
        crate::store::Output::Tree { digest } => store.checkout(digest)?,
        crate::store::Output::File { digest, .. } => store.object_path(digest)?,
    };
    report.line(place.display());
    Ok(Exit::Success)
}

pub(super) fn doctor(common: &Common, report: &Report) -> Result<Exit, Failure> {
    let options = run_options()?;
    let mut whole = true;
    for layer in sandbox::probe(&options.helper) {
        whole &= layer.problem.is_none();
        if report.json() {
            let (name, offered, problem, fix) = (layer.name, layer.offered, layer.problem, layer.fix);
            report.line(serde_json::json!({ "layer": name, "offered": offered, "problem": problem, "fix": fix }));
            continue;
        }
        let mark = if layer.problem.is_none() { "ok" } else { "MISSING" };
        report.line(format_args!("{mark:<8} {:<22} {}", layer.name, layer.offered));
        if let Some(problem) = &layer.problem {
            report.line(format_args!("{:<8} {problem}", ""));
            report.line(format_args!("{:<8} fix: {}", "", layer.fix));
        }
    }
    if project_root(common).is_ok() {
        let project = project(common)?;
        for archive in &project.lock.archives {
            let (name, suite, snapshot) = (&archive.name, &archive.suite, &archive.snapshot);
            if report.json() {
                report.line(serde_json::json!({ "archive": name, "suite": suite, "snapshot": snapshot }));
            } else {
                report.line(format_args!("{:<8} {:<22} {} at {snapshot}", "locked", name, suite));
            }
        }
    }
    let path = store_path(common)?;
    match open(common) {
        Ok(store) if report.json() => report.line(serde_json::json!({ "store": store.root() })),
        Ok(store) => report.line(format_args!("{:<8} {:<22} {}", "ok", "store", store.root().display())),
        Err(error) if report.json() => {
            whole = false;
            report.line(serde_json::json!({ "store": path, "problem": error.to_string() }));
        }
        Err(error) => {
            whole = false;
            report.line(format_args!(
                "{:<8} {:<22} {}: {error}",
                "MISSING",
                "store",
                path.display()
            ));
        }
    }
    Ok(if whole { Exit::Success } else { Exit::Hermetic })
}
