//! One target for each reader of bytes from outside: a function that must return for any input, within its limits.
//!
//! A panic is a finding, and so is an assertion here: about the work that was done, and about what was read and is written again. The table
//! is used by the fuzzer (`main.rs`) and by the tests, which replay the inputs in `regressions/`.

use pnb::{
    audit::Policy,
    boot::{
        Loaders,
        raspi::{Card, Config},
    },
    debian::{
        BinaryPackage, ControlReader, Keyring, Paragraph, Relations, Release, TarLimits, deb_tree, read_control,
        verify_cleartext,
    },
    fetch::{parse_one_line, parse_stanzas},
    graph::parse_stage,
    image::{
        ReadAt, Source, composefs,
        cpio::{CpioReader, read_tree, segments},
        elf::read_elf,
        ext4::{Ext4, FileKind},
        fat::Fat,
        gpt,
        iso::Iso,
        kmod::{BuiltinModules, ModuleReader, ModuleSet, indexes, parse_facts, parse_wanted, write_facts},
        mbr,
        oci::{
            AppliedLayers, ImageFacts, LAYOUT_FILE, LayerCompression, LayerEntries, LayerLimits, LayoutReader,
            OCI_INDEX, OciImage, WrittenLayer, apply_layers, blob_path, image_documents, layout_file, layout_index,
            take_kernel, write_layer,
        },
        qcow2::Qcow2,
    },
    inspect::{Part, SpoolDirectory, diff, find_root, open, survey},
    lock::{Index, parse_archives, parse_lock, write_lock},
    manifest::{Bom, BuildRecord, Manifest, Statement, Sums, read_strict, read_value, write_value},
    model::{Arch, Epoch, RelPath, Sha256Digest, VerityDigest, parse_dump, write_dump},
    verity::{Both, digest_bytes},
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Cursor, Read},
    num::NonZeroU32,
    sync::Arc,
};

/// A target: reads any bytes.
pub(crate) type Target = fn(&[u8]);

/// All targets by their names.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("archives", |data| text(data, |t| drop(parse_archives(t, "x")))),
    ("card", card),
    ("composefs", composefs_image),
    ("config", config),
    ("control", control),
    ("cpio", cpio),
    ("deb", deb),
    ("diff", compare),
    ("dump", dump),
    ("elf", |data| drop(read_elf(&data.to_vec()))),
    ("ext4", ext4),
    ("facts", facts),
    ("fat", fat),
    ("gpt", gpt_disk),
    ("index", index),
    ("inspect", inspect),
    ("iso", iso),
    ("json", json),
    ("keyring", |data| drop(Keyring::parse(data, "x"))),
    ("kmod", kmod),
    ("layers", |data| _ = layers(data)),
    ("layout", |data| _ = layout(data)),
    ("lists", lists),
    ("loaders", |data| drop(Loaders::of(&source(data), "x", &scratch()))),
    ("lock", lock),
    ("manifest", manifest),
    ("mbr", |data| drop(mbr::read(&data.to_vec()))),
    ("mirrors", mirrors),
    ("policy", |data| text(data, |t| drop(Policy::parse(t, "x")))),
    ("qcow2", qcow2),
    ("release", |data| text(data, |t| drop(Release::parse(t, "x")))),
    ("root", |data| drop(find_root(&source(data), "x", &scratch()))),
    ("signed", signed),
    ("stage", |data| text(data, |t| drop(parse_stage(t, "x")))),
    ("tar", tar),
];

/// The target of this name.
pub(crate) fn target(name: &str) -> Option<Target> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, target)| *target)
}

fn source(data: &[u8]) -> Source {
    Arc::new(data.to_vec())
}

/// Long content of compressed streams goes here; a memory file system costs the fuzzer no disk.
fn scratch() -> SpoolDirectory {
    let shm = std::path::Path::new("/dev/shm");
    SpoolDirectory::new(if shm.is_dir() {
        shm
    } else {
        std::path::Path::new("/tmp")
    })
}

