//! The facts about an artifact for its statements, from the project, the graph and the records of its stages.

use super::{
    BuildContext, BuildOutcome, CODE_SANDBOX, CODE_WRITERS, PipelineError, Project,
    base::base_of,
    package_facts::PackageFacts,
    project::{AGENT, below_stages},
    resolve::{ResolvedInput, STAGE_DIRECTORY, digest_of},
    shared::ensure,
};
use crate::{
    graph::{DeclaredVariant, InputSource, StageArch, StageWorkload},
    image::{
        oci::{LayoutReader, OciImage},
        zstd,
    },
    manifest::{
        Agent, AgentKind, BaseImageFact, CodeDigests, Facts, InputFact, Origin, PrefixedSha256, RecordedWorkload, Role,
        StageFact,
    },
    model::{Arch, ArtifactForm, Node, NodeId, RelPath, Sha256Digest, Target, VerityDigest, chain},
    verity::Digests,
    writers,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

/// Directory of the diagnostic agents in the project.
const DIAGNOSTIC: &str = "agent/diagnostic";
/// The stages and outputs whose contents the manifest states.
const ROOT_STAGE: (&str, &str) = ("root", "root-digest");
const KERNEL_STAGE: (&str, &str) = ("kernel", "version");

/// The artifact that is described.
pub(super) struct Described<'a> {
    pub(super) context: &'a BuildContext<'a>,
    pub(super) outcome: &'a BuildOutcome,
    pub(super) target: Target,
    /// Whether uncommitted stage files were allowed.
    pub(super) allow_dirty: bool,
}

