//! The steps and their events, for a display.

use serde::Serialize;
use std::fmt;

/// A step of a publication.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishStep {
    /// Looking at all servers.
    Look,
    /// Sending blobs and manifests.
    Blobs,
    /// Signing.
    Sign,
    /// Attaching signatures, attestations and SBOMs.
    Attach,
    /// Filling a draft of the release.
    Release,
    /// Giving everything its name.
    Show,
    /// Telling the platform.
    Tell,
}

impl PublishStep {
    /// The name of the step.
    pub const fn as_str(self) -> &'static str {
        match self {
            PublishStep::Look => "look",
            PublishStep::Blobs => "blobs",
            PublishStep::Sign => "sign",
            PublishStep::Attach => "attach",
            PublishStep::Release => "release",
            PublishStep::Show => "show",
            PublishStep::Tell => "tell",
        }
    }
}

impl fmt::Display for PublishStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a step found or did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishState {
    /// It begins with this.
    Begins,
    /// It was done now.
    Done,
    /// An earlier run had done it.
    There,
    /// It would be done, if this were not a dry run.
    Planned,
}

/// An event of a publication.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PublishEvent {
    /// The step.
    pub step: PublishStep,
    /// The object, in words.
    pub what: String,
    /// What happened to it.
    pub state: PublishState,
}
