//! Hands verified artifacts to the places where nodes, people and the platform look for them.
//!
//! Every step takes only what [`crate::audit::audit`] returned, looks before it writes, and can be repeated: a second run finds what the
//! first one did and goes on from there. `docs/publish.md` describes the steps and what is refused.
//!
//! | file | holds |
//! |---|---|
//! | `layout.rs` | the names under which the platform's controllers look for kernel and initramfs |
//! | `journal.rs` | what a publication has done, so that an interrupted one goes on |
//! | `place.rs`, `record.rs` | the files of a layout in a directory, and the record of what pnb placed there |

mod error;
mod journal;
mod layout;
mod place;
mod record;

pub use error::{JournalError, LayoutError, Obstacle};
pub use journal::{Journal, JournalEntry};
pub use layout::{LayoutFile, PlatformLayout};
pub use place::{PlaceOptions, PlaceState, PlacedFile, place};
pub use record::{PUBLICATION_FILE, Publication};
