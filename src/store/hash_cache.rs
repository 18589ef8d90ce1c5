//! Which objects this program has seen to be whole, so that it hashes none of them twice.
//!
//! An object is known once this program has hashed every byte of its inode, on the way in or later, for as long as the inode
//! looks the same: whoever writes to it changes its time, unless they set it back. Then what was changed during this run is found
//! by the next one (docs/threat-model.md).

use crate::{
    model::{Sha256Digest, VerityDigest},
    verity::Digests,
};
use std::{
    collections::BTreeMap,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    sync::{Mutex, PoisonError},
};

/// What an inode looked like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl From<&Metadata> for Stamp {
    fn from(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            seconds: found.mtime(),
            nanoseconds: found.mtime_nsec(),
        }
    }
}

/// What this program has hashed.
#[derive(Debug, Default)]
pub(super) struct HashCache {
    /// Inodes by digest and whether they are executable.
    inodes: Mutex<BTreeMap<(VerityDigest, bool), Stamp>>,
    /// SHA-256 of the same bytes, where both were computed. It says nothing about any inode.
    sha256: Mutex<BTreeMap<VerityDigest, Sha256Digest>>,
    /// Sizes of artifacts that were hashed and not kept.
    unkept: Mutex<BTreeMap<VerityDigest, u64>>,
}

impl HashCache {
    /// Notes that the whole content of the inode has the digest.
    pub(super) fn insert(&self, digest: &VerityDigest, executable: bool, stamp: Stamp) {
        let mut known = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((*digest, executable), stamp);
    }

    /// Whether the inode that `found` describes is the one that was seen to have the digest.
    pub(super) fn holds(&self, digest: &VerityDigest, executable: bool, found: &Metadata) -> bool {
        let known = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(*digest, executable)) == Some(&Stamp::from(found))
    }

    /// Notes that the same bytes have both digests.
    pub(super) fn insert_sha256(&self, digest: &VerityDigest, sha256: Sha256Digest) {
        let mut known = self.sha256.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(*digest, sha256);
    }

    /// Notes that an artifact was made and not kept, both its digests being known.
    pub(super) fn insert_unkept(&self, digests: &Digests) {
        self.insert_sha256(&digests.verity, digests.sha256);
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        unkept.insert(digests.verity, digests.size);
    }

    /// Digests and size of an artifact that was not kept.
    pub(super) fn unkept(&self, digest: &VerityDigest) -> Option<Digests> {
        let unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Digests {
            verity: *digest,
            size: *unkept.get(digest)?,
            sha256: self.sha256_of(digest)?,
        })
    }

    /// SHA-256 of the bytes that have the digest.
    pub(super) fn sha256_of(&self, digest: &VerityDigest) -> Option<Sha256Digest> {
        let known = self.sha256.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).copied()
    }
}
