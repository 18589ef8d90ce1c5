//! ISO 9660 images that xorriso and genisoimage make, read by pnb.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        ReadAt,
        iso::{BootEmulation, BootPlatform, Iso, IsoEntry, IsoKind},
    },
    model::RelPath,
};
use proptest::prelude::*;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::OnceLock,
};
use tools::check;

const SECTOR: usize = 2048;
const EPOCH: i64 = 1_750_000_000;

/// Runs a script in `dir` that leaves its image at `$out`.
fn made(dir: &Path, script: &str) -> Vec<u8> {
    let script = format!("export SOURCE_DATE_EPOCH={EPOCH} out=/build/out/out.iso\ncd /inputs/0\n{script}");
    let (said, mut made) = check(&[dir], &script);
    let image = made.remove("out.iso");
    assert!(image.is_some(), "no image was made\n{said}");
    image.expect("made")
}

fn noise(len: usize, seed: u32) -> Vec<u8> {
    let words = (0..len.div_ceil(4) as u32).scan(seed, |state, _| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(*state)
    });
    words.flat_map(u32::to_le_bytes).take(len).collect()
}

fn content<R: ReadAt>(iso: &Iso<R>, entry: &IsoEntry) -> Vec<u8> {
    let window = iso.file(entry).expect("readable");
    let mut bytes = vec![0; window.size().expect("known") as usize];
    window.read_exact_at(&mut bytes, 0).expect("readable");
    bytes
}

fn path(text: &str) -> RelPath {
    text.parse().expect("relative")
}

/// The medium that boots by BIOS and UEFI, optical and USB, with files that stand for boot loaders.
fn bootable() -> &'static Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("scratch");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("iso/boot/grub")).expect("new");
        fs::create_dir_all(at("iso/pnb/empty")).expect("new");
        fs::write(at("iso/pnb/vmlinuz"), noise(300_001, 1)).expect("written");
        fs::write(at("iso/pnb/id"), "pnb\n").expect("written");
        fs::write(at("iso/pnb/nothing"), "").expect("written");
        fs::write(at("iso/pnb").join("n".repeat(250)), "long").expect("written");
        fs::write(at("iso/boot/grub/bios.img"), noise(31_234, 2)).expect("written");
        fs::set_permissions(at("iso/pnb/id"), fs::Permissions::from_mode(0o555)).expect("set");
        symlink("../boot/./grub/bios.img", at("iso/pnb/link")).expect("new");
        symlink(format!("/{}/{}", "a".repeat(255), "b/".repeat(300)), at("iso/pnb/far")).expect("new");
        fs::write(at("mbr.img"), noise(512, 3)).expect("written");
        fs::write(at("efi.img"), noise(1 << 20, 4)).expect("written");
        made(
            dir.path(),
            "xorriso -as mkisofs -quiet -o $out -r -J -V PNBISO --modification-date=2025061515064000 \\
                --set_all_file_dates =1750000000 -b boot/grub/bios.img -no-emul-boot -boot-load-size 4 -boot-info-table \\
                --grub2-boot-info --grub2-mbr mbr.img -partition_offset 16 \\
                -append_partition 2 C12A7328-F81F-11D2-BA4B-00A0C93EC93B efi.img -appended_part_as_gpt \\
                -iso_mbr_part_type 83 --gpt_disk_guid 50424E00-0000-4000-8000-0000000000AA \\
                -eltorito-alt-boot -e --interval:appended_partition_2:all:: -no-emul-boot iso",
        )
    })
}

/// A medium without Rock Ridge: two files that lie one after the other, and a directory.
fn plain() -> &'static Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("scratch");
        fs::create_dir_all(dir.path().join("iso/sub")).expect("new");
        fs::write(dir.path().join("iso/a.txt"), noise(SECTOR, 5)).expect("written");
        fs::write(dir.path().join("iso/b.txt"), noise(100, 6)).expect("written");
        fs::write(dir.path().join("iso/sub/noext"), "x").expect("written");
        made(dir.path(), "genisoimage -quiet -V PLAIN -o $out iso")
    })
}

/// Where the directory record with this name as it stands in the image begins.
fn record(image: &[u8], name: &str) -> usize {
    let needle = [&[name.len() as u8], name.as_bytes()].concat();
    memchr::memmem::find(image, &needle).expect("there") - 32
}

