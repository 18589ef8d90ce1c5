//! A project: the directory with the lock and the stages.

use super::{PipelineError, Platform, Revision};
use crate::{
    graph::{InputSource, StageGraph},
    lock::{Lockfile, PinnedFile, WantedSet, check, parse_lock},
    model::{Arch, Sha256Digest},
    store::read_foreign,
    verity, writers,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Name of the lock in a project.
pub const LOCKFILE: &str = "lockfile.toml";
/// Name of the stages' directory in a project.
pub const STAGES: &str = "stages";

/// Name of the stage with the emulators.
const EMULATORS: &str = "emulators";
/// Most bytes of an agent.
const MAX_AGENT: u64 = 1 << 30;
/// Name of the agent among the lock's files.
pub const AGENT: &str = "agent";

/// A project that was read and checked.
#[derive(Debug)]
pub struct Project {
    /// Its directory, absolute.
    pub root: PathBuf,
    /// The lock.
    pub lock: Lockfile,
    /// SHA-256 of the lock file.
    pub lock_sha256: Sha256Digest,
    /// The stages.
    pub graph: StageGraph,
    /// Its revision in git.
    pub revision: Revision,
    /// The file that replaces the locked agent.
    pub agent: Option<PathBuf>,
    /// The facts about the platform, from the command line.
    pub platform: Platform,
}

impl Project {
    /// Finds the project at `start` or above it.
    pub fn find(start: &Path) -> Result<PathBuf, PipelineError> {
        let start = start.canonicalize().map_err(PipelineError::io("open", start))?;
        let found = start.ancestors().find(|dir| dir.join(STAGES).is_dir());
        found
            .map(Path::to_owned)
            .ok_or(PipelineError::NoProject { path: start })
    }

    /// Reads lock and stages of the project at `root`, and asks git for its revision.
    pub fn load(root: &Path) -> Result<Self, PipelineError> {
        let path = root.join(LOCKFILE);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(PipelineError::NoLock {
                    project: root.to_owned(),
                });
            }
            read => read.map_err(PipelineError::io("read", &path))?,
        };
        let mut both = verity::Both::new();
        both.update(text.as_bytes());
        let lock = parse_lock(&text, LOCKFILE)?;
        let graph = Self::load_graph(root)?;
        Ok(Self {
            revision: Revision::of(root, &paths_of(&lock, &graph))?,
            root: root.to_owned(),
            lock,
            lock_sha256: both.finish().sha256,
            graph,
            agent: None,
            platform: Platform::default(),
        })
    }

    /// The present revision of the project in git.
    pub fn revision_now(&self) -> Result<Revision, PipelineError> {
        Revision::of(&self.root, &paths_of(&self.lock, &self.graph))
    }

    /// Checks that the lock has every package that the stages want.
    pub fn check_lock(&self) -> Result<(), PipelineError> {
        match check(&self.lock, &wanted_sets(&self.graph)).first() {
            None => Ok(()),
            Some(problem) => Err(PipelineError::NotLocked {
                what: format!("all packages that the stages want ({problem})"),
            }),
        }
    }

    /// Reads the stages alone, which suffices for the first lock.
    pub fn load_graph(root: &Path) -> Result<StageGraph, PipelineError> {
        let writers = writers::names().collect();
        Ok(StageGraph::load(&root.join(STAGES), STAGES, Arch::host(), &writers)?)
    }

    /// Uses tools of the architecture `arch` instead of this machine's.
    pub fn use_tools_of(&mut self, arch: Arch) -> Result<(), PipelineError> {
        let fresh = Self::load_graph(&self.root)?;
        self.graph = fresh.with_tools_of(arch, EMULATORS)?;
        Ok(())
    }

    /// Replaces the locked agent by the file at `path`.
    pub fn use_agent(&mut self, path: &Path) -> Result<(), PipelineError> {
        let absolute = path.canonicalize().map_err(PipelineError::io("read", path))?;
        let bytes = read_foreign(&absolute, MAX_AGENT).map_err(PipelineError::io("read", &absolute))?;
        let mut both = verity::Both::new();
        both.update(&bytes);
        self.lock.files.retain(|f| f.name != AGENT);
        self.lock.files.push(PinnedFile {
            name: AGENT.to_owned(),
            arch: None,
            path: None,
            url: None,
            size: bytes.len() as u64,
            sha256: both.finish().sha256,
        });
        self.agent = Some(absolute);
        Ok(())
    }
}

/// The paths of the project that a build reads, relative to it.
fn paths_of(lock: &Lockfile, graph: &StageGraph) -> BTreeSet<PathBuf> {
    let inputs = graph.stages().values().flat_map(|file| file.inputs.values());
    let files = inputs.filter_map(|input| match &input.source {
        InputSource::Files(path) => Some(path.get_ref()),
        _ => None,
    });
    let pinned = lock.files.iter().filter_map(|file| file.path.as_ref());
    let named = files.chain(pinned).map(|path| path.as_path().to_owned());
    [LOCKFILE, STAGES].map(PathBuf::from).into_iter().chain(named).collect()
}

/// The package sets that the stages need from the lock.
pub fn wanted_sets(graph: &StageGraph) -> Vec<WantedSet> {
    let sets = graph.package_sets().into_iter();
    sets.map(|(node, packages)| WantedSet {
        names: packages.names(node.arch),
        node,
        essential: packages.essential,
        closure: packages.closure,
    })
    .collect()
}
