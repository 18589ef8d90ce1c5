//! Round trips, names, and damage.

use super::*;
use crate::{
    image::{ImageError, ReadAt, ReadCursor},
    model::{Epoch, RelPath, SectorSize},
};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
};
use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
    sync::LazyLock,
};

type Files = BTreeMap<RelPath, Vec<u8>>;

fn path(text: &str) -> RelPath {
    text.parse().expect("valid")
}

fn volume(kind: FatKind) -> FatVolume {
    FatVolume {
        kind,
        sector_size: SectorSize::Bytes512,
        label: "PNB ESP".to_owned(),
        serial: 0x1234_abcd,
        epoch: Epoch::new(1_750_000_001),
        hidden_sectors: 4096,
        size: VolumeSize::Content { spare: 0 },
    }
}

fn items(files: &Files) -> BTreeMap<RelPath, FatItem> {
    let item = |(path, bytes): (&RelPath, &Vec<u8>)| {
        (
            path.clone(),
            FatItem::File {
                size: bytes.len() as u32,
            },
        )
    };
    files.iter().map(item).collect()
}

fn make(volume: &FatVolume, files: &Files) -> Result<(Vec<u8>, FatSummary), ImageError> {
    let layout = plan(volume, &items(files))?;
    let mut out = Cursor::new(vec![0; layout.size() as usize]);
    let open = |path: &RelPath| -> std::io::Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(files[path].clone()))) };
    let written = write(&layout, 0, &open, &mut out)?;
    assert_eq!((written.size, &written.extents), (layout.size(), &layout.extents()));
    assert_eq!(out.get_ref().len() as u64, written.size);
    Ok((out.into_inner(), written))
}

fn sample() -> Files {
    let mut files = Files::new();
    for (name, len) in [
        ("EFI/BOOT/BOOTX64.EFI", 70_000),
        ("EFI/BOOT/grubx64.efi", 512),
        ("EFI/debian/grub.cfg", 511),
        ("cmdline.txt", 513),
        ("empty", 0),
        ("overlays/a name with spaces, and quite long.dtbo", 4096),
        ("überlang ▲ 😀.txt", 1),
    ] {
        let bytes = (0..len).map(|i| (i * 7 + len) as u8).collect();
        files.insert(path(name), bytes);
    }
    files
}

fn content<R: ReadAt>(fat: &Fat<R>, entry: &FatEntry) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reader = fat.file(entry).expect("whole");
    ReadCursor::new(reader).read_to_end(&mut bytes).expect("in memory");
    bytes
}

fn compare(image: &[u8], files: &Files, written: &FatSummary) {
    let fat = Fat::open(image.to_vec()).expect("valid");
    fat.check().expect("sound");
    let nodes = fat.walk().expect("valid");
    let found: Vec<_> = nodes.iter().filter(|(_, e)| !e.directory).map(|(p, _)| p).collect();
    assert_eq!(found, files.keys().collect::<Vec<_>>());
    for (path, bytes) in files {
        let entry = &nodes[path];
        assert!(content(&fat, entry) == *bytes, "{path}");
        let extents = fat.extents(entry).expect("whole");
        let known: Vec<_> = written.extents.get(path).copied().into_iter().collect();
        assert_eq!(extents, known, "{path}");
        for (at, len) in extents {
            assert!(image[at as usize..][..len as usize] == bytes[..], "{path}");
        }
        assert_eq!(fat.lookup(path).expect("valid").as_ref(), Some(entry));
    }
}

