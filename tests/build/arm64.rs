//! arm64, built on whatever machine runs the tests: every family is made and boots.

use crate::{project::*, tools::check};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Every arm64 artifact, built once: `<variant>/arm64`, with what is said of the platform.
pub(crate) fn images() -> &'static Path {
    static IMAGES: OnceLock<PathBuf> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let images = scratch().join("images-arm64");
        let _ = fs::remove_dir_all(&images);
        good(build_arm64(repository(), &store()).arg("--output").arg(&images));
        images
    })
}

fn build_arm64(project: &Path, store: &Path) -> Command {
    let mut command = pnb(project, store);
    command.args(["build", "--hermetic", "--allow-dirty", "--arch", "arm64"]);
    command
}

fn boot(path: &Path, arguments: &[&str]) -> Command {
    let mut command = pnb(repository(), &store());
    command
        .arg("boot")
        .arg(path)
        .args(["--timeout", &patience(900)])
        .args(arguments);
    command
}

/// Boots a variant to its ready line; the state that it reports must be that of the firmware.
fn boots(variant: &str, arguments: &[&str], state: &[&str]) {
    let said = good_boot(&mut boot(&images().join(variant).join("arm64"), arguments));
    for want in state {
        assert!(
            said.contains(want),
            "{variant} {arguments:?}: {want} is not in:\n{said}"
        );
    }
}

const UEFI: [&str; 4] = [
    "powernode: ready instance=",
    "agent=active",
    "lockdown=integrity",
    "firmware=uefi",
];

/// Under Secure Boot, which must be on.
fn boots_securely(variant: &str) {
    let state = [&UEFI[..], &["secure_boot=on"]].concat();
    boots(variant, &["--firmware", "secureboot"], &state);
}

#[test]
#[ignore = "long: arm64 is built, and a boot; cargo test -- --include-ignored"]
fn a_disk_boots_by_uefi() {
    boots("disk-image-arm64-uefi", &["--firmware", "uefi"], &UEFI);
}

#[test]
#[ignore = "long: arm64 is built, and a boot; cargo test -- --include-ignored"]
fn a_card_boots_in_qemus_raspberry_pi() {
    boots(
        "disk-image-rpi4",
        &[],
        &["powernode: ready instance=none", "agent=active", "lockdown=integrity"],
    );
}

#[test]
#[ignore = "long: arm64 is built; cargo test -- --include-ignored"]
fn one_root_is_in_all_of_them_and_its_packages_are_those_of_amd64() {
    let said = good(pnb(repository(), &store()).arg("audit").arg("-v").arg(images()));
    assert!(said.contains("variants"), "{said}");
    let versions = |images: &Path, arch: &str| {
        let path = images.join("kernel-initrd").join(arch).join("build-manifest.json");
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON");
        let packages = manifest["packages"].as_array().expect("packages").clone();
        let set = format!("rootfs/{arch}");
        let mut found: Vec<String> = packages
            .iter()
            .filter(|p| p["sets"].as_array().expect("sets").iter().any(|s| *s == set))
            // The same source; a rebuild for one architecture alone adds +b and a number to the version.
            .map(|p| {
                let name = p["name"].as_str().expect("text");
                let source = &p["source"];
                let of = |field: &str| source[field].as_str().expect("text");
                format!("{name}: {} {}", of("name"), of("version"))
            })
            .collect();
        found.sort();
        found
    };
    let arm64 = versions(images(), "arm64");
    assert!(arm64.len() > 50, "{arm64:?}");
    assert_eq!(arm64, versions(crate::project::images(), "amd64"));
}

#[test]
#[ignore = "long: arm64 is built; cargo test -- --include-ignored"]
fn the_formats_own_programs_find_nothing_to_say() {
    for (variant, file) in [
        ("raw", "disk.raw"),
        ("disk-image-arm64-uefi", "disk.img"),
        ("disk-image-rpi4", "disk.img"),
    ] {
        let image = images().join(variant).join("arm64").join(file);
        let (said, _) = check(
            &[&image],
            "sgdisk -v /inputs/0
            offset=$(sgdisk -i 1 /inputs/0 | sed -n 's/^First sector: \\([0-9]*\\).*/\\1/p')
            size=$(sgdisk -i 1 /inputs/0 | sed -n 's/^Partition size: \\([0-9]*\\).*/\\1/p')
            dd if=/inputs/0 of=/build/boot bs=512 skip=$offset count=$size status=none
            fsck.fat -n /build/boot
            mdir -/ -b -i /build/boot ::
            mtype -i /build/boot ::identity.cfg",
        );
        assert!(said.contains("No problems found"), "{variant}\n{said}");
        for want in ["::/powernode/vmlinuz", "ID=\n", "SERVER=\n"] {
            assert!(said.contains(want), "{variant}: {want:?} is not in:\n{said}");
        }
        if variant == "disk-image-rpi4" {
            for want in [
                "::/start4.elf",
                "::/fixup4.dat",
                "::/config.txt",
                "::/cmdline.txt",
                "::/bcm2711-rpi-4-b.dtb",
            ] {
                assert!(said.contains(want), "{want} is not in:\n{said}");
            }
        }
    }
}

