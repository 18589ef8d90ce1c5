//! What the doubles share: the blobs and results that they keep, and what they do wrong.

use crate::client::digest_of;
use bazel_remote_apis::build::bazel::remote::execution::v2::ActionResult;
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// What a double does wrong. Blobs are named by their SHA-256 in hexadecimal digits, actions by that of the action.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Blobs in place of which other bytes of the same length come.
    pub(crate) wrong_bytes: BTreeSet<String>,
    /// Blobs that are said to be there, and are not when they are read.
    pub(crate) missing: BTreeSet<String>,
    /// Blobs of which half the bytes come, and nothing says that this is not all.
    pub(crate) short: BTreeSet<String>,
    /// Blobs of which half the bytes come, and then the end of the connection.
    pub(crate) closes_in_the_middle: BTreeSet<String>,
    /// The time before each byte of a blob.
    pub(crate) trickle: Option<Duration>,
    /// The time before the first byte of each answer.
    pub(crate) slow_first_byte: Option<Duration>,
    /// The cancellation of an operation is never answered.
    pub(crate) cancels_never: bool,
    /// The question for a result is never answered.
    pub(crate) results_never: bool,
    /// No space is left for uploads.
    pub(crate) full: bool,
    /// Uploads are forbidden.
    pub(crate) reader_only: bool,
    /// Uploads of results are forbidden, and those of blobs are not.
    pub(crate) keeps_results: bool,
    /// The number of calls to come that are refused as by a server that is overloaded or restarting.
    pub(crate) unavailable: u32,
    /// The number of calls to come, by their name, that are refused as by BuildGrid when all its threads have a call.
    pub(crate) busy: BTreeMap<&'static str, u32>,
}

/// What a double keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// Results of actions, encoded.
    pub(crate) results: BTreeMap<String, Vec<u8>>,
    pub(crate) faults: Faults,
    /// The bearer token without which every call is refused.
    pub(crate) token: Option<String>,
    /// Every call so far, by its name and what it names.
    pub(crate) calls: Vec<String>,
}

impl Kept {
    /// Adds a blob, and returns its name.
    pub(crate) fn add_blob(&mut self, bytes: &[u8]) -> String {
        let hash = digest_of(bytes).hash;
        self.blobs.insert(hash.clone(), bytes.to_vec());
        hash
    }

    /// Puts this result under an action, whatever is there: a poisoned entry.
    pub(crate) fn poison(&mut self, action: &str, result: &ActionResult) {
        self.results.insert(action.to_owned(), result.encode_to_vec());
    }

    /// The bytes that come for a blob, if any do.
    pub(crate) fn blob(&self, hash: &str) -> Option<Vec<u8>> {
        if self.faults.missing.contains(hash) {
            return None;
        }
        let mut bytes = self.blobs.get(hash)?.clone();
        if self.faults.wrong_bytes.contains(hash) {
            let middle = bytes.len() / 2;
            match bytes.get_mut(middle) {
                Some(byte) => *byte ^= 1,
                // Nothing of the same length is another.
                None => bytes.push(b'?'),
            }
        }
        if self.faults.short.contains(hash) {
            bytes.truncate(bytes.len() / 2);
        }
        Some(bytes)
    }

    /// Whether a blob is said to be there.
    pub(crate) fn has(&self, hash: &str) -> bool {
        self.blobs.contains_key(hash)
    }

    /// Whether a call with this value of `authorization` may be answered.
    pub(crate) fn admits(&self, authorization: Option<&str>) -> bool {
        let wanted = self.token.as_ref().map(|token| format!("Bearer {token}"));
        wanted.is_none() || authorization == wanted.as_deref()
    }

    /// Whether a call of this name is one too many.
    pub(crate) fn too_many(&mut self, call: &str) -> bool {
        let left = self.faults.busy.get_mut(call).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    /// Notes a call; `true` if it is to be refused as unavailable.
    pub(crate) fn call(&mut self, text: String) -> bool {
        self.calls.push(text);
        let refused = self.faults.unavailable > 0;
        self.faults.unavailable = self.faults.unavailable.saturating_sub(1);
        refused
    }
}

/// What a double keeps, for its threads and for the test.
#[derive(Clone, Default)]
pub(crate) struct SharedKept(Arc<Mutex<Kept>>);

impl SharedKept {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("whole")
    }
}
