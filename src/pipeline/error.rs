//! Errors of the pipeline.

use crate::{
    debian::DebError,
    fetch::FetchError,
    graph::GraphError,
    lock::LockError,
    manifest::ManifestError,
    model::{Hint, NodeId, Sha256Digest},
    sandbox::SandboxError,
    store::StoreError,
};
use std::{borrow::Cow, path::PathBuf};

/// An error of the pipeline; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// There is no project here.
    #[error("find lockfile.toml and stages/ in {path:?} or above it")]
    NoProject {
        /// Where the search began.
        path: PathBuf,
    },
    /// git could not tell the project's revision.
    #[error("ask git about {project:?}: {problem}")]
    Git {
        /// The project.
        project: PathBuf,
        /// The answer of git.
        problem: String,
    },
    /// The lock.
    #[error(transparent)]
    Lock(Box<LockError>),
    /// There is no lock.
    #[error("read lockfile.toml: {project:?} has none yet")]
    NoLock {
        /// The project.
        project: PathBuf,
    },
    /// The lock lacks something a stage wants.
    #[error("find {what} in lockfile.toml")]
    NotLocked {
        /// What is missing.
        what: String,
    },
    /// A pinned file of the project or the command line has other bytes than the lock says.
    #[error(
        "take the pinned file {name} from {path:?}: it is not the locked one\nexpected: {expected}\n  actual: {actual}"
    )]
    LocalFile {
        /// Its name in the lock.
        name: String,
        /// The path it was read from.
        path: PathBuf,
        /// The digest in the lock.
        expected: Sha256Digest,
        /// The digest of the file (of at most one byte more than the locked size).
        actual: Sha256Digest,
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
        /// The stage.
        node: NodeId,
        /// The cause.
        #[source]
        source: Box<SandboxError>,
    },
    /// A stage ran and failed.
    #[error("build {node}: {problem}\n{tail}\nlog: {log}")]
    Stage {
        /// The stage.
        node: NodeId,
        /// How it ended.
        problem: String,
        /// The last lines of its log.
        tail: String,
        /// Where the whole log is, and the build directory if it was kept.
        log: String,
    },
    /// The platform's address or certificates cannot go onto a medium.
    #[error("take {what}: {problem}")]
    Platform {
        /// The address, or the file of certificates.
        what: String,
        /// The mistake in it.
        problem: String,
    },
    /// The sandbox of a stage cannot be described: its `stage.toml` or an input does not fit.
    #[error("prepare the sandbox of {node}: {problem}")]
    Spec {
        /// The stage.
        node: NodeId,
        /// The mistake.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{what} {path:?}")]
    Io {
        /// The verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Two builds in memory did not fit.
    #[error("build twice below {path:?}, which is in memory")]
    InMemory {
        /// The directory of both stores.
        path: PathBuf,
        /// The error of the build.
        #[source]
        source: Box<PipelineError>,
    },
    /// The statements about an artifact.
    #[error(transparent)]
    Manifest(ManifestError),
    /// A fact that the statements need is missing.
    #[error("describe the artifact: {problem}")]
    Describe {
        /// The missing fact.
        problem: String,
    },
}

impl From<LockError> for PipelineError {
    fn from(error: LockError) -> Self {
        PipelineError::Lock(Box::new(error))
    }
}

impl Hint for PipelineError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NoProject { .. } => Some("run pnb in the project, or give --project DIR".into()),
            Self::Git { .. } => Some(
                "install git; for a repository of another user, `git config --global --add safe.directory DIR`".into(),
            ),
            Self::NoLock { .. } => Some("`pnb lock` writes it".into()),
            Self::NotLocked { .. } => Some("`pnb lock` adds the missing packages and files".into()),
            Self::LocalFile { .. } => Some("after changing it on purpose, run `pnb lock`".into()),
            Self::Stage { node, .. } => Some(
                format!(
                    "`pnb shell {} --arch {}` opens a shell in its sandbox",
                    node.stage, node.arch
                )
                .into(),
            ),
            Self::InMemory { .. } => Some("--on-disk keeps both stores on disk".into()),
            Self::Lock(error) => error.hint(),
            Self::Graph(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Sandbox { source, .. } => source.hint(),
            Self::Deb(_)
            | Self::Platform { .. }
            | Self::Spec { .. }
            | Self::Io { .. }
            | Self::Manifest(_)
            | Self::Describe { .. } => None,
        }
    }
}

impl PipelineError {
    /// A fact for the statements is missing.
    pub(super) fn describe(problem: impl Into<String>) -> Self {
        PipelineError::Describe {
            problem: problem.into(),
        }
    }

    /// For `map_err` on I/O results.
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| PipelineError::Io { what, path, source }
    }
}
