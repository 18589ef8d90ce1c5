//! What is in an artifact: looked into, compared with another, and its root audited wherever it lies. The images are made by
//! our writers and by xorriso, and damaged in every place.

#[path = "../fixture/mod.rs"]
mod fixture;
mod overview;

use fixture::{
    EPOCH, artifact, describe_as, facts, initramfs, lock, path, pattern, root_image, root_image_of, tools::check,
    write_all,
};
use pnb::{
    audit::{ArtifactRoot, AuditError, AuditOptions, Class, audit, audit_set},
    image::{Guid, Source, fat, gpt, qcow2},
    inspect::{Comparison, Difference, SpoolDirectory, SurveyNode, What, diff, find_root, open, survey},
    manifest::Statements,
    model::{RelPath, SectorSize, VerityDigest, ZstdLevel},
};
use proptest::prelude::*;
use std::{
    fs,
    io::Cursor,
    num::NonZeroU32,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

fn scratch() -> SpoolDirectory {
    SpoolDirectory::new("/tmp")
}

fn source(bytes: &[u8]) -> Source {
    Arc::new(bytes.to_vec())
}

fn compare(name: &str, a: &[u8], b: &[u8]) -> Comparison {
    let (a, b) = (
        open(source(a), name).expect("in memory"),
        open(source(b), name).expect("in memory"),
    );
    diff((&a, None), (&b, None), &scratch(), 1000).expect("in memory")
}

fn looked(name: &str, bytes: &[u8]) -> SurveyNode {
    let part = open(source(bytes), name).expect("in memory");
    survey(&part, &scratch(), 9, true).expect("in memory")
}

fn places(found: &Comparison) -> Vec<String> {
    found.differences.iter().map(|d| d.path.join(" / ")).collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    memchr::memmem::find(haystack, needle).expect("in the image")
}

/// The first two blocks of the larger object; no other file begins like that for so long.
fn large(image: &[u8]) -> usize {
    find(image, &pattern(8192))
}

fn child<'a>(node: &'a SurveyNode, name: &str) -> &'a SurveyNode {
    let found = node.children.iter().find(|c| c.name.starts_with(name));
    found.unwrap_or_else(|| unreachable!("no {name:?} in {node:#?}"))
}

const MENU: &str = "menuentry 'Powernode node' {\n  linux /powernode/kernel powernode.boot=1 quiet\n}\n";

/// A FAT volume with a menu, and an initramfs that states this digest.
fn esp(root: &[u8], stated: &[u8]) -> Vec<u8> {
    let files = std::collections::BTreeMap::from([
        (path("EFI/debian/grub.cfg"), MENU.as_bytes().to_vec()),
        (path("powernode/initramfs.cpio.zst"), initramfs(root, stated)),
    ]);
    let volume = fat::FatVolume {
        kind: fat::FatKind::Fat16,
        sector_size: SectorSize::Bytes512,
        label: "POWERNODE".to_owned(),
        serial: 0x1234_abcd,
        epoch: EPOCH,
        hidden_sectors: 4096,
        size: fat::VolumeSize::Content { spare: 0 },
    };
    let items = files.iter().map(|(path, bytes)| {
        (
            path.clone(),
            fat::FatItem::File {
                size: bytes.len() as u32,
            },
        )
    });
    let layout = fat::plan(&volume, &items.collect()).expect("fits");
    let mut out = Cursor::new(vec![0; layout.size() as usize]);
    let open =
        |path: &RelPath| -> std::io::Result<Box<dyn std::io::Read>> { Ok(Box::new(Cursor::new(files[path].clone()))) };
    fat::write(&layout, 0, &open, &mut out).expect("in memory");
    out.into_inner()
}