impl<'a> Described<'a> {
    /// The facts about the artifact that `stages` made; `artifacts` has the digests of its files.
    pub(super) fn facts(
        &self,
        stages: &[NodeId],
        artifacts: BTreeMap<RelPath, Digests>,
    ) -> Result<Facts<'a>, PipelineError> {
        let project = self.context.project;
        let declared = self.declared()?;
        // The root digest is read from the output of its stage, not computed again: the manifest states the value that was built in.
        let root = self.line_of(ROOT_STAGE)?;
        let root: VerityDigest = root
            .parse()
            .map_err(|e| PipelineError::describe(format!("the root digest: {e}")))?;
        let agent = project
            .lock
            .file(AGENT, self.target.arch)
            .ok_or_else(|| PipelineError::NotLocked {
                what: format!("the agent for {}", self.target.arch),
            })?;
        // An agent of the repository is a diagnostic one; the manifest must not present it as a pinned release.
        let shipped = RelPath::new(DIAGNOSTIC).map_err(|e| PipelineError::describe(e.to_string()))?;
        let diagnostic = agent.path.as_ref().is_some_and(|p| p.is_within(&shipped));
        let package_sets = package_sets(project, self.outcome, stages)?;
        let (mut pinned_files, mut stage_facts, mut whole) = (BTreeMap::new(), Vec::new(), true);
        for id in stages {
            let done = self.outcome.done(id)?;
            // One weaker sandbox makes the artifact non-hermetic, although the stage may have run in an earlier build.
            whole &= done.record.weaker.is_empty();
            let file = project.graph.file(id);
            // Only inputs that a stage really had are stated: the lock may pin more than this artifact needs.
            let mut inputs = BTreeMap::new();
            for (name, resolved) in &done.resolved.inputs {
                let origin = origin(project, id, name)?;
                if let Origin::Lock(name) = &origin {
                    pinned_files.insert(name.clone(), role_of(project, id));
                }
                let digest = digest_of(resolved)?;
                inputs.insert(name.trim_start_matches('@').to_owned(), InputFact { origin, digest });
            }
            let root = match (&file.root, done.resolved.root) {
                (Some(stage), Some(digest)) => Some((project.graph.node(stage.get_ref(), id.arch)?, digest)),
                _ => None,
            };
            let emulator = match (project.graph.emulator(id), done.resolved.emulator) {
                (Some((stage, _)), Some(digest)) => Some((project.graph.node(stage, id.arch)?, digest)),
                _ => None,
            };
            stage_facts.push(StageFact {
                node: id.clone(),
                key: done.resolved.key,
                workload: match &file.workload {
                    StageWorkload::Command { argv, .. } => RecordedWorkload::Command(argv.clone()),
                    StageWorkload::Writer(name) => RecordedWorkload::Writer(name.get_ref().clone()),
                },
                env: file.env.clone(),
                policy: done.record.policy.clone(),
                root,
                emulator,
                inputs,
                outputs: done.record.outputs.clone(),
            });
        }
        // The platform is stated only if a stage had it as an input: otherwise the artifact does not contain it.
        let platform = stage_facts
            .iter()
            .flat_map(|stage| stage.inputs.values())
            .any(|input| input.origin == Origin::Platform)
            .then(|| project.platform.fact());
        let modules = project.modules.fact().filter(|_| {
            let mut inputs = stage_facts.iter().flat_map(|stage| stage.inputs.values());
            inputs.any(|input| input.origin == Origin::ModuleTrust)
        });
        let has_base = stage_facts
            .iter()
            .flat_map(|stage| stage.inputs.values())
            .any(|input| input.origin == Origin::Base);
        let base_image = has_base.then(|| base_fact(project, self.target.arch)).transpose()?;
        // An option is stated only if it decided about an input.
        let decided = stages
            .iter()
            .flat_map(|id| &project.graph.file(id).options)
            .collect::<BTreeSet<_>>();
        let options = project
            .options
            .iter()
            .filter(|option| decided.contains(option))
            .copied()
            .collect();
        let said = PackageFacts::new(self.context, self.outcome, self.target.arch, stages)?.all()?;
        // A build is hermetic only if its stage files can be found again by the commit, or the user waived that.
        let committed = project.revision.sha.is_some() && project.revision.dirty.is_empty();
        Ok(Facts {
            arch: self.target.arch,
            variant: self.target.variant,
            form: declared.form,
            image: declared.image.clone(),
            lock: &project.lock,
            lock_sha256: project.lock_sha256,
            git_sha: project.revision.sha.as_ref().map(ToString::to_string),
            dirty: !project.revision.dirty.is_empty(),
            allow_dirty: self.allow_dirty,
            hermetic: whole && (committed || self.allow_dirty),
            kernel_version: self.line_of(KERNEL_STAGE)?,
            kernel_command_line: command_line(project, self.target)?,
            root,
            oci_digest: self.image_digest()?,
            base_image,
            platform,
            modules,
            options,
            operating_system: said.operating_system,
            packages: said.packages,
            agent: Agent {
                kind: if diagnostic {
                    AgentKind::Diagnostic
                } else {
                    AgentKind::Pinned
                },
                name: agent.name.clone(),
                sha256: agent.sha256,
            },
            pnb_version: env!("CARGO_PKG_VERSION").to_owned(),
            code: CodeDigests {
                sandbox: CODE_SANDBOX.to_owned(),
                writers: CODE_WRITERS.to_owned(),
            },
            zstd_version: zstd::library_version().to_owned(),
            build_arch: project.graph.build_arch(self.target.arch),
            package_sets,
            pinned_files,
            stages: stage_facts,
            artifacts,
        })
    }

    /// The declaration of the variant in its stage file.
    fn declared(&self) -> Result<&'a DeclaredVariant, PipelineError> {
        let declared = self.context.project.graph.file(&self.target.node()).variant.as_ref();
        declared.ok_or(PipelineError::NoVariant { target: self.target })
    }

    /// The digest of the OCI image, if the artifact is one.
    fn image_digest(&self) -> Result<Option<Sha256Digest>, PipelineError> {
        if self.declared()?.form != ArtifactForm::OciImage {
            return Ok(None);
        }
        let output = ArtifactForm::LAYOUT_DIRECTORY;
        let id = self.target.node();
        let failed = |problem: String| PipelineError::describe(format!("the image of {id}: {problem}"));
        let outputs = &self.outcome.done(&id)?.record.outputs;
        let found = outputs
            .get(output)
            .ok_or_else(|| failed(format!("it has no output {output:?}")))?;
        let store = self.context.store;
        let tree = store.tree(found.digest())?;
        let open = |path: &RelPath| -> io::Result<Box<dyn Read>> {
            match tree.get(path).map(|entry| &entry.node) {
                Some(Node::File { digest, .. }) => Ok(Box::new(
                    store.open_object(digest).map_err(|e| io::Error::other(chain(&e)))?,
                )),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        };
        let layout = LayoutReader::new(&open);
        let manifests = layout.manifests().map_err(|e| failed(chain(&e)))?;
        let [descriptor] = &manifests[..] else {
            return Err(failed(format!("the layout has {} images", manifests.len())));
        };
        let image = OciImage::read(&layout, descriptor).map_err(|e| failed(chain(&e)))?;
        Ok(Some(image.manifest))
    }

    /// The content of a small file that a stage made, as one line of text.
    fn line_of(&self, (stage, output): (&str, &str)) -> Result<String, PipelineError> {
        let id = self.context.project.graph.node(stage, self.target.arch)?;
        let missing = || PipelineError::describe(format!("{id} has no output {output:?}"));
        let outputs = &self.outcome.done(&id)?.record.outputs;
        let found = outputs.get(output).ok_or_else(missing)?;
        ensure(self.context, found)?;
        let bytes = self.context.store.read_object(found.digest())?;
        let text = String::from_utf8(bytes).map_err(|e| PipelineError::describe(format!("{id}: {e}")))?;
        Ok(text.trim_end().to_owned())
    }
}