#[test]
fn a_bootable_medium_is_read_as_it_was_made() {
    let iso = Iso::open(bootable()).expect("valid");
    let volume = iso.volume();
    assert_eq!(volume.label, b"PNBISO");
    assert_eq!([volume.created, volume.modified], [Some(EPOCH); 2]);
    assert_eq!([volume.expires, volume.effective], [None; 2]);
    assert!(volume.size as usize <= bootable().len() && volume.size > 1 << 20);
    assert!(iso.has_rock_ridge() && iso.has_joliet());

    let tree = iso.tree().expect("valid");
    let long = format!("pnb/{}", "n".repeat(250));
    let names = [
        "boot",
        "boot/grub",
        "boot/grub/bios.img",
        "boot.catalog",
        "pnb",
        "pnb/empty",
        "pnb/far",
        "pnb/id",
    ];
    let names = names
        .into_iter()
        .chain(["pnb/link", &long, "pnb/nothing", "pnb/vmlinuz"]);
    let mut wanted: Vec<RelPath> = names.map(path).collect();
    wanted.sort();
    let found: Vec<RelPath> = tree.keys().cloned().collect();
    assert_eq!(found, wanted);
    for (name, entry) in &tree {
        assert_eq!(entry.modified, Some(EPOCH), "{name}");
        let posix = entry.posix.expect("Rock Ridge");
        assert_eq!((posix.uid, posix.gid), (0, 0), "{name}");
        assert_eq!(iso.lookup(name).expect("valid").as_ref(), Some(entry));
    }
    assert_eq!(iso.root().posix.expect("Rock Ridge").mode, 0o40_555);
    assert_eq!(tree[&path("pnb/id")].posix.expect("Rock Ridge").mode, 0o100_555);
    assert_eq!(tree[&path("pnb/vmlinuz")].posix.expect("Rock Ridge").mode, 0o100_444);
    assert_eq!(
        tree[&path("pnb/link")].kind,
        IsoKind::Symlink(b"../boot/./grub/bios.img".to_vec())
    );
    let far = format!("/{}/{}", "a".repeat(255), "b/".repeat(300));
    let IsoKind::Symlink(target) = &tree[&path("pnb/far")].kind else {
        panic!("no link")
    };
    assert_eq!(
        target.strip_suffix(b"/").unwrap_or(target),
        far.trim_end_matches('/').as_bytes()
    );
    assert!(content(&iso, &tree[&path("pnb/vmlinuz")]) == noise(300_001, 1));
    assert_eq!(content(&iso, &tree[&path(&long)]), b"long");
    assert_eq!(content(&iso, &tree[&path("pnb/nothing")]), b"");
    for missing in ["pnb/absent", "pnb/id/below", "pnb/link/below", "PNB"] {
        assert_eq!(iso.lookup(&path(missing)).expect("valid"), None, "{missing}");
    }
    assert!(iso.file(&tree[&path("pnb")]).is_err() && iso.read_dir(&tree[&path("pnb/id")]).is_err());
}

#[test]
fn the_boot_catalog_names_what_each_firmware_starts() {
    let iso = Iso::open(bootable()).expect("valid");
    let catalog = iso.boot_catalog().expect("valid").expect("there");
    let [bios, efi] = &catalog.entries[..] else {
        panic!("{catalog:?}")
    };
    let file = iso.lookup(&path("boot/grub/bios.img")).expect("valid").expect("there");
    assert_eq!(
        (bios.platform, bios.bootable, bios.media),
        (BootPlatform::Bios, true, BootEmulation::NoEmulation)
    );
    assert_eq!((bios.load_sectors, bios.start()), (4, file.start));
    let info = iso.boot_info(bios).expect("readable").expect("there");
    assert_eq!((u64::from(info.len), info.checksum_fits), (file.size, true));
    let bytes = content(&iso, &file);
    assert!(bytes[64..2548] == noise(31_234, 2)[64..2548] && bytes[8..24] != noise(31_234, 2)[8..24]);

    assert_eq!(
        (efi.platform, efi.bootable, efi.media),
        (BootPlatform::Efi, true, BootEmulation::NoEmulation)
    );
    let window = iso.boot_image(efi).expect("inside");
    let mut loaded = vec![0; window.size().expect("known") as usize];
    window.read_exact_at(&mut loaded, 0).expect("readable");
    assert!(loaded == noise(1 << 20, 4));
    assert_eq!(iso.boot_info(efi).expect("readable"), None);

    // A byte of the BIOS image changed: the sum tells.
    let mut changed = bootable().clone();
    changed[file.start as usize + 20_000] ^= 1;
    let info = Iso::open(&changed).expect("valid").boot_info(bios).expect("readable");
    assert!(!info.expect("there").checksum_fits);
    // A byte of the validation entry changed: no catalog.
    let mut changed = bootable().clone();
    changed[catalog.lba as usize * SECTOR + 5] ^= 1;
    let text = Iso::open(&changed)
        .expect("valid")
        .boot_catalog()
        .expect_err("broken")
        .to_string();
    assert!(text.contains("validation entry"), "{text}");
}

