//! `.pnb-publication.json`: the files that pnb placed in a directory, so that it replaces its own files only.
//!
//! ```json
//! {
//!   "files": {
//!     "amd64/kernel": [
//!       "<64 hex>"
//!     ]
//!   },
//!   "format_version": 1
//! }
//! ```
//!
//! A file has several digests while it is replaced: the new one is recorded before the file gets its name, and the old ones go when all
//! files are in place. So a file that a killed run left, old or new, is known to be pnb's.

use crate::{
    manifest::{ManifestError, from_canonical, to_canonical},
    model::{RelPath, Sha256Digest},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Name of the file.
pub const PUBLICATION_FILE: &str = ".pnb-publication.json";
/// Version of the format.
const VERSION: u32 = 1;
/// Most bytes of the file.
pub(super) const MAX_RECORD: u64 = 4 << 20;

/// The files that pnb placed in a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// For each name the SHA-256 digests that the file may have.
    files: BTreeMap<RelPath, BTreeSet<Sha256Digest>>,
    format_version: u32,
}

impl Default for Publication {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            format_version: VERSION,
        }
    }
}

impl Publication {
    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are not a record in canonical form, or one of another version.
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let read: Self = from_canonical(bytes, PUBLICATION_FILE)?;
        match read.format_version {
            VERSION => Ok(read),
            found => Err(ManifestError::SchemaVersion {
                file: PUBLICATION_FILE.to_owned(),
                found: found.to_string(),
                known: VERSION,
            }),
        }
    }

    /// The file's content.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        to_canonical(self, PUBLICATION_FILE)
    }

    /// Whether pnb placed a file of this digest under this name.
    pub fn has(&self, name: &RelPath, sha256: &Sha256Digest) -> bool {
        self.files.get(name).is_some_and(|known| known.contains(sha256))
    }

    /// Adds a digest that the file `name` may have from now on.
    pub fn add(&mut self, name: &RelPath, sha256: Sha256Digest) {
        self.files.entry(name.clone()).or_default().insert(sha256);
    }

    /// Forgets every other digest of the file `name`.
    pub fn settle(&mut self, name: &RelPath, sha256: Sha256Digest) {
        self.files.insert(name.clone(), BTreeSet::from([sha256]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_in_no_other_form() {
        let name: RelPath = "amd64/kernel".parse().expect("a path");
        let (old, new) = (Sha256Digest::new([1; 32]), Sha256Digest::new([2; 32]));
        let mut record = Publication::default();
        record.add(&name, old);
        record.add(&name, new);
        let text = record.to_json().expect("written");
        let read = Publication::read(text.as_bytes()).expect("read");
        assert_eq!(read, record);
        assert!(read.has(&name, &old) && read.has(&name, &new));
        record.settle(&name, new);
        assert!(!record.has(&name, &old) && record.has(&name, &new));
        let later = text.replace("\"format_version\": 1", "\"format_version\": 2");
        assert!(Publication::read(later.as_bytes()).is_err());
        assert!(Publication::read(text.trim_end().as_bytes()).is_err());
        assert!(Publication::read(text.replace("amd64/", "../").as_bytes()).is_err());
    }
}
