//! `pnb build`.

use super::{
    Exit,
    args::{Build, Common, Given},
    context::{Failure, inputs, project, run_options, select, store},
    report::{Report, seconds, size},
};
use crate::{
    graph::NodeId,
    manifest::Host,
    model::Arch,
    pipeline::{self, BuildOutcome, Circumstances, PipelineError, Program, Project},
};
use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

pub(super) fn build(common: &Common, args: &Build, report: &Report) -> Result<Exit, Failure> {
    let started = now();
    let mut project = project(common)?;
    give(&mut project, &args.given)?;
    let store = store(common)?;
    let inputs = inputs(common)?;
    project.check_lock()?;
    let selected = select(&project, &args.selection)?;
    if args.hermetic {
        hermetic(&project, args.allow_dirty)?;
    }
    let mut options = run_options()?;
    options.hermetic = args.hermetic;
    options.keep_failed = args.keep_failed;
    options.verbose = args.verbose;
    options.build_dir = args.build_dir.clone();
    let images = args.output.clone().unwrap_or_else(|| project.root.join("images"));
    if !selected.variants.is_empty() && on_one_file_system(store.root(), &images) {
        options.exported = selected.nodes.iter().cloned().collect();
    }
    let jobs = args.jobs.unwrap_or_else(processors);
    let outcome = pipeline::build(&project, &store, &inputs, &selected.nodes, jobs, &options, &|e| {
        report.event(e)
    })?;
    if args.hermetic && project.revision_now()? != project.revision {
        let problem = "the project changed while it was built\n\nhint: build again".to_owned();
        return Err(PipelineError::NotHermetic { problem }.into());
    }
    let circumstances = Circumstances {
        started,
        finished: now(),
        host: host(),
        program: Program::new(options.helper.clone()),
        allow_dirty: args.allow_dirty,
    };
    for &target in &selected.variants {
        pipeline::export(&project, &store, &outcome, target, &images, &circumstances, &|e| {
            report.event(e)
        })?;
    }
    if args.timings {
        timings(&outcome, report);
    }
    report.clear();
    Ok(Exit::Success)
}

/// Puts what the caller gives in the place of what the project has.
pub(super) fn give(project: &mut Project, given: &Given) -> Result<(), Failure> {
    if let Some(agent) = &given.agent {
        project.use_agent(agent)?;
    }
    if let Some(arch) = given.tools {
        project.use_tools_of(arch)?;
    }
    if let Some(url) = &given.platform_url {
        project.platform.set_url(url)?;
    }
    if let Some(path) = &given.ca_pem {
        project.platform.read_ca_pem(path)?;
    }
    Ok(())
}

/// Whether files can be moved from one place to the other; what is not there yet will be made where it is to lie.
fn on_one_file_system(a: &Path, b: &Path) -> bool {
    let device = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        path.ancestors().find_map(|p| p.metadata().ok()).map(|m| m.dev())
    };
    device(a).is_some_and(|dev| device(b) == Some(dev))
}

/// What `--hermetic` asks of the project; the sandbox sees to the rest.
pub(super) fn hermetic(project: &Project, allow_dirty: bool) -> Result<(), Failure> {
    if project.revision.sha.is_none() && !allow_dirty {
        let problem = "the project is in no git commit, so nobody can say what its stage files were\n\n\
                       hint: commit them, or give --allow-dirty to have the manifest say so";
        return Err(PipelineError::NotHermetic {
            problem: problem.to_owned(),
        }
        .into());
    }
    if !project.revision.dirty.is_empty() && !allow_dirty {
        let problem = format!(
            "stage files are not committed:\n  {}\n\nhint: commit them, or give --allow-dirty to have the manifest say so",
            project.revision.dirty.join("\n  ")
        );
        return Err(PipelineError::NotHermetic { problem }.into());
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the time goes into build-record.json only")]
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn host() -> Host {
    let (name, kernel) = match nix::sys::utsname::uname() {
        Ok(u) => {
            let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
            (
                text(u.nodename()),
                format!("{} {} {}", text(u.sysname()), text(u.release()), text(u.version())),
            )
        }
        Err(_) => (String::new(), String::new()),
    };
    Host {
        name,
        kernel,
        arch: Arch::host(),
        cpus: u32::try_from(processors()).unwrap_or(u32::MAX),
    }
}

/// Where the time went: one row per stage, with a bar as long as its share.
fn timings(outcome: &BuildOutcome, report: &Report) {
    let rows: Vec<(&NodeId, &pipeline::Done)> = outcome
        .order
        .iter()
        .filter_map(|id| Some((id, outcome.nodes.get(id)?)))
        .collect();
    if report.json() {
        for (id, done) in rows {
            let r = &done.record;
            report.line(serde_json::json!({
                "event": "timing", "node": id, "cached": done.cached, "wall_ms": r.wall_ms, "cpu_ms": r.cpu_ms, "peak_memory": r.peak_memory
            }));
        }
        return;
    }
    let longest = rows
        .iter()
        .filter(|(_, d)| !d.cached)
        .map(|(_, d)| d.record.cpu_ms)
        .max()
        .unwrap_or(0)
        .max(1);
    report.line(format_args!(
        "{:<24} {:>9} {:>9} {:>11}",
        "stage", "wall", "CPU", "memory"
    ));
    let mut total = 0;
    for (id, done) in rows {
        let r = &done.record;
        if done.cached {
            report.line(format_args!("{id:<24} {:>9} {:>9} {:>11}", "cached", "", ""));
            continue;
        }
        total += r.cpu_ms;
        let bar = "█".repeat(usize::try_from(r.cpu_ms * 30 / longest).unwrap_or(0));
        let (wall, cpu, memory) = (seconds(r.wall_ms), seconds(r.cpu_ms), size(r.peak_memory));
        report.line(format_args!("{id:<24} {wall:>9} {cpu:>9} {memory:>11} {bar}"));
    }
    report.line(format_args!("{:<24} {:>9} {:>9}", "total", "", seconds(total)));
}
