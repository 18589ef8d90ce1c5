//! Why a claim cannot be taken up, or several cannot be compared.

use crate::{manifest::ManifestError, model::Target};
use std::{io, path::PathBuf};

/// What is wrong with a manifest somebody points at; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The manifest, or a file it speaks of, cannot be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason given.
        #[source]
        source: io::Error,
    },
    /// A directory holds no manifest.
    #[error(
        "find {file:?} in {dir:?}\n\n\
         hint: name the directory of one artifact, <variant>/<arch>, or the manifest itself"
    )]
    NoManifest {
        /// The directory.
        dir: PathBuf,
        /// The manifest's name.
        file: &'static str,
    },
    /// It is not what pnb writes: no JSON, a key twice, an unknown or missing field, another form of the same.
    #[error(
        "take {path:?} for a manifest\n\n\
         hint: a manifest is read as pnb wrote it, byte for byte: get the file again, and nothing that reformats it between"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        #[source]
        source: ManifestError,
    },
    /// It follows another version of the schema.
    #[error(
        "take {path:?} for a manifest: its schema version is {found}, and this pnb knows {known}\n\n\
         hint: use the pnb that wrote it; the manifest names it under \"builder\""
    )]
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// The version this program reads.
        known: u32,
    },
    /// It is about several artifacts, or none.
    #[error("take {path:?} for a manifest: it is about {count} variants, not one")]
    Variants {
        /// The file.
        path: PathBuf,
        /// How many it lists.
        count: usize,
    },
    /// A list of checksums that pnb would not have written lies beside the manifest.
    #[error("check {path:?}{LONE}")]
    Sums {
        /// The list.
        path: PathBuf,
        /// What is wrong, and in which line.
        #[source]
        source: ManifestError,
    },
    /// A file that is spoken of is not there, or a list does not have it.
    #[error("find \"{file}\" in {within:?}: {why}{LONE}")]
    Missing {
        /// The file, relative to the directory.
        file: String,
        /// The directory or the list that lacks it.
        within: PathBuf,
        /// Who says that it should be there.
        why: String,
    },
    /// A file, or what is said of it in a list, is not what another statement says.
    #[error("check {path:?}: {what} is not what {by:?} says\nexpected: {expected}\n  actual: {actual}{LONE}")]
    Edited {
        /// The file or list.
        path: PathBuf,
        /// Which value.
        what: String,
        /// The statement it contradicts.
        by: &'static str,
        /// The value stated there.
        expected: String,
        /// The value found.
        actual: String,
    },
}

/// What to do about files that are not those of the manifest.
const LONE: &str = "\n\nhint: `pnb audit` names everything that is wrong in a directory; to take the manifest alone, \
                    name the file instead of the directory";

/// Why manifests cannot be compared; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    /// There is nothing to compare.
    #[error("compare {builders} manifests: it takes at least two")]
    Few {
        /// How many there are.
        builders: usize,
    },
    /// One builder cannot agree with itself.
    #[error("compare {first:?} with {other:?}: they are one file")]
    Twice {
        /// The manifest.
        first: PathBuf,
        /// The same, as it was given again.
        other: PathBuf,
    },
    /// They are not about the same artifact.
    #[error("compare {first:?} with {other:?}: one is about {first_about}, the other about {other_about}")]
    About {
        /// The first manifest.
        first: PathBuf,
        /// `<variant>/<arch>`.
        first_about: Target,
        /// The other one.
        other: PathBuf,
        /// `<variant>/<arch>`.
        other_about: Target,
    },
    /// More builders must agree than there are, or fewer than two.
    #[error("let {threshold} of {builders} builders agree: the threshold is between 2 and {builders}")]
    Threshold {
        /// What was asked for.
        threshold: usize,
        /// How many there are.
        builders: usize,
    },
}
