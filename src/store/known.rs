//! Which objects this program has seen to be whole, so that it hashes none of them twice.
//!
//! An object is known once this program has hashed every byte of its inode, on the way in or later, for as long as the inode
//! looks the same: whoever writes to it changes its time, unless they set it back. Then what was changed during this run is found
//! by the next one (docs/threat-model.md).

use crate::model::VerityDigest;
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

/// Inodes by digest and whether they are executable.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeMap<(VerityDigest, bool), Stamp>>);

impl Known {
    /// Notes that the whole content of the inode has the digest.
    pub(super) fn insert(&self, digest: &VerityDigest, executable: bool, stamp: Stamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((*digest, executable), stamp);
    }

    /// Whether the inode that `found` describes is the one that was seen to have the digest.
    pub(super) fn holds(&self, digest: &VerityDigest, executable: bool, found: &Metadata) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(*digest, executable)) == Some(&Stamp::from(found))
    }
}
