//! Objects: put in once, named by fs-verity digest, hashed again before use.

use super::{
    Store,
    error::{IoContext, Operation, StoreError},
    hash_cache::Stamp,
};
use crate::{
    model::{Sha256Digest, VerityDigest},
    verity,
};
use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{UtimensatFlags, utimensat},
        time::TimeSpec,
    },
};
use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Names in a directory, sorted: the one listing the store uses.
pub(super) fn sorted_names(dir: &Path) -> Result<Vec<OsString>, StoreError> {
    #[expect(clippy::disallowed_methods, reason = "this is the sorted listing")]
    let entries = fs::read_dir(dir).at(Operation::List, dir)?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.at(Operation::List, dir)?.file_name());
    }
    names.sort();
    Ok(names)
}

impl Store {
    /// Moves a finished, hashed file on the store's file system under the object's name.
    pub fn adopt(&self, file: &Path, digest: &VerityDigest, executable: bool) -> Result<(), StoreError> {
        let open = File::open(file).at(Operation::Open, file)?;
        self.settle(&open, file, digest, executable)
    }

    pub(super) fn settle(
        &self,
        file: &File,
        from: &Path,
        digest: &VerityDigest,
        executable: bool,
    ) -> Result<(), StoreError> {
        let path = self.object_file(digest, executable);
        if path.exists() {
            return fs::remove_file(from).at(Operation::Remove, from);
        }
        let mode = if executable { 0o555 } else { 0o444 };
        file.set_permissions(Permissions::from_mode(mode))
            .and_then(|()| file.set_times(fixed_times()))
            .at(Operation::Write, from)?;
        let stamp = Stamp::from(&file.metadata().at(Operation::Open, from)?);
        match fs::rename(from, &path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = path.parent() {
                    fs::create_dir_all(dir).at(Operation::Create, dir)?;
                }
                fs::rename(from, &path).at(Operation::Rename, &path)?;
            }
            renamed => renamed.at(Operation::Rename, &path)?,
        }
        self.known.insert(digest, executable, stamp);
        Ok(())
    }

    /// The inode that checkouts of executables (or of other files) link to.
    pub(super) fn object_file(&self, digest: &VerityDigest, executable: bool) -> PathBuf {
        let hex = digest.to_hex();
        let name = if executable {
            format!("{}.x", &hex[2..])
        } else {
            hex[2..].to_owned()
        };
        self.content.join("objects").join(&hex[..2]).join(name)
    }

    /// A file holding the object; `None` when the store does not have it.
    pub fn find_object(&self, digest: &VerityDigest) -> Option<PathBuf> {
        [false, true]
            .into_iter()
            .map(|x| self.object_file(digest, x))
            .find(|p| p.exists())
    }

    /// A file holding the object.
    pub fn object_path(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        self.find_object(digest).ok_or(StoreError::Missing { digest: *digest })
    }

    /// A file holding the object, never executable: what a stage gets as a file input.
    pub fn plain_object(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        self.object_inode(digest, false)
    }

    /// The inode with the wanted permission, copied from the other one if only that is there.
    pub(super) fn object_inode(&self, digest: &VerityDigest, executable: bool) -> Result<PathBuf, StoreError> {
        let path = self.object_file(digest, executable);
        if path.exists() {
            return Ok(path);
        }
        let other = self.object_file(digest, !executable);
        let mut file = match File::open(&other) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing { digest: *digest }),
            opened => opened.at(Operation::Open, &other)?,
        };
        let (copied, _) = self.put_object(executable, &mut file)?;
        if copied != *digest {
            return Err(StoreError::Corrupt {
                path: other,
                expected: *digest,
                actual: copied,
            });
        }
        Ok(path)
    }

    /// Opens an object without hashing it; for bytes that are hashed while they are used.
    pub fn open_object(&self, digest: &VerityDigest) -> Result<File, StoreError> {
        let path = self.object_path(digest)?;
        File::open(&path).at(Operation::Open, &path)
    }

    /// Hashes an object (each inode of it that this program has not seen whole yet) and compares with its name.
    pub fn verify_object(&self, digest: &VerityDigest) -> Result<(), StoreError> {
        let mut seen = false;
        for executable in [false, true] {
            let path = self.object_file(digest, executable);
            let found = match fs::symlink_metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                found => found.at(Operation::Open, &path)?,
            };
            seen = true;
            if self.known.holds(digest, executable, &found) {
                continue;
            }
            let mut file = File::open(&path).at(Operation::Open, &path)?;
            let stamp = Stamp::from(&file.metadata().at(Operation::Open, &path)?);
            let mut buffer = self.buffers.take();
            let hashed = digest_with(&mut file, &mut buffer);
            self.buffers.give_back(buffer);
            let actual = hashed.at(Operation::Read, &path)?;
            if actual != *digest {
                return Err(StoreError::Corrupt {
                    path,
                    expected: *digest,
                    actual,
                });
            }
            self.known.insert(digest, executable, stamp);
        }
        if seen {
            Ok(())
        } else {
            Err(StoreError::Missing { digest: *digest })
        }
    }

    /// Reads a small object whole, checked.
    pub fn read_object(&self, digest: &VerityDigest) -> Result<Vec<u8>, StoreError> {
        let path = self.object_path(digest)?;
        let bytes = fs::read(&path).at(Operation::Read, &path)?;
        let actual = verity::digest_bytes(&bytes);
        if actual != *digest {
            return Err(StoreError::Corrupt {
                path,
                expected: *digest,
                actual,
            });
        }
        Ok(bytes)
    }

    fn sha256_file(&self, sha256: &Sha256Digest) -> PathBuf {
        let hex = sha256.to_hex();
        self.content.join("sha256").join(&hex[..2]).join(&hex[2..])
    }

    /// The object with this SHA-256, if the store has it. Its bytes are not read.
    pub fn find_sha256(&self, sha256: &Sha256Digest) -> Option<VerityDigest> {
        let digest = fs::read_to_string(self.sha256_file(sha256))
            .ok()?
            .trim_end()
            .parse()
            .ok()?;
        self.find_object(&digest).map(|_| digest)
    }

    /// Notes that the object `digest` has this SHA-256. The caller has computed both over the same bytes.
    pub fn link_sha256(&self, sha256: &Sha256Digest, digest: &VerityDigest) -> Result<(), StoreError> {
        self.known.insert_sha256(digest, *sha256);
        let path = self.sha256_file(sha256);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).at(Operation::Create, dir)?;
        }
        self.write_atomic(&path, format!("{digest}\n").as_bytes())
    }

    /// Forgets what [`Store::link_sha256`] noted.
    pub fn unlink_sha256(&self, sha256: &Sha256Digest) -> Result<(), StoreError> {
        let path = self.sha256_file(sha256);
        fs::remove_file(&path).at(Operation::Remove, &path)
    }

    /// Writes a small file under a temporary name and renames it.
    pub(super) fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let fresh = self.scratch_path("file");
        fs::write(&fresh, bytes).at(Operation::Write, &fresh)?;
        fs::rename(&fresh, path).at(Operation::Rename, path)
    }
}

/// Reads until `buffer` is full or nothing is left; returns how much there was.
pub(super) fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match content.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

fn digest_with(file: &mut File, buffer: &mut [u8]) -> io::Result<VerityDigest> {
    let mut hasher = verity::Hasher::new();
    loop {
        let n = fill(file, buffer)?;
        hasher.update(&buffer[..n]);
        if n < buffer.len() {
            return Ok(hasher.finish());
        }
    }
}

/// Everything in a checkout carries the same time, so that checkouts of equal trees look equal.
fn fixed_times() -> fs::FileTimes {
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::FileTimes::new().set_modified(time).set_accessed(time)
}

/// Gives a file, directory or symbolic link the time that everything in a checkout carries.
pub(super) fn set_mtime(path: &Path) -> Result<(), StoreError> {
    let time = TimeSpec::new(1, 0);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
        .map_err(io::Error::from)
        .at(Operation::Write, path)
}
