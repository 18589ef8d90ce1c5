//! What most commands need first: the project, the store, where inputs come from.

use super::{
    Exit,
    args::{Common, GivenArgs, Selection},
    failure::Failure,
};
use pnb::{
    fetch::{self, Sources},
    graph::GraphError,
    inspect::SpoolDirectory,
    manifest::Host,
    model::{Arch, NodeId, Target, Variant},
    pipeline::{Origins, PipelineError, Project, RunOptions},
    store::Store,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

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
    Ok(RunOptions::new(helper))
}

/// What was selected.
pub(super) struct Selected {
    /// Variants with their architecture, in order; empty when stages were named.
    pub(super) targets: Vec<Target>,
    /// The nodes to build.
    pub(super) nodes: Vec<NodeId>,
}

/// Turns flags into nodes. A variant exists when there is a stage of its name.
pub(super) fn select(project: &Project, selection: &Selection) -> Result<Selected, Failure> {
    let mut selected = Selected {
        targets: Vec::new(),
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
                    selected.targets.push(Target { variant, arch });
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

/// Puts what the caller gives in the place of what the project has.
pub(super) fn give(project: &mut Project, given: &GivenArgs) -> Result<(), Failure> {
    if let Some(agent) = &given.agent {
        project.use_agent(agent)?;
    }
    if let Some(arch) = given.tools {
        project.use_tools_of(arch)?;
    }
    if let Some(url) = &given.platform_url {
        project.platform.set_url(url)?;
    }
    if let Some(path) = &given.ca_pem {
        project.platform.read_ca_pem(path)?;
    }
    Ok(())
}

/// What `--hermetic` asks of the project; the sandbox sees to the rest.
pub(super) fn hermetic(project: &Project, allow_dirty: bool) -> Result<(), Failure> {
    let revision = &project.revision;
    let problem = if allow_dirty {
        return Ok(());
    } else if revision.sha.is_none() {
        "the project is in no git commit, so its stage files cannot be named".to_owned()
    } else if !revision.dirty.is_empty() {
        format!("stage files are not committed:\n  {}", revision.dirty.join("\n  "))
    } else {
        return Ok(());
    };
    let hint = "commit them, or give --allow-dirty, which the manifest records";
    Err(PipelineError::NotHermetic { problem, hint }.into())
}

#[expect(clippy::disallowed_methods, reason = "the time goes into build-record.json only")]
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn host() -> Host {
    let (name, kernel) = match nix::sys::utsname::uname() {
        Ok(u) => {
            let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
            (
                text(u.nodename()),
                format!("{} {} {}", text(u.sysname()), text(u.release()), text(u.version())),
            )
        }
        Err(_) => (String::new(), String::new()),
    };
    Host {
        name,
        kernel,
        arch: Arch::host(),
        cpus: u32::try_from(processors()).unwrap_or(u32::MAX),
    }
}

/// A directory of the store for what compressed streams hold; it goes when the store is let go.
pub(super) fn spool(store: &Store) -> Result<SpoolDirectory, Failure> {
    let dir = store.scratch_path("inspect");
    fs::create_dir(&dir).map_err(|e| Failure::said(Exit::Store, format!("create {dir:?}: {e}")))?;
    Ok(SpoolDirectory::new(dir))
}
