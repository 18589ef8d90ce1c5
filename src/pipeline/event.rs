//! The events of a build, for display.

use crate::{graph::Reason, model::NodeId};
use serde::Serialize;
use std::path::PathBuf;

/// An event of a build.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The build begins.
    Begin {
        /// Number of its stages.
        stages: usize,
    },
    /// The store has the record of a stage already.
    Cached {
        /// The stage.
        node: NodeId,
        /// Its key.
        key: String,
    },
    /// Files are being fetched.
    Fetching {
        /// The stage that needs them, or the lock.
        what: String,
        /// Number of files.
        files: usize,
        /// Size of all files in bytes.
        total: u64,
    },
    /// More bytes of the files have arrived.
    Fetched {
        /// The stage that needs the files, or the lock.
        what: String,
        /// Bytes so far.
        bytes: u64,
        /// Size of all files in bytes.
        total: u64,
    },
    /// A stage waits until another builder, which runs it, has finished.
    Queued {
        /// The stage.
        node: NodeId,
    },
    /// The server of a place asks for a wait.
    Waiting {
        /// The place.
        place: String,
        /// The wait in seconds.
        seconds: u64,
    },
    /// A stage starts.
    Started {
        /// The stage.
        node: NodeId,
        /// The reasons to run it.
        reasons: Vec<Reason>,
    },
    /// A line of a stage's output.
    Log {
        /// The stage.
        node: NodeId,
        /// The line, without control characters.
        line: String,
    },
    /// A stage succeeded.
    Finished {
        /// The stage.
        node: NodeId,
        /// Its key.
        key: String,
        /// Wall time in milliseconds.
        wall_ms: u64,
        /// CPU time in milliseconds.
        cpu_ms: u64,
        /// Highest memory use in bytes.
        peak_memory: u64,
    },
    /// A stage failed; the error follows.
    Failed {
        /// The stage.
        node: NodeId,
    },
    /// A layer of the sandbox is missing or weaker, which the manifest will state.
    Weaker {
        /// The layer and the reason.
        layer: String,
    },
    /// An artifact is in place.
    Exported {
        /// Its directory.
        dir: PathBuf,
        /// Whether the directory had the artifact already.
        unchanged: bool,
    },
}

/// A receiver of events, called from any thread.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);
