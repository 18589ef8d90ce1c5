//! One target for each reader of bytes from outside: a function that must return for any input, within its limits.
//!
//! A panic is a finding, and so is an assertion here: about the work that was done, and about what was read and is written again. The table
//! is used by the fuzzer (`main.rs`) and by the tests, which replay the inputs in `regressions/`.

#[path = "image_targets.rs"]
pub(crate) mod image_targets;
#[path = "serve_targets.rs"]
pub(crate) mod serve_targets;

pub(crate) use image_targets::{layers, layout};
use pnb::{
    audit::Policy,
    boot::{
        Loaders,
        raspi::{Card, Config},
    },
    debian::{
        BinaryPackage, ControlReader, JudgedAt, Keyring, Paragraph, Relations, Release, TarLimits, deb_tree,
        read_control, read_installed, read_licences, verify_cleartext, verify_detached,
    },
    fetch::{parse_one_line, parse_stanzas},
    graph::parse_stage,
    http::{HeaderMap, HeaderValue, Uri, header, join, retry_after, shown},
    image::{
        ReadAt, Source, composefs,
        cpio::{CpioReader, read_tree, segments},
        elf::read_elf,
        ext4::{Ext4, FileKind, replay},
        fat::Fat,
        gpt,
        iso::Iso,
        kmod::{BuiltinModules, ModuleReader, ModuleSet, indexes, parse_facts, parse_wanted, write_facts},
        mbr,
        qcow2::Qcow2,
    },
    inspect::{Part, SpoolDirectory, diff, find_root, open, survey},
    lock::{ArchiveRank, Index, IndexScope, parse_archives, parse_lock, write_lock},
    manifest::{Bom, BuildRecord, Manifest, Statement, Sums, read_strict, read_value, write_value},
    model::{Arch, Sha256Digest, VerityDigest, parse_dump, write_dump},
    module::{ModuleList, ModulePublicKey, ModuleSecretKey},
    registry::{AuthChallenge, CredentialFile, Credentials, ImageReference, parse_challenges, parse_manifest},
    sign::{BundleVerifier, ExpectedSigner, IdentityToken, Purpose, SIGN_PREDICATE_TYPE, SigningConfig, TrustedRoot},
    verity::digest_bytes,
};
pub(crate) use serve_targets::tftp_transfer;
use std::{
    cell::RefCell,
    io::{self, Cursor, Read},
    sync::{Arc, LazyLock},
};

/// A target: reads any bytes.
pub(crate) type Target = fn(&[u8]);

/// All targets by their names.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("archives", |data| text(data, |t| drop(parse_archives(t, "x")))),
    ("bundle", bundle),
    ("card", card),
    ("challenge", challenge),
    ("composefs", composefs_image),
    ("config", config),
    ("control", control),
    ("cpio", cpio),
    ("credentials", credentials),
    ("deb", deb),
    ("diff", compare),
    ("dump", dump),
    ("elf", |data| drop(read_elf(&data.to_vec()))),
    ("ext4", ext4),
    ("facts", facts),
    ("fat", fat),
    ("gpt", gpt_disk),
    ("http", serve_targets::http),
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
    ("mbr", |data| {
        drop((mbr::read(&data.to_vec()), mbr::examine(&data.to_vec())))
    }),
    ("mirrors", mirrors),
    ("modules", modules),
    ("policy", |data| text(data, |t| drop(Policy::parse(t, "x")))),
    ("qcow2", qcow2),
    ("reference", reference),
    ("registry", registry),
    ("release", |data| text(data, |t| drop(Release::parse(t, "x")))),
    ("root", |data| drop(find_root(&source(data), "x", &scratch()))),
    ("signed", signed),
    ("signing-config", signing_config),
    ("stage", |data| text(data, |t| drop(parse_stage(t, "x")))),
    ("tar", tar),
    ("tftp", |data| _ = tftp_transfer(data)),
    ("token", token),
    ("trusted-root", trusted_root),
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
    files_of_ext4(data.to_vec());
    // What the journal makes of it is a file system of its own.
    if let Ok(Some(replayed)) = replay(data.to_vec()) {
        let size = replayed.image.size().expect("in memory");
        let mut all = vec![0; size as usize];
        replayed.image.read_exact_at(&mut all, 0).expect("all of it");
        assert!(matches!(replay(all), Ok(None) | Err(_)), "a journal is replayed once");
        files_of_ext4(replayed.image);
    }
}

