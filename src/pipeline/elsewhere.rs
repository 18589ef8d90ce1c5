//! The client's half of a stage that runs on a worker of a Remote Execution engine.
//!
//! The stage's recipe, its inputs and this program become an action; the record and the outputs that the worker leaves are held against the
//! same rules as a result of a cache, and stay on the server until something here reads them.

use super::{
    BuildContext, Event, PipelineError,
    job::{JOB, OUT, PROGRAM, StageJob},
    place::WorkerTimes,
    placement::InputFiles,
    recipe::Recipe,
    resolve::{ResolvedInput, ResolvedStage},
    run::forwarded,
    shared::{self, SharedResults},
    stage_failure::failed_on_worker,
    underway::Underway,
    worker::pinned_path,
};
use crate::{
    model::{Arch, VerityDigest, lock, visible_log},
    remote::{
        BlobDigest, EngineAction, EngineProgress, Executed, InputFile, Parts, RemoteEngine, RemoteError, StageResults,
    },
    store::Record,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Property of a worker: its processor, with Bazel's customary names.
const ISA: &str = "ISA";
/// Property of a worker: its kernel.
const OS_FAMILY: &str = "OSFamily";
/// Property of a worker that its operator has checked with `pnb doctor`.
const SANDBOX: &str = "pnb-sandbox";
/// Longest line of a worker that is shown, in bytes.
const MAX_LINE: usize = 4096;
/// Time that a worker has beyond the limit of a stage: for its inputs, and to leave the outputs.
const AROUND: Duration = Duration::from_secs(300);

/// An engine, and how stages are given to it.
#[derive(Debug)]
pub struct Elsewhere {
    engine: Arc<dyn RemoteEngine>,
    /// Most actions at once.
    pub(super) jobs: usize,
    /// The time that an action may wait for a worker.
    pub queue_timeout: Duration,
    slots: Slots,
    /// The actions that the engine has at the moment.
    underway: Arc<Underway>,
    /// The program that a worker runs: this pnb, for this machine's architecture.
    program: PathBuf,
    /// The blob of the program, once it is known.
    blob: Mutex<Option<BlobDigest>>,
}

impl Elsewhere {
    /// The engine `engine`, whose workers run `program`.
    pub fn new(engine: Arc<dyn RemoteEngine>, program: PathBuf, jobs: usize, queue_timeout: Duration) -> Self {
        Self {
            engine,
            jobs,
            queue_timeout,
            slots: Slots::new(jobs),
            underway: Arc::default(),
            program,
            blob: Mutex::new(None),
        }
    }

    /// The engine as messages name it.
    pub fn name(&self) -> String {
        self.engine.cache().name().to_owned()
    }

    /// The actions that the engine has at the moment.
    pub fn underway(&self) -> Arc<Underway> {
        Arc::clone(&self.underway)
    }

    pub(super) fn engine(&self) -> &dyn RemoteEngine {
        &*self.engine
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn program_blob(&self) -> Result<BlobDigest, RemoteError> {
        let mut known = lock(&self.blob);
        if let Some(blob) = *known {
            return Ok(blob);
        }
        let local = |source| RemoteError::Local {
            doing: "read the program of pnb".to_owned(),
            source,
        };
        let mut both = crate::verity::Both::new();
        io::copy(&mut File::open(&self.program).map_err(local)?, &mut both).map_err(local)?;
        let digests = both.finish();
        let blob = BlobDigest {
            sha256: digests.sha256,
            size: digests.size,
        };
        Ok(*known.insert(blob))
    }
}

/// Whether a stage can run on a worker: a base image does not travel.
pub(super) fn can_travel(resolved: &ResolvedStage) -> bool {
    !resolved
        .inputs
        .values()
        .any(|input| matches!(input, ResolvedInput::Base(_)))
}

/// A stage that a worker ran.
pub(super) struct RanElsewhere {
    pub(super) record: Record,
    /// The worker and its engine.
    pub(super) source: String,
    /// Whether the worker ran it for an earlier build.
    pub(super) cached: bool,
    /// Where the time went.
    pub(super) times: WorkerTimes,
}

/// Places for work, of which only so many are taken at once.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    changed: Condvar,
}

/// A place that is taken until this is dropped.
pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(count.max(1)),
            changed: Condvar::new(),
        }
    }

    /// Waits for a place.
    pub(super) fn take(&self) -> Slot<'_> {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.changed.notify_one();
    }
}

