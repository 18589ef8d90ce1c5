//! What most commands need first: the project, the store, where inputs come from; and how a failure ends the program.

use super::{
    Exit,
    args::{Common, Selection},
};
use crate::{
    audit::PolicyError,
    fetch::{self, FetchError, Sources},
    graph::{GraphError, NodeId},
    model::{Arch, Hint, Variant},
    pipeline::{Changed, Origins, PipelineError, Project, RunOptions},
    repro::ClaimError,
    sandbox::SandboxError,
    store::{Store, StoreError},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a command failed: the error, which also says with what code the program ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("{message}")]
    Said { exit: Exit, message: String },
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Pipeline(error.into())
    }
}
impl From<GraphError> for Failure {
    fn from(error: GraphError) -> Self {
        Failure::Pipeline(error.into())
    }
}
impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Failure::Pipeline(error.into())
    }
}

impl Failure {
    /// A failure that pnb itself words; the message completes "failed to …".
    pub(super) fn said(exit: Exit, message: impl Into<String>) -> Self {
        Failure::Said {
            exit,
            message: message.into(),
        }
    }

    /// The way out, of errors that state it beside their message.
    pub(super) fn hint(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Failure::Policy(error) => error.hint(),
            Failure::Claim(error) => error.hint(),
            Failure::Pipeline(_) | Failure::Said { .. } => None,
        }
    }

    pub(super) fn exit(&self) -> Exit {
        let error = match self {
            Failure::Said { exit, .. } => return *exit,
            Failure::Policy(_) => return Exit::Usage,
            Failure::Claim(error) => return claim_exit(error),
            Failure::Pipeline(error) => error,
        };
        let error = match error {
            PipelineError::InMemory { source, .. } => source,
            error => error,
        };
        match error {
            PipelineError::NotHermetic { .. } => Exit::Hermetic,
            PipelineError::Lock(_) | PipelineError::NotLocked { .. } | PipelineError::LocalFile { .. } => Exit::Lock,
            PipelineError::Graph(_) | PipelineError::Spec { .. } => Exit::Graph,
            PipelineError::Fetch(_) => Exit::Fetch,
            PipelineError::Store(_) => Exit::Store,
            PipelineError::Stage { .. } | PipelineError::Deb(_) => Exit::Stage,
            PipelineError::Sandbox { source, .. } => match **source {
                SandboxError::Weaker { .. } | SandboxError::Unavailable { .. } => Exit::Hermetic,
                SandboxError::Store { .. } => Exit::Store,
                _ => Exit::Stage,
            },
            _ => Exit::Failure,
        }
    }
}

/// With what code the program ends when a manifest that was pointed at is not usable.
fn claim_exit(error: &ClaimError) -> Exit {
    match error {
        ClaimError::Read { .. }
        | ClaimError::NoManifest { .. }
        | ClaimError::Malformed { .. }
        | ClaimError::Variants { .. } => Exit::Claim,
        ClaimError::SchemaVersion { .. } => Exit::ClaimVersion,
        ClaimError::Sums { .. } | ClaimError::Missing { .. } | ClaimError::Edited { .. } => Exit::ClaimFiles,
    }
}

/// The project's directory.
pub(super) fn project_root(common: &Common) -> Result<PathBuf, Failure> {
    let start = common.project.as_deref().unwrap_or(Path::new("."));
    Ok(Project::find(start)?)
}

/// The project, read and checked.
pub(super) fn project(common: &Common) -> Result<Project, Failure> {
    Ok(Project::load(&project_root(common)?)?)
}

/// Where the store is.
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
    let none = || {
        Failure::said(
            Exit::Usage,
            "find a place for the store: HOME is not set\n\nhint: give one with --store or PNB_STORE",
        )
    };
    cache.map(|dir| dir.join("pnb")).ok_or_else(none)
}

/// The open store.
pub(super) fn store(common: &Common) -> Result<Arc<Store>, Failure> {
    Ok(Store::open(&store_path(common)?)?)
}

/// Where pinned files may come from.
pub(super) fn inputs(common: &Common) -> Result<Origins, Failure> {
    let mirror = common.mirror.as_deref().map(str::parse).transpose()?;
    Ok(Origins {
        sources: Sources {
            mirror,
            apt: fetch::load_apt_mirrors(Path::new("/etc/apt"))?,
        },
        offline: common.offline,
        parallel: fetch::DEFAULT_WORKERS,
    })
}

/// Options for running a single stage by hand.
pub(super) fn run_options() -> Result<RunOptions, Failure> {
    let helper =
        std::env::current_exe().map_err(|e| Failure::said(Exit::Failure, format!("find pnb's own program: {e}")))?;
    Ok(RunOptions {
        helper,
        hermetic: false,
        keep_failed: false,
        build_dir: None,
        verbose: false,
        exported: BTreeSet::new(),
        unkept: BTreeSet::new(),
        changed: Changed::default(),
    })
}

/// What was selected.
pub(super) struct Selected {
    /// Variants with their architecture, in order; empty when stages were named.
    pub(super) variants: Vec<(Variant, Arch)>,
    /// The nodes to build.
    pub(super) nodes: Vec<NodeId>,
}

/// Turns flags into nodes. A variant exists when there is a stage of its name.
pub(super) fn select(project: &Project, selection: &Selection) -> Result<Selected, Failure> {
    let mut selected = Selected {
        variants: Vec::new(),
        nodes: Vec::new(),
    };
    for arch in selection.arches() {
        for stage in &selection.stage {
            selected.nodes.push(project.graph.node(stage, arch)?);
        }
        if !selection.stage.is_empty() {
            continue;
        }
        let before = selected.nodes.len();
        let asked = !selection.variant.is_empty();
        let variants = if asked {
            selection.variant.clone()
        } else {
            Variant::ALL.to_vec()
        };
        for variant in variants {
            match project.graph.node(variant.as_str(), arch) {
                Ok(node) => {
                    selected.variants.push((variant, arch));
                    selected.nodes.push(node);
                }
                Err(error) if asked => return Err(error.into()),
                Err(GraphError::UnknownStage { .. } | GraphError::WrongArch { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if selected.nodes.len() == before {
            return Err(Failure::said(
                Exit::Graph,
                format!("find a variant for {arch}: no stage makes one"),
            ));
        }
    }
    Ok(selected)
}
