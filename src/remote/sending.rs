//! Records and outputs on their way from a store to a cache.

use super::{
    BlobDigest, CachedResult, EntryKind, MAX_PACKED, RemoteError, SMALL_BLOBS, StageResults, action_digest,
    results::{LOG, MAX_WITH_RECORD, RECORD, dump_path, local, local_io, object_path, pack_path},
    scratch_file::ScratchFile,
    write_pack,
};
use crate::{
    model::{StageKey, VerityDigest, chain},
    store::{Output, Record, Store},
    verity,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

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
        let text = record.to_text().map_err(|e| local_io("write a record")(e.into()))?;
        let mut parts = Parts::default();
        parts.bytes(RECORD, text.into_bytes());
        if let Some(log) = log {
            parts.bytes(LOG, fs::read(log).map_err(local_io("read a log"))?);
        }
        for output in record.outputs.values() {
            match output {
                Output::File { digest, .. } => parts.object(store, digest)?,
                Output::Tree { digest } => parts.tree(store, digest)?,
            }
        }
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
        let files = &parts.files;
        let all: Vec<BlobDigest> = files
            .values()
            .map(|(blob, _)| *blob)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let missing = self.cache.missing(&all)?;
        let bytes = missing.iter().map(|blob| blob.size).sum();
        if !worth(bytes) {
            return Ok(Published::NotWorth);
        }
        let mut left = missing;
        let (mut batch, mut batched) = (Vec::new(), 0);
        for (blob, content) in files.values() {
            if !left.remove(blob) {
                continue;
            }
            match content {
                Part::Bytes(content) if blob.size <= MAX_WITH_RECORD => {
                    if batched + blob.size > SMALL_BLOBS {
                        self.cache.put_small(&batch)?;
                        batch.clear();
                        batched = 0;
                    }
                    batched += blob.size;
                    batch.push((*blob, content.as_slice()));
                }
                Part::Bytes(content) => {
                    let content: Arc<[u8]> = content.as_slice().into();
                    self.cache
                        .put(blob, &mut || Ok(Box::new(io::Cursor::new(Arc::clone(&content)))))?;
                }
                Part::File(path) => self.cache.put(blob, &mut || Ok(Box::new(File::open(path)?)))?,
                Part::Scratch(scratch) => self.cache.put(blob, &mut || Ok(Box::new(File::open(&scratch.0)?)))?,
            }
        }
        if !batch.is_empty() {
            self.cache.put_small(&batch)?;
        }
        let files = files.iter().map(|(path, (blob, _))| (path.clone(), *blob)).collect();
        self.cache
            .put_result(&action_digest(kind, key), &CachedResult { files })?;
        Ok(Published::Sent(bytes))
    }
}

/// The content of a file of a result that is sent.
pub(super) enum Part {
    Bytes(Vec<u8>),
    /// A file of the store.
    File(PathBuf),
    Scratch(ScratchFile),
}

/// The files of a result that is sent.
#[derive(Default)]
pub(super) struct Parts {
    files: BTreeMap<String, (BlobDigest, Part)>,
}

impl Parts {
    pub(super) fn bytes(&mut self, path: &str, content: Vec<u8>) {
        self.files
            .insert(path.to_owned(), (BlobDigest::of(&content), Part::Bytes(content)));
    }

    pub(super) fn object(&mut self, store: &Store, digest: &VerityDigest) -> Result<(), RemoteError> {
        let path = object_path(digest);
        if self.files.contains_key(&path) {
            return Ok(());
        }
        let digests = store.digests_of(digest).map_err(local("read an object"))?;
        if digests.verity != *digest {
            return Err(RemoteError::Local {
                doing: format!("read object {digest}"),
                source: io::Error::other(format!("it is damaged: its content is that of {}", digests.verity)),
            });
        }
        let blob = BlobDigest {
            sha256: digests.sha256,
            size: digests.size,
        };
        let file = store.object_path(digest).map_err(local("read an object"))?;
        self.files.insert(path, (blob, Part::File(file)));
        Ok(())
    }

    pub(super) fn tree(&mut self, store: &Store, digest: &VerityDigest) -> Result<(), RemoteError> {
        let dump = store.read_object(digest).map_err(local("read the dump of a tree"))?;
        let tree = store.tree(digest).map_err(local("read the dump of a tree"))?;
        self.bytes(&dump_path(digest), dump);
        let mut packed = BTreeMap::new();
        for (object, size) in tree.objects() {
            match size {
                0 => {}
                1..=MAX_PACKED => drop(packed.insert(object, size)),
                _ => self.object(store, &object)?,
            }
        }
        if packed.is_empty() {
            return Ok(());
        }
        let scratch = ScratchFile(store.scratch_path("pack"));
        let file = File::create_new(&scratch.0).map_err(local_io("make a file for a pack"))?;
        let mut open = |object: &VerityDigest| -> io::Result<Box<dyn Read>> {
            let content = store.read_object(object).map_err(|e| io::Error::other(chain(&e)))?;
            Ok(Box::new(io::Cursor::new(content)))
        };
        let hashed = write_pack(&packed, &mut open, Hashed::new(file)).map_err(local_io("write a pack"))?;
        self.files
            .insert(pack_path(digest), (hashed.finish(), Part::Scratch(scratch)));
        Ok(())
    }
}

/// A file that is hashed while it is written.
struct Hashed {
    file: File,
    both: verity::Both,
}

impl Hashed {
    fn new(file: File) -> Self {
        Self {
            file,
            both: verity::Both::new(),
        }
    }

    fn finish(self) -> BlobDigest {
        let digests = self.both.finish();
        BlobDigest {
            sha256: digests.sha256,
            size: digests.size,
        }
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.both.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
