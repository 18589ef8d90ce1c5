//! [`RemoteEngine`]: a server that runs actions on workers, beside its cache.

use super::{BlobDigest, RemoteCache, RemoteError};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

/// A file of the input root of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InputFile {
    /// Its content.
    pub blob: BlobDigest,
    /// Whether it can be executed.
    pub executable: bool,
}

/// A program to run on a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineAction {
    /// The command line; the first word is a path below the input root.
    pub arguments: Vec<String>,
    /// Environment variables. The worker adds none of its own, if its operator has set it up as `docs/scale.md` says.
    pub environment: BTreeMap<String, String>,
    /// The input root by path, without directories of their own. The cache has every blob.
    pub files: BTreeMap<String, InputFile>,
    /// The directory below the working directory that is collected afterwards.
    pub output: String,
    /// Properties that the worker must have.
    pub platform: BTreeMap<String, String>,
    /// The time that the program may take.
    pub timeout: Duration,
    /// The time that the action may wait for a worker.
    pub queue_timeout: Duration,
    /// Whether an equal action that ran before counts.
    pub accept_cached: bool,
    /// Whether the engine may keep the result for equal actions.
    pub keep: bool,
    /// Bytes that make equal actions different ones.
    pub salt: Vec<u8>,
}

/// A moment of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EngineProgress {
    /// It waits for a worker.
    Queued,
    /// A worker runs it.
    Running,
    /// Bytes that the program has printed.
    Printed(Vec<u8>),
}

/// The end of an action. The program may have failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executed {
    /// The exit code of the program.
    pub exit_code: i32,
    /// Files below the output directory, by their path there.
    pub files: BTreeMap<String, BlobDigest>,
    /// What the program printed on standard error, or its end.
    pub stderr: Vec<u8>,
    /// The worker, as the engine names it; empty if the engine does not say.
    pub worker: String,
    /// Whether an earlier run of an equal action was taken.
    pub cached: bool,
    /// The time between asking and the beginning of the run, as far as the engine says.
    pub queued: Duration,
    /// The time in which the worker fetched the inputs, as far as the engine says.
    pub fetched: Duration,
    /// The time that the program ran, as far as the engine says.
    pub ran: Duration,
    /// The time in which the worker stored the outputs, as far as the engine says.
    pub stored: Duration,
}

/// An engine. Its methods block, and may be called from several threads.
pub trait RemoteEngine: Send + Sync + fmt::Debug {
    /// The blobs and results of the same server.
    fn cache(&self) -> Arc<dyn RemoteCache>;

    /// Runs an action to its end. Dropping out by a `true` of `cancelled`, which is asked at least each second, cancels it on the server.
    ///
    /// # Errors
    ///
    /// If the server does not run it: no worker has the properties ([`RemoteError::NoWorker`]), the time in the queue or of the run is over,
    /// the server is gone, or it lost a blob.
    fn execute(
        &self,
        action: &EngineAction,
        progress: &dyn Fn(EngineProgress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Executed, RemoteError>;
}