/// A disk with an EFI system partition and this root in a partition of this name.
fn disk_of(root: &[u8], stated: &[u8], name: &str) -> Vec<u8> {
    let esp = esp(root, stated);
    let wanted = |name: &str, type_guid, number: u128, size: usize| gpt::PartitionRequest {
        name: name.to_owned(),
        type_guid,
        guid: Guid::new(number),
        size: size as u64,
        attributes: 0,
    };
    let partitions = [
        wanted("powernode-esp", gpt::types::EFI_SYSTEM, 1, esp.len()),
        wanted(name, gpt::types::LINUX_DATA, 2, root.len()),
    ];
    let disk = gpt::plan(Guid::new(9), SectorSize::Bytes512, &partitions, None).expect("fits");
    let mut bytes = vec![0; disk.size() as usize];
    for (partition, content) in disk.partitions.iter().zip([&esp[..], root]) {
        bytes[partition.offset(disk.sector_size) as usize..][..content.len()].copy_from_slice(content);
    }
    let mut out = Cursor::new(bytes);
    gpt::write(&disk, Some(&[0xeb; 440]), &mut out).expect("in memory");
    out.into_inner()
}

fn disk() -> Vec<u8> {
    let (root, digest) = root_image();
    disk_of(root, format!("{digest}\n").as_bytes(), "powernode-root")
}

/// An ISO 9660 image with these files below `powernode`, and an EFI image to boot from.
fn iso(root: &[u8], stated: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("scratch");
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("powernode")).expect("made");
    fs::write(tree.join("powernode/root.ext4"), root).expect("written");
    fs::write(tree.join("powernode/initramfs.cpio.zst"), initramfs(root, stated)).expect("written");
    fs::write(tree.join("efi.img"), esp(root, stated)).expect("written");
    let (_, mut made) = check(
        &[dir.path()],
        "cd /inputs/0
        xorriso -as mkisofs -quiet -o /build/out/out.iso -r -V POWERNODE --set_all_file_dates =1700000000 \\
            --modification-date=2023111422132000 -e efi.img -no-emul-boot tree",
    );
    made.remove("out.iso").expect("made")
}

fn compressed(disk: &[u8], level: i32) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let level = ZstdLevel::of(level).expect("a level");
    qcow2::write(&disk.to_vec(), &mut out, level, NonZeroU32::MIN).expect("in memory");
    out.into_inner()
}

#[test]
fn equal_things_are_equal_whatever_they_are() {
    for (name, bytes) in [
        ("root.ext4", root_image().0.clone()),
        ("disk.raw", disk()),
        ("x", Vec::new()),
        ("y", pattern(9000)),
    ] {
        assert_eq!(compare(name, &bytes, &bytes), Comparison::default(), "{name}");
    }
}

#[test]
fn an_ext4_file_system_shows_its_label_its_files_and_the_root_digest() {
    let (image, root) = root_image();
    let node = looked("root.ext4", image);
    assert_eq!(node.format, Some("ext4"));
    assert_eq!(node.content["root digest"], root.to_string());
    assert!(node.content["features"].contains("verity"), "{:?}", node.content);
    let metadata = child(&node, "/image.cfs");
    assert_eq!(metadata.format, Some("composefs"));
    assert_eq!(metadata.content["root digest"], root.to_string());
    let names: Vec<&str> = metadata.children.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "/",
            "/file0",
            "/file1",
            "/file2",
            "/var",
            "/var/lib",
            "/var/lib/dpkg",
            "/var/lib/dpkg/status",
        ]
    );
    assert_eq!(child(metadata, "/file0").fields["size"], "70000");
}

#[test]
fn what_is_in_an_initramfs_is_found_through_its_streams() {
    let (image, root) = root_image();
    let bytes = initramfs(image, format!("{root}\n").as_bytes());
    let node = looked("initramfs.cpio.zst", &bytes);
    assert_eq!(node.format, Some("initramfs"));
    let content = child(child(&node, "segment 2"), "content");
    assert_eq!(content.format, Some("cpio"));
    assert_eq!(
        child(content, "/etc/powernode/root-digest").content["digest"],
        root.to_string()
    );
    assert_eq!(
        child(content, "/powernode/root.ext4").content["root digest"],
        root.to_string()
    );
    let found = find_root(&source(&bytes), "initramfs.cpio.zst", &scratch()).expect("there");
    assert_eq!(found.stated, format!("{root}\n").into_bytes());
    assert_eq!(found.image.size().expect("known"), image.len() as u64);
}

