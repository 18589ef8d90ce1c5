//! Every family boots by every firmware it claims to, and refuses what was tampered with.

use crate::{project::*, tools::check};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

/// `pnb boot`, with time enough for an emulated machine beside other tests.
fn boot(path: &Path, arguments: &[&str]) -> Command {
    let mut command = pnb(repository(), &store());
    command
        .arg("boot")
        .arg(path)
        .args(["--timeout", &patience(400)])
        .args(arguments);
    command
}

/// Boots a variant to its ready line; the state that it reports must be that of the firmware.
fn boots(variant: &str, firmware: &str, attach: &str) {
    let path = images().join(variant).join("amd64");
    let instance = format!("instance_uuid={INSTANCE}");
    let arguments = ["--firmware", firmware, "--as", attach, "--fw-cfg", &instance];
    let said = good_boot(&mut boot(&path, &arguments));
    let (kind, secure) = match firmware {
        "bios" => ("bios", "unavailable"),
        // OVMF without Secure Boot has no variable for it.
        "uefi" => ("uefi", "unavailable"),
        _ => ("uefi", "on"),
    };
    for want in [
        format!("powernode: ready instance={INSTANCE} source=fw_cfg root="),
        "lockdown=integrity".to_owned(),
        format!("secure_boot={secure}"),
        format!("firmware={kind}"),
    ] {
        assert!(
            said.contains(&want),
            "{variant} {firmware} {attach}: {want} is not in:\n{said}"
        );
    }
}

#[test]
fn a_disk_boots_under_secure_boot() {
    boots("raw", "secureboot", "disk");
}

/// With the disk under Secure Boot above, and the installed disk under UEFI below: each variant, each firmware and each way to attach
/// a medium once. The other pairs are in [`nightly`].
#[test]
#[ignore = "long: four boots; cargo test -- --include-ignored"]
fn each_variant_each_firmware_and_each_attachment_boots_once() {
    for (variant, firmware, attach) in [
        ("qcow2", "bios", "disk"),
        ("iso", "uefi", "cdrom"),
        ("iso", "bios", "usb"),
        ("ipxe", "secureboot", "net"),
    ] {
        boots(variant, firmware, attach);
    }
}

#[test]
#[ignore = "long: an installation and two boots; cargo test -- --include-ignored"]
fn the_medium_installs_a_disk_that_boots_and_keeps_what_it_is_given() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let disk = dir.path().join("installed.raw");
    let iso = images().join("iso/amd64");
    let install = |words: &str| {
        let mut command = boot(&iso, &["--firmware", "direct", "--append", words, "--size", "2GiB"]);
        command.arg("--disk").arg(&disk);
        command
    };
    let said = bad(&mut install("powernode.install=/dev/vda"), 9);
    assert!(said.contains("powernode.install.confirm=yes"), "{said}");
    let said = bad(
        &mut install("powernode.install=/dev/vdz powernode.install.confirm=yes"),
        9,
    );
    assert!(
        said.contains("powernode: refused: ") && said.contains("/dev/vdz"),
        "{said}"
    );
    assert!(is_zero(&disk), "a refused installation wrote to the disk");
    let said = good(&mut install("powernode.install=/dev/vda powernode.install.confirm=yes"));
    assert!(said.contains("powernode: installed: /dev/vda root="), "{said}");

    // The first boot grows /persist to the disk; the second finds what the first has left there.
    for boots in [1, 2] {
        let mut command = boot(&disk, &["--firmware", "uefi"]);
        let said = good(command.arg("--keep").arg(&disk));
        for want in [
            "powernode: ready instance=none source=none",
            "persist=ok",
            &format!("boots={boots}"),
        ] {
            assert!(said.contains(want), "{want} is not in:\n{said}");
        }
    }
    let (said, _) = check(&[&disk], "sgdisk -v /inputs/0\nsgdisk -i 4 /inputs/0");
    assert!(
        said.contains("No problems found") && said.contains("'powernode-persist'"),
        "{said}"
    );
    let sectors = said.split("Partition size: ").nth(1).and_then(|s| s.split(' ').next());
    let sectors: u64 = sectors.and_then(|s| s.parse().ok()).expect("a number of sectors");
    assert!(sectors > (1 << 30) / 512, "/persist was not grown: {sectors} sectors");
}

fn is_zero(path: &Path) -> bool {
    let file = File::open(path).expect("there");
    let mut block = vec![0; 1 << 20];
    let zeros = block.clone();
    let len = file.metadata().expect("there").len();
    (0..len / (1 << 20)).all(|n| {
        file.read_exact_at(&mut block, n << 20).expect("in the file");
        block == zeros
    })
}

