//! Machines of arm64 boot what is put together here by hand, in the shape of the artifacts: Debian's own kernel and boot loaders,
//! and an initramfs that says where it woke up. What the artifacts of arm64 add to that is their own initramfs and root.

use crate::{
    disks::{Files, fat, gpt_disk},
    project::*,
};
use pnb::{
    image::{cpio::CpioWriter, fat::Kind, gpt::types},
    manifest::Manifest,
    model::{Arch, Epoch, Meta, RelPath, Variant, VerityDigest},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The first program: says what it finds, and what a node says.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs none /dev
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t securityfs none /sys/kernel/security
say() { echo "test: $*"; }
say "command line $($b cat /proc/cmdline)"
say "board $($b tr -d '\000' </proc/device-tree/model)"
for module in /modules/*; do $b insmod "$module"; done
for try in 1 2 3 4 5 6 7 8 9 10; do
    parts=$($b sed -n 's/^PARTNAME=//p' /sys/class/block/*/uevent)
    [ -z "$parts" ] || break
    $b sleep 0.5
done
say "partitions" $parts
secure=off
! $b dmesg | $b grep -q 'secureboot: Secure boot enabled' || secure=on
firmware=bios
[ ! -d /sys/firmware/efi ] || firmware=uefi
locked=$($b sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/security/lockdown)
echo "powernode: state lockdown=$locked secure_boot=$secure firmware=$firmware persist=none"
echo "powernode: ready instance=none source=none root=@ROOT@ agent=active"
$b sleep 600
"#;
/// What it loads, in this order.
const MODULES: [&str; 4] = [
    "block/virtio_blk",
    "mmc/host/sdhci",
    "mmc/host/sdhci-pltfm",
    "mmc/host/sdhci-iproc",
];
const LIBRARIES: [&str; 3] = ["ld-linux-aarch64.so.1", "libc.so.6", "libresolv.so.2"];
const COMMAND_LINE: &str = "lockdown=integrity console=tty1 console=ttyAMA0,115200";
/// The menu of a disk.
const MENU: &str = "set timeout=0
menuentry test {
    linux /powernode/vmlinuz @COMMAND_LINE@
    initrd /powernode/initramfs.cpio.zst
}
";

/// The tree of a stage for arm64.
fn tree(stage: &str) -> PathBuf {
    good(pnb(repository(), &store()).args(["build", "--arch", "arm64", "--stage", stage]));
    let node = format!("{stage}/arm64");
    let path = good(pnb(repository(), &store()).args(["store", "path", &node]));
    PathBuf::from(path.trim())
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let name = path.as_ref().to_string_lossy();
    fs::read(path.as_ref()).expect(&name)
}

/// What all machines are started with.
struct Parts {
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    device_tree: Vec<u8>,
    loaders: PathBuf,
}

fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let (kernel, programs) = (tree("kernel-package"), tree("initramfs-root"));
        #[expect(clippy::disallowed_methods, reason = "there is one directory in it")]
        let mut versions = fs::read_dir(kernel.join("usr/lib/modules")).expect("readable");
        let version = versions.next().expect("a kernel").expect("readable").file_name();
        let version = version.into_string().expect("UTF-8");
        let mut files = Files::new();
        files.insert("bin/busybox".to_owned(), read(programs.join("usr/bin/busybox")));
        for name in LIBRARIES {
            let library = programs.join("usr/lib/aarch64-linux-gnu").join(name);
            files.insert(format!("lib/{name}"), read(library));
        }
        let drivers = kernel.join("usr/lib/modules").join(&version).join("kernel/drivers");
        for (n, name) in MODULES.iter().enumerate() {
            let module = read(drivers.join(format!("{name}.ko.xz")));
            files.insert(format!("modules/{n}.ko.xz"), module);
        }
        let init = INIT.replace("@ROOT@", &"0".repeat(64));
        files.insert("init".to_owned(), init.into_bytes());
        let trees = kernel.join(format!("usr/lib/linux-image-{version}/broadcom"));
        Parts {
            kernel: read(kernel.join(format!("boot/vmlinuz-{version}"))),
            initramfs: initramfs(&files),
            device_tree: read(trees.join("bcm2711-rpi-4-b.dtb")),
            loaders: tree("boot-loaders"),
        }
    })
}

