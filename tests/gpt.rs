//! Partition tables against gdisk, which must be installed.

use pnb::{
    image::{
        Guid,
        gpt::{self, PartitionRequest, plan, types},
        mbr,
    },
    model::VerityDigest,
};
use std::{fs::File, path::Path, process::Command};

fn sgdisk(args: &[&str], disk: &Path) -> String {
    let output = Command::new("sgdisk").args(args).arg(disk).output();
    let output = output.expect("the Debian package gdisk must be installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

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

    let verdict = sgdisk(&["-v"], &path);
    assert!(verdict.contains("No problems found."), "{verdict}");
    let list = sgdisk(&["-p"], &path);
    let guid = table.guid.to_string().to_uppercase();
    assert!(list.contains(&format!("Disk identifier (GUID): {guid}")), "{list}");
    for (number, partition) in (1..).zip(&table.partitions) {
        let info = sgdisk(&["-i", &format!("{number}")], &path);
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
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("disk");
    File::create_new(&path).expect("new").set_len(64 << 20).expect("sparse");
    // The second entry stays empty.
    let args = [
        "-U",
        "11111111-2222-4333-8444-555555555555",
        "-n",
        "1:2048:+1M",
        "-t",
        "1:EF02",
        "-n",
        "3:8192:0",
    ];
    sgdisk(
        &[&args[..], &["-t", "3:8300", "-c", "3:root ü", "-A", "3:set:2"]].concat(),
        &path,
    );
    let table = gpt::read(&File::open(&path).expect("there")).expect("valid");
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