#[test]
fn both_kinds_hold_what_they_were_given() {
    for (kind, clusters) in [(FatKind::Fat16, 4101), (FatKind::Fat32, 65_541)] {
        let files = sample();
        let (image, written) = make(&volume(kind), &files).expect("fits");
        compare(&image, &files, &written);
        let fat = Fat::open(&image).expect("valid");
        assert_eq!((fat.kind(), fat.clusters(), fat.cluster_size()), (kind, clusters, 512));
        assert_eq!((fat.serial(), fat.hidden_sectors()), (0x1234_abcd, 4096));
        assert_eq!(fat.size(), image.len() as u64);
        assert_eq!(fat.label().expect("valid").as_deref(), Some("PNB ESP"));
        // The last two seconds are one to FAT.
        let entry = fat
            .lookup(&path("efi/boot/bootx64.efi"))
            .expect("valid")
            .expect("there");
        assert_eq!(entry.modified, Some(Epoch::new(1_750_000_000)));
        assert_eq!((entry.name.as_str(), entry.size), ("BOOTX64.EFI", 70_000));
        assert!(fat.lookup(&path("EFI/BOOT/none")).expect("valid").is_none());
        let (again, _) = make(&volume(kind), &files).expect("fits");
        assert!(again == image);
    }
}

#[test]
fn sizes_follow_content_or_request() {
    let at = |kind, size, items: &[(&str, FatItem)]| {
        let items = items.iter().map(|(p, i)| (path(p), *i)).collect();
        plan(&FatVolume { size, ..volume(kind) }, &items).map(|l| (l.size(), l.cluster_size()))
    };
    let file = |size| [("f", FatItem::File { size })];
    let ok = |kind, size, items: &[(&str, FatItem)]| at(kind, size, items).expect("fits");
    let error = |kind, size, items: &[(&str, FatItem)]| at(kind, size, items).expect_err("refused").to_string();
    let spare = |spare| VolumeSize::Content { spare };
    // 65540 clusters of 512 bytes are 32 MiB; both tables take 2 · 513 sectors.
    assert_eq!(ok(FatKind::Fat32, spare(0), &[]), ((65_541 + 32 + 2 * 513) * 512, 512));
    // Of 4 KiB, 65541 are 256 MiB.
    assert_eq!(ok(FatKind::Fat32, spare(65_540 * 4096), &[]).1, 4096);
    assert_eq!(ok(FatKind::Fat32, spare(65_539 * 4096), &[]).1, 2048);
    assert_eq!(ok(FatKind::Fat16, spare(0), &[]).1, 512);
    assert_eq!(ok(FatKind::Fat16, spare(0), &file(40 << 20)).1, 1024);
    assert_eq!(
        ok(FatKind::Fat32, VolumeSize::Sectors(1 << 20), &file(500 << 20)),
        (512 << 20, 4096)
    );
    assert_eq!(ok(FatKind::Fat32, VolumeSize::Sectors(u32::MAX.into()), &[]).1, 8192);
    assert!(error(FatKind::Fat32, VolumeSize::Sectors(1 << 20), &file(512 << 20)).contains("but there are"));
    assert!(error(FatKind::Fat32, VolumeSize::Sectors(60_000), &[]).contains("60000 sectors cannot be Fat32"));
    assert!(error(FatKind::Fat16, VolumeSize::Sectors(1 << 32), &[]).contains("cannot be Fat16"));
    assert!(error(FatKind::Fat16, spare(u64::MAX), &[]).contains("too large for Fat16"));
    assert!(error(FatKind::Fat32, spare(u64::MAX), &[]).contains("too large for Fat32"));
    assert!(error(FatKind::Fat12, spare(0), &[]).contains("are only read"));
    let below = [("f", FatItem::File { size: 1 }), ("f/g", FatItem::Directory)];
    assert!(error(FatKind::Fat16, spare(0), &below).contains("its parent f is a file"));
    let many: Vec<_> = (0..512).map(|i| format!("F{i}")).collect();
    let many: Vec<_> = many.iter().map(|n| (n.as_str(), FatItem::Directory)).collect();
    assert!(error(FatKind::Fat16, spare(0), &many).contains("more than the 512 entries"));
    assert!(at(FatKind::Fat16, spare(0), &many[1..]).is_ok() && at(FatKind::Fat32, spare(0), &many).is_ok());
    for (label, epoch) in [
        ("", 1 << 30),
        ("lower", 1 << 30),
        ("TWELVE CHARS", 1 << 30),
        ("X ", 1 << 30),
        ("X", 1),
    ] {
        let volume = FatVolume {
            label: label.to_owned(),
            epoch: Epoch::new(epoch),
            ..volume(FatKind::Fat16)
        };
        assert!(plan(&volume, &BTreeMap::new()).is_err(), "{label:?} {epoch}");
    }
}

