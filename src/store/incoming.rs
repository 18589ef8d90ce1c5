//! Content becomes an object. Small content is hashed in memory before a file is made; large content is hashed while it is written.

use super::{
    ObjectMode, Store,
    buffer::BUFFER,
    error::{IoContext, Operation, StoreError},
    hash_cache::Stamp,
    objects::{fill, is_there},
    sparse::{Pages, write_sparse_at},
};
use crate::{
    model::VerityDigest,
    verity::{self, Digests},
};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Bytes of large content that are read, hashed and written at once: they fit in the cache of one processor.
pub(super) const CHUNK: usize = 256 << 10;

/// Content to be stored. It can be read once, or, if it can restart, any number of times.
pub trait Content: Read {
    /// Goes back to the first byte; `false` where that is impossible. The bytes may differ from those of the first reading.
    fn restart(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Content that can be read once.
#[derive(Debug)]
pub struct Once<R>(pub R);

impl<R: Read> Read for Once<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Content for Once<R> {}

/// A second file with the content of an object, which this program will rename to a file of an artifact.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) digests: Digests,
}

/// The digests computed while content is stored: fs-verity only, or SHA-256 too.
enum Hashing {
    Verity(verity::Hasher),
    Both(verity::Both),
}

impl Hashing {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hashing::Verity(hasher) => hasher.update(bytes),
            Hashing::Both(hasher) => hasher.update(bytes),
        }
    }
}

/// A file that is written from start to end.
struct Growing {
    file: File,
    path: PathBuf,
    size: u64,
    pages: Pages,
}