#[test]
fn plain_names_have_no_version() {
    let iso = Iso::open(plain()).expect("valid");
    assert_eq!(iso.volume().label, b"PLAIN");
    assert!(!iso.has_rock_ridge() && !iso.has_joliet());
    assert_eq!(iso.boot_catalog().expect("valid"), None);
    let tree = iso.tree().expect("valid");
    let names: Vec<String> = tree.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["A.TXT", "B.TXT", "SUB", "SUB/NOEXT"]);
    assert!(content(&iso, &tree[&path("A.TXT")]) == noise(SECTOR, 5));
    assert_eq!(content(&iso, &tree[&path("SUB/NOEXT")]), b"x");
    assert_eq!(tree[&path("A.TXT")].posix, None);
}

#[test]
fn a_file_of_several_extents_is_one_if_they_follow_each_other() {
    let (a, b) = (record(plain(), "A.TXT;1"), record(plain(), "B.TXT;1"));
    let mut image = plain().clone();
    image[a + 25] |= 0x80;
    let text = Iso::open(&image)
        .expect("valid")
        .tree()
        .expect_err("B is not A")
        .to_string();
    assert!(text.contains("the next extent of \"A.TXT\" is missing"), "{text}");
    image[b + 33] = b'A';
    let iso = Iso::open(&image).expect("valid");
    let file = iso.lookup(&path("A.TXT")).expect("valid").expect("there");
    assert!(content(&iso, &file) == [noise(SECTOR, 5), noise(100, 6)].concat());
    image[b + 2] += 1;
    image[b + 9] += 1;
    let iso = Iso::open(&image).expect("valid");
    let file = iso.lookup(&path("A.TXT")).expect("valid").expect("there");
    let text = iso.file(&file).expect_err("apart").to_string();
    assert!(text.contains("its extents do not follow each other"), "{text}");
    image[b + 25] |= 0x80;
    let text = Iso::open(&image)
        .expect("valid")
        .tree()
        .expect_err("no end")
        .to_string();
    assert!(text.contains("extent"), "{text}");
}

#[test]
fn directories_too_deep_for_iso_9660_are_read_at_their_own_place() {
    let dir = tempfile::tempdir().expect("scratch");
    let deep = "1/2/3/4/5/6/7/8/9/10";
    fs::create_dir_all(dir.path().join("iso").join(deep)).expect("new");
    fs::write(dir.path().join("iso").join(deep).join("file"), "deep").expect("written");
    let image = made(dir.path(), "genisoimage -quiet -R -D -o $out iso");
    let iso = Iso::open(image).expect("valid");
    let file = iso
        .lookup(&path(&format!("{deep}/file")))
        .expect("valid")
        .expect("there");
    assert_eq!(content(&iso, &file), b"deep");
    let iso = Iso::open(made(dir.path(), "genisoimage -quiet -R -o $out iso")).expect("valid");
    let file = iso
        .lookup(&path(&format!("{deep}/file")))
        .expect("valid")
        .expect("there");
    assert_eq!(content(&iso, &file), b"deep");
    let tree = iso.tree().expect("valid");
    // The place to which they were moved is an empty directory.
    assert_eq!(
        tree.keys().filter(|p| p.to_string().ends_with("/8")).count(),
        1,
        "{tree:#?}"
    );
    assert!(tree.contains_key(&path("rr_moved")), "{tree:#?}");
    assert!(
        !tree.keys().any(|p| p.to_string().starts_with("rr_moved/")),
        "{tree:#?}"
    );
}

