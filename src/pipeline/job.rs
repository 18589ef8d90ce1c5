//! Stages as work for another machine: the recipes of a chain of stages, with the files that they need, as one JSON file and the blobs
//! that it names.
//!
//! ```text
//! input root of an action          content
//!   pnb                            this program
//!   job.json                       [`WorkerJob`]
//!   t/<digest>.dump, .pack         trees, as in a result (`remote::results`)
//!   o/<digest>                     files, and large objects of trees
//!   s/<SHA-256>                    packages and pinned files
//! out/<n>/                         what `pnb __stage job.json` leaves of the stage with this number, from 0
//!   record, log                    the record of the run, and its log
//!   t/…, o/…                       its outputs
//! ```
//!
//! A stage that reads an output of an earlier one of the same job has a *pending digest* in its place, also in its canonical form. The
//! worker puts the digest of the output there once it is made, and with it the stage gets its key. The client computes the same key from
//! the records that come back.

use super::{
    CODE_SANDBOX, CODE_WRITERS, PipelineError,
    recipe::Recipe,
    resolve::{ResolvedInput, ResolvedStage},
};
use crate::{
    lock::{Package, PinnedFile},
    model::{Arch, Capability, Epoch, NodeId, RelPath, Sha256Digest, StageKey, VerityDigest},
    remote::BlobDigest,
    sandbox::{DeclaredRefusals, Ids, Limits, OutputSpec, Workload},
    store::Output,
    verity,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the format.
const JOB_VERSION: u32 = 2;
/// Most stages of a job.
pub(super) const MAX_STAGES: usize = 16;
/// Name of the program in the input root.
pub(super) const PROGRAM: &str = "pnb";
/// Name of the job in the input root.
pub(super) const JOB: &str = "job.json";
/// Directory that a worker collects.
pub(super) const OUT: &str = "out";

/// An input of a job by digest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum JobInput {
    /// A tree.
    Tree(VerityDigest),
    /// A file of so many bytes.
    File(VerityDigest, u64),
    /// A pinned file: its name, digest and size.
    Pinned(String, Sha256Digest, u64),
    /// Packages, and the suite of their index.
    Packages(Vec<Package>, Option<String>),
}

/// An output of an earlier stage of the same job, which a pending digest stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingOutput {
    /// The number of the stage.
    pub(super) stage: usize,
    /// The name of its output.
    pub(super) output: String,
}

/// The outputs of earlier stages of a job by the digests that stand for them.
pub(super) type PendingOutputs = BTreeMap<VerityDigest, PendingOutput>;

/// A chain of stages as work for another machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkerJob {
    version: u32,
    /// The stages, each after those whose outputs it reads.
    pub(super) stages: Vec<StageJob>,
    /// Whether a weaker layer of the worker's sandbox is an error.
    pub(super) hermetic: bool,
    /// The outputs that pending digests stand for.
    pub(super) pending: PendingOutputs,
    /// The files of the input root below `t`, `o` and `s`.
    pub(super) files: BTreeMap<String, BlobDigest>,
}

/// A stage of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageJob {
    /// The key, which is the digest of `canonical`.
    pub(super) key: StageKey,
    pub(super) canonical: String,
    pub(super) id: NodeId,
    root: Option<VerityDigest>,
    emulator: Option<(VerityDigest, Arch)>,
    inputs: BTreeMap<RelPath, JobInput>,
    workload: Workload,
    env: BTreeMap<String, String>,
    epoch: Epoch,
    ids: Ids,
    capabilities: Vec<Capability>,
    limits: Limits,
    outputs: Vec<OutputSpec>,
    dev_in: Vec<RelPath>,
    refused: DeclaredRefusals,
    /// The outputs that pass an input on.
    pub(super) forwarded: BTreeMap<String, Output>,
}

fn bad(problem: String) -> PipelineError {
    PipelineError::Job { problem }
}

/// The digest that stands for an output which is not made yet.
pub(super) fn pending_digest(id: &NodeId, output: &str) -> VerityDigest {
    verity::digest_bytes(format!("pnb pending output\n{id}\n{output}\n").as_bytes())
}

impl WorkerJob {
    /// The job of these stages.
    pub(super) fn new(
        stages: Vec<StageJob>,
        hermetic: bool,
        pending: PendingOutputs,
        files: BTreeMap<String, BlobDigest>,
    ) -> Self {
        Self {
            version: JOB_VERSION,
            stages,
            hermetic,
            pending,
            files,
        }
    }

    /// Reads a job, and checks that its stages are for this program.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PipelineError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let version = serde_json::from_slice::<Versioned>(bytes).map_err(|e| bad(e.to_string()))?;
        let version = version.version;
        if version != JOB_VERSION {
            return Err(bad(format!(
                "it has version {version}, and this pnb reads {JOB_VERSION}"
            )));
        }
        let job: Self = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if !(1..=MAX_STAGES).contains(&job.stages.len()) {
            return Err(bad(format!(
                "it has {} stages, and 1 to {MAX_STAGES} are wanted",
                job.stages.len()
            )));
        }
        for stage in &job.stages {
            stage.check()?;
        }
        Ok(job)
    }
}

