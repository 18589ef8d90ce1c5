//! The values that most commands begin with: the project, the store, the origins of inputs, the selected nodes.

use super::{
    Exit,
    args::{Common, GivenArgs, Selection},
    command_text::CommandText,
    failure::{Failure, Fatal},
    selection::{no_variant, not_both, stage_node, unknown_variant},
    servers::{ServerArgs, network},
};
use pnb::{
    fetch::{self, FetchError, Sources},
    graph::GraphError,
    inspect::SpoolDirectory,
    model::{Arch, Hint, NodeId, Target, Variant},
    pipeline::{Origins, PipelineError, Project, RunOptions},
    source::{SourceTree, Uncommitted},
    store::Store,
};
use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why the work of a command cannot begin; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(super) enum ContextError {
    #[error("find a directory for the store: HOME is not set")]
    NoHome,
    #[error("find the program of pnb itself")]
    Program(#[source] io::Error),
    #[error("find a variant for {arch}: the project has no stage that makes one")]
    NoVariant { arch: Arch },
    #[error("build hermetically: the project is in no git commit, so nothing states the content of its stage files")]
    NoCommit,
    #[error(
        "build hermetically: files of the project are not those of the commit:{}",
        indented(files)
    )]
    Uncommitted { files: Vec<Uncommitted> },
    #[error("build hermetically: the project changed while it was built")]
    Changed,
    #[error("create {path:?}")]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Most differences from the commit that an error lists.
const MAX_LISTED: usize = 20;

/// A line for each difference, and one for those beyond [`MAX_LISTED`].
fn indented(files: &[Uncommitted]) -> String {
    let mut text: String = files
        .iter()
        .take(MAX_LISTED)
        .map(|file| format!("\n  {file}"))
        .collect();
    if let Some(more @ 1..) = files.len().checked_sub(MAX_LISTED) {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

impl Fatal for ContextError {
    fn exit(&self) -> Exit {
        match self {
            ContextError::NoHome => Exit::Usage,
            ContextError::Program(_) => Exit::Failure,
            ContextError::NoVariant { .. } => Exit::Graph,
            ContextError::NoCommit | ContextError::Uncommitted { .. } | ContextError::Changed => Exit::Hermetic,
            ContextError::Scratch { .. } => Exit::Store,
        }
    }
}

impl Hint for ContextError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self {
            ContextError::NoHome => "name one with --store or PNB_STORE",
            ContextError::NoCommit | ContextError::Uncommitted { .. } => {
                "commit the files, or give --allow-dirty, which the manifest then states"
            }
            ContextError::Changed => "build again",
            _ => return None,
        };
        Some(way.into())
    }
}

/// The project's directory.
pub(super) fn project_tree(common: &Common) -> Result<SourceTree, Failure> {
    let start = common.project.as_deref().unwrap_or(Path::new("."));
    Ok(Project::find(start, common.project.is_some())?)
}

