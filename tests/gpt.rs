//! Partition tables against sgdisk.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        Guid, ReadAt,
        gpt::{self, DiskTable, PartitionRequest, plan, types},
        mbr,
    },
    model::{SectorSize, VerityDigest},
};
use std::{fs::File, path::Path};
use tools::check;

/// A size above 4 GiB.
const LARGE: u64 = 5_000_000_000;

/// A disk with sectors of `sector_size` that is written; one partition has `root_size` bytes.
fn written(sector_size: SectorSize, root_size: u64, path: &Path) -> DiskTable {
    let root = VerityDigest::new([3; 32]);
    let one = |name: &str, type_guid, size, attributes| PartitionRequest {
        name: name.to_owned(),
        type_guid,
        guid: Guid::derived("gpt", name, &root),
        size,
        attributes,
    };
    let wanted = [
        one("bios", types::BIOS_BOOT, 1 << 20, 0),
        one("esp", types::EFI_SYSTEM, 64 << 20, 0),
        one("powernode-root", types::LINUX_DATA, root_size, 1 << 60),
        one("files", types::BASIC_DATA, 1, 0),
    ];
    let table = plan(Guid::derived("gpt", "disk", &root), sector_size, &wanted, None).expect("fits");
    let mut file = File::create_new(path).expect("new");
    file.set_len(table.size()).expect("sparse");
    gpt::write(&table, Some(&[0xf4; 440]), &mut file).expect("written");
    table
}

#[test]
fn sgdisk_finds_no_problem_and_the_same_partitions() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("disk");
    let table = written(SectorSize::Bytes512, LARGE, &path);
    let (said, mut made) = check(
        &[&path],
        "sgdisk -v /inputs/0
        sgdisk -p /inputs/0
        for number in 1 2 3 4; do sgdisk -i $number /inputs/0 >out/$number; done",
    );
    assert!(said.contains("No problems found."), "{said}");
    let guid = table.guid.to_string().to_uppercase();
    assert!(said.contains(&format!("Disk identifier (GUID): {guid}")), "{said}");
    for (number, partition) in (1..).zip(&table.partitions) {
        let info = made.remove(&format!("{number}")).expect("one for each partition");
        let info = String::from_utf8(info).expect("text");
        let last = partition.first_lba + partition.sectors - 1;
        for line in [
            format!(
                "Partition GUID code: {} ",
                partition.type_guid.to_string().to_uppercase()
            ),
            format!("Partition unique GUID: {}\n", partition.guid.to_string().to_uppercase()),
            format!("First sector: {} ", partition.first_lba),
            format!("Last sector: {last} "),
            format!("Attribute flags: {:016X}\n", partition.attributes),
            format!("Partition name: '{}'\n", partition.name),
        ] {
            assert!(info.contains(&line), "{line:?} is not in\n{info}");
        }
    }
    let file = File::open(&path).expect("there");
    assert_eq!(gpt::read(&file).expect("valid"), table);
    assert_eq!(mbr::read(&file).expect("valid").boot_code, [0xf4; 440]);
}

/// sgdisk takes the sectors of a file for 512 bytes; sfdisk can be told.
#[test]
fn sfdisk_reads_the_table_of_either_size_of_sectors() {
    for sector_size in SectorSize::ALL {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("disk");
        let table = written(sector_size, LARGE, &path);
        let script = format!(
            "sfdisk --sector-size {sector_size} --verify /inputs/0
            sfdisk --sector-size {sector_size} -d /inputs/0
            echo other; sfdisk --sector-size {} -d /inputs/0 || true",
            4608 - sector_size.bytes()
        );
        let (said, _) = check(&[&path], &script);
        let (said, other) = said.split_once("other").expect("both");
        assert!(said.contains("No errors detected."), "{said}");
        for wrong in ["corrupt", "mismatch", "rror:"] {
            assert!(!said.contains(wrong), "{wrong}: {said}");
        }
        assert!(said.contains(&format!("sector-size: {sector_size}\n")), "{said}");
        let guid = table.guid.to_string().to_uppercase();
        assert!(said.contains(&format!("label-id: {guid}\n")), "{said}");
        for partition in &table.partitions {
            let place = format!("start={:>12}, size={:>12}, ", partition.first_lba, partition.sectors);
            let guid = format!("uuid={}", partition.guid.to_string().to_uppercase());
            let line = said
                .lines()
                .find(|line| line.contains(&guid))
                .unwrap_or_else(|| panic!("{guid}: {said}"));
            assert!(
                line.contains(&place) && line.contains(&format!("name=\"{}\"", partition.name)),
                "{line}"
            );
        }
        // With the wrong size, there is no table: the test looks at what it says.
        assert!(!other.contains(&guid), "{other}");
        let file = File::open(&path).expect("there");
        assert_eq!(gpt::read(&file).expect("valid"), table);
        assert!(
            table
                .partitions
                .iter()
                .all(|p| p.offset(sector_size).is_multiple_of(1 << 20))
        );
    }
}

