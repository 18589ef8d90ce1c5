//! The smallest action: a worker measures its sandbox as `pnb doctor` does, and the client the time around it.

use super::{
    Elsewhere, PipelineError,
    job::{OUT, PROGRAM},
    workers::{environment, properties},
};
use crate::{
    model::{Arch, visible_message},
    remote::{EngineAction, Executed, InputFile, Parts, RemoteError, StageResults},
    sandbox,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// The word after the name of the program.
pub const PROBE: &str = "__probe";
/// File of the layers, below the output directory.
const LAYERS: &str = "layers.json";
/// Most bytes of that file.
const MAX_LAYERS: u64 = 1 << 20;
/// The time that a probe may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A layer of the sandbox on a worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerLayer {
    /// Its name.
    pub name: String,
    /// What the machine offers.
    pub offered: String,
    /// What is missing; `None` when the layer is complete.
    pub problem: Option<String>,
    /// The way out; empty when the layer is complete.
    pub fix: String,
}

/// A worker, and the time that the smallest action took on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbedWorker {
    /// The worker, as the engine names it; empty if it does not.
    pub worker: String,
    /// The properties that were asked for.
    pub properties: BTreeMap<String, String>,
    /// From asking to the answer.
    pub total: Duration,
    /// The wait for a worker, as the engine says; zero if it does not.
    pub queued: Duration,
    /// The run, as the engine says; zero if it does not.
    pub ran: Duration,
    /// The layers of its sandbox.
    pub layers: Vec<WorkerLayer>,
}

/// The worker's half: tries every layer, with the program `helper` as the sandbox helper, and leaves the answers in `dir/out`.
///
/// # Errors
///
/// If they cannot be written.
pub fn write_layers(dir: &Path, helper: &Path) -> Result<(), PipelineError> {
    let layers: Vec<WorkerLayer> = sandbox::probe(helper)
        .into_iter()
        .map(|layer| WorkerLayer {
            name: layer.name.to_owned(),
            offered: layer.offered,
            problem: layer.problem,
            fix: layer.fix,
        })
        .collect();
    let out = dir.join(OUT);
    fs::create_dir_all(&out).map_err(PipelineError::io("make", &out))?;
    let path = out.join(LAYERS);
    let bytes = serde_json::to_vec(&layers).map_err(|e| PipelineError::Job { problem: e.to_string() })?;
    fs::write(&path, bytes).map_err(PipelineError::io("write", &path))
}

impl Elsewhere {
    /// Runs the smallest action on a worker for `arch`. It is another one for another `salt`.
    ///
    /// # Errors
    ///
    /// If the engine does not run it, and if pnb cannot run there.
    pub fn probe(&self, arch: Arch, salt: &[u8]) -> Result<ProbedWorker, RemoteError> {
        let cache = self.engine.cache();
        let mut parts = Parts::default();
        let (path, blob) = self.program(arch)?;
        parts.file(PROGRAM, blob, path);
        let missing = parts.missing(&*cache)?;
        parts.send::<RemoteError>(&*cache, missing, &|path| {
            Err(RemoteError::Result {
                server: cache.name().to_owned(),
                problem: format!("it lost {path}"),
            })
        })?;
        let files = parts
            .blobs()
            .into_iter()
            .map(|(path, blob)| (path, InputFile { blob, executable: true }));
        let action = EngineAction {
            arguments: vec![format!("./{PROGRAM}"), PROBE.to_owned()],
            environment: environment(),
            files: files.collect(),
            output: OUT.to_owned(),
            platform: properties(arch, None),
            timeout: LIMIT,
            queue_timeout: self.queue_timeout,
            accept_cached: false,
            keep: false,
            salt: salt.to_vec(),
        };
        let begin = Instant::now();
        let (engine, underway) = (&self.engine, self.underway());
        let executed = underway.run("the measured action", cache.name(), |cancelled| {
            engine.execute(&action, &|_| {}, cancelled)
        })?;
        let total = begin.elapsed();
        let layers = layers(&StageResults::new(cache), &executed)?;
        Ok(ProbedWorker {
            worker: executed.worker,
            properties: action.platform,
            total,
            queued: executed.queued,
            ran: executed.ran,
            layers,
        })
    }
}

/// The layers that a worker has left. Its words become visible.
fn layers(results: &StageResults, executed: &Executed) -> Result<Vec<WorkerLayer>, RemoteError> {
    let failed = |problem: String| RemoteError::Execution {
        server: results.name().to_owned(),
        problem,
    };
    if executed.exit_code != 0 {
        let said = String::from_utf8_lossy(&executed.stderr);
        let last = visible_message(said.trim_end().lines().last().unwrap_or_default());
        let code = executed.exit_code;
        return Err(failed(format!("pnb ended with exit code {code} on the worker: {last}")));
    }
    let bytes = results.read_extra(&executed.files, LAYERS, MAX_LAYERS)?;
    let layers: Vec<WorkerLayer> = serde_json::from_slice(&bytes)
        .map_err(|e| failed(format!("the worker has not said what its sandbox is ({e})")))?;
    if layers.is_empty() {
        return Err(failed("the worker has named no layer of its sandbox".to_owned()));
    }
    let shown = layers.into_iter().map(|layer| WorkerLayer {
        name: visible_message(&layer.name),
        offered: visible_message(&layer.offered),
        problem: layer.problem.as_deref().map(visible_message),
        fix: visible_message(&layer.fix),
    });
    Ok(shown.collect())
}
