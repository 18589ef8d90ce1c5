//! The master boot record: the code that a BIOS runs, and the table that protects a GPT from programs that do not support it.
//!
//! ```text
//! 0x000  440  boot code
//! 0x1b8    4  disk signature, 0 on a GPT disk
//! 0x1bc    2  unused
//! 0x1be   64  four partitions: status · CHS of the first sector · type · CHS of the last · first sector · sectors
//! 0x1fe    2  55 aa
//! ```
//!
//! Source: UEFI specification 2.10, section 5.2.

use super::{ImageError, ReadAt};

const FORMAT: &str = "a master boot record";
/// Bytes of a sector, of every disk that is written and read here.
pub const SECTOR: u64 = 512;
/// Bytes of boot code.
pub const BOOT_CODE: usize = 0x1b8;
/// Type of the partition that covers a GPT disk.
pub const PROTECTIVE: u8 = 0xee;
const SIGNATURE_AT: usize = 0x1b8;
const TABLE_AT: usize = 0x1be;
const ENTRY: usize = 16;
const MAGIC_AT: usize = 0x1fe;
const MAGIC: [u8; 2] = [0x55, 0xaa];
/// Status of the partition that a BIOS boots; others have 0, and any other value is invalid.
const ACTIVE: u8 = 0x80;
/// The first sector behind the record, as cylinder, head and sector: UEFI requires it in a protective entry.
const CHS_SECOND: [u8; 3] = [0, 2, 0];
/// An address beyond the range of cylinder, head and sector.
const CHS_BEYOND: [u8; 3] = [0xff; 3];

/// One of the four entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MbrPartition {
    /// Number of the entry, 0 to 3.
    pub slot: u8,
    /// Whether a BIOS boots this partition.
    pub active: bool,
    /// Type, e.g. [`PROTECTIVE`], 0xef for an EFI system partition, 0x0c for FAT32.
    pub kind: u8,
    /// First sector.
    pub first_lba: u32,
    /// Number of sectors.
    pub sectors: u32,
}

/// A master boot record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mbr {
    /// The code that a BIOS runs.
    pub boot_code: [u8; BOOT_CODE],
    /// The disk signature, by which Windows distinguishes disks; 0 on a GPT disk.
    pub signature: u32,
    /// The used entries, in the order of their slots.
    pub partitions: Vec<MbrPartition>,
}

impl Mbr {
    /// The record of a GPT disk of `sectors` sectors: one entry from sector 1 to the end, or to the highest 32-bit number.
    pub fn protective(sectors: u64, boot_code: &[u8; BOOT_CODE]) -> Self {
        Self {
            boot_code: *boot_code,
            signature: 0,
            partitions: vec![MbrPartition {
                slot: 0,
                active: false,
                kind: PROTECTIVE,
                first_lba: 1,
                sectors: u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX),
            }],
        }
    }

    /// The bytes of the sector, without partitions of slots above 3. Addresses as cylinder, head and sector are set to "beyond", since
    /// disks have no geometry any more.
    pub fn to_bytes(&self) -> [u8; SECTOR as usize] {
        let mut bytes = [0; SECTOR as usize];
        bytes[..BOOT_CODE].copy_from_slice(&self.boot_code);
        bytes[SIGNATURE_AT..SIGNATURE_AT + 4].copy_from_slice(&self.signature.to_le_bytes());
        for partition in self.partitions.iter().filter(|p| p.slot < 4) {
            let entry = &mut bytes[TABLE_AT + ENTRY * usize::from(partition.slot)..][..ENTRY];
            entry[0] = if partition.active { ACTIVE } else { 0 };
            let first = if partition.first_lba == 1 {
                CHS_SECOND
            } else {
                CHS_BEYOND
            };
            entry[1..4].copy_from_slice(&first);
            entry[4] = partition.kind;
            entry[5..8].copy_from_slice(&CHS_BEYOND);
            entry[8..12].copy_from_slice(&partition.first_lba.to_le_bytes());
            entry[12..16].copy_from_slice(&partition.sectors.to_le_bytes());
        }
        bytes[MAGIC_AT..].copy_from_slice(&MAGIC);
        bytes
    }
}

/// Reads the record of a disk; an entry with a type other than 0 is used. A partition without sectors, and a status other than 0 and
/// 0x80, are errors. Partitions may overlap and cover the record, as they do in a hybrid table.
pub fn read(disk: &dyn ReadAt) -> Result<Mbr, ImageError> {
    let (record, problems) = parse(disk)?;
    match problems.into_iter().next() {
        None => Ok(record),
        Some((offset, problem)) => Err(corrupt(offset, problem)),
    }
}

