//! composefs images against fsck.erofs and mkcomposefs.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        ImageError,
        composefs::{INLINE_MAX, external_objects, referenced_objects, write_image},
    },
    model::{Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest, write_dump},
    verity::digest_bytes,
};
use proptest::{collection::vec, prelude::*};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Cursor, Read},
};
use tools::check;

type Contents = BTreeMap<VerityDigest, Vec<u8>>;

fn image(tree: &Tree, contents: &Contents) -> Result<(Vec<u8>, VerityDigest), ImageError> {
    let open = |digest: &VerityDigest| -> std::io::Result<Box<dyn Read>> {
        let bytes = contents.get(digest).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    };
    write_image(tree, &open)
}

/// Place, kind, name and the rest of an arbitrary entry.
type Numbers = (u16, u8, Vec<u8>, u32, [u8; 4]);

struct Sample {
    tree: Tree,
    contents: Contents,
}

impl Sample {
    fn new() -> Self {
        let mut root = Meta::root(0o755, Epoch::new(1_700_000_000));
        root.xattrs.insert(b"security.selinux".to_vec(), b"root_t".to_vec());
        root.xattrs.insert(b"user.note".to_vec(), b"a b=c\0-".to_vec());
        Self {
            tree: Tree::new(root),
            contents: Contents::new(),
        }
    }

    fn add(&mut self, path: impl AsRef<[u8]>, node: Node) -> &mut Self {
        let n = self.tree.len() as u32;
        let mut meta = Meta::root(
            [0o644, 0o755, 0o4755, 0o1777][n as usize % 4],
            Epoch::new(1_700_000_000 + n % 3),
        );
        (meta.uid, meta.gid) = (n % 5 * 33, n % 7 * 20_000);
        if n.is_multiple_of(6) {
            meta.xattrs
                .insert(b"security.capability".to_vec(), vec![1, 0, 0, 2, n as u8, 0]);
        }
        if n.is_multiple_of(11) {
            meta.xattrs.insert(b"user.same".to_vec(), b"shared by many".to_vec());
            meta.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
        }
        if n.is_multiple_of(97) {
            meta.xattrs.insert(b"system.posix_acl_access".to_vec(), vec![2; 28]);
            meta.xattrs.insert(b"lustre.x".to_vec(), vec![n as u8; 300]);
        }
        let path = RelPath::new(path).expect("valid path");
        self.tree.insert(path, Entry { meta, node }).expect("free place");
        self
    }

    fn file(&mut self, path: impl AsRef<[u8]>, content: &[u8]) -> &mut Self {
        let digest = digest_bytes(content);
        self.contents.insert(digest, content.to_vec());
        let size = content.len() as u64;
        self.add(path, Node::File { size, digest })
    }

    fn directory(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        self.add(path, Node::Directory)
    }

    /// Directories of every shape and every kind of entry, `width` of each.
    fn many(width: usize) -> Self {
        let mut sample = Self::new();
        sample
            .directory("00")
            .directory("dev")
            .directory("etc")
            .directory("usr");
        for i in 0..width {
            let (major, minor) = (i as u32 % 4096, i as u32 * 397 % (1 << 20));
            sample.add(format!("dev/c{i}"), Node::CharDevice { major, minor });
            sample.add(format!("dev/b{i}"), Node::BlockDevice { major, minor });
            sample.file(format!("etc/f{i:05}"), &vec![i as u8; i % 130]);
            let target = format!("../{}", "x/".repeat(i % 2040)).into_bytes();
            sample.add(format!("usr/l{i}"), Node::Symlink { target });
            let name = [b"usr/\xff\xfe \\=\n".as_slice(), i.to_string().as_bytes()].concat();
            sample.directory(&name);
            for j in 0..i % 9 {
                let name = [&name[..], format!("/{}{j}", "n".repeat(i % 240 + 1)).as_bytes()].concat();
                sample.file(&name, format!("{i}.{j}").repeat(40).as_bytes());
            }
        }
        let digest = VerityDigest::new([9; 32]);
        for (name, size) in [("huge", 1 << 43), ("large", 5 << 30), ("small", 65)] {
            sample.add(name, Node::File { size, digest });
        }
        sample.add("gone", Node::CharDevice { major: 0, minor: 0 });
        sample.add("pipe", Node::Fifo);
        sample
    }

