//! Releases on a Gitea or Forgejo.
//!
//! [`look_at_release`] asks everything that can be refused before anything is written. [`fill_release`] makes a draft, which nobody else sees, and brings
//! exactly the planned files into it. [`show_release`] makes the release and its git tag visible; it is the last step.
//!
//! Sources: go-gitea's handlers and the specification of its API 1.27.3. The server gives no digest of a file, and two files can have one
//! name; so names and sizes are compared with the list, and contents by downloading them.
//!
//! | file | holds |
//! |---|---|
//! | `place.rs` | the address of a repository |
//! | `answers.rs` | the answers of the server |
//! | `client.rs` | one call for each request |
//! | `form.rs` | an upload as a form, for servers before 1.22 |
//! | `plan.rs` | the release as it is to be |
//! | `look.rs` | what can be refused before anything is written |
//! | `content.rs` | the content of files on the server |
//! | `release.rs` | the steps that write |
//! | `error.rs` | why a release cannot be made |

mod answers;
mod client;
mod content;
mod error;
mod form;
mod look;
mod place;
mod plan;
mod release;

pub use answers::{GiteaVersion, ReleaseAnswer, ReleaseAsset};
pub use client::GiteaClient;
pub use error::GiteaError;
pub use look::look_at_release;
pub use place::GiteaRepository;
pub use plan::{FileState, LookOptions, PlannedAsset, PlannedRelease, ReleaseJournal, ReleaseState, SeenRelease};
pub use release::{fill_release, show_release};
