//! cpio archives against cpio(1), and against input that lies.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        ImageError,
        cpio::{Compression, CpioReader, CpioWriter, Device, Root, read_tree, segments, write_tree},
        zstd,
    },
    model::{Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest, ZstdLevel, write_dump},
    verity::digest_bytes,
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
    num::NonZeroU32,
};
use tools::check;

type Contents = BTreeMap<VerityDigest, Vec<u8>>;

fn path(text: impl AsRef<[u8]>) -> RelPath {
    RelPath::new(text).expect("valid path")
}

fn put(tree: &mut Tree, at: &[u8], mode: u32, node: Node) {
    let mut meta = Meta::root(mode, Epoch::new(1_700_000_000));
    meta.uid = u32::from(at[0]);
    tree.insert(path(at), Entry { meta, node }).expect("free place");
}

fn file(contents: &mut Contents, bytes: &[u8]) -> Node {
    let digest = digest_bytes(bytes);
    contents.insert(digest, bytes.to_vec());
    let size = bytes.len() as u64;
    Node::File { size, digest }
}

/// Every kind of entry, sizes around the padding, and a name that is not text.
fn sample() -> (Tree, Contents) {
    let mut contents = Contents::new();
    let mut tree = Tree::new(Meta::root(0o755, Epoch::new(1_700_000_000)));
    put(&mut tree, b"dev", 0o755, Node::Directory);
    put(
        &mut tree,
        b"dev/console",
        0o600,
        Node::CharDevice { major: 5, minor: 1 },
    );
    put(
        &mut tree,
        b"dev/loop0",
        0o660,
        Node::BlockDevice { major: 7, minor: 300 },
    );
    put(&mut tree, b"dev/pipe", 0o644, Node::Fifo);
    put(&mut tree, b"etc", 0o755, Node::Directory);
    put(&mut tree, b"etc/deep", 0o1777, Node::Directory);
    for len in 0..6 {
        let node = file(&mut contents, &b"abcdefgh"[..len]);
        put(&mut tree, format!("etc/file{len}").as_bytes(), 0o644, node);
    }
    let node = file(&mut contents, &vec![7; 300_001]);
    put(&mut tree, b"etc/deep/\xff\xfe name", 0o4755, node);
    let target = b"../usr/bin/init".to_vec();
    put(&mut tree, b"init", 0o777, Node::Symlink { target });
    (tree, contents)
}

fn pack(tree: &Tree, contents: &Contents) -> Result<Vec<u8>, ImageError> {
    let open = |digest: &VerityDigest| -> std::io::Result<Box<dyn Read>> {
        Ok(Box::new(Cursor::new(contents[digest].clone())))
    };
    write_tree(tree, Root::Entry, &open, Vec::new())
}

fn unpack(archive: &[u8]) -> Result<Tree, ImageError> {
    read_tree(archive, &mut |_, content| pnb::verity::digest_reader(content))
}

/// What cpio(1) prints for `archive`; it must find nothing to complain about.
fn cpio(archive: &[u8], arguments: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("scratch");
    std::fs::write(file.path(), archive).expect("written");
    let script = format!("LC_ALL=C cpio {arguments} </inputs/0 2>complaints\ncat complaints\ntest ! -s complaints");
    check(&[file.path()], &script).0
}

#[test]
fn cpio_lists_what_was_written() {
    let (tree, contents) = sample();
    let archive = pack(&tree, &contents).expect("packs");
    assert_eq!(archive.len() % 512, 0);
    let list = cpio(&archive, "-itvn --quiet");
    let lines: Vec<String> = list
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let wanted = [
        "drwxr-xr-x 4 0 0 0 Nov 14 2023 .",
        "drwxr-xr-x 2 100 0 0 Nov 14 2023 dev",
        "crw------- 1 100 0 5, 1 Nov 14 2023 dev/console",
        "brw-rw---- 1 100 0 7, 300 Nov 14 2023 dev/loop0",
        "prw-r--r-- 1 100 0 0 Nov 14 2023 dev/pipe",
        "drwxr-xr-x 3 101 0 0 Nov 14 2023 etc",
        "drwxrwxrwt 2 101 0 0 Nov 14 2023 etc/deep",
        "-rwsr-xr-x 1 101 0 300001 Nov 14 2023 etc/deep/\u{fffd}\u{fffd} name",
        "-rw-r--r-- 1 101 0 0 Nov 14 2023 etc/file0",
    ];
    assert_eq!(lines[..wanted.len()], wanted, "{list}");
    let link = lines.last().expect("not empty");
    assert_eq!(link, "lrwxrwxrwx 1 105 0 15 Nov 14 2023 init -> ../usr/bin/init");
    assert_eq!(lines.len(), tree.len() + 1);
}