#[test]
fn a_difference_deep_inside_is_named_by_the_way_to_it() {
    let (image, _) = root_image();
    let object = large(image);
    let mut changed = image.clone();
    changed[object + 5000] ^= 1;
    let (a, b) = (initramfs(image, b"a\n"), initramfs(&changed, b"a\n"));
    let found = compare("initramfs.cpio.zst", &a, &b);
    assert_eq!(found.total, 1, "{found:#?}");
    let Difference {
        path,
        what: What::Content {
            offset: 5000, bytes: 1, ..
        },
        ..
    } = &found.differences[0]
    else {
        panic!("{found:#?}");
    };
    let way = path.join(" / ");
    let want = "initramfs.cpio.zst / segment 2 (zstd) / content / cpio / /powernode/root.ext4 / ext4 / /objects/";
    assert!(way.starts_with(want), "{way}");

    let (a, b) = (disk(), {
        let mut disk = disk();
        let object = large(&disk);
        disk[object + 5000] ^= 1;
        disk
    });
    let found = compare("disk.raw", &a, &b);
    assert_eq!(found.total, 1, "{found:#?}");
    let way = found.differences[0].path.join(" / ");
    assert!(
        way.starts_with("disk.raw / partition 2 \"powernode-root\" / ext4 / /objects/"),
        "{way}"
    );
    // The same disks, each in a qcow2 image.
    let found = compare("disk.qcow2", &compressed(&a, 3), &compressed(&b, 3));
    assert_eq!(found.total, 1, "{found:#?}");
    let way = found.differences[0].path.join(" / ");
    assert!(
        way.starts_with("disk.qcow2 / qcow2 / disk / partition 2 \"powernode-root\" / ext4 / /objects/"),
        "{way}"
    );
}

#[test]
fn boot_media_say_what_they_boot_and_how() {
    let node = looked("disk.raw", &disk());
    let esp = child(&node, "partition 1 \"powernode-esp\"");
    assert_eq!(esp.fields["type"], "EFI system");
    assert_eq!(
        (esp.format, &esp.content["label"][..], &esp.content["serial"][..]),
        (Some("FAT16"), "POWERNODE", "1234-ABCD")
    );
    let menu = child(esp, "/EFI/debian/grub.cfg");
    assert_eq!(menu.content["entry 1"], "Powernode node");
    assert_eq!(
        menu.content["entry 1 linux"],
        "/powernode/kernel powernode.boot=1 quiet"
    );
    assert_eq!(
        child(&node, "partition 2").content["root digest"],
        root_image().1.to_string()
    );

    let (root, digest) = root_image();
    let node = looked("install.iso", &iso(root, digest.to_string().as_bytes()));
    assert_eq!(
        (node.format, &node.content["label"][..]),
        (Some("ISO 9660"), "POWERNODE")
    );
    let boot = &node.content["boot 1"];
    assert!(boot.starts_with("EFI: /efi.img, "), "{boot}");
    assert_eq!(
        child(&node, "/powernode/root.ext4").content["root digest"],
        digest.to_string()
    );
    assert_eq!(child(&node, "/efi.img").format, Some("FAT16"));
}

