//! El Torito: the boot record names a catalog, and the catalog names the boot image for each kind of firmware.
//!
//! ```text
//! record 0    validation: 01, platform, 2 zeros, text (24), checksum: the sum of all 16-bit words is 0, 55 aa
//! record 1    the default entry
//! then        section header: 90, or 91 for the last; platform, le16 number of entries, text (28); then its entries
//! entry       88 (bootable) or 00, media, le16 segment, system type, 0, le16 sectors of 512, le32 block of 2048
//! ```

use super::format::{SECTOR, corrupt, input, le16, le32};
use crate::image::{ImageError, ReadAt};

/// Identifier of the boot record, padded with NULs.
pub(super) const IDENTIFIER: &[u8] = b"EL TORITO SPECIFICATION";
const RECORD: usize = 32;
/// A catalog with more records is refused; real ones have a handful.
const MAX_RECORDS: usize = 128;
const BOOTABLE: u8 = 0x88;
const SECTION: u8 = 0x90;
const LAST_SECTION: u8 = 0x91;
const EXTENSION: u8 = 0x44;
/// Bit in the media of an entry or the flags of an extension: an extension follows.
const EXTENDED: u8 = 0x20;
/// Bytes of a sector in the length of an entry.
const LOAD_SECTOR: u64 = 512;
/// Offset of the boot info table in a boot image, and of the first byte that its checksum covers.
const INFO_OFFSET: u64 = 8;
const SUM_OFFSET: u64 = 64;
/// The checksum of a larger image is not verified: 64 MiB.
const MAX_SUMMED: u64 = 64 << 20;

/// The firmware of a boot entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BootPlatform {
    /// The BIOS of a PC (0).
    Bios,
    /// UEFI (0xef).
    Efi,
    /// Another platform, by its number.
    Other(u8),
}

/// The way in which the firmware presents a boot image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootEmulation {
    /// The image is loaded unchanged.
    NoEmulation,
    /// The image appears as a floppy or hard disk of this type (1 to 4, or an unknown type).
    Emulated(u8),
}

/// An entry of the boot catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootEntry {
    /// Firmware that the entry is for.
    pub platform: BootPlatform,
    /// Whether the firmware may start the image.
    pub bootable: bool,
    /// The way in which the firmware presents the image.
    pub media: BootEmulation,
    /// Number of 512-byte sectors that the firmware loads. For an EFI image its size, or 0 or 1 if the size does not fit.
    pub load_sectors: u16,
    /// First 2048-byte block of the image.
    pub lba: u32,
}

impl BootEntry {
    /// Offset of the image in bytes.
    pub fn start(&self) -> u64 {
        u64::from(self.lba) * SECTOR
    }
    /// Number of bytes that the firmware loads.
    pub fn load_bytes(&self) -> u64 {
        u64::from(self.load_sectors) * LOAD_SECTOR
    }
}

/// The boot catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootCatalog {
    /// First 2048-byte block of the catalog.
    pub lba: u32,
    /// The default entry, then the entries of the sections.
    pub entries: Vec<BootEntry>,
}

/// The table that `-boot-info-table` of mkisofs writes into a boot image, from which its code finds the rest of the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootInfo {
    /// Length of the boot image in bytes.
    pub len: u32,
    /// Stated sum of the 32-bit words from byte 64 on.
    pub checksum: u32,
    /// Whether the words have that sum.
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

/// The records of a catalog, one after the other.
struct Records<'a, R> {
    image: &'a R,
    start: u64,
    read: usize,
}

impl<R: ReadAt> Records<'_, R> {
    /// The next record and its offset.
    fn next(&mut self) -> Result<(u64, [u8; RECORD]), ImageError> {
        if self.read == MAX_RECORDS {
            let problem = format!("the boot catalog has more than {MAX_RECORDS} records");
            return Err(corrupt(self.start, problem));
        }
        let at = self.start + (self.read * RECORD) as u64;
        self.read += 1;
        let mut record = [0; RECORD];
        self.image.read_exact_at(&mut record, at).map_err(|e| input(at, e))?;
        Ok((at, record))
    }

    /// The next record, which is a boot entry for `platform`, and whether an extension follows it.
    fn entry(&mut self, platform: BootPlatform) -> Result<(BootEntry, bool), ImageError> {
        let (at, record) = self.next()?;
        match record[0] {
            BOOTABLE | 0 => Ok((entry(&record, platform), record[1] & EXTENDED != 0)),
            other => Err(corrupt(at, format!("the boot indicator {other:#04x} is unknown"))),
        }
    }
}

/// Reads the catalog at block `lba`.
pub(super) fn catalog(image: &impl ReadAt, lba: u32) -> Result<BootCatalog, ImageError> {
    let start = u64::from(lba) * SECTOR;
    let mut records = Records { image, start, read: 0 };
    let (_, validation) = records.next()?;
    let sum = validation
        .chunks(2)
        .fold(0u16, |sum, word| sum.wrapping_add(le16(word, 0)));
    if validation[0] != 1 || !validation.ends_with(&[0x55, 0xaa]) || sum != 0 {
        return Err(corrupt(
            start,
            "the boot catalog does not begin with a validation entry",
        ));
    }
    let (default, _) = records.entry(platform(validation[1]))?;
    let mut entries = vec![default];
    loop {
        let (at, header) = records.next()?;
        match header[0] {
            // Without sections, the records behind the default entry are zeros.
            0 if entries.len() == 1 => break,
            SECTION | LAST_SECTION => {}
            other => {
                let problem = format!("{other:#04x} is not the beginning of a section of the boot catalog");
                return Err(corrupt(at, problem));
            }
        }
        for _ in 0..le16(&header, 2) {
            let (entry, mut extended) = records.entry(platform(header[1]))?;
            entries.push(entry);
            // Extensions carry selection criteria, which are not evaluated.
            while extended {
                let (at, extension) = records.next()?;
                if extension[0] != EXTENSION {
                    return Err(corrupt(at, "an extension of a boot entry is missing"));
                }
                extended = extension[1] & EXTENDED != 0;
            }
        }
        if header[0] == LAST_SECTION {
            break;
        }
    }
    Ok(BootCatalog { lba, entries })
}

/// The boot info table in the image of `entry`, if that has a table that names the primary descriptor at block `descriptor`.
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
        // The last word may be incomplete; missing bytes count as zeros.
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
