//! Why a publication ended, and in which step.

use super::{
    CompressError, DiskArtifactError, GiteaError, JournalError, SecretError, WebhookError, steps::PublishStep,
};
use crate::{
    image::ImageError, manifest::ManifestError, model::Hint, model::visible_path, registry::RegistryError,
    sign::SignError,
};
use std::{
    borrow::Cow,
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

/// Why there is no plan; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The request contradicts itself or the artifacts.
    #[error("plan the publication: {problem}")]
    Request {
        /// The contradiction.
        problem: String,
    },
    /// A file could not be read.
    #[error("{action} {}", visible_path(path))]
    Io {
        /// The failed operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason that the system gave.
        #[source]
        source: io::Error,
    },
    /// The name of a repository is malformed.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// The plan cannot be written.
    #[error(transparent)]
    Write(ManifestError),
}

impl PlanError {
    /// An error of an operation on `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| PlanError::Io { action, path, source }
    }
}

impl Hint for PlanError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            PlanError::Registry(error) => error.hint(),
            _ => None,
        }
    }
}

/// The cause of a failed publication; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PublishCause {
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An identity, a signature, or a service that signs.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A release.
    #[error(transparent)]
    Gitea(#[from] GiteaError),
    /// A token or key.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The artifact of a disk image.
    #[error(transparent)]
    Disk(#[from] DiskArtifactError),
    /// A compressed copy.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A document of an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A statement.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A tag names something else than the plan has.
    #[error("publish {reference}: the tag is taken\nexpected: {expected}\n  actual: {actual}")]
    Taken {
        /// The repository and the tag.
        reference: String,
        /// The digest that it must have.
        expected: String,
        /// The digest that it has.
        actual: String,
    },
    /// A signature that an earlier run kept does not verify any more.
    #[error("use the signature of {what} from the journal: {reason}")]
    Kept {
        /// The subject.
        what: String,
        /// The failed check.
        reason: String,
    },
    /// Messages to the platform that it did not take.
    #[error("tell the platform about {platform_name}")]
    Webhook {
        /// The platform's name of the image.
        platform_name: String,
        /// The reason.
        #[source]
        source: WebhookError,
    },
}

/// A publication that ended early. Its message is that of its cause.
#[derive(Debug)]
pub struct PublishFailure {
    /// The step that failed.
    pub step: PublishStep,
    /// The cause.
    cause: Box<PublishCause>,
}

impl fmt::Display for PublishFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for PublishFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

impl PublishFailure {
    /// A failure of `step`.
    pub(super) fn of(step: PublishStep) -> impl FnOnce(PublishCause) -> Self {
        move |cause| Self {
            step,
            cause: Box::new(cause),
        }
    }

    /// The cause.
    pub fn cause(&self) -> &PublishCause {
        &self.cause
    }
}

impl Hint for PublishFailure {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let own = match &*self.cause {
            PublishCause::Plan(error) => error.hint(),
            PublishCause::Journal(error) => error.hint(),
            PublishCause::Registry(error) => error.hint(),
            PublishCause::Sign(error) => error.hint(),
            PublishCause::Gitea(error) => error.hint(),
            PublishCause::Webhook { source, .. } => source.hint(),
            PublishCause::Taken { .. } => Some(
                "a tag of a commit names one build for ever; find out who published the other one, and how it differs (`pnb diff`)".into(),
            ),
            PublishCause::Kept { .. } => {
                Some("give the trusted root, identity and issuer of the first run, or another --journal".into())
            }
            _ => None,
        };
        match (own, self.step) {
            (None, PublishStep::Look) => None,
            // Nothing that an earlier step did is lost.
            (None, _) => Some("--resume goes on with this step".into()),
            (own, PublishStep::Look) => own,
            (Some(own), _) => Some(format!("{own}; --resume goes on with this step").into()),
        }
    }
}
