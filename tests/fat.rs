//! FAT volumes against dosfstools and mtools.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        ReadAt, ReadCursor,
        fat::{self, Fat, FatItem, FatKind, FatVolume, VolumeSize, plan},
    },
    model::{Epoch, RelPath, SectorSize},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Cursor, Read},
    path::Path,
};
use tools::check;

/// Where the volume begins in its file.
const AT: u64 = 1 << 20;

/// For scripts: nothing of the configuration of the host.
const MTOOLS: &str = "export TZ=UTC LC_ALL=C.UTF-8 MTOOLSRC=/dev/null\n";

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

/// The crate `fatfs` must find just these files, and the empty directory.
fn another_reader_finds(volume: Vec<u8>, kind: FatKind, files: &BTreeMap<RelPath, Vec<u8>>) {
    let volume = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new()).expect("valid");
    let wanted = match kind {
        FatKind::Fat12 => fatfs::FatType::Fat12,
        FatKind::Fat16 => fatfs::FatType::Fat16,
        FatKind::Fat32 => fatfs::FatType::Fat32,
    };
    assert_eq!(volume.fat_type(), wanted);
    assert_eq!(
        (volume.volume_label().trim_end(), volume.volume_id()),
        ("POWERNODE", 0x50e4_0d1e)
    );
    let root = volume.root_dir();
    let mut found = 0;
    let mut open = vec![(String::new(), root.clone())];
    while let Some((above, directory)) = open.pop() {
        for entry in directory.iter() {
            let entry = entry.expect("readable");
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let at = format!("{above}{name}");
            if entry.is_dir() {
                open.push((format!("{at}/"), entry.to_dir()));
                continue;
            }
            let mut content = Vec::new();
            entry.to_file().read_to_end(&mut content).expect("readable");
            assert!(files.get(&path(&at)) == Some(&content), "{at}");
            found += 1;
        }
    }
    assert_eq!(found, files.len());
    assert!(root.open_dir("empty directory").is_ok());
}

