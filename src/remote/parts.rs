//! [`Parts`]: the files of a result, or of the input root of an action, on their way to a server.

use super::{
    BlobDigest, MAX_PACKED, RemoteCache, RemoteError, SMALL_BLOBS,
    results::{LOG, MAX_WITH_RECORD, RECORD, dump_path, local, local_io, object_path, pack_path},
    scratch_file::ScratchFile,
    write_pack,
};
use crate::{
    model::{VerityDigest, chain},
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

/// The content of a file that is sent.
#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    File(PathBuf),
    Scratch(ScratchFile),
    /// The server is said to have it.
    Remote,
}

/// The files of a result, or of the input root of an action, with the places of their contents.
#[derive(Debug, Default)]
pub struct Parts {
    files: BTreeMap<String, (BlobDigest, Part)>,
}

impl Parts {
    /// The files of the result of a stage.
    ///
    /// # Errors
    ///
    /// If the store lacks an object of an output, or one is damaged.
    pub fn of_result(store: &Store, record: &Record, log: Option<&Path>) -> Result<Self, RemoteError> {
        let text = record.to_text().map_err(|e| local_io("write a record")(e.into()))?;
        let mut parts = Self::default();
        parts.bytes(RECORD, text.into_bytes());
        if let Some(log) = log {
            parts.bytes(LOG, fs::read(log).map_err(local_io("read a log"))?);
        }
        for output in record.outputs.values() {
            parts.output(store, output)?;
        }
        Ok(parts)
    }

    /// The blob of each file by path.
    pub fn blobs(&self) -> BTreeMap<String, BlobDigest> {
        self.files
            .iter()
            .map(|(path, (blob, _))| (path.clone(), *blob))
            .collect()
    }

    /// Adds a file of these bytes.
    pub fn bytes(&mut self, path: &str, content: Vec<u8>) {
        self.files
            .insert(path.to_owned(), (BlobDigest::of(&content), Part::Bytes(content)));
    }

    /// Adds the file at `file`, whose blob the caller has computed.
    pub fn file(&mut self, path: &str, blob: BlobDigest, file: PathBuf) {
        self.files.insert(path.to_owned(), (blob, Part::File(file)));
    }

    /// Adds files that the server is said to have.
    pub fn remote(&mut self, files: BTreeMap<String, BlobDigest>) {
        let files = files.into_iter().map(|(path, blob)| (path, (blob, Part::Remote)));
        self.files.extend(files);
    }

    /// Adds the files of an output that the store has.
    ///
    /// # Errors
    ///
    /// If the store lacks an object of it, or one is damaged.
    pub fn output(&mut self, store: &Store, output: &Output) -> Result<(), RemoteError> {
        match output {
            Output::File { digest, .. } => self.object(store, digest),
            Output::Tree { digest } => self.tree(store, digest),
        }
    }

    /// The blobs that a cache lacks.
    ///
    /// # Errors
    ///
    /// If the cache does not answer.
    pub fn missing(&self, cache: &dyn RemoteCache) -> Result<BTreeSet<BlobDigest>, RemoteError> {
        let all: BTreeSet<BlobDigest> = self.files.values().map(|(blob, _)| *blob).collect();
        cache.missing(&all.into_iter().collect::<Vec<_>>())
    }

    /// Sends the blobs `missing`. A file that the server was said to have, and lacks, comes from `fetch`.
    ///
    /// # Errors
    ///
    /// If the cache does not take them, if a content cannot be read, or the error of `fetch`.
    pub fn send<E: From<RemoteError>>(
        &self,
        cache: &dyn RemoteCache,
        missing: BTreeSet<BlobDigest>,
        fetch: &dyn Fn(&str) -> Result<PathBuf, E>,
    ) -> Result<(), E> {
        let mut left = missing;
        let (mut batch, mut batched) = (Vec::new(), 0);
        for (path, (blob, content)) in &self.files {
            if !left.remove(blob) {
                continue;
            }
            let from_file = |path: &Path| cache.put(blob, &mut || Ok(Box::new(File::open(path)?)));
            match content {
                Part::Bytes(content) if blob.size <= MAX_WITH_RECORD => {
                    if batched + blob.size > SMALL_BLOBS {
                        cache.put_small(&batch)?;
                        batch.clear();
                        batched = 0;
                    }
                    batched += blob.size;
                    batch.push((*blob, content.as_slice()));
                }
                Part::Bytes(content) => {
                    let content: Arc<[u8]> = content.as_slice().into();
                    cache.put(blob, &mut || Ok(Box::new(io::Cursor::new(Arc::clone(&content)))))?;
                }
                Part::File(path) => from_file(path)?,
                Part::Scratch(scratch) => from_file(&scratch.0)?,
                Part::Remote => from_file(&fetch(path)?)?,
            }
        }
        if !batch.is_empty() {
            cache.put_small(&batch)?;
        }
        Ok(())
    }

    /// Writes the files into the new directory `dir`.
    pub(super) fn write_folder(&self, dir: &Path) -> Result<(), RemoteError> {
        let write = |path: &str, content: &Part| -> io::Result<()> {
            let target = dir.join(path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            match content {
                Part::Bytes(bytes) => fs::write(&target, bytes),
                // A link where the file system allows it; a copy elsewhere.
                Part::File(file) => fs::hard_link(file, &target).or_else(|_| fs::copy(file, &target).map(drop)),
                Part::Scratch(scratch) => fs::copy(&scratch.0, &target).map(drop),
                Part::Remote => Err(io::Error::other("it is on a server only")),
            }
        };
        for (path, (_, content)) in &self.files {
            write(path, content).map_err(|source| RemoteError::Local {
                doing: format!("write {}", dir.join(path).display()),
                source,
            })?;
        }
        Ok(())
    }

    fn object(&mut self, store: &Store, digest: &VerityDigest) -> Result<(), RemoteError> {
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

    fn tree(&mut self, store: &Store, digest: &VerityDigest) -> Result<(), RemoteError> {
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
