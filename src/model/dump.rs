//! Trees as text: the composefs dump format.
//!
//! One line per inode, the root first, then depth first by name:
//!
//! ```text
//! PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST [XATTR=VALUE...]
//! ```
//!
//! `MODE` is octal with the file type, `MTIME` is `seconds.nanoseconds`, `-` stands for an absent field, and bytes that
//! could end a field are written `\xHH`. Two trees therefore differ as text exactly where they differ.
//! Source: composefs-dump(5), <https://github.com/composefs/composefs/blob/main/man/composefs-dump.md>.

use super::{Entry, Epoch, Meta, ModelError, Node, RelPath, Tree, VerityDigest, excerpt};
use std::{collections::BTreeMap, fmt::Write};

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFIFO: u32 = 0o010_000;

/// fs-verity digest (SHA-256, 4 KiB blocks, no salt) of a file without content.
pub const EMPTY_FILE: VerityDigest = VerityDigest::new([
    0x3d, 0x24, 0x8c, 0xa5, 0x42, 0xa2, 0x4f, 0xc6, 0x2d, 0x1c, 0x43, 0xb9, 0x16, 0xea, 0xe5, 0x01, 0x68, 0x78, 0xe2,
    0x53, 0x3c, 0x88, 0x23, 0x84, 0x80, 0xb2, 0x61, 0x28, 0xa1, 0xf1, 0xaf, 0x95,
]);

fn escape(out: &mut String, bytes: &[u8], key: bool) {
    if bytes == b"-" {
        out.push_str("\\x2d");
        return;
    }
    for &b in bytes {
        match b {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'=' if key => out.push_str("\\x3d"),
            0x21..=0x7e => out.push(char::from(b)),
            _ => {
                let _ = write!(out, "\\x{b:02x}");
            }
        }
    }
}

/// Writes `tree` in the dump format; equal trees give equal bytes.
pub fn write_dump(tree: &Tree) -> String {
    let (root_links, links) = tree.subdirectory_counts();
    let mut out = String::with_capacity(tree.len() * 160 + 64);
    let root = Entry {
        meta: tree.root().clone(),
        node: Node::Directory,
    };
    write_line(&mut out, None, &root, 2 + root_links);
    for (path, entry) in tree.iter() {
        let nlink = match entry.node {
            Node::Directory => 2 + links.get(path).copied().unwrap_or(0),
            _ => 1,
        };
        write_line(&mut out, Some(path), entry, nlink);
    }
    out
}

fn write_line(out: &mut String, path: Option<&RelPath>, entry: &Entry, nlink: u32) {
    let (kind, size, rdev) = match &entry.node {
        Node::Directory => (S_IFDIR, 0, 0),
        Node::File { size, .. } => (S_IFREG, *size, 0),
        Node::Symlink { target } => (S_IFLNK, target.len() as u64, 0),
        Node::CharDevice { major, minor } => (S_IFCHR, 0, make_device(*major, *minor)),
        Node::BlockDevice { major, minor } => (S_IFBLK, 0, make_device(*major, *minor)),
        Node::Fifo => (S_IFIFO, 0, 0),
    };
    let meta = &entry.meta;
    out.push('/');
    if let Some(path) = path {
        escape(out, path.as_bytes(), false);
    }
    let _ = write!(
        out,
        " {size} {:o} {nlink} {} {} {rdev} {}.0 ",
        kind | meta.mode,
        meta.uid,
        meta.gid,
        meta.mtime
    );
    match &entry.node {
        Node::File { size: 1.., digest } => {
            let hex = digest.to_hex();
            let _ = write!(out, "{}/{} - {hex}", &hex[..2], &hex[2..]);
        }
        Node::Symlink { target } => {
            escape(out, target, false);
            out.push_str(" - -");
        }
        _ => out.push_str("- - -"),
    }
    for (name, value) in &meta.xattrs {
        out.push(' ');
        escape(out, name, true);
        out.push('=');
        // The value "-" needs no escape: it is never a whole field.
        let mut text = String::new();
        escape(&mut text, value, false);
        out.push_str(&text);
    }
    out.push('\n');
}

