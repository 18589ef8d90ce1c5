//! ISO 9660, the file system of optical media, with Rock Ridge names and the El Torito boot catalog.
//!
//! ```text
//! sector 16…           volume descriptors: primary (1), boot record (0), supplementary (2, Joliet), terminator (255)
//! anywhere             directories: records one after the other, none across a sector; a file is one extent or several
//! end of a record      system use: Rock Ridge entries (NM name, PX mode, SL link, TF times, CE continuation elsewhere)
//! anywhere             boot catalog: records of 32 bytes, one for each way to boot
//! ```
//!
//! Sectors have 2048 bytes; most numbers are stored twice, little-endian and big-endian. The partition tables of a hybrid image lie
//! in the first 32 KiB, which ISO 9660 leaves unused. This is only a reader: `xorriso` writes the images. Sources: ECMA-119; SUSP
//! (IEEE P1281) and RRIP (IEEE P1282); "El Torito" Bootable CD-ROM Format Specification 1.0; mkisofs(8) for the boot info table.
//!
//! Own code instead of a crate (docs/dependencies.md): no crate reads Rock Ridge, El Torito and the extents of files with bounds
//! that hold for hostile images.

mod boot;
mod descriptor;
mod format;
mod reader;
mod record;
mod rock_ridge;
mod sessions;

pub use boot::{BootCatalog, BootEmulation, BootEntry, BootInfo, BootPlatform};
pub use descriptor::IsoVolume;
pub use reader::{Iso, IsoEntry, IsoKind, IsoNames};
pub use rock_ridge::Posix;
pub use sessions::{IsoSession, sessions};