#[test]
#[ignore = "long: arm64 is built; cargo test -- --include-ignored"]
fn what_is_said_of_the_platform_is_on_the_boot_partition_and_in_the_manifest() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    // Base64 of a DER SEQUENCE, which is as far as pnb looks.
    let pem = "-----BEGIN CERTIFICATE-----\nMAYCAQECAQI=\n-----END CERTIFICATE-----\n";
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, pem).expect("written");
    images();
    let mut command = build_arm64(repository(), &store());
    command.args([
        "--variant",
        "disk-image-arm64-uefi",
        "--platform-url",
        "https://platform.example:3000",
    ]);
    command
        .arg("--ca-pem")
        .arg(&ca)
        .arg("--output")
        .arg(dir.path().join("images"));
    good(&mut command);
    let artifact = dir.path().join("images/disk-image-arm64-uefi/arm64");
    let (said, _) = check(
        &[&artifact.join("disk.img")],
        "mtype -i /inputs/0@@1M ::identity.cfg
        mtype -i /inputs/0@@1M ::powernode-ca.pem",
    );
    for want in [
        "ID=\nKEY=\nSERVER=https://platform.example:3000\nCA_PEM_FILE=powernode-ca.pem\n",
        pem,
    ] {
        assert!(said.replace('\r', "").contains(want), "{want:?} is not in:\n{said}");
    }
    let manifest = fs::read(artifact.join("build-manifest.json")).expect("there");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["platform"]["url"], "https://platform.example:3000");
    good(pnb(repository(), &store()).arg("audit").arg(&artifact));
    let said = bad(
        build_arm64(repository(), &store()).args(["--platform-url", "https://a b"]),
        1,
    );
    assert!(said.contains("' '"), "{said}");
}

#[test]
#[ignore = "long: arm64 is built; cargo test -- --include-ignored"]
fn a_device_tree_that_the_kernel_lacks_is_refused_by_name() {
    images();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    let list = dir.path().join("stages/disk-image-rpi4/devicetrees");
    let text = fs::read_to_string(&list).expect("there");
    fs::write(&list, text.replace("bcm2711-rpi-400.dtb", "bcm2711-rpi-500.dtb")).expect("written");
    let mut command = pnb(dir.path(), &store());
    command.args(["build", "--arch", "arm64", "--variant", "disk-image-rpi4", "--output"]);
    let said = bad(command.arg(dir.path().join("images")), 7);
    assert!(
        said.contains("\"broadcom/bcm2711-rpi-500.dtb\"") && said.contains("the package linux-image has no such file"),
        "{said}"
    );
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: six boots; cargo test -- --ignored nightly::"]
    fn the_other_media_boot_by_uefi_and_secure_boot() {
        boots("raw", &["--firmware", "uefi"], &UEFI);
        boots_securely("raw");
        boots_securely("disk-image-arm64-uefi");
        boots("qcow2", &["--firmware", "uefi"], &UEFI);
        boots("iso", &["--firmware", "uefi", "--as", "cdrom"], &UEFI);
        boots("ipxe", &["--firmware", "uefi", "--as", "net"], &UEFI);
    }

    #[test]
    #[ignore = "nightly: arm64 is built, and a boot; cargo test -- --ignored nightly::"]
    fn kernel_and_initramfs_boot_directly() {
        let instance = format!("instance_uuid={INSTANCE}");
        let ready = format!("powernode: ready instance={INSTANCE} source=fw_cfg root=");
        boots("kernel-initrd", &["--fw-cfg", &instance], &[&ready, "agent=active"]);
    }

    /// Two runs of the maintainer scripts: with this machine's programs where they are allowed, and with every program emulated.
    #[test]
    #[ignore = "nightly: packages are configured under the emulator, twice; cargo test -- --ignored nightly::"]
    fn programs_of_this_machine_configure_a_root_as_emulated_ones_do() {
        let other = if cfg!(target_arch = "aarch64") {
            "amd64"
        } else {
            "arm64"
        };
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let emulated = dir.path().join("emulated");
        copy_of_project(&emulated);
        for stage in ["rootfs", "bootstrap"] {
            let path = emulated.join(format!("stages/{stage}/stage.toml"));
            let text = fs::read_to_string(&path).expect("there");
            let (lent, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("native = "));
            assert_eq!(lent.len(), 1, "{stage}");
            fs::write(path, rest.join("\n")).expect("written");
            let made = |project: &Path, natively: bool| {
                let mut command = pnb(project, &store());
                good(command.args([
                    "build",
                    "--hermetic",
                    "--allow-dirty",
                    "--arch",
                    other,
                    "--stage",
                    stage,
                ]));
                let node = format!("{stage}/{other}");
                let log = good(pnb(project, &store()).args(["log", &node]));
                assert_eq!(log.contains("programs run natively"), natively, "{node}:\n{log}");
                // The directory has the name of the tree's digest, which covers every name, byte, mode, owner and link.
                let path = good(pnb(project, &store()).args(["store", "path", &node]));
                PathBuf::from(path.trim()).file_name().expect("a digest").to_owned()
            };
            assert_eq!(made(repository(), true), made(&emulated, false), "{stage}");
        }
    }

    #[test]
    #[ignore = "nightly: tools run under the emulator; cargo test -- --ignored nightly::"]
    fn tools_of_another_architecture_make_the_same() {
        let other = if cfg!(target_arch = "aarch64") {
            "amd64"
        } else {
            "arm64"
        };
        let made = |tools: &[&str]| {
            let mut command = pnb(repository(), &store());
            good(
                command
                    .args([
                        "build",
                        "--hermetic",
                        "--allow-dirty",
                        "--arch",
                        "amd64",
                        "--stage",
                        "grub-bios",
                    ])
                    .args(tools),
            );
            ["boot.img", "core.img", "eltorito.img"].map(|output| {
                let mut command = pnb(repository(), &store());
                let path = good(command.args(["store", "path", "grub-bios/amd64", "--output", output]));
                fs::read(path.trim()).expect(output)
            })
        };
        let own = made(&[]);
        assert!(own == made(&["--tools", other]), "other tools made other bytes");
    }
}
