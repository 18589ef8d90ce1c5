//! The client's half of stages that run on workers of a Remote Execution engine.
//!
//! The recipes of a chain of stages, their inputs and a program of pnb become an action; the records and the outputs that the worker leaves
//! are held against the same rules as results of a cache, and stay on the server until something here reads them. Where several builders
//! have to agree, each runs the action, and the first one's results count if all have the same outputs.

use super::{
    BuildContext, Elsewhere, Event, PipelineError, Project,
    job::{JOB, OUT, PROGRAM, PendingOutput, PendingOutputs, StageJob, WorkerJob, pending_digest},
    place::WorkerTimes,
    placement::InputFiles,
    recipe::Recipe,
    resolve::{OutputsByNode, ResolvedInput, ResolvedStage, resolve_stage},
    run::forwarded,
    shared::{self, SharedResults},
    stage_failure::{WorkerEnd, failed_on_worker},
    worker::{begun_stage, pinned_path},
    workers::{agreed_source, environment, properties},
};
use crate::{
    graph::StageOutputKind,
    model::{NodeId, VerityDigest, lock, visible, visible_log},
    remote::{
        BlobDigest, EngineAction, EngineProgress, Executed, FoundResult, InputFile, Parts, RemoteError, StageResults,
    },
    store::{Output, Record},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Longest line of a worker that is shown, in bytes.
const MAX_LINE: usize = 4096;
/// Time that a worker has beyond the limits of its stages: for their inputs, and to leave the outputs.
const AROUND: Duration = Duration::from_secs(300);

/// Stages that one action runs.
pub(super) struct StageChain<'a> {
    /// The first one.
    pub(super) first: &'a ResolvedStage,
    /// Those after it, each after the ones that it needs.
    pub(super) followers: &'a [NodeId],
    /// The outputs of every stage outside of the chain that one of it needs.
    pub(super) outputs: OutputsByNode,
}

/// A stage that a worker ran.
pub(super) struct RanElsewhere {
    pub(super) resolved: ResolvedStage,
    pub(super) record: Record,
    /// The worker and its engine, or the builders that agree.
    pub(super) source: String,
    /// Whether the worker ran it for an earlier build.
    pub(super) cached: bool,
    /// Where the time of the action went; it is that of the first stage of a chain.
    pub(super) times: WorkerTimes,
}

/// The stages of a chain that ended well, and the failure of the one after them, if there is one.
pub(super) struct ChainEnd {
    pub(super) ran: Vec<RanElsewhere>,
    pub(super) failed: Option<(NodeId, PipelineError)>,
}

/// A chain as work for a worker.
struct PreparedChain {
    parts: Parts,
    limit: Duration,
    ids: Vec<NodeId>,
    /// The outputs of other stages that it needs.
    needed: Vec<Output>,
    /// The pinned files by their path in the input root, each with the stage that has it.
    pinned: BTreeMap<String, (NodeId, ResolvedInput)>,
}

