//! Debian's formats: control paragraphs, versions, signed release files, binary packages.

mod ar;
mod deb;
mod pax;
mod tarball;

pub use deb::{DebError, Put, Visitor, deb_tree, read_control, unpack_data};
pub use tarball::{EntryHeader, EntryKind, Limits};
