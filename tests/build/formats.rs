//! What the formats' own programs say of the artifacts.

use crate::{project::*, tools};
use std::{fs, path::Path};

/// Runs `script` over `files`; it must end well, and what it prints is returned.
fn check(files: &[&Path], script: &str) -> String {
    tools::check(files, script).0
}

fn root_digest() -> String {
    let text = fs::read(artifact().join("build-manifest.json")).expect("there");
    let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    manifest["fsverity_root_hash"].as_str().expect("text").to_owned()
}

#[test]
fn the_disk_is_clean_to_every_program() {
    let disk = images().join("raw/amd64/disk.raw");
    let said = check(
        &[&disk],
        r#"
        sgdisk -v /inputs/0
        sgdisk -p /inputs/0
        sfdisk -d /inputs/0 | sed -n 's/^\/inputs\/0p\([0-9]*\) : start= *\([0-9]*\), size= *\([0-9]*\),.*/\1 \2 \3/p' >parts
        while read -r number start size; do
            dd if=/inputs/0 of="part$number" bs=1M iflag=skip_bytes,count_bytes skip=$((start * 512)) count=$((size * 512)) status=none
        done <parts
        fsck.fat -n part2
        mdir -b -i part2 ::/EFI/BOOT
        e2fsck -fn part3
        e2fsck -fn part4
        debugfs -R 'dump /image.cfs image.cfs' part3
        fsverity digest image.cfs
        fsck.erofs image.cfs
        "#,
    );
    assert!(said.contains("No problems found"), "{said}");
    assert!(!said.contains("Warning") && !said.contains("Caution"), "{said}");
    for name in ["BOOTX64.EFI", "grubx64.efi", "mmx64.efi"] {
        assert!(said.contains(&format!("::/EFI/BOOT/{name}")), "{said}");
    }
    assert!(said.contains(&format!("sha256:{}", root_digest())), "{said}");
    let meta = fs::metadata(&disk).expect("there");
    let (length, stored) = (meta.len(), std::os::unix::fs::MetadataExt::blocks(&meta) * 512);
    assert!(
        stored < length * 9 / 10,
        "{stored} of {length} bytes are stored: it is not sparse"
    );
}

#[test]
fn the_qcow2_is_the_disk() {
    let (qcow2, raw) = (
        images().join("qcow2/amd64/disk.qcow2"),
        images().join("raw/amd64/disk.raw"),
    );
    let said = check(
        &[&qcow2, &raw],
        "qemu-img check -f qcow2 /inputs/0\nqemu-img compare -f qcow2 -F raw /inputs/0 /inputs/1\nqemu-img info -f qcow2 /inputs/0",
    );
    assert!(said.contains("No errors were found"), "{said}");
    assert!(said.contains("Images are identical"), "{said}");
    assert!(said.contains("compression type: zstd"), "{said}");
}

#[test]
fn the_iso_is_readable_and_whole() {
    let iso = images().join("iso/amd64/install.iso");
    let said = check(
        &[&iso],
        "xorriso -indev /inputs/0 -report_el_torito plain -report_system_area plain -check_media -- 2>&1\n\
         sgdisk -v /inputs/0",
    );
    assert!(said.contains("El Torito boot img :   1  BIOS"), "{said}");
    assert!(said.contains("El Torito boot img :   2  UEFI"), "{said}");
    assert!(said.contains("+ good") && !said.contains("unreadable"), "{said}");
    assert!(said.contains("No problems found"), "{said}");
}