#[test]
fn another_reader_finds_what_was_written() {
    let (mut tree, contents) = sample();
    // That reader takes names in UTF-8 only.
    tree.remove(&path(b"etc/deep/\xff\xfe name"));
    let mut archive = &pack(&tree, &contents).expect("packs")[..];
    let mut found = BTreeMap::new();
    loop {
        let mut reader = cpio::NewcReader::new(archive).expect("an entry");
        let entry = reader.entry();
        if entry.is_trailer() {
            break;
        }
        let (name, mode, uid, mtime) = (entry.name().to_owned(), entry.mode(), entry.uid(), entry.mtime());
        let device = (entry.rdev_major(), entry.rdev_minor());
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("readable");
        archive = reader.finish().expect("padded");
        found.insert(name, (mode, uid, mtime, device, content));
    }
    assert!(found.remove(".").is_some(), "the root has an entry");
    assert_eq!(found.len(), tree.len());
    for (name, entry) in tree.iter() {
        let (kind, device, content) = match &entry.node {
            Node::Directory => (0o040_000, (0, 0), Vec::new()),
            Node::File { digest, .. } => (0o100_000, (0, 0), contents[digest].clone()),
            Node::Symlink { target } => (0o120_000, (0, 0), target.clone()),
            Node::CharDevice { major, minor } => (0o020_000, (*major, *minor), Vec::new()),
            Node::BlockDevice { major, minor } => (0o060_000, (*major, *minor), Vec::new()),
            Node::Fifo => (0o010_000, (0, 0), Vec::new()),
        };
        let wanted = (kind | entry.meta.mode, entry.meta.uid, 1_700_000_000, device, content);
        assert!(found[&name.to_string()] == wanted, "{name}");
    }
}

#[test]
fn what_cpio_writes_is_read_with_its_hard_links() {
    let (_, made) = check(
        &[],
        "mkdir d
        printf shared >d/one
        ln d/one d/two
        ln -s one d/link
        printf '%s\\n' . d d/one d/two d/link | cpio --quiet -o -H newc >out/archive",
    );
    let tree = unpack(&made["archive"]).expect("readable");
    let one = tree.get(&path("d/one")).map(|e| e.node.clone());
    let digest = digest_bytes(b"shared");
    assert_eq!(one, Some(Node::File { size: 6, digest }));
    assert_eq!(tree.get(&path("d/two")).map(|e| e.node.clone()), one);
    let target = b"one".to_vec();
    assert_eq!(
        tree.get(&path("d/link")).map(|e| e.node.clone()),
        Some(Node::Symlink { target })
    );
}

#[test]
fn reading_gives_back_the_tree_and_writing_again_the_bytes() {
    let (tree, contents) = sample();
    let archive = pack(&tree, &contents).expect("packs");
    let back = unpack(&archive).expect("readable");
    assert_eq!(write_dump(&back), write_dump(&tree));
    assert_eq!(pack(&back, &contents).expect("packs"), archive);
}