/// As `powernode_grow_partition` calls it: the size in MiB means the same for sectors of either size.
#[test]
fn sfdisk_grows_the_last_partition_of_a_longer_disk() {
    for sector_size in SectorSize::ALL {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("disk");
        let born = written(sector_size, 50_000_000, &path);
        let wanted = (born.size() >> 20) + 63;
        let first = born.partitions[3].offset(sector_size) >> 20;
        let (_, made) = check(
            &[&path],
            &format!(
                "head -c 1M /inputs/0 >disk; truncate -s $(( $(stat -c %s /inputs/0) + 67108864 )) disk
                tail -c 1M /inputs/0 | dd of=disk bs=1M seek={} conv=notrunc status=none
                size='--sector-size {sector_size}'
                sfdisk $size --quiet --lock=no --no-reread --no-tell-kernel --relocate gpt-bak-std disk
                printf ', %sMiB\\n' {} | sfdisk $size --quiet --lock=no --no-reread --no-tell-kernel -N 4 disk
                head -c 1M disk >out/front; tail -c 1M disk >out/back; stat -c %s disk >out/size",
                (born.size() >> 20) - 1,
                wanted - first,
            ),
        );
        // Only the ends are taken out of the sandbox.
        let size: u64 = String::from_utf8_lossy(&made["size"]).trim().parse().expect("a number");
        let grown = Ends {
            front: &made["front"],
            back: &made["back"],
            size,
        };
        let table = gpt::read(&grown).expect("valid");
        assert_eq!(
            (table.sector_size, table.size()),
            (sector_size, born.size() + (64 << 20))
        );
        let last = &table.partitions[3];
        assert_eq!(
            last.offset(sector_size) + last.size(sector_size),
            wanted << 20,
            "{sector_size}"
        );
        assert_eq!(table.partitions[..3], born.partitions[..3]);
        assert_eq!(
            (last.guid, &last.name),
            (born.partitions[3].guid, &born.partitions[3].name)
        );
    }
}

/// The first and the last bytes of a disk, with zeros between them.
struct Ends<'a> {
    front: &'a [u8],
    back: &'a [u8],
    size: u64,
}

impl ReadAt for Ends<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let back = self.size - self.back.len() as u64;
        for (at, byte) in (offset..).zip(buffer) {
            let known = match usize::try_from(at).ok().and_then(|at| self.front.get(at)) {
                Some(byte) => Some(byte),
                None => at.checked_sub(back).and_then(|at| self.back.get(at as usize)),
            };
            *byte = known.copied().unwrap_or(0);
        }
        Ok(())
    }
    fn size(&self) -> std::io::Result<u64> {
        Ok(self.size)
    }
}

#[test]
fn a_table_of_sgdisk_is_read() {
    // The second entry stays empty.
    let (_, made) = check(
        &[],
        "truncate -s 64M out/disk
        sgdisk -U 11111111-2222-4333-8444-555555555555 -n 1:2048:+1M -t 1:EF02 -n 3:8192:0 -t 3:8300 -c '3:root ü' -A 3:set:2 out/disk",
    );
    let table = gpt::read(&made["disk"]).expect("valid");
    assert_eq!(table.guid, Guid::new(0x11111111_2222_4333_8444_555555555555));
    assert_eq!(table.size(), 64 << 20);
    let found: Vec<_> = table
        .partitions
        .iter()
        .map(|p| (p.name.as_str(), p.type_guid, p.first_lba, p.sectors, p.attributes))
        .collect();
    let end = table.sectors - 33;
    assert_eq!(found[0], ("", types::BIOS_BOOT, 2048, 2048, 0));
    assert_eq!(
        (found[1].0, found[1].1, found[1].2, found[1].4),
        ("root ü", types::LINUX_DATA, 8192, 4)
    );
    assert!(
        found[1].3 <= end - 8192 && found[1].3 > end - 8192 - 2048 && found.len() == 2,
        "{found:?}"
    );
}
