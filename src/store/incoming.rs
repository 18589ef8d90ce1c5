//! Content on its way into the store: hashed before a file is made of it when it is small, as it is written when it is large.

use super::{
    Store,
    buffer::BUFFER,
    error::{IoContext, Operation, StoreError},
    hash_cache::Stamp,
    objects::fill,
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

/// Bytes of large content that are read, hashed and written before the next: they fit in a processor's own cache.
pub(super) const CHUNK: usize = 256 << 10;

/// What is to be stored: bytes that are read once, or as often as is asked for.
pub trait Content: Read {
    /// Goes back to the first byte; `false` where that cannot be. What follows may be other bytes than before.
    fn restart(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Content that is read once.
#[derive(Debug)]
pub struct Once<R>(pub R);

impl<R: Read> Read for Once<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Content for Once<R> {}

/// A second file with the bytes of an object, which this program keeps for an artifact.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) digests: Digests,
}

/// What is computed of an object's bytes on the way in.
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

/// A file that is being written from its start on.
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

    /// Gives the file its length, which it lacks when it ends in zeros.
    fn finish(&self) -> Result<(), StoreError> {
        self.file.set_len(self.size).at(Operation::Write, &self.path)
    }
}

impl Store {
    /// Stores everything `content` gives. `executable` only sets the permission bits of the inode that checkouts link to.
    pub fn put_object(&self, executable: bool, content: &mut dyn Read) -> Result<(VerityDigest, u64), StoreError> {
        self.put(executable, &mut Once(content), 0)
    }

    /// As [`Store::put_object`], for what this program will ask [`Store::copy_out`] for so many times: when it is large, the copies
    /// for that are made here, of bytes that are at hand and were hashed.
    pub fn put_artifact(
        &self,
        executable: bool,
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<(VerityDigest, u64), StoreError> {
        self.put(executable, content, copies)
    }

    /// As [`Store::put_artifact`], but of what is large only the digests are kept: [`Store::copy_out`] knows them, and makes no file.
    pub fn hash_artifact(
        &self,
        executable: bool,
        content: &mut dyn Content,
    ) -> Result<(VerityDigest, u64), StoreError> {
        let mut buffer = self.buffers.take();
        let hashed = next(content, &mut buffer).and_then(|mut n| {
            if n < BUFFER {
                return self.put_bytes(executable, &buffer[..n]);
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
        executable: bool,
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<(VerityDigest, u64), StoreError> {
        let mut buffer = self.buffers.take();
        let stored = self.put_with(&mut buffer, executable, content, copies);
        self.buffers.give_back(buffer);
        stored
    }

    fn put_with(
        &self,
        buffer: &mut [u8],
        executable: bool,
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<(VerityDigest, u64), StoreError> {
        let n = next(content, buffer)?;
        if n < BUFFER {
            return self.put_bytes(executable, &buffer[..n]);
        }
        if self.shared.objects.is_some() && restart(content)? {
            if let Some(found) = self.find_large(executable, buffer, content, copies)? {
                return Ok(found);
            }
            // What is read now is hashed anew.
            restart(content)?;
            let n = next(content, buffer)?;
            if n < BUFFER {
                return self.put_bytes(executable, &buffer[..n]);
            }
        }
        self.put_large(executable, buffer, content, copies)
    }

    /// Hashes all that `content` gives: what it is, if the store has that already and knows of it what [`Store::copy_out`] has to.
    fn find_large(
        &self,
        executable: bool,
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
        // What the other store did not keep is needed by no stage.
        let found = match copies {
            0 => self.object_file(&digest, executable).exists(),
            _ => {
                self.known.unkept(&digest).is_some()
                    || self.known.sha256_of(&digest).is_some() && self.object_file(&digest, executable).exists()
            }
        };
        Ok(found.then_some((digest, size)))
    }

    fn put_bytes(&self, executable: bool, bytes: &[u8]) -> Result<(VerityDigest, u64), StoreError> {
        let digest = verity::digest_bytes(bytes);
        // Most of what stages give is there already, and a file that is made to be removed costs more than all the rest.
        if !self.object_file(&digest, executable).exists() {
            let mut object = Growing::new(self.scratch_path("object"), Pages::Stay)?;
            object.write(bytes)?;
            object.finish()?;
            self.settle(&object.file, &object.path, &digest, executable)?;
        }
        Ok((digest, bytes.len() as u64))
    }

    /// Stores the whole `buffer`, and what `content` gives after it.
    fn put_large(
        &self,
        executable: bool,
        buffer: &mut [u8],
        content: &mut dyn Content,
        copies: usize,
    ) -> Result<(VerityDigest, u64), StoreError> {
        let (pages, mut hashing) = match copies {
            0 => (Pages::Stay, Hashing::Verity(verity::Hasher::new())),
            _ => (Pages::Drop, Hashing::Both(verity::Both::new())),
        };
        let mut object = Growing::new(self.scratch_path("object"), pages)?;
        // A link to the object does as well.
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
        self.settle(&object.file, &object.path, &digest, executable)?;
        Ok((digest, object.size))
    }
}

const CONTENT: &str = "the content of an object";

/// Reads until `buffer` is full or nothing is left; returns how much there was.
fn next(content: &mut dyn Content, buffer: &mut [u8]) -> Result<usize, StoreError> {
    fill(content, buffer).at(Operation::Read, Path::new(CONTENT))
}

fn restart(content: &mut dyn Content) -> Result<bool, StoreError> {
    content.restart().at(Operation::Read, Path::new(CONTENT))
}
