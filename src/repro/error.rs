//! The errors of reading a claim and of comparing several.

use crate::{
    manifest::ManifestError,
    model::{Hint, Target},
};
use std::{borrow::Cow, io, path::PathBuf};

/// Errors of reading a manifest as a claim; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The manifest, or a file that it lists, cannot be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A directory holds no manifest.
    #[error("find {file:?} in {dir:?}")]
    NoManifest {
        /// The directory.
        dir: PathBuf,
        /// The manifest's name.
        file: &'static str,
    },
    /// The file is not a manifest as pnb writes it: not JSON, a key twice, an unknown or missing field, or other whitespace.
    #[error("read {path:?} as a manifest")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem, with its line.
        #[source]
        source: ManifestError,
    },
    /// The manifest has another version of the schema.
    #[error("read {path:?} as a manifest: it has schema version {found}, but this pnb reads version {known}")]
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// The version that the manifest states.
        found: String,
        /// The version this program reads.
        known: u32,
    },
    /// The manifest describes several artifacts, or none.
    #[error("read {path:?} as a manifest: it describes {count} variants, but must describe exactly one")]
    Variants {
        /// The file.
        path: PathBuf,
        /// The number of variants it describes.
        count: usize,
    },
    /// The list of checksums beside the manifest is not in the form that pnb writes.
    #[error("check {path:?}")]
    Sums {
        /// The list.
        path: PathBuf,
        /// The problem, with its line.
        #[source]
        source: ManifestError,
    },
    /// A file that a statement lists is missing from the directory or from the other list.
    #[error("find \"{file}\" in {within:?}: {why}")]
    Missing {
        /// The file, relative to the directory.
        file: String,
        /// The directory or the list that lacks it.
        within: PathBuf,
        /// The reason why the file must be there.
        why: String,
    },
    /// A value of a file, or of a list, contradicts another statement.
    #[error("check {path:?}: {what} differs from the one in {by:?}\nexpected: {expected}\n  actual: {actual}")]
    Edited {
        /// The file or list.
        path: PathBuf,
        /// The name of the value.
        what: String,
        /// The statement that it contradicts.
        by: &'static str,
        /// The value stated there.
        expected: String,
        /// The value found.
        actual: String,
    },
}

impl Hint for ClaimError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            ClaimError::Read { .. } | ClaimError::Variants { .. } => return None,
            ClaimError::NoManifest { .. } => {
                "name the directory of one artifact, <variant>/<arch>, or the manifest itself"
            }
            ClaimError::Malformed { .. } => {
                "only the bytes that pnb wrote are accepted: get the file again, without a tool that reformats it"
            }
            ClaimError::SchemaVersion { .. } => {
                "use the version of pnb that wrote the manifest; it stands there under \"builder\""
            }
            ClaimError::Sums { .. } | ClaimError::Missing { .. } | ClaimError::Edited { .. } => {
                "`pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the \
                 directory"
            }
        };
        Some(hint.into())
    }
}

/// Errors of comparing manifests; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    /// There are fewer than two manifests.
    #[error("compare manifests: at least 2 are needed (given: {builders})")]
    Few {
        /// The number of manifests.
        builders: usize,
    },
    /// Two paths name the same file.
    #[error("compare {first:?} with {other:?}: both are the same file")]
    Twice {
        /// The manifest.
        first: PathBuf,
        /// The second path of the same file.
        other: PathBuf,
    },
    /// The manifests describe different artifacts.
    #[error("compare {first:?} with {other:?}: the first describes {first_about}, the other {other_about}")]
    About {
        /// The first manifest.
        first: PathBuf,
        /// The artifact of the first manifest.
        first_about: Target,
        /// The other manifest.
        other: PathBuf,
        /// The artifact of the other manifest.
        other_about: Target,
    },
    /// The threshold is below two or above the number of builders.
    #[error("require {threshold} of {builders} builders to agree: the threshold must be from 2 to {builders}")]
    Threshold {
        /// The number of builders that were to agree.
        threshold: usize,
        /// The number of manifests.
        builders: usize,
    },
}

impl Hint for ChallengeError {}