#[test]
fn fsck_and_mtools_find_what_was_written() {
    let scratch = tempfile::tempdir().expect("scratch");
    let files = sample();
    let (small, large) = (SectorSize::Bytes512, SectorSize::Bytes4096);
    for (name, sector_size, kind, size) in [
        ("fat16", small, FatKind::Fat16, VolumeSize::Content { spare: 1 << 20 }),
        (
            "fat16 of large sectors",
            large,
            FatKind::Fat16,
            VolumeSize::Content { spare: 0 },
        ),
        (
            "fat32 of large sectors",
            large,
            FatKind::Fat32,
            VolumeSize::Content { spare: 1 << 20 },
        ),
        (
            "fat32 of 71003 large sectors",
            large,
            FatKind::Fat32,
            VolumeSize::Sectors(71_003),
        ),
        ("fat16 of 2 KiB", small, FatKind::Fat16, VolumeSize::Sectors(100 << 11)),
        (
            "fat16 of 65535 sectors",
            small,
            FatKind::Fat16,
            VolumeSize::Sectors(65_535),
        ),
        ("fat32", small, FatKind::Fat32, VolumeSize::Content { spare: 0 }),
        (
            "fat32 of 1 KiB",
            small,
            FatKind::Fat32,
            VolumeSize::Content { spare: 60 << 20 },
        ),
        (
            "fat32 of 4 KiB",
            small,
            FatKind::Fat32,
            VolumeSize::Sectors((512 << 11) + 3),
        ),
    ] {
        let volume = FatVolume {
            kind,
            sector_size,
            label: "POWERNODE".to_owned(),
            serial: 0x50e4_0d1e,
            epoch: Epoch::new(1_750_000_000),
            hidden_sectors: (AT / sector_size.bytes()) as u32,
            size,
        };
        let disk = scratch.path().join(name);
        let written = make(&disk, &volume, &files);

        let script = format!(
            "{MTOOLS}
            dd if=/inputs/0 of=plain bs=1M skip=1 conv=sparse status=none
            fsck.fat -n -v plain >out/verdict 2>&1 || {{ cat out/verdict; exit 1; }}
            mdir -i /inputs/0@@{AT} -/ -a :: >out/label
            mkdir out/copy
            mcopy -s -m -i /inputs/0@@{AT} :: out/copy
            test -d 'out/copy/empty directory'
            mshowfat -i /inputs/0@@{AT} ::powernode/kernel >out/show"
        );
        let (_, made) = check(&[&disk], &script);
        let text = |name: &str| String::from_utf8(made[name].clone()).expect("text");
        let verdict = text("verdict");
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
            verdict.contains(&format!("{} hidden sectors", AT / sector_size.bytes())),
            "{name}: {verdict}"
        );
        assert!(verdict.contains("files, "), "{name}: {verdict}");

        let label = text("label");
        assert!(label.contains("is POWERNODE"), "{name}: {label}");
        assert!(label.contains("Volume Serial Number is 50E4-0D1E"), "{name}: {label}");
        assert!(label.contains("2025-06-15  15:06"), "{name}: {label}");
        for (path, bytes) in &files {
            let copied = made.get(&format!("copy/{path}"));
            assert!(copied == Some(bytes), "{name}: {path} is not in {:?}", made.keys());
        }

        // What mtools says of where a file lies is what was returned.
        let whole = std::fs::read(&disk).expect("there");
        assert_eq!(written.size, whole.len() as u64 - AT);
        for (path, (offset, len)) in &written.extents {
            assert!(
                whole[(AT + offset) as usize..][..*len as usize] == files[path][..],
                "{name}: {path}"
            );
        }
        assert_eq!(written.extents.len(), files.values().filter(|b| !b.is_empty()).count());
        let show = text("show");
        assert_eq!(show.matches('<').count(), 1, "{name}: {show}");

        another_reader_finds(whole[AT as usize..].to_vec(), kind, &files);
        let fat = Fat::open(whole[AT as usize..].to_vec()).expect("valid");
        fat.check().expect("sound");
        assert_eq!((fat.kind(), fat.sector_size()), (kind, sector_size.bytes()));
        assert!(
            verdict.contains(&format!("{sector_size} bytes per logical sector")),
            "{name}: {verdict}"
        );
        assert!(fat.findings(&fat.walk().expect("valid"), true).is_empty(), "{name}");
    }
}

#[test]
fn a_volume_of_mtools_is_read() {
    let scratch = tempfile::tempdir().expect("scratch");
    let files = sample();
    let tree = scratch.path();
    for (path, bytes) in &files {
        std::fs::create_dir_all(tree.join(path).parent().expect("below")).expect("made");
        std::fs::write(tree.join(path), bytes).expect("written");
    }
    // FAT12, FAT16 and FAT32 by the number of clusters.
    let volumes = [
        ("-T 30000 -c 16", FatKind::Fat12),
        ("-T 60000 -c 4", FatKind::Fat16),
        ("-T 90000 -c 1 -F", FatKind::Fat32),
    ];
    let mut script = MTOOLS.to_owned();
    for (number, (options, _)) in volumes.iter().enumerate() {
        // Written, deleted and written again, so that files come in pieces and entries are deleted.
        script += &format!(
            "mformat -C -i out/{number} -h 64 -s 32 -N 50424e31 -v PNBESP {options} ::
            (
                cd /inputs/0
                mcopy -s -i /build/out/{number} EFI bcm2711-rpi-cm4.dtb config.txt identity.cfg overlays powernode über* ::
                mdeltree -i /build/out/{number} ::overlays
                mcopy -i /build/out/{number} bcm2711-rpi-4-b.dtb ::
                mcopy -s -i /build/out/{number} overlays ::
            )\n"
        );
    }
    let (_, made) = check(&[tree], &script);
    for (number, (_, kind)) in volumes.into_iter().enumerate() {
        let fat = Fat::open(made[&number.to_string()].clone()).expect("valid");
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
