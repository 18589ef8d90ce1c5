//! Why a release cannot be made; each message completes "failed to …".

use crate::{http::HttpError, model::Hint, publish::JournalError};
use std::borrow::Cow;

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
    #[error("use the token: it has a character that a header cannot have")]
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
    #[error(
        "upload {name}: the server stored other bytes than were sent\n  expected: {expected}\n  actual:   {actual}"
    )]
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
