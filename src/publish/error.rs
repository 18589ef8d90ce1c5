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
    #[error("lay out {target}: two of the given artifacts are it")]
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
                "name another file with --journal to begin anew; what is published already is found"
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

/// Why a release cannot be made. Text of the server is visible text.
#[derive(Debug, thiserror::Error)]
pub enum GiteaError {
    /// The address is none of a repository.
    #[error("use {url} as a repository: {problem}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The token cannot stand in a header.
    #[error("use the token: it has a character that a header does not have")]
    Token,
    /// There was no answer.
    #[error(transparent)]
    Http(HttpError),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The server does not know the token.
    #[error("{what} {repository}: the server does not accept the token (401): {said}")]
    Unauthorized {
        /// The step.
        what: &'static str,
        /// The repository.
        repository: String,
        /// The server's text.
        said: String,
    },
    /// The token may not do this.
    #[error("{what} {repository}: the token does not have the right (403): {said}")]
    Forbidden {
        /// The step.
        what: &'static str,
        /// The repository.
        repository: String,
        /// The server's text.
        said: String,
    },
    /// It is not there, or the token does not see it.
    #[error("{what} {repository}: it is not there, or the token does not see it (404): {said}")]
    NotFound {
        /// The step.
        what: &'static str,
        /// The repository.
        repository: String,
        /// The server's text.
        said: String,
    },
    /// Another status.
    #[error("{what} {repository}: the server answered {status}: {said}")]
    Refused {
        /// The step.
        what: &'static str,
        /// The repository.
        repository: String,
        /// The status.
        status: u16,
        /// The server's text.
        said: String,
    },
    /// The answer is not what the API promises.
    #[error("{what} {repository}: {problem}")]
    Malformed {
        /// The step.
        what: &'static str,
        /// The repository.
        repository: String,
        /// What is wrong.
        problem: String,
    },
    /// A tag or name of the plan cannot be used.
    #[error("plan a release with {value:?}: {problem}")]
    Plan {
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The repository has no commit.
    #[error("publish to {repository}: the repository is empty")]
    Empty {
        /// The repository.
        repository: String,
    },
    /// Nothing can be written.
    #[error("publish to {repository}: it is archived, or the token cannot write to it")]
    ReadOnly {
        /// The repository.
        repository: String,
    },
    /// Files of releases are switched off.
    #[error("publish to {repository}: the server does not take files for releases")]
    Disabled {
        /// The repository.
        repository: String,
    },
    /// The commit is not there.
    #[error("publish to {repository}: it does not have the commit {commit}")]
    NoCommit {
        /// The repository.
        repository: String,
        /// The commit.
        commit: String,
    },
    /// A git tag names another commit.
    #[error("release the tag {tag}: it names another commit\n  expected: {expected}\n  actual:   {actual}")]
    TagElsewhere {
        /// The tag.
        tag: String,
        /// The commit of the plan.
        expected: String,
        /// The commit of the tag.
        actual: String,
    },
    /// A draft of the tag is of another commit.
    #[error("fill the draft of {tag}: it is of another commit\n  expected: {expected}\n  actual:   {actual}")]
    DraftElsewhere {
        /// The tag.
        tag: String,
        /// The commit of the plan.
        expected: String,
        /// The target of the draft.
        actual: String,
    },
    /// The tag is protected, and the token's user is not among those who may make it.
    #[error("release the tag {tag}: the rule {pattern:?} for tags does not let the token's user make it")]
    Protected {
        /// The tag.
        tag: String,
        /// The rule's pattern.
        pattern: String,
    },
    /// A file is larger than the server takes.
    #[error("upload {name}: its {size} bytes are more than {}", more_than(*limit, said))]
    TooLarge {
        /// The file.
        name: String,
        /// Its length in bytes.
        size: u64,
        /// The limit, when it was known before the upload.
        limit: Option<u64>,
        /// The server's text, when it refused the upload.
        said: String,
    },
    /// The server does not take a file.
    #[error("upload {name}: the server refuses it: {said}")]
    Upload {
        /// The file.
        name: String,
        /// The server's text.
        said: String,
    },
    /// A draft has files of others.
    #[error("fill the draft of {tag}: it has files that are not of this publication: {}", names.join(", "))]
    Foreign {
        /// The tag.
        tag: String,
        /// Their names.
        names: Vec<String>,
    },
    /// A release has other files than the plan.
    #[error("publish {tag}: the release has other files:\n  {}", problems.join("\n  "))]
    OtherContent {
        /// The tag.
        tag: String,
        /// The differences.
        problems: Vec<String>,
    },
    /// The server has other bytes than it got.
    #[error("upload {name}: the server has something else than it got\n  expected: {expected}\n  actual:   {actual}")]
    Lying {
        /// The file.
        name: String,
        /// Digest, or name and size.
        expected: String,
        /// The same of the server.
        actual: String,
    },
    /// There is no draft although the server was asked for one.
    #[error("create a draft of {tag}: after {tries} tries there is none")]
    NotCreated {
        /// The tag.
        tag: String,
        /// The number of tries.
        tries: u32,
    },
    /// The last step has no effect.
    #[error("show the release {tag}: {said}")]
    NotShown {
        /// The tag.
        tag: String,
        /// The server's text, or what was found.
        said: String,
    },
}

fn more_than(limit: Option<u64>, said: &str) -> String {
    match limit {
        Some(limit) => format!("the {limit} that the server takes"),
        None => format!("the server, or a proxy before it, takes (413): {said}"),
    }
}

impl GiteaError {
    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            GiteaError::Http(error) => error.is_temporary(),
            GiteaError::Refused { status, .. } => [408, 425, 429, 500, 502, 503, 504].contains(status),
            _ => false,
        }
    }
}

impl Hint for GiteaError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self {
            GiteaError::Http(error) => return error.hint(),
            GiteaError::Journal(error) => return error.hint(),
            GiteaError::Unauthorized { .. } => {
                "make a token with the scope write:repository, or check that it has not expired"
            }
            GiteaError::Forbidden { .. } | GiteaError::ReadOnly { .. } => {
                "the token needs the scope write:repository, and its user the right to write to the repository"
            }
            GiteaError::NoCommit { .. } => "push the commit first: the release's tag is made from it",
            GiteaError::TagElsewhere { .. } => "choose another tag: a tag that is published is never moved",
            GiteaError::DraftElsewhere { .. } => "delete the draft if nobody needs it, and publish again",
            GiteaError::Protected { .. } => {
                "publish with the token of a user whom the rule names, or let the owner add the user to the rule"
            }
            GiteaError::TooLarge { limit: Some(_), .. } => {
                "publish the compressed disk, or raise FILE_MAX_SIZE on the server and give the new limit with --max-asset-size"
            }
            GiteaError::TooLarge { .. } => "raise the limit of the server and of the proxy before it",
            GiteaError::Foreign { .. } => "delete them from the draft if they should not be there, and publish again",
            GiteaError::OtherContent { .. } => "a release that is visible is never changed: publish under another tag",
            GiteaError::NotShown { .. } => {
                "look at the rules for protected tags and at the server's log; everything else is done, and publishing again \
                 repeats this step only"
            }
            _ => return None,
        };
        Some(way.into())
    }
}

/// Why a disk image has no manifest for a registry.
#[derive(Debug, thiserror::Error)]
pub enum DiskArtifactError {
    /// A platform's name has another form.
    #[error(
        "use {value:?} as the platform's name of an image: it has lower-case letters and digits, with one of . _ - between them"
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
