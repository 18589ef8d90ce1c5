//! Errors of the pipeline.

use crate::{
    debian::DebError,
    fetch::FetchError,
    graph::GraphError,
    lock::LockError,
    manifest::ManifestError,
    model::{Hint, NodeId, Sha256Digest, Target, hint_at_name},
    remote::RemoteError,
    sandbox::SandboxError,
    source::SourceError,
    store::StoreError,
};
use std::{borrow::Cow, path::PathBuf};

/// An error of the pipeline; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// No project was found.
    #[error("find lockfile.toml and stages/ in {path:?} or above it")]
    NoProject {
        /// The directory in which the search began.
        path: PathBuf,
    },
    /// A file of the project or its repository could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// `stages/files.toml` is malformed.
    #[error("read stages/files.toml: {problem}")]
    Files {
        /// The fault, with the file.
        problem: String,
    },
    /// `stages/files.toml` and the lock name different files.
    #[error("use lockfile.toml: {problem}")]
    FilesNotLocked {
        /// The difference.
        problem: String,
    },
    /// The lock is faulty.
    #[error(transparent)]
    Lock(Box<LockError>),
    /// There is no lock.
    #[error("read lockfile.toml: {project:?} has none yet")]
    NoLock {
        /// The project.
        project: PathBuf,
    },
    /// The lock lacks a package or file that a stage wants.
    #[error("find {what} in lockfile.toml")]
    NotLocked {
        /// The missing package set or file.
        what: String,
    },
    /// A pinned file of the project or the command line has another digest than the lock says.
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
    /// An artifact is to be made of a stage that is none of a variant.
    #[error("export {target}: stages/{}/stage.toml declares no [variant]", target.variant)]
    NoVariant {
        /// The artifact.
        target: Target,
    },
    /// A stage needs the base image of the lock, which has none.
    #[error("find a base image in lockfile.toml: it has none")]
    NoBase,
    /// A base image cannot be used.
    #[error("use the base image {image}: {problem}")]
    BaseImage {
        /// The image.
        image: String,
        /// The fault.
        problem: String,
    },
    /// The stages are faulty.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A file could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A package could not be read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// This machine runs no stage.
    #[error(transparent)]
    Host(Box<SandboxError>),
    /// The sandbox failed; the error names the stage.
    #[error(transparent)]
    Sandbox(Box<SandboxError>),
    /// A stage ran and failed.
    #[error("build {node}: {problem}\n{tail}\nlog: {log}")]
    Stage {
        /// The stage.
        node: NodeId,
        /// The kind of failure: the exit status, the limit or the output.
        problem: String,
        /// The last lines of its log.
        tail: String,
        /// The path of the whole log, and that of the build directory if it was kept.
        log: String,
        /// The way out that the sandbox knows.
        hint: Option<Box<str>>,
    },
    /// The platform's address or certificates cannot go onto a medium.
    #[error("use {what}: {problem}")]
    Platform {
        /// The address, or the file of certificates.
        what: String,
        /// The fault.
        problem: String,
    },
    /// The sandbox of a stage cannot be described: its `stage.toml` or an input does not fit.
    #[error("prepare the sandbox of {node}: {problem}")]
    Spec {
        /// The stage.
        node: NodeId,
        /// The fault.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{what} {path:?}")]
    Io {
        /// The operation: a verb that completes "failed to …".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The directory of artifacts cannot hold them.
    #[error("use {path:?} for artifacts")]
    Output {
        /// The directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: super::OutputProblem,
    },
    /// The memory did not suffice for two builds.
    #[error("build twice below {path:?}, which is in memory")]
    InMemory {
        /// The directory of both stores.
        path: PathBuf,
        /// The error of the build.
        #[source]
        source: Box<PipelineError>,
    },
    /// A remote cache cannot be used, and the caller wants it.
    #[error(transparent)]
    Remote(Box<RemoteError>),
    /// An output that a remote cache was to give did not come; the reason was an event. The build begins anew without it.
    #[error("take the outputs of {node} from the remote cache")]
    Lost {
        /// The stage.
        node: NodeId,
    },
    /// Builders that run the same stage made different outputs.
    #[error("build {node}: the builders disagree about its output {output:?}{said}")]
    BuildersDisagree {
        /// The stage.
        node: NodeId,
        /// The output.
        output: String,
        /// A line for each builder, with the digest of what it made.
        said: String,
    },
    /// A stage runs on machines of another architecture, and no engine has them.
    #[error("build {node}: its stages run natively, and this machine is of another architecture")]
    OtherMachine {
        /// The stage.
        node: NodeId,
    },
    /// Builders that were asked for by name were not different workers.
    #[error("build {node} on different builders: {builders} were {worker}")]
    OneWorker {
        /// The stage.
        node: NodeId,
        /// The builders.
        builders: String,
        /// What they were.
        worker: String,
    },
    /// A stage can only run here, and a worker has to run it.
    #[error("build {node} on a worker: it has a base image as input, which does not travel")]
    NotOnWorkers {
        /// The stage.
        node: NodeId,
    },
    /// A stage could not be run on a worker, for a reason that is not the stage's.
    #[error("{problem}")]
    Worker {
        /// What failed there.
        fault: super::WorkerFault,
        /// The worker's own message, with its name.
        problem: String,
        /// The way out that the worker knows.
        hint: Option<Box<str>>,
    },
    /// A job from another machine cannot be run here.
    #[error("run the job: {problem}")]
    Job {
        /// The fault.
        problem: String,
    },
    /// The statements about an artifact could not be read or written.
    #[error(transparent)]
    Manifest(ManifestError),
    /// A fact that the statements need is missing.
    #[error("describe the artifact: {problem}")]
    Describe {
        /// The missing fact.
        problem: String,
    },
}

impl From<RemoteError> for PipelineError {
    fn from(error: RemoteError) -> Self {
        PipelineError::Remote(Box::new(error))
    }
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
            Self::Source(error) => error.hint(),
            Self::Files { problem } => hint_at_name(problem).map(Cow::from),
            Self::FilesNotLocked { .. } => Some("`pnb lock` pins the files of the list".into()),
            Self::NoLock { .. } => Some("`pnb lock` writes it".into()),
            Self::NoVariant { .. } => Some("declare its form in the stage file (stages/README.md, *Variants*)".into()),
            Self::NoBase => Some("`pnb lock --base NAME@sha256:…` pins one".into()),
            Self::BaseImage { .. } => Some(
                "`pnb lock --base NAME@sha256:…` pins another image, `pnb lock --no-base` none (docs/base-image.md)"
                    .into(),
            ),
            Self::NotLocked { .. } => {
                Some("run `pnb lock`: it adds what is missing, and moves no version of the other packages".into())
            }
            Self::LocalFile { .. } => Some("after changing it on purpose, run `pnb lock`".into()),
            Self::Stage { hint: Some(hint), .. } => Some(hint.as_ref().into()),
            Self::Worker { hint, .. } => hint.as_deref().map(Cow::from),
            Self::Stage { node, .. } => Some(
                format!(
                    "`pnb shell {} --arch {}` opens a shell in its sandbox",
                    node.stage, node.arch
                )
                .into(),
            ),
            Self::Output { source, .. } => Some(
                match source {
                    super::OutputProblem::Space { .. } => "make space there, or give another directory with --output",
                    super::OutputProblem::Size { .. } => {
                        "give a directory on another file system with --output; FAT has files of less than 4 GiB"
                    }
                    _ => "give another directory with --output",
                }
                .into(),
            ),
            Self::InMemory { .. } => Some("--on-disk keeps both stores on disk".into()),
            Self::Lock(error) => error.hint(),
            Self::Graph(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Remote(error) => error.hint(),
            Self::Lost { .. } => Some("run the command again".into()),
            Self::BuildersDisagree { node, .. } => Some(
                format!(
                    "nothing of it was published; `pnb verify-repro --stage {node}` tells whether the stage is irreproducible"
                )
                .into(),
            ),
            Self::OtherMachine { node: NodeId { arch, .. } } => Some(
                format!("name an engine that has {arch} workers with --remote, or leave --remote-native {arch} out").into(),
            ),
            Self::OneWorker { .. } => {
                Some("give each worker a property pnb-builder of its own, in the scheduler too (docs/scale.md)".into())
            }
            Self::NotOnWorkers { .. } => Some("leave --challenge and --remote-native out".into()),
            Self::Host(error) | Self::Sandbox(error) => error.hint(),
            Self::Deb(_)
            | Self::Job { .. }
            | Self::Platform { .. }
            | Self::Spec { .. }
            | Self::Io { .. }
            | Self::Manifest(_)
            | Self::Describe { .. } => None,
        }
    }
}

impl PipelineError {
    /// The error that a fact for the statements is missing.
    pub(super) fn describe(problem: impl Into<String>) -> Self {
        PipelineError::Describe {
            problem: problem.into(),
        }
    }

    /// The directory `path` cannot hold artifacts.
    pub(super) fn output(path: &std::path::Path, source: super::OutputProblem) -> Self {
        let path = path.to_owned();
        PipelineError::Output { path, source }
    }

    /// An I/O error at `path`, for `map_err`.
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| PipelineError::Io { what, path, source }
    }
}
