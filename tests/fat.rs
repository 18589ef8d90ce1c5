//! FAT volumes against dosfstools and mtools, which must be installed.

use pnb::{
    image::{
        ReadAt, ReadCursor,
        fat::{self, Fat, FatItem, FatKind, FatVolume, VolumeSize, plan},
    },
    model::{Epoch, RelPath},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Cursor, Read},
    path::Path,
    process::Command,
};

/// Where the volume begins in its file.
const AT: u64 = 1 << 20;

fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(args)
        .envs([("TZ", "UTC"), ("LC_ALL", "C.UTF-8"), ("MTOOLSRC", "/dev/null")])
        .output()
        .expect("the Debian packages dosfstools and mtools must be installed");
    let text = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&text));
    output.stdout
}

fn path(text: &str) -> RelPath {
    text.parse().expect("valid")
}

fn sample() -> BTreeMap<RelPath, Vec<u8>> {
    let names = [
        "EFI/BOOT/BOOTX64.EFI",
        "EFI/BOOT/grubx64.efi",
        "EFI/debian/grub.cfg",
        "bcm2711-rpi-4-b.dtb",
        "bcm2711-rpi-cm4.dtb",
        "config.txt",
        "identity.cfg",
        "powernode/kernel",
        "überlang and more than thirteen.txt",
    ];
    let sizes = [954_000, 2_660_000, 300, 56_000, 57_000, 512, 0, 9_000_001, 1];
    let content = |size: usize| (0..size).map(|i| (i * i / 7 + size) as u8).collect();
    let mut files: BTreeMap<_, Vec<u8>> = names.into_iter().map(path).zip(sizes.map(content)).collect();
    for i in 0..200 {
        files.insert(path(&format!("overlays/overlay number {i}.dtbo")), vec![i as u8; i]);
    }
    files
}

fn make(file: &Path, volume: &FatVolume, files: &BTreeMap<RelPath, Vec<u8>>) -> fat::FatSummary {
    let items = files
        .iter()
        .map(|(p, b)| (p.clone(), FatItem::File { size: b.len() as u32 }));
    let mut items: BTreeMap<_, _> = items.collect();
    items.insert(path("empty directory"), FatItem::Directory);
    let layout = plan(volume, &items).expect("fits");
    let mut out = File::create_new(file).expect("new");
    out.set_len(AT + layout.size()).expect("sparse");
    let open = |path: &RelPath| -> std::io::Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(files[path].clone()))) };
    fat::write(&layout, AT, &open, &mut out).expect("written")
}

#[test]
fn fsck_and_mtools_find_what_was_written() {
    let scratch = tempfile::tempdir().expect("scratch");
    let files = sample();
    for (name, kind, size) in [
        ("fat16", FatKind::Fat16, VolumeSize::Content { spare: 1 << 20 }),
        ("fat16 of 2 KiB", FatKind::Fat16, VolumeSize::Sectors(100 << 11)),
        ("fat16 of 65535 sectors", FatKind::Fat16, VolumeSize::Sectors(65_535)),
        ("fat32", FatKind::Fat32, VolumeSize::Content { spare: 0 }),
        (
            "fat32 of 1 KiB",
            FatKind::Fat32,
            VolumeSize::Content { spare: 60 << 20 },
        ),
        ("fat32 of 4 KiB", FatKind::Fat32, VolumeSize::Sectors((512 << 11) + 3)),
    ] {
        let volume = FatVolume {
            kind,
            label: "POWERNODE".to_owned(),
            serial: 0x50e4_0d1e,
            epoch: Epoch::new(1_750_000_000),
            hidden_sectors: (AT / 512) as u32,
            size,
        };
        let disk = scratch.path().join(name);
        let written = make(&disk, &volume, &files);

        let plain = scratch.path().join("plain");
        let (disk, plain) = (disk.to_str().expect("UTF-8"), plain.to_str().expect("UTF-8"));
        run("cp", &["--sparse=always", disk, plain]);
        run(
            "fallocate",
            &["--collapse-range", "--offset", "0", "--length", "1048576", plain],
        );
        let verdict = String::from_utf8(run("fsck.fat", &["-n", "-v", plain])).expect("text");
        for wrong in [
            "differ",
            "wrong",
            "rror",
            "nvalid",
            "Free cluster summary",
            "Reclaim",
            "boot sector and its",
        ] {
            assert!(!verdict.contains(wrong), "{name}: {wrong}\n{verdict}");
        }
        assert!(
            verdict.contains(&format!("{} hidden sectors", AT / 512)),
            "{name}: {verdict}"
        );
        assert!(verdict.contains("files, "), "{name}: {verdict}");

        let image = format!("{disk}@@{AT}");
        let label = String::from_utf8(run("mdir", &["-i", &image, "-/", "-a", "::"])).expect("text");
        assert!(label.contains("is POWERNODE"), "{name}: {label}");
        assert!(label.contains("Volume Serial Number is 50E4-0D1E"), "{name}: {label}");
        assert!(label.contains("2025-06-15  15:06"), "{name}: {label}");
        let copy = scratch.path().join(format!("{name} copy"));
        std::fs::create_dir(&copy).expect("new");
        run(
            "mcopy",
            &["-s", "-m", "-i", &image, "::", copy.to_str().expect("UTF-8")],
        );
        for (path, bytes) in &files {
            assert!(
                std::fs::read(copy.join(path)).expect("copied") == *bytes,
                "{name}: {path}"
            );
        }
        assert!(copy.join("empty directory").is_dir());

        // What mtools says of where a file lies is what was returned.
        let whole = std::fs::read(disk).expect("there");
        assert_eq!(written.size, whole.len() as u64 - AT);
        for (path, (offset, len)) in &written.extents {
            assert!(
                whole[(AT + offset) as usize..][..*len as usize] == files[path][..],
                "{name}: {path}"
            );
        }
        assert_eq!(written.extents.len(), files.values().filter(|b| !b.is_empty()).count());
        let show = String::from_utf8(run("mshowfat", &["-i", &image, "::powernode/kernel"])).expect("text");
        assert_eq!(show.matches('<').count(), 1, "{name}: {show}");

        let fat = Fat::open(whole[AT as usize..].to_vec()).expect("valid");
        fat.check().expect("sound");
        assert_eq!(fat.kind(), kind);
    }
}

