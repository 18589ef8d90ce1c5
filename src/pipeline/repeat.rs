//! Building twice: as ever, and with everything different that must not matter. Then comparing, and finding the cause of what differs.
//!
//! ```text
//! first    store of its own, as every build ─────┐
//!                                                ├─► compare outputs by digest ─► equal
//! second   store elsewhere, all axes varied ─────┘            │
//!                                                             ▼ the first stages that differ
//!                              run alone again: nothing varied · halves of the axes · single axes
//! ```

use super::{
    BuildOutcome, CODE_SANDBOX, CODE_WRITERS, Changed, Circumstances, Events, Origins, PipelineError, Project,
    RunOptions, build, export, lab::Lab, resolve_stage, scheduler::build_so_far,
};
use crate::{
    graph::{NodeId, closure_of},
    lock::{Package, PinnedFile},
    manifest::{MANIFEST_FILE, Reproducibility, SUMS_FILE, Sums, Varied, is_statement},
    model::{self, Arch, RelPath, Sha256Digest, StageKey, Target, Variant},
    repro::{
        self, ArtifactResult, Axis, Cause, Claim, Divergent, Finding, OutputResult, ReproSetup, ReproVerdict, SEED,
        StageResult, State, Tried, VARIATION_LOCALE, clock_library, variation,
    },
    store::{Output, Scratch, SharedStores, Store},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Stages that hold what other variation need.
const CLOCK_STAGE: &str = "surroundings";
const LOCALE_STAGE: &str = "surroundings-locale";
/// Where the second store lies below the scratch: longer than where the first does.
const FAR: &str = "a-second-store/whose-path-is-longer-than-that-of-the-first-by-some-seventy-bytes/or-more/store";
/// How many times the pinned files both builds may take while they run. Measured: up to 27, for all variants of amd64.
const GROWTH: u64 = 36;
/// What the rest of the machine is left, in bytes.
const RESERVE: u64 = 2 << 30;
/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: i64 = 0x0102_1994;

/// What is to be built twice, and how.
pub struct Twice<'a> {
    /// Of which project.
    pub project: &'a Project,
    /// The store that has pinned files already.
    pub store: &'a Arc<Store>,
    /// Where they come from otherwise.
    pub inputs: &'a Origins,
    /// What is built.
    pub nodes: &'a [NodeId],
    /// Those of them that are artifacts.
    pub variants: &'a [(Variant, Arch)],
    /// What is varied.
    pub axes: &'a BTreeSet<Axis>,
    /// Stages at once.
    pub jobs: usize,
    /// How stages are run.
    pub options: &'a RunOptions,
    /// For the statements.
    pub circumstances: &'a Circumstances,
    /// Whether the two stores lie on disk in any case.
    pub on_disk: bool,
    /// Whether causes are sought.
    pub explain: bool,
    /// Told what happens.
    pub events: Events<'a>,
    /// Told what is done next, in words.
    pub say: &'a dyn Fn(&str),
}

/// What one build made: of each node its key and outputs, and every file of every artifact.
struct Made {
    nodes: BTreeMap<NodeId, (StageKey, BTreeMap<String, Output>)>,
    files: BTreeMap<(Target, RelPath), Sha256Digest>,
}

/// One build in a store of its own.
struct BuildInStore {
    store: Arc<Store>,
    outcome: BuildOutcome,
    made: Made,
    /// The stage that failed, and how; there are no artifacts then.
    failed: Option<(NodeId, PipelineError)>,
    /// Digest of each artifact's manifest.
    manifests: BTreeMap<(Variant, Arch), Sha256Digest>,
}

/// What [`Twice::run`] found out.
pub struct ReproResult {
    /// For people and machines.
    pub verdict: ReproVerdict,
    /// Digest of the manifest of each artifact that was built first.
    pub manifests: BTreeMap<(Variant, Arch), Sha256Digest>,
}

