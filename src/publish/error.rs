//! The errors of publishing; each message completes "failed to …".

use crate::{
    http::HttpError,
    image::ImageError,
    manifest::ManifestError,
    model::{Hint, ModelError, RelPath, Sha256Digest, Target, visible_message, visible_path},
};
use std::{borrow::Cow, fmt, io, path::PathBuf};

/// Why a name of a layout cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// A file with other content, which pnb placed there before.
    Older {
        /// The name.
        name: RelPath,
    },
    /// A file with other content, which pnb did not place there.
    Foreign {
        /// The name.
        name: RelPath,
        /// SHA-256 of its content.
        sha256: Sha256Digest,
    },
    /// Something that is no regular file, or for a directory no directory.
    Kind {
        /// The name.
        name: RelPath,
        /// A noun for what it must be.
        wanted: &'static str,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Older { name } => write!(f, "{name} is of an older publication"),
            Obstacle::Foreign { name, sha256 } => {
                write!(
                    f,
                    "{name} has other content, which pnb did not place there (sha256 {sha256})"
                )
            }
            Obstacle::Kind { name, wanted } => write!(f, "{name} is not a {wanted}"),
        }
    }
}

/// Why artifacts cannot be placed in a directory.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A system call on a file failed.
    #[error("{action} {}", visible_path(path))]
    Io {
        /// The action, such as `read`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A name of the layout is no path; its parts are constants.
    #[error("name a file of the layout")]
    Name {
        /// The cause.
        #[source]
        source: ModelError,
    },
    /// An artifact of which the layout has no file.
    #[error(
        "lay out {}: the layout has no names for the files of this artifact",
        visible_path(path)
    )]
    NoPlace {
        /// Directory of the artifact.
        path: PathBuf,
    },
    /// Two artifacts of one family and architecture.
    #[error("lay out {target}: two of the given artifacts have this name")]
    Twice {
        /// The artifact.
        target: Target,
    },
    /// An artifact without a file that the layout has.
    #[error("lay out {}: the artifact has no such file", visible_path(path))]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// Another program publishes into the directory.
    #[error("publish into {}: another pnb publishes into it at this moment", visible_path(path))]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The record of earlier publications cannot be read.
    #[error("read {}", visible_path(path))]
    Record {
        /// The record.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ManifestError,
    },
    /// Names of the layout are taken. Nothing was written.
    #[error("publish into {}:{}", visible_path(path), listed(obstacles))]
    Taken {
        /// The directory.
        path: PathBuf,
        /// What is in the way, by name.
        obstacles: Vec<Obstacle>,
    },
    /// A file of an artifact was changed after the audit.
    #[error(
        "copy {}: it was changed after the audit\n  expected: {expected}\n  actual:   {actual}",
        visible_path(path)
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its digest according to the audit.
        expected: Sha256Digest,
        /// The digest of what was copied.
        actual: Sha256Digest,
    },
}

fn listed(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(|obstacle| format!("\n  {obstacle}")).collect()
}

impl LayoutError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| LayoutError::Io { action, path, source }
    }

    /// Whether the publication was refused, and nothing was written.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, LayoutError::Io { .. } | LayoutError::Changed { .. })
    }
}

impl Hint for LayoutError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self {
            LayoutError::Taken { obstacles, .. } => {
                let older = obstacles.iter().all(|o| matches!(o, Obstacle::Older { .. }));
                match older {
                    true => "give --replace to replace the older publication",
                    false => "move away what pnb did not place there, or publish into another directory",
                }
            }
            LayoutError::Busy { .. } => "wait until it has ended, and publish again",
            LayoutError::Record { .. } => {
                "without the record pnb cannot tell its own files from others: move away the files and the record"
            }
            LayoutError::Changed { .. } => "build and publish again; nothing has got its final name",
            _ => return None,
        };
        Some(way.into())
    }
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A system call failed.
    #[error("{action} the journal {}", visible_path(path))]
    Io {
        /// The action, such as `write`.
        action: &'static str,
        /// The journal.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another program has it open.
    #[error(
        "open the journal {}: another publication uses it at this moment",
        visible_path(path)
    )]
    Busy {
        /// The journal.
        path: PathBuf,
    },
    /// A line was not written by this program.
    #[error("read the journal {}, line {line}: {}", visible_path(path), visible_message(problem))]
    Line {
        /// The journal.
        path: PathBuf,
        /// The line's number, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// It is the journal of a publication of other files, or to other places.
    #[error(
        "go on with the journal {}: it is of a publication of other files or to other places\n  expected: {expected}\n  actual:   {actual}",
        visible_path(path)
    )]
    OtherPlan {
        /// The journal.
        path: PathBuf,
        /// Digest of this publication's plan.
        expected: Sha256Digest,
        /// Digest of the plan in the journal.
        actual: Sha256Digest,
    },
}