#[test]
fn a_volume_of_mtools_is_read() {
    let scratch = tempfile::tempdir().expect("scratch");
    let file = scratch.path().join("fat");
    let image = file.to_str().expect("UTF-8");
    let files = sample();
    let tree = scratch.path().join("tree");
    for (path, bytes) in &files {
        std::fs::create_dir_all(tree.join(path).parent().expect("below")).expect("made");
        std::fs::write(tree.join(path), bytes).expect("written");
    }
    // FAT12, FAT16 and FAT32 by the number of clusters.
    for (sectors, cluster, kind) in [
        ("30000", "16", FatKind::Fat12),
        ("60000", "4", FatKind::Fat16),
        ("90000", "1", FatKind::Fat32),
    ] {
        let _ = std::fs::remove_file(&file);
        let mut args = vec!["-C", "-i", image, "-T", sectors, "-h", "64", "-s", "32", "-c", cluster];
        args.extend(["-N", "50424e31", "-v", "PNBESP"]);
        if kind == FatKind::Fat32 {
            args.push("-F");
        }
        run("mformat", &[&args[..], &["::"]].concat());
        // Written, deleted and written again, so that files come in pieces and entries are deleted.
        let top: Vec<_> = [
            "EFI",
            "bcm2711-rpi-cm4.dtb",
            "config.txt",
            "identity.cfg",
            "overlays",
            "powernode",
            "überlang and more than thirteen.txt",
        ]
        .iter()
        .map(|n| tree.join(n).to_str().expect("UTF-8").to_owned())
        .collect();
        let top: Vec<_> = top.iter().map(String::as_str).collect();
        run("mcopy", &[&["-s", "-i", image][..], &top, &["::"]].concat());
        run("mdeltree", &["-i", image, "::overlays"]);
        let dtb = tree.join("bcm2711-rpi-4-b.dtb");
        run("mcopy", &["-i", image, dtb.to_str().expect("UTF-8"), "::"]);
        run(
            "mcopy",
            &["-s", "-i", image, tree.join("overlays").to_str().expect("UTF-8"), "::"],
        );

        let fat = Fat::open(File::open(&file).expect("there")).expect("valid");
        assert_eq!((fat.kind(), fat.serial()), (kind, 0x5042_4e31));
        assert_eq!(fat.label().expect("valid").as_deref(), Some("PNBESP"));
        fat.check().expect("sound");
        let nodes = fat.walk().expect("valid");
        assert_eq!(nodes.values().filter(|e| !e.directory).count(), files.len());
        for (path, bytes) in &files {
            let reader = fat.file(&nodes[path]).expect("whole");
            assert_eq!(reader.size().expect("known"), bytes.len() as u64);
            let mut found = Vec::new();
            ReadCursor::new(reader).read_to_end(&mut found).expect("readable");
            assert!(found == *bytes, "{path}");
        }
    }
}
