//! The part of a Raspberry Pi 4's firmware, against `dtc` and `fdtput`.

#[path = "fixture/disks.rs"]
mod disks;
#[path = "fixture/tools.rs"]
mod tools;

use disks::{Files, fat, gpt_disk};
use pnb::{
    boot::{
        Loaders,
        raspi::{Card, DEVICE_TREE, INITRAMFS, KERNEL},
    },
    image::{
        Source,
        fat::FatKind,
        gpt::types,
        mbr::{Mbr, MbrPartition, SECTOR},
    },
    inspect::SpoolDirectory,
};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};
use tools::check;

/// Of the board's device tree: what the emulated machine differs in, and something beside each of it.
const TREE: &str = r#"/dts-v1/;
/memreserve/ 0x0 0x1000;
/ {
    compatible = "raspberrypi,4-model-b", "brcm,bcm2711";
    #address-cells = <2>;
    #size-cells = <1>;
    emmc2bus {
        mmc@7e340000 { status = "okay"; vqmmc-supply = <&io>; };
    };
    soc {
        clock@7ef00000 { #clock-cells = <1>; };
        interrupt-controller@7ef00100 { status = "okay"; };
        i2c@7ef04500 { reg = <0x7ef04500 0x100>; };
        i2c@7ef09500 { };
        hdmi@7ef00700 { reg-names = "hdmi", "dvp"; };
        hdmi@7ef05700 { status = "okay"; child { a = [01 02 03]; }; };
        mmc@7e300000 {
            mmc-pwrseq = <&power>;
            non-removable;
            bus-width = <4>;
            wifi@1 { reg = <1>; };
        };
        serial@7e201000 { status = "okay"; };
    };
    power: wifi-pwrseq { compatible = "mmc-pwrseq-simple"; };
    io: regulator { };
};
"#;

/// The changes, as they are made by hand.
const BY_HAND: &str = "
    cp /inputs/0 tree.dtb
    for node in clock@7ef00000 interrupt-controller@7ef00100 i2c@7ef04500 i2c@7ef09500 hdmi@7ef00700 hdmi@7ef05700; do
        fdtput -t s tree.dtb /soc/$node status disabled
    done
    fdtput -t s tree.dtb /emmc2bus/mmc@7e340000 status disabled
    fdtput -t s tree.dtb /soc/mmc@7e300000 status okay
    fdtput -d tree.dtb /soc/mmc@7e300000 mmc-pwrseq non-removable
    fdtput -r tree.dtb /soc/mmc@7e300000/wifi@1
    fdtput -t s tree.dtb /wifi-pwrseq status disabled
    # Properties have no order.
    for tree in tree.dtb /inputs/1 /inputs/2 /inputs/3; do
        dtc -q -s -I dtb -O dts $tree >out/${tree##*/}
    done
";

/// A disk with a master boot record and one partition of FAT32.
fn mbr_disk(content: &[u8]) -> Vec<u8> {
    let first = 2048;
    let record = Mbr {
        boot_code: [0; _],
        signature: 1,
        partitions: vec![MbrPartition {
            slot: 0,
            active: false,
            kind: 0x0c,
            first_lba: first,
            sectors: (content.len() as u64 / SECTOR) as u32,
        }],
    };
    let mut disk = vec![0; first as usize * SECTOR as usize];
    disk[..SECTOR as usize].copy_from_slice(&record.to_bytes());
    disk.extend(content);
    disk
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The flattened tree.
fn tree(dir: &Path) -> Vec<u8> {
    let source = dir.join("tree.dts");
    fs::write(&source, TREE).expect("written");
    let (_, mut made) = check(&[&source], "dtc -q -O dtb -o out/tree.dtb /inputs/0");
    made.remove("tree.dtb").expect("made")
}

fn kernel() -> Vec<u8> {
    let mut kernel = vec![0; 4096];
    kernel[56..60].copy_from_slice(b"ARM\x64");
    kernel
}

/// What a card needs, beside a device tree.
fn boot_files(tree: &[u8]) -> Files {
    let files: [(&str, &[u8]); 7] = [
        ("START4.ELF", b"firmware"),
        ("fixup4.dat", b"fixup"),
        (
            "config.txt",
            b"[pi4]\narm_64bit=1\nkernel=vmlinuz\ninitramfs one,two followkernel\n",
        ),
        ("cmdline.txt", b"powernode.boot=1 console=tty1 console=ttyAMA0,115200\n"),
        ("bcm2711-rpi-4-b.dtb", tree),
        ("one", b"first "),
        ("two", b"second"),
    ];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
    let mut files = Files::from(files);
    files.insert("vmlinuz".to_owned(), kernel());
    files
}

fn load(card: Vec<u8>, to: &Path) -> Result<String, String> {
    let source: Source = Arc::new(card);
    let card = Card::open(&source, "card", &SpoolDirectory::new(to));
    card.and_then(|card| card.load(to)).map_err(|e| e.to_string())
}

#[test]
fn a_card_is_loaded_as_the_firmware_would_but_for_what_is_not_emulated() {
    let dir = tempfile::tempdir().expect("scratch");
    let files = boot_files(&tree(dir.path()));
    let boot = fat(FatKind::Fat16, &files);
    let from = dir.path().join("from.dtb");
    fs::write(&from, &files["bcm2711-rpi-4-b.dtb"]).expect("written");
    let gpt = gpt_disk(&[("x", types::LINUX_DATA, &[1; 512]), ("boot", types::EFI_SYSTEM, &boot)]);
    // An image that was made longer has the backup of its table in the middle.
    let longer = [gpt.clone(), vec![0; 1 << 20]].concat();
    let loaded = [gpt, longer, mbr_disk(&boot)].map(|card| {
        let to = tempfile::tempdir().expect("scratch");
        let line = load(card, to.path()).expect("a card");
        assert_eq!(line, "powernode.boot=1 console=ttyAMA0,115200");
        assert_eq!(fs::read(to.path().join(KERNEL)).expect("there"), files["vmlinuz"]);
        assert_eq!(fs::read(to.path().join(INITRAMFS)).expect("there"), b"first second");
        to
    });
    let [gpt, longer, mbr] = loaded.each_ref().map(|to| to.path().join(DEVICE_TREE));
    let (_, sorted) = check(&[&from, &gpt, &longer, &mbr], BY_HAND);
    for number in ["1", "2", "3"] {
        assert_eq!(
            String::from_utf8_lossy(&sorted[number]),
            String::from_utf8_lossy(&sorted["tree.dtb"])
        );
    }
}

#[test]
fn autoboot_txt_names_the_boot_partition() {
    let dir = tempfile::tempdir().expect("scratch");
    let whole = boot_files(&tree(dir.path()));
    let boot = fat(FatKind::Fat16, &whole);
    let card = |autoboot: &str| {
        let mut files = Files::new();
        files.insert("AUTOBOOT.TXT".to_owned(), autoboot.as_bytes().to_vec());
        let first = fat(FatKind::Fat16, &files);
        let data = ("data", types::LINUX_DATA, &[1; 512][..]);
        gpt_disk(&[
            ("first", types::BASIC_DATA, &first),
            data,
            ("boot", types::BASIC_DATA, &boot),
        ])
    };
    let load = |autoboot: &str| load(card(autoboot), tempfile::tempdir().expect("scratch").path());
    let chosen = "[all]\r\ntryboot_a_b=1\r\nboot_partition=3\r\n[tryboot]\r\nboot_partition=2\r\n";
    assert_eq!(load(chosen).as_deref(), Ok("powernode.boot=1 console=ttyAMA0,115200"));
    for (autoboot, why) in [
        (
            "boot_partition=4\n",
            "load autoboot.txt of \"card\": it names partition 4, which the card lacks",
        ),
        ("boot_partition=2\n", "load autoboot.txt of \"card\": read a FAT image"),
        ("[pi3]\nboot_partition=3\n", "load config.txt"),
        (&"#".repeat(513), "it has 513 bytes, more than 512"),
    ] {
        let problem = load(autoboot).expect_err(why);
        assert!(problem.contains(why), "{problem}");
    }
}

#[test]
fn inspect_shows_what_the_firmware_takes_and_lacks() {
    let mut files = boot_files(b"tree");
    files.remove("two");
    files.remove("START4.ELF");
    let config = "INCLUDE\r\n[pi3]\r\nkernel=other\r\ndtoverlay=other\r\n[all]\r\nkernel=vmlinuz\r\ninclude more.txt\r\n\
                  dtparam=audio=on\r\ninitramfs one,two followkernel\r\n";
    files.insert("config.txt".to_owned(), config.as_bytes().to_vec());
    files.insert("more.txt".to_owned(), b"dtoverlay=vc4-kms-v3d,cma-128\n".to_vec());
    let volume: Source = Arc::new(fat(FatKind::Fat16, &files));
    let dir = tempfile::tempdir().expect("scratch");
    let look = pnb::inspect::open(volume, "x")
        .expect("in memory")
        .look(&SpoolDirectory::new(dir.path()));
    assert_eq!(look.problem, None);
    let shown = |name: &str| look.fields.get(&format!("Raspberry Pi 4 {name}")).map(String::as_str);
    for (name, want) in [
        ("firmware", Some("start4.elf, fixup4.dat")),
        ("kernel", Some("vmlinuz")),
        ("initramfs", Some("one, two")),
        ("device tree", Some("bcm2711-rpi-4-b.dtb")),
        ("command line", Some("cmdline.txt")),
        ("overlays", Some("dtoverlay=vc4-kms-v3d,cma-128, dtparam=audio=on")),
        ("lacks", Some("start4.elf, two")),
        ("files", None),
    ] {
        assert_eq!(shown(name), want, "{name}: {:?}", look.fields);
    }
}

#[test]
fn a_card_that_a_board_would_not_start_is_refused_by_the_file() {
    let dir = tempfile::tempdir().expect("scratch");
    let whole = boot_files(&tree(dir.path()));
    let config = |text: &str| Some(text.as_bytes().to_vec());
    for (file, content, why) in [
        (
            "config.txt",
            None,
            "load config.txt of \"card\": the boot partition does not have it",
        ),
        ("START4.ELF", None, "load start4.elf"),
        ("fixup4.dat", None, "load fixup4.dat"),
        ("vmlinuz", None, "load vmlinuz"),
        ("two", None, "load two"),
        ("bcm2711-rpi-4-b.dtb", None, "load bcm2711-rpi-4-b.dtb"),
        ("cmdline.txt", None, "load cmdline.txt"),
        ("vmlinuz", Some(vec![0; 4096]), "neither an Image of an arm64 kernel"),
        ("vmlinuz", Some(vec![0; 3]), "neither an Image of an arm64 kernel"),
        ("bcm2711-rpi-4-b.dtb", Some(vec![7; 4096]), "it ends after"),
        ("bcm2711-rpi-4-b.dtb", Some(vec![0; 2 << 20]), "more than 1048576"),
        ("cmdline.txt", config("a\nb\n"), "more than one line"),
        ("cmdline.txt", config("a\0b"), "0x00"),
        ("config.txt", config("kernel=vmlinuz\n"), "it names no initramfs"),
        ("config.txt", config("arm_64bit=0\n"), "32-bit"),
        ("config.txt", config("include more.txt\n"), "load more.txt"),
        ("config.txt", config("kernel=../etc\ninitramfs one\n"), "\"..\""),
        (
            "config.txt",
            config("device_tree=\ninitramfs one\n"),
            "device_tree= is empty",
        ),
        ("config.txt", config(&"x".repeat(70_000)), "more than 65536"),
    ] {
        let mut files = whole.clone();
        match content {
            Some(content) => files.insert(file.to_owned(), content),
            None => files.remove(file),
        };
        let to = tempfile::tempdir().expect("scratch");
        let problem = load(mbr_disk(&fat(FatKind::Fat16, &files)), to.path()).expect_err(why);
        assert!(problem.contains(why), "{file}: {why:?} is not in: {problem}");
    }
    let to = tempfile::tempdir().expect("scratch");
    for (card, why) in [
        (
            gpt_disk(&[("x", types::LINUX_DATA, &[1; 4096])]),
            "it is GPT disk, without a FAT partition",
        ),
        (vec![0; 4096], "it is data, without a FAT partition"),
        (Vec::new(), "without a FAT partition"),
    ] {
        let problem = load(card, to.path()).expect_err(why);
        assert!(problem.contains(why), "{why:?} is not in: {problem}");
    }
}

#[test]
fn a_medium_says_by_its_loaders_which_machines_it_is_for() {
    let dir = tempfile::tempdir().expect("scratch");
    let disk = |names: &[&str]| {
        let files = names.iter().map(|name| ((*name).to_owned(), b"x".to_vec())).collect();
        gpt_disk(&[("boot", types::EFI_SYSTEM, &fat(FatKind::Fat16, &files))])
    };
    let loaders = |disk: Vec<u8>| {
        let source: Source = Arc::new(disk);
        Loaders::of(&source, "disk", &SpoolDirectory::new(dir.path())).expect("a size")
    };
    let (amd64, arm64) = ("EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTAA64.EFI");
    for (names, want) in [
        (&[amd64][..], (true, false, false)),
        (&[arm64], (false, true, false)),
        (&["efi/boot/bootaa64.efi"], (false, true, false)),
        (&[amd64, arm64, "config.txt"], (true, true, true)),
        (&["config.txt"], (false, false, true)),
        (&["else"], (false, false, false)),
    ] {
        let found = loaders(disk(names));
        assert_eq!((found.amd64, found.arm64, found.raspberry_pi), want, "{names:?}");
        assert_eq!(found.is_card(), want == (false, false, true), "{names:?}");
        let longer = [disk(names), vec![0; 5 << 20]].concat();
        assert_eq!(loaders(longer), found, "{names:?}");
    }
    assert_eq!(loaders(b"nothing".to_vec()), Loaders::default());
}

fn boot(image: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("--store").arg(image.with_file_name("store"));
    let done = command.arg("boot").arg(image).args(arguments).output();
    done.expect("pnb starts")
}

#[test]
fn what_the_machine_of_an_image_does_not_have_is_said_at_once() {
    let dir = tempfile::tempdir().expect("scratch");
    let path = |name: &str| dir.path().join(name);
    let boot_partition = fat(FatKind::Fat16, &boot_files(&tree(dir.path())));
    fs::write(path("card.img"), mbr_disk(&boot_partition)).expect("written");
    let loader = Files::from([("EFI/BOOT/BOOTAA64.EFI".to_owned(), Vec::new())]);
    fs::write(path("arm64.raw"), mbr_disk(&fat(FatKind::Fat16, &loader))).expect("written");
    let both = Files::from(["EFI/BOOT/BOOTAA64.EFI", "EFI/BOOT/BOOTX64.EFI"].map(|n| (n.to_owned(), Vec::new())));
    fs::write(path("both.raw"), mbr_disk(&fat(FatKind::Fat16, &both))).expect("written");
    fs::write(path("kept.img"), vec![0; 3 << 20]).expect("written");
    fs::write(path("disk.qcow2"), vec![0; 3 << 20]).expect("written");
    let (kept, new) = (path("kept.img"), path("new.img"));
    for (image, arguments, why) in [
        (
            "card.img",
            &["--fw-cfg", "instance_uuid=x"][..],
            "it has no fw_cfg; write identity.cfg",
        ),
        ("card.img", &["--share", "."], "it has no 9p"),
        ("card.img", &["--disk", "x.raw"], "it has no second disk"),
        ("card.img", &["--memory", "1024"], "it has 2048 MiB"),
        ("card.img", &["--as", "usb"], "it can be booted as card"),
        (
            "card.img",
            &["--keep", text(&new), "--size", "100MiB"],
            "hint: give --size 134217728",
        ),
        ("card.img", &["--keep", text(&kept)], "use a card of 3145728 bytes"),
        ("arm64.raw", &["--firmware", "bios"], "no arm64 machine has a BIOS"),
        (
            "arm64.raw",
            &["--append", "x"],
            "--firmware direct takes kernel and initramfs off the medium",
        ),
        ("both.raw", &[], "it has boot loaders for amd64 and for arm64"),
        (
            "card.img",
            &["--firmware", "rpi4", "--arch", "amd64"],
            "a Raspberry Pi is an arm64 machine",
        ),
        (
            "disk.qcow2",
            &["--firmware", "rpi4"],
            "--firmware rpi4 boots the card of a Raspberry Pi only",
        ),
    ] {
        let done = boot(&path(image), arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{image} {arguments:?}: {said}");
        assert!(said.contains(why), "{image} {arguments:?}: {why:?} is not in: {said}");
    }
    assert!(!new.exists(), "a refused card was made");
    let done = boot(&path("arm64.raw"), &["--firmware", "rpi4"]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(9), "{said}");
    assert!(said.contains("load config.txt"), "{said}");
}