fn initramfs(files: &Files) -> Vec<u8> {
    let meta = Meta::root(0o755, Epoch::new(0));
    let path = |text: &str| text.parse::<RelPath>().expect("a path");
    let mut archive = CpioWriter::new(Vec::new());
    for name in ["bin", "dev", "lib", "modules", "proc", "sys"] {
        archive.directory(&path(name), &meta).expect("new");
    }
    for (name, bytes) in files {
        let size = bytes.len() as u64;
        archive.file(&path(name), &meta, size, &mut &bytes[..]).expect("new");
    }
    zstd::encode_all(&archive.finish().expect("whole")[..], 1).expect("zstd")
}

/// Boots an image and looks for lines on its console.
fn boots(path: &Path, arguments: &[&str], wanted: &[&str]) {
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(path).args(["--timeout", "400"]).args(arguments);
    let said = good_boot(&mut command);
    for want in wanted {
        assert!(said.contains(want), "{arguments:?}: {want:?} is not in:\n{said}");
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("below dir")).expect("made");
    fs::write(&path, bytes).expect("written");
    path
}

/// A disk with shim, GRUB, kernel and initramfs.
fn disk() -> Vec<u8> {
    let parts = parts();
    let loader = |path: &str| read(parts.loaders.join("usr/lib").join(path));
    let menu = MENU.replace("@COMMAND_LINE@", COMMAND_LINE);
    let files = [
        ("EFI/BOOT/BOOTAA64.EFI", loader("shim/shimaa64.efi.signed")),
        (
            "EFI/BOOT/grubaa64.efi",
            loader("grub/arm64-efi-signed/grubaa64.efi.signed"),
        ),
        ("EFI/BOOT/mmaa64.efi", loader("shim/mmaa64.efi.signed")),
        ("EFI/debian/grub.cfg", menu.into_bytes()),
        ("powernode/vmlinuz", parts.kernel.clone()),
        ("powernode/initramfs.cpio.zst", parts.initramfs.clone()),
    ];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes));
    let esp = fat(Kind::Fat32, &Files::from(files));
    gpt_disk(&[("powernode-esp", types::EFI_SYSTEM, &esp)])
}

/// An ISO file system with the EFI image of a disk's loaders, as xorriso of the machine that tests makes it.
fn iso(dir: &Path) -> PathBuf {
    let parts = parts();
    let loader = |path: &str| read(parts.loaders.join("usr/lib").join(path));
    let menu = MENU.replace("@COMMAND_LINE@", COMMAND_LINE);
    let menu = format!("search --no-floppy --set=root --file /powernode/vmlinuz\n{menu}");
    let efi = Files::from([
        ("EFI/BOOT/BOOTAA64.EFI".to_owned(), loader("shim/shimaa64.efi.signed")),
        (
            "EFI/BOOT/grubaa64.efi".to_owned(),
            loader("grub/arm64-efi-signed/grubaa64.efi.signed"),
        ),
        ("EFI/debian/grub.cfg".to_owned(), menu.into_bytes()),
    ]);
    let tree = dir.join("tree");
    write(&tree, "powernode/vmlinuz", &parts.kernel);
    write(&tree, "powernode/initramfs.cpio.zst", &parts.initramfs);
    for (name, bytes) in &efi {
        write(&tree, name, bytes);
    }
    write(&tree, "efi.img", &fat(Kind::Fat16, &efi));
    let image = dir.join("arm64.iso");
    let mut xorriso = Command::new("xorriso");
    xorriso.args([
        "-as",
        "mkisofs",
        "-R",
        "-V",
        "TEST",
        "-e",
        "efi.img",
        "-no-emul-boot",
        "-o",
    ]);
    good(xorriso.arg(&image).arg(&tree));
    image
}

/// The directory of an artifact of arm64: these files, and a manifest that says what is in them.
fn artifact_of(dir: &Path, variant: Variant, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        write(dir, name, bytes);
    }
    let name = "build-manifest.json";
    let mut manifest = Manifest::read(&read(artifact().join(name)), name).expect("a manifest");
    manifest.arch = Arch::Arm64;
    manifest.variants = vec![variant];
    manifest.kernel_command_line = COMMAND_LINE.to_owned();
    manifest.fsverity_root_hash = VerityDigest::new([0; 32]);
    write(dir, name, manifest.to_json().expect("integers only").as_bytes());
}