/// Runs a stage on a worker. The outputs may be absent from the store afterwards.
pub(super) fn run_elsewhere(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    elsewhere: &Elsewhere,
    resolved: &ResolvedStage,
) -> Result<RanElsewhere, PipelineError> {
    let _slot = elsewhere.slots.take();
    let id = &resolved.id;
    let recipe = Recipe::new(context.project, resolved)?;
    let limit = recipe.limits.wall;
    let mut parts = inputs(context, shared, &recipe)?;
    let hermetic = context.options.hermetic;
    let forwarded = forwarded(context.project.graph.file(id), resolved)?;
    let job =
        StageJob::new(&recipe, resolved, hermetic, forwarded, parts.blobs()).ok_or_else(|| PipelineError::Spec {
            node: id.clone(),
            problem: "it has a base image as input, which does not travel to a worker".to_owned(),
        })?;
    let cache = elsewhere.engine.cache();
    let text = serde_json::to_vec(&job).map_err(|e| PipelineError::Spec {
        node: id.clone(),
        problem: e.to_string(),
    })?;
    parts.bytes(JOB, text);
    parts.file(PROGRAM, elsewhere.program_blob()?, elsewhere.program.clone());
    let fetch = |path: &str| fetch_pinned(context, shared, &recipe, path);
    let missing = parts.missing(&*cache)?;
    parts.send(&*cache, missing, &fetch)?;
    let files = parts.blobs().into_iter().map(|(path, blob)| {
        let executable = path == PROGRAM;
        (path, InputFile { blob, executable })
    });
    let action = EngineAction {
        arguments: vec![format!("./{PROGRAM}"), "__stage".to_owned(), JOB.to_owned()],
        environment: environment(),
        files: files.collect(),
        output: OUT.to_owned(),
        platform: properties(context.project.graph.build_arch()),
        timeout: limit + AROUND,
        queue_timeout: elsewhere.queue_timeout,
        // A result that was given up may be what the engine remembers, too.
        accept_cached: shared.accepts() && !shared.distrusts(&resolved.key),
        salt: Vec::new(),
    };
    let executed = execute(context, elsewhere, resolved, &action)?;
    let results = StageResults::new(cache);
    let (times, cached) = (WorkerTimes::new(&executed), executed.cached);
    if executed.exit_code != 0 {
        return Err(failed_on_worker(context, &results, resolved, &executed));
    }
    let found = results.read(&resolved.key, executed.files)?;
    let source = match executed.worker.as_str() {
        "" => results.name().to_owned(),
        worker => format!("{worker} of {}", results.name()),
    };
    let record = shared::accept(context, shared, resolved, found, &source)?;
    Ok(RanElsewhere {
        record,
        source,
        cached,
        times,
    })
}

/// The files of the input root: of outputs that only the server has, the blobs that it named; of all others, those of the store.
fn inputs(context: &BuildContext<'_>, shared: &SharedResults, recipe: &Recipe<'_>) -> Result<Parts, PipelineError> {
    let mut parts = Parts::default();
    for blob in recipe.pinned_needed() {
        parts.remote(BTreeMap::from([(pinned_path(&blob.sha256), blob)]));
    }
    for output in recipe.outputs_needed() {
        match shared.blobs_of(&output) {
            Some(blobs) => parts.remote(blobs),
            None => parts.output(context.store, &output)?,
        }
    }
    Ok(parts)
}

/// The object of a pinned file of the input root, fetched into the store.
fn fetch_pinned(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    recipe: &Recipe<'_>,
    path: &str,
) -> Result<PathBuf, PipelineError> {
    let store = context.store.of_pinned();
    let object = |digest: VerityDigest| Ok(store.object_path(&digest)?);
    for input in recipe.inputs.values() {
        match input {
            ResolvedInput::Pinned(file) if pinned_path(&file.sha256) == path => {
                return object(context.pinned(store, file)?);
            }
            ResolvedInput::Packages(packages, _) => {
                let found = packages.iter().find(|package| pinned_path(&package.sha256) == path);
                if let Some(package) = found {
                    // All of them: a place is asked for many files as fast as for one.
                    let all: Vec<_> = packages.iter().collect();
                    context.packages(store, &recipe.id.to_string(), &all)?;
                    let digest = store.find_sha256(&package.sha256)?;
                    return object(digest.ok_or_else(|| PipelineError::NotLocked {
                        what: format!("the package {} that was just fetched", package.name),
                    })?);
                }
            }
            _ => {}
        }
    }
    Err(shared::lost_file(context, shared, path)?)
}

/// The environment of pnb on a worker.
pub(super) fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())])
}

/// The properties of a worker that runs programs of `arch`.
pub(super) fn properties(arch: Arch) -> BTreeMap<String, String> {
    let isa = match arch {
        Arch::Amd64 => "x86-64",
        Arch::Arm64 => "aarch64",
    };
    let properties = [(ISA, isa), (OS_FAMILY, "linux"), (SANDBOX, "full")];
    properties
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn execute(
    context: &BuildContext<'_>,
    elsewhere: &Elsewhere,
    resolved: &ResolvedStage,
    action: &EngineAction,
) -> Result<Executed, PipelineError> {
    let line = Mutex::new(Vec::new());
    let progress = |progress: EngineProgress| {
        if let EngineProgress::Printed(bytes) = progress {
            let mut line = lock(&line);
            for byte in bytes {
                match byte {
                    b'\n' => {
                        let text = visible_log(std::mem::take(&mut *line).trim_ascii_end());
                        if context.options.verbose {
                            (context.events)(Event::Log {
                                node: resolved.id.clone(),
                                line: text,
                            });
                        }
                    }
                    byte if line.len() < MAX_LINE => line.push(byte),
                    _ => {}
                }
            }
        }
    };
    let (underway, engine) = (&elsewhere.underway, &elsewhere.engine);
    let executed = underway.run(&resolved.id.to_string(), &elsewhere.name(), |cancelled| {
        engine.execute(action, &progress, cancelled)
    });
    executed.map_err(|error| PipelineError::Remote(Box::new(error)))
}
