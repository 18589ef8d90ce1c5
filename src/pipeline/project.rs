//! A project: the directory with the lock and the stages.

use super::{
    ModuleTrust, PipelineError, Platform,
    listed::{check_listed, listed_files},
};
use crate::{
    graph::{InputSource, StageGraph},
    lock::{Lockfile, PinnedFile, WantedSet, check, check_base, parse_lock},
    model::{Arch, BuildOption, RelPath, Sha256Digest},
    source::{Revision, SourceTree},
    store::read_foreign,
    verity, writers,
};
use std::{
    collections::BTreeSet,
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
    /// Its directory.
    pub tree: SourceTree,
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
    /// Who vouches for the modules of nodes, from the command line.
    pub modules: ModuleTrust,
    /// The options of the build.
    pub options: BTreeSet<BuildOption>,
    /// The architecture of the tools, if it is not that of this machine.
    tools: Option<Arch>,
    /// The architectures whose stages run on machines of their own.
    native: BTreeSet<Arch>,
}

impl Project {
    /// Finds the project at `start` or above it. With `named`, the user gave `start` as the project's directory.
    ///
    /// # Errors
    /// There is none, or one that was found and not named belongs to somebody else.
    pub fn find(start: &Path, named: bool) -> Result<SourceTree, PipelineError> {
        SourceTree::find(start, STAGES, named)?.ok_or_else(|| PipelineError::NoProject {
            path: std::path::absolute(start).unwrap_or_else(|_| start.to_owned()),
        })
    }

    /// Reads lock and stages of the project in `tree`, and compares them with its commit.
    ///
    /// # Errors
    /// There is no lock, or it does not pin the files of `stages/files.toml`; a file is malformed or cannot be read.
    pub fn load(tree: SourceTree) -> Result<Self, PipelineError> {
        let Some(text) = tree.read_text(&in_project(LOCKFILE)?)? else {
            let project = tree.path().to_owned();
            return Err(PipelineError::NoLock { project });
        };
        let mut both = verity::Both::new();
        both.update(text.as_bytes());
        let lock = parse_lock(&text, LOCKFILE)?;
        let options = BTreeSet::new();
        let graph = Self::graph_of(&tree, &lock)?.with_options(&options);
        check_listed(&lock, &listed_files(&tree)?)?;
        Ok(Self {
            revision: Revision::of(&tree, &paths_of(&lock, &graph)?)?,
            tree,
            lock,
            lock_sha256: both.finish().sha256,
            graph,
            agent: None,
            platform: Platform::default(),
            modules: ModuleTrust::default(),
            options,
            tools: None,
            native: BTreeSet::new(),
        })
    }

    /// The stages of a lock: without a base image, no stage has the inputs that need one.
    fn graph_of(tree: &SourceTree, lock: &Lockfile) -> Result<StageGraph, PipelineError> {
        let graph = Self::load_graph(tree)?;
        check_base(lock, &graph.on_base())?;
        Ok(match lock.base {
            Some(_) => graph,
            None => graph.without_base(),
        })
    }

    /// The present revision of the project in git.
    pub fn revision_now(&self) -> Result<Revision, PipelineError> {
        Ok(Revision::of(&self.tree, &paths_of(&self.lock, &self.graph)?)?)
    }

    /// Checks that the lock has every package that the stages want.
    pub fn check_lock(&self) -> Result<(), PipelineError> {
        match check(&self.lock, &wanted_sets(&self.graph)).first() {
            None => Ok(()),
            Some(problem) => Err(PipelineError::NotLocked {
                what: format!("the packages that the stages want ({problem})"),
            }),
        }
    }

    /// Reads the stages alone, which suffices for the first lock.
    pub fn load_graph(tree: &SourceTree) -> Result<StageGraph, PipelineError> {
        let writers = writers::names().collect();
        Ok(StageGraph::load(tree, &in_project(STAGES)?, Arch::host(), &writers)?)
    }

    /// Uses tools of the architecture `arch` instead of this machine's.
    pub fn use_tools_of(&mut self, arch: Arch) -> Result<(), PipelineError> {
        self.tools = Some(arch);
        self.rebuild_graph()
    }

    /// The stages of these architectures run on machines of their own.
    pub fn use_native(&mut self, arches: BTreeSet<Arch>) -> Result<(), PipelineError> {
        self.native = arches;
        self.rebuild_graph()
    }

    /// Builds with these options.
    pub fn use_options(&mut self, options: BTreeSet<BuildOption>) -> Result<(), PipelineError> {
        self.options = options;
        self.rebuild_graph()?;
        // Other options are other inputs, and with them other files of the project.
        self.revision = self.revision_now()?;
        Ok(())
    }

    fn rebuild_graph(&mut self) -> Result<(), PipelineError> {
        let fresh = Self::graph_of(&self.tree, &self.lock)?.with_options(&self.options);
        let fresh = match self.tools {
            Some(arch) => fresh.with_tools_of(arch, EMULATORS)?,
            None => fresh,
        };
        self.graph = fresh.with_native(&self.native);
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
            redirects: Vec::new(),
            size: bytes.len() as u64,
            sha256: both.finish().sha256,
        });
        self.agent = Some(absolute);
        Ok(())
    }
}

/// The paths of the project that a build reads, relative to it.
fn paths_of(lock: &Lockfile, graph: &StageGraph) -> Result<BTreeSet<RelPath>, PipelineError> {
    let inputs = graph.stages().values().flat_map(|file| file.inputs.values());
    let files = inputs.filter_map(|input| match &input.source {
        InputSource::Files(path) => Some(path.get_ref()),
        _ => None,
    });
    let pinned = lock.files.iter().filter_map(|file| file.path.as_ref());
    let mut paths: BTreeSet<RelPath> = files.chain(pinned).cloned().collect();
    paths.insert(in_project(LOCKFILE)?);
    paths.insert(in_project(STAGES)?);
    Ok(paths)
}

/// The path of a file of the project, relative to its directory.
pub(super) fn in_project(path: &str) -> Result<RelPath, PipelineError> {
    RelPath::new(path).map_err(|e| PipelineError::describe(e.to_string()))
}

/// The path of the entry `name` of the stages' directory.
pub(super) fn below_stages(name: &str) -> Result<RelPath, PipelineError> {
    in_project(&format!("{STAGES}/{name}"))
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