fn text(data: &[u8], read: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
}

/// The limits of docs/inspect.md.
fn check_work(part: &Part) {
    let (work, size) = (part.work(), part.size);
    assert!(work.parts <= (1 << 18) + size / 4096, "{work:?}");
    assert!(work.examined <= 4096 + size / 512, "{work:?}");
    assert!(work.hashed <= (512 << 20) + 16 * size, "{work:?}");
    assert!(work.read <= (1 << 30) + 64 * size, "{work:?}");
    assert!(work.unpacked <= (1 << 30) + 64 * size, "{work:?}");
}

fn inspect(data: &[u8]) {
    let part = open(source(data), "x").expect("in memory");
    let node = survey(&part, &scratch(), 16, data.len().is_multiple_of(2)).expect("in memory");
    check_work(&part);
    serde_json::to_string(&node).expect("names and facts are text");
}

/// The first byte divides the rest into two sides.
fn compare(data: &[u8]) {
    let Some((at, rest)) = data.split_first() else { return };
    let (a, b) = rest.split_at(rest.len() * usize::from(*at) / 256);
    let sides = [a, b].map(|bytes| open(source(bytes), "x").expect("in memory"));
    let found = diff((&sides[0], None), (&sides[1], None), &scratch(), 50).expect("in memory");
    assert_eq!(found.equal(), a == b, "{found:#?}");
    sides.iter().for_each(check_work);
    let again = open(source(a), "x").expect("in memory");
    assert!(
        diff((&again, None), (&again, None), &scratch(), 50)
            .expect("in memory")
            .equal()
    );
}

fn composefs_image(data: &[u8]) {
    if let Ok(listed) = composefs::list(data, 10_000) {
        assert!(listed.len() <= 10_000);
    }
    let _ = composefs::referenced_objects(data);
}

fn cpio(data: &[u8]) {
    let mut reader = CpioReader::new(data);
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(entry.offset < data.len() as u64);
        if entry.size.is_multiple_of(2) {
            let read = io::copy(&mut reader, &mut io::sink());
            assert!(read.map_or(true, |n| n == u64::from(entry.size)));
        }
    }
    if let Ok(found) = segments(Cursor::new(data)) {
        let ends = found.iter().map(|s| s.offset + s.len);
        assert!(
            ends.zip(found.iter().skip(1)).all(|(end, next)| end <= next.offset),
            "{found:?}"
        );
    }
    let _ = read_tree(data, &mut |_, content| put(content));
}

/// Digest and length of a content.
fn put(content: &mut dyn Read) -> io::Result<(VerityDigest, u64)> {
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes)?;
    Ok((digest_bytes(&bytes), bytes.len() as u64))
}

fn deb(data: &[u8]) {
    let limits = TarLimits {
        entries: 1000,
        bytes: 8 << 20,
        header_bytes: 64 << 10,
    };
    let _ = read_control(data, "x");
    let _ = deb_tree(data, "x", &limits, &mut put);
}

/// A package whose data archive is the input.
fn tar(data: &[u8]) {
    let mut package = b"!<arch>\n".to_vec();
    let mut member = |name: &str, bytes: &[u8]| {
        package.extend(format!("{name:<16}0           0     0     100644  {:<10}`\n", bytes.len()).bytes());
        package.extend(bytes);
        if package.len() % 2 == 1 {
            package.push(b'\n');
        }
    };
    member("debian-binary", b"2.0\n");
    member("control.tar", &[0; 1024]);
    member("data.tar", data);
    deb(&package);
}

fn dump(data: &[u8]) {
    text(data, |t| {
        if let Ok(tree) = parse_dump(t) {
            let written = write_dump(&tree);
            assert_eq!(write_dump(&parse_dump(&written).expect("just written")), written);
        }
    });
}

