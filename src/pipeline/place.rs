//! [`RanAt`]: where a stage ran or its result came from, and where the time went there.

use crate::remote::Executed;
use serde::Serialize;
use std::time::Duration;

/// Where a stage ran in this build, or its result came from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "place", rename_all = "kebab-case")]
pub enum RanAt {
    /// On this machine.
    Here,
    /// A cache gave the result, now or earlier.
    Cache {
        /// The server.
        server: String,
    },
    /// On a worker.
    Worker {
        /// The worker and its engine.
        name: String,
        /// Where the time went.
        #[serde(flatten)]
        times: WorkerTimes,
    },
}

/// Where the time of an action went, in milliseconds, as far as its engine says: what it does not say is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WorkerTimes {
    /// The wait for a worker.
    pub queued_ms: u64,
    /// The inputs on their way to the worker.
    pub inputs_ms: u64,
    /// The program, with its sandbox.
    pub ran_ms: u64,
    /// The outputs on their way to the cache.
    pub outputs_ms: u64,
}

impl WorkerTimes {
    /// The times of an action.
    pub(super) fn new(executed: &Executed) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // An engine that took an earlier run says what that one took.
        match executed.cached {
            true => Self::default(),
            false => Self {
                queued_ms: ms(executed.queued),
                inputs_ms: ms(executed.fetched),
                ran_ms: ms(executed.ran),
                outputs_ms: ms(executed.stored),
            },
        }
    }

    /// Every part with its name, in the order in which they follow each other; empty if the engine says nothing.
    pub fn parts(&self) -> Vec<(&'static str, u64)> {
        let parts = [
            ("queued", self.queued_ms),
            ("inputs", self.inputs_ms),
            ("ran", self.ran_ms),
            ("outputs", self.outputs_ms),
        ];
        match parts.iter().all(|(_, ms)| *ms == 0) {
            true => Vec::new(),
            false => parts.to_vec(),
        }
    }
}