/// The same, or `None` where there is no project.
pub(super) fn project_tree_if_any(common: &Common) -> Result<Option<SourceTree>, Failure> {
    let start = common.project.as_deref().unwrap_or(Path::new("."));
    match Project::find(start, common.project.is_some()) {
        Err(PipelineError::NoProject { .. }) => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// The project, read and checked.
pub(super) fn project(common: &Common) -> Result<Project, Failure> {
    Ok(Project::load(project_tree(common)?)?)
}

/// The directory of the store.
pub(super) fn store_path(common: &Common) -> Result<PathBuf, Failure> {
    if let Some(path) = &common.store {
        return Ok(path.clone());
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the store's place is the user's business and enters no result"
    )]
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
    let dir = cache.map(|dir| dir.join("pnb"));
    Ok(dir.ok_or(ContextError::NoHome)?)
}

/// The open store.
pub(super) fn store(common: &Common) -> Result<Arc<Store>, Failure> {
    Ok(Store::open(&store_path(common)?)?)
}

/// Where pinned files may come from.
pub(super) fn origins(common: &Common) -> Result<Origins, FetchError> {
    let mirror = common.mirror.as_deref().map(str::parse).transpose()?;
    Ok(Origins {
        sources: Sources {
            mirror,
            apt: fetch::load_apt_mirrors(Path::new("/etc/apt"))?,
        },
        offline: common.offline,
        parallel: fetch::DEFAULT_WORKERS,
        network: network(common),
        registries: ServerArgs::default().registries(common),
    })
}

/// The same, with the options of registries, which are asked for a base image.
pub(super) fn with_registries(common: &Common, servers: &ServerArgs) -> Result<Origins, FetchError> {
    Ok(Origins {
        registries: servers.registries(common),
        ..origins(common)?
    })
}

/// Options under which every stage runs unless the command line says otherwise.
pub(super) fn run_options() -> Result<RunOptions, Failure> {
    let helper = std::env::current_exe().map_err(ContextError::Program)?;
    Ok(RunOptions::new(helper))
}

/// The selected artifacts or stages.
pub(super) struct Selected {
    /// The artifacts, in order; empty when stages were named.
    pub(super) targets: Vec<Target>,
    /// The nodes to build.
    pub(super) nodes: Vec<NodeId>,
}

/// Turns the options into nodes. A variant exists if there is a stage of its name. `--arch all` takes those that exist.
pub(super) fn select(common: &Common, project: &Project, selection: &Selection) -> Result<Selected, Failure> {
    not_both(common)?;
    let mut selected = Selected {
        targets: Vec::new(),
        nodes: Vec::new(),
    };
    let arches = selection.arches();
    let asked = !selection.variant.is_empty();
    let mut missing: Option<Failure> = None;
    for stage in &selection.stage {
        let before = selected.nodes.len();
        // A stage that names its architecture is taken once.
        let arches = if stage.arch.is_some() {
            &arches[..1]
        } else {
            &arches[..]
        };
        for arch in arches {
            match stage_node(common, project, stage, *arch) {
                Ok(node) if selected.nodes[before..].contains(&node) => {}
                Ok(node) => selected.nodes.push(node),
                Err(error) if selection.all() => missing = missing.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = missing.take().filter(|_| selected.nodes.len() == before) {
            return Err(error);
        }
    }
    if !selection.stage.is_empty() {
        return Ok(selected);
    }
    let declared: BTreeSet<Variant> = project.graph.variants().map(|(variant, _)| variant).collect();
    let variants: Vec<Variant> = match asked {
        true => selection.variant.clone(),
        false => declared.iter().copied().collect(),
    };
    if let Some(unknown) = variants.iter().find(|variant| !declared.contains(variant)) {
        return Err(unknown_variant(common, *unknown, &declared));
    }
    for arch in &arches {
        let before = selected.nodes.len();
        for variant in &variants {
            match project.graph.node(variant.as_str(), *arch) {
                Ok(node) => {
                    selected.targets.push(Target {
                        variant: *variant,
                        arch: *arch,
                    });
                    selected.nodes.push(node);
                }
                Err(error) if asked => {
                    let elsewhere = matches!(error, GraphError::WrongArch { .. }) && selection.all();
                    let error = no_variant(common, arches.len() > 1, error);
                    if !elsewhere {
                        return Err(error);
                    }
                    missing = missing.or(Some(error));
                }
                Err(GraphError::WrongArch { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if selected.nodes.len() == before && !(asked && selection.all()) {
            return Err(ContextError::NoVariant { arch: *arch }.into());
        }
    }
    match missing {
        Some(error) if selected.nodes.is_empty() => Err(error),
        _ => Ok(selected),
    }
}

/// Replaces parts of the project by those that the command line gives.
pub(super) fn give(project: &mut Project, given: &GivenArgs) -> Result<(), Failure> {
    if let Some(agent) = &given.agent {
        project.use_agent(agent)?;
    }
    if let Some(arch) = given.tools {
        project.use_tools_of(arch)?;
    }
    if !given.with.is_empty() {
        project.use_options(given.with.iter().copied().collect())?;
    }
    if let Some(url) = &given.platform_url {
        project.platform.set_url(url)?;
    }
    for path in &given.module_key {
        project.modules.read_key(path)?;
    }
    if let Some(path) = &given.ca_pem {
        project.platform.read_ca_pem(path)?;
    }
    Ok(())
}

/// Refuses a project whose stage files are in no commit; the sandbox takes care of the rest of `--hermetic`.
pub(super) fn hermetic(project: &Project, allow_dirty: bool) -> Result<(), Failure> {
    let revision = &project.revision;
    match (&revision.sha, allow_dirty) {
        (_, true) => Ok(()),
        (None, false) => Err(ContextError::NoCommit.into()),
        (Some(_), false) if revision.dirty.is_empty() => Ok(()),
        (Some(_), false) => Err(ContextError::Uncommitted {
            files: revision.dirty.clone(),
        }
        .into()),
    }
}

/// A new directory in the scratch of the store; it goes when the store is closed.
pub(super) fn scratch(store: &Store, name: &str) -> Result<PathBuf, Failure> {
    let path = store.scratch_path(name);
    match fs::create_dir(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(ContextError::Scratch { path, source }.into()),
    }
}

/// A scratch directory for the content of compressed streams.
pub(super) fn spool(store: &Store) -> Result<SpoolDirectory, Failure> {
    Ok(SpoolDirectory::new(scratch(store, "inspect")?))
}

/// The command that builds `node`.
pub(super) fn build_it(common: &Common, node: &NodeId) -> CommandText {
    let stage = common.build_command().arg("--stage").arg(&node.stage);
    stage.arg("--arch").arg(node.arch.as_str())
}
