//! The events of a build, for display.

use crate::{
    graph::Reason,
    model::{NodeId, VerityDigest},
};
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
    /// The store or a cache has the record of a stage already.
    Cached {
        /// The stage.
        node: NodeId,
        /// Its key.
        key: String,
        /// The server whose cache has it; `None` if the store has it.
        #[serde(skip_serializing_if = "Option::is_none")]
        server: Option<String>,
    },
    /// The result of a stage was sent to a cache.
    Sent {
        /// The stage.
        node: NodeId,
        /// The server.
        server: String,
        /// The bytes that it did not have.
        bytes: u64,
    },
    /// A cache, or a result of it, is of no use.
    CacheLost {
        /// The server.
        server: String,
        /// The reason.
        problem: String,
        /// How the build goes on.
        then: String,
    },
    /// A stage gave another output here than a cache has: the cache is poisoned, or the stage is irreproducible.
    Disagrees {
        /// The stage.
        node: NodeId,
        /// The output.
        output: String,
        /// The server.
        server: String,
        /// The digest of the output here; `None` if there is none.
        here: Option<VerityDigest>,
        /// The digest that the cache claims.
        there: Option<VerityDigest>,
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
        /// The engine that runs it; `None` for this machine.
        #[serde(skip_serializing_if = "Option::is_none")]
        server: Option<String>,
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
        /// Where it ran.
        at: super::RanAt,
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
