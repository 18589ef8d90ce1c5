//! Objects that this program has hashed, so that it hashes none of them twice.
//!
//! An object is known once this program has hashed every byte of its file, when it was stored or later, and for as long as the inode's
//! stamp stays the same. A write to the file changes its modification time. A writer that sets the time back goes unnoticed by this run
//! and is found by the next one (docs/threat-model.md).

use super::ObjectMode;
use crate::{
    model::{Sha256Digest, VerityDigest, lock},
    verity::Digests,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Metadata,
    os::unix::fs::MetadataExt,
    sync::Mutex,
};

/// Identity, size and modification time of an inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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

/// Digests of the content that this program has hashed.
#[derive(Debug, Default)]
pub(super) struct HashCache {
    /// Inodes by digest and mode.
    inodes: Mutex<BTreeMap<(VerityDigest, ObjectMode), Stamp>>,
    /// Inodes of copies, which are no objects, with the digest of their content.
    copies: Mutex<BTreeSet<(VerityDigest, Stamp)>>,
    /// SHA-256 of the same bytes, where both were computed; true of the bytes, not of any inode.
    sha256: Mutex<BTreeMap<VerityDigest, Sha256Digest>>,
    /// Sizes of artifacts that were hashed and not stored.
    unkept: Mutex<BTreeMap<VerityDigest, u64>>,
}

impl HashCache {
    /// Records that the whole content of the inode has the digest.
    pub(super) fn insert(&self, digest: &VerityDigest, mode: ObjectMode, stamp: Stamp) {
        lock(&self.inodes).insert((*digest, mode), stamp);
    }

    /// Whether the inode with the metadata `found` is the one whose content was hashed to the digest.
    pub(super) fn holds(&self, digest: &VerityDigest, mode: ObjectMode, found: &Metadata) -> bool {
        lock(&self.inodes).get(&(*digest, mode)) == Some(&Stamp::from(found))
    }

    /// Records that a copy has the content with the digest.
    pub(super) fn insert_copy(&self, digest: &VerityDigest, stamp: Stamp) {
        lock(&self.copies).insert((*digest, stamp));
    }

    /// Whether the inode with the metadata `found` is a copy whose content has the digest.
    pub(super) fn holds_copy(&self, digest: &VerityDigest, found: &Metadata) -> bool {
        lock(&self.copies).contains(&(*digest, Stamp::from(found)))
    }

    /// Records that the same bytes have both digests.
    pub(super) fn insert_sha256(&self, digest: &VerityDigest, sha256: Sha256Digest) {
        lock(&self.sha256).insert(*digest, sha256);
    }

    /// Records both digests of an artifact that was hashed and not stored.
    pub(super) fn insert_unkept(&self, digests: &Digests) {
        self.insert_sha256(&digests.verity, digests.sha256);
        lock(&self.unkept).insert(digests.verity, digests.size);
    }

    /// Digests and size of an artifact that was hashed and not stored.
    pub(super) fn unkept(&self, digest: &VerityDigest) -> Option<Digests> {
        Some(Digests {
            verity: *digest,
            size: *lock(&self.unkept).get(digest)?,
            sha256: self.sha256_of(digest)?,
        })
    }

    /// SHA-256 of the bytes that have the digest.
    pub(super) fn sha256_of(&self, digest: &VerityDigest) -> Option<Sha256Digest> {
        lock(&self.sha256).get(digest).copied()
    }
}