#[test]
fn a_changed_menu_is_named_in_its_file_system() {
    let a = disk();
    let mut b = a.clone();
    let at = find(&b, b"quiet");
    b[at..at + 5].copy_from_slice(b"debug");
    let found = compare("disk.raw", &a, &b);
    let way = "disk.raw / partition 1 \"powernode-esp\" / FAT16 / /EFI/debian/grub.cfg";
    assert_eq!(places(&found), [way, way]);
    assert!(matches!(&found.differences[0].what, What::Field { field, .. } if field == "entry 1 linux"));
    assert!(
        matches!(
            found.differences[1].what,
            What::Content {
                offset: 72,
                bytes: 5,
                ..
            }
        ),
        "{found:#?}"
    );
    // A time of the file, which lies in the directory.
    let mut b = a.clone();
    let at = find(&b, b"GRUB    CFG");
    b[at + 22] ^= 1;
    assert_eq!(places(&compare("disk.raw", &a, &b)), [way]);
    // The second allocation table.
    let fat = find(&a, &[0xf8, 0xff, 0xff, 0xff]);
    let second = fat + 4 + find(&a[fat + 4..], &[0xf8, 0xff, 0xff, 0xff]);
    let mut b = a.clone();
    b[second + 3] ^= 0x80;
    // That the tables differ is a fault of its own.
    let esp = "disk.raw / partition 1 \"powernode-esp\"";
    let way = format!("{esp} / FAT16 / allocation table 2");
    assert_eq!(places(&compare("disk.raw", &a, &b)), [esp, &way]);
}

/// Writes an artifact of `variant` with these files and a root of this digest.
fn write_artifact(dir: &Path, variant: &str, files: &[(&str, Vec<u8>)], root: VerityDigest) {
    let files = files.iter().map(|(name, bytes)| (path(name), bytes.clone())).collect();
    let lock = lock();
    let mut facts = facts(&lock, root, &files);
    describe_as(&mut facts, variant);
    let statements = Statements::describe(&facts).expect("whole facts");
    fs::create_dir_all(dir).expect("made");
    write_all(dir, &files, &statements);
}

/// The detail of the root's check, and whether the whole audit held.
fn audited(dir: &Path) -> (bool, String) {
    let opener = ArtifactRoot { scratch: "/tmp".into() };
    let options = AuditOptions {
        opener: &opener,
        lock_sha256: None,
        policy: None,
    };
    let (ok, report) = match audit(dir, &options) {
        Ok(verified) => (true, verified.report().clone()),
        Err(AuditError::Failed { report, .. }) => (false, report),
        Err(error) => unreachable!("{error}"),
    };
    let root = report.checks.iter().find(|c| c.name == "root").expect("made");
    (ok, root.detail.clone())
}

