//! Outputs on their way from a cache into a store.

use super::{
    BlobDigest, MAX_PACKED, RemoteError, ResultFiles, StageResults, read_pack,
    results::{dump_path, local, local_io, object_path, pack_path},
    scratch_file::ScratchFile,
};
use crate::{
    model::{EMPTY_FILE, Tree, VerityDigest, chain, parse_dump},
    store::{ObjectMode, Once, Output, Store, StoreError},
    verity,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    sync::mpsc,
    thread,
};

/// Most bytes of a tree's dump; that of a root with 100,000 files has some 20 MB.
const MAX_DUMP: u64 = 256 << 20;
/// Bytes in front of each object of a pack.
const PACK_HEAD: u64 = 40;
/// Bytes of a pack beside its objects: the frame's head and the pack's.
const PACK_SLACK: u64 = 4096;
/// Pieces of a blob on the way into the store.
const PIECES: usize = 8;

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

impl StageResults {
    /// Takes an output of a result into the store. Every object gets its name from the bytes that arrived.
    ///
    /// # Errors
    ///
    /// If the blobs of the output are not what the record says, or do not arrive.
    pub fn take(&self, files: &ResultFiles, output: &Output, taking: &Taking<'_>) -> Result<(), RemoteError> {
        match output {
            Output::File { digest, .. } => self.take_object(files, digest, ObjectMode::Plain, taking.copies, taking),
            Output::Tree { digest } => self.take_tree(files, digest, taking),
        }
    }

    fn take_tree(&self, files: &ResultFiles, digest: &VerityDigest, taking: &Taking<'_>) -> Result<(), RemoteError> {
        let path = dump_path(digest);
        let blob = self.blob_of(files, &path)?;
        if blob.size > MAX_DUMP {
            return Err(self.bad(format!("{path} has {} bytes", blob.size)));
        }
        let mut dump = Vec::new();
        match files.small.get(blob) {
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
            let present = taking.store.find_object(&object).map_err(local("look for an object"))?;
            let missing = present.is_none();
            if let Some(present) = present {
                let found = present.metadata().map_err(local_io("look at an object"))?.len();
                if found != size {
                    return Err(self.bad(format!(
                        "{path} says that object {object} has {size} bytes, and it has {found}"
                    )));
                }
            }
            if size <= MAX_PACKED {
                packed.insert(object, size);
                lacks |= missing;
            } else if missing {
                let blob = self.blob_of(files, &object_path(&object))?;
                // The server's word must not decide how much is written here.
                if blob.size != size {
                    let other = blob.size;
                    return Err(self.bad(format!(
                        "{path} says that object {object} has {size} bytes, and its blob {other}"
                    )));
                }
                large.push(object);
            }
        }
        let mode_of = |object: &VerityDigest| modes.get(object).copied().unwrap_or(ObjectMode::Plain);
        if lacks {
            self.take_pack(files, digest, &packed, &mode_of, taking)?;
        }
        for object in large {
            self.take_object(files, &object, mode_of(&object), taking.copies, taking)?;
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
        files: &ResultFiles,
        tree: &VerityDigest,
        packed: &BTreeMap<VerityDigest, u64>,
        mode_of: &dyn Fn(&VerityDigest) -> ObjectMode,
        taking: &Taking<'_>,
    ) -> Result<(), RemoteError> {
        let path = pack_path(tree);
        let blob = self.blob_of(files, &path)?;
        let content: u64 = packed
            .values()
            .fold(0, |sum, size| sum.saturating_add(size + PACK_HEAD));
        // A frame of zstd that does not compress is longer by less than a hundredth.
        if blob.size > content + content / 100 + PACK_SLACK {
            return Err(self.bad(format!("{path} has {} bytes for objects of {content}", blob.size)));
        }
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
        files: &ResultFiles,
        digest: &VerityDigest,
        mode: ObjectMode,
        copies: usize,
        taking: &Taking<'_>,
    ) -> Result<(), RemoteError> {
        let path = object_path(digest);
        let blob = self.blob_of(files, &path)?;
        let store = |content: &mut dyn Read| taking.store.put_artifact(mode, &mut Once(content), copies);
        let (stored, size) = match files.small.get(blob) {
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
