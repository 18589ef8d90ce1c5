//! Hands verified artifacts to the places where nodes, people and the platform look for them.
//!
//! Every step takes only what [`crate::audit::audit`] returned, looks before it writes, and can be repeated: a second run finds what the
//! first one did and goes on from there. `docs/publish.md` describes the steps and what is refused.
//!
//! | file | holds |
//! |---|---|
//! | `layout.rs` | the names under which the platform's controllers look for kernel and initramfs |
//! | `gitea/` | releases on a Gitea or Forgejo |
//! | `journal.rs` | what a publication has done, so that an interrupted one goes on |
//! | `place.rs`, `record.rs` | the files of a layout in a directory, and the record of what pnb placed there |
//! | `secret.rs` | tokens and keys |

mod error;
mod gitea;
mod journal;
mod layout;
mod place;
mod record;
mod secret;

pub use error::{GiteaError, JournalError, LayoutError, Obstacle, SecretError};
pub use gitea::{
    FileState, GiteaClient, GiteaRepository, GiteaVersion, LookOptions, PlannedAsset, PlannedRelease, ReleaseAnswer,
    ReleaseAsset, ReleaseJournal, ReleaseState, SeenRelease, fill_release, look_at_release, show_release,
};
pub use journal::{Journal, JournalEntry};
pub use layout::{LayoutFile, PlatformLayout};
pub use place::{PlaceOptions, PlaceState, PlacedFile, place};
pub use record::{PUBLICATION_FILE, Publication};
pub use secret::Secret;