#[test]
#[ignore = "long: a boot; cargo test -- --include-ignored"]
fn a_disk_too_small_is_refused_untouched() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let disk = dir.path().join("small.raw");
    let words = "powernode.install=/dev/vda powernode.install.confirm=yes";
    let mut command = boot(
        &images().join("iso/amd64"),
        &["--firmware", "direct", "--append", words, "--size", "64MiB"],
    );
    let said = bad(command.arg("--disk").arg(&disk), 9);
    assert!(
        said.contains("powernode: refused: ") && said.contains("67108864"),
        "{said}"
    );
    assert!(is_zero(&disk), "a refused installation wrote to the disk");
}

/// Place of `needle` in a file.
fn find(path: &Path, needle: &[u8]) -> u64 {
    let bytes = fs::read(path).expect("there");
    memchr::memmem::find(&bytes, needle).expect("it is in there") as u64
}

#[test]
#[ignore = "long: a boot; cargo test -- --include-ignored"]
fn a_changed_kernel_is_refused_by_secure_boot() {
    let (_dir, disk) = copy_of(&images().join("raw/amd64/disk.raw"));
    let kernel = fs::read(artifact().join("kernel")).expect("there");
    flip(&disk, find(&disk, &kernel[..4096]) + kernel.len() as u64 / 2);
    let said = bad(&mut boot(&disk, &["--firmware", "secureboot"]), 9);
    assert!(said.contains("bad shim signature"), "{said}");
}

#[test]
fn what_cannot_be_booted_is_said_at_once() {
    let raw = images().join("raw/amd64");
    for (path, arguments, want) in [
        (&raw, &["--as", "cdrom"][..], "it can be booted as disk, usb"),
        (
            &raw,
            &["--append", "x"][..],
            "--firmware direct takes kernel and initramfs off the medium",
        ),
        (
            &images().join("ipxe/amd64"),
            &["--firmware", "direct"][..],
            "a network boot needs",
        ),
        (
            &artifact().to_owned(),
            &["--firmware", "uefi"][..],
            "--firmware direct only",
        ),
    ] {
        let said = bad(&mut boot(path, arguments), 2);
        assert!(said.contains(want), "{want} is not in:\n{said}");
    }
}