impl Twice<'_> {
    /// Builds, compares, and explains. `claim`: compare with what a manifest says instead of with a first build.
    pub fn run(&self, claim: Option<&Claim>) -> Result<ReproResult, PipelineError> {
        let (scratch, room) = self.scratch()?;
        let found = self.run_in(&scratch, claim);
        found.map_err(|error| match room {
            Some(_) if is_full(&error) => PipelineError::InMemory {
                path: scratch,
                source: Box::new(error),
            },
            _ => error,
        })
    }

    fn run_in(&self, scratch: &Path, claim: Option<&Claim>) -> Result<ReproResult, PipelineError> {
        let mut not_varied = Vec::new();
        let mut axes = self.axes.clone();
        for (axis, why) in self.cannot()? {
            if axes.remove(&axis) {
                not_varied.push((axis, why));
            }
        }
        let lent = scratch.join("lent");
        self.lend(&axes, &lent)?;

        let first = match claim {
            Some(_) => None,
            None => {
                (self.say)("first build: as ever");
                let mut options = self.options.clone();
                // Most artifacts come out the same; who looks for causes makes those that do not again.
                if self.explain {
                    options.unkept = self.last()?;
                }
                let build = self.one(&scratch.join("first"), None, self.jobs, options)?;
                match build.failed {
                    // What cannot be built at all is no question of circumstances.
                    Some((_, error)) => return Err(error),
                    None => Some(build),
                }
            }
        };
        let place = scratch.join(FAR);
        let mut options = self.options.clone();
        options.changed = self.changed(&axes, &lent);
        // Where inputs are links a stage could see that an object has more of them.
        let objects = first.as_ref().map(|build| &build.store);
        let objects = objects.filter(|_| options.changed.copies).cloned();
        (self.say)(&format!("second build: {} things differ", axes.len()));
        // Stages that share one processor cost more side by side.
        let jobs = if options.changed.processors { 1 } else { self.jobs };
        let mut second = self.one(&place, objects, jobs, options)?;
        let of_claim = claim.map(claimed);
        let expected = match (&of_claim, &first) {
            (Some(made), _) => made,
            (None, Some(build)) => &build.made,
            (None, None) => &second.made,
        };
        let (mut stages, artifacts) = self.judge(expected, &second, claim.is_some())?;
        let mut findings = Vec::new();
        for stage in stages.iter().filter(|s| s.state == State::FirstDivergent) {
            let Some(id) = second.outcome.order.iter().find(|id| node_of(id) == stage.node) else {
                continue;
            };
            let lab = Lab {
                twice: self,
                store: first.as_ref().map_or(&second.store, |build| &build.store),
                second: &second.store,
                first: first.is_some(),
                prepared: &second.outcome.nodes[id].prepared,
                axes: &axes,
                lent: &lent,
                runs: BTreeMap::new(),
            };
            findings.extend(lab.explain(&expected.nodes[id].1, &second.made.nodes[id].1)?);
        }
        if let Some((node, error)) = second.failed.take() {
            // What it needs came out the same: then it fails for what was varied.
            let first_to_differ = stages.iter().all(|s| s.state == State::Equal);
            if first_to_differ {
                let before = first.as_ref().unwrap_or(&second);
                findings.push(self.failure(before, first.is_some(), &node, error, &axes, &lent)?);
            }
            stages.push(StageResult {
                node: node_of(&node),
                needs: Vec::new(),
                state: if first_to_differ {
                    State::FirstDivergent
                } else {
                    State::Different
                },
                outputs: Vec::new(),
            });
        }
        let manifests = first.as_ref().unwrap_or(&second).manifests.clone();
        let against = claim.map(|claim| claim.given().display().to_string());
        let setup = self.setup(axes, not_varied, against);
        let verdict = ReproVerdict::new(setup, stages, artifacts, findings);
        Ok(ReproResult { verdict, manifests })
    }

    /// A directory for both stores, and what keeps it when it is in memory.
    fn scratch(&self) -> Result<(PathBuf, Option<Scratch>), PipelineError> {
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
        (self.say)(&format!("both stores lie below {}", path.display()));
        fs::create_dir(&path).map_err(PipelineError::io("create", &path))?;
        Ok((path, room))
    }

    /// What the pipeline and the sandbox do differently when these axes are varied.
    pub(super) fn changed(&self, axes: &BTreeSet<Axis>, lent: &Path) -> Changed {
        Changed {
            variation: variation(axes, lent),
            processors: axes.contains(&Axis::Processors),
            order: axes.contains(&Axis::JobOrder).then_some(SEED),
            copies: axes.contains(&Axis::Links),
            build_dir: axes
                .contains(&Axis::FileSystem)
                .then(|| self.store.scratch_path("build")),
        }
    }

    /// What this host cannot vary.
    fn cannot(&self) -> Result<Vec<(Axis, String)>, PipelineError> {
        let mut all = Vec::new();
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            all.push((Axis::Processors, "there is one processor".to_owned()));
        }
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

    /// Builds and lays out what the other variation need.
    fn lend(&self, axes: &BTreeSet<Axis>, target: &Path) -> Result<(), PipelineError> {
        // A clock that stands still tells what differs by itself.
        if !self.explain && !axes.contains(&Axis::Clock) && !axes.contains(&Axis::Locale) {
            return Ok(());
        }
        let graph = &self.project.graph;
        let arches: BTreeSet<Arch> = self
            .nodes
            .iter()
            .map(|n| n.arch)
            .chain([graph.build_arch(), Arch::host()])
            .collect();
        let mut nodes = vec![graph.node(LOCALE_STAGE, Arch::host())?];
        for arch in arches {
            nodes.push(graph.node(CLOCK_STAGE, arch)?);
        }
        let outcome = build(
            self.project,
            self.store,
            self.inputs,
            &nodes,
            self.jobs,
            self.options,
            self.events,
        )?;
        let place = |below: &Path| -> Result<PathBuf, PipelineError> {
            let dir = target.join(below);
            let parent = dir.parent().unwrap_or(target);
            fs::create_dir_all(parent).map_err(PipelineError::io("create", parent))?;
            Ok(dir)
        };
        for node in &nodes {
            let output = outcome.nodes[node].record.outputs.get("tree");
            let output = output.ok_or_else(|| PipelineError::Describe {
                problem: format!("{node} has no output \"tree\""),
            })?;
            if node.stage == LOCALE_STAGE {
                self.store
                    .copy_tree(output.digest(), &place(Path::new(VARIATION_LOCALE))?)?;
                continue;
            }
            let library = self.store.tree(output.digest())?;
            let found = library.iter().find_map(|(path, entry)| clock_library(path, entry));
            let (digest, below) = found.ok_or_else(|| PipelineError::Describe {
                problem: format!("{node} has no library for another clock"),
            })?;
            self.store.verify_object(&digest)?;
            let library = self.store.object_path(&digest)?;
            self.store.copy_file(&library, &place(&below)?)?;
        }
        Ok(())
    }

    /// Builds everything in a new store at `place`, maybe one that borrows the objects of another.
    fn one(
        &self,
        place: &Path,
        objects: Option<Arc<Store>>,
        jobs: usize,
        mut options: RunOptions,
    ) -> Result<BuildInStore, PipelineError> {
        fs::create_dir_all(place).map_err(PipelineError::io("create", place))?;
        let shared = SharedStores {
            pinned: Some(Arc::clone(self.store)),
            objects,
        };
        let store = Store::open_ephemeral(&place.join("store"), shared)?;
        options.exported = self.nodes.iter().cloned().collect();
        let (outcome, failed) = build_so_far(
            self.project,
            &store,
            self.inputs,
            self.nodes,
            jobs,
            &options,
            self.events,
        )?;
        let failed = match failed {
            None => None,
            Some(error) => Some(self.failed(&store, error)?),
        };
        let images = place.join("images");
        let (mut files, mut manifests) = (BTreeMap::new(), BTreeMap::new());
        for &(variant, arch) in self.variants.iter().filter(|_| failed.is_none()) {
            let dir = export(
                self.project,
                &store,
                &outcome,
                (variant, arch),
                &images,
                self.circumstances,
                self.events,
            )?;
            let path = dir.join(SUMS_FILE);
            let bytes = fs::read(&path).map_err(PipelineError::io("read", &path))?;
            let sums = Sums::parse(&bytes).map_err(PipelineError::Manifest)?;
            for (file, sha256) in sums.files() {
                if file.to_string() == MANIFEST_FILE {
                    manifests.insert((variant, arch), *sha256);
                }
                files.insert((Target { variant, arch }, file.clone()), *sha256);
            }
        }
        let nodes = outcome.nodes.iter();
        let nodes = nodes.map(|(id, done)| (id.clone(), (done.prepared.key, done.record.outputs.clone())));
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

    /// A stage that failed in `store`, its log kept where it can be read later. Other errors are returned.
    fn failed(&self, store: &Store, mut error: PipelineError) -> Result<(NodeId, PipelineError), PipelineError> {
        let PipelineError::Stage { node, log, .. } = &mut error else {
            return Err(error);
        };
        let node = node.clone();
        if let Some((gone, kept)) = self.store.take_log(store, &node.stage, node.arch)? {
            *log = log.replace(&*gone.to_string_lossy(), &kept.to_string_lossy());
        }
        Ok((node, error))
    }

    /// What is built and needed by nothing that is built.
    fn last(&self) -> Result<BTreeSet<NodeId>, PipelineError> {
        let closure = closure_of(&self.project.graph, self.nodes)?;
        let needed: BTreeSet<&NodeId> = closure.needs.values().flatten().collect();
        let nodes = self.nodes.iter().filter(|id| !needed.contains(id));
        Ok(nodes.cloned().collect())
    }

    /// SHA-256 and size of every pinned file of what is built.
    fn pinned(&self) -> Result<BTreeMap<Sha256Digest, u64>, PipelineError> {
        let mut all = BTreeMap::new();
        for id in closure_of(&self.project.graph, self.nodes)?.order {
            let set = format!("{}/{}", id.stage, id.arch);
            let packages = self.project.lock.packages_of(&set);
            all.extend(packages.map(|package: &Package| (package.sha256, package.size)));
        }
        let files = self.project.lock.files.iter();
        all.extend(files.map(|file: &PinnedFile| (file.sha256, file.size)));
        Ok(all)
    }

    /// Compares what was made with what was expected. A manifest claims nothing of the statements beside it.
    fn judge(
        &self,
        expected: &Made,
        second: &BuildInStore,
        claimed: bool,
    ) -> Result<(Vec<StageResult>, Vec<ArtifactResult>), PipelineError> {
        let closure = closure_of(&self.project.graph, self.nodes)?;
        let mut stages = Vec::new();
        for id in &closure.order {
            let Some((again, outputs)) = second.made.nodes.get(id) else {
                continue;
            };
            // Of a stage that is not in the manifest nothing is claimed; that it is needed is a difference.
            let none = BTreeMap::new();
            let (state, first) = match expected.nodes.get(id) {
                None => (State::Different, &none),
                Some((_, first)) if first == outputs => (State::Equal, first),
                Some((key, first)) if key == again => (State::FirstDivergent, first),
                Some((_, first)) => (State::Different, first),
            };
            let both = outputs.iter().filter_map(|(name, second)| {
                Some(OutputResult {
                    name: name.clone(),
                    kind: repro::kind(second),
                    first: *first.get(name)?.digest(),
                    second: *second.digest(),
                })
            });
            stages.push(StageResult {
                node: node_of(id),
                needs: closure.needs[id].iter().map(node_of).collect(),
                state,
                outputs: both.collect(),
            });
        }
        let made = second.made.files.keys();
        let made = made.filter(|name| !claimed || expected.files.contains_key(*name) || !is_statement(&name.1));
        let names: BTreeSet<&(Target, RelPath)> = expected.files.keys().chain(made).collect();
        let artifacts = names.into_iter().map(|name| ArtifactResult {
            artifact: name.0,
            file: name.1.clone(),
            first: expected.files.get(name).copied(),
            second: second.made.files.get(name).copied(),
        });
        Ok((stages, artifacts.collect()))
    }

    /// Why a stage fails in the second build, although what it needs, which `build` has, is the same.
    fn failure(
        &self,
        build: &BuildInStore,
        first: bool,
        node: &NodeId,
        error: PipelineError,
        axes: &BTreeSet<Axis>,
        lent: &Path,
    ) -> Result<Finding, PipelineError> {
        let mut cause = Cause::NotSought;
        if self.explain {
            (self.say)(&format!("{node} fails in the second build: looking for the cause"));
            let done = build.outcome.nodes.iter();
            let outputs = done.map(|(id, done)| (id.clone(), done.record.outputs.clone()));
            let mut lab = Lab {
                twice: self,
                store: &build.store,
                second: &build.store,
                first,
                prepared: &resolve_stage(self.project, &build.store, node, &outputs.collect())?,
                axes,
                lent,
                runs: BTreeMap::new(),
            };
            let all: Vec<Axis> = axes.iter().copied().collect();
            cause = lab.cause(&all, &|outputs| outputs.is_none(), &|_, _| false)?.0;
            // What cannot be built here at all is no question of circumstances.
            if !first && matches!(cause, Cause::ByItself { .. }) {
                return Err(error);
            }
        }
        Ok(Finding {
            node: node_of(node),
            found: Divergent::Failed(error.to_string()),
            cause,
            differences: Vec::new(),
            total: 0,
        })
    }

    fn setup(&self, axes: BTreeSet<Axis>, not_varied: Vec<(Axis, String)>, against: Option<String>) -> ReproSetup {
        let project = self.project;
        let sets: BTreeSet<String> = match closure_of(&project.graph, self.nodes) {
            Ok(closure) => closure
                .order
                .iter()
                .map(|id| format!("{}/{}", id.stage, id.arch))
                .collect(),
            Err(_) => BTreeSet::new(),
        };
        let packages: BTreeSet<Sha256Digest> = sets
            .iter()
            .flat_map(|set| project.lock.packages_of(set))
            .map(|p| p.sha256)
            .collect();
        ReproSetup {
            what: self.nodes.iter().map(node_of).collect(),
            against,
            host: self.circumstances.host.clone(),
            started: self.circumstances.started,
            finished: self.circumstances.started,
            axes: axes.into_iter().map(Tried::from).collect(),
            not_varied,
            inputs: repro::BuiltFrom {
                pnb: env!("CARGO_PKG_VERSION").to_owned(),
                code_sandbox: CODE_SANDBOX.to_owned(),
                code_writers: CODE_WRITERS.to_owned(),
                lock: project.lock_sha256,
                revision: project.revision.sha.clone(),
                uncommitted: project.revision.dirty.clone(),
                source_date_epoch: project.lock.source_date_epoch.seconds(),
                packages: packages.len(),
            },
        }
    }
}

