//! The objects of a repository. Each one that is read is hashed: a database in somebody else's hands can hold anything under any name.

use super::{SourceError, repository::bad};
use gix_hash::{Kind, ObjectId};
use gix_object::{CommitRef, Find, TreeRef};
use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

/// Most bytes of a commit or of the listing of one directory.
const MAX_OBJECT: usize = 64 << 20;

/// An entry of a directory in a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitEntry {
    /// A regular file.
    File { id: ObjectId, executable: bool },
    /// A symbolic link; the object is its target.
    Symlink { id: ObjectId },
    /// A directory.
    Directory { id: ObjectId },
    /// A submodule; the commit is in a repository of its own.
    Submodule { id: ObjectId },
}

/// The objects of a repository.
pub(super) struct Objects {
    dir: PathBuf,
    kind: Kind,
    database: gix_odb::Handle,
}

impl Objects {
    /// Opens the directory `objects` of a repository. Neither replacement references nor a list of grafts are looked at.
    pub(super) fn open(dir: PathBuf, kind: Kind) -> Result<Self, SourceError> {
        let options = gix_odb::store::init::Options {
            alloc_limit_bytes: Some(MAX_OBJECT),
            ..Default::default()
        };
        let database = gix_odb::at_opts(&dir, kind, None, options);
        let database = database.map_err(SourceError::io("open", dir.clone()))?;
        Ok(Self { dir, kind, database })
    }

    /// Whether the repository has the object.
    pub(super) fn has(&self, id: &ObjectId) -> bool {
        gix_object::Exists::exists(&self.database, id)
    }

    /// The top directory of a commit.
    pub(super) fn top(&self, commit: &ObjectId) -> Result<ObjectId, SourceError> {
        let mut buffer = Vec::new();
        let data = self.object(commit, gix_object::Kind::Commit, &mut buffer)?;
        let parsed = CommitRef::from_bytes(data, self.kind);
        Ok(parsed.map_err(|e| self.fault(commit, &e.to_string()))?.tree())
    }

    /// The entries of a directory, by name.
    pub(super) fn directory(&self, id: &ObjectId) -> Result<BTreeMap<Vec<u8>, CommitEntry>, SourceError> {
        let mut buffer = Vec::new();
        let data = self.object(id, gix_object::Kind::Tree, &mut buffer)?;
        let parsed = TreeRef::from_bytes(data, self.kind).map_err(|e| self.fault(id, &e.to_string()))?;
        let mut entries = BTreeMap::new();
        for entry in parsed.entries {
            let id = entry.oid.to_owned();
            let entry_of = match entry.mode.kind() {
                gix_object::tree::EntryKind::Tree => CommitEntry::Directory { id },
                gix_object::tree::EntryKind::Blob => CommitEntry::File { id, executable: false },
                gix_object::tree::EntryKind::BlobExecutable => CommitEntry::File { id, executable: true },
                gix_object::tree::EntryKind::Link => CommitEntry::Symlink { id },
                gix_object::tree::EntryKind::Commit => CommitEntry::Submodule { id },
            };
            if entries.insert(entry.filename.to_vec(), entry_of).is_some() {
                return Err(self.fault(&id, "the directory has two entries of one name"));
            }
        }
        Ok(entries)
    }

    /// The digest of `content`, of `size` bytes, as the object of a file; `None` when `content` has another length.
    pub(super) fn digest(&self, content: impl Read, size: u64) -> std::io::Result<Option<ObjectId>> {
        let mut hasher = gix_hash::hasher(self.kind);
        hasher.update(&gix_object::encode::loose_header(gix_object::Kind::Blob, size));
        let mut content = content.take(size.saturating_add(1));
        let mut buffer = vec![0; 64 << 10];
        let mut left = size;
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let Some(rest) = left.checked_sub(n as u64) else {
                return Ok(None);
            };
            left = rest;
            hasher.update(&buffer[..n]);
        }
        if left > 0 {
            return Ok(None);
        }
        // A collision of SHA-1 that was made on purpose equals no object.
        Ok(hasher.try_finalize().ok())
    }

    /// Reads the object `id`, which must be of the kind `wanted` and have its digest.
    fn object<'a>(
        &self,
        id: &ObjectId,
        wanted: gix_object::Kind,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], SourceError> {
        let found = self
            .database
            .try_find(id, buffer)
            .map_err(|e| self.fault(id, &e.to_string()))?;
        let data = found.ok_or_else(|| self.fault(id, "the repository does not have it"))?;
        if data.kind != wanted {
            return Err(self.fault(id, &format!("it is a {}, not a {wanted}", data.kind)));
        }
        let actual = gix_object::compute_hash(self.kind, data.kind, data.data);
        match actual {
            Ok(actual) if actual == *id => Ok(data.data),
            _ => Err(self.fault(id, "its content has another digest")),
        }
    }

    fn fault(&self, id: &ObjectId, problem: &str) -> SourceError {
        bad(self.path(), format!("object {id}: {problem}"))
    }

    fn path(&self) -> &Path {
        &self.dir
    }
}