#[test]
fn short_names_are_unlike_every_other_name() {
    let short = |names: &[&str]| -> Vec<String> {
        let bytes: Vec<_> = names.iter().map(|n| n.as_bytes()).collect();
        let names = names::assign(&bytes).expect("valid");
        names
            .iter()
            .map(|n| format!("{}{}", names::show(&n.short), if n.long.is_empty() { "" } else { "+" }))
            .collect()
    };
    assert_eq!(
        short(&["GRUB.CFG", "config.txt", "start4.elf"]),
        ["GRUB.CFG", "CONFIG.TXT+", "START4.ELF+"]
    );
    let long = short(&[
        "bcm2711-rpi-4-b.dtb",
        "bcm2711-rpi-cm4.dtb",
        "initramfs.cpio.zst",
        ".hidden",
        "a+b",
        "é.x",
        "x."[..1].as_ref(),
    ]);
    assert_eq!(
        long,
        [
            "BCM271~1.DTB+",
            "BCM271~2.DTB+",
            "INITRA~1.ZST+",
            "HIDDEN~1+",
            "A_B~1+",
            "_~1.X+",
            "X+"
        ]
    );
    // A generated name differs from the names of other entries.
    assert_eq!(short(&["LONGFILENAME", "LONGFI~1"]), ["LONGFI~2+", "LONGFI~1"]);
    let many: Vec<_> = (0..12).map(|i| format!("a long name {i}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(short(&many)[8..10], ["ALONGN~9+", "ALONG~10+"]);
    for (bad, told) in [
        (&["a", "A"][..], "only in case"),
        (&["ä", "Ä"], "only in case"),
        (&["a:b"], "cannot hold ':'"),
        (&["a\u{1}"], "cannot hold"),
        (&["end."], "end with a dot"),
        (&[&"x".repeat(256)], "256 UTF-16 units"),
    ] {
        let bytes: Vec<_> = bad.iter().map(|n| n.as_bytes()).collect();
        let (index, problem) = names::assign(&bytes).expect_err("refused");
        assert!(index == bad.len() - 1 && problem.contains(told), "{problem}");
    }
    assert!(names::assign(&[b"\xff"]).is_err());
}

#[test]
fn zeros_are_not_written() {
    /// Counts what is written.
    struct Count(Cursor<Vec<u8>>, u64);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1 += bytes.len() as u64;
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl std::io::Seek for Count {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let mut bytes = vec![0; 3 << 20];
    (bytes[5000], bytes[2 << 20]) = (1, 1);
    let files = Files::from([(path("sparse"), bytes)]);
    let layout = plan(&volume(FatKind::Fat32), &items(&files)).expect("fits");
    let at = 1 << 20;
    let mut out = Count(Cursor::new(vec![0; (at + layout.size()) as usize]), 0);
    let open = |path: &RelPath| -> std::io::Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(files[path].clone()))) };
    let written = write(&layout, at, &open, &mut out).expect("written");
    // Two tables for 3 MiB in clusters of 512 bytes, and little else.
    let least = 2 * 4 * (3 << 20) / 512;
    assert!((least..least + 24_000).contains(&out.1), "{} bytes", out.1);
    let image = out.0.into_inner();
    assert!(image[..at as usize].iter().all(|b| *b == 0));
    compare(&image[at as usize..], &files, &written);
}

#[test]
fn content_of_another_length_is_an_error() {
    let items = BTreeMap::from([(path("f"), FatItem::File { size: 3 })]);
    let layout = plan(&volume(FatKind::Fat16), &items).expect("fits");
    for wrong in ["ab", "abcd"] {
        let open = |_: &RelPath| -> std::io::Result<Box<dyn Read>> { Ok(Box::new(wrong.as_bytes())) };
        let error = write(&layout, 0, &open, &mut Cursor::new(vec![0; layout.size() as usize])).expect_err("refused");
        assert!(matches!(error, ImageError::Length { expected: 3, .. }), "{error}");
    }
}

