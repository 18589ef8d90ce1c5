//! Known bytes, the crate `gpt` as a second reader, and damage.

use super::*;
use crate::{
    image::{Guid, ImageError, mbr},
    model::{SectorSize, VerityDigest},
};
use proptest::{collection::vec, prelude::*};
use std::io::Cursor;

fn wanted() -> Vec<PartitionRequest> {
    let root = VerityDigest::new([1; 32]);
    let one = |name: &str, type_guid, size, attributes| PartitionRequest {
        name: name.to_owned(),
        type_guid,
        guid: Guid::derived("gpt", name, &root),
        size,
        attributes,
    };
    vec![
        one("bios", types::BIOS_BOOT, 1 << 20, 0),
        one("esp", types::EFI_SYSTEM, (3 << 20) + 1, 1),
        one("powernode-root", types::LINUX_DATA, 513, 0),
        one("übrig ▲", types::LINUX_DATA, 4096, 1 << 60),
    ]
}

fn disk() -> DiskTable {
    plan(
        Guid::derived("gpt", "disk", &VerityDigest::new([1; 32])),
        SectorSize::Bytes512,
        &wanted(),
        None,
    )
    .expect("fits")
}

fn image(disk: &DiskTable, code: Option<&[u8; 440]>) -> Vec<u8> {
    let mut out = Cursor::new(vec![0; disk.size() as usize]);
    write(disk, code, &mut out).expect("written");
    assert_eq!(out.get_ref().len() as u64, disk.size());
    out.into_inner()
}

#[test]
fn partitions_follow_each_other_at_mebibytes() {
    let disk = disk();
    let places: Vec<_> = disk.partitions.iter().map(|p| (p.first_lba, p.sectors)).collect();
    assert_eq!(places, [(2048, 2048), (4096, 6145), (12288, 2), (14336, 8)]);
    // The last ends at 14344; the backup behind it fits into the eighth mebibyte.
    assert_eq!(disk.sectors, 16384);
    assert_eq!(
        (
            disk.partitions[1].offset(disk.sector_size),
            disk.partitions[1].size(disk.sector_size)
        ),
        (2 << 20, 6145 * 512)
    );
    let exact = plan(disk.guid, SectorSize::Bytes512, &wanted(), Some((14344 + 33) * 512)).expect("just fits");
    assert_eq!(exact.partitions, disk.partitions);
}

#[test]
fn what_cannot_be_is_refused() {
    let error = |change: &dyn Fn(&mut Vec<PartitionRequest>), size| {
        let mut list = wanted();
        change(&mut list);
        let error = plan(Guid::NIL, SectorSize::Bytes512, &list, size).expect_err("refused");
        assert!(matches!(error, ImageError::Request { .. }), "{error:?}");
        error.to_string()
    };
    assert!(
        error(&|_| (), Some((14344 + 32) * 512)).contains("partition 4 of 8 sectors from sector 14336 on does not lie")
    );
    assert!(error(&|_| (), Some(1000)).contains("a disk of 1000 bytes does not end at a sector"));
    assert!(error(&|_| (), Some(512)).contains("a disk cannot have 1 sectors"));
    assert!(error(&|l| l[0].size = 0, None).contains("partition 1 of 0 sectors"));
    for size in [u64::MAX, 1 << 63, (1 << 63) - (1 << 20)] {
        assert!(error(&|l| l[3].size = size, None).contains("ends beyond any disk"));
    }
    assert!(error(&|l| l[0].name = "x".repeat(37), None).contains("of 37 UTF-16 units"));
    assert!(error(&|l| l[0].name = "a\0b".to_owned(), None).contains("cannot have the name"));
    assert!(error(&|l| l[0].type_guid = Guid::NIL, None).contains("partition 1 has no type"));
    assert!(error(&|l| l[0].guid = l[1].guid, None).contains("is used twice"));
    let many = |l: &mut Vec<PartitionRequest>| {
        *l = (0..129)
            .map(|i| PartitionRequest {
                guid: Guid::new(i + 1),
                ..l[2].clone()
            })
            .collect()
    };
    assert!(error(&many, None).contains("129 partitions are more than the 128 entries"));

    let mut overlapping = disk();
    overlapping.partitions[0].first_lba = 4095;
    let mut out = Cursor::new(Vec::new());
    let error = write(&overlapping, None, &mut out).expect_err("overlap").to_string();
    assert_eq!(error, "make a GUID partition table: partitions 1 and 2 overlap");
    assert!(out.get_ref().is_empty());
}