/// The card of a Raspberry Pi. Its firmware is not there, but for the names: nothing here runs it.
fn card() -> Vec<u8> {
    let parts = parts();
    let config = "[all]\narm_64bit=1\nenable_uart=1\nupstream_kernel=1\nkernel=vmlinuz\ninitramfs initramfs.cpio.zst followkernel\n";
    let files = [
        ("start4.elf", Vec::new()),
        ("fixup4.dat", Vec::new()),
        ("config.txt", config.as_bytes().to_vec()),
        ("cmdline.txt", format!("{COMMAND_LINE}\n").into_bytes()),
        ("bcm2711-rpi-4-b.dtb", parts.device_tree.clone()),
        ("vmlinuz", parts.kernel.clone()),
        ("initramfs.cpio.zst", parts.initramfs.clone()),
    ];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes));
    let boot = fat(Kind::Fat32, &Files::from(files));
    gpt_disk(&[
        ("powernode-esp", types::EFI_SYSTEM, &boot),
        ("powernode-root", types::LINUX_DATA, &[0; 4096]),
    ])
}

#[test]
fn a_raspberry_pi_card_boots_and_the_kernel_finds_it() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let card = card();
    assert!(!card.len().is_power_of_two(), "{} bytes need not grow", card.len());
    let image = write(dir.path(), "card.img", &card);
    boots(
        &image,
        &["--append", "more=words"],
        &[
            "test: board Raspberry Pi 4 Model B",
            "test: command line lockdown=integrity console=ttyAMA0,115200 more=words",
            "test: partitions powernode-esp powernode-root",
            "state lockdown=integrity secure_boot=off firmware=bios",
        ],
    );
    if !all() {
        return;
    }
    let kept = dir.path().join("kept.img");
    let keep = ["--keep", kept.to_str().expect("UTF-8"), "--size", "256MiB"];
    boots(&image, &keep, &["test: partitions powernode-esp powernode-root"]);
    assert_eq!(fs::metadata(&kept).expect("made").len(), 256 << 20);
}

#[test]
fn an_arm64_disk_boots_under_secure_boot() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let image = write(dir.path(), "disk.img", &disk());
    boots(
        &image,
        &["--firmware", "secureboot"],
        &[
            "test: partitions powernode-esp",
            "state lockdown=integrity secure_boot=on firmware=uefi",
        ],
    );
    if !all() {
        return;
    }
    boots(&image, &["--as", "usb"], &["secure_boot=off firmware=uefi"]);
    let kernel = &parts().kernel;
    let place = memchr::memmem::find(&read(&image), &kernel[..4096]).expect("it is in there");
    flip(&image, (place + kernel.len() / 2) as u64);
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(&image).args(["--firmware", "secureboot"]);
    let said = bad(&mut command, 9);
    assert!(said.contains("bad shim signature"), "{said}");
}

#[test]
fn an_arm64_medium_boots_as_cd() {
    if !all() {
        return;
    }
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let image = iso(dir.path());
    boots(&image, &[], &["secure_boot=off firmware=uefi"]);
    boots(&image, &["--firmware", "secureboot"], &["secure_boot=on firmware=uefi"]);
}

#[test]
fn arm64_boots_directly_and_over_a_network() {
    if !all() {
        return;
    }
    let parts = parts();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let (kernel, initramfs) = (parts.kernel.clone(), parts.initramfs.clone());
    let files = [("kernel", kernel), ("initramfs.cpio.zst", initramfs)];
    artifact_of(dir.path(), Variant::KernelInitrd, &files);
    boots(
        dir.path(),
        &["--append", "more=words"],
        &["console=ttyAMA0,115200 more=words", "firmware=bios"],
    );

    let loader = |path: &str| read(parts.loaders.join("usr/lib").join(path));
    let scripts = repository().join("stages/ipxe/files");
    let filled = |name: &str, words: &str| {
        let text = fs::read_to_string(scripts.join(name)).expect("there");
        text.replace("@COMMAND_LINE@", words).into_bytes()
    };
    let ipxe = format!("{COMMAND_LINE} initrd=initramfs.cpio.zst");
    artifact_of(
        dir.path(),
        Variant::Ipxe,
        &[
            ("boot.ipxe", filled("boot.ipxe", &ipxe)),
            ("autoexec.ipxe", filled("autoexec.ipxe", "")),
            ("ipxe.efi", loader("ipxe/ipxe-arm64.efi")),
            ("grub/grub.cfg", filled("grub.cfg", COMMAND_LINE)),
            ("secureboot/shimaa64.efi", loader("shim/shimaa64.efi.signed")),
            (
                "secureboot/grubaa64.efi",
                loader("grub/arm64-efi-signed/grubnetaa64.efi.signed"),
            ),
        ],
    );
    for (firmware, secure) in [("uefi", "off"), ("secureboot", "on")] {
        let state = format!("secure_boot={secure} firmware=uefi");
        boots(dir.path(), &["--firmware", firmware], &[&state]);
    }
}
