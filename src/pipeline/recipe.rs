//! The recipe of a run: the workload, the inputs by digest and the outputs, without any fact of this machine.
//!
//! A [`Recipe`] is the same on every host. [`super::placement`] adds the paths: it fetches the inputs, puts each at a path of this
//! machine and gives the [`Spec`](crate::sandbox::Spec) for the sandbox.

use super::{
    PipelineError, Project,
    resolve::{ResolvedInput, ResolvedStage, STAGE_DIRECTORY},
};
use crate::{
    graph::{StageFile, StageIds, StageLimits, StageOutputKind, StageWorkload},
    model::{Arch, Capability, Epoch, NodeId, RelPath, VerityDigest},
    remote::BlobDigest,
    sandbox::{BuiltinCall, DeclaredRefusals, Ids, Limits, OutputKind, OutputSpec, Workload},
    store::Output,
    writers,
};
use std::collections::{BTreeMap, BTreeSet};

/// The variable that tells a stage how many processors it has.
pub(super) const PROCESSORS: &str = "PNB_CPUS";

/// The workload of a stage, its inputs and its outputs.
#[derive(Clone, Debug)]
pub(super) struct Recipe<'a> {
    /// The node.
    pub(super) id: &'a NodeId,
    /// The tree at `/`; `None` for an empty root.
    pub(super) root: Option<VerityDigest>,
    /// The tree with qemu-user and the architecture to emulate, if programs of another architecture are run.
    pub(super) emulator: Option<(VerityDigest, Arch)>,
    /// Inputs by the path at which the stage sees them.
    pub(super) inputs: BTreeMap<RelPath, &'a ResolvedInput>,
    /// The program or writer.
    pub(super) workload: Workload,
    /// Environment variables beside the fixed ones.
    pub(super) env: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`.
    pub(super) epoch: Epoch,
    /// User ids.
    pub(super) ids: Ids,
    /// Capabilities inside the stage's user namespace.
    pub(super) capabilities: BTreeSet<Capability>,
    /// Limits on memory, processes, time and space.
    pub(super) limits: Limits,
    /// The outputs that are taken from `/build`.
    pub(super) outputs: Vec<OutputSpec>,
    /// Directories below `/build` that get a small `dev`.
    pub(super) dev_in: Vec<RelPath>,
    /// The refused system calls that its programs may ignore.
    pub(super) refused: DeclaredRefusals,
}

impl<'a> Recipe<'a> {
    /// The recipe of a resolved stage.
    pub(super) fn new(project: &Project, resolved: &'a ResolvedStage) -> Result<Self, PipelineError> {
        let id = &resolved.id;
        let file = project.graph.file(id);
        let bad = |problem: String| PipelineError::Spec {
            node: id.clone(),
            problem,
        };
        let mut inputs = BTreeMap::new();
        for (name, input) in &resolved.inputs {
            let target = match name.as_str() {
                STAGE_DIRECTORY => RelPath::new("stage"),
                _ => RelPath::new(format!("inputs/{name}")),
            };
            inputs.insert(target.map_err(|e| bad(e.to_string()))?, input);
        }
        let call = |name: &str| {
            let args = writer_arguments(project, file, id.arch, name).map_err(bad)?;
            Ok::<_, PipelineError>(BuiltinCall {
                name: name.to_owned(),
                args,
            })
        };
        let workload = match &file.workload {
            StageWorkload::Command { argv, before } => Workload::Command {
                argv: argv.clone(),
                before: before.as_ref().map(|name| call(name.get_ref())).transpose()?,
            },
            StageWorkload::Writer(name) => Workload::Builtin(call(name.get_ref())?),
        };
        Ok(Self {
            id,
            root: resolved.root,
            emulator: match (resolved.emulator, project.graph.emulator(id)) {
                (Some(digest), Some((_, arch))) => Some((digest, arch)),
                _ => None,
            },
            inputs,
            workload,
            env: environment(project, file, id),
            epoch: project.lock.source_date_epoch,
            ids: match file.sandbox.ids {
                StageIds::Single => Ids::Single,
                StageIds::Range => Ids::Range,
            },
            capabilities: file.sandbox.capabilities.iter().copied().collect(),
            limits: limits(&file.limits),
            outputs: outputs(file, id.arch).map_err(bad)?,
            dev_in: file.sandbox.dev_in.clone(),
            refused: file.sandbox.refused.clone(),
        })
    }
}

impl Recipe<'_> {
    /// The trees and files among the inputs that stages have made, the root and the emulator too.
    pub(super) fn outputs_needed(&self) -> Vec<Output> {
        let trees = self.root.into_iter().chain(self.emulator.map(|(digest, _)| digest));
        let inputs = self.inputs.values().filter_map(|input| match **input {
            ResolvedInput::Tree(digest) => Some(Output::Tree { digest }),
            ResolvedInput::File(digest, size) => Some(Output::File { digest, size }),
            _ => None,
        });
        trees.map(|digest| Output::Tree { digest }).chain(inputs).collect()
    }

    /// The packages and pinned files among the inputs.
    pub(super) fn pinned_needed(&self) -> Vec<BlobDigest> {
        let blobs = self.inputs.values().flat_map(|input| match input {
            ResolvedInput::Pinned(file) => vec![(file.sha256, file.size)],
            ResolvedInput::Packages(packages, _) => {
                packages.iter().map(|package| (package.sha256, package.size)).collect()
            }
            _ => Vec::new(),
        });
        blobs.map(|(sha256, size)| BlobDigest { sha256, size }).collect()
    }
}

/// The context that a writer gets as its argument.
fn writer_arguments(project: &Project, file: &StageFile, arch: Arch, name: &str) -> Result<Vec<u8>, String> {
    let context = writers::Context {
        arch,
        epoch: project.lock.source_date_epoch,
        threads: file.limits.cpus,
        sector_size: file.sector_size,
        compression_level: file.compression_level,
        outputs: file.outputs_for(arch).map(|(name, _)| name.clone()).collect(),
    };
    serde_json::to_vec(&context).map_err(|e| format!("arguments of the writer {name}: {e}"))
}

fn environment(project: &Project, file: &StageFile, id: &NodeId) -> BTreeMap<String, String> {
    let mut env = file.env.clone();
    env.insert("PNB_ARCH".to_owned(), id.arch.to_string());
    env.insert(
        "PNB_BUILD_ARCH".to_owned(),
        project.graph.build_arch(id.arch).to_string(),
    );
    env.insert("PNB_STAGE".to_owned(), id.stage.clone());
    env.insert(PROCESSORS.to_owned(), file.limits.cpus.to_string());
    env
}

fn limits(limits: &StageLimits) -> Limits {
    Limits {
        memory: limits.memory,
        processes: limits.processes,
        wall: limits.wall,
        log_bytes: limits.log,
        build_bytes: limits.build,
        build_inodes: limits.inodes,
        output_bytes: limits.output,
        output_entries: limits.inodes,
        tmp_bytes: Limits::TMP_BYTES,
        output_depth: Limits::OUTPUT_DEPTH,
        cpus: limits.cpus,
    }
}

/// The outputs to take out of the sandbox. Outputs that pass an input on are not among them.
fn outputs(file: &StageFile, arch: Arch) -> Result<Vec<OutputSpec>, String> {
    file.outputs_for(arch)
        .filter(|(_, output)| output.from.is_none())
        .map(|(name, output)| {
            let path = match &output.path {
                Some(path) => path.clone(),
                None => RelPath::new(name).map_err(|e| e.to_string())?,
            };
            Ok(OutputSpec {
                name: name.clone(),
                path,
                kind: match output.kind {
                    StageOutputKind::Tree => OutputKind::Tree,
                    StageOutputKind::File => OutputKind::File,
                },
                allow_setid: output.allow_setid,
                allow_devices: false,
            })
        })
        .collect()
}