    /// Whiteouts, names of hidden entries and attributes overlayfs would obey.
    fn marks() -> Self {
        let mut sample = Self::new();
        let whiteout = || Node::CharDevice { major: 0, minor: 0 };
        sample.add("gone", whiteout()).add("0a", whiteout());
        sample.directory("ff").add("ff/gone", whiteout()).directory("ff/below");
        sample.file("00", b"a file, no hidden entry").file("7", &[1; 65]);
        let mut tree = Tree::new(sample.tree.root().clone());
        for (n, (path, entry)) in sample.tree.iter().enumerate() {
            let mut entry = entry.clone();
            for name in ["", "redirect", "metacopy", "overlay.origin"] {
                let name = format!("trusted.overlay.{name}").into_bytes();
                entry.meta.xattrs.insert(name, vec![b'v'; n % 3]);
            }
            for name in [
                "system.posix_acl_default",
                "system.posix_acl_access.",
                "lustre.",
                "plain",
            ] {
                entry.meta.xattrs.insert(name.into(), vec![n as u8; 2]);
            }
            tree.insert(path.clone(), entry).expect("free place");
        }
        sample.tree = tree;
        sample
    }

    /// Attributes that have the names of marks, and a whiteout that looks like one of the root's hidden entries.
    fn clashes() -> Self {
        let mut sample = Self::new();
        sample.tree = Tree::new(Meta::root(0o755, Epoch::new(7)));
        let mut add = |path: &str, node: Node, xattr: &str| {
            let mut meta = Meta::root(0o644, Epoch::new(7));
            if !xattr.is_empty() {
                meta.xattrs.insert(xattr.into(), b"mine".to_vec());
            }
            let path = RelPath::new(path).expect("valid path");
            sample.tree.insert(path, Entry { meta, node }).expect("free place");
        };
        let whiteout = || Node::CharDevice { major: 0, minor: 0 };
        add("ab", whiteout(), "");
        add("d", Node::Directory, "trusted.overlay.opaque");
        add("d/1", whiteout(), "user.overlay.whiteout");
        add("d/2", whiteout(), "trusted.overlay.whiteout");
        add("e", Node::Directory, "user.overlay.whiteouts");
        add("e/3", whiteout(), "user.overlay.opaque");
        sample
    }

    /// Links, small files and files of two chunks at every distance from a block's end.
    fn borders() -> Self {
        let mut sample = Self::new();
        for i in 0..400 {
            let target = vec![b't'; i * 331 % 4095 + 1];
            sample.add(format!("link{i}"), Node::Symlink { target });
            sample.file(format!("small{i}"), &vec![b's'; i % 65]);
            let (size, digest) = ((1 << 43) + i as u64 % 2, VerityDigest::new([i as u8; 32]));
            sample.add(format!("two{i}"), Node::File { size, digest });
        }
        sample
    }

