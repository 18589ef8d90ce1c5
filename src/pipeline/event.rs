//! What happens during a build, for whoever shows it.

use crate::{graph::Reason, model::NodeId};
use serde::Serialize;
use std::path::PathBuf;

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Work begins on this many stages.
    Begin {
        /// How many.
        stages: usize,
    },
    /// A stage's result was in the store.
    Cached {
        /// Which.
        node: NodeId,
        /// Its key.
        key: String,
    },
    /// Files are being fetched.
    Fetching {
        /// For which stage, or for the lock.
        what: String,
        /// How many.
        files: usize,
        /// Bytes in all.
        total: u64,
    },
    /// So much of it is here.
    Fetched {
        /// For which stage.
        what: String,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A stage starts.
    Started {
        /// Which.
        node: NodeId,
        /// Why it could not be taken from the store.
        reasons: Vec<Reason>,
    },
    /// A line of a stage's output.
    Log {
        /// Which stage.
        node: NodeId,
        /// The line, without control characters.
        line: String,
    },
    /// A stage ended well.
    Finished {
        /// Which.
        node: NodeId,
        /// Its key.
        key: String,
        /// Wall time.
        wall_ms: u64,
        /// CPU time.
        cpu_ms: u64,
        /// Highest memory use.
        peak_memory: u64,
    },
    /// A stage failed; the error follows.
    Failed {
        /// Which.
        node: NodeId,
    },
    /// A layer of the sandbox is missing or weaker; the manifest will say so.
    Weaker {
        /// Which layer, and why.
        layer: String,
    },
    /// An artifact is in place.
    Exported {
        /// Its directory.
        dir: PathBuf,
        /// Whether it was already there, unchanged.
        unchanged: bool,
    },
}

/// Takes events from any thread.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);