fn files_of_ext4<R: ReadAt>(image: R) {
    let Ok((fs, _)) = Ext4::open_any(image) else {
        return;
    };
    let _ = (fs.facts(), fs.regions());
    let mut waiting: Vec<_> = fs.root().into_iter().collect();
    for _ in 0..200 {
        let Some(inode) = waiting.pop() else { return };
        let _ = (fs.sealed_digest(&inode), fs.verity(&inode), fs.owner_and_times(&inode));
        let _ = (fs.attributes(&inode), fs.checksum_problem(&inode), fs.runs(&inode));
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
    let _ = fs.findings(&all, damage.is_empty());
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
        assert!(found.problems.is_empty(), "{found:?}");
        assert_eq!(
            (found.sector_size, found.partitions.len()),
            (table.sector_size, table.partitions.len())
        );
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
    if let Ok(installed) = read_installed(data, "x") {
        assert!(installed.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
    }
    let licences = read_licences(data);
    assert!(licences.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
    text(data, |t| drop(Relations::parse(t)));
}

fn index(data: &[u8]) {
    for scope in [IndexScope::OneArchitecture, IndexScope::AllArchitectures] {
        let _ = Index::new(Arch::Amd64).read("archive", ArchiveRank::USUAL, data, "x", scope);
    }
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

/// A list prints as the text that it was read from, apart from the case of the instance; the same bytes are a key and a signed text.
fn modules(data: &[u8]) {
    text(data, |t| {
        if let Ok(list) = ModuleList::parse(t, "x") {
            assert!(list.to_string().eq_ignore_ascii_case(t), "{list}");
        }
        let _ = ModuleSecretKey::parse(t, "x");
        if let Ok(key) = ModulePublicKey::parse(t, "x") {
            let _ = key.verify(t, "x");
        }
    });
}

/// The keyring and the document are the same bytes: both are armored blocks, which are found in any text.
fn signed(data: &[u8]) {
    let half = data.len() / 2;
    for keys in [data, &data[..half]] {
        if let Ok(keyring) = Keyring::parse(keys, "x") {
            let _ = verify_cleartext(&data[half..], "x", &keyring, JudgedAt::Snapshot(1_700_000_000));
            let _ = verify_detached(b"x", &data[half..], "x", &keyring, JudgedAt::Snapshot(1_700_000_000));
            return;
        }
    }
}

/// A header `WWW-Authenticate`.
fn challenge(data: &[u8]) {
    text(data, |t| {
        let found = parse_challenges(t);
        // Every challenge but the first follows a comma.
        assert!(found.len() <= 1 + t.matches(',').count(), "{found:?}");
        for challenge in found {
            if let AuthChallenge::Bearer { realm, service, error } = challenge {
                assert!(!realm.is_empty());
                let longest = [Some(realm), service, error]
                    .into_iter()
                    .flatten()
                    .map(|v| v.len())
                    .max();
                assert!(longest <= Some(t.len()));
            }
        }
    });
}

/// A file of credentials, asked for three registries.
fn credentials(data: &[u8]) {
    let Ok(file) = CredentialFile::parse(data, std::path::Path::new("x")) else {
        return;
    };
    for (registry, repository) in [("r.example", "team/app"), ("s.example:5000", "x"), ("", "")] {
        if let Ok(Credentials::Password { user, password }) = file.get(registry, repository) {
            assert!(!user.is_empty() && !user.chars().chain(password.chars()).any(char::is_control));
        }
    }
}

/// The name of an image.
fn reference(data: &[u8]) {
    text(data, |t| {
        if let Ok(name) = t.parse::<ImageReference>() {
            // A host has no case.
            assert!(name.to_string().eq_ignore_ascii_case(t), "{name}");
            assert_eq!(name.to_string().parse::<ImageReference>().expect("just written"), name);
            assert!(
                format!("https://{}/v2/{}/", name.registry(), name.repository())
                    .parse::<Uri>()
                    .is_ok()
            );
        }
    });
}

/// Answers of a registry: a manifest or index, a `Location`, a `Retry-After`.
fn registry(data: &[u8]) {
    const KINDS: [&str; 4] = [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    let read = KINDS.map(|kind| parse_manifest(kind, data));
    for content in read.iter().flatten() {
        let named = content.needs().into_iter().chain(content.subject());
        assert!(named.into_iter().all(|d| d.digest().as_ref().starts_with("sha256:")));
    }
    // No text is a manifest to one reader and an index to another.
    for (manifest, index) in [(0, 1), (2, 3)] {
        assert!(read[manifest].is_err() || read[index].is_err());
    }
    text(data, |t| {
        shown(t);
        if let Some(joined) = join("https://r.example/v2/x/blobs/uploads/", t) {
            let uri: Uri = joined.parse().expect("an address");
            assert!(uri.host().is_some() && uri.scheme().is_some(), "{joined}");
        }
        if let Ok(value) = HeaderValue::from_str(t) {
            retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, value)]), 1_796_000_000);
        }
    });
}

/// The root, the artifact and the signer of the seeds.
static VERIFIER: LazyLock<BundleVerifier> = LazyLock::new(|| {
    let root = include_bytes!("../seeds/trusted-root/trusted_root.json");
    BundleVerifier::new(&TrustedRoot::parse(root, "x").expect("a seed")).expect("a seed")
});
pub(crate) const ARTIFACT: &str = "87cb315877c169f78277527511bea380918cdef25edbc106b6ae27fb1d30510a";

pub(crate) fn signer() -> ExpectedSigner {
    ExpectedSigner {
        identity: "https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1".to_owned(),
        issuer: "https://git.test/api/actions".to_owned(),
    }
}

/// Whether the bytes are a signature of the seeds' artifact.
pub(crate) fn is_signature(data: &[u8], purpose: Purpose<'_>) -> bool {
    let artifact: Sha256Digest = ARTIFACT.parse().expect("a digest");
    match VERIFIER.verify(data, &artifact, purpose, &signer()) {
        Ok(verified) => {
            assert_eq!((verified.json().as_bytes(), verified.artifact()), (data, artifact));
            assert!(verified.time() > 1_700_000_000);
            true
        }
        Err(refusal) => {
            assert!(
                refusal.reason.len() < 2000 && !refusal.reason.contains('\n'),
                "{refusal}"
            );
            false
        }
    }
}

fn bundle(data: &[u8]) {
    let image = is_signature(data, Purpose::Image);
    // A signature of an image is one of a file with the same digest, and its statement is the statement.
    assert!(!image || is_signature(data, Purpose::File));
    assert_eq!(image, is_signature(data, Purpose::Statement(SIGN_PREDICATE_TYPE)));
}

fn trusted_root(data: &[u8]) {
    if let Ok(root) = TrustedRoot::parse(data, "x") {
        let _ = BundleVerifier::new(&root);
    }
}

fn signing_config(data: &[u8]) {
    if let Ok(config) = SigningConfig::parse(data, "x") {
        let _ = (config.check(0), config.check(1_790_000_000));
    }
}

fn token(data: &[u8]) {
    let config = SigningConfig::public_good().expect("a constant");
    text(data, |t| {
        if let Ok(token) = IdentityToken::parse(t, "x") {
            let _ = token.check(&config, 1_790_000_000);
        }
    });
}