impl StageJob {
    /// The job of a resolved stage; `None` if it has an input that only the machine of the project has.
    pub(super) fn new(
        recipe: &Recipe<'_>,
        resolved: &ResolvedStage,
        forwarded: BTreeMap<String, Output>,
    ) -> Option<Self> {
        let input = |input: &ResolvedInput| {
            Some(match input {
                ResolvedInput::Tree(digest) => JobInput::Tree(*digest),
                ResolvedInput::File(digest, size) => JobInput::File(*digest, *size),
                ResolvedInput::Pinned(file) => JobInput::Pinned(file.name.clone(), file.sha256, file.size),
                ResolvedInput::Packages(packages, index) => JobInput::Packages(packages.clone(), index.clone()),
                ResolvedInput::Base(_) => return None,
            })
        };
        let inputs = recipe.inputs.iter();
        Some(Self {
            key: resolved.key,
            canonical: resolved.canonical.as_str().to_owned(),
            id: recipe.id.clone(),
            root: recipe.root,
            emulator: recipe.emulator,
            inputs: inputs
                .map(|(path, found)| Some((path.clone(), input(found)?)))
                .collect::<Option<_>>()?,
            workload: recipe.workload.clone(),
            env: recipe.env.clone(),
            epoch: recipe.epoch,
            ids: recipe.ids,
            capabilities: recipe.capabilities.iter().copied().collect(),
            limits: recipe.limits.clone(),
            outputs: recipe.outputs.clone(),
            dev_in: recipe.dev_in.clone(),
            refused: recipe.refused.clone(),
            forwarded,
        })
    }

    /// Checks that the key is that of the canonical form, and that the stage is for a pnb with this one's code.
    fn check(&self) -> Result<(), PipelineError> {
        let key = key_of(&self.canonical);
        if key != self.key {
            return Err(bad(format!(
                "its canonical form has the key {key}, and it names {}",
                self.key
            )));
        }
        let line = |name: &str| {
            let mut lines = self.canonical.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        for (name, own) in [("code.sandbox", CODE_SANDBOX), ("code.writers", CODE_WRITERS)] {
            if let Some(theirs) = line(name).filter(|theirs| *theirs != own) {
                return Err(bad(format!(
                    "it is for a pnb whose {name} is {theirs}; that of this one is {own}"
                )));
            }
        }
        let named = [("stage", self.id.stage.as_str()), ("arch", self.id.arch.as_str())];
        match named.into_iter().find(|(name, value)| line(name) != Some(value)) {
            Some((name, value)) => Err(bad(format!("its canonical form has another {name} than {value}"))),
            None => Ok(()),
        }
    }

    /// Puts the outputs `made` in the place of the pending digests, and computes the key anew.
    ///
    /// # Errors
    ///
    /// If the stage reads an output as a tree that is a file, or the other way round.
    pub(super) fn settle(&mut self, made: &BTreeMap<VerityDigest, Output>) -> Result<(), PipelineError> {
        let id = self.id.clone();
        let other = || bad(format!("{id} reads an output as another kind than it is"));
        let tree = |digest: &mut VerityDigest| match made.get(digest) {
            None => Ok(()),
            Some(Output::Tree { digest: found }) => {
                *digest = *found;
                Ok(())
            }
            Some(Output::File { .. }) => Err(other()),
        };
        let file = |digest: &mut VerityDigest, size: &mut u64| match made.get(digest) {
            None => Ok(()),
            Some(Output::File { digest: found, size: n }) => {
                (*digest, *size) = (*found, *n);
                Ok(())
            }
            Some(Output::Tree { .. }) => Err(other()),
        };
        self.root.iter_mut().try_for_each(tree)?;
        self.emulator.iter_mut().try_for_each(|(digest, _)| tree(digest))?;
        for input in self.inputs.values_mut() {
            match input {
                JobInput::Tree(digest) => tree(digest)?,
                JobInput::File(digest, size) => file(digest, size)?,
                JobInput::Pinned(..) | JobInput::Packages(..) => {}
            }
        }
        for output in self.forwarded.values_mut() {
            match output {
                Output::Tree { digest } => tree(digest)?,
                Output::File { digest, size } => file(digest, size)?,
            }
        }
        for (pending, output) in made {
            let digest = output.digest().to_string();
            self.canonical = self.canonical.replace(&pending.to_string(), &digest);
        }
        self.key = key_of(&self.canonical);
        Ok(())
    }

    /// The inputs, as a recipe has them.
    pub(super) fn resolved_inputs(&self) -> BTreeMap<RelPath, ResolvedInput> {
        let resolved = |input: &JobInput| match input.clone() {
            JobInput::Tree(digest) => ResolvedInput::Tree(digest),
            JobInput::File(digest, size) => ResolvedInput::File(digest, size),
            JobInput::Pinned(name, sha256, size) => ResolvedInput::Pinned(PinnedFile {
                name,
                arch: None,
                path: None,
                url: None,
                redirects: Vec::new(),
                size,
                sha256,
            }),
            JobInput::Packages(packages, index) => ResolvedInput::Packages(packages, index),
        };
        self.inputs
            .iter()
            .map(|(path, input)| (path.clone(), resolved(input)))
            .collect()
    }

    /// The recipe, with `inputs` of [`StageJob::resolved_inputs`].
    pub(super) fn recipe<'a>(&'a self, inputs: &'a BTreeMap<RelPath, ResolvedInput>) -> Recipe<'a> {
        Recipe {
            id: &self.id,
            root: self.root,
            emulator: self.emulator,
            inputs: inputs.iter().map(|(path, input)| (path.clone(), input)).collect(),
            workload: self.workload.clone(),
            env: self.env.clone(),
            epoch: self.epoch,
            ids: self.ids,
            capabilities: self.capabilities.iter().copied().collect(),
            limits: self.limits.clone(),
            outputs: self.outputs.clone(),
            dev_in: self.dev_in.clone(),
            refused: self.refused.clone(),
        }
    }
}

/// The key of a canonical form.
fn key_of(canonical: &str) -> StageKey {
    StageKey::new(*blake3::hash(canonical.as_bytes()).as_bytes())
}