static IMAGE: LazyLock<(Vec<u8>, FatSummary)> =
    LazyLock::new(|| make(&volume(FatKind::Fat16), &sample()).expect("fits"));

#[test]
fn damage_is_named() {
    let open = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = IMAGE.0.clone();
        change(&mut bytes);
        Fat::open(bytes)
    };
    let error = |change: &dyn Fn(&mut Vec<u8>)| open(change).map(|_| ()).expect_err("damaged").to_string();
    assert!(
        error(&|b| b[12] = 16).contains("a sector has 4096 bytes") || error(&|b| b[12] = 16).contains("in an image of")
    );
    assert!(error(&|b| b[12] = 3).contains("a sector has 768 bytes"));
    assert!(error(&|b| b[13] = 3).contains("a cluster has 3 sectors"));
    assert!(error(&|b| b[16] = 0).contains("0 tables"));
    assert!(error(&|b| b.truncate(1 << 20)).contains("in an image of 1048576"));
    assert!(error(&|b| b.truncate(100)).contains("byte 0"));

    let fat = Fat::open(&IMAGE.0).expect("valid");
    let table = fat.boot.table_offset as usize;
    let other = (fat.boot.table_offset + fat.boot.table_size) as usize;
    let find = |name: &str| fat.lookup(&path(name)).expect("valid").expect("there");
    let checked = |change: &dyn Fn(&mut Vec<u8>)| {
        let changed = open(change).expect("the boot sector is whole");
        changed.check().expect_err("damaged").to_string()
    };
    let set = |bytes: &mut Vec<u8>, cluster: u32, next: u16| {
        for table in [table, other] {
            bytes[table + 2 * cluster as usize..][..2].copy_from_slice(&next.to_le_bytes());
        }
    };
    assert!(checked(&|b| b[other + 9] ^= 1).contains("a copy of the table differs"));
    assert!(checked(&|b| set(b, 4000, 0xffff)).contains("1 clusters are in use but belong to no file"));
    let boot = find("EFI/BOOT/BOOTX64.EFI");
    assert!(checked(&|b| set(b, boot.first, 0xffff)).contains("disagree (137 clusters expected)"));
    assert!(checked(&|b| set(b, boot.first + 1, boot.first as u16)).contains("disagree (137 clusters expected)"));
    assert!(checked(&|b| set(b, boot.first, 1)).contains("a chain goes on at cluster 0x1"));
    let (efi, small) = (find("EFI"), find("EFI/BOOT/grubx64.efi"));
    assert!(checked(&|b| set(b, efi.first, efi.first as u16)).contains("more than 65536 entries"));
    assert!(checked(&|b| b[small.offset as usize + 26] = boot.first as u8).contains("disagree (1 clusters expected)"));
    // A directory that is its own parent's parent.
    let below = find("EFI/BOOT");
    assert!(
        checked(&|b| b[below.offset as usize + 26] = efi.first as u8).contains("has the clusters of another directory")
    );
    assert!(
        checked(&|b| b[below.offset as usize + 28] = 1)
            .contains("the size of the directory \"BOOT\" is 1 instead of 0")
    );
    let odd = open(&|b| (b[510], b[21]) = (0, 1)).expect("read all the same");
    let found: Vec<String> = odd
        .findings(&odd.walk().expect("whole"), true)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        found[0].contains("does not end with 55aa") && found[1].contains("the media descriptor is 0x01"),
        "{found:?}"
    );
    let long = find("overlays/a name with spaces, and quite long.dtbo").offset as usize;
    assert!(checked(&|b| b[long] = b'Q').contains("a long name does not belong to the entry behind it"));
    assert!(checked(&|b| b[long - 32] = 2).contains("does not follow"));
    assert!(checked(&|b| b[long - 31] = b'/').contains("is not a valid name"));
    let empty = find("empty").offset as usize;
    assert!(checked(&|b| b[empty + 26] = boot.first as u8).contains("disagree (0 clusters expected)"));
}

