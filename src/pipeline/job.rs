//! A stage as work for another machine: the recipe of a run, with the files that it needs, as one JSON file and the blobs that it names.
//!
//! ```text
//! input root of an action          content
//!   pnb                            this program
//!   job.json                       [`StageJob`]
//!   t/<digest>.dump, .pack         trees, as in a result (`remote::results`)
//!   o/<digest>                     files, and large objects of trees
//!   s/<SHA-256>                    packages and pinned files
//! out/                             what `pnb __stage job.json` leaves
//!   record, log                    the record of the run, and its log
//!   t/…, o/…                       its outputs
//! ```

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
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the format.
const JOB_VERSION: u32 = 1;
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

/// A stage as work for another machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageJob {
    version: u32,
    /// The key, which is the digest of `canonical`.
    pub(super) key: StageKey,
    pub(super) canonical: String,
    pub(super) id: NodeId,
    /// Whether a weaker layer of the worker's sandbox is an error.
    pub(super) hermetic: bool,
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
    /// The files of the input root below `t`, `o` and `s`.
    pub(super) files: BTreeMap<String, BlobDigest>,
}

impl StageJob {
    /// The job of a resolved stage; `None` if it has an input that only the machine of the project has.
    pub(super) fn new(
        recipe: &Recipe<'_>,
        resolved: &ResolvedStage,
        hermetic: bool,
        forwarded: BTreeMap<String, Output>,
        files: BTreeMap<String, BlobDigest>,
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
            version: JOB_VERSION,
            key: resolved.key,
            canonical: resolved.canonical.as_str().to_owned(),
            id: recipe.id.clone(),
            hermetic,
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
            files,
        })
    }

    /// Reads a job, and checks that its key is that of its canonical form and that this program is the one that it is for.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PipelineError> {
        let bad = |problem: String| PipelineError::Job { problem };
        let job: Self = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if job.version != JOB_VERSION {
            return Err(bad(format!(
                "it has version {}, and this pnb reads {JOB_VERSION}",
                job.version
            )));
        }
        let key = StageKey::new(*blake3::hash(job.canonical.as_bytes()).as_bytes());
        if key != job.key {
            return Err(bad(format!(
                "its canonical form has the key {key}, and it names {}",
                job.key
            )));
        }
        let line = |name: &str| {
            let mut lines = job.canonical.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        for (name, own) in [("code.sandbox", CODE_SANDBOX), ("code.writers", CODE_WRITERS)] {
            if let Some(theirs) = line(name).filter(|theirs| *theirs != own) {
                return Err(bad(format!(
                    "it is for a pnb whose {name} is {theirs}; that of this one is {own}"
                )));
            }
        }
        let named = [("stage", job.id.stage.as_str()), ("arch", job.id.arch.as_str())];
        if let Some((name, value)) = named.into_iter().find(|(name, value)| line(name) != Some(value)) {
            return Err(bad(format!("its canonical form has another {name} than {value}")));
        }
        Ok(job)
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
