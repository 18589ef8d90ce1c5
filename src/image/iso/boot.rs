//! El Torito: the boot record names a catalog, the catalog names what each kind of firmware starts.
//!
//! ```text
//! record 0    validation: 01, platform, 2 zeros, text (24), checksum: the sum of all 16-bit words is 0, 55 aa
//! record 1    the default entry
//! then        section header: 90, in the last 91; platform, le16 number of entries, text (28); then its entries
//! entry       88 (bootable) or 00, media, le16 segment, system type, 0, le16 sectors of 512, le32 block of 2048
//! ```

use super::format::{SECTOR, corrupt, input, le16, le32};
use crate::image::{ImageError, ReadAt};

/// Identifier of the boot record, padded with NULs.
pub(super) const IDENTIFIER: &[u8] = b"EL TORITO SPECIFICATION";
const RECORD: usize = 32;
/// Records of a catalog that are read; real ones have a handful.
const MAX_RECORDS: usize = 128;
const BOOTABLE: u8 = 0x88;
const SECTION: u8 = 0x90;
const LAST_SECTION: u8 = 0x91;
const EXTENSION: u8 = 0x44;
/// Set in an entry's media or an extension's flags: an extension follows.
const EXTENDED: u8 = 0x20;
/// Bytes of the sectors that entries are measured in.
const LOAD_SECTOR: u64 = 512;
/// Where the boot info table lies in a boot image, and where the bytes that it sums begin.
const INFO_OFFSET: u64 = 8;
const SUM_OFFSET: u64 = 64;
/// Larger images than this are not summed: 64 MiB.
const MAX_SUMMED: u64 = 64 << 20;

/// What kind of firmware an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BootPlatform {
    /// The BIOS of a PC (0).
    Bios,
    /// UEFI (0xef).
    Efi,
    /// Another one.
    Other(u8),
}

/// What the firmware makes of the boot image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootEmulation {
    /// It loads it as it is.
    NoEmulation,
    /// It shows it as a floppy or hard disk of this type (1 to 4, or an unknown one).
    Emulated(u8),
}

/// One way to boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootEntry {
    /// The firmware it is for.
    pub platform: BootPlatform,
    /// Whether firmware may start it.
    pub bootable: bool,
    /// What the firmware makes of it.
    pub media: BootEmulation,
    /// Sectors of 512 bytes that the firmware loads. Of an EFI image, its size, or 0 or 1 if that does not fit.
    pub load_sectors: u16,
    /// Block of 2048 bytes that it begins at.
    pub lba: u32,
}

impl BootEntry {
    /// Where it begins, in bytes.
    pub fn start(&self) -> u64 {
        u64::from(self.lba) * SECTOR
    }
    /// How many bytes the firmware loads.
    pub fn load_bytes(&self) -> u64 {
        u64::from(self.load_sectors) * LOAD_SECTOR
    }
}

/// The boot catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootCatalog {
    /// Block of 2048 bytes that it begins at.
    pub lba: u32,
    /// The default entry, then those of the sections.
    pub entries: Vec<BootEntry>,
}

/// The table that `-boot-info-table` patches into a boot image, so that its code finds the rest of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootInfo {
    /// Bytes of the boot image.
    pub len: u32,
    /// Sum of its 32-bit words from byte 64 on.
    pub checksum: u32,
    /// Whether that is what its words sum to.
    pub checksum_fits: bool,
}

fn platform(id: u8) -> BootPlatform {
    match id {
        0 => BootPlatform::Bios,
        0xef => BootPlatform::Efi,
        other => BootPlatform::Other(other),
    }
}

fn entry(record: &[u8], platform: BootPlatform) -> BootEntry {
    BootEntry {
        platform,
        bootable: record[0] == BOOTABLE,
        media: match record[1] & 0xf {
            0 => BootEmulation::NoEmulation,
            kind => BootEmulation::Emulated(kind),
        },
        load_sectors: le16(record, 6),
        lba: le32(record, 8),
    }
}

