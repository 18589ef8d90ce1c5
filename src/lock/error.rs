//! Errors of reading, writing and making a lock; every message completes "failed to …".

use super::ResolveError;
use crate::{
    debian::MetadataError,
    model::{Arch, Hint, Moment, NodeId, RelPath, hint_at_name, visible_message},
};
use std::borrow::Cow;

/// Name of the lock in messages.
const LOCK_NAME: &str = "lockfile.toml";

/// An error of reading, writing or making a lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A lockfile or `archives.toml` is malformed or contradicts itself.
    #[error("read {file}, line {line}: {problem}")]
    Line {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: usize,
        /// The fault, with the value.
        problem: String,
    },
    /// A later pnb wrote the lockfile.
    #[error("read {file}, line {line}: format version {found} is newer than {known}, the newest this pnb knows")]
    NewerVersion {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: usize,
        /// The version in the file.
        found: i64,
        /// The newest version that this program reads.
        known: u32,
    },
    /// A file is larger than the limit.
    #[error("read {file}: it has {size} bytes, and at most {limit} are accepted")]
    TooLarge {
        /// The file's name.
        file: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A lock cannot be written as TOML.
    #[error("write the lock as TOML")]
    Write(#[source] toml::ser::Error),
    /// The metadata of an archive is refused.
    #[error("verify the archive {archive}")]
    Metadata {
        /// The archive's name.
        archive: String,
        /// The cause.
        source: MetadataError,
    },
    /// No location has a file of an archive.
    #[error("fetch {path} of the archive {archive}")]
    Fetch {
        /// The archive's name.
        archive: String,
        /// Path below the archive's base.
        path: RelPath,
        /// The cause.
        source: std::io::Error,
    },
    /// No location has the release file that the lock is made of.
    #[error("fetch {path} of the archive {archive} as it was at {snapshot}, the snapshot of the lock")]
    Gone {
        /// The archive's name.
        archive: String,
        /// Path below the archive's base.
        path: RelPath,
        /// The snapshot of the archive in the lock.
        snapshot: Moment,
        /// The cause.
        source: std::io::Error,
    },
    /// A snapshot lies in the future by a clock that nothing proves wrong.
    #[error("use the snapshot {snapshot}: it lies in the future, for it is {now} by this machine's clock")]
    Future {
        /// The snapshot.
        snapshot: Moment,
        /// The present time.
        now: String,
    },
    /// A file of an archive has other bytes than its release file says.
    #[error(
        "verify {path} of the archive {archive}: it is not the file that was signed\nexpected: {expected}\n  actual: {actual}"
    )]
    Mismatch {
        /// The archive's name.
        archive: String,
        /// Path below the archive's base.
        path: RelPath,
        /// The signed digest and size.
        expected: String,
        /// The digest and size of the file.
        actual: String,
    },
    /// The release file of an archive is older than the locked one.
    #[error("lock the archive {archive}: its release of {found} is older than the locked one of {locked}")]
    Rollback {
        /// The archive's name.
        archive: String,
        /// Date of the release file.
        found: String,
        /// Date of the locked release file.
        locked: String,
    },
    /// An archive lacks a part that `archives.toml` or a stage wants, or contradicts another archive.
    #[error("lock the archive {archive}: {problem}")]
    Archive {
        /// The archive's name.
        archive: String,
        /// The missing part, or the contradiction.
        problem: String,
    },
    /// A package set cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The architectures would be built from different sources.
    #[error("lock both architectures from the same sources:\n  {}", differences.join("\n  "))]
    Sources {
        /// One line per source package.
        differences: Vec<String>,
    },
    /// The lock has the name of a base image without its pins.
    #[error("use the base image {image}: {} has its name only", LOCK_NAME)]
    BaseNotRead {
        /// The image.
        image: String,
    },
    /// The base image has no image for an architecture.
    #[error("use the base image {image}: it has no image for {arch} (it has: {known})")]
    BaseArch {
        /// The image.
        image: String,
        /// The architecture.
        arch: Arch,
        /// The architectures that it has.
        known: String,
    },
    /// The base image has a package that is not installed on it in this version.
    #[error("use the base image {image}: it has the package {package}, which the package set {set} has {found}")]
    BasePackage {
        /// The image.
        image: String,
        /// The package in the image.
        package: String,
        /// The package set.
        set: NodeId,
        /// How the package set has it: in another version, of another architecture, not at all.
        found: String,
    },
    /// The lock would have a kernel with a known fault; the text completes "failed to …".
    #[error("{problem}")]
    Kernel {
        /// The kernel, its fault, and the source of that knowledge.
        problem: String,
    },
    /// The request itself is faulty; the text completes "failed to …".
    #[error("{0}")]
    Request(String),
}

impl Hint for LockError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NewerVersion { .. } => Some(
                "use the pnb that wrote it or a later one, or write it anew with `pnb lock --update`".into(),
            ),
            Self::Rollback { .. } => Some(
                "a mirror that goes back in time is outdated or hostile; to go back on purpose, name the moment with --snapshot".into(),
            ),
            Self::Kernel { .. } => Some(
                "lock a moment before or after these releases with --snapshot, or want another kernel in stages/kernel-package".into(),
            ),
            Self::Line { problem, .. } => hint_at_name(problem).map(Cow::from),
            Self::Resolve(error) => error.hint(),
            Self::Metadata { source, .. } => source.hint(),
            Self::Gone { .. } => Some(
                "name a mirror that still has it with --mirror, or take the newest versions of all packages with `pnb lock --update`"
                    .into(),
            ),
            Self::Future { .. } => Some("name a moment that has passed; if this machine's clock is behind, set it".into()),
            Self::BaseNotRead { .. } => Some("`pnb lock` reads the image and writes its pins".into()),
            Self::BaseArch { .. } => Some(
                "pin an index that lists the architecture, or build without a base image (`pnb lock --no-base`)".into(),
            ),
            Self::BasePackage { .. } => Some(
                "pin an image that was made from the same snapshot (`pnb lock --base NAME@sha256:…`), name the snapshot of \
                 the image with `pnb lock --snapshot`, or build without a base image (`pnb lock --no-base`)"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// The 1-based line on which byte `at` of `text` lies.
pub fn line_at(text: &str, at: usize) -> usize {
    let end = at.min(text.len());
    text.as_bytes()[..end].iter().filter(|b| **b == b'\n').count() + 1
}

/// Adds the file and the line to an error of the TOML parser.
pub(super) fn toml_error(file: &str, text: &str, error: &toml::de::Error) -> LockError {
    LockError::Line {
        file: file.to_owned(),
        line: line_at(text, error.span().map_or(0, |span| span.start)),
        problem: visible_message(error.message()),
    }
}
