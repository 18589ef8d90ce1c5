//! [`StageResults`]: the records and outputs of stages in a cache.
//!
//! A stage's result has these files; every path is pnb's own and means nothing to a server:
//!
//! | path | content |
//! |---|---|
//! | `record` | the record, as in the store |
//! | `log` | the log of the run |
//! | `o/<fs-verity digest>` | an output that is a file, or an object of more than [`MAX_PACKED`](super::MAX_PACKED) bytes of a tree |
//! | `t/<fs-verity digest>.dump` | the dump of an output that is a tree |
//! | `t/<fs-verity digest>.pack` | the objects of at most [`MAX_PACKED`](super::MAX_PACKED) bytes of that tree, as a [pack](super::write_pack) |
//!
//! A tree is complete in the store once its dump is there, as after a stage that ran here: the dump is stored last.

use super::{BlobDigest, CachedResult, EntryKind, Parts, RemoteCache, RemoteError, SMALL_BLOBS, action_digest};
use crate::{
    model::{StageKey, VerityDigest, chain},
    store::{Output, Record, StoreError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

/// Path of the record among a result's files.
pub(super) const RECORD: &str = "record";
/// Path of the log among a result's files.
pub(super) const LOG: &str = "log";
/// Path of the only file of a result of [`EntryKind::Facts`].
const FACTS: &str = "facts";
/// Most bytes of a record; the largest of pnb's own stages has some 20 KB.
const MAX_RECORD: u64 = 1 << 20;
/// Most bytes of what the statements say about packages.
const MAX_FACTS: u64 = 32 << 20;
/// A file of at most this many bytes is read together with the record.
pub(super) const MAX_WITH_RECORD: u64 = 64 << 10;

/// The files of a result, or of the inputs of a job.
#[derive(Clone, Debug, Default)]
pub struct ResultFiles {
    pub(super) files: BTreeMap<String, BlobDigest>,
    /// The content of small files, which came with the record.
    pub(super) small: BTreeMap<BlobDigest, Vec<u8>>,
}

/// The result of a stage that a cache has.
#[derive(Clone, Debug)]
pub struct FoundResult {
    /// The key of the stage.
    pub key: StageKey,
    /// Its record. That its canonical form has the key was checked.
    pub record: Record,
    /// The blobs of its outputs.
    pub files: ResultFiles,
}

impl FoundResult {
    /// The files of an output: of a tree its dump, its pack, and every large object of the result, of which only the dump says whose they
    /// are.
    pub fn files_of(&self, output: &Output) -> BTreeMap<String, BlobDigest> {
        let of_tree = |digest: &VerityDigest, path: &String| {
            *path == dump_path(digest) || *path == pack_path(digest) || path.starts_with("o/")
        };
        let files = self.files.files.iter().filter(|(path, _)| match output {
            Output::File { digest, .. } => **path == object_path(digest),
            Output::Tree { digest } => of_tree(digest, path),
        });
        files.map(|(path, blob)| (path.clone(), *blob)).collect()
    }
}

impl From<BTreeMap<String, BlobDigest>> for ResultFiles {
    fn from(files: BTreeMap<String, BlobDigest>) -> Self {
        let small = BTreeMap::new();
        Self { files, small }
    }
}

impl ResultFiles {
    /// The blob of each file by path.
    pub fn blobs(&self) -> &BTreeMap<String, BlobDigest> {
        &self.files
    }

    /// The log of the run, if it is small.
    pub fn log(&self) -> Option<&[u8]> {
        self.small.get(self.files.get(LOG)?).map(Vec::as_slice)
    }

    /// Whether the content of an output came with the record.
    pub fn is_here(&self, output: &Output) -> bool {
        let Output::File { digest, .. } = output else {
            return false;
        };
        self.files
            .get(&object_path(digest))
            .is_some_and(|blob| self.small.contains_key(blob))
    }

    /// Bytes of the blobs of an output, of which the store may have some already.
    pub fn size_of(&self, output: &Output) -> u64 {
        match output {
            Output::File { size, .. } => *size,
            Output::Tree { digest } => {
                let names = [dump_path(digest), pack_path(digest)];
                names
                    .iter()
                    .filter_map(|name| self.files.get(name))
                    .map(|blob| blob.size)
                    .sum()
            }
        }
    }
}

/// The records and outputs of stages in a cache.
#[derive(Clone, Debug)]
pub struct StageResults {
    pub(super) cache: Arc<dyn RemoteCache>,
}

pub(super) fn object_path(digest: &VerityDigest) -> String {
    format!("o/{digest}")
}

pub(super) fn dump_path(digest: &VerityDigest) -> String {
    format!("t/{digest}.dump")
}

pub(super) fn pack_path(digest: &VerityDigest) -> String {
    format!("t/{digest}.pack")
}

/// The store failed on this machine.
pub(super) fn local(doing: &'static str) -> impl Fn(StoreError) -> RemoteError {
    move |error| RemoteError::Local {
        doing: doing.to_owned(),
        source: io::Error::other(chain(&error)),
    }
}

pub(super) fn local_io(doing: &'static str) -> impl Fn(io::Error) -> RemoteError {
    move |source| RemoteError::Local {
        doing: doing.to_owned(),
        source,
    }
}

impl StageResults {
    /// The results in `cache`.
    pub fn new(cache: Arc<dyn RemoteCache>) -> Self {
        Self { cache }
    }

    /// The server as messages name it.
    pub fn name(&self) -> &str {
        self.cache.name()
    }

    /// Whether these are the files of a stage that ended well.
    pub fn has_record(files: &BTreeMap<String, BlobDigest>) -> bool {
        files.contains_key(RECORD)
    }

    pub(super) fn bad(&self, problem: impl Into<String>) -> RemoteError {
        RemoteError::Result {
            server: self.name().to_owned(),
            problem: problem.into(),
        }
    }

    /// The result for a key. Nothing of its outputs is read but small files.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Result`] if the record is not one of this key, or lacks a blob of an output.
    pub fn lookup(&self, key: &StageKey) -> Result<Option<FoundResult>, RemoteError> {
        let found = self.cache.result(&action_digest(EntryKind::Record, &key.to_string()))?;
        found.map(|found| self.read(key, found.files)).transpose()
    }

    /// The record for a key, and nothing else.
    ///
    /// # Errors
    ///
    /// As [`StageResults::lookup`].
    pub fn record(&self, key: &StageKey) -> Result<Option<Record>, RemoteError> {
        let found = self.cache.result(&action_digest(EntryKind::Record, &key.to_string()))?;
        let read = |found: CachedResult| self.read_beside(key, found.files, 0);
        Ok(found.map(read).transpose()?.map(|found| found.record))
    }

    /// Reads the record and the small files of a result.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Result`] if the record is not one of this key, or lacks a blob of an output.
    pub fn read(&self, key: &StageKey, files: BTreeMap<String, BlobDigest>) -> Result<FoundResult, RemoteError> {
        self.read_beside(key, files, SMALL_BLOBS)
    }

    /// Reads the record of a result, and small files as long as all are of at most `most` bytes together.
    fn read_beside(
        &self,
        key: &StageKey,
        files: BTreeMap<String, BlobDigest>,
        most: u64,
    ) -> Result<FoundResult, RemoteError> {
        let blob = *files.get(RECORD).ok_or_else(|| self.bad("it has no record"))?;
        if blob.size > MAX_RECORD {
            return Err(self.bad(format!("its record has {} bytes", blob.size)));
        }
        let mut wanted = vec![blob];
        let mut bytes = blob.size;
        for blob in files.values().collect::<BTreeSet<_>>() {
            if blob.size <= MAX_WITH_RECORD && bytes + blob.size <= most && !wanted.contains(blob) {
                bytes += blob.size;
                wanted.push(*blob);
            }
        }
        let contents = self.cache.read_small(&wanted)?;
        let small: BTreeMap<_, _> = wanted.into_iter().zip(contents).collect();
        let text = small
            .get(&blob)
            .map(|bytes| String::from_utf8_lossy(bytes))
            .unwrap_or_default();
        let record = Record::from_text(key, &text)
            .ok_or_else(|| self.bad("its record is damaged, of another version of pnb, or of another key"))?;
        let found = FoundResult {
            key: *key,
            record,
            files: ResultFiles { files, small },
        };
        for output in found.record.outputs.values() {
            let (path, size) = match output {
                Output::File { digest, size } => (object_path(digest), Some(*size)),
                Output::Tree { digest } => (dump_path(digest), None),
            };
            let blob = self.blob_of(&found.files, &path)?;
            if size.is_some_and(|size| size != blob.size) {
                return Err(self.bad(format!(
                    "{path} has {} bytes, and another number in the record",
                    blob.size
                )));
            }
        }
        Ok(found)
    }

    /// The blob of a file of a result.
    pub(super) fn blob_of<'a>(&self, files: &'a ResultFiles, path: &str) -> Result<&'a BlobDigest, RemoteError> {
        files
            .files
            .get(path)
            .ok_or_else(|| self.bad(format!("it has no file {path}")))
    }

    /// What the statements say about packages, under a digest of the packages; `None` if the cache does not have it.
    ///
    /// # Errors
    ///
    /// If the cache does not answer, or not as it should.
    pub fn facts(&self, key: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        let Some(CachedResult { files }) = self.cache.result(&action_digest(EntryKind::Facts, key))? else {
            return Ok(None);
        };
        let blob = *files.get(FACTS).ok_or_else(|| self.bad("it has no facts"))?;
        if blob.size > MAX_FACTS {
            return Err(self.bad(format!("its facts have {} bytes", blob.size)));
        }
        let mut facts = Vec::new();
        self.cache.read(&blob, &mut facts, &|_| {})?;
        Ok(Some(facts))
    }

    /// Stores what the statements say about packages.
    ///
    /// # Errors
    ///
    /// If the cache does not take it.
    pub fn put_facts(&self, key: &str, facts: Vec<u8>) -> Result<(), RemoteError> {
        let mut parts = Parts::default();
        parts.bytes(FACTS, facts);
        self.send(EntryKind::Facts, key, &parts, &|_| true).map(|_| ())
    }
}