#[test]
fn a_file_of_another_length_than_its_entry_is_refused() {
    let (tree, mut contents) = sample();
    let digest = digest_bytes(b"abcde");
    for wrong in [&b"abcd"[..], b"abcdef"] {
        contents.insert(digest, wrong.to_vec());
        let text = pack(&tree, &contents).expect_err("wrong length").to_string();
        assert!(
            text.contains("etc/file5") && text.contains("expected: 5 bytes"),
            "{text}"
        );
    }
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let mut archive = CpioWriter::new(Vec::new());
    let meta = Meta::root(0o644, Epoch::new(0));
    let big = archive.file(&path("big"), &meta, 1 << 32, &mut std::io::repeat(0));
    assert!(big.expect_err("4 GiB").to_string().contains("4294967295"));
    for target in [&b""[..], b"a\0b", &[b'x'; 4096]] {
        assert!(archive.symlink(&path("l"), &meta, target).is_err());
    }
    let trailer = archive.device(&path("TRAILER!!!"), &meta, Device::Fifo);
    assert!(trailer.expect_err("ends an archive").to_string().contains("TRAILER!!!"));
    let mut labelled = meta.clone();
    labelled.xattrs.insert(b"security.capability".to_vec(), vec![1]);
    let lost = archive.directory(&path("d"), &labelled).expect_err("would be lost");
    assert!(lost.to_string().contains("security.capability"), "{lost}");
    assert_eq!(archive.finish().expect("ends").len(), 512, "nothing of it was written");
}

#[test]
fn segments_of_an_initramfs_are_found_and_each_is_whole() {
    let (tree, contents) = sample();
    let plain = pack(&tree, &contents).expect("packs");
    let workers = NonZeroU32::MIN;
    let size = plain.len() as u64;
    let zstd = zstd::compress("x", &mut &plain[..], size, Vec::new(), ZstdLevel::default(), workers).expect("packs");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("packs");
    let gzip = gzip.finish().expect("packs");
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).expect("packs");
    let xz = xz.finish().expect("packs");

    let mut whole = Vec::new();
    let mut wanted = Vec::new();
    let parts = [
        (Compression::None, &plain),
        (Compression::Zstd, &zstd),
        (Compression::Gzip, &gzip),
        (Compression::Xz, &xz),
        (Compression::Zstd, &zstd),
        (Compression::None, &plain),
    ];
    for (compression, part) in parts {
        whole.resize(whole.len().next_multiple_of(512) + 1024, 0);
        wanted.push((compression, whole.len() as u64));
        whole.extend_from_slice(part);
    }
    let found = segments(Cursor::new(&whole)).expect("all known");
    let seen: Vec<_> = found.iter().map(|s| (s.compression, s.offset)).collect();
    assert_eq!(seen, wanted);
    for segment in &found {
        let bytes = &whole[segment.offset as usize..][..segment.len as usize];
        let unpacked = match segment.compression {
            Compression::None => bytes.to_vec(),
            Compression::Zstd => {
                assert_eq!(bytes, zstd);
                continue;
            }
            Compression::Gzip => {
                assert_eq!(bytes, gzip);
                continue;
            }
            Compression::Xz => {
                assert_eq!(bytes, xz);
                continue;
            }
            other => unreachable!("{other:?}"),
        };
        assert_eq!(unpack(&unpacked).expect("whole"), tree);
    }
    for segment in &found {
        for cut in [
            segment.offset + 7,
            segment.offset + segment.len / 2,
            segment.offset + segment.len - 1,
        ] {
            assert!(segments(Cursor::new(&whole[..cut as usize])).is_err(), "cut at {cut}");
        }
    }
    whole.extend_from_slice(b"\0\0\0\0junk");
    let text = segments(Cursor::new(&whole)).expect_err("junk").to_string();
    assert!(text.contains("junk"), "{text}");
}

#[test]
fn two_archives_with_zeros_between_are_one_tree_and_the_later_entry_wins() {
    let mut whole = Vec::new();
    for content in [&b"first"[..], b"second"] {
        let mut archive = CpioWriter::new(Vec::new());
        let meta = Meta::root(0o644, Epoch::new(0));
        let size = content.len() as u64;
        archive
            .file(&path("f"), &meta, size, &mut &content[..])
            .expect("written");
        whole.extend(archive.finish().expect("ends"));
        whole.extend([0; 2048]);
    }
    let tree = unpack(&whole).expect("readable");
    let digest = digest_bytes(b"second");
    assert_eq!(
        tree.get(&path("f")).map(|e| e.node.clone()),
        Some(Node::File { size: 6, digest })
    );
}