/// The node, as a verdict names it.
pub(super) fn node_of(id: &NodeId) -> model::NodeId {
    model::NodeId::new(id.stage.clone(), id.arch)
}

/// Whether a file could not be written for want of room.
fn is_full(error: &PipelineError) -> bool {
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

/// What a manifest says was made; the manifest itself has to come out the same too.
fn claimed(claim: &Claim) -> Made {
    let manifest = claim.manifest();
    let nodes = manifest.stages.iter().map(|stage| {
        let id = NodeId {
            stage: stage.stage.clone(),
            arch: stage.arch,
        };
        (id, (stage.key, stage.outputs.clone()))
    });
    let artifact = claim.target();
    let files = manifest
        .artifacts
        .iter()
        .map(|(path, file)| (path.clone(), file.sha256));
    let itself = RelPath::new(MANIFEST_FILE)
        .into_iter()
        .map(|path| (path, *claim.sha256()));
    Made {
        nodes: nodes.collect(),
        files: files
            .chain(itself)
            .map(|(path, sha256)| ((artifact, path), sha256))
            .collect(),
    }
}

/// The statement for `build-record.json`.
pub fn reproducibility(verdict: &ReproVerdict) -> Reproducibility {
    let varied = verdict.setup.axes.iter().map(|tried| {
        let values = Varied {
            first: tried.first.clone(),
            second: tried.second.clone(),
        };
        (tried.axis.to_string(), values)
    });
    let not_varied = verdict.setup.not_varied.iter();
    Reproducibility {
        varied: varied.collect(),
        not_varied: not_varied.map(|(axis, why)| (axis.to_string(), why.clone())).collect(),
        host: verdict.setup.host.clone(),
        finished: verdict.setup.finished,
        outputs: verdict.outputs(),
        equal: verdict.equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::SandboxError;

    #[test]
    fn want_of_room_is_found_below_what_failed_for_it() {
        let io = |kind| PipelineError::Io {
            what: "write",
            path: PathBuf::from("file"),
            source: io::Error::from(kind),
        };
        assert!(is_full(&io(io::ErrorKind::StorageFull)));
        assert!(!is_full(&io(io::ErrorKind::NotFound)));
        // As the executor has it from the store.
        let stored = |kind| PipelineError::Sandbox {
            node: NodeId {
                stage: "a".to_owned(),
                arch: Arch::Amd64,
            },
            source: Box::new(SandboxError::Store {
                stage: "a".to_owned(),
                output: "out".to_owned(),
                path: "file".to_owned(),
                source: io::Error::other(io(kind)),
            }),
        };
        assert!(is_full(&stored(io::ErrorKind::StorageFull)));
        assert!(!is_full(&stored(io::ErrorKind::NotFound)));
    }
}