/// Reads the catalog at block `lba`.
pub(super) fn catalog(image: &impl ReadAt, lba: u32) -> Result<BootCatalog, ImageError> {
    let start = u64::from(lba) * SECTOR;
    let mut read = 0;
    let mut next = || -> Result<(u64, [u8; RECORD]), ImageError> {
        let at = start + (read * RECORD) as u64;
        if read == MAX_RECORDS {
            return Err(corrupt(
                start,
                format!("the boot catalog has more than {MAX_RECORDS} records"),
            ));
        }
        read += 1;
        let mut record = [0; RECORD];
        image.read_exact_at(&mut record, at).map_err(|e| input(at, e))?;
        Ok((at, record))
    };
    let (_, validation) = next()?;
    let sum = validation
        .chunks(2)
        .fold(0u16, |sum, word| sum.wrapping_add(le16(word, 0)));
    if validation[0] != 1 || !validation.ends_with(&[0x55, 0xaa]) || sum != 0 {
        return Err(corrupt(
            start,
            "the boot catalog does not begin with a validation entry",
        ));
    }
    let known = |at: u64, record: &[u8]| match record[0] {
        BOOTABLE | 0 => Ok(()),
        other => Err(corrupt(at, format!("boot indicator {other:#04x} is not known"))),
    };
    let (at, first) = next()?;
    known(at, &first)?;
    let mut entries = vec![entry(&first, platform(validation[1]))];
    loop {
        let (at, header) = next()?;
        match header[0] {
            // Without sections the records after the default entry are zeros.
            0 if entries.len() == 1 => break,
            SECTION | LAST_SECTION => {}
            other => {
                return Err(corrupt(
                    at,
                    format!("{other:#04x} begins no section of the boot catalog"),
                ));
            }
        }
        for _ in 0..le16(&header, 2) {
            let (at, record) = next()?;
            known(at, &record)?;
            entries.push(entry(&record, platform(header[1])));
            let mut more = record[1] & EXTENDED != 0;
            while more {
                let (at, extension) = next()?;
                if extension[0] != EXTENSION {
                    return Err(corrupt(at, "an extension of a boot entry is missing"));
                }
                more = extension[1] & EXTENDED != 0;
            }
        }
        if header[0] == LAST_SECTION {
            break;
        }
    }
    Ok(BootCatalog { lba, entries })
}

/// The boot info table of `entry`, if the image it names has one for the primary descriptor at block `descriptor`.
pub(super) fn info(image: &impl ReadAt, entry: &BootEntry, descriptor: u32) -> Result<Option<BootInfo>, ImageError> {
    let start = entry.start();
    let size = image.size().map_err(|e| input(0, e))?;
    let mut table = [0; 16];
    if start + SUM_OFFSET > size {
        return Ok(None);
    }
    image
        .read_exact_at(&mut table, start + INFO_OFFSET)
        .map_err(|e| input(start, e))?;
    let (len, checksum) = (le32(&table, 8), le32(&table, 12));
    let end = start + u64::from(len);
    let known = le32(&table, 0) == descriptor && le32(&table, 4) == entry.lba;
    if !known || u64::from(len) < SUM_OFFSET || end > size || u64::from(len) > MAX_SUMMED {
        return Ok(None);
    }
    let (mut at, mut sum) = (start + SUM_OFFSET, 0u32);
    let mut buffer = vec![0; 64 * 1024];
    while at < end {
        let n = (end - at).min(buffer.len() as u64) as usize;
        image.read_exact_at(&mut buffer[..n], at).map_err(|e| input(at, e))?;
        // The last word may be short; what is missing counts as zeros.
        buffer[n..(n + 3).min(64 * 1024)].fill(0);
        sum = buffer[..n.next_multiple_of(4)]
            .chunks(4)
            .fold(sum, |sum, word| sum.wrapping_add(le32(word, 0)));
        at += n as u64;
    }
    Ok(Some(BootInfo {
        len,
        checksum,
        checksum_fits: sum == checksum,
    }))
}
