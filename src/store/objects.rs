//! Objects: put in once, named by fs-verity digest, hashed again before use.

use super::{
    Store,
    error::{IoContext, Operation, StoreError},
    known::Stamp,
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
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Content up to this size is hashed in memory, and no file is made of it when the store has it already.
const BUFFER: usize = 4 << 20;

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

/// Receives an object's bytes, hashing them on the way.
pub struct ObjectWriter<'a> {
    store: &'a Store,
    file: File,
    path: PathBuf,
    hasher: verity::Hasher,
    size: u64,
    executable: bool,
}

impl Write for ObjectWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl ObjectWriter<'_> {
    /// Puts the object under its name; returns the digest and how many bytes it has.
    pub fn finish(self) -> Result<(VerityDigest, u64), StoreError> {
        let digest = self.hasher.finish();
        self.store.settle(&self.file, &self.path, &digest, self.executable)?;
        Ok((digest, self.size))
    }
}

impl Store {
    /// Begins an object. `executable` only sets the permission bits of the inode that checkouts link to.
    pub fn object_writer(&self, executable: bool) -> Result<ObjectWriter<'_>, StoreError> {
        let path = self.scratch_path("object");
        let file = File::options()
            .create_new(true)
            .write(true)
            .open(&path)
            .at(Operation::Create, &path)?;
        Ok(ObjectWriter {
            store: self,
            file,
            path,
            hasher: verity::Hasher::new(),
            size: 0,
            executable,
        })
    }

    /// Stores everything `content` gives.
    pub fn put_object(&self, executable: bool, content: &mut dyn Read) -> Result<(VerityDigest, u64), StoreError> {
        let mut buffer = self.buffers.take();
        let stored = self.put_through(executable, content, &mut buffer);
        self.buffers.give_back(buffer);
        stored
    }

    fn put_through(
        &self,
        executable: bool,
        content: &mut dyn Read,
        buffer: &mut [u8],
    ) -> Result<(VerityDigest, u64), StoreError> {
        let mut read =
            |buffer: &mut [u8]| fill(content, buffer).at(Operation::Read, Path::new("the content of an object"));
        let mut n = read(buffer)?;
        if n < buffer.len() {
            let digest = verity::digest_bytes(&buffer[..n]);
            // Most of what stages give is there already, and a file that is made to be removed costs more than all the rest.
            if !self.object_file(&digest, executable).exists() {
                let path = self.scratch_path("object");
                let mut file = File::create_new(&path).at(Operation::Create, &path)?;
                file.write_all(&buffer[..n]).at(Operation::Write, &path)?;
                self.settle(&file, &path, &digest, executable)?;
            }
            return Ok((digest, n as u64));
        }
        let mut writer = self.object_writer(executable)?;
        while n > 0 {
            writer
                .write_all(&buffer[..n])
                .at(Operation::Write, &writer.path.clone())?;
            n = read(buffer)?;
        }
        writer.finish()
    }

    /// Moves a finished, hashed file on the store's file system under the object's name.
    pub fn adopt(&self, file: &Path, digest: &VerityDigest, executable: bool) -> Result<(), StoreError> {
        let open = File::open(file).at(Operation::Open, file)?;
        self.settle(&open, file, digest, executable)
    }

    fn settle(&self, file: &File, from: &Path, digest: &VerityDigest, executable: bool) -> Result<(), StoreError> {
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
        self.root.join("objects").join(&hex[..2]).join(name)
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
        self.root.join("sha256").join(&hex[..2]).join(&hex[2..])
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
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
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

/// Buffers that were used before: making one means writing zeros to all of it.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| vec![0; BUFFER])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
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