#[test]
fn the_bytes_are_those_of_uefi() {
    let table = DiskTable {
        guid: Guid::new(0x50424e00_0001_4002_8003_000000000004),
        sector_size: SectorSize::Bytes512,
        partitions: vec![Partition {
            name: "esp".to_owned(),
            type_guid: types::EFI_SYSTEM,
            guid: Guid::new(0x50424e00_0001_4002_8003_000000000005),
            first_lba: 2048,
            sectors: 2048,
            attributes: 0x8000_0000_0000_0001,
        }],
        sectors: 8192,
    };
    let bytes = image(&table, Some(&[0x5a; 440]));
    assert!(bytes[..440].iter().all(|b| *b == 0x5a));
    // Sums as Python's zlib.crc32 has them.
    let header = "4546492050415254000001005c0000003eaa8558000000000100000000000000ff1f000000000000\
                  2200000000000000de1f000000000000004e4250010002408003000000000004020000000000000080000000800000005d62999f";
    assert_eq!(hex::encode(&bytes[512..604]), header);
    let entry = "28732ac11ff8d211ba4b00a0c93ec93b004e4250010002408003000000000005\
                 0008000000000000ff0f0000000000000100000000000080650073007000";
    assert_eq!(hex::encode(&bytes[1024..1086]), entry);
    assert!(bytes[1086..8191 * 512 - 16384].iter().all(|b| *b == 0));
    assert_eq!(bytes[1024..1024 + 16384], bytes[8191 * 512 - 16384..8191 * 512]);
    let back = &bytes[8191 * 512..];
    assert_eq!(hex::encode(&back[24..40]), "ff1f0000000000000100000000000000");
    assert_eq!(hex::encode(&back[72..80]), "df1f000000000000");
}

#[test]
fn the_crate_gpt_reads_the_same() {
    let disk = disk();
    let config = gpt::GptConfig::new().only_valid_headers(true);
    let theirs = config.open_from_device(Cursor::new(image(&disk, None))).expect("valid");
    assert_eq!(theirs.guid().to_string(), disk.guid.to_string());
    let backup = theirs.backup_header().expect("valid");
    assert_eq!((backup.current_lba, backup.part_start), (16383, 16351));
    assert_eq!((backup.first_usable, backup.last_usable), (34, 16350));
    assert_eq!(theirs.partitions().len(), disk.partitions.len());
    for ((number, theirs), ours) in theirs.partitions().iter().zip(&disk.partitions) {
        assert_eq!(theirs.name, ours.name, "{number}");
        assert_eq!(theirs.part_guid.to_string(), ours.guid.to_string());
        assert_eq!(theirs.part_type_guid.guid.to_string(), ours.type_guid.to_string());
        assert_eq!(
            (theirs.first_lba, theirs.last_lba),
            (ours.first_lba, ours.first_lba + ours.sectors - 1)
        );
        assert_eq!(theirs.flags, ours.attributes);
    }
}

#[test]
fn damage_to_each_copy_is_named() {
    let whole = image(&disk(), None);
    let last = whole.len() - 512;
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        read(&bytes).expect_err("damaged").to_string()
    };
    assert!(
        error(&|b| b[512] = 0).contains(
            "the primary copy: no signature \"EFI PART\"; the backup copy is sound; the backup copy is shown"
        )
    );
    let both = error(&|b| (b[600], b[last + 40]) = (1, 1));
    assert!(
        both.starts_with("read a GUID partition table at byte 512: the primary copy: the header states the CRC-32"),
        "{both}"
    );
    assert!(
        both.contains("; the backup copy: the header states the CRC-32"),
        "{both}"
    );
    let array = error(&|b| b[last - 1] ^= 1);
    assert!(
        array.contains(&format!(
            "at byte {last}: the primary copy is sound; the backup copy: the array"
        )),
        "{array}"
    );
    assert!(error(&|b| b[1100] ^= 1).contains("the primary copy: the array states the CRC-32"));
    assert!(error(&|b| b[450] = 0x83).contains("no protective partition"));
    assert!(error(&|b| b[511] = 0).contains("55aa"));
    assert!(error(&|b| b.truncate(whole.len() - 1)).contains("are not whole sectors"));
    assert!(error(&|b| b.truncate(last)).contains("the disk has 16383: the disk was cut off"));
    let grown = error(&|b| b.extend([0; 512]));
    assert!(
        grown.contains("for a disk of 16384 sectors of 512 bytes, and the disk has 16385: the disk grew"),
        "{grown}"
    );
    assert!(error(&|b| b[450 + 8] ^= 1).contains("the protective partition has"));
    // A good copy of another disk as the backup.
    let other = DiskTable {
        guid: Guid::new(1),
        ..disk()
    };
    let theirs = image(&other, None);
    let mixed = error(&|b| b[last..].copy_from_slice(&theirs[last..]));
    assert!(mixed.contains("the copies differ: the disk GUID is"), "{mixed}");
}

