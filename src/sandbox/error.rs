//! Why a stage did not run to its end.

use std::{io, path::PathBuf};

/// Why the sandbox gave no outcome.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The helper program could not be started.
    #[error("start the sandbox helper {path:?}")]
    Helper {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A spec that contradicts itself.
    #[error("run stage {stage}: {problem}")]
    Spec {
        /// The stage.
        stage: String,
        /// What is wrong.
        problem: String,
    },
    /// The host lacks what no sandbox can do without.
    #[error("run stage {stage}: no {layer} on this host: {problem}\n\nhint: {fix}")]
    Unavailable {
        /// The stage.
        stage: String,
        /// The layer of the sandbox.
        layer: String,
        /// What the kernel or a tool said.
        problem: String,
        /// What to do about it.
        fix: String,
    },
    /// A layer is weaker than asked, and `--hermetic` was given.
    #[error("run stage {stage} hermetically: {what}\n\nhint: run `pnb doctor`, or build without --hermetic")]
    Weaker {
        /// The stage.
        stage: String,
        /// Which layer, and why.
        what: String,
    },
    /// A step of building the sandbox failed.
    #[error("run stage {stage}: {step}: {problem}")]
    Setup {
        /// The stage.
        stage: String,
        /// The step, e.g. `mount /inputs/x`.
        step: String,
        /// Why.
        problem: String,
    },
    /// The stage used up what it may use.
    #[error("run stage {stage}: it reached its limit: {limit}")]
    Limit {
        /// The stage.
        stage: String,
        /// Name and value of the limit.
        limit: String,
    },
    /// The stage ended with an error of its own.
    #[error("run stage {stage}: {status}")]
    Failed {
        /// The stage.
        stage: String,
        /// How it ended: `exit code 3`, `signal 9`.
        status: String,
    },
    /// An output is missing or holds something that may not leave the sandbox.
    #[error("take output {output:?} of stage {stage}: {problem}")]
    Output {
        /// The stage.
        stage: String,
        /// The output.
        output: String,
        /// The entry and what is wrong with it.
        problem: String,
    },
    /// What the stage printed could not be passed on.
    #[error("write the log of stage {stage}")]
    Log {
        /// The stage.
        stage: String,
        /// Why.
        source: io::Error,
    },
    /// The receiver of contents refused one.
    #[error("store {path:?} of output {output:?} of stage {stage}")]
    Store {
        /// The stage.
        stage: String,
        /// The output.
        output: String,
        /// The entry.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The helper went away or said something it cannot mean.
    #[error("run stage {stage}: the sandbox helper {problem}")]
    Protocol {
        /// The stage.
        stage: String,
        /// What happened.
        problem: String,
    },
}