fn ext4(data: &[u8]) {
    let Ok(fs) = Ext4::open(data.to_vec()) else { return };
    let _ = (fs.facts(), fs.regions());
    let mut waiting: Vec<_> = fs.root().into_iter().collect();
    for _ in 0..200 {
        let Some(inode) = waiting.pop() else { return };
        let _ = (fs.sealed_digest(&inode), fs.verity(&inode), fs.owner_and_times(&inode));
        match inode.kind() {
            FileKind::Directory => {
                let entries = fs.read_dir(&inode).unwrap_or_default();
                waiting.extend(entries.iter().take(100).flat_map(|entry| fs.inode(entry.inode)));
            }
            FileKind::File => {
                if let Ok(file) = fs.file(&inode) {
                    let _ = io::copy(&mut file.take(1 << 20), &mut io::sink());
                }
            }
            FileKind::Symlink => drop(fs.read_link(&inode)),
            FileKind::Special => {}
        }
    }
}

fn fat(data: &[u8]) {
    let Ok(fs) = Fat::open(data.to_vec()) else { return };
    let _ = (fs.label(), fs.check());
    let (all, damage) = fs.walk_and_damage();
    assert_eq!(fs.walk().is_ok(), damage.is_empty(), "{damage:?}");
    for (path, entry) in all.iter().take(100) {
        let _ = fs.lookup(path);
        if let Ok(file) = fs.file(entry) {
            let _ = file.read_exact_at(&mut [0; 16], u64::from(entry.size) / 2);
        }
    }
}

fn gpt_disk(data: &[u8]) {
    let disk = data.to_vec();
    let sound = gpt::read(&disk);
    let found = gpt::examine(&disk);
    if let Ok(table) = sound {
        let found = found.expect("a sound table is found");
        assert!(found.sector_size != 512 || found.problems.is_empty(), "{found:?}");
        assert!(found.sector_size != 512 || found.partitions.len() == table.partitions.len());
    }
}

fn iso(data: &[u8]) {
    let Ok(fs) = Iso::open(data.to_vec()) else { return };
    let (tree, damage) = fs.tree_and_damage();
    assert_eq!(fs.tree().is_ok(), damage.is_empty(), "{damage:?}");
    for (path, entry) in tree.iter().take(100) {
        let _ = (fs.lookup(path), fs.file(entry));
    }
    if let Ok(Some(catalog)) = fs.boot_catalog() {
        for entry in &catalog.entries {
            let _ = (fs.boot_image(entry), fs.boot_info(entry));
        }
    }
}

fn qcow2(data: &[u8]) {
    let Ok(disk) = Qcow2::open(data.to_vec()) else { return };
    let Ok(size) = disk.size() else { return };
    let mut piece = vec![0; 64 << 10];
    for index in 0..32 {
        let at = size / 32 * index;
        let n = (size - at).min(piece.len() as u64) as usize;
        let _ = disk.read_exact_at(&mut piece[..n], at);
    }
    assert!(disk.read_exact_at(&mut [0], size).is_err());
}

/// A card is loaded into a directory that is removed again.
fn card(data: &[u8]) {
    let Ok(card) = Card::open(&source(data), "x", &scratch()) else {
        return;
    };
    let to = tempfile::tempdir().expect("scratch");
    if card.has_config() {
        let _ = card.load(to.path());
    }
}

fn config(data: &[u8]) {
    text(data, |t| {
        // A file that includes itself is the worst one.
        if let Ok(config) = Config::parse(t, &|_| Ok(t.to_owned())) {
            let _ = (
                config.files(&|name| Ok(name.len().is_multiple_of(2))),
                config.get("kernel"),
            );
        }
    });
}

fn control(data: &[u8]) {
    let mut reader = ControlReader::new(data, "x");
    let mut paragraph = Paragraph::default();
    while let Ok(true) = reader.read(&mut paragraph) {
        let _ = BinaryPackage::from_paragraph(&paragraph, "x");
    }
    text(data, |t| drop(Relations::parse(t)));
}

fn index(data: &[u8]) {
    let _ = Index::new(Arch::Amd64).read("archive", true, data, "x");
}