/// The role of the inputs of a node.
fn role_of(project: &Project, id: &NodeId) -> Role {
    match project.graph.file(id).arch {
        StageArch::Build | StageArch::Host => Role::Tool,
        StageArch::Target => Role::Target,
    }
}

/// The package sets that the stages of an artifact had as inputs. The lock may have more.
pub(super) fn package_sets(
    project: &Project,
    outcome: &BuildOutcome,
    stages: &[NodeId],
) -> Result<BTreeMap<String, Role>, PipelineError> {
    let mut sets = BTreeMap::new();
    for id in stages {
        let mut inputs = outcome.done(id)?.resolved.inputs.values();
        if inputs.any(|input| matches!(input, ResolvedInput::Packages(..))) {
            sets.insert(id.to_string(), role_of(project, id));
        }
    }
    Ok(sets)
}

/// The default kernel command line of an artifact, from the same files as that of the disk writers.
pub fn command_line(project: &Project, target: Target) -> Result<String, PipelineError> {
    let line = writers::command_line(&project.tree, target.variant, target.arch);
    line.map_err(|error| PipelineError::describe(format!("the kernel command line: {}", chain(&error))))
}

/// The base image, as its manifest for `arch` describes it.
fn base_fact(project: &Project, arch: Arch) -> Result<BaseImageFact, PipelineError> {
    let base = base_of(project)?;
    let platform = base.platform(arch)?;
    let digest = base.digest().ok_or(PipelineError::NoBase)?;
    let name = base.image.split('@').next().unwrap_or_default();
    Ok(BaseImageFact {
        name: name.to_owned(),
        digest: PrefixedSha256(digest),
        manifest: PrefixedSha256(platform.manifest),
        layers: platform
            .layers
            .iter()
            .map(|layer| PrefixedSha256(layer.sha256))
            .collect(),
    })
}

/// The origin of an input of a node.
fn origin(project: &Project, id: &NodeId, name: &str) -> Result<Origin, PipelineError> {
    if name == STAGE_DIRECTORY {
        return Ok(Origin::Repository(below_stages(&id.stage)?));
    }
    let inputs = &project.graph.file(id).inputs;
    let found = inputs.iter().find(|(n, _)| n.get_ref() == name);
    let (_, input) = found.ok_or_else(|| PipelineError::describe(format!("{id} has no input {name:?}")))?;
    Ok(match &input.source {
        InputSource::Stage { stage, output } => {
            let from = project.graph.node(stage.get_ref(), id.arch)?;
            Origin::Stage {
                stage: from.stage,
                arch: from.arch,
                output: output.get_ref().clone(),
            }
        }
        InputSource::Files(path) => Origin::Repository(path.get_ref().clone()),
        InputSource::Lock(name) => Origin::Lock(name.get_ref().clone()),
        InputSource::Platform => Origin::Platform,
        InputSource::ModuleTrust => Origin::ModuleTrust,
        InputSource::Packages => Origin::Packages(id.to_string()),
        InputSource::Base => Origin::Base,
    })
}
