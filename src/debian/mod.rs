//! Debian's formats: control paragraphs, versions, signed release files, binary packages.

mod ar;
mod control;
mod copyright;
mod deb;
mod error;
mod installed;
mod pax;
mod relation;
mod release;
mod signed;
mod tarball;
mod version;

pub use control::{BinaryPackage, ControlReader, MultiArch, Paragraph, Priority};
pub(crate) use control::{is_package_name, is_source};
pub use copyright::{MAX_COPYRIGHT, PackageLicence, read_licences};
pub use deb::{DebError, PutContent, Visitor, deb_tree, plain_deb, read_control, unpack_data};
pub use error::MetadataError;
pub use installed::{InstalledPackage, read_installed};
pub use relation::{Alternatives, Op, Relation, Relations};
pub use release::Release;
pub use signed::{Keyring, SignedText, verify_cleartext};
pub use tarball::{EntryHeader, TarEntryKind, TarLimits};
pub(crate) use tarball::{TarError, read as read_tar};
pub use version::Version;
