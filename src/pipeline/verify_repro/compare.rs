//! The reference for the second build, and the comparison of stages and artifacts with it.

use super::{
    build::{BuildInStore, Made},
    run::ReproRequest,
};
use crate::{
    graph::closure_of,
    manifest::{MANIFEST_FILE, is_statement},
    model::{NodeId, RelPath, Target},
    pipeline::{PipelineError, Project},
    repro::{self, ArtifactResult, Claim, OutputResult, StageResult, State},
    store::Store,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The reference: the expected results.
pub(super) enum Reference {
    /// A first build on this machine.
    Built(Box<BuildInStore>),
    /// A manifest, which has only digests.
    Claimed(Made),
}

impl Reference {
    /// The results that a manifest claims. The digest of the manifest itself is one of them.
    pub(super) fn claimed(claim: &Claim) -> Self {
        let manifest = claim.manifest();
        let nodes = manifest.stages.iter().map(|stage| {
            let id = NodeId::new(stage.stage.clone(), stage.arch);
            (id, (stage.key, stage.outputs.clone()))
        });
        let target = claim.target();
        let files = manifest
            .artifacts
            .iter()
            .map(|(path, file)| (path.clone(), file.sha256));
        let itself = RelPath::new(MANIFEST_FILE)
            .into_iter()
            .map(|path| (path, *claim.sha256()));
        Self::Claimed(Made {
            nodes: nodes.collect(),
            files: files
                .chain(itself)
                .map(|(path, sha256)| ((target, path), sha256))
                .collect(),
        })
    }

    /// The expected digests.
    pub(super) fn made(&self) -> &Made {
        match self {
            Self::Built(build) => &build.made,
            Self::Claimed(made) => made,
        }
    }

    /// The first build, if there was one.
    pub(super) fn built(&self) -> Option<&BuildInStore> {
        match self {
            Self::Built(build) => Some(build),
            Self::Claimed(_) => None,
        }
    }

    /// The store with the objects of the first build, if there was one.
    pub(super) fn objects(&self) -> Option<&Arc<Store>> {
        self.built().map(|build| &build.store)
    }
}

impl ReproRequest<'_> {
    /// Compares the results of the second build with the expected ones. A manifest claims nothing about the other statements.
    pub(super) fn compare(
        &self,
        reference: &Reference,
        second: &BuildInStore,
    ) -> Result<(Vec<StageResult>, Vec<ArtifactResult>), PipelineError> {
        let expected = reference.made();
        let closure = closure_of(&self.project.graph, self.nodes)?;
        let mut stages = Vec::new();
        // The stages so far that have the same outputs in both builds, or are in one of them only.
        let mut alike: BTreeSet<&NodeId> = BTreeSet::new();
        for id in &closure.order {
            let Some((again, outputs)) = second.made.nodes.get(id) else {
                alike.insert(id);
                continue;
            };
            // A stage that the manifest lacks is needed now. That is a difference, although there is no expected output. An equal
            // key with other outputs means that the divergence begins here; with another key it was inherited.
            let none = BTreeMap::new();
            let (state, first) = match expected.nodes.get(id) {
                None => (State::Different, &none),
                Some((_, first)) if first == outputs => (State::Equal, first),
                Some((key, first)) if key == again => (State::FirstDivergent, first),
                // Natively and under an emulator the key is another one, whatever the inputs are.
                Some((_, first)) if self.on.is_some() && closure.needs[id].iter().all(|need| alike.contains(need)) => {
                    (State::FirstDivergent, first)
                }
                Some((_, first)) => (State::Different, first),
            };
            if state == State::Equal {
                alike.insert(id);
            }
            let both = outputs.iter().filter_map(|(name, second)| {
                Some(OutputResult {
                    name: name.clone(),
                    kind: repro::kind(second),
                    first: *first.get(name)?.digest(),
                    second: *second.digest(),
                })
            });
            stages.push(StageResult {
                node: id.clone(),
                needs: closure.needs[id].clone(),
                state,
                outputs: both.collect(),
            });
        }
        // Files of one side alone are differences too, except for statements that a manifest cannot claim.
        let claimed = reference.built().is_none();
        let made = second.made.files.keys();
        let made = made.filter(|name| !claimed || expected.files.contains_key(*name) || !is_statement(&name.1));
        let names: BTreeSet<&(Target, RelPath)> = expected.files.keys().chain(made).collect();
        // The statements name the architecture of the tools.
        let same_tools = |target: &Target| {
            let tools = |project: &Project| project.graph.build_arch(target.arch);
            self.on.is_none_or(|on| tools(on.project) == tools(self.project))
        };
        let names = names
            .into_iter()
            .filter(|name| same_tools(&name.0) || !is_statement(&name.1));
        let artifacts = names.map(|name| ArtifactResult {
            artifact: name.0,
            file: name.1.clone(),
            first: expected.files.get(name).copied(),
            second: second.made.files.get(name).copied(),
        });
        Ok((stages, artifacts.collect()))
    }
}
