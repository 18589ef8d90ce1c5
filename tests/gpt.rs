//! Partition tables against sgdisk.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        Guid,
        gpt::{self, PartitionRequest, plan, types},
        mbr,
    },
    model::VerityDigest,
};
use std::fs::File;
use tools::check;

#[test]
fn sgdisk_finds_no_problem_and_the_same_partitions() {
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
        one("powernode-root", types::LINUX_DATA, 5_000_000_000, 1 << 60),
        one("files", types::BASIC_DATA, 1, 0),
    ];
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("disk");
    let table = plan(Guid::derived("gpt", "disk", &root), &wanted, None).expect("fits");
    let mut file = File::create_new(&path).expect("new");
    file.set_len(table.size()).expect("sparse");
    gpt::write(&table, Some(&[0xf4; 440]), &mut file).expect("written");

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