#[test]
fn broken_structures_are_named() {
    let sub = record(plain(), "SUB");
    let root = 16 * SECTOR + 156;
    let expect = |change: &dyn Fn(&mut Vec<u8>), problem: &str| {
        let mut image = plain().clone();
        change(&mut image);
        let result = Iso::open(&image).and_then(|iso| iso.tree());
        let text = result.expect_err(problem).to_string();
        assert!(text.contains(problem), "{problem}: {text}");
    };
    let copy_extent = |image: &mut Vec<u8>| image.copy_within(root + 2..root + 10, sub + 2);
    expect(&copy_extent, "the directory is reached twice");
    expect(&|i| i[sub + 2] ^= 1, "the two forms of its extent differ");
    expect(&|i| i[sub + 10] ^= 1, "the two forms of its size differ");
    expect(&|i| i[sub + 26] = 1, "it is interleaved");
    expect(&|i| i[sub] = 33, "the name does not fit into it");
    expect(&|i| i[sub + 33] = b'/', "\"/UB\" is not a valid name");
    expect(&|i| i[sub + 13..sub + 15].copy_from_slice(&[2, 2]), "bytes");
    expect(
        &|i| i[root + 25] = 0,
        "the record of the root is not that of a directory",
    );
    expect(&|i| i[16 * SECTOR + 1] = b'X', "there is no volume descriptor");
    expect(&|i| i[16 * SECTOR] = 2, "no primary volume descriptor");
    expect(&|i| i[16 * SECTOR + 129] = 4, "2048 bytes");
    expect(&|i| i.truncate(60 * SECTOR), "but the image has");
}

/// Looks at all there is; only errors may come of it.
fn exercise(image: &Vec<u8>) {
    let Ok(iso) = Iso::open(image) else { return };
    for entry in iso.tree().unwrap_or_default().into_values() {
        if let Ok(window) = iso.file(&entry) {
            let len = window.size().expect("known").min(5000) as usize;
            window.read_exact_at(&mut vec![0; len], 0).expect("inside the image");
        }
    }
    for entry in iso.boot_catalog().ok().flatten().map(|c| c.entries).unwrap_or_default() {
        drop(iso.boot_info(&entry));
        drop(iso.boot_image(&entry).map(|w| w.size()));
    }
}

/// The sectors that hold descriptors, directories, Rock Ridge entries and the boot catalog, by where they begin.
fn metadata(image: &Vec<u8>) -> Vec<usize> {
    let iso = Iso::open(image).expect("valid");
    let mut found = vec![16 * SECTOR, 17 * SECTOR, iso.root().start as usize];
    // Where the entries of the root go on.
    found.push(iso.root().start as usize + SECTOR);
    for entry in iso.tree().expect("valid").into_values() {
        if entry.kind == IsoKind::Directory {
            found.extend([entry.start as usize, entry.start as usize + SECTOR]);
        }
    }
    found.extend(iso.boot_catalog().expect("valid").map(|c| c.lba as usize * SECTOR));
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_images_never_panic(
        which in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..SECTOR, any::<u8>()), 1..12),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let original = if which { bootable() } else { plain() };
        let sectors = metadata(original);
        let mut image = original.clone();
        for (sector, byte, value) in changes {
            // Most structures lie in the front half of their sector.
            let byte = if value & 1 == 0 { byte / 4 } else { byte };
            image[sectors[sector.index(sectors.len())] + byte] = value;
        }
        if let Some(cut) = cut {
            let len = cut.index(image.len());
            image.truncate(len);
        }
        exercise(&image);
    }
}

#[test]
fn every_change_of_a_byte_of_the_tables_is_survived() {
    for original in [bootable(), plain()] {
        let mut image = original.clone();
        for sector in metadata(original) {
            for at in sector..sector + 256 {
                let kept = image[at];
                for value in [255, kept ^ 1] {
                    image[at] = value;
                    exercise(&image);
                }
                image[at] = kept;
            }
        }
    }
}
