//! Volume descriptors, ECMA-119 section 8.

use super::{
    boot,
    format::{SECTOR, both16, both32, corrupt, le32, long_date, padded, read_sector},
    record::{DIRECTORY, DirectoryRecord, RECORD},
};
use crate::image::{ImageError, ReadAt};

/// Sector of the first descriptor, and the number of descriptors that are read.
pub(super) const FIRST_DESCRIPTOR: u32 = 16;
const MAX_DESCRIPTORS: u32 = 64;
/// The identifier behind the type.
const IDENTIFIER: &[u8; 5] = b"CD001";
/// Identifiers of the descriptors with which UDF announces itself behind those of ISO 9660: begin, version 2 or 3, end.
const UDF_BEGIN: &[u8; 5] = b"BEA01";
const UDF: [(&[u8; 5], &str); 2] = [(b"NSR02", "NSR02"), (b"NSR03", "NSR03")];
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
const PATH_TABLE_SIZE: usize = 132;
const PATH_TABLE_L: usize = 140;
const PATH_TABLE_M: usize = 148;
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
    /// Block and sector of the supplementary descriptor with Joliet names.
    joliet: Option<(u32, [u8; SECTOR as usize])>,
    /// The identifier with which a UDF file system beside this one announces itself.
    pub(super) udf: Option<&'static str>,
    /// Block of the boot catalog.
    pub(super) boot_catalog: Option<u32>,
}

impl Descriptors {
    /// Reads descriptors up to the terminator.
    pub(super) fn read(image: &impl ReadAt) -> Result<Self, ImageError> {
        let mut primary = None;
        let (mut joliet, mut boot_catalog) = (None, None);
        let mut ended = None;
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
                SUPPLEMENTARY if joliet.is_none() => {
                    let named = JOLIET.iter().any(|level| sector[ESCAPES..].starts_with(level));
                    joliet = named.then_some((block, sector));
                }
                TERMINATOR => {
                    ended = Some(block);
                    break;
                }
                _ => {}
            }
        }
        let (Some((block, sector)), Some(last)) = (primary, ended) else {
            let problem = format!("no primary volume descriptor and terminator in {MAX_DESCRIPTORS} descriptors");
            return Err(corrupt(u64::from(FIRST_DESCRIPTOR) * SECTOR, problem));
        };
        Ok(Self {
            sector,
            block,
            joliet,
            udf: udf(image, last + 1),
            boot_catalog,
        })
    }

    /// The primary descriptor at `block`, without the others.
    pub(super) fn alone(image: &impl ReadAt, block: u32) -> Result<Self, ImageError> {
        Ok(Self {
            sector: read_sector(image, u64::from(block) * SECTOR)?,
            block,
            joliet: None,
            udf: None,
            boot_catalog: None,
        })
    }

    /// Whether there is a supplementary descriptor with Joliet names.
    pub(super) fn has_joliet(&self) -> bool {
        self.joliet.is_some()
    }

    /// The record of the root directory with Joliet names.
    pub(super) fn joliet_root(&self) -> Result<Option<DirectoryRecord<'_>>, ImageError> {
        let joliet = self.joliet.as_ref();
        joliet.map(|(block, sector)| root_record(sector, *block)).transpose()
    }

    /// The path tables of the volume: their name, offset and length in bytes.
    pub(super) fn path_tables(&self) -> Vec<(&'static str, u64, u64)> {
        let mut tables = Vec::new();
        let mut of = |sector: &[u8], names: [&'static str; 2]| {
            let len = u64::from(le32(sector, PATH_TABLE_SIZE));
            let most_significant_first =
                u32::from_be_bytes(sector[PATH_TABLE_M..PATH_TABLE_M + 4].try_into().unwrap_or_default());
            for (name, block) in names
                .into_iter()
                .zip([le32(sector, PATH_TABLE_L), most_significant_first])
            {
                tables.push((name, u64::from(block) * SECTOR, len));
            }
        };
        of(&self.sector, ["path table", "path table, big-endian"]);
        if let Some((_, sector)) = &self.joliet {
            of(sector, ["path table of Joliet", "path table of Joliet, big-endian"]);
        }
        tables
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
        Ok((volume, root_record(sector, self.block)?))
    }
}

/// The record of the root directory in the descriptor at `block`.
fn root_record(sector: &[u8; SECTOR as usize], block: u32) -> Result<DirectoryRecord<'_>, ImageError> {
    let at = u64::from(block) * SECTOR + ROOT_RECORD as u64;
    let record = DirectoryRecord::parse(&sector[ROOT_RECORD..ROOT_RECORD + RECORD + 1], at)?;
    if record.flags & DIRECTORY == 0 {
        return Err(corrupt(at, "the record of the root is not that of a directory"));
    }
    Ok(record)
}

/// The identifier of UDF in the descriptors from `block` on, which follow those of ISO 9660.
fn udf(image: &impl ReadAt, block: u32) -> Option<&'static str> {
    for block in block..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
        let sector = read_sector(image, u64::from(block) * SECTOR).ok()?;
        if let Some((_, name)) = UDF.iter().find(|(identifier, _)| sector[1..6] == **identifier) {
            return Some(name);
        }
        if &sector[1..6] != UDF_BEGIN && &sector[1..6] != IDENTIFIER {
            return None;
        }
    }
    None
}