fn facts(data: &[u8]) {
    text(data, |t| {
        let Ok(facts) = parse_facts(t) else { return };
        let Ok(set) = ModuleSet::new(facts, "") else { return };
        let written = write_facts(&set);
        let again = ModuleSet::new(parse_facts(&written).expect("just written"), "").expect("it was one");
        assert_eq!(write_facts(&again), written);
        let builtin = BuiltinModules::parse("kernel/a.ko\n", b"a.alias=b\0").expect("lists");
        let _ = indexes(&set, &builtin);
    });
}

fn kmod(data: &[u8]) {
    thread_local! {
        // A reader has a large buffer, which is reused as it is for all modules of a kernel.
        static READER: RefCell<ModuleReader> = RefCell::default();
    }
    READER.with_borrow_mut(|reader| {
        let _ = reader.read("kernel/x.ko", data, Arch::Amd64);
    });
}

fn lists(data: &[u8]) {
    text(data, |t| {
        let _ = (parse_wanted("x", t), BuiltinModules::parse(t, data));
    });
}

fn lock(data: &[u8]) {
    text(data, |t| {
        if let Ok(lock) = parse_lock(t, "x") {
            let written = write_lock(&lock).expect("it was read");
            assert_eq!(
                write_lock(&parse_lock(&written, "x").expect("just written")).expect("read"),
                written
            );
        }
    });
}

fn json(data: &[u8]) {
    if let Ok(value) = read_strict(data, "x")
        && let Ok(written) = write_value(&value)
    {
        assert_eq!(read_value(written.as_bytes(), "x").expect("just written"), value);
    }
    let _ = read_value(data, "x");
}

fn manifest(data: &[u8]) {
    let _ = (
        Manifest::read(data, "x"),
        Statement::read(data, "x"),
        Bom::read(data, "x"),
    );
    let _ = (BuildRecord::read(data, "x"), Sums::parse(data));
}

fn mirrors(data: &[u8]) {
    text(data, |t| {
        let _ = (parse_one_line("x", t), parse_stanzas("x", t));
    });
}

/// The keyring and the document are the same bytes: both are armored blocks, which are found in any text.
fn signed(data: &[u8]) {
    let half = data.len() / 2;
    for keys in [data, &data[..half]] {
        if let Ok(keyring) = Keyring::parse(keys, "x") {
            let _ = verify_cleartext(&data[half..], "x", &keyring, 1_700_000_000);
            return;
        }
    }
}

/// The files of an image layout by their paths.
pub(crate) type LayoutFiles = BTreeMap<String, Vec<u8>>;

pub(crate) fn sha256(bytes: &[u8]) -> Sha256Digest {
    let mut both = Both::new();
    both.update(bytes);
    both.finish().sha256
}

/// A layout as one input: each file as the length of its name in one byte, the name, the length of its content in four, and the content.
pub(crate) fn layout_files(mut data: &[u8]) -> LayoutFiles {
    fn take<'a>(data: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = data.split_at_checked(count)?;
        *data = rest;
        Some(taken)
    }
    let mut file = || {
        let length = take(&mut data, 1)?[0];
        let name = String::from_utf8_lossy(take(&mut data, length.into())?).into_owned();
        let length: [u8; 4] = take(&mut data, 4)?.try_into().ok()?;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?.min(data.len());
        Some((name, take(&mut data, length)?.to_vec()))
    };
    std::iter::from_fn(&mut file).collect()
}

