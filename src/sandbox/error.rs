//! `SandboxError`: why a run gave no outcome.

use super::{OutputSpec, Spec};
use crate::{model::Hint, store::StoreError};
use std::{borrow::Cow, io, path::PathBuf};

/// Why a run gave no outcome; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The helper program could not be started.
    #[error("start the sandbox helper {path:?}")]
    Helper {
        /// The program.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The spec contradicts itself.
    #[error("run stage {stage}: {problem}")]
    Spec {
        /// The stage.
        stage: String,
        /// The contradiction.
        problem: String,
    },
    /// The host lacks a layer without which no sandbox can be made.
    #[error("run stage {stage}: no {layer} on this host: {problem}")]
    Unavailable {
        /// The stage.
        stage: String,
        /// The layer of the sandbox.
        layer: String,
        /// The message of the kernel or the tool.
        problem: String,
        /// The way out, for the hint.
        fix: String,
    },
    /// This machine runs no stage, or none with the ids that it needs.
    #[error("run stages on this machine: {problem}")]
    Unusable {
        /// The cause.
        problem: String,
        /// The way out, for the hint.
        fix: String,
    },
    /// A layer is weaker than the spec asks, and `--hermetic` was given.
    #[error("run stage {stage} hermetically: {reason}")]
    Weaker {
        /// The stage.
        stage: String,
        /// The layer and why it is weaker.
        reason: String,
    },
    /// A step of building the sandbox failed.
    #[error("run stage {stage}: {step}: {problem}")]
    Setup {
        /// The stage.
        stage: String,
        /// The step, e.g. `mount /inputs/x`.
        step: String,
        /// Why the step failed.
        problem: String,
    },
    /// The stage reached one of its limits.
    #[error("run stage {stage}: it reached its limit: {limit}")]
    Limit {
        /// The stage.
        stage: String,
        /// Name and value of the limit.
        limit: String,
    },
    /// The workload failed.
    #[error("run stage {stage}: {status}")]
    Failed {
        /// The stage.
        stage: String,
        /// The end of the workload: `exit code 3`, `signal 9`.
        status: String,
        /// The system calls that were refused before, each in a line with a line feed before it; may be empty.
        refused: String,
    },
    /// The workload ended well, but went on without system calls that the sandbox refused, and that its spec does not declare.
    #[error("run stage {stage}: it ended well although the sandbox refused system calls:{refused}")]
    Refused {
        /// The stage.
        stage: String,
        /// The refused calls, each in a line with a line feed before it.
        refused: String,
        /// The line of `stage.toml` that declares them; `None` if none of them is listed.
        declaration: Option<String>,
    },
    /// An output is missing, or has an entry that is not allowed to leave the sandbox.
    #[error("take output {output:?} of stage {stage}: {problem}")]
    Output {
        /// The stage.
        stage: String,
        /// The output.
        output: String,
        /// The entry and its fault.
        problem: String,
    },
    /// The log sink refused a part of the stage's log.
    #[error("write the log of stage {stage}")]
    Log {
        /// The stage.
        stage: String,
        /// The log sink's reason.
        source: io::Error,
    },
    /// The store refused the content of a file.
    #[error("store {path:?} of output {output:?} of stage {stage}")]
    Store {
        /// The stage.
        stage: String,
        /// The output.
        output: String,
        /// The file's path in the output.
        path: String,
        /// The store's reason.
        source: io::Error,
    },
    /// The helper ended early or broke the protocol.
    #[error("run stage {stage}: the sandbox helper {problem}")]
    Protocol {
        /// The stage.
        stage: String,
        /// The end or the breach, to follow "the sandbox helper".
        problem: String,
    },
}

impl SandboxError {
    /// `output` is refused because of `problem`.
    pub(super) fn refusal(spec: &Spec, output: &OutputSpec, problem: impl ToString) -> Self {
        Self::Output {
            stage: spec.stage.clone(),
            output: output.name.clone(),
            problem: problem.to_string(),
        }
    }
}

impl Hint for SandboxError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unavailable { fix, .. } => Some(fix.into()),
            Self::Unusable { fix, .. } => Some(format!("{fix}; `pnb doctor` tells more").into()),
            Self::Weaker { .. } => Some("run `pnb doctor`, or build without --hermetic".into()),
            Self::Failed { refused, .. } if !refused.is_empty() => {
                Some(format!("the cause may be that the sandbox refused it system calls:{refused}").into())
            }
            Self::Refused { declaration: Some(declaration), .. } => Some(
                format!(
                    "on a machine these calls work, and the outputs may be others; if they are right without them, declare that in the \
                     stage's stage.toml, below [sandbox]: {declaration}"
                )
                .into(),
            ),
            // The store's error comes through the caller's PutOutput, as an io::Error.
            Self::Store { source, .. } => source.get_ref()?.downcast_ref::<StoreError>()?.hint(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_of_the_store_is_passed_on() {
        let store = |source| SandboxError::Store {
            stage: "stage".to_owned(),
            output: "out".to_owned(),
            path: "file".to_owned(),
            source,
        };
        let busy = StoreError::Busy { path: "/store".into() };
        let hint = busy.hint().expect("there is a way out").into_owned();
        assert_eq!(store(io::Error::other(busy)).hint().as_deref(), Some(hint.as_str()));
        assert_eq!(store(io::Error::other("no space")).hint(), None);
    }
}