impl Growing {
    fn new(path: PathBuf, pages: Pages) -> Result<Self, StoreError> {
        let file = File::create_new(&path).at(Operation::Create, &path)?;
        Ok(Self {
            file,
            path,
            size: 0,
            pages,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        write_sparse_at(&self.file, bytes, self.size, self.pages).at(Operation::Write, &self.path)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Sets the length, which is too small where the file ends in a hole.
    fn finish(&self) -> Result<(), StoreError> {
        self.file.set_len(self.size).at(Operation::Write, &self.path)
    }
}

impl Store {
    /// Stores `content` as an object whose file has the mode `mode`; returns its digest and length.
    pub fn put_object(&self, mode: ObjectMode, content: &mut dyn Read) -> Result<(VerityDigest, u64), StoreError> {
        self.put(mode, &mut Once(content), 0)
    }

    /// As [`Store::put_object`], for content that [`Store::copy_out`] will write `copies` times. Copies of large content are written here
    /// together with the object, from the bytes that were just hashed.
    pub fn put_artifact(
        &self,
        mode: ObjectMode,
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<(VerityDigest, u64), StoreError> {
        self.put(mode, content, copies)
    }

    /// As [`Store::put_artifact`], but large content is only hashed: [`Store::copy_out`] returns its digests and makes no file.
    pub fn hash_artifact(
        &self,
        mode: ObjectMode,
        content: &mut dyn Content,
    ) -> Result<(VerityDigest, u64), StoreError> {
        let mut buffer = self.buffers.take();
        let hashed = next(content, &mut buffer).and_then(|mut n| {
            if n < BUFFER {
                return self.put_bytes(mode, &buffer[..n]);
            }
            let mut both = verity::Both::new();
            while n > 0 {
                both.update(&buffer[..n]);
                n = next(content, &mut buffer[..CHUNK])?;
            }
            let digests = both.finish();
            self.known.insert_unkept(&digests);
            Ok((digests.verity, digests.size))
        });
        self.buffers.give_back(buffer);
        hashed
    }

    fn put(
        &self,
        mode: ObjectMode,
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<(VerityDigest, u64), StoreError> {
        let mut buffer = self.buffers.take();
        let stored = self.put_with(&mut buffer, mode, content, copies);
        self.buffers.give_back(buffer);
        stored
    }

    fn put_with(
        &self,
        buffer: &mut [u8],
        mode: ObjectMode,
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<(VerityDigest, u64), StoreError> {
        let n = next(content, buffer)?;
        if n < BUFFER {
            return self.put_bytes(mode, &buffer[..n]);
        }
        if self.shared.objects.is_some() && restart(content)? {
            if let Some(found) = self.find_large(mode, buffer, content, copies)? {
                return Ok(found);
            }
            // The second reading may give other bytes, so it is hashed again.
            restart(content)?;
            let n = next(content, buffer)?;
            if n < BUFFER {
                return self.put_bytes(mode, &buffer[..n]);
            }
        }
        self.put_large(mode, buffer, content, copies)
    }

    /// Hashes large content; returns its digest and length if nothing has to be written: the store has the object, and for an artifact
    /// (`copies` > 0) it also knows the SHA-256 that [`Store::copy_out`] returns.
    fn find_large(
        &self,
        mode: ObjectMode,
        buffer: &mut [u8],
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<Option<(VerityDigest, u64)>, StoreError> {
        let mut hasher = verity::Hasher::new();
        loop {
            let chunk = &mut buffer[..CHUNK];
            let n = next(content, chunk)?;
            hasher.update(&chunk[..n]);
            if n < CHUNK {
                break;
            }
        }
        let size = hasher.size();
        let digest = hasher.finish();
        // An artifact that the other store has only hashed need not be stored: no stage has it as input.
        let found = match copies {
            0 => is_there(&self.object_file(&digest, mode))?,
            _ => {
                self.known.unkept(&digest).is_some()
                    || self.known.sha256_of(&digest).is_some() && is_there(&self.object_file(&digest, mode))?
            }
        };
        Ok(found.then_some((digest, size)))
    }

    fn put_bytes(&self, mode: ObjectMode, bytes: &[u8]) -> Result<(VerityDigest, u64), StoreError> {
        let digest = verity::digest_bytes(bytes);
        // The store already has most small outputs, and a file that is made and removed again costs more than hashing.
        if !is_there(&self.object_file(&digest, mode))? {
            let mut object = Growing::new(self.scratch_path("object"), Pages::Stay)?;
            object.write(bytes)?;
            object.finish()?;
            self.settle(&object.file, &object.path, &digest, mode)?;
        }
        Ok((digest, bytes.len() as u64))
    }

    /// Stores the full `buffer`, and the rest of `content` after it.
    fn put_large(
        &self,
        mode: ObjectMode,
        buffer: &mut [u8],
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<(VerityDigest, u64), StoreError> {
        let (pages, mut hashing) = match copies {
            0 => (Pages::Stay, Hashing::Verity(verity::Hasher::new())),
            _ => (Pages::Drop, Hashing::Both(verity::Both::new())),
        };
        let mut object = Growing::new(self.scratch_path("object"), pages)?;
        // In an ephemeral store, copy_out() makes links to the object instead.
        let spares = if self.ephemeral { 0 } else { copies };
        let mut spares = (0..spares)
            .map(|_| Growing::new(self.scratch_path("spare"), pages))
            .collect::<Result<Vec<_>, _>>()?;
        let mut take = |bytes: &[u8]| {
            hashing.update(bytes);
            object.write(bytes)?;
            spares.iter_mut().try_for_each(|spare| spare.write(bytes))
        };
        buffer.chunks(CHUNK).try_for_each(&mut take)?;
        loop {
            let chunk = &mut buffer[..CHUNK];
            let n = next(content, chunk)?;
            take(&chunk[..n])?;
            if n < CHUNK {
                break;
            }
        }
        object.finish()?;
        let digest = match hashing {
            Hashing::Verity(hasher) => hasher.finish(),
            Hashing::Both(both) => {
                let digests = both.finish();
                self.known.insert_sha256(&digests.verity, digests.sha256);
                for spare in spares {
                    spare.finish()?;
                    let stamp = Stamp::from(&spare.file.metadata().at(Operation::Open, &spare.path)?);
                    let path = spare.path;
                    self.keep_spare(Spare { path, stamp, digests });
                }
                digests.verity
            }
        };
        self.settle(&object.file, &object.path, &digest, mode)?;
        Ok((digest, object.size))
    }
}

/// Stands for the path in errors of reading content.
const CONTENT: &str = "the content of an object";

/// Reads until `buffer` is full or the content ends; returns the number of bytes read.
fn next(content: &mut dyn Content, buffer: &mut [u8]) -> Result<usize, StoreError> {
    fill(content, buffer).at(Operation::Read, Path::new(CONTENT))
}

fn restart(content: &mut dyn Content) -> Result<bool, StoreError> {
    content.restart().at(Operation::Read, Path::new(CONTENT))
}
