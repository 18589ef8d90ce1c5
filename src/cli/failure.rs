//! Why a command failed: any error that knows the exit code of the program.

use super::{
    Exit,
    full::{exit_of_full, is_full},
};
use pnb::{
    audit::{AuditError, PolicyError},
    boot::{MachineError, MediaError},
    fetch::FetchError,
    graph::GraphError,
    inspect::InspectError,
    model::Hint,
    pipeline::{OutputProblem, PipelineError, RelockError, VendorError, WorkerFault},
    publish::LayoutError,
    repro::{ChallengeError, ClaimError},
    sandbox::SandboxError,
    sign::{RefusalClass, SignError},
    store::StoreError,
};
use std::{borrow::Cow, error::Error};

/// An error that can end the program.
pub(super) trait Fatal: Hint {
    /// The exit code.
    fn exit(&self) -> Exit;
}

/// Why a command failed.
pub(super) struct Failure(Box<dyn Fatal>);

impl<E: Fatal + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl Failure {
    /// The error itself.
    pub(super) fn error(&self) -> &(dyn Error + 'static) {
        &*self.0
    }

    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        let exit = self.0.exit();
        match self.is_full() {
            true => exit_of_full(exit),
            false => exit,
        }
    }

    /// Whether a full disk is the cause.
    pub(super) fn is_full(&self) -> bool {
        is_full(self.error())
    }

    /// The way out, where there is one.
    pub(super) fn hint(&self) -> Option<Cow<'_, str>> {
        self.0.hint()
    }
}

impl Fatal for PipelineError {
    fn exit(&self) -> Exit {
        match self {
            PipelineError::InMemory { source, .. } => source.exit(),
            PipelineError::Lock(_)
            | PipelineError::NoLock { .. }
            | PipelineError::NotLocked { .. }
            | PipelineError::NoBase
            | PipelineError::BaseImage { .. }
            | PipelineError::Files { .. }
            | PipelineError::FilesNotLocked { .. }
            | PipelineError::LocalFile { .. } => Exit::Lock,
            PipelineError::Graph(_) | PipelineError::Spec { .. } | PipelineError::NoVariant { .. } => Exit::Graph,
            PipelineError::Fetch(_) | PipelineError::Lost { .. } => Exit::Fetch,
            PipelineError::Remote(error) => error.exit(),
            PipelineError::Store(_) => Exit::Store,
            PipelineError::BuildersDisagree { .. } | PipelineError::OneWorker { .. } => Exit::Disagree,
            PipelineError::OtherMachine { .. } | PipelineError::NotOnWorkers { .. } => Exit::Usage,
            PipelineError::Host(_) => Exit::Hermetic,
            PipelineError::Output {
                source: OutputProblem::Space { .. },
                ..
            } => Exit::Store,
            PipelineError::Stage { .. } | PipelineError::Deb(_) => Exit::Stage,
            PipelineError::Worker { fault, .. } => match fault {
                WorkerFault::Stage => Exit::Stage,
                WorkerFault::Sandbox => Exit::Hermetic,
                WorkerFault::Store => Exit::Store,
                WorkerFault::Other => Exit::Failure,
            },
            PipelineError::Sandbox(error) => match **error {
                SandboxError::Weaker { .. } | SandboxError::Unavailable { .. } | SandboxError::Unusable { .. } => {
                    Exit::Hermetic
                }
                SandboxError::Store { .. } => Exit::Store,
                _ => Exit::Stage,
            },
            _ => Exit::Failure,
        }
    }
}

impl Fatal for GraphError {
    fn exit(&self) -> Exit {
        Exit::Graph
    }
}

impl Fatal for VendorError {
    fn exit(&self) -> Exit {
        match self {
            VendorError::Fetch(error) => error.exit(),
            VendorError::UnknownArchive { .. } | VendorError::Path { .. } => Exit::Lock,
            VendorError::Store(_) | VendorError::NotStored { .. } | VendorError::OtherBytes { .. } => Exit::Store,
            VendorError::Write { .. } => Exit::Failure,
        }
    }
}

impl Fatal for RelockError {
    fn exit(&self) -> Exit {
        match self {
            RelockError::Stages(error) => error.exit(),
            RelockError::Origins(error) => error.exit(),
            _ => Exit::Lock,
        }
    }
}

impl Fatal for MediaError {
    fn exit(&self) -> Exit {
        match self {
            MediaError::CardSize { .. } | MediaError::KeptName { .. } | MediaError::BiosSectors { .. } => Exit::Usage,
            _ => Exit::Boot,
        }
    }
}

impl Fatal for ClaimError {
    fn exit(&self) -> Exit {
        match self {
            ClaimError::Read { .. }
            | ClaimError::NoManifest { .. }
            | ClaimError::Malformed { .. }
            | ClaimError::Variants { .. } => Exit::Claim,
            ClaimError::SchemaVersion { .. } => Exit::ClaimVersion,
            ClaimError::Sums { .. } | ClaimError::Missing { .. } | ClaimError::Edited { .. } => Exit::ClaimFiles,
        }
    }
}

impl Fatal for SignError {
    fn exit(&self) -> Exit {
        match self {
            SignError::Root { .. } => Exit::Signature(RefusalClass::Certificate),
            SignError::Config { .. } => Exit::Usage,
            _ => Exit::Failure,
        }
    }
}

impl Fatal for LayoutError {
    fn exit(&self) -> Exit {
        match self.is_refusal() {
            true => Exit::PublishRefused,
            false => Exit::Failure,
        }
    }
}

/// Errors that always end the program with the same code.
macro_rules! always {
    ($($error:ty => $exit:ident),* $(,)?) => {$(
        impl Fatal for $error {
            fn exit(&self) -> Exit {
                Exit::$exit
            }
        }
    )*};
}
always! {
    AuditError => Failure,
    ChallengeError => Usage,
    FetchError => Fetch,
    InspectError => Unreadable,
    MachineError => Usage,
    PolicyError => Usage,
    StoreError => Store,
}
