//! A release as it is to be, and what a look at the server shows of it.

use super::answers::{GiteaVersion, ReleaseAnswer};
use crate::{
    model::{GitSha, Sha256Digest},
    publish::{GiteaError, JournalEntry, JournalError},
};
use std::{collections::BTreeMap, path::PathBuf};

/// A file that a release is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedAsset {
    /// Its name, `<variant>-<arch>-<file>`: a release is one flat list.
    pub name: String,
    /// The file with its content.
    pub source: PathBuf,
    /// SHA-256 of its content.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A release as it is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedRelease {
    pub(super) tag: String,
    pub(super) commit: GitSha,
    pub(super) title: String,
    pub(super) notes: String,
    pub(super) assets: BTreeMap<String, PlannedAsset>,
}

impl PlannedRelease {
    /// A release of these files.
    ///
    /// # Errors
    /// A tag or name has a character that it must not have, or two files have one name.
    pub fn new(
        tag: &str,
        commit: GitSha,
        title: &str,
        notes: &str,
        assets: Vec<PlannedAsset>,
    ) -> Result<Self, GiteaError> {
        let bad = |value: &str, problem| GiteaError::Plan {
            value: crate::model::visible_message(value),
            problem,
        };
        let plain = |text: &str| {
            let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
            first && text.len() <= 200 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
        };
        if !plain(tag) || tag.contains("..") || tag.ends_with('.') || tag.ends_with(".lock") {
            return Err(bad(tag, "it is no name of a tag"));
        }
        let mut by_name = BTreeMap::new();
        for asset in assets {
            if !plain(&asset.name) {
                return Err(bad(&asset.name, "it is no name of a file in a release"));
            }
            if let Some(twice) = by_name.insert(asset.name.clone(), asset) {
                return Err(bad(&twice.name, "two files have this name"));
            }
        }
        Ok(Self {
            tag: tag.to_owned(),
            commit,
            title: title.to_owned(),
            notes: notes.to_owned(),
            assets: by_name,
        })
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

/// Limits of the look and of comparisons.
#[derive(Clone, Copy, Debug)]
pub struct LookOptions {
    /// Most bytes of a file, instead of what the server states.
    pub max_asset_size: Option<u64>,
    /// A file up to this size is always downloaded and compared, a larger one only if the journal does not have it.
    pub compare_up_to: u64,
}

impl Default for LookOptions {
    fn default() -> Self {
        Self {
            max_asset_size: None,
            compare_up_to: 16 << 20,
        }
    }
}

/// Whether there is a release.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReleaseState {
    /// There is none.
    Absent,
    /// There is a draft.
    Draft(ReleaseAnswer),
    /// It is visible, with exactly the planned files.
    Shown(ReleaseAnswer),
}

/// Whether a draft has a planned file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileState {
    /// It is to be uploaded.
    Absent,
    /// One or more files of this name are there; their content is compared when the draft is filled.
    Present,
}

/// What the look at the server has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenRelease {
    /// The server's version.
    pub version: GiteaVersion,
    /// The release.
    pub state: ReleaseState,
    /// Every planned file by name.
    pub files: BTreeMap<String, FileState>,
    /// Rules for tags of which pnb cannot tell whether they forbid the tag.
    pub doubts: Vec<String>,
}

/// The journal's part in the steps: the entries of earlier runs, and a place for new ones.
pub trait ReleaseJournal {
    /// Whether an earlier run has sent these bytes as this file.
    fn has(&self, entry: &JournalEntry) -> bool;
    /// Adds what was done.
    fn note(&mut self, entry: JournalEntry) -> Result<(), JournalError>;
}

impl ReleaseJournal for crate::publish::Journal {
    fn has(&self, entry: &JournalEntry) -> bool {
        self.entries().contains(entry)
    }
    fn note(&mut self, entry: JournalEntry) -> Result<(), JournalError> {
        self.add(entry)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn planned(name: &str) -> PlannedAsset {
        PlannedAsset {
            name: name.to_owned(),
            source: PathBuf::new(),
            sha256: Sha256Digest::new([1; 32]),
            size: 5,
        }
    }

    pub(in super::super) fn plan(tag: &str, names: &[&str]) -> Result<PlannedRelease, GiteaError> {
        let commit: GitSha = "0123456789abcdef0123456789abcdef01234567".parse().expect("a commit");
        PlannedRelease::new(tag, commit, "", "", names.iter().map(|n| planned(n)).collect())
    }

    #[test]
    fn names_are_plain_and_unique() {
        plan("v1.0-rc.1+x", &["raw-amd64-disk.raw.zst", "SHA256SUMS"]).expect("good");
        for (tag, names) in [
            ("", &["a"][..]),
            ("-v1", &["a"]),
            ("v1/x", &["a"]),
            ("v1..2", &["a"]),
            ("v1.lock", &["a"]),
            ("v 1", &["a"]),
            ("v1", &["a", "a"]),
            ("v1", &["a\"b"]),
            ("v1", &["../a"]),
            ("v1", &["a\r\nb"]),
        ] {
            assert!(plan(tag, names).is_err(), "{tag:?} {names:?}");
        }
    }
}
