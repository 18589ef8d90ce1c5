//! The file of an unfinished download, `<dir>/<sha256>.part`: locked, resumed, hashed as it grows.
//!
//! Only the builder that holds the file's lock writes to it; a second builder waits. Bytes of an earlier run are hashed, through the same
//! open file, before new ones are added. The file is not opened by path again.

use super::error::FetchError;
use super::plan::FetchItem;
use crate::model::{Sha256Digest, VerityDigest};
use crate::verity::Both;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes read and written at once.
pub(super) const CHUNK: usize = 128 << 10;
/// How often a file may be gone that was there a moment ago. Where the directory is not the user's, it was never there.
const VANISHED: u32 = 16;
/// Mode of an unfinished download.
const MODE: u32 = 0o600;
/// Time between two tries to lock a file that another builder is writing.
const POLL: Duration = Duration::from_millis(50);

/// A complete file with exactly the pinned bytes, flushed to the disk.
#[derive(Debug)]
pub struct Downloaded {
    /// The open file, at its first byte. It holds the lock: rename the file or read its bytes before closing it.
    pub file: File,
    /// Its path; the caller renames or removes the file.
    pub path: PathBuf,
    /// Length in bytes.
    pub size: u64,
    /// Digest of the bytes written.
    pub sha256: Sha256Digest,
    /// fs-verity digest of the same bytes, computed in the same pass: the object's name in the store.
    pub verity: VerityDigest,
}

/// A download under way; the lock is held.
pub(super) struct PartialDownload {
    file: File,
    path: PathBuf,
    what: String,
    position: u64,
    hasher: Both,
}

impl PartialDownload {
    /// Opens and locks the file of `item` in `dir` and hashes the bytes of an earlier run. While another builder holds the lock this waits,
    /// and calls `stop`.
    pub(super) fn open(dir: &Path, item: &FetchItem, stop: &dyn Fn() -> bool) -> Result<Self, FetchError> {
        let path = dir.join(format!("{}.part", item.sha256));
        let failed = |action, source| failed(&item.what, &path, action, source);
        let mut vanished = 0;
        let file = loop {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.mode(MODE).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
            // A builder makes a whole file read-only before it renames it into the store. Where it was killed in between, and where it is
            // about to rename, an ordinary user cannot open the file for writing.
            let (file, refused) = match options.open(&path) {
                Ok(file) => (file, None),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    let mut options = File::options();
                    options
                        .read(true)
                        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
                    match options.open(&path) {
                        Ok(file) => (file, Some(e)),
                        Err(gone) if gone.kind() == io::ErrorKind::NotFound && vanished < VANISHED && !stop() => {
                            vanished += 1;
                            continue;
                        }
                        Err(_) => return Err(failed("open", e)),
                    }
                }
                Err(e) => return Err(failed("open", e)),
            };
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) if stop() => {
                        return Err(FetchError::Stopped {
                            what: item.what.clone(),
                        });
                    }
                    Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
                    Err(TryLockError::Error(e)) => return Err(failed("lock", e)),
                }
            }
            // The builder that held the lock may have renamed or removed the file meanwhile.
            let held = file.metadata().map_err(|e| failed("read the metadata of", e))?;
            if !held.is_file() {
                return Err(failed("use", io::Error::other("it is not a regular file")));
            }
            match std::fs::symlink_metadata(&path) {
                Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {}
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed("read the metadata of", e)),
            }
            match refused {
                None => break file,
                // Nobody else is at it, as the lock is held here.
                Some(refused) if held.mode() & MODE != MODE => {
                    if file.set_permissions(Permissions::from_mode(MODE)).is_err() {
                        return Err(failed("open", refused));
                    }
                }
                Some(refused) => return Err(failed("open", refused)),
            }
        };
        let mut part = Self {
            file,
            what: item.what.clone(),
            path,
            position: 0,
            hasher: Both::new(),
        };
        part.rehash(item.size)?;
        Ok(part)
    }

    /// Hashes the bytes of an earlier run; more than `size` bytes cannot belong to the file, so they are dropped.
    fn rehash(&mut self, size: u64) -> Result<(), FetchError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    self.position += n as u64;
                    self.hasher.update(&buffer[..n]);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed("read", e)),
            }
            if self.position > size {
                return self.restart();
            }
        }
    }

    /// Number of bytes so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Drops all bytes.
    pub(super) fn restart(&mut self) -> Result<(), FetchError> {
        self.file.set_len(0).map_err(|e| self.failed("empty", e))?;
        self.file.rewind().map_err(|e| self.failed("rewind", e))?;
        self.position = 0;
        self.hasher = Both::new();
        Ok(())
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(|e| self.failed("write", e))?;
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// SHA-256 of the bytes so far.
    pub(super) fn digest(&self) -> Sha256Digest {
        self.hasher.clone().finish().sha256
    }

    /// Flushes the file to the disk and returns it; to be called when the digest is the pinned one.
    pub(super) fn finish(mut self) -> Result<Downloaded, FetchError> {
        self.file.sync_all().map_err(|e| self.failed("flush", e))?;
        self.file.rewind().map_err(|e| self.failed("rewind", e))?;
        let digests = self.hasher.finish();
        Ok(Downloaded {
            file: self.file,
            path: self.path,
            size: digests.size,
            sha256: digests.sha256,
            verity: digests.verity,
        })
    }

    /// Removes the file if it is empty; otherwise it stays to be resumed.
    pub(super) fn give_up(self) -> Result<(), FetchError> {
        if self.position > 0 {
            return Ok(());
        }
        self.discard()
    }

    /// Removes the file.
    pub(super) fn discard(self) -> Result<(), FetchError> {
        std::fs::remove_file(&self.path).map_err(|e| self.failed("remove", e))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> FetchError {
        failed(&self.what, &self.path, action, source)
    }
}

fn failed(what: &str, path: &Path, action: &'static str, source: io::Error) -> FetchError {
    FetchError::Part {
        what: what.to_owned(),
        action,
        path: path.to_owned(),
        source,
    }
}
