//! Why the stages cannot be a graph.

use std::path::PathBuf;

/// An error in a `stage.toml`, or between several; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A file does not parse or breaks the schema.
    #[error("read {file}, line {line}: {problem}")]
    Schema {
        /// The file, as the user knows it.
        file: String,
        /// 1-based line.
        line: usize,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A file or directory could not be read.
    #[error("read {path:?}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Stages that need each other.
    #[error("order the stages: {} need each other", cycle.join(" → "))]
    Cycle {
        /// The names, the first repeated at the end.
        cycle: Vec<String>,
    },
    /// A stage that was asked for does not exist.
    #[error("find the stage {name:?}\n\nhint: the stages are {}", known.join(", "))]
    UnknownStage {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A stage that does not exist for an architecture.
    #[error("build {stage} for {arch}: the stage is only for {only}")]
    WrongArch {
        /// Its name.
        stage: String,
        /// What was asked for.
        arch: String,
        /// What it is for.
        only: String,
    },
}
