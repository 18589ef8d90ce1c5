//! Records and outputs on their way from a store to a cache.

use super::{
    BlobDigest, CachedResult, EntryKind, Parts, RemoteError, StageResults, action_digest,
    results::{LOG, local_io},
};
use crate::{
    model::StageKey,
    store::{Output, Record, Store},
};
use std::{collections::BTreeMap, fs, path::Path};

/// Most bytes of a log that are read.
const MAX_LOG: u64 = 64 << 20;

/// What became of a result that was offered to a cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// The cache has it now; so many bytes were sent.
    Sent(u64),
    /// The cache had an equal result.
    Present,
    /// Sending it would take longer than making it again.
    NotWorth,
    /// The cache has other outputs under this key.
    Differs(BTreeMap<String, Output>),
}

impl StageResults {
    /// Offers the result of a stage that ran here. `worth` is asked with the number of bytes that would be sent, and the cache's record is
    /// written last. A result that the cache has is left alone, unless it is to be replaced, or comes from a weaker sandbox.
    ///
    /// # Errors
    ///
    /// If the cache does not take it, or if an object of the store cannot be read.
    pub fn publish(
        &self,
        store: &Store,
        key: &StageKey,
        record: &Record,
        log: Option<&Path>,
        replace: bool,
        worth: &dyn Fn(u64) -> bool,
    ) -> Result<Published, RemoteError> {
        // Another builder may have been faster; and a result that was not looked up may be there.
        if !replace && let Some(found) = self.lookup(key)? {
            if found.record.outputs != record.outputs {
                return Ok(Published::Differs(found.record.outputs));
            }
            if found.record.weaker.is_empty() || !record.weaker.is_empty() {
                return Ok(Published::Present);
            }
        }
        let parts = Parts::of_result(store, record, log)?;
        self.send(EntryKind::Record, &key.to_string(), &parts, worth)
    }

    /// Sends the blobs that the cache lacks, and then the result that names all of them.
    pub(super) fn send(
        &self,
        kind: EntryKind,
        key: &str,
        parts: &Parts,
        worth: &dyn Fn(u64) -> bool,
    ) -> Result<Published, RemoteError> {
        let missing = parts.missing(&*self.cache)?;
        let bytes = missing.iter().map(|blob| blob.size).sum();
        if !worth(bytes) {
            return Ok(Published::NotWorth);
        }
        parts.send(&*self.cache, missing, &|path| Err(self.bad(format!("it lost {path}"))))?;
        let files = parts.blobs();
        self.cache
            .put_result(&action_digest(kind, key), &CachedResult { files })?;
        Ok(Published::Sent(bytes))
    }

    /// Writes a result into the new directory `dir`, for a worker.
    ///
    /// # Errors
    ///
    /// If an object cannot be read, or a file cannot be written.
    pub fn write_folder(store: &Store, record: &Record, log: Option<&Path>, dir: &Path) -> Result<(), RemoteError> {
        Parts::of_result(store, record, log)?.write_folder(dir)
    }

    /// Writes the log of a stage that failed and a file that says why into the new directory `dir`, for a worker.
    ///
    /// # Errors
    ///
    /// If they cannot be read or written.
    pub fn write_failure(log: Option<&Path>, (name, reason): (&str, Vec<u8>), dir: &Path) -> Result<(), RemoteError> {
        let mut parts = Parts::default();
        parts.bytes(name, reason);
        if let Some(log) = log {
            parts.bytes(LOG, fs::read(log).map_err(local_io("read a log"))?);
        }
        parts.write_folder(dir)
    }

    /// The log among the files of a result; empty if there is none, or one of more than 64 MiB.
    ///
    /// # Errors
    ///
    /// If the cache does not have it.
    pub fn read_log(&self, files: &BTreeMap<String, BlobDigest>) -> Result<Vec<u8>, RemoteError> {
        self.read_extra(files, LOG, MAX_LOG)
    }

    /// The file of this name among the files of a result; empty if there is none, or one of more than `longest` bytes.
    ///
    /// # Errors
    ///
    /// If the cache does not have it.
    pub fn read_extra(
        &self,
        files: &BTreeMap<String, BlobDigest>,
        name: &str,
        longest: u64,
    ) -> Result<Vec<u8>, RemoteError> {
        let mut bytes = Vec::new();
        if let Some(blob) = files.get(name).filter(|blob| blob.size <= longest) {
            self.cache.read(blob, &mut bytes, &|_| {})?;
        }
        Ok(bytes)
    }

    /// Stores a result of which the cache has all blobs under the key.
    ///
    /// # Errors
    ///
    /// If the cache does not take it.
    pub fn name_result(&self, key: &StageKey, files: BTreeMap<String, BlobDigest>) -> Result<(), RemoteError> {
        let action = action_digest(EntryKind::Record, &key.to_string());
        self.cache.put_result(&action, &CachedResult { files })
    }
}