#[test]
fn the_root_of_every_family_is_audited_where_it_lies() {
    let (root, digest) = root_image();
    let line = format!("{digest}\n").into_bytes();
    let wrong = format!("{}\n", VerityDigest::new([9; 32])).into_bytes();
    let mut damaged = root.clone();
    damaged[large(root) + 5000] ^= 1;
    type Make = fn(&[u8], &[u8]) -> Vec<u8>;
    let families: [(&str, &str, Make); 4] = [
        ("raw", "disk.raw", |root, stated| {
            disk_of(root, stated, "powernode-root")
        }),
        ("qcow2", "disk.qcow2", |root, stated| {
            compressed(&disk_of(root, stated, "powernode-root"), 3)
        }),
        ("iso", "install.iso", iso),
        ("ipxe", "initramfs.cpio.zst", initramfs),
    ];
    for (variant, name, make) in families {
        let dir = tempfile::tempdir().expect("scratch");
        let at = |case: &str| dir.path().join(case);
        write_artifact(&at("whole"), variant, &[(name, make(root, &line))], *digest);
        assert_eq!(
            audited(&at("whole")),
            (true, format!("{digest}: 3 objects, 75176 bytes")),
            "{variant}"
        );
        write_artifact(&at("stated"), variant, &[(name, make(root, &wrong))], *digest);
        let (ok, detail) = audited(&at("stated"));
        assert!(
            !ok && detail.contains("root digest stated in the artifact"),
            "{variant}: {detail}"
        );
        write_artifact(&at("damaged"), variant, &[(name, make(&damaged, &line))], *digest);
        let (ok, detail) = audited(&at("damaged"));
        assert!(
            !ok && detail.contains("fs-verity digest of \"objects/"),
            "{variant}: {detail}"
        );
        write_artifact(&at("empty"), variant, &[(name, pattern(100_000))], *digest);
        let (ok, detail) = audited(&at("empty"));
        assert!(!ok && detail.contains("find the root"), "{variant}: {detail}");
    }
    let dir = tempfile::tempdir().expect("scratch");
    let other = disk_of(root, &line, "another");
    write_artifact(&dir.path().join("a"), "raw", &[("disk.raw", other)], *digest);
    insta::assert_snapshot!(audited(&dir.path().join("a")).1, @r#"find the root: "disk.raw" has no partition named "powernode-root""#);
    write_artifact(
        &dir.path().join("b"),
        "oci",
        &[("oci/index.json", b"{}".to_vec())],
        *digest,
    );
    insta::assert_snapshot!(audited(&dir.path().join("b")).1, @r#"read the content of "oci-layout": No such file or directory (os error 2)"#);
}

#[test]
fn artifacts_that_belong_together_carry_one_root() {
    let (root, digest) = root_image();
    let line = format!("{digest}\n").into_bytes();
    let dir = tempfile::tempdir().expect("scratch");
    let raw = disk_of(root, &line, "powernode-root");
    write_artifact(
        &dir.path().join("raw/amd64"),
        "raw",
        &[("disk.raw", raw.clone())],
        *digest,
    );
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("initramfs.cpio.zst", initramfs(root, &line)),
        ("kernel", pattern(3000)),
    ];
    assert_eq!(artifact(root, &line).len(), files.len());
    write_artifact(
        &dir.path().join("kernel-initrd/amd64"),
        "kernel-initrd",
        &files,
        *digest,
    );
    let opener = ArtifactRoot { scratch: "/tmp".into() };
    let options = AuditOptions {
        opener: &opener,
        lock_sha256: None,
        policy: None,
    };
    let set = || audit_set(dir.path(), &options).expect("readable").expect("artifacts");
    let whole = set();
    assert!(whole.ok(), "{}", whole.table());
    let names: Vec<&String> = whole.artifacts.keys().collect();
    assert_eq!(names, ["kernel-initrd/amd64", "raw/amd64"]);
    let table = whole.table();
    assert!(
        table.ends_with(&format!("ok    one root  amd64: {digest} in 2 variants\n")),
        "{table}"
    );
    let directory = dir.path().to_str().expect("UTF-8");
    assert_eq!(pnb(&["audit", directory]).status.code(), Some(0));

    // Whole by itself, but another root.
    let (other, second) = root_image_of(&[pattern(9000)]);
    let bytes = compressed(&disk_of(&other, format!("{second}\n").as_bytes(), "powernode-root"), 3);
    write_artifact(
        &dir.path().join("qcow2/amd64"),
        "qcow2",
        &[("disk.qcow2", bytes)],
        second,
    );
    let torn = set();
    assert_eq!(torn.class(), Some(Class::Variants), "{}", torn.table());
    assert!(
        torn.table()
            .contains("FAIL  one root  the artifacts of amd64 carry 2 roots"),
        "{}",
        torn.table()
    );
    let output = pnb(&["--json", "audit", directory]);
    assert_eq!(output.status.code(), Some(49));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["checks"][1]["class"], "variants");
    fs::remove_dir_all(dir.path().join("qcow2")).expect("there");

    // Whole by itself, but in the wrong place.
    write_artifact(&dir.path().join("raw/arm64"), "raw", &[("disk.raw", raw)], *digest);
    let moved = set();
    assert_eq!(moved.class(), Some(Class::Variants));
    assert!(
        moved
            .table()
            .contains("artifact that the manifest of \"raw/arm64\" describes"),
        "{}",
        moved.table()
    );
    assert!(
        audit_set(&dir.path().join("raw/arm64"), &options)
            .expect("readable")
            .is_none()
    );
}