#[test]
fn fat12_is_read() {
    // 16 clusters of 512 bytes: one file in clusters 3 and then 2, so that numbers straddle bytes both ways.
    let mut image = vec![0u8; 4 * 512 + 16 * 512];
    image[11..28].copy_from_slice(&[0, 2, 1, 1, 0, 2, 16, 0, 20, 0, 0xf8, 1, 0, 1, 0, 1, 0]);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    for table in [512, 1024] {
        // Numbers 0xff8, 0xfff, 0xfff and 2.
        image[table..table + 6].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff, 0x2f, 0x00]);
    }
    let mut entry = *b"NAME    TXT\x20\x18\0\0\0\0\0\0\0\0\0\0\0\x21\0\x03\0\0\0\0\0";
    entry[28..30].copy_from_slice(&600u16.to_le_bytes());
    image[1536..1568].copy_from_slice(&entry);
    image[2048..2560].fill(b'2');
    image[2560..3072].fill(b'3');
    let fat = Fat::open(&image).expect("valid");
    assert_eq!((fat.kind(), fat.clusters()), (FatKind::Fat12, 16));
    fat.check().expect("sound");
    assert_eq!(fat.free_clusters().expect("valid"), 14);
    assert_eq!((fat.label().expect("valid"), fat.serial()), (None, 0));
    let name = fat.lookup(&path("name.txt")).expect("valid").expect("there");
    assert_eq!(
        (name.name.as_str(), name.modified),
        ("name.txt", Some(Epoch::new(315_532_800)))
    );
    assert_eq!(fat.extents(&name).expect("whole"), [(2560, 512), (2048, 88)]);
    assert_eq!(content(&fat, &name), [vec![b'3'; 512], vec![b'2'; 88]].concat());
}

fn file_name() -> impl Strategy<Value = String> {
    "[A-Z]{1,8}(\\.[A-Z]{1,3})?|[a-zA-Z0-9 .+_~é😀-]{0,40}[a-z0-9]"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read(
        found in btree_map(vec(file_name(), 1..4), vec(any::<u8>(), 0..6000), 0..40), wide in any::<bool>(), spare in 0u64..100_000
    ) {
        let files: Files = found.into_iter()
            .filter_map(|(names, bytes)| Some((RelPath::new(names.join("/")).ok()?, bytes))).collect();
        let kind = if wide { FatKind::Fat32 } else { FatKind::Fat16 };
        let size = VolumeSize::Content { spare };
        match make(&FatVolume { size, ..volume(kind) }, &files) {
            Ok((image, written)) => compare(&image, &files, &written),
            // Names that differ in case only, or a file that another lies below.
            Err(ImageError::Entry { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn random_damage_never_panics_nor_hangs(hits in vec((0usize..60_000, any::<u8>()), 1..40), cut in any::<Option<u16>>()) {
        let mut bytes = IMAGE.0.clone();
        for (at, value) in hits {
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(usize::from(cut));
        }
        let Ok(fat) = Fat::open(bytes) else { return Ok(()) };
        let _ = (fat.check(), fat.label());
        for entry in fat.walk().unwrap_or_default().values() {
            if let Ok(file) = fat.file(entry) {
                let _ = std::io::copy(&mut ReadCursor::new(file).take(1 << 20), &mut std::io::sink());
            }
        }
    }

    #[test]
    fn damaged_boot_sectors_never_panic(hits in vec((11usize..90, any::<u8>()), 1..4)) {
        let mut bytes = IMAGE.0.clone();
        for (at, value) in hits {
            bytes[at] = value;
        }
        if let Ok(fat) = Fat::open(bytes) {
            let _ = (fat.check(), fat.label(), fat.walk());
        }
    }

    #[test]
    fn times_keep_their_seconds(seconds in 315_532_800u32..) {
        let time = names::DosTime::new(Epoch::new(seconds)).expect("after 1980");
        prop_assert_eq!(time.epoch(), Some(Epoch::new(seconds)));
    }
}
