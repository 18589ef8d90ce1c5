//! What is inside an artifact, and how two artifacts differ, told in the words of their formats.
//!
//! [`open`] makes a [`Part`] of bytes at any offset; [`Part::look`] says what format they have and which parts they hold,
//! down to the files of a file system in a partition of a disk in a qcow2 image. Nothing is mounted, nothing is taken on
//! trust, and memory does not grow with the image: only compressed streams are laid down, in an unlinked file.
//!
//! [`diff()`] walks two such trees together. It compares bytes first, so that equal ranges cost a `memcmp`, and explains only
//! what differs: every differing byte lies in something that is reported, or is reported itself. [`find_root`] takes the root
//! out of any artifact that carries one.

mod detect;
mod diff;
mod disks;
mod error;
mod ext4;
mod json;
mod likely_cause;
mod media;
mod part;
mod programs;
mod root;
mod spans;
mod streams;
mod survey;
mod text;
mod trees;

pub use diff::{Comparison, Difference, What, diff};
pub use error::{InspectError, chain};
pub use likely_cause::LikelyCause;
pub use part::{Fields, Look, Part, PartKind, SpoolDirectory, open, open_path};
pub use root::{FoundRoot, find_file, find_root};
pub use survey::{SurveyNode, survey};
