//! The circumstances of both builds: memory for their stores, axes that this host cannot vary, files for variations.

use super::run::ReproRequest;
use crate::{
    graph::closure_of,
    model::{Arch, NodeId, Sha256Digest, visible_path},
    pipeline::{BuildContext, Changed, PipelineError},
    repro::{Axis, SEED, VARIATION_LOCALE, clock_library, variation},
    store::Scratch,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// The stages with the files for variations: libfaketime and another locale.
const CLOCK_STAGE: &str = "surroundings";
const LOCALE_STAGE: &str = "surroundings-locale";
/// Most bytes that both builds need while they run, as a multiple of the pinned files. Measured: up to 27, for all variants of amd64.
const GROWTH: u64 = 36;
/// Memory left to the rest of the machine, in bytes.
const RESERVE: u64 = 2 << 30;
/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: i64 = 0x0102_1994;

impl ReproRequest<'_> {
    /// A directory for both stores; when it is in memory, also the scratch that it belongs to.
    pub(super) fn scratch(&self) -> Result<(PathBuf, Option<Scratch>), PipelineError> {
        let name = "twice";
        let room = match self.on_disk {
            true => None,
            false => {
                let pinned: u64 = self.pinned()?.values().sum();
                Scratch::in_memory(pinned.saturating_mul(GROWTH).saturating_add(RESERVE))
            }
        };
        let path = match &room {
            Some(room) => room.fresh(name),
            None => self.store.scratch_path(name),
        };
        (self.say)(&format!("both stores lie below {}", visible_path(&path)));
        fs::create_dir(&path).map_err(PipelineError::io("create", &path))?;
        Ok((path, room))
    }

    /// The SHA-256 and size of every pinned file of the nodes.
    fn pinned(&self) -> Result<BTreeMap<Sha256Digest, u64>, PipelineError> {
        let lock = &self.project.lock;
        let mut all = BTreeMap::new();
        for id in closure_of(&self.project.graph, self.nodes)?.order {
            all.extend(lock.packages_of(&id).map(|package| (package.sha256, package.size)));
        }
        all.extend(lock.files.iter().map(|file| (file.sha256, file.size)));
        Ok(all)
    }

    /// The requested nodes that no other node needs.
    pub(super) fn last_nodes(&self) -> Result<BTreeSet<NodeId>, PipelineError> {
        let closure = closure_of(&self.project.graph, self.nodes)?;
        let needed: BTreeSet<&NodeId> = closure.needs.values().flatten().collect();
        let nodes = self.nodes.iter().filter(|id| !needed.contains(id));
        Ok(nodes.cloned().collect())
    }

    /// The settings of pipeline and sandbox that vary these axes. `files` is the directory that [`Self::lay_out_files`] filled.
    pub(super) fn changed(&self, axes: &BTreeSet<Axis>, files: &Path) -> Changed {
        Changed {
            variation: variation(axes, files),
            processors: axes.contains(&Axis::Processors),
            order: axes.contains(&Axis::JobOrder).then_some(SEED),
            links: axes.contains(&Axis::Links),
            build_dir: axes
                .contains(&Axis::FileSystem)
                .then(|| self.store.scratch_path("build")),
        }
    }

    /// The axes that this host cannot vary, each with the reason.
    pub(super) fn impossible(&self) -> Result<Vec<(Axis, String)>, PipelineError> {
        let mut all = Vec::new();
        let root = self.store.root();
        let found = nix::sys::statfs::statfs(root).map_err(|e| PipelineError::Io {
            what: "look at the file system of",
            path: root.to_owned(),
            source: e.into(),
        })?;
        if found.filesystem_type().0 as i64 == TMPFS {
            let why = "the store lies on tmpfs, as the build directories of the first build do";
            all.push((Axis::FileSystem, why.to_owned()));
        }
        Ok(all)
    }

    /// Builds libfaketime and another locale and lays them out in the directory `target`, if an axis needs them.
    pub(super) fn lay_out_files(&self, axes: &BTreeSet<Axis>, target: &Path) -> Result<(), PipelineError> {
        // The search for causes tries a clock that stands still, even if the clock is not an axis.
        if !self.explain && !axes.contains(&Axis::Clock) && !axes.contains(&Axis::Locale) {
            return Ok(());
        }
        let graph = &self.project.graph;
        let arches: BTreeSet<Arch> = self
            .nodes
            .iter()
            .map(|n| n.arch)
            .flat_map(|arch| [arch, graph.build_arch(arch)])
            .chain([Arch::host()])
            .collect();
        let mut nodes = vec![graph.node(LOCALE_STAGE, Arch::host())?];
        for arch in arches {
            nodes.push(graph.node(CLOCK_STAGE, arch)?);
        }
        let context: BuildContext<'_> = self.context();
        let outcome = context.build(&nodes, self.jobs)?;
        let place = |below: &Path| -> Result<PathBuf, PipelineError> {
            let dir = target.join(below);
            let parent = dir.parent().unwrap_or(target);
            fs::create_dir_all(parent).map_err(PipelineError::io("create", parent))?;
            Ok(dir)
        };
        for node in &nodes {
            let output = outcome.nodes[node].record.outputs.get("tree");
            let output = output.ok_or_else(|| PipelineError::describe(format!("{node} has no output \"tree\"")))?;
            if node.stage == LOCALE_STAGE {
                self.store
                    .copy_tree(output.digest(), &place(Path::new(VARIATION_LOCALE))?)?;
                continue;
            }
            let library = self.store.tree(output.digest())?;
            let found = library.iter().find_map(|(path, entry)| clock_library(path, entry));
            let (digest, below) =
                found.ok_or_else(|| PipelineError::describe(format!("{node} has no library for another clock")))?;
            self.store.verify_object(&digest)?;
            let library = self.store.object_path(&digest)?;
            self.store.copy_file(&library, &place(&below)?)?;
        }
        Ok(())
    }
}

/// Whether a full file system is the cause of an error.
pub(super) fn is_full(error: &PipelineError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        let io = found.downcast_ref::<io::Error>();
        if io.is_some_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        cause = found.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::SandboxError;

    #[test]
    fn a_full_file_system_is_found_below_other_errors() {
        let io = |kind| PipelineError::Io {
            what: "write",
            path: PathBuf::from("file"),
            source: io::Error::from(kind),
        };
        assert!(is_full(&io(io::ErrorKind::StorageFull)));
        assert!(!is_full(&io(io::ErrorKind::NotFound)));
        // The form in which the executor passes on an error of the store.
        let stored = |kind| {
            PipelineError::Sandbox(Box::new(SandboxError::Store {
                stage: "a".to_owned(),
                output: "out".to_owned(),
                path: "file".to_owned(),
                source: io::Error::other(io(kind)),
            }))
        };
        assert!(is_full(&stored(io::ErrorKind::StorageFull)));
        assert!(!is_full(&stored(io::ErrorKind::NotFound)));
    }
}