#[test]
fn the_same_content_stored_in_another_way_is_a_difference() {
    let (image, _) = root_image();
    let (a, b) = (zstd::encode_all(&image[..], 1), zstd::encode_all(&image[..], 9));
    let found = compare("x.zst", &a.expect("compressed"), &b.expect("compressed"));
    assert_eq!(places(&found), ["x.zst / (the same content, stored in another way)"]);
    let found = compare("disk.qcow2", &compressed(&disk(), 1), &compressed(&disk(), 9));
    assert_eq!(
        places(&found),
        ["disk.qcow2 / qcow2 / (the same content, stored in another way)"]
    );
}

#[test]
fn tables_and_facts_are_named() {
    let (image, _) = root_image();
    let mut changed = image.clone();
    // The volume's UUID and a byte of the boot block, which the file system does not use.
    changed[1024 + 0x68] ^= 1;
    changed[17] ^= 1;
    let found = compare("root.ext4", image, &changed);
    assert_eq!(
        places(&found),
        [
            "root.ext4",
            "root.ext4",
            "root.ext4 / ext4 / boot block",
            "root.ext4 / ext4 / superblock"
        ]
    );
    let What::Field { b: Some(b), .. } = &found.differences[0].what else {
        unreachable!("{found:?}")
    };
    assert!(b.contains("the superblock does not have its checksum"), "{b}");
    assert!(matches!(&found.differences[1].what, What::Field { field, .. } if field == "uuid"));
    assert!(matches!(found.differences[3].what, What::Content { offset: 0x68, .. }));

    let (a, mut b) = (disk(), disk());
    b[3] ^= 1;
    assert_eq!(places(&compare("disk.raw", &a, &b)), ["disk.raw / boot code"]);
    // The table's sums no longer hold: the whole side says which structure it is.
    b[512 + 60] ^= 1;
    let found = compare("disk.raw", &a, &b);
    assert_eq!(
        places(&found),
        ["disk.raw", "disk.raw / boot code", "disk.raw / primary GPT header"]
    );
}

