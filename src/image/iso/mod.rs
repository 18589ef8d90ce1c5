//! ISO 9660, the file system of optical media, with Rock Ridge names and the El Torito boot catalog.
//!
//! ```text
//! sector 16…           volume descriptors: primary (1), boot record (0), supplementary (2, Joliet), terminator (255)
//! anywhere             directories: records of one after the other, none across a sector; each file is one extent
//! in a record's end    system use: Rock Ridge entries (NM name, PX mode, SL link, TF times, CE "goes on elsewhere")
//! anywhere             boot catalog: records of 32 bytes, one for each way to boot
//! ```
//!
//! Sectors have 2048 bytes; most numbers stand there twice, little-endian and big-endian. The partition tables of a hybrid
//! image lie in front, in the 32 KiB that ISO 9660 leaves alone. Only a reader: `xorriso` writes. Sources: ECMA-119; SUSP
//! (IEEE P1281) and RRIP (IEEE P1282); "El Torito" Bootable CD-ROM Format Specification 1.0; for the boot info table
//! mkisofs(8).

mod boot;
mod format;
mod reader;
mod rock_ridge;

pub use boot::{BootCatalog, BootEmulation, BootEntry, BootInfo, BootPlatform};
pub use reader::{Iso, IsoEntry, IsoKind, IsoVolume};
pub use rock_ridge::Posix;

const FORMAT: &str = "an ISO 9660 image";