    /// A tree out of arbitrary numbers; names that cannot be are left out.
    fn random(entries: &[Numbers]) -> Self {
        let mut sample = Self::new();
        let mut directories = vec![Vec::new()];
        for (place, kind, name, number, bytes) in entries {
            let directory = &directories[usize::from(*place) % directories.len()];
            let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            let name: Vec<u8> = name.iter().map(|b| if *b == b'/' { b'_' } else { *b }).collect();
            let path = [directory, separator, &name].concat();
            let Ok(path) = RelPath::new(&path) else { continue };
            let (major, minor) = (number % 4096, number >> 12);
            let node = match kind % 8 {
                0 | 1 => Node::Directory,
                2 => Node::CharDevice { major, minor },
                3 => Node::BlockDevice { major, minor },
                4 => Node::Symlink {
                    target: vec![b't'; *number as usize % 4095 + 1],
                },
                5 => Node::CharDevice { major: 0, minor: 0 },
                6 => Node::File {
                    size: 65 + (u64::from(*number) << (number % 12)),
                    digest: VerityDigest::new([bytes[0]; 32]),
                },
                _ => {
                    let content = bytes.repeat(*number as usize % 17);
                    let digest = digest_bytes(&content);
                    let size = content.len() as u64;
                    sample.contents.insert(digest, content);
                    Node::File { size, digest }
                }
            };
            let mut meta = Meta::root(number % 0o10_000, Epoch::new(u32::from(bytes[1]) % 3));
            (meta.uid, meta.gid) = (u32::from(bytes[2]) << (number % 24), number % 70_000);
            for count in 0..bytes[3] % 4 {
                let attribute = (
                    format!("user.{}", bytes[count as usize] % 8),
                    vec![count; usize::from(*kind)],
                );
                meta.xattrs.insert(attribute.0.into(), attribute.1);
            }
            let directory = node == Node::Directory;
            if sample.tree.insert(path.clone(), Entry { meta, node }).is_ok() && directory {
                directories.push(path.as_bytes().to_vec());
            }
        }
        sample
    }

    /// One directory of `width` entries below the root.
    fn wide(width: usize) -> Self {
        let mut sample = Self::new();
        sample.directory("d");
        for i in 0..width {
            sample.add(format!("d/{}{i}", "n".repeat(i % 230)), Node::Fifo);
        }
        sample
    }

    /// Directories in each other, as deep as a path can be.
    fn deep() -> Self {
        let mut sample = Self::new();
        for depth in 1..=2048 {
            sample.directory("a/".repeat(depth).trim_end_matches('/'));
        }
        sample
    }

    fn image(&self) -> (Vec<u8>, VerityDigest) {
        image(&self.tree, &self.contents).expect("every entry fits")
    }

    /// The dump `mkcomposefs --from-file` reads: pnb's, with small contents inline.
    fn dump(&self) -> String {
        let dump = write_dump(&self.tree);
        let mut lines = dump.lines();
        let mut out = format!("{}\n", lines.next().expect("the root"));
        for ((_, entry), line) in self.tree.iter().zip(lines) {
            match entry.node {
                Node::File { size, digest } if (1..=INLINE_MAX).contains(&size) => {
                    let mut fields: Vec<&str> = line.split(' ').collect();
                    let mut text = String::new();
                    for byte in &self.contents[&digest] {
                        write!(text, "\\x{byte:02x}").expect("to a string");
                    }
                    fields[8..11].copy_from_slice(&["-", &text, "-"]);
                    out += &fields.join(" ");
                }
                _ => out += line,
            }
            out.push('\n');
        }
        out
    }
}

#[test]
fn known_answer() {
    let sample = Sample::many(12);
    let (bytes, digest) = sample.image();
    assert_eq!(digest, digest_bytes(&bytes));
    // What mkcomposefs 1.0.8 --min-version=1 --from-file says of `sample.dump()`.
    assert_eq!(
        (digest.to_hex().as_str(), bytes.len()),
        (
            "f7d299242c6504b6c4016c5f259c52c37f20a09474aee49c2fdcb4683a2f8474",
            40960
        )
    );
}