/// Corrects the checksums of both headers and arrays.
fn sum_up(bytes: &mut [u8]) {
    let last = bytes.len() - 512;
    for (header, array) in [(512, 1024), (last, last - 16384)] {
        let sum = crc32fast::hash(&bytes[array..array + 16384]).to_le_bytes();
        bytes[header + 88..header + 92].copy_from_slice(&sum);
        bytes[header + 16..header + 20].fill(0);
        let sum = crc32fast::hash(&bytes[header..header + 92]).to_le_bytes();
        bytes[header + 16..header + 20].copy_from_slice(&sum);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        sizes in vec((1u64..20_000_000, any::<u64>(), "[a-zé€😀]{0,18}"), 0..20), code in any::<u8>(), spare in 0u64..3, large in any::<bool>()
    ) {
        let sector_size = if large { SectorSize::Bytes4096 } else { SectorSize::Bytes512 };
        let wanted: Vec<_> = (1..).zip(sizes).map(|(i, (size, attributes, name))| PartitionRequest {
            name, type_guid: types::LINUX_DATA, guid: Guid::new(i), size, attributes,
        }).collect();
        let mut disk = plan(Guid::new(u128::MAX), sector_size, &wanted, None).expect("fits");
        disk.sectors += spare;
        let mut out = SparseEnds::new(&disk);
        write(&disk, Some(&[code; 440]), &mut out).expect("written");
        prop_assert_eq!(mbr::read(&out).expect("a record").boot_code, [code; 440]);
        prop_assert_eq!(read(&out).expect("valid"), disk);
    }

    #[test]
    fn no_change_passes_unseen_and_none_panics(hits in vec((0usize..35 * 512, any::<bool>(), 1u8..), 1..6)) {
        let disk = disk();
        let whole = image(&disk, None);
        let mut bytes = whole.clone();
        for (at, back, value) in hits {
            let at = if back { bytes.len() - 1 - at } else { at };
            bytes[at] ^= value;
        }
        let before = read(&bytes);
        if let Ok(found) = &before {
            prop_assert_eq!(found, &disk);
        }
        // With correct checksums, the other checks must suffice.
        sum_up(&mut bytes);
        if let Ok(found) = read(&bytes) {
            prop_assert_eq!(found.check(), Ok(()));
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..4096)) {
        let _ = read(&bytes);
        let _ = mbr::read(&bytes);
    }
}

/// A disk of which only the ends are in memory.
struct SparseEnds {
    front: Vec<u8>,
    back: Vec<u8>,
    size: u64,
    at: u64,
}

impl SparseEnds {
    fn new(disk: &DiskTable) -> Self {
        let size = disk.size();
        Self {
            front: vec![0; 64 << 10],
            back: vec![0; 64 << 10],
            size,
            at: 0,
        }
    }
    fn range(&self, at: u64, len: usize) -> (bool, usize) {
        let back = at >= self.front.len() as u64;
        let from = if back {
            at - (self.size - self.back.len() as u64)
        } else {
            at
        };
        assert!(from as usize + len <= self.front.len(), "only the ends are written");
        (back, from as usize)
    }
}
impl std::io::Seek for SparseEnds {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        let std::io::SeekFrom::Start(at) = to else {
            panic!("only from the start")
        };
        self.at = at;
        Ok(at)
    }
}
impl std::io::Write for SparseEnds {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (back, at) = self.range(self.at, bytes.len());
        let end = if back { &mut self.back } else { &mut self.front };
        end[at..at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
impl crate::image::ReadAt for SparseEnds {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let last = offset + buffer.len() as u64;
        if last > self.front.len() as u64 && offset < self.size - self.back.len() as u64 {
            // A table is looked for elsewhere too.
            buffer.fill(0);
            return Ok(());
        }
        let (back, at) = self.range(offset, buffer.len());
        let end = if back { &self.back } else { &self.front };
        buffer.copy_from_slice(&end[at..at + buffer.len()]);
        Ok(())
    }
    fn size(&self) -> std::io::Result<u64> {
        Ok(self.size)
    }
}
