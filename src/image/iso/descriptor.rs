//! Volume descriptors, ECMA-119 section 8.

use super::{
    boot,
    format::{SECTOR, both16, both32, corrupt, le32, long_date, padded, read_sector},
    record::{DIRECTORY, DirectoryRecord, RECORD},
};
use crate::image::{ImageError, ReadAt};

/// Sector of the first descriptor, and the number of descriptors that are read.
const FIRST_DESCRIPTOR: u32 = 16;
const MAX_DESCRIPTORS: u32 = 64;
/// The identifier behind the type.
const IDENTIFIER: &[u8; 5] = b"CD001";
/// Types of volume descriptors.
const BOOT_RECORD: u8 = 0;
const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;
/// Escape sequences of the three levels of Joliet, and their offset in a supplementary descriptor.
const JOLIET: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];
const ESCAPES: usize = 88;
/// Offsets in a boot record: the identifier of its system, and the block of the boot catalog.
const BOOT_SYSTEM: usize = 7;
const BOOT_CATALOG: usize = 0x47;
// Offsets in the primary descriptor.
const VOLUME_SPACE_SIZE: usize = 80;
const LOGICAL_BLOCK_SIZE: usize = 128;
const ROOT_RECORD: usize = 156;

/// The fields of the primary volume descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsoVolume {
    /// The label, by which boot loaders and the kernel find the medium.
    pub label: Vec<u8>,
    /// System, volume set, publisher, preparer and application, each without its padding.
    pub system: Vec<u8>,
    /// Volume set.
    pub set: Vec<u8>,
    /// Publisher.
    pub publisher: Vec<u8>,
    /// Data preparer.
    pub preparer: Vec<u8>,
    /// The application that wrote the image.
    pub application: Vec<u8>,
    /// Bytes of the volume; the image may be longer.
    pub size: u64,
    /// Time of creation, in seconds since the Unix epoch.
    pub created: Option<i64>,
    /// Time of the last change; GRUB derives its UUID from it.
    pub modified: Option<i64>,
    /// Time of expiration.
    pub expires: Option<i64>,
    /// Time from which the volume is valid.
    pub effective: Option<i64>,
}

/// The descriptors of an image.
pub(super) struct Descriptors {
    /// The sector of the primary descriptor.
    sector: [u8; SECTOR as usize],
    /// Block of the primary descriptor.
    pub(super) block: u32,
    /// Whether there is a supplementary descriptor with Joliet names.
    pub(super) joliet: bool,
    /// Block of the boot catalog.
    pub(super) boot_catalog: Option<u32>,
}

impl Descriptors {
    /// Reads descriptors up to the terminator.
    pub(super) fn read(image: &impl ReadAt) -> Result<Self, ImageError> {
        let mut primary = None;
        let (mut joliet, mut boot_catalog) = (false, None);
        let mut ended = false;
        for block in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
            let offset = u64::from(block) * SECTOR;
            let sector = read_sector(image, offset)?;
            if &sector[1..6] != IDENTIFIER {
                return Err(corrupt(offset, "there is no volume descriptor"));
            }
            match sector[0] {
                BOOT_RECORD if sector[BOOT_SYSTEM..].starts_with(boot::IDENTIFIER) && boot_catalog.is_none() => {
                    boot_catalog = Some(le32(&sector, BOOT_CATALOG));
                }
                PRIMARY if primary.is_none() => primary = Some((block, sector)),
                SUPPLEMENTARY => joliet |= JOLIET.iter().any(|level| sector[ESCAPES..].starts_with(level)),
                TERMINATOR => {
                    ended = true;
                    break;
                }
                _ => {}
            }
        }
        let (Some((block, sector)), true) = (primary, ended) else {
            let problem = format!("no primary volume descriptor and terminator in {MAX_DESCRIPTORS} descriptors");
            return Err(corrupt(u64::from(FIRST_DESCRIPTOR) * SECTOR, problem));
        };
        Ok(Self {
            sector,
            block,
            joliet,
            boot_catalog,
        })
    }

    /// The problem of an image of `image_size` bytes that is shorter than `volume`.
    pub(super) fn cut(&self, volume: &IsoVolume, image_size: u64) -> Option<ImageError> {
        let size = volume.size;
        let problem = format!("primary volume descriptor: the volume has {size} bytes, but the image has {image_size}");
        (size > image_size).then(|| corrupt(u64::from(self.block) * SECTOR, problem))
    }

    /// The volume and the record of its root directory.
    pub(super) fn primary(&self) -> Result<(IsoVolume, DirectoryRecord<'_>), ImageError> {
        let sector = &self.sector;
        let offset = u64::from(self.block) * SECTOR;
        let bad = |problem: String| corrupt(offset, format!("primary volume descriptor: {problem}"));
        if both16(sector, LOGICAL_BLOCK_SIZE).map(u64::from) != Some(SECTOR) {
            return Err(bad("logical blocks do not have 2048 bytes".to_owned()));
        }
        let blocks = both32(sector, VOLUME_SPACE_SIZE);
        let blocks = blocks.ok_or_else(|| bad("the two forms of its size differ".to_owned()))?;
        let size = u64::from(blocks) * SECTOR;
        let volume = IsoVolume {
            system: padded(&sector[8..40]),
            label: padded(&sector[40..72]),
            size,
            set: padded(&sector[190..318]),
            publisher: padded(&sector[318..446]),
            preparer: padded(&sector[446..574]),
            application: padded(&sector[574..702]),
            created: long_date(&sector[813..]),
            modified: long_date(&sector[830..]),
            expires: long_date(&sector[847..]),
            effective: long_date(&sector[864..]),
        };
        let at = offset + ROOT_RECORD as u64;
        let record = DirectoryRecord::parse(&sector[ROOT_RECORD..ROOT_RECORD + RECORD + 1], at)?;
        if record.flags & DIRECTORY == 0 {
            return Err(corrupt(at, "the record of the root is not that of a directory"));
        }
        Ok((volume, record))
    }
}