/// Runs a chain of stages on a worker, or on each of the builders that have to agree. The outputs may be absent from the store afterwards.
pub(super) fn run_elsewhere(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    elsewhere: &Elsewhere,
    chain: StageChain<'_>,
) -> ChainEnd {
    let first = chain.first.id.clone();
    let failed = |error| ChainEnd {
        ran: Vec::new(),
        failed: Some((first.clone(), error)),
    };
    let prepared = match prepare(context, shared, elsewhere, &chain) {
        Ok(prepared) => prepared,
        Err(error) => return failed(error),
    };
    let action = match send(context, shared, elsewhere, &chain, &prepared) {
        Ok(action) => action,
        Err(error) => return failed(error),
    };
    let builders = elsewhere.builders_of(&first);
    let machine = context.project.graph.machine(first.arch);
    let runs: Vec<Result<BuilderRun, PipelineError>> = thread::scope(|scope| {
        let run = |(number, builder): (usize, &Option<String>)| {
            let action = EngineAction {
                platform: properties(machine, builder.as_deref()),
                // Each builder has to run it, whatever another one has.
                salt: builder.iter().flat_map(|name| name.bytes()).collect(),
                ..action.clone()
            };
            let (builder, ids) = (builder.clone(), &prepared.ids);
            scope.spawn(move || {
                let _slot = elsewhere.slots.take();
                let (executed, shown) = execute(context, elsewhere, ids, &action, number == 0)?;
                Ok(BuilderRun {
                    builder,
                    executed,
                    shown,
                })
            })
        };
        let runs: Vec<_> = builders.iter().enumerate().map(run).collect();
        runs.into_iter()
            .map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let runs = runs.into_iter().collect::<Result<Vec<_>, _>>();
    match runs.and_then(|runs| different_workers(&first, &runs).map(|()| runs)) {
        Ok(runs) => take(context, shared, elsewhere, chain, &runs),
        Err(error) => failed(error),
    }
}

/// What a builder left.
struct BuilderRun {
    builder: Option<String>,
    executed: Executed,
    /// Whether its lines were shown while they were printed.
    shown: bool,
}

impl BuilderRun {
    /// The builder or worker in messages.
    fn name<'a>(&'a self, server: &'a str) -> &'a str {
        match (&self.builder, self.executed.worker.as_str()) {
            (Some(builder), _) => builder,
            (None, "") => server,
            (None, worker) => worker,
        }
    }

    /// The files that the worker left for the stage with this number.
    fn files(&self, number: usize) -> BTreeMap<String, BlobDigest> {
        let prefix = format!("{number}/");
        let files = self.executed.files.iter();
        files
            .filter_map(|(path, blob)| Some((path.strip_prefix(&prefix)?.to_owned(), *blob)))
            .collect()
    }
}

/// Refuses runs of several builders that were not on as many workers, as far as the engine says.
fn different_workers(id: &NodeId, runs: &[BuilderRun]) -> Result<(), PipelineError> {
    let mut by_worker: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for run in runs {
        let builders = by_worker.entry(&run.executed.worker).or_default();
        builders.extend(run.builder.as_deref());
    }
    match by_worker
        .into_iter()
        .find(|(worker, builders)| worker.is_empty() && !builders.is_empty() || builders.len() > 1)
    {
        None => Ok(()),
        Some((worker, builders)) => Err(PipelineError::OneWorker {
            node: id.clone(),
            builders: builders.join(", "),
            worker: match worker {
                "" => "workers that the engine does not name".to_owned(),
                worker => format!("the worker {}", visible(worker)),
            },
        }),
    }
}

/// Resolves the stages of a chain, with pending digests for what its earlier stages make, and collects their inputs.
fn prepare(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    elsewhere: &Elsewhere,
    chain: &StageChain<'_>,
) -> Result<PreparedChain, PipelineError> {
    let mut prepared = PreparedChain {
        parts: Parts::default(),
        limit: AROUND,
        ids: Vec::new(),
        needed: Vec::new(),
        pinned: BTreeMap::new(),
    };
    let mut outputs = chain.outputs.clone();
    let (mut jobs, mut pending) = (Vec::new(), PendingOutputs::new());
    let mut needed = BTreeSet::new();
    let ids = std::iter::once(&chain.first.id).chain(chain.followers);
    for (number, id) in ids.enumerate() {
        let resolved = match number {
            0 => chain.first.clone(),
            _ => resolve_stage(context.project, context.store, id, &outputs)?,
        };
        let recipe = Recipe::new(context.project, &resolved)?;
        prepared.limit += recipe.limits.wall;
        for output in recipe.outputs_needed() {
            let place = (*output.digest(), matches!(output, Output::Tree { .. }));
            if pending.contains_key(output.digest()) || !needed.insert(place) {
                continue;
            }
            prepared.needed.push(output.clone());
            match shared.blobs_of(&output) {
                Some(blobs) => prepared.parts.remote(blobs),
                None => {
                    prepared.parts.output(context.store, &output)?;
                    elsewhere.costs.sent(&output);
                }
            }
        }
        for blob in recipe.pinned_needed() {
            prepared
                .parts
                .remote(BTreeMap::from([(pinned_path(&blob.sha256), blob)]));
        }
        for input in resolved.inputs.values() {
            for path in pinned_paths(input) {
                prepared.pinned.insert(path, (id.clone(), input.clone()));
            }
        }
        let forwarded = forwarded(context.project.graph.file(id), &resolved)?;
        let job = StageJob::new(&recipe, &resolved, forwarded).ok_or_else(|| PipelineError::Spec {
            node: id.clone(),
            problem: "it has a base image as input, which does not travel to a worker".to_owned(),
        })?;
        jobs.push(job);
        let made = pending_outputs(context.project, id);
        for (name, output) in &made {
            let output_of = PendingOutput {
                stage: number,
                output: name.clone(),
            };
            pending.insert(*output.digest(), output_of);
        }
        outputs.insert(id.clone(), made);
        prepared.ids.push(id.clone());
    }
    let job = WorkerJob::new(jobs, context.options.hermetic, pending, prepared.parts.blobs());
    let text = serde_json::to_vec(&job).map_err(|e| PipelineError::Spec {
        node: chain.first.id.clone(),
        problem: e.to_string(),
    })?;
    prepared.parts.bytes(JOB, text);
    Ok(prepared)
}

/// The outputs of a stage that has not run, with pending digests.
pub(super) fn pending_outputs(project: &Project, id: &NodeId) -> BTreeMap<String, Output> {
    let outputs = project.graph.file(id).outputs_for(id.arch);
    let pending = outputs.map(|(name, output)| {
        let digest = pending_digest(id, name);
        let pending = match output.kind {
            StageOutputKind::Tree => Output::Tree { digest },
            StageOutputKind::File => Output::File { digest, size: 0 },
        };
        (name.clone(), pending)
    });
    pending.collect()
}

/// The paths of the pinned files of an input in the input root.
fn pinned_paths(input: &ResolvedInput) -> Vec<String> {
    match input {
        ResolvedInput::Pinned(file) => vec![pinned_path(&file.sha256)],
        ResolvedInput::Packages(packages, _) => packages.iter().map(|package| pinned_path(&package.sha256)).collect(),
        _ => Vec::new(),
    }
}

/// Sends the inputs that the server lacks; the action that runs the chain.
fn send(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    elsewhere: &Elsewhere,
    chain: &StageChain<'_>,
    prepared: &PreparedChain,
) -> Result<EngineAction, PipelineError> {
    let machine = context.project.graph.machine(chain.first.id.arch);
    let cache = elsewhere.engine.cache();
    let (path, blob) = elsewhere.program(machine)?;
    let mut program = Parts::default();
    program.file(PROGRAM, blob, path);
    let fetch = |path: &str| fetch_pinned(context, shared, prepared, path);
    for parts in [&program, &prepared.parts] {
        let missing = parts.missing(&*cache)?;
        parts.send(&*cache, missing, &fetch)?;
    }
    let all = prepared.parts.blobs().into_iter().chain(program.blobs());
    let files = all.map(|(path, blob)| {
        let executable = path == PROGRAM;
        (path, InputFile { blob, executable })
    });
    Ok(EngineAction {
        arguments: vec![format!("./{PROGRAM}"), "__stage".to_owned(), JOB.to_owned()],
        environment: environment(),
        files: files.collect(),
        output: OUT.to_owned(),
        platform: BTreeMap::new(),
        timeout: prepared.limit,
        queue_timeout: elsewhere.queue_timeout,
        // A result that was given up may be what the engine remembers, too.
        keep: !elsewhere.challenges(),
        accept_cached: shared.accepts() && !shared.distrusts(&chain.first.key) && !elsewhere.challenges(),
        salt: Vec::new(),
    })
}

/// Takes the results of the stages, in their order, until one has none.
fn take(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    elsewhere: &Elsewhere,
    chain: StageChain<'_>,
    runs: &[BuilderRun],
) -> ChainEnd {
    let mut end = ChainEnd {
        ran: Vec::new(),
        failed: None,
    };
    let mut outputs = chain.outputs;
    let ids = std::iter::once(&chain.first.id).chain(chain.followers);
    for (number, id) in ids.enumerate() {
        let resolved = match number {
            0 => Ok(chain.first.clone()),
            _ => resolve_stage(context.project, context.store, id, &outputs),
        };
        let ran = resolved.and_then(|resolved| take_one(context, shared, elsewhere, resolved, number, runs));
        match ran {
            Ok(ran) => {
                outputs.insert(id.clone(), ran.record.outputs.clone());
                end.ran.push(ran);
            }
            Err(error) => {
                end.failed = Some((id.clone(), error));
                break;
            }
        }
    }
    end
}

fn take_one(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    elsewhere: &Elsewhere,
    resolved: ResolvedStage,
    number: usize,
    runs: &[BuilderRun],
) -> Result<RanElsewhere, PipelineError> {
    let results = StageResults::new(elsewhere.engine.cache());
    let mut found = Vec::new();
    for (place, run) in runs.iter().enumerate() {
        let files = run.files(number);
        // An engine that does not pass lines on while they are printed: they come with the log.
        if context.options.verbose && place == 0 && !run.shown {
            let log = results.read_log(&files).unwrap_or_default();
            for line in log.split_inclusive(|byte| *byte == b'\n') {
                let (node, line) = (resolved.id.clone(), visible_log(line.trim_ascii_end()));
                (context.events)(Event::Log { node, line });
            }
        }
        // A program that failed has left no record of the stage that failed, and of those after it.
        if run.executed.exit_code != 0 && !StageResults::has_record(&files) {
            let worker = WorkerEnd {
                name: run.name(results.name()),
                files: &files,
                executed: &run.executed,
            };
            return Err(failed_on_worker(context, &results, &resolved, &worker));
        }
        found.push((run, results.read(&resolved.key, files)?));
    }
    agree(&resolved.id, &found, results.name())?;
    let (run, found) = found.swap_remove(0);
    let source = match (elsewhere.challenges(), run.executed.worker.as_str()) {
        (true, _) => {
            let builders: Vec<String> = runs.iter().filter_map(|run| run.builder.clone()).collect();
            agreed_source(&builders, results.name())
        }
        (false, "") => results.name().to_owned(),
        (false, worker) => format!("{worker} of {}", results.name()),
    };
    let record = shared::accept(context, shared, &resolved, found, &source)?;
    Ok(RanElsewhere {
        resolved,
        record,
        source,
        cached: run.executed.cached,
        times: match number {
            0 => WorkerTimes::new(&run.executed),
            _ => WorkerTimes::default(),
        },
    })
}

/// Compares the outputs of all builders with each other.
fn agree(id: &NodeId, found: &[(&BuilderRun, FoundResult)], server: &str) -> Result<(), PipelineError> {
    let outputs: Vec<(&str, &BTreeMap<String, Output>)> = found
        .iter()
        .map(|(run, found)| (run.name(server), &found.record.outputs))
        .collect();
    let names: BTreeSet<&String> = outputs.iter().flat_map(|(_, outputs)| outputs.keys()).collect();
    for name in names {
        let mut given = outputs.iter().map(|(_, outputs)| outputs.get(name));
        let first = given.next();
        if given.any(|other| Some(other) != first) {
            let said = outputs.iter().map(|(builder, outputs)| {
                let digest = outputs
                    .get(name)
                    .map_or("no such output".to_owned(), |output| output.digest().to_string());
                format!("\n  {}: {digest}", visible(builder))
            });
            return Err(PipelineError::BuildersDisagree {
                node: id.clone(),
                output: name.clone(),
                said: said.collect(),
            });
        }
    }
    Ok(())
}

/// The object of a pinned file of the input root, fetched into the store.
fn fetch_pinned(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    prepared: &PreparedChain,
    path: &str,
) -> Result<PathBuf, PipelineError> {
    let store = context.store.of_pinned();
    let object = |digest: VerityDigest| Ok(store.object_path(&digest)?);
    match prepared.pinned.get(path) {
        Some((_, ResolvedInput::Pinned(file))) => object(context.pinned(store, file)?),
        Some((id, ResolvedInput::Packages(packages, _))) => {
            // All of them: a place is asked for many files as fast as for one.
            let all: Vec<_> = packages.iter().collect();
            context.packages(store, &id.to_string(), &all)?;
            let found = packages.iter().find(|package| pinned_path(&package.sha256) == path);
            let digest = found.map(|package| store.find_sha256(&package.sha256)).transpose()?;
            object(digest.flatten().ok_or_else(|| PipelineError::NotLocked {
                what: format!("the package {path} that was just fetched"),
            })?)
        }
        _ => Err(shared::lost_file(context, shared, path, &prepared.needed)?),
    }
}

fn execute(
    context: &BuildContext<'_>,
    elsewhere: &Elsewhere,
    ids: &[NodeId],
    action: &EngineAction,
    shown: bool,
) -> Result<(Executed, bool), PipelineError> {
    // The line that is not whole yet, and the stage whose lines arrive.
    let printed = Mutex::new((Vec::new(), &ids[0]));
    let seen = Mutex::new(false);
    let progress = |progress: EngineProgress| {
        if let EngineProgress::Printed(bytes) = progress {
            *lock(&seen) = true;
            let (line, node) = &mut *lock(&printed);
            for byte in bytes {
                match byte {
                    b'\n' => {
                        let whole = std::mem::take(line);
                        let whole = whole.trim_ascii_end();
                        match begun_stage(whole) {
                            Some(begun) => *node = ids.iter().find(|id| id.to_string() == begun).unwrap_or(node),
                            None if context.options.verbose && shown => (context.events)(Event::Log {
                                node: (*node).clone(),
                                line: visible_log(whole),
                            }),
                            None => {}
                        }
                    }
                    byte if line.len() < MAX_LINE => line.push(byte),
                    _ => {}
                }
            }
        }
    };
    let begin = Instant::now();
    let (underway, engine) = (elsewhere.underway(), &elsewhere.engine);
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let executed = underway.run(&names.join(", "), &elsewhere.name(), |cancelled| {
        engine.execute(action, &progress, cancelled)
    });
    let executed = executed.map_err(|error| PipelineError::Remote(Box::new(error)))?;
    if executed.cached && !action.accept_cached {
        let server = elsewhere.name();
        let problem = "it answered with an earlier result, and a run was asked for".to_owned();
        return Err(RemoteError::Execution { server, problem }.into());
    }
    // The wait for a worker is no cost of the action, and an engine that tells no time of the run tells nothing of the rest.
    if !executed.cached && !executed.ran.is_zero() {
        let beside = begin
            .elapsed()
            .saturating_sub(executed.ran)
            .saturating_sub(executed.queued);
        elsewhere.costs.note(beside);
    }
    let printed = *lock(&seen);
    Ok((executed, printed))
}