/// Applies the layers of each image in a layout; returns the entries of all.
pub(crate) fn layout(data: &[u8]) -> usize {
    let files = layout_files(data);
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> {
        let bytes = files.get(&path.to_string()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    };
    let layout = LayoutReader::new(&open);
    let Ok(found) = layout.manifests() else { return 0 };
    assert!(found.len() <= 64);
    let images = found.iter().flat_map(|descriptor| OciImage::read(&layout, descriptor));
    let applied = images.flat_map(|image| {
        assert!((1..=127).contains(&image.layers.len()));
        let _ = image.claimed_root();
        applied(&layout, &image, &mut BTreeMap::new())
    });
    applied.map(|applied| applied.tree.len()).sum()
}

/// Applies the layers of an image within small limits, which hold.
fn applied(
    layout: &LayoutReader<'_>,
    image: &OciImage,
    contents: &mut BTreeMap<VerityDigest, Vec<u8>>,
) -> Option<AppliedLayers> {
    let limits = LayerLimits {
        entries: 2000,
        bytes: 8 << 20,
        names: 1 << 20,
    };
    let mut read = 0;
    let mut put = |_: &RelPath, content: &mut dyn Read| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let (digest, size) = (digest_bytes(&bytes), bytes.len() as u64);
        read += size;
        contents.insert(digest, bytes);
        Ok((digest, size))
    };
    let applied = apply_layers(layout, image, Epoch::new(1), &limits, &mut put);
    assert!(read <= limits.bytes, "{read} bytes of contents");
    let applied = applied.ok()?;
    assert!(applied.bytes <= limits.bytes && applied.tree.len() as u64 <= limits.entries);
    let names: usize = applied.tree.iter().map(|(path, _)| path.as_bytes().len()).sum();
    assert!(names as u64 <= limits.names, "{names} bytes of names");
    let _ = take_kernel(&mut applied.tree.clone());
    Some(applied)
}

/// An image of these archives, applied; `None` if it is refused.
fn image_of(archives: &[&[u8]], contents: &mut BTreeMap<VerityDigest, Vec<u8>>) -> Option<AppliedLayers> {
    let mut files = LayoutFiles::new();
    let mut layers = Vec::new();
    for archive in archives {
        let blob = zstd::encode_all(*archive, 1).expect("in memory");
        let written = WrittenLayer {
            digest: sha256(&blob),
            size: blob.len() as u64,
            diff_id: sha256(archive),
            compression: LayerCompression::Zstd,
        };
        files.insert(blob_path(&written.digest), blob);
        layers.push(("layer".to_owned(), written));
    }
    let facts = ImageFacts {
        arch: Arch::Amd64,
        created: Epoch::new(1),
        kernel_version: "1",
        root: VerityDigest::new([0; 32]),
    };
    let (config, manifest) = image_documents(&facts, &layers).expect("documents");
    for document in [&config, &manifest] {
        files.insert(blob_path(&document.digest()), document.bytes.clone());
    }
    files.insert(LAYOUT_FILE.to_owned(), layout_file().expect("text"));
    let index = layout_index(&manifest.descriptor).expect("an index");
    files.insert(OCI_INDEX.to_owned(), index);
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> {
        let bytes = files.get(&path.to_string()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    };
    let layout = LayoutReader::new(&open);
    let image = OciImage::find(&layout, Arch::Amd64).expect("just written");
    applied(&layout, &image, contents)
}

/// Two layers, which the first byte divides; their tree, written as one layer, is the same when it is read again. Returns its entries.
pub(crate) fn layers(data: &[u8]) -> usize {
    let Some((at, rest)) = data.split_first() else { return 0 };
    let (lower, upper) = rest.split_at(rest.len() * usize::from(*at) / 256);
    let archives = if upper.is_empty() {
        vec![lower]
    } else {
        vec![lower, upper]
    };
    let mut contents = BTreeMap::new();
    let Some(AppliedLayers { tree, .. }) = image_of(&archives, &mut contents) else {
        return 0;
    };
    let entries = LayerEntries {
        root: Some(tree.root()),
        entries: tree.iter().collect(),
    };
    let open =
        |digest: &VerityDigest| -> io::Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(contents[digest].clone()))) };
    let mut again = Vec::new();
    let written = write_layer(&entries, &open, LayerCompression::Gzip, NonZeroU32::MIN, &mut again);
    // Owners above the octal digits of a header are read and not written.
    if written.is_ok() {
        let mut archive = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&again[..]);
        decoder.read_to_end(&mut archive).expect("just written");
        let second = image_of(&[&archive], &mut contents).expect("just written");
        assert_eq!(second.tree, tree);
    }
    tree.len()
}
