//! An engine as a build uses it: its workers, the programs that they run, and how many actions it gets at once.

use super::{
    Project, Underway,
    cost::{ActionCosts, StagePlace},
    resolve::{ResolvedInput, ResolvedStage},
};
use crate::{
    graph::{InputSource, StageFile},
    model::{Arch, NodeId, lock},
    remote::{BlobDigest, RemoteEngine, RemoteError},
    verity,
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
/// Property of a worker: its name among those that are asked for by name.
const BUILDER: &str = "pnb-builder";

/// How stages are given to an engine.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The program of pnb for the workers of each architecture.
    pub programs: BTreeMap<Arch, PathBuf>,
    /// Most actions at once.
    pub jobs: usize,
    /// The time that an action may wait for a worker.
    pub queue_timeout: Duration,
    /// The place of a stage that could run here as well.
    pub place: StagePlace,
    /// The names of workers that each stage runs on; empty for any one worker.
    pub builders: Vec<String>,
    /// How many of the builders run each stage.
    pub agreeing: usize,
}

/// A program of pnb, and its blob once it is known.
#[derive(Debug)]
struct WorkerProgram {
    path: PathBuf,
    blob: Mutex<Option<BlobDigest>>,
}

/// An engine, and how stages are given to it.
#[derive(Debug)]
pub struct Elsewhere {
    pub(super) engine: Arc<dyn RemoteEngine>,
    pub(super) jobs: usize,
    /// The time that an action may wait for a worker.
    pub queue_timeout: Duration,
    pub(super) slots: Slots,
    /// The actions that the engine has at the moment.
    underway: Arc<Underway>,
    pub(super) costs: ActionCosts,
    pub(super) place: StagePlace,
    programs: BTreeMap<Arch, WorkerProgram>,
    builders: Vec<String>,
    agreeing: usize,
}

impl Elsewhere {
    /// The engine `engine`, with these options.
    pub fn new(engine: Arc<dyn RemoteEngine>, options: WorkerOptions) -> Self {
        let programs = options.programs.into_iter().map(|(arch, path)| {
            let blob = Mutex::new(None);
            (arch, WorkerProgram { path, blob })
        });
        Self {
            engine,
            jobs: options.jobs,
            queue_timeout: options.queue_timeout,
            slots: Slots::new(options.jobs),
            underway: Arc::default(),
            costs: ActionCosts::default(),
            place: options.place,
            programs: programs.collect(),
            agreeing: options.agreeing.min(options.builders.len()),
            builders: options.builders,
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

    /// The builders that each run the stage, or `None` if any one worker does: as many as have to agree, beginning with another one for
    /// another stage.
    pub(super) fn builders_of(&self, id: &NodeId) -> Vec<Option<String>> {
        if self.agreeing == 0 {
            return vec![None];
        }
        let first = blake3::hash(id.to_string().as_bytes()).as_bytes()[0];
        let from_first = self
            .builders
            .iter()
            .cycle()
            .skip(usize::from(first) % self.builders.len());
        from_first.take(self.agreeing).cloned().map(Some).collect()
    }

    /// Whether each stage runs on several builders, whose outputs are compared.
    pub(super) fn challenges(&self) -> bool {
        self.agreeing > 0
    }

    /// The program for workers of `arch`, and its blob.
    pub(super) fn program(&self, arch: Arch) -> Result<(PathBuf, BlobDigest), RemoteError> {
        let local = |source| RemoteError::Local {
            doing: format!("read the program of pnb for {arch}"),
            source,
        };
        let program = self.programs.get(&arch);
        let program = program.ok_or_else(|| local(io::Error::from(io::ErrorKind::NotFound)))?;
        let mut known = lock(&program.blob);
        let blob = match *known {
            Some(blob) => blob,
            None => *known.insert(blob_of(&program.path).map_err(local)?),
        };
        Ok((program.path.clone(), blob))
    }
}

fn blob_of(path: &Path) -> io::Result<BlobDigest> {
    let mut both = verity::Both::new();
    io::copy(&mut File::open(path)?, &mut both)?;
    let digests = both.finish();
    Ok(BlobDigest {
        sha256: digests.sha256,
        size: digests.size,
    })
}

/// The source of a record that these builders of `server` agree about.
pub(super) fn agreed_source(builders: &[String], server: &str) -> String {
    format!("{} of {server}, which agree", builders.join(" and "))
}

/// The environment of pnb on a worker.
pub(super) fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())])
}

/// The properties of a worker that runs programs of `arch`, and of the one that is called `builder`.
pub(super) fn properties(arch: Arch, builder: Option<&str>) -> BTreeMap<String, String> {
    let isa = match arch {
        Arch::Amd64 => "x86-64",
        Arch::Arm64 => "aarch64",
    };
    let properties = [(ISA, isa), (OS_FAMILY, "linux"), (SANDBOX, "full")];
    properties
        .into_iter()
        .chain(builder.map(|name| (BUILDER, name)))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Whether a stage can run on a worker: a base image does not travel.
pub(super) fn can_travel(resolved: &ResolvedStage) -> bool {
    !resolved
        .inputs
        .values()
        .any(|input| matches!(input, ResolvedInput::Base(_)))
}

/// The same of a stage whose inputs are not known yet.
pub(super) fn could_travel(project: &Project, id: &NodeId) -> bool {
    let file: &StageFile = project.graph.file(id);
    !file
        .inputs_for(id.arch)
        .any(|(_, input)| matches!(input.source, InputSource::Base))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_asked_for_by_its_properties() {
        let asked = |arch, builder| {
            let properties = properties(arch, builder);
            let each: Vec<String> = properties
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            each.join(" ")
        };
        assert_eq!(asked(Arch::Amd64, None), "ISA=x86-64 OSFamily=linux pnb-sandbox=full");
        assert_eq!(
            asked(Arch::Arm64, Some("rack-2")),
            "ISA=aarch64 OSFamily=linux pnb-builder=rack-2 pnb-sandbox=full"
        );
    }
}