/// The variants `variants` of a project whose disk has sectors of 4096 bytes.
fn large_sectors(dir: &Path, variants: &str) -> PathBuf {
    let (project, images) = (dir.join("project"), dir.join("images"));
    copy_of_project(&project);
    let file = project.join("stages/raw/stage.toml");
    let text = fs::read_to_string(&file).expect("there");
    let asked = text.replacen("\nroot = ", "\nsector-size = 4096\nroot = ", 1);
    fs::write(&file, &asked).expect("written");
    let mut command = build(&project, &store());
    command.args(["--variant", variants, "--output"]).arg(&images);
    // GRUB's inputs for a BIOS are in the stage file still.
    let said = bad(&mut command, 6);
    let why = "line 3: no BIOS boots a disk with sectors of 4096 bytes: it has the input \"boot.img\"";
    assert!(said.contains(why), "{said}");
    let lines = asked
        .lines()
        .filter(|line| !line.starts_with("\"boot.img\"") && !line.starts_with("\"core.img\""));
    fs::write(&file, lines.map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    good(&mut command);
    images
}

#[test]
fn a_disk_with_sectors_of_4096_bytes_is_what_the_tools_expect() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let images = large_sectors(dir.path(), "raw,qcow2");
    for variant in ["raw", "qcow2"] {
        let said = good(
            pnb(repository(), &store())
                .arg("audit")
                .arg(images.join(variant).join("amd64")),
        );
        assert!(said.contains("all hold"), "{said}");
    }
    let disk = images.join("raw/amd64/disk.raw");
    let (said, _) = check(
        &[&disk, &images.join("qcow2/amd64/disk.qcow2")],
        "sfdisk --sector-size 4096 --verify /inputs/0
        sfdisk --sector-size 4096 -d /inputs/0 >dump; cat dump
        place() { sed -n \"s/.*start= *\\([0-9]*\\), size= *\\([0-9]*\\),.*name=\\\"$1\\\".*/\\1 \\2/p\" dump; }
        for name in powernode-esp powernode-root powernode-persist; do
            set -- $(place $name); test $# = 2
            dd if=/inputs/0 of=$name bs=4096 skip=$1 count=$2 conv=sparse status=none
        done
        fsck.fat -n -v powernode-esp; e2fsck -fn powernode-root; e2fsck -fn powernode-persist
        qemu-img compare -f raw -F qcow2 /inputs/0 /inputs/1",
    );
    for want in [
        "No errors detected.",
        "sector-size: 4096",
        "4096 bytes per logical sector",
        "256 hidden sectors",
        "Images are identical.",
    ] {
        assert!(said.contains(want), "{want} is not in:\n{said}");
    }
    assert!(!said.contains("powernode-bios"), "{said}");
    let said = bad(&mut boot(&disk, &["--firmware", "bios"]), 2);
    let why = "by BIOS: its partition table is for sectors of 4096 bytes, and a BIOS reads sectors of 512";
    assert!(said.contains(why) && said.contains("--firmware uefi"), "{said}");
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: a build, an installation and four boots; cargo test -- --ignored nightly::"]
    fn a_disk_with_sectors_of_4096_bytes_boots_and_is_installed() {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let images = large_sectors(dir.path(), "raw,iso");
        let ready = |said: &str| {
            for want in ["powernode: ready instance=none source=none", "firmware=uefi"] {
                assert!(said.contains(want), "{want} is not in:\n{said}");
            }
        };
        ready(&good_boot(&mut boot(
            &images.join("raw/amd64"),
            &["--firmware", "uefi"],
        )));

        let disk = dir.path().join("installed.raw");
        let words = "powernode.install=/dev/vda powernode.install.confirm=yes";
        let install = |sectors: &str| {
            let arguments = [
                "--firmware",
                "direct",
                "--append",
                words,
                "--size",
                "2GiB",
                "--sector-size",
                sectors,
            ];
            let mut command = boot(&images.join("iso/amd64"), &arguments);
            command.arg("--disk").arg(&disk);
            command
        };
        let said = bad(&mut install("512"), 9);
        let why = "/dev/vda has sectors of 512 bytes, and the image is for sectors of 4096";
        assert!(said.contains(why) && is_zero(&disk), "{said}");
        let said = good(&mut install("4096"));
        assert!(said.contains("powernode: installed: /dev/vda root="), "{said}");
        for boots in [1, 2] {
            let said = good(boot(&disk, &["--firmware", "uefi"]).arg("--keep").arg(&disk));
            ready(&said);
            assert!(
                said.contains("persist=ok") && said.contains(&format!("boots={boots}")),
                "{said}"
            );
        }
        let (said, _) = check(
            &[&disk],
            "sfdisk --sector-size 4096 --verify /inputs/0; sfdisk --sector-size 4096 -d /inputs/0",
        );
        assert!(said.contains("No errors detected."), "{said}");
        let persist = said
            .lines()
            .find(|line| line.contains("powernode-persist"))
            .expect("a partition");
        let sectors = persist.split("size=").nth(1).and_then(|rest| rest.split(',').next());
        let sectors: u64 = sectors
            .and_then(|s| s.trim().parse().ok())
            .expect("a number of sectors");
        assert!(sectors > (1 << 30) / 4096, "/persist was not grown: {sectors} sectors");
    }

    #[test]
    #[ignore = "nightly: three boots; cargo test -- --ignored nightly::"]
    fn the_other_disks_boot_by_bios_and_uefi() {
        for (variant, firmware) in [("raw", "bios"), ("raw", "uefi"), ("qcow2", "uefi")] {
            boots(variant, firmware, "disk");
        }
    }

    #[test]
    #[ignore = "nightly: four boots; cargo test -- --ignored nightly::"]
    fn the_medium_boots_as_cd_and_as_stick_by_the_other_firmware() {
        for (attach, firmware) in [
            ("cdrom", "bios"),
            ("cdrom", "secureboot"),
            ("usb", "uefi"),
            ("usb", "secureboot"),
        ] {
            boots("iso", firmware, attach);
        }
    }

    #[test]
    #[ignore = "nightly: two boots; cargo test -- --ignored nightly::"]
    fn the_network_boots_by_the_other_firmware() {
        for firmware in ["bios", "uefi"] {
            boots("ipxe", firmware, "net");
        }
    }

    #[test]
    #[ignore = "nightly: three boots; cargo test -- --ignored nightly::"]
    fn a_changed_disk_is_refused_or_fails_where_it_was_changed() {
        let original = images().join("raw/amd64/disk.raw");
        // The image names the object of each file in an attribute; EROFS keeps the prefix "trusted." as a number.
        let (_dir, disk) = copy_of(&original);
        flip(&disk, find(&disk, b"overlay.redirect") + 40);
        let said = bad(&mut boot(&disk, &["--firmware", "bios"]), 9);
        assert!(said.contains("powernode: refused: "), "{said}");

        // Without these a node hangs or does nothing, so they are read before it starts.
        let (_dir, disk) = copy_of(&original);
        let agent = fs::read(repository().join("agent/diagnostic/powernode-agent")).expect("there");
        flip(&disk, find(&disk, &agent) + 64);
        let said = bad(&mut boot(&disk, &["--firmware", "bios"]), 9);
        assert!(
            said.contains("powernode: refused: /usr/sbin/powernode-agent of the root is damaged"),
            "{said}"
        );

        // Any other file is an error where it is used: the unit that needs it fails, and the kernel says why.
        let (_dir, disk) = copy_of(&original);
        let resolved = fs::read(tree_of("rootfs").join("usr/lib/systemd/systemd-resolved")).expect("there");
        flip(&disk, find(&disk, &resolved[..4096]) + 2000);
        let said = good_boot(&mut boot(&disk, &["--firmware", "bios"]));
        assert!(said.contains("FILE CORRUPTED!"), "{said}");
        let failed = said
            .lines()
            .any(|l| l.contains("FAILED") && l.contains("systemd-resolved.service"));
        assert!(failed, "{said}");
    }
}
