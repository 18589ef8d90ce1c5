//! [`StageResults`]: the records and outputs of stages in a cache.
//!
//! A stage's result has these files; every path is pnb's own and means nothing to a server:
//!
//! | path | content |
//! |---|---|
//! | `record` | the record, as in the store |
//! | `log` | the log of the run |
//! | `o/<fs-verity digest>` | an output that is a file, or an object of more than [`MAX_PACKED`] bytes of a tree |
//! | `t/<fs-verity digest>.dump` | the dump of an output that is a tree |
//! | `t/<fs-verity digest>.pack` | the objects of at most [`MAX_PACKED`] bytes of that tree, as a [pack](super::write_pack) |
//!
//! A tree is complete in the store once its dump is there, as after a stage that ran here: the dump is stored last.

use super::{
    BlobDigest, CachedResult, EntryKind, MAX_PACKED, RemoteCache, RemoteError, SMALL_BLOBS, action_digest, read_pack,
    write_pack,
};
use crate::{
    model::{EMPTY_FILE, StageKey, Tree, VerityDigest, chain, parse_dump},
    store::{ObjectMode, Once, Output, Record, Store, StoreError},
    verity,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

/// Path of the record among a result's files.
const RECORD: &str = "record";
/// Path of the log among a result's files.
const LOG: &str = "log";
/// Path of the only file of a result of [`EntryKind::Facts`].
const FACTS: &str = "facts";
/// Most bytes of a record; the largest of pnb's own stages has some 20 KB.
const MAX_RECORD: u64 = 1 << 20;
/// Most bytes of what the statements say about packages.
const MAX_FACTS: u64 = 32 << 20;
/// Most bytes of a tree's dump; that of a root with 100,000 files has some 20 MB.
const MAX_DUMP: u64 = 256 << 20;
/// A file of at most this many bytes is read together with the record.
const MAX_WITH_RECORD: u64 = 64 << 10;
/// Pieces of a blob on the way into the store.
const PIECES: usize = 8;

/// The result of a stage that a cache has.
#[derive(Clone, Debug)]
pub struct FoundResult {
    /// The key of the stage.
    pub key: StageKey,
    /// Its record. That its canonical form has the key was checked.
    pub record: Record,
    files: BTreeMap<String, BlobDigest>,
    /// The content of small files, which came with the record.
    small: BTreeMap<BlobDigest, Vec<u8>>,
}

impl FoundResult {
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

/// How an output is taken from a cache.
pub struct Taking<'a> {
    /// The store that receives it.
    pub store: &'a Store,
    /// Number of files of an artifact to come of it ([`Store::put_artifact`]).
    pub copies: usize,
    /// Checks a tree before any of its objects is asked for.
    pub check: &'a dyn Fn(&Tree) -> Result<(), String>,
    /// Is told the number of bytes of each piece that arrives.
    pub seen: &'a (dyn Fn(u64) + Sync),
}

/// The records and outputs of stages in a cache.
#[derive(Clone, Debug)]
pub struct StageResults {
    cache: Arc<dyn RemoteCache>,
}

fn object_path(digest: &VerityDigest) -> String {
    format!("o/{digest}")
}

fn dump_path(digest: &VerityDigest) -> String {
    format!("t/{digest}.dump")
}

fn pack_path(digest: &VerityDigest) -> String {
    format!("t/{digest}.pack")
}

/// The store failed on this machine.
fn local(doing: &'static str) -> impl Fn(StoreError) -> RemoteError {
    move |error| RemoteError::Local {
        doing: doing.to_owned(),
        source: io::Error::other(chain(&error)),
    }
}

fn local_io(doing: &'static str) -> impl Fn(io::Error) -> RemoteError {
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

    fn bad(&self, problem: impl Into<String>) -> RemoteError {
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
        let Some(CachedResult { files }) = self.cache.result(&action_digest(EntryKind::Record, &key.to_string()))?
        else {
            return Ok(None);
        };
        let blob = *files.get(RECORD).ok_or_else(|| self.bad("it has no record"))?;
        if blob.size > MAX_RECORD {
            return Err(self.bad(format!("its record has {} bytes", blob.size)));
        }
        let mut wanted = vec![blob];
        let mut bytes = blob.size;
        for blob in files.values().collect::<BTreeSet<_>>() {
            if blob.size <= MAX_WITH_RECORD && bytes + blob.size <= SMALL_BLOBS && !wanted.contains(blob) {
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
            files,
            small,
        };
        for output in found.record.outputs.values() {
            let (path, size) = match output {
                Output::File { digest, size } => (object_path(digest), Some(*size)),
                Output::Tree { digest } => (dump_path(digest), None),
            };
            let blob = found
                .files
                .get(&path)
                .ok_or_else(|| self.bad(format!("it has no file {path}")))?;
            if size.is_some_and(|size| size != blob.size) {
                return Err(self.bad(format!(
                    "{path} has {} bytes, and another number in the record",
                    blob.size
                )));
            }
        }
        Ok(Some(found))
    }

    /// Takes an output of a result into the store. Every object gets its name from the bytes that arrived.
    ///
    /// # Errors
    ///
    /// If the blobs of the output are not what the record says, or do not arrive.
    pub fn take(&self, found: &FoundResult, output: &Output, taking: &Taking<'_>) -> Result<(), RemoteError> {
        match output {
            Output::File { digest, .. } => self.take_object(found, digest, ObjectMode::Plain, taking.copies, taking),
            Output::Tree { digest } => self.take_tree(found, digest, taking),
        }
    }

    fn take_tree(&self, found: &FoundResult, digest: &VerityDigest, taking: &Taking<'_>) -> Result<(), RemoteError> {
        let path = dump_path(digest);
        let blob = found
            .files
            .get(&path)
            .ok_or_else(|| self.bad(format!("it has no file {path}")))?;
        if blob.size > MAX_DUMP {
            return Err(self.bad(format!("{path} has {} bytes", blob.size)));
        }
        let mut dump = Vec::new();
        match found.small.get(blob) {
            Some(bytes) => dump.extend(bytes),
            None => self.cache.read(blob, &mut dump, taking.seen)?,
        }
        let actual = verity::digest_bytes(&dump);
        if actual != *digest {
            return Err(self.bad(format!("{path} is the dump of the tree {actual}")));
        }
        let text = std::str::from_utf8(&dump).map_err(|_| self.bad(format!("{path} is no text")))?;
        let tree = parse_dump(text).map_err(|e| self.bad(format!("{path}: {}", chain(&e))))?;
        (taking.check)(&tree).map_err(|problem| self.bad(format!("the tree {digest}: {problem}")))?;
        let modes = modes_of(&tree);
        let mut packed = BTreeMap::new();
        let (mut large, mut lacks) = (Vec::new(), false);
        for (object, size) in tree.objects() {
            if object == EMPTY_FILE {
                continue;
            }
            let missing = taking
                .store
                .find_object(&object)
                .map_err(local("look for an object"))?
                .is_none();
            if size <= MAX_PACKED {
                packed.insert(object, size);
                lacks |= missing;
            } else if missing {
                large.push(object);
            }
        }
        let mode_of = |object: &VerityDigest| modes.get(object).copied().unwrap_or(ObjectMode::Plain);
        if lacks {
            self.take_pack(found, digest, &packed, &mode_of, taking)?;
        }
        for object in large {
            self.take_object(found, &object, mode_of(&object), taking.copies, taking)?;
        }
        let stored = taking
            .store
            .put_tree(&tree)
            .map_err(local("store the dump of a tree"))?;
        if stored != *digest {
            return Err(self.bad(format!("{path} is not written as pnb writes the dump of its tree")));
        }
        Ok(())
    }

    fn take_pack(
        &self,
        found: &FoundResult,
        tree: &VerityDigest,
        packed: &BTreeMap<VerityDigest, u64>,
        mode_of: &dyn Fn(&VerityDigest) -> ObjectMode,
        taking: &Taking<'_>,
    ) -> Result<(), RemoteError> {
        let path = pack_path(tree);
        let blob = found
            .files
            .get(&path)
            .ok_or_else(|| self.bad(format!("it has no file {path}")))?;
        let scratch = ScratchFile(taking.store.scratch_path("pack"));
        let mut file = File::create_new(&scratch.0).map_err(local_io("make a file for a pack"))?;
        self.cache.read(blob, &mut file, taking.seen)?;
        let file = File::open(&scratch.0).map_err(local_io("read a pack"))?;
        let mut put = |object: &VerityDigest, content: &[u8]| {
            let stored = taking.store.put_object(mode_of(object), &mut &content[..]);
            stored.map(|_| ()).map_err(|e| io::Error::other(chain(&e)))
        };
        read_pack(file, packed, &mut put).map_err(|error| match error {
            super::PackError::Store { source, .. } => local_io("store an object")(source),
            error => self.bad(format!("{path}: {error}")),
        })
    }

    fn take_object(
        &self,
        found: &FoundResult,
        digest: &VerityDigest,
        mode: ObjectMode,
        copies: usize,
        taking: &Taking<'_>,
    ) -> Result<(), RemoteError> {
        let path = object_path(digest);
        let blob = found
            .files
            .get(&path)
            .ok_or_else(|| self.bad(format!("it has no file {path}")))?;
        let store = |content: &mut dyn Read| taking.store.put_artifact(mode, &mut Once(content), copies);
        let (stored, size) = match found.small.get(blob) {
            Some(bytes) => store(&mut bytes.as_slice()).map_err(local("store an object"))?,
            None => self.stream(blob, &store, taking.seen)?,
        };
        if (stored, size) != (*digest, blob.size) {
            return Err(self.bad(format!("{path} has the content of object {stored}")));
        }
        Ok(())
    }

    /// Reads a blob in a thread of its own while `store` takes the bytes: one side writes, the other reads.
    fn stream<T>(
        &self,
        blob: &BlobDigest,
        store: &dyn Fn(&mut dyn Read) -> Result<T, StoreError>,
        seen: &(dyn Fn(u64) + Sync),
    ) -> Result<T, RemoteError> {
        let (sender, receiver) = mpsc::sync_channel(PIECES);
        thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut pieces = Pieces(&sender);
                let read = self.cache.read(blob, &mut pieces, seen);
                // The store must not take what arrived before an error for the whole content.
                if read.is_err() {
                    let _ = sender.send(Err(io::Error::other("the blob did not arrive")));
                }
                read
            });
            let mut arriving = Arriving {
                pieces: receiver,
                piece: Vec::new(),
                at: 0,
                broken: false,
            };
            let stored = store(&mut arriving);
            let broken = arriving.broken;
            // A store that gave up takes no more pieces, and the reading ends.
            drop(arriving);
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match read {
                Err(error) if broken || stored.is_ok() => Err(error),
                _ => stored.map_err(local("store an object")),
            }
        })
    }

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

    /// Sends the blobs that the cache lacks, and then the result that names all of them.
    fn send(
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

/// The mode in which the files of a tree want each object: executable if one of them is.
fn modes_of(tree: &Tree) -> BTreeMap<VerityDigest, ObjectMode> {
    let mut modes = BTreeMap::new();
    for (_, entry) in tree.iter() {
        if let crate::model::Node::File { digest, .. } = &entry.node {
            let mode = ObjectMode::of_executable(entry.meta.mode & 0o111 != 0);
            let found = modes.entry(*digest).or_insert(mode);
            *found = (*found).max(mode);
        }
    }
    modes
}

/// A file that is removed when this value is dropped.
#[derive(Debug)]
struct ScratchFile(PathBuf);

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // What stays is in the store's scratch directory, which goes with the program.
        let _ = fs::remove_file(&self.0);
    }
}

/// The content of a file of a result that is sent.
enum Part {
    Bytes(Vec<u8>),
    /// A file of the store.
    File(PathBuf),
    Scratch(ScratchFile),
}

/// The files of a result that is sent.
#[derive(Default)]
struct Parts {
    files: BTreeMap<String, (BlobDigest, Part)>,
}

impl Parts {
    fn bytes(&mut self, path: &str, content: Vec<u8>) {
        self.files
            .insert(path.to_owned(), (BlobDigest::of(&content), Part::Bytes(content)));
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

/// The writing end of a stream of pieces.
struct Pieces<'a>(&'a mpsc::SyncSender<io::Result<Vec<u8>>>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.send(Ok(bytes.to_vec()));
        sent.map_err(|_| io::Error::other("the store takes no more bytes"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading end of a stream of pieces.
struct Arriving {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    /// Whether the last piece was an error.
    broken: bool,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.recv() {
                Ok(Ok(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Err(error)) => {
                    self.broken = true;
                    return Err(error);
                }
                Err(mpsc::RecvError) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