/// Reads the record of a disk with damage: a partition without sectors is left out, one with an invalid status is not active, and
/// the fragments of sentences say so. Linux takes a record for no partition table at all if one status is invalid.
///
/// # Errors
/// The record cannot be read, or does not end with 55aa.
pub fn examine(disk: &dyn ReadAt) -> Result<(Mbr, Vec<String>), ImageError> {
    let (record, problems) = parse(disk)?;
    Ok((record, problems.into_iter().map(|(_, problem)| problem).collect()))
}

fn corrupt(offset: usize, problem: String) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset: offset as u64,
        problem,
    }
}

/// The record, and the problems of its entries with their offsets.
fn parse(disk: &dyn ReadAt) -> Result<(Mbr, Vec<(usize, String)>), ImageError> {
    let mut bytes = [0; SECTOR as usize];
    disk.read_exact_at(&mut bytes, 0).map_err(|source| ImageError::Input {
        format: FORMAT,
        offset: 0,
        source,
    })?;
    if bytes[MAGIC_AT..] != MAGIC {
        let found = hex::encode(&bytes[MAGIC_AT..]);
        return Err(corrupt(
            MAGIC_AT,
            format!("the record ends with {found} instead of 55aa"),
        ));
    }
    let mut boot_code = [0; BOOT_CODE];
    boot_code.copy_from_slice(&bytes[..BOOT_CODE]);
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (mut partitions, mut problems) = (Vec::new(), Vec::new());
    for slot in 0..4u8 {
        let at = TABLE_AT + ENTRY * usize::from(slot);
        if bytes[at + 4] == 0 {
            continue;
        }
        let number = slot + 1;
        let partition = MbrPartition {
            slot,
            active: bytes[at] == ACTIVE,
            kind: bytes[at + 4],
            first_lba: word(at + 8),
            sectors: word(at + 12),
        };
        if bytes[at] & !ACTIVE != 0 {
            let status = bytes[at];
            problems.push((
                at,
                format!("partition {number} has the status {status:#04x}, not 0x00 or 0x80"),
            ));
        }
        if partition.sectors == 0 {
            problems.push((
                at,
                format!("partition {number} has the type {:#04x} and no sectors", partition.kind),
            ));
        } else {
            partitions.push(partition);
        }
    }
    let record = Mbr {
        boot_code,
        signature: word(SIGNATURE_AT),
        partitions,
    };
    Ok((record, problems))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_protective_record_is_what_uefi_says() {
        let bytes = Mbr::protective(4096, &[0x90; BOOT_CODE]).to_bytes();
        assert!(bytes[..0x1b8].iter().all(|b| *b == 0x90));
        let entry = b"\x00\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00\xff\x0f\x00\x00";
        assert_eq!(&bytes[0x1be..0x1ce], entry);
        assert!(bytes[0x1ce..0x1fe].iter().all(|b| *b == 0));
        assert_eq!(&bytes[0x1fe..], b"\x55\xaa");
        let large = Mbr::protective(1 << 33, &[0; BOOT_CODE]);
        assert_eq!(large.partitions[0].sectors, u32::MAX);
    }

    #[test]
    fn damage_is_named() {
        let read_with = |at: usize, value: u8| {
            let mut bytes = Mbr::protective(4096, &[0; BOOT_CODE]).to_bytes().to_vec();
            bytes[at] = value;
            read(&bytes).map(|_| ()).expect_err("damaged").to_string()
        };
        assert!(read_with(0x1ff, 0).contains("the record ends with 5500 instead of 55aa"));
        assert!(read_with(0x1be, 3).contains("partition 1 has the status 0x03"));
        assert!(read_with(0x1ce + 4, 0xef).contains("partition 2 has the type 0xef and no sectors"));
        let short = read(&vec![0u8; 511]).map(|_| ()).expect_err("short");
        assert!(short.to_string().contains("read a master boot record at byte 0"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_again(mut bytes in proptest::collection::vec(any::<u8>(), 512), used in 0u8..16) {
            bytes[510..].copy_from_slice(&MAGIC);
            for slot in 0..4 {
                let at = TABLE_AT + ENTRY * slot;
                bytes[at] &= ACTIVE;
                if used & 1 << slot == 0 {
                    bytes[at + 4] = 0;
                }
            }
            if let Ok(mbr) = read(&bytes) {
                let again = read(&mbr.to_bytes().to_vec()).expect("just written");
                prop_assert_eq!(again, mbr);
            }
        }
    }
}
