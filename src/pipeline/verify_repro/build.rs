//! A whole build in a store of its own.

use super::run::{ReproRequest, SecondPlace};
use crate::{
    manifest::{MANIFEST_FILE, SUMS_FILE, Sums},
    model::{NodeId, RelPath, Sha256Digest, StageKey, Target},
    pipeline::{BuildContext, BuildOutcome, PipelineError, RunOptions, export, scheduler::build_until_failure},
    store::{Output, SharedStores, Store},
};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

/// The results of a build: the key and outputs of each node, and the digest of every file of every artifact.
pub(super) struct Made {
    pub(super) nodes: BTreeMap<NodeId, (StageKey, BTreeMap<String, Output>)>,
    pub(super) files: BTreeMap<(Target, RelPath), Sha256Digest>,
}

/// A build in a store of its own.
pub(super) struct BuildInStore {
    pub(super) store: Arc<Store>,
    pub(super) outcome: BuildOutcome,
    pub(super) made: Made,
    /// The failed stage and its error, if one failed; the build has no artifacts then.
    pub(super) failed: Option<(NodeId, PipelineError)>,
    /// Digest of each artifact's manifest.
    pub(super) manifests: BTreeMap<Target, Sha256Digest>,
}

impl ReproRequest<'_> {
    /// Builds the requested nodes in a new store at `place`; with `objects`, that store shares the objects of another one. With `on`, workers
    /// run the stages.
    pub(super) fn build_in(
        &self,
        place: &Path,
        objects: Option<Arc<Store>>,
        jobs: usize,
        mut options: RunOptions,
        on: Option<SecondPlace<'_>>,
    ) -> Result<BuildInStore, PipelineError> {
        fs::create_dir_all(place).map_err(PipelineError::io("create", place))?;
        // Pinned files are the same for every build, so they come from the user's store and are not fetched again.
        let shared = SharedStores {
            pinned: Some(Arc::clone(self.store)),
            objects,
        };
        let store = Store::open_ephemeral(&place.join("store"), shared)?;
        options.exported = self.nodes.iter().cloned().collect();
        let context = BuildContext {
            store: &store,
            options: &options,
            project: on.map_or(self.project, |on| on.project),
            shared: on.map(|on| on.shared),
            elsewhere: on.map(|on| on.elsewhere),
            ..self.context()
        };
        let (outcome, failed) = build_until_failure(&context, self.nodes, jobs)?;
        let failed = match failed {
            None => None,
            Some(error) => Some(self.failed_stage(&store, error)?),
        };
        // The artifacts are exported as in an ordinary build, so that the comparison covers the statements too.
        let images = place.join("images");
        let (mut files, mut manifests) = (BTreeMap::new(), BTreeMap::new());
        for &target in self.targets.iter().filter(|_| failed.is_none()) {
            let dir = export(&context, &outcome, target, &images, self.circumstances)?;
            let path = dir.join(SUMS_FILE);
            let bytes = fs::read(&path).map_err(PipelineError::io("read", &path))?;
            let sums = Sums::parse(&bytes).map_err(PipelineError::Manifest)?;
            for (file, sha256) in sums.files() {
                if file.to_string() == MANIFEST_FILE {
                    manifests.insert(target, *sha256);
                }
                files.insert((target, file.clone()), *sha256);
            }
        }
        let nodes = outcome.nodes.iter();
        let nodes = nodes.map(|(id, done)| (id.clone(), (done.resolved.key, done.record.outputs.clone())));
        let made = Made {
            nodes: nodes.collect(),
            files,
        };
        Ok(BuildInStore {
            store,
            outcome,
            made,
            failed,
            manifests,
        })
    }

    /// The failed stage of `store`. Its log is moved to the user's store, where it stays after this run. Any other error is returned.
    fn failed_stage(&self, store: &Store, mut error: PipelineError) -> Result<(NodeId, PipelineError), PipelineError> {
        let PipelineError::Stage { node, log, .. } = &mut error else {
            return Err(error);
        };
        let node = node.clone();
        if let Some((gone, kept)) = self.store.take_log(store, &node.stage, node.arch)? {
            *log = log.replace(&*gone.to_string_lossy(), &kept.to_string_lossy());
        }
        Ok((node, error))
    }
}
