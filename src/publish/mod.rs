//! Hands verified artifacts to the places where nodes, people and the platform look for them.
//!
//! Every step takes only what [`crate::audit::audit`] returned, looks before it writes, and can be repeated: a second run finds what the
//! first one did and goes on from there. `docs/publishing.md` describes the steps and what is refused.
//!
//! | file | holds |
//! |---|---|
//! | `layout.rs` | the names under which the platform's controllers look for kernel and initramfs |
//! | `disk_artifact.rs`, `compressed.rs` | a disk image as the platform pulls it from a registry, and as a release has it |
//! | `gitea/` | releases on a Gitea or Forgejo |
//! | `plan.rs`, `steps/`, `referrer.rs` | a publication to servers: everything that it will write, and the seven steps |
//! | `failure.rs` | why it ended, and in which step |
//! | `journal.rs` | what a publication has done, so that an interrupted one goes on |
//! | `place.rs`, `record.rs` | the files of a layout in a directory, and the record of what pnb placed there |
//! | `secret.rs` | tokens and keys |
//! | `webhook.rs` | the message to the platform |

mod compressed;
mod disk_artifact;
mod error;
mod failure;
mod gitea;
mod journal;
mod layout;
mod place;
mod plan;
mod record;
mod referrer;
mod secret;
mod steps;
mod webhook;

pub use compressed::{COMPRESSED_LEVEL, compress_image};
pub use disk_artifact::{ArtifactBlob, DISK_IMAGE_TYPE, DiskImageArtifact, EMPTY_CONFIG, PlatformName};
pub use error::{CompressError, DiskArtifactError, JournalError, LayoutError, Obstacle, SecretError, WebhookError};
pub use failure::{PlanError, PublishCause, PublishFailure};
pub use gitea::{
    FileState, GiteaClient, GiteaError, GiteaRepository, GiteaVersion, LookOptions, PlannedAsset, PlannedRelease,
    ReleaseAnswer, ReleaseAsset, ReleaseJournal, ReleaseState, SeenRelease, fill_release, look_at_release,
    show_release,
};
pub use journal::{Journal, JournalEntry};
pub use layout::{LayoutFile, PlatformLayout};
pub use place::{PlaceOptions, PlaceState, PlacedFile, place};
pub use plan::{PublishPlan, PublishRequest, PublishedDisk, PublishedFile, PublishedImage, PublishedManifest};
pub use record::{PUBLICATION_FILE, Publication};
pub use secret::Secret;
pub use steps::{PublishEvent, PublishState, PublishStep, Publisher, PublisherParts, SigningParts, WebhookTarget};
pub use webhook::{DiskImageMessage, MessageState, shown_webhook, signature, tell};