#[test]
fn versions_of_packages_are_compared_by_name() {
    let a = br#"{"packages":[{"name":"bash","version":"5.2"},{"name":"libc6","version":"2.41-11"}]}"#;
    let b = br#"{"packages":[{"name":"libc6","version":"2.41-12"}]}"#;
    let found = compare("build-manifest.json", a, b);
    let packages: Vec<String> = found
        .differences
        .iter()
        .filter_map(|d| match &d.what {
            What::Package { package, a, b } => Some(format!("{package} {a:?} {b:?}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        packages,
        [r#"bash Some("5.2") None"#, r#"libc6 Some("2.41-11") Some("2.41-12")"#]
    );
}

/// Where each byte of the file system lies by what `mke2fs` was given.
fn owner(image: &[u8], at: usize) -> Option<&'static str> {
    let large = large(image);
    let metadata = find(image, &0xe0f5_e1e2u32.to_le_bytes()) - 1024;
    match at {
        _ if (large..large + 8192).contains(&at) => Some("/objects/"),
        _ if (metadata..metadata + 4096).contains(&at) => Some("/image.cfs"),
        _ if (1024..2048).contains(&at) => Some("superblock"),
        _ if at < 1024 => Some("boot block"),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_flipped_byte_is_reported_in_the_smallest_structure(at in any::<proptest::sample::Index>(), bit in 0u8..8, low in any::<bool>()) {
        let (image, _) = root_image();
        // Half of them among the tables at the beginning.
        let at = if low { at.index(32 * 1024) } else { at.index(image.len()) };
        let mut changed = image.clone();
        changed[at] ^= 1 << bit;
        let found = compare("root.ext4", image, &changed);
        prop_assert!(!found.equal());
        let last = found.differences.iter().any(|d| match owner(image, at) {
            Some(owner) => d.path.iter().any(|p| p.starts_with(owner)),
            None => d.path.len() >= 2 || matches!(d.what, What::Field { .. } | What::Format { .. }),
        });
        prop_assert!(last, "byte {at}: {found:#?}");
        // Somewhere the damage is said as bytes, a header or a fact, and never as more than it is.
        let bytes: u64 = found.differences.iter().map(|d| match d.what {
            What::Content { bytes, .. } | What::About { bytes, .. } => bytes,
            _ => 0,
        }).sum();
        prop_assert!(bytes <= 1, "{found:#?}");
    }

    #[test]
    fn any_flipped_byte_of_a_disk_or_an_initramfs_is_reported(at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let (image, root) = root_image();
        for (name, bytes) in [("disk.raw", disk()), ("initramfs.cpio.zst", initramfs(image, root.to_string().as_bytes()))] {
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= 1 << bit;
            prop_assert!(!compare(name, &bytes, &changed).equal(), "{name}");
        }
    }

    #[test]
    fn damaged_things_are_looked_at_without_a_panic(
        which in 0usize..5, cut in any::<proptest::sample::Index>(), whole in any::<bool>(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..12),
    ) {
        let (image, _) = root_image();
        let mut bytes = match which {
            0 => image.clone(),
            1 => disk(),
            2 => initramfs(image, b"x\n"),
            3 => esp(image, b"x\n"),
            _ => compressed(&disk(), 1),
        };
        for (at, value) in flips {
            let near = if value % 2 == 0 { bytes.len() } else { bytes.len().min(8192) };
            let at = at.index(near);
            bytes[at] = value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = looked("x", &bytes);
        let _ = find_root(&source(&bytes), "x", &scratch());
        let _ = compare("x", image, &bytes);
    }

    #[test]
    fn hostile_beginnings_never_panic(
        magic in 0usize..12, rest in proptest::collection::vec(any::<u8>(), 0..6000),
    ) {
        const MAGIC: [(usize, &[u8]); 12] = [
            (0, b"QFI\xfb\0\0\0\x03"), (512, b"EFI PART"), (1024, b"\xe2\xe1\xf5\xe0"), (1080, b"\x53\xef"), (0, b"070701"),
            (0, b"\x28\xb5\x2f\xfd"), (0, b"\x1f\x8b\x08"), (0, b"\xfd7zXZ\0"), (0, b"!<arch>\n"), (0, b"\x7fELF\x02\x01"),
            (0, b"MZ"), (257, b"ustar"),
        ];
        let (at, magic) = MAGIC[magic];
        let mut bytes = rest;
        if bytes.len() >= at + magic.len() {
            bytes[at..at + magic.len()].copy_from_slice(magic);
        }
        let _ = looked("x", &bytes);
        let _ = compare("x", &bytes, &pattern(5000));
    }
}

fn pnb(arguments: &[&str]) -> Output {
    let store = tempfile::tempdir().expect("scratch");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command
        .arg("--store")
        .arg(store.path())
        .args(arguments)
        .env_remove("ARCH")
        .env_remove("VARIANT");
    command.output().expect("starts")
}

/// Exit code and what was said, the directory's path and digests replaced.
fn said(dir: &Path, arguments: &[&str]) -> String {
    let output = pnb(arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text)
        .expect("UTF-8")
        .replace(dir.to_str().expect("UTF-8"), "<dir>");
    format!("exit {}\n{}", output.status.code().expect("exits"), text.trim_end())
}

#[test]
fn the_command_line_says_what_differs_and_ends_as_diff_does() {
    let dir = tempfile::tempdir().expect("scratch");
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    for (at, menu, size) in [(&a, "linux /kernel quiet", 70), (&b, "linux /kernel debug", 71)] {
        fs::create_dir(at).expect("made");
        fs::write(at.join("grub.cfg"), format!("menuentry 'Node' {{\n {menu}\n}}\n")).expect("written");
        fs::write(at.join("data"), pattern(size)).expect("written");
        fs::write(at.join("same"), "same\n").expect("written");
    }
    fs::write(b.join("more"), "x").expect("written");
    let (a, b) = (a.to_str().expect("UTF-8"), b.to_str().expect("UTF-8"));
    insta::assert_snapshot!(said(dir.path(), &["diff", a, b]), @r#"
    exit 1
    other         +1 -0 ~2 files and structures

    other
      ~ data      content differs at byte 70 (1 byte differs, 70 against 71 long): ">?@ABCDE" against ">?@ABCDEF"
      ~ grub.cfg  entry 1 linux is "/kernel quiet" in the first, "/kernel debug" in the second
      + more      1 B
    "#);
    insta::assert_snapshot!(said(dir.path(), &["diff", a, b, "--limit", "1", "-v"]), @r#"
    exit 1
    other         +1 -0 ~2 files and structures

    other
      ~ data  content differs at byte 70 (1 byte differs, 70 against 71 long): ">?@ABCDE" against ">?@ABCDEF"
      and 2 more

    every difference
      data: content differs at byte 70 (1 byte differs, 70 against 71 long): ">?@ABCDE" against ">?@ABCDEF"
      and 3 more
    "#);
    insta::assert_snapshot!(said(dir.path(), &["--json", "diff", a, b]), @r#"
    exit 1
    {"a":">?@ABCDE","b":">?@ABCDEF","bytes":1,"difference":"content","offset":70,"part":"other","path":["data"],"sizes":[70,71]}
    {"a":"/kernel quiet","b":"/kernel debug","difference":"field","field":"entry 1 linux","part":"other","path":["grub.cfg"]}
    {"a":"/kernel quiet\\n}\\n","b":"/kernel debug\\n}\\n","bytes":5,"difference":"content","offset":34,"part":"other","path":["grub.cfg"],"sizes":[42,42]}
    {"difference":"only-in-b","kind":"file","part":"other","path":["more"],"size":1}
    {"equal":false,"notes":[],"summary":[{"counts":{"added":1,"changed":2,"removed":0},"equal":false,"name":"other","text":"+1 -0 ~2 files and structures"}],"total":4}
    "#);
    assert_eq!(said(dir.path(), &["diff", a, a]), "exit 0\nno byte differs");
    insta::assert_snapshot!(said(dir.path(), &["diff", a, &format!("{a}/data")]), @r#"
    exit 1
    other         +0 -0 ~1 files and structures

    other
      ~ a  directory in the first, file in the second
    "#);
    insta::assert_snapshot!(said(dir.path(), &["inspect", &format!("{a}/grub.cfg")]), @"
    exit 0
    grub.cfg: GRUB configuration, 42 B
      sha256           fcc42d8a7c5af605276b373dab5b1c31752837305232b2be4f210ba282cea645
      entry 1          Node
      entry 1 linux    /kernel quiet
    1 part, no problem
    ");
    insta::assert_snapshot!(said(dir.path(), &["inspect", &format!("{a}/nothing")]), @"
    exit 2
    error: failed to find <dir>/a/nothing: there is no such file or directory
    ");
    insta::assert_snapshot!(said(dir.path(), &["diff", a, &format!("{a}/nothing")]), @"
    exit 2
    error: failed to find <dir>/a/nothing: there is no such file or directory
    ");
    insta::assert_snapshot!(said(dir.path(), &["--json", "inspect", &format!("{a}/same")]), @r#"
    exit 0
    {"format":"text","kind":"file","name":"same","next":[],"offset":0,"parts":1,"problems":0,"sha256":"a6328afc76e9db71da297ebff4b0d3e7a7eb3b01d917c05a6573fef121b6ecb6","size":5,"summary":"1 part, no problem"}
    "#);
}