/// The device number of `major` and `minor`, as `makedev` of the C library encodes it.
fn make_device(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}

fn split_device(dev: u64) -> (u32, u32) {
    let major = ((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff);
    let minor = (dev & 0xff) | ((dev >> 12) & !0xff);
    (major as u32, minor as u32)
}

/// Reads a dump. Only the subset of the format that [`write_dump`] writes is accepted: external content, whole seconds.
pub fn parse_dump(text: &str) -> Result<Tree, ModelError> {
    let mut tree: Option<Tree> = None;
    for (number, line) in text.lines().enumerate() {
        let bad = |problem: String| ModelError::Dump {
            line: number + 1,
            problem,
        };
        let (path, entry) = parse_line(line).map_err(bad)?;
        match (&mut tree, path) {
            (None, None) if entry.node == Node::Directory => tree = Some(Tree::new(entry.meta)),
            (None, _) => return Err(bad("the first line is not the root directory".to_owned())),
            (Some(_), None) => return Err(bad("the root is there twice".to_owned())),
            (Some(tree), Some(path)) => tree.insert(path, entry).map_err(|e| bad(e.to_string()))?,
        }
    }
    tree.ok_or_else(|| ModelError::Dump {
        line: 1,
        problem: "the dump is empty".to_owned(),
    })
}

/// Parses one line; the path of the root directory is `None`.
fn parse_line(line: &str) -> Result<(Option<RelPath>, Entry), String> {
    let fields: Vec<&str> = line.split(' ').collect();
    // The link count follows from the tree, so it is not read.
    let [
        path,
        size,
        mode,
        _nlink,
        uid,
        gid,
        rdev,
        mtime,
        payload,
        content,
        digest,
        xattrs @ ..,
    ] = &fields[..]
    else {
        return Err(format!("{} fields where at least 11 belong", fields.len()));
    };
    let number = |name: &str, text: &str, radix: u32| {
        u64::from_str_radix(text, radix).map_err(|_| format!("{name} {:?} is not a number", excerpt(text)))
    };
    let small = |name: &str, text: &str, radix: u32| {
        number(name, text, radix)
            .and_then(|n| u32::try_from(n).map_err(|_| format!("{name} {text:?} is larger than 32 bits")))
    };
    // Unescaped before it is checked: an escape must not smuggle in a slash or a "..".
    let path = unescape(path)?;
    let path = match path.strip_prefix(b"/") {
        None => return Err("the path does not begin with \"/\"".to_owned()),
        Some(b"") => None,
        Some(rest) => Some(RelPath::new(rest).map_err(|e| e.to_string())?),
    };
    // Artifacts carry whole seconds; a fraction could not be represented and would be lost silently.
    let seconds = mtime
        .strip_suffix(".0")
        .ok_or_else(|| format!("mtime {mtime:?} has a fraction"))?;
    let mode = small("mode", mode, 8)?;
    let mut meta = Meta {
        mode: mode & !S_IFMT,
        uid: small("uid", uid, 10)?,
        gid: small("gid", gid, 10)?,
        mtime: Epoch::new(small("mtime", seconds, 10)?),
        xattrs: BTreeMap::new(),
    };
    for pair in xattrs {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("xattr {:?} has no \"=\"", excerpt(pair)))?;
        meta.xattrs.insert(unescape(name)?, unescape(value)?);
    }
    // `write_dump` writes no inline content: accepting it would give one tree two texts.
    if *content != "-" {
        return Err("inline content is not used here".to_owned());
    }
    let device = || number("rdev", rdev, 10).map(split_device);
    let node = match mode & S_IFMT {
        S_IFDIR => Node::Directory,
        S_IFIFO => Node::Fifo,
        S_IFCHR => device().map(|(major, minor)| Node::CharDevice { major, minor })?,
        S_IFBLK => device().map(|(major, minor)| Node::BlockDevice { major, minor })?,
        S_IFLNK => Node::Symlink {
            target: unescape(payload)?,
        },
        S_IFREG => match number("size", size, 10)? {
            // The format has no digest for an empty file.
            0 => Node::File {
                size: 0,
                digest: EMPTY_FILE,
            },
            size => Node::File {
                size,
                digest: digest.parse().map_err(|e: ModelError| e.to_string())?,
            },
        },
        other => return Err(format!("mode {other:o} is no file type")),
    };
    Ok((path, Entry { meta, node }))
}