/// An archive of one entry with the given fields of its header replaced.
fn forged(field: usize, value: &str, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut fields: Vec<String> = [1, 0o100_644, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len(), 0]
        .iter()
        .map(|f| format!("{f:08x}"))
        .collect();
    if let Some(place) = fields.get_mut(field) {
        *place = value.to_owned();
    }
    let mut out = format!("070701{}", fields.concat()).into_bytes();
    for part in [name, content] {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out.extend(CpioWriter::new(Vec::new()).finish().expect("ends"));
    out
}

#[test]
fn lies_are_refused_by_name() {
    const NONE: usize = 99;
    assert!(unpack(&forged(NONE, "", b"ok\0", b"x")).is_ok());
    assert!(unpack(&forged(NONE, "", b"padded\0\0\0\0", b"x")).is_ok());
    assert!(unpack(&forged(NONE, "", b"./ok\0", b"x")).is_ok());
    for (what, archive) in [
        ("1 to 4096", forged(11, "ffffffff", b"f\0", b"")),
        ("1 to 4096", forged(11, "00000000", b"f\0", b"")),
        ("does not end with a NUL", forged(NONE, "", b"name", b"")),
        ("holds a NUL", forged(NONE, "", b"a\0b\0", b"")),
        ("is empty", forged(NONE, "", b"\0", b"")),
        ("\"..\"", forged(NONE, "", b"../escape\0", b"")),
        ("absolute", forged(NONE, "", b"/etc/passwd\0", b"")),
        ("eight hexadecimal", forged(5, "0000000g", b"f\0", b"")),
        ("middle of a file", forged(6, "ffffffff", b"f\0", b"x")),
        ("unknown type", forged(1, "0000c1a4", b"f\0", b"")),
        ("has content", forged(1, "000041ed", b"d\0", b"x")),
        ("empty or longer", forged(1, "0000a1ff", b"l\0", b"")),
        ("empty or longer", forged(1, "0000a1ff", b"l\0", &[b'x'; 4096])),
        ("NUL byte", forged(1, "0000a1ff", b"l\0", b"a\0b")),
        ("not a directory", forged(NONE, "", b".\0", b"")),
        ("no parent", forged(NONE, "", b"a/b\0", b"")),
        ("the magic is", b"070703".repeat(40)),
    ] {
        let mut reader = CpioReader::new(&archive[..]);
        let listed = loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        let err = unpack(&archive).expect_err(what);
        let source = std::error::Error::source(&err).map_or(String::new(), ToString::to_string);
        let text = format!("{err}: {source}");
        assert!(text.contains(what), "{text} (wanted {what})");
        // Skipping instead of reading finds the same, but for what only a tree or a target shows.
        assert!(listed.is_err() || ["NUL byte", "no parent"].contains(&what), "{what}");
    }
    let (tree, contents) = sample();
    let archive = pack(&tree, &contents).expect("packs");
    let trailer = archive.windows(10).rposition(|w| w == b"TRAILER!!!").expect("there");
    for cut in [1, 50, 109, 110, 111, 1000, trailer - 1, trailer + 5] {
        assert!(unpack(&archive[..cut]).is_err(), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_input_panics(flips in proptest::collection::vec((0usize..5000, any::<u8>()), 1..8), cut in 0usize..6000) {
        let mut contents = Contents::new();
        let mut tree = Tree::new(Meta::root(0o755, Epoch::new(0)));
        put(&mut tree, b"d", 0o755, Node::Directory);
        let node = file(&mut contents, &[1; 3000]);
        put(&mut tree, b"d/f", 0o644, node);
        put(&mut tree, b"d/l", 0o777, Node::Symlink { target: b"f".to_vec() });
        let mut bytes = pack(&tree, &contents).expect("packs");
        bytes.extend(zstd::compress("x", &mut &[5u8; 9000][..], 9000, Vec::new(), ZstdLevel::default(), NonZeroU32::MIN).expect("packs"));
        bytes.extend([0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2]);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut);
        let _ = unpack(&bytes);
        let _ = segments(Cursor::new(&bytes));
    }
}
