//! Why a build could not be made.

use crate::{
    debian::DebError,
    fetch::FetchError,
    graph::{GraphError, NodeId},
    lock::LockError,
    manifest::ManifestError,
    sandbox::SandboxError,
    store::StoreError,
};
use std::path::PathBuf;

/// An error of the pipeline; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// There is no project here.
    #[error(
        "find lockfile.toml and stages/ in {path:?} or above it\n\nhint: run pnb in the project, or give --project DIR"
    )]
    NoProject {
        /// Where the search began.
        path: PathBuf,
    },
    /// git could not say where the project stands.
    #[error(
        "ask git about {project:?}: {problem}\n\nhint: install git; for a repository of another user, `git config --global --add safe.directory DIR`"
    )]
    Git {
        /// The project.
        project: PathBuf,
        /// What git said.
        problem: String,
    },
    /// `--hermetic` cannot be kept.
    #[error("build hermetically: {problem}")]
    NotHermetic {
        /// Why, and the way out.
        problem: String,
    },
    /// The lock.
    #[error(transparent)]
    Lock(Box<LockError>),
    /// The lock lacks something a stage wants.
    #[error("find {what} in lockfile.toml\n\nhint: `pnb lock` adds what the stages want")]
    NotLocked {
        /// What is missing.
        what: String,
    },
    /// A pinned file of the project or the command line has other bytes than the lock says.
    #[error(
        "take the pinned file {name} from {path:?}: it is not the locked one\nexpected: {expected}\n  actual: {actual}\n\nhint: after changing it on purpose, run `pnb lock`"
    )]
    LocalFile {
        /// Its name in the lock.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
        /// What the lock says.
        expected: crate::model::Sha256Digest,
        /// What is there (of at most one byte more than the locked size).
        actual: crate::model::Sha256Digest,
    },
    /// The stages.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Fetching.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A package could not be read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The sandbox.
    #[error("run the stage {node}")]
    Sandbox {
        /// Which stage.
        node: NodeId,
        /// Why.
        #[source]
        source: Box<SandboxError>,
    },
    /// A stage ran and failed.
    #[error(
        "build {node}: {problem}\n{tail}\nlog: {log}\n\nhint: `pnb shell {} --arch {}` opens a shell in its sandbox",
        node.stage,
        node.arch
    )]
    Stage {
        /// Which.
        node: NodeId,
        /// How it ended.
        problem: String,
        /// The last lines of its log.
        tail: String,
        /// Where the whole log is, and the build directory if it was kept.
        log: String,
    },
    /// What was said of the platform cannot go onto a medium.
    #[error("take {what}: {problem}")]
    Platform {
        /// What was said.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A stage.toml asks for something that does not exist.
    #[error("prepare the sandbox of {node}: {problem}")]
    Spec {
        /// Which stage.
        node: NodeId,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{what} {path:?}")]
    Io {
        /// The verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There was no room left where two builds lay in memory.
    #[error("build twice below {path:?}\n\nhint: that is memory; keep both stores on disk with --on-disk")]
    InMemory {
        /// Where they lay.
        path: PathBuf,
        /// What failed.
        #[source]
        source: Box<PipelineError>,
    },
    /// The statements about an artifact.
    #[error(transparent)]
    Manifest(ManifestError),
    /// Something the build gathers for the manifest is not there.
    #[error("describe the artifact: {problem}")]
    Describe {
        /// What.
        problem: String,
    },
}

impl From<LockError> for PipelineError {
    fn from(error: LockError) -> Self {
        PipelineError::Lock(Box::new(error))
    }
}

impl PipelineError {
    /// For `map_err` on I/O results.
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| PipelineError::Io { what, path, source }
    }
}
