//! `pnb doctor`: the sandbox layers, the locked archives, the store and the resources of this machine, and a verdict.

use super::{
    Exit,
    args::Common,
    context::{project_tree_if_any, run_options, store as open, store_path},
    failure::Failure,
    full::free_space,
    host::processors,
    report::{Report, size},
};
use pnb::{
    model::{chain, visible_path},
    pipeline::Project,
    sandbox,
};
use std::path::Path;

pub(super) fn doctor(common: &Common, report: &Report) -> Result<Exit, Failure> {
    let options = run_options()?;
    let mut lacking = 0;
    for layer in sandbox::probe(&options.helper) {
        lacking += u32::from(layer.problem.is_some());
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
    let tree = project_tree_if_any(common)?;
    let images = tree.as_ref().map(|tree| tree.path().join("images"));
    if let Some(tree) = tree {
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
    let opened = open(common);
    match &opened {
        Ok(store) if report.json() => report.value(serde_json::json!({ "store": store.root() })),
        Ok(store) => report.line(format_args!(
            "{:<8} {:<22} {}",
            "ok",
            "store",
            visible_path(store.root())
        )),
        Err(error) if report.json() => {
            lacking += 1;
            report.value(serde_json::json!({ "store": path, "problem": chain(error.error()) }));
        }
        Err(error) => {
            lacking += 1;
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
    for found in machine(&path, images.as_deref()) {
        lacking += u32::from(found.mark == "MISSING");
        if report.json() {
            report.value(serde_json::json!({ "machine": found.name, "state": found.mark, "found": found.text, "fix": found.fix }));
            continue;
        }
        report.line(format_args!("{:<8} {:<22} {}", found.mark, found.name, found.text));
        if !found.fix.is_empty() {
            report.line(format_args!("{:<8} {}", "", found.fix));
        }
    }
    let verdict = match lacking {
        0 => "ready: builds run on this machine, also with --hermetic".to_owned(),
        1 => "not ready: 1 thing is MISSING".to_owned(),
        n => format!("not ready: {n} things are MISSING"),
    };
    match report.json() {
        true => report.value(serde_json::json!({ "ready": lacking == 0, "missing": lacking })),
        false => report.line(format_args!("{verdict}")),
    }
    Ok(if lacking == 0 { Exit::Success } else { Exit::Hermetic })
}

/// A fact about the machine.
struct Found {
    mark: &'static str,
    name: &'static str,
    text: String,
    fix: String,
}

/// Memory of the largest stage, and what the stages of all variants of an architecture keep in memory beside it.
const MEMORY: u64 = 2 << 30;
/// The store and the artifacts of all variants of one architecture.
const STORE: u64 = 4 << 30;
const IMAGES: u64 = 2 << 30;

/// Processors, memory, space and KVM. Less than a build of everything takes is told; nothing is missing by it, because a smaller build may
/// do.
fn machine(store: &Path, images: Option<&Path>) -> Vec<Found> {
    let mut all = Vec::new();
    let mut add = |enough: bool, name, text: String, fix: &str| {
        let mark = if enough { "ok" } else { "note" };
        let fix = if enough { String::new() } else { fix.to_owned() };
        all.push(Found { mark, name, text, fix });
    };
    let processors = processors();
    let plural = if processors == 1 { "" } else { "s" };
    add(
        true,
        "processors",
        format!("{processors} processor{plural}; stages see those that they declare"),
        "",
    );
    if let Some(free) = available_memory() {
        add(
            free >= MEMORY,
            "memory",
            format!("{} available", size(free)),
            "a stage may use 2 GiB; with less, large stages are ended (--jobs 1, --build-dir DIR keep more free)",
        );
    }
    for (name, path, need, fix) in [
        (
            "space for the store",
            Some(store),
            STORE,
            "all variants of an architecture take about 4 GiB; --store names another directory, `pnb store gc` makes space",
        ),
        (
            "space for artifacts",
            images,
            IMAGES,
            "all variants of an architecture take about 2 GiB; --output names another directory",
        ),
    ] {
        let Some((free, place)) = path.and_then(free_space) else {
            continue;
        };
        add(
            free >= need,
            name,
            format!("{} free in {}", size(free), visible_path(&place)),
            fix,
        );
    }
    let shared = Path::new("/dev/shm");
    match free_space(shared).filter(|(_, place)| place == shared) {
        Some((free, _)) => add(
            free >= 1 << 20,
            "/dev/shm",
            format!("{} free", size(free)),
            "root's builds may claim their ids there; verify-repro puts its stores there (--on-disk)",
        ),
        None => add(
            false,
            "/dev/shm",
            "not there".to_owned(),
            "`verify-repro` keeps its stores in memory; --on-disk needs none",
        ),
    }
    let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let text = match kvm {
        Ok(_) => "accessible; pnb boot emulates all the same".to_owned(),
        Err(error) => format!("not accessible ({error}); pnb boot emulates"),
    };
    add(true, "/dev/kvm", text, "");
    all
}

/// `MemAvailable`, where the kernel tells it.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}
