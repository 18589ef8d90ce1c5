//! Why a command failed, and with what code the program ends then.

use super::Exit;
use pnb::{
    audit::PolicyError, fetch::FetchError, graph::GraphError, inspect::InspectError, pipeline::PipelineError,
    repro::ClaimError, sandbox::SandboxError, store::StoreError,
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
    #[error(transparent)]
    Inspect(#[from] InspectError),
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

    /// The way out, where the error names one.
    pub(super) fn hint(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Failure::Pipeline(error) => pnb::model::Hint::hint(error),
            _ => None,
        }
    }

    pub(super) fn exit(&self) -> Exit {
        let error = match self {
            Failure::Said { exit, .. } => return *exit,
            Failure::Policy(_) => return Exit::Usage,
            Failure::Inspect(_) => return Exit::Unreadable,
            Failure::Claim(error) => return claim_exit(error),
            Failure::Pipeline(error) => error,
        };
        let error = match error {
            PipelineError::InMemory { source, .. } => source,
            error => error,
        };
        match error {
            PipelineError::NotHermetic { .. } => Exit::Hermetic,
            PipelineError::Lock(_)
            | PipelineError::NoLock { .. }
            | PipelineError::NotLocked { .. }
            | PipelineError::LocalFile { .. } => Exit::Lock,
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