impl JournalError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| JournalError::Io { action, path, source }
    }
}

impl Hint for JournalError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self {
            JournalError::Busy { .. } => "wait until it has ended",
            JournalError::OtherPlan { .. } => {
                "publish the files of that journal, or name another file with --journal to begin anew"
            }
            JournalError::Line { .. } => {
                "name another file with --journal to begin anew; published files and signatures are found and used"
            }
            JournalError::Io { .. } => return None,
        };
        Some(way.into())
    }
}

/// Why a secret cannot be used. No message has a part of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("read the secret in {}", visible_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The value cannot be one.
    #[error("use the secret of {from}: {problem}")]
    Value {
        /// The file or variable.
        from: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Hint for SecretError {}

/// Why a disk image has no manifest for a registry.
#[derive(Debug, thiserror::Error)]
pub enum DiskArtifactError {
    /// A platform's name has another form.
    #[error(
        "use {value:?} as the platform's name of an image: it must consist of lower-case letters and digits, with one of . _ - between them"
    )]
    Name {
        /// The value.
        value: String,
    },
    /// The library refuses a part of the manifest.
    #[error("make the manifest of a disk image: {problem}")]
    Build {
        /// Its reason.
        problem: String,
    },
    /// The manifest cannot be written as JSON.
    #[error("write the manifest of a disk image")]
    Write {
        /// The cause.
        #[source]
        source: ManifestError,
    },
}

impl Hint for DiskArtifactError {}

/// Why there is no compressed copy of an image.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// A system call on a file failed.
    #[error("{action} {}", visible_path(path))]
    Io {
        /// The action, such as `open`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The image cannot be read or the copy not written.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// The image was changed after the audit.
    #[error(
        "compress {}: it was changed after the audit\n  expected: {expected}\n  actual:   {actual}",
        visible_path(path)
    )]
    Changed {
        /// The image.
        path: PathBuf,
        /// Its digest according to the audit.
        expected: Sha256Digest,
        /// The digest of what was read.
        actual: Sha256Digest,
    },
}

impl Hint for CompressError {}

/// Why the platform does not know of an image. The address is shown without its last segment, which is a secret.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// There was no answer.
    #[error(transparent)]
    Http(HttpError),
    /// The answer is a redirect, which is not followed.
    #[error("tell the platform at {url}: it redirects ({status}), which is not followed")]
    Redirect {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// Another status than 200.
    #[error("tell the platform at {url}: it answered {status}: {said}")]
    Refused {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// The platform's text.
        said: String,
    },
    /// The answer is not what the contract says.
    #[error("tell the platform at {url}: the answer cannot be read: {problem}")]
    Malformed {
        /// The address.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The platform took the message and did nothing with it.
    #[error("tell the platform at {url}: it answered with the status {status}{details}")]
    Failed {
        /// The address.
        url: String,
        /// The status in the answer.
        status: String,
        /// Reason, hint and error of the platform, a line each.
        details: String,
    },
}

impl Hint for WebhookError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self {
            WebhookError::Http(error) => return error.hint(),
            WebhookError::Redirect { .. } => "take the address that the platform shows now, with https",
            WebhookError::Refused { status: 404, .. } => {
                "the platform hands out one address for each webhook: take that one"
            }
            WebhookError::Refused { .. } | WebhookError::Malformed { .. } => return None,
            WebhookError::Failed { details, .. } if details.contains("bad_signature") => {
                "the secret is not the one of this webhook"
            }
            WebhookError::Failed { .. } => "everything is published; the message alone can be sent again",
        };
        Some(way.into())
    }
}
