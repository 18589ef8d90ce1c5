//! Objects: named by the fs-verity digest of their content, stored once, hashed again before use.

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

/// Permission bits of an object's file. The same content can have one file of each mode, because checkouts are hard links.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ObjectMode {
    /// 0444.
    Plain,
    /// 0555.
    Executable,
}

impl ObjectMode {
    /// Both modes.
    pub(super) const ALL: [ObjectMode; 2] = [ObjectMode::Plain, ObjectMode::Executable];

    /// The mode of an executable file, or of another one.
    pub const fn of_executable(executable: bool) -> Self {
        if executable {
            ObjectMode::Executable
        } else {
            ObjectMode::Plain
        }
    }

    /// The mode of a file with the permission bits `mode`: executable if anyone may execute it.
    pub(super) const fn of(mode: u32) -> Self {
        Self::of_executable(mode & 0o111 != 0)
    }

    const fn other(self) -> Self {
        match self {
            ObjectMode::Plain => ObjectMode::Executable,
            ObjectMode::Executable => ObjectMode::Plain,
        }
    }

    /// The permission bits.
    pub(super) fn permissions(self) -> Permissions {
        Permissions::from_mode(match self {
            ObjectMode::Plain => 0o444,
            ObjectMode::Executable => 0o555,
        })
    }
}

/// Names in a directory, sorted: the store's only way to list one.
pub(super) fn sorted_names(dir: &Path) -> Result<Vec<OsString>, StoreError> {
    #[expect(clippy::disallowed_methods, reason = "the names are sorted below")]
    let entries = fs::read_dir(dir).at(Operation::List, dir)?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.at(Operation::List, dir)?.file_name());
    }
    names.sort();
    Ok(names)
}

impl Store {
    /// Makes an object of the complete, hashed file `file` on the store's file system, by renaming it.
    pub fn adopt(&self, file: &Path, digest: &VerityDigest, mode: ObjectMode) -> Result<(), StoreError> {
        let open = File::open(file).at(Operation::Open, file)?;
        self.settle(&open, file, digest, mode)
    }

    /// Renames the open file `file` at `from` to the object's name, or removes it if the object exists.
    pub(super) fn settle(
        &self,
        file: &File,
        from: &Path,
        digest: &VerityDigest,
        mode: ObjectMode,
    ) -> Result<(), StoreError> {
        let path = self.object_file(digest, mode);
        if is_there(&path)? {
            return fs::remove_file(from).at(Operation::Remove, from);
        }
        file.set_permissions(mode.permissions())
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
        self.known.insert(digest, mode, stamp);
        Ok(())
    }

    /// Path of the object's file with this mode, whether it exists or not.
    pub(super) fn object_file(&self, digest: &VerityDigest, mode: ObjectMode) -> PathBuf {
        let hex = digest.to_hex();
        let name = match mode {
            ObjectMode::Plain => hex[2..].to_owned(),
            ObjectMode::Executable => format!("{}.x", &hex[2..]),
        };
        self.content.join("objects").join(&hex[..2]).join(name)
    }

    /// A file of the object, of either mode; `None` when the store does not have the object.
    pub fn find_object(&self, digest: &VerityDigest) -> Result<Option<PathBuf>, StoreError> {
        for mode in ObjectMode::ALL {
            let path = self.object_file(digest, mode);
            if is_there(&path)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// A file of the object, of either mode.
    pub fn object_path(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        self.find_object(digest)?.ok_or(StoreError::Missing { digest: *digest })
    }

    /// The object's plain file, which a stage gets as a file input.
    pub fn plain_object(&self, digest: &VerityDigest) -> Result<PathBuf, StoreError> {
        self.object_inode(digest, ObjectMode::Plain)
    }

    /// The object's file with this mode; it is copied from the file with the other mode if only that exists.
    pub(super) fn object_inode(&self, digest: &VerityDigest, mode: ObjectMode) -> Result<PathBuf, StoreError> {
        let path = self.object_file(digest, mode);
        if is_there(&path)? {
            return Ok(path);
        }
        let other = self.object_file(digest, mode.other());
        let mut file = match File::open(&other) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing { digest: *digest }),
            opened => opened.at(Operation::Open, &other)?,
        };
        let (copied, _) = self.put_object(mode, &mut file)?;
        if copied != *digest {
            return Err(StoreError::Corrupt {
                path: other,
                expected: *digest,
                actual: copied,
            });
        }
        Ok(path)
    }

    /// Opens an object without hashing it, for callers that hash the bytes while they use them.
    pub fn open_object(&self, digest: &VerityDigest) -> Result<File, StoreError> {
        let path = self.object_path(digest)?;
        File::open(&path).at(Operation::Open, &path)
    }

    /// Hashes every file of an object that this program has not hashed yet, and compares the digests with the object's name.
    pub fn verify_object(&self, digest: &VerityDigest) -> Result<(), StoreError> {
        let mut seen = false;
        for mode in ObjectMode::ALL {
            let path = self.object_file(digest, mode);
            let found = match fs::symlink_metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                found => found.at(Operation::Open, &path)?,
            };
            seen = true;
            if self.known.holds(digest, mode, &found) {
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
            self.known.insert(digest, mode, stamp);
        }
        if seen {
            Ok(())
        } else {
            Err(StoreError::Missing { digest: *digest })
        }
    }

    /// Reads a small object into memory and checks its digest.
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

    /// The object with this SHA-256, if the store has it. Its content is not read.
    pub fn find_sha256(&self, sha256: &Sha256Digest) -> Result<Option<VerityDigest>, StoreError> {
        let path = self.sha256_file(sha256);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.at(Operation::Read, &path)?,
        };
        // An entry that is damaged is written again when the file is fetched.
        let digest = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim_end().parse().ok());
        let Some(digest) = digest else { return Ok(None) };
        Ok(self.find_object(&digest)?.map(|_| digest))
    }

    /// Records that the object `digest` has this SHA-256. The caller has computed both over the same bytes.
    pub fn link_sha256(&self, sha256: &Sha256Digest, digest: &VerityDigest) -> Result<(), StoreError> {
        self.known.insert_sha256(digest, *sha256);
        let path = self.sha256_file(sha256);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).at(Operation::Create, dir)?;
        }
        self.write_atomic(&path, format!("{digest}\n").as_bytes())
    }

    /// Removes the record of [`Store::link_sha256`].
    pub fn unlink_sha256(&self, sha256: &Sha256Digest) -> Result<(), StoreError> {
        let path = self.sha256_file(sha256);
        fs::remove_file(&path).at(Operation::Remove, &path)
    }

    /// Writes a small file under a temporary name and renames it into place.
    pub(super) fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let fresh = self.scratch_path("file");
        fs::write(&fresh, bytes).at(Operation::Write, &fresh)?;
        fs::rename(&fresh, path).at(Operation::Rename, path)
    }
}

/// Reads until `buffer` is full or the content ends; returns the number of bytes read.
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

/// The modification time of all objects and checkouts, so that checkouts of equal trees are equal.
fn fixed_times() -> fs::FileTimes {
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::FileTimes::new().set_modified(time).set_accessed(time)
}

/// Sets the time of a file, directory or symbolic link to that of all objects and checkouts.
pub(super) fn set_mtime(path: &Path) -> Result<(), StoreError> {
    let time = TimeSpec::new(1, 0);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
        .map_err(io::Error::from)
        .at(Operation::Write, path)
}

/// Whether there is a file or directory at `path`. A failure to look is an error and not an absence: what seems absent is made again, or
/// loses its record.
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().at(Operation::Open, path)
}
