//! Errors of stage files and of their graph.

use crate::{
    model::{Arch, Hint, hint_at_name},
    source::SourceError,
};
use std::borrow::Cow;

/// An error in a `stage.toml`, or between several; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A file does not parse or violates the schema.
    #[error("read {file}, line {line}: {problem}")]
    Schema {
        /// The file, as the user knows it.
        file: String,
        /// 1-based line.
        line: usize,
        /// The mistake, and the allowed values.
        problem: String,
    },
    /// A file or directory could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Stages depend on each other in a cycle.
    #[error("order the stages: {} need each other", cycle.join(" → "))]
    Cycle {
        /// The names of the cycle; the last is the first again.
        cycle: Vec<String>,
    },
    /// The requested stage does not exist.
    #[error("find the stage {name:?}")]
    UnknownStage {
        /// The requested name.
        name: String,
        /// The names of all stages.
        known: Vec<String>,
    },
    /// The stage does not exist for the requested architecture.
    #[error("build {stage} for {arch}: the stage is only for {only}")]
    WrongArch {
        /// Its name.
        stage: String,
        /// The requested architecture.
        arch: Arch,
        /// The architectures it exists for, separated by commas.
        only: String,
    },
}

impl Hint for GraphError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::UnknownStage { known, .. } => Some(format!("the stages are {}", known.join(", ")).into()),
            Self::WrongArch { stage, only, .. } => {
                let first = only.split(", ").next().unwrap_or(only);
                Some(format!("`pnb build --stage {stage} --arch {first}` builds it").into())
            }
            Self::Source(error) => error.hint(),
            Self::Schema { problem, .. } => hint_at_name(problem).map(Cow::from),
            Self::Cycle { .. } => None,
        }
    }
}
