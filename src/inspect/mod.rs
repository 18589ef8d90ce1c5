//! Lists the content of an artifact, and explains the differences between two artifacts, in the terms of their formats.
//!
//! [`open`] makes a [`Part`] of bytes at any offset; [`Part::look`] finds their format and the parts inside, down to the files of a
//! file system in a partition of a disk in a qcow2 image. Nothing is mounted, the bytes are not trusted, and memory does not grow with
//! the image: the content of compressed streams is written to an unlinked file.
//!
//! [`diff()`] walks two such trees together. It compares bytes first, so that equal ranges cost a `memcmp`, and explains only the
//! differences: every differing byte lies in a part that is reported, or is reported itself. [`find_root`] finds the root in any
//! artifact that carries one.
//!
//! The files of this folder use each other in a circle, because the subject is recursive: `part` asks `detect` for the format of its
//! bytes, `detect` calls the file of that format (`disks`, `ext4`, `fat`, `foreign`, `media`, `programs`, `streams`, `tar`, `text`, `trees`), and that returns
//! the parts inside, which can be looked into in the same way. The circle ends at a format without parts; callers bound
//! its depth.

mod budget;
mod compare;
mod detect;
mod diff;
mod disks;
mod error;
mod ext4;
mod fat;
mod foreign;
mod json;
mod layouts;
mod likely_cause;
mod media;
mod overview;
mod part;
mod pe;
mod place;
mod programs;
mod root;
mod sentence;
mod spans;
mod stated;
mod streams;
mod survey;
mod tar;
mod text;
mod trees;

pub use budget::Work;
pub use compare::{Compared, Opened, compare_artifacts};
pub use diff::{Comparison, Difference, Watch, What, diff, diff_watched};
pub use error::InspectError;
pub use likely_cause::LikelyCause;
pub use overview::{Aspect, ChangeGroup, ChangeRow, ChangedPart, Counts, Mark, Overview};
pub use part::{Fields, Look, Part, PartKind, SpoolDirectory, open, open_path};
pub use place::{ArtifactPart, STATEMENTS, part_of};
pub use root::{FoundRoot, find_file, find_root};
pub use survey::{SurveyNode, survey};