/// What mkcomposefs 1.0.8 --min-version=1 --from-file makes of the samples' dumps, and but for "clashes" the Rust library
/// composefs 0.9.4.
#[test]
fn known_answers_of_other_writers() {
    let mut empty = Sample::new();
    empty.tree = Tree::new(Meta::root(0o755, Epoch::new(0)));
    let samples = [
        ("empty", empty),
        ("many", Sample::many(300)),
        ("marks", Sample::marks()),
        ("clashes", Sample::clashes()),
        ("borders", Sample::borders()),
        ("wide", Sample::wide(20_000)),
        ("deep", Sample::deep()),
    ];
    let answers: String = samples
        .iter()
        .map(|(name, sample)| {
            let (bytes, digest) = sample.image();
            format!("{name} {} {digest}\n", bytes.len())
        })
        .collect();
    assert_eq!(answers, KNOWN);
}

const KNOWN: &str = "\
empty 16384 14a26c957c84f6eb774b91205476adc13196c7c33b9dd97d08d43725ecb90b63
many 724992 addcddd3d22c62e23f39249865c0de212383f418ec01a2db6517b187424efd51
marks 24576 ae311fa40b89c2a7f1e36382465f0d7c9f3be0ac4400bf2b7495bfa0e6f4900d
clashes 16384 390766263a2200c4f7219e795f1c55fc062b02db78cabc0245b1a4c9e7b2bdfd
borders 1261568 349cfee06966db3232a424c52ca1f17b606d8e7f4559e124c1cb5882e3e41a13
wide 4083712 81def68d8d8258412fcd054f908998b11626defd3bed135ee3b5646a6ebad12c
deep 282624 edb87d82b7b83422b21b0692078baf6fe63c17a73713e5f8b5dcc62ec1a23b18
";

#[test]
fn fsck_erofs_finds_nothing() {
    let dir = tempfile::tempdir().expect("scratch");
    let samples = [
        Sample::many(300),
        Sample::marks(),
        Sample::clashes(),
        Sample::borders(),
        Sample::wide(20_000),
    ];
    for (n, sample) in samples.iter().enumerate() {
        std::fs::write(dir.path().join(n.to_string()), sample.image().0).expect("written");
    }
    let script =
        "for image in /inputs/0/*; do fsck.erofs -d3 $image >log 2>&1 || cat log; grep 'No errors found' log; done";
    let (said, _) = check(&[dir.path()], script);
    assert_eq!(said.lines().count(), samples.len(), "{said}");
}

