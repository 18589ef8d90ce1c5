//! Debian's formats: control paragraphs, versions, signed release files, binary packages.

mod ar;
mod control;
mod copyright;
mod deb;
mod dpkg_tar;
mod error;
mod installed;
mod judged;
mod keyring;
mod pax;
mod relation;
mod release;
mod root;
mod signed;
mod tarball;
mod version;

pub use control::{BinaryPackage, ControlReader, MultiArch, PackageNames, Paragraph, Priority};
pub(crate) use control::{is_package_name, is_source};
pub use copyright::{MAX_COPYRIGHT, PackageLicence, read_licences};
pub use deb::{DebError, PutContent, Visitor, deb_entries, deb_tree, plain_deb, read_control, read_names, unpack_data};
pub use error::MetadataError;
pub use installed::{InstalledPackage, read_installed};
pub use judged::JudgedAt;
pub use keyring::Keyring;
pub use relation::{Alternatives, Op, Relation, Relations};
pub use release::{Automatic, Release};
pub use root::{PackedEntry, UnpackedRoot};
pub use signed::{SignedText, verify_cleartext, verify_detached};
pub use tarball::{EntryHeader, TarEntryKind, TarLimits};
pub(crate) use tarball::{TarError, read as read_tar};
pub use version::Version;