fn unescape(field: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("broken escape in {:?}", excerpt(field));
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        out.push(match bytes.next().ok_or_else(bad)? {
            b'\\' => b'\\',
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let pair = [bytes.next().ok_or_else(bad)?, bytes.next().ok_or_else(bad)?];
                let mut byte = [0u8];
                hex::decode_to_slice(pair, &mut byte).map_err(|_| bad())?;
                byte[0]
            }
            _ => return Err(bad()),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(names: &[Vec<u8>]) -> Tree {
        let mut tree = Tree::new(Meta::root(0o755, Epoch::new(7)));
        for (i, name) in names.iter().enumerate() {
            let Ok(path) = RelPath::new(name) else { continue };
            let mut meta = Meta::root(0o4755, Epoch::new(i as u32));
            meta.xattrs.insert(b"user.a=b".to_vec(), b"-".to_vec());
            let node = match i % 5 {
                0 => Node::Directory,
                1 => Node::File {
                    size: 5,
                    digest: VerityDigest::new([i as u8; 32]),
                },
                2 => Node::Symlink { target: name.clone() },
                3 => Node::CharDevice {
                    major: 4097,
                    minor: 70_000,
                },
                _ => Node::File {
                    size: 0,
                    digest: EMPTY_FILE,
                },
            };
            let _ = tree.insert(path, Entry { meta, node });
        }
        tree
    }

    #[test]
    fn a_dump_reads_like_the_tree() {
        let tree = sample(&[b"bin".to_vec(), b"bin/a b".to_vec(), b"-".to_vec()]);
        insta::assert_snapshot!(write_dump(&tree), @r"
        / 0 40755 3 0 0 0 7.0 - - -
        /\x2d 1 124755 1 0 0 0 2.0 \x2d - - user.a\x3db=\x2d
        /bin 0 44755 2 0 0 0 0.0 - - - user.a\x3db=\x2d
        /bin/a\x20b 5 104755 1 0 0 0 1.0 01/01010101010101010101010101010101010101010101010101010101010101 - 0101010101010101010101010101010101010101010101010101010101010101 user.a\x3db=\x2d
        ");
    }

    #[test]
    fn broken_dumps_are_named_by_line() {
        for (text, want) in [
            ("", "line 1: the dump is empty"),
            (
                "/a 0 40755 2 0 0 0 0.0 - - -",
                "line 1: the first line is not the root directory",
            ),
            ("/ 0 40755 2 0 0 0 0.0 - -", "line 1: 10 fields"),
            (
                "/ 0 40755 2 0 0 0 0.0 - - -\n/../x 0 40755 2 0 0 0 0.0 - - -",
                "line 2: path",
            ),
            (
                "/ 0 40755 2 0 0 0 0.0 - - -\n/x/y 0 40755 2 0 0 0 0.0 - - -",
                "line 2: tree entry",
            ),
            ("/ 0 40755 2 0 0 0 0.5 - - -", "line 1: mtime"),
        ] {
            let err = parse_dump(text).expect_err("must be refused").to_string();
            assert!(err.contains(want), "{err:?} lacks {want:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..12), 0..20)) {
            let tree = sample(&names);
            prop_assert_eq!(parse_dump(&write_dump(&tree)).expect("own output parses"), tree);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = parse_dump(&text);
        }
    }
}