#[test]
fn equals_mkcomposefs() {
    let mut samples: Vec<_> = [0, 12, 300, 1500].into_iter().map(Sample::many).collect();
    samples.extend([
        Sample::marks(),
        Sample::clashes(),
        Sample::borders(),
        Sample::wide(20_000),
        Sample::deep(),
    ]);
    let dir = tempfile::tempdir().expect("scratch");
    for (n, sample) in samples.iter().enumerate() {
        std::fs::write(dir.path().join(n.to_string()), sample.dump()).expect("written");
    }
    let script = "for dump in /inputs/0/*; do mkcomposefs --min-version=1 --from-file $dump out/${dump##*/}; done";
    let (_, made) = check(&[dir.path()], script);
    for (n, sample) in samples.iter().enumerate() {
        let theirs = &made[&n.to_string()];
        println!(
            "{} entries, {} bytes, {}",
            sample.tree.len(),
            theirs.len(),
            digest_bytes(theirs)
        );
        assert!(sample.image().0 == *theirs, "{} entries", sample.tree.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any tree gives one image, in which a reader of the format finds the tree again.
    #[test]
    fn any_tree_is_found_again(entries in vec(any::<Numbers>(), 0..120)) {
        let sample = Sample::random(&entries);
        let (bytes, digest) = sample.image();
        prop_assert!(sample.image() == (bytes.clone(), digest), "the same tree gives other bytes");
        prop_assert_eq!(bytes.len() % 4096, 0);
        let mut expected: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
        for (path, entry) in sample.tree.iter() {
            expected.insert(path.as_bytes().to_vec(), Found::expected(entry));
        }
        let mut found = BTreeMap::new();
        walk(&bytes, u64::from(u16_at(&bytes, 1024 + 14)), b"", &mut found);
        let objects: Vec<_> = referenced_objects(&bytes).expect("an image").into_iter().collect();
        prop_assert_eq!(objects, external_objects(&sample.tree).into_keys().collect::<Vec<_>>());
        found.retain(|path, entry| path.len() != 2 || expected.contains_key(path) || entry.mode != 0o020_644);
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn damage_is_an_error_or_harmless() {
    let bytes = Sample::many(12).image().0;
    assert!(referenced_objects(&bytes[..1200]).is_err() && referenced_objects(&[0; 8192]).is_err());
    // Bytes of the superblock, the inodes and the attributes, to either extreme: no panic, no endless walk.
    let (mut damaged, mut refused) = (bytes.clone(), 0);
    for at in (1024..1152).chain((1152..bytes.len()).step_by(11)) {
        damaged[at] = if at % 2 == 0 { 0 } else { 0xff };
        refused += usize::from(referenced_objects(&damaged).is_err());
        damaged[at] = bytes[at];
    }
    assert!(refused > 10, "{refused}");
}

/// What an image says of an entry.
#[derive(PartialEq, Debug)]
struct Found {
    mode: u32,
    owner: (u32, u32),
    mtime: u64,
    size: Option<u64>,
    device: Option<u32>,
    target: Option<Vec<u8>>,
}

impl Found {
    fn expected(entry: &Entry) -> Self {
        let mut found = Self {
            mode: entry.meta.mode,
            owner: (entry.meta.uid, entry.meta.gid),
            mtime: entry.meta.mtime.seconds(),
            size: None,
            device: None,
            target: None,
        };
        // The kernel's new_encode_dev.
        let device = |major: u32, minor: u32| Some(minor & 0xff | major << 8 | (minor & !0xff) << 12);
        found.mode |= match &entry.node {
            Node::Directory => 0o040_000,
            Node::File { size, .. } => {
                found.size = Some(*size);
                0o100_000
            }
            Node::Symlink { target } => {
                found.target = Some(target.clone());
                0o120_000
            }
            Node::CharDevice { major: 0, minor: 0 } => {
                found.size = Some(0);
                0o100_000
            }
            Node::CharDevice { major, minor } => {
                found.device = device(*major, *minor);
                0o020_000
            }
            Node::BlockDevice { major, minor } => {
                found.device = device(*major, *minor);
                0o060_000
            }
            Node::Fifo => 0o010_000,
        };
        found
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Reads inode `nid` and, if it is a directory, all below it, as the EROFS documentation says.
fn walk(bytes: &[u8], nid: u64, path: &[u8], found: &mut BTreeMap<Vec<u8>, Found>) {
    let at = nid as usize * 32;
    let format = u16_at(bytes, at);
    let mode = u32::from(u16_at(bytes, at + 4));
    let number = u32_at(bytes, at + 16);
    let (size, owner, mtime, head) = if format & 1 == 0 {
        let owner = (u16_at(bytes, at + 24).into(), u16_at(bytes, at + 26).into());
        (u64::from(u32_at(bytes, at + 8)), owner, u64_at(bytes, 1024 + 24), 32)
    } else {
        let owner = (u32_at(bytes, at + 24), u32_at(bytes, at + 28));
        (u64_at(bytes, at + 8), owner, u64_at(bytes, at + 32), 64)
    };
    let xattrs = match usize::from(u16_at(bytes, at + 2)) {
        0 => 0,
        count => 12 + (count - 1) * 4,
    };
    let behind = at + head + xattrs;
    let blocks = number as usize * 4096;
    let data = || {
        let whole = match format >> 1 {
            0 => size as usize,
            _ => size as usize / 4096 * 4096,
        };
        let tail = size as usize - whole;
        assert!(
            tail == 0 || behind / 4096 == (behind + tail - 1) / 4096,
            "the tail crosses a block"
        );
        [&bytes[blocks..blocks + whole], &bytes[behind..behind + tail]].concat()
    };
    let kind = mode & 0o170_000;
    if !path.is_empty() {
        let entry = Found {
            mode,
            owner,
            mtime,
            size: (kind == 0o100_000).then_some(size),
            device: matches!(kind, 0o020_000 | 0o060_000).then_some(number),
            target: (kind == 0o120_000).then(data),
        };
        assert!(found.insert(path.to_vec(), entry).is_none(), "a name is there twice");
    }
    if kind != 0o040_000 {
        return;
    }
    for block in data().chunks(4096) {
        let count = usize::from(u16_at(block, 8)) / 12;
        let offset = |index: usize| usize::from(u16_at(block, index * 12 + 8));
        let mut last: &[u8] = b"";
        for index in 0..count {
            let end = if index + 1 < count {
                offset(index + 1)
            } else {
                block.len()
            };
            let name = &block[offset(index)..end];
            let name = name.split(|b| *b == 0).next().expect("one part");
            assert!(last < name, "names are not in order");
            last = name;
            if name != b"." && name != b".." {
                let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                walk(
                    bytes,
                    u64_at(block, index * 12),
                    &[path, separator, name].concat(),
                    found,
                );
            }
        }
    }
}

#[test]
fn only_contents_above_the_limit_are_objects() {
    let mut sample = Sample::new();
    for len in [0, 1, 64, 65] {
        sample.file(format!("f{len}"), &vec![b'x'; len]);
    }
    let objects = external_objects(&sample.tree);
    assert_eq!(
        objects.into_iter().collect::<Vec<_>>(),
        [(digest_bytes(&[b'x'; 65]), 65)]
    );
    // Only small contents are asked for, and what is small lies in the image.
    sample.contents.remove(&digest_bytes(&[b'x'; 65]));
    let (bytes, _) = sample.image();
    assert!(bytes.windows(64).any(|w| w == [b'x'; 64]));
}

#[test]
fn a_small_file_with_other_content_is_refused() {
    let mut sample = Sample::new();
    sample.file("etc", b"right");
    for (wrong, what) in [(&b"wrong"[..], "digest"), (b"shor", "length"), (&[0; 99], "or more")] {
        sample.contents.insert(digest_bytes(b"right"), wrong.to_vec());
        let text = image(&sample.tree, &sample.contents)
            .expect_err("wrong content")
            .to_string();
        assert!(text.contains("\"etc\"") && text.contains(what), "{text}");
    }
}

#[test]
fn what_the_image_cannot_hold_is_refused_by_name() {
    let refused = |node: Node, xattr: Option<(Vec<u8>, Vec<u8>)>| {
        let mut tree = Tree::new(Meta::root(0o755, Epoch::new(0)));
        let mut meta = Meta::root(0o644, Epoch::new(0));
        meta.xattrs.extend(xattr);
        let path = RelPath::new("entry").expect("valid path");
        tree.insert(path, Entry { meta, node }).expect("free place");
        let text = image(&tree, &Contents::new()).expect_err("cannot be held").to_string();
        assert!(text.starts_with("store \"entry\" in a composefs image: "), "{text}");
    };
    let digest = VerityDigest::new([1; 32]);
    refused(Node::File { size: 1 << 44, digest }, None);
    refused(Node::CharDevice { major: 4096, minor: 0 }, None);
    refused(
        Node::BlockDevice {
            major: 0,
            minor: 1 << 20,
        },
        None,
    );
    for target in [vec![], b"a\0".to_vec(), vec![b'x'; 4096]] {
        refused(Node::Symlink { target }, None);
    }
    refused(Node::Fifo, Some((vec![b'x'; 256], vec![])));
    refused(Node::Fifo, Some((vec![], vec![])));
    refused(Node::Fifo, Some((b"user.x".to_vec(), vec![0; 65_536])));
}
