//! Binary packages: what a good one becomes, and that every bad one is refused by name.

use pnb::debian::{DebError, TarLimits, deb_tree, plain_deb, read_control};
use pnb::model::{Tree, VerityDigest, write_dump};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Cursor, Read, Write};

/// One raw tar entry: header and padded content, GNU magic, valid checksum.
struct Raw {
    name: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    data: Vec<u8>,
    mode: u32,
    size: Option<u64>,
    posix: bool,
}

fn raw(name: impl AsRef<[u8]>, kind: u8, data: impl AsRef<[u8]>) -> Raw {
    Raw {
        name: name.as_ref().to_vec(),
        kind,
        link: vec![],
        data: data.as_ref().to_vec(),
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        size: None,
        posix: false,
    }
}
fn dir(name: &str) -> Raw {
    raw(name, b'5', "")
}
fn file(name: &str, data: &str) -> Raw {
    raw(name, b'0', data)
}
fn link(name: &str, kind: u8, target: impl AsRef<[u8]>) -> Raw {
    Raw {
        link: target.as_ref().to_vec(),
        mode: if kind == b'2' { 0o777 } else { 0o644 },
        ..raw(name, kind, "")
    }
}

fn pax(records: &[(&str, &str)]) -> Raw {
    let mut data = String::new();
    for (key, value) in records {
        let body = format!(" {key}={value}\n");
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length += 1;
        }
        write!(data, "{length}{body}").expect("a string takes all");
    }
    Raw {
        posix: true,
        ..raw("./PaxHeaders/x", b'x', data)
    }
}

impl Raw {
    fn bytes(&self) -> Vec<u8> {
        let mut h = [0u8; 512];
        let put = |h: &mut [u8; 512], at: usize, text: &[u8]| h[at..at + text.len()].copy_from_slice(text);
        put(&mut h, 0, &self.name[..self.name.len().min(100)]);
        put(&mut h, 100, format!("{:07o}", self.mode).as_bytes());
        put(&mut h, 108, b"0000000");
        put(&mut h, 116, format!("{:07o}", 42).as_bytes());
        put(
            &mut h,
            124,
            format!("{:011o}", self.size.unwrap_or(self.data.len() as u64)).as_bytes(),
        );
        put(&mut h, 136, format!("{:011o}", 1_700_000_000).as_bytes());
        h[156] = self.kind;
        put(&mut h, 157, &self.link[..self.link.len().min(100)]);
        put(&mut h, 257, if self.posix { b"ustar\x0000" } else { b"ustar  \0" });
        seal(&mut h);
        let mut out = h.to_vec();
        out.extend_from_slice(&self.data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn seal(h: &mut [u8]) {
    h[148..156].fill(b' ');
    let sum: u32 = h[..512].iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn entries(all: &[Raw]) -> Vec<u8> {
    all.iter().flat_map(Raw::bytes).collect()
}
fn tarball(all: &[Raw]) -> Vec<u8> {
    let mut out = entries(all);
    out.resize(out.len() + 1024, 0);
    out
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        writeln!(
            out,
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`",
            1,
            0,
            0,
            100_644,
            data.len()
        )
        .expect("memory");
        out.extend_from_slice(data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

fn compress(ending: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match ending {
        "" => out.extend_from_slice(data),
        ".gz" => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            encoder.write_all(data).expect("memory");
            encoder.finish().expect("memory");
        }
        ".xz" => {
            liblzma::read::XzEncoder::new(data, 6)
                .read_to_end(&mut out)
                .expect("memory");
        }
        ".zst" => out = zstd::encode_all(data, 19).expect("memory"),
        other => unreachable!("no such compression: {other}"),
    }
    out
}

fn control() -> Vec<u8> {
    tarball(&[dir("./"), file("./control", "Package: x\n"), file("./md5sums", "")])
}

/// A package with this data archive.
fn deb(ending: &str, data: &[u8]) -> Vec<u8> {
    let control = compress(ending, &control());
    let data = compress(ending, data);
    ar(&[
        ("debian-binary", b"2.0\n"),
        (&format!("control.tar{ending}"), &control),
        (&format!("data.tar{ending}"), &data),
    ])
}

/// Stands in for the store: the "digest" of a file is its SHA-256.
fn put(content: &mut dyn Read) -> io::Result<(VerityDigest, u64)> {
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes)?;
    Ok((VerityDigest::new(Sha256::digest(&bytes).into()), bytes.len() as u64))
}

fn unpack(deb: &[u8]) -> Result<Tree, DebError> {
    deb_tree(deb, "package x 1 all", &TarLimits::default(), &mut put)
}

/// The error and its cause, as a user sees them.
fn told(error: &DebError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn good() -> Vec<Raw> {
    let long = format!("./usr/{}/end", ["component"; 14].join("-"));
    let parent = format!("./usr/{}/", ["component"; 14].join("-"));
    vec![
        dir("./"),
        dir("./usr/"),
        dir("./usr/bin/"),
        Raw {
            mode: 0o4755,
            ..file("./usr/bin/su", "root!")
        },
        Raw {
            mode: 0o4755,
            ..link("./usr/bin/su2", b'1', "./usr/bin/su")
        },
        link("./usr/bin/abs", b'2', "/etc/../x"),
        file("./usr/empty", ""),
        raw("././@LongLink", b'L', format!("{parent}\0")),
        dir(&parent),
        raw("././@LongLink", b'L', format!("{long}\0")),
        raw(&long, b'0', "long"),
    ]
}

#[test]
fn a_good_package_gives_the_same_tree_under_every_compression() {
    let tar = tarball(&good());
    let plain = write_dump(&unpack(&deb("", &tar)).expect("good"));
    insta::assert_snapshot!(plain.replace("component-component-component-", "3-"), @"
    / 0 40755 3 0 42 0 1700000000.0 - - -
    /usr 0 40755 4 0 42 0 1700000000.0 - - -
    /usr/bin 0 40755 2 0 42 0 1700000000.0 - - -
    /usr/bin/abs 9 120777 1 0 42 0 1700000000.0 /etc/../x - -
    /usr/bin/su 5 104755 1 0 42 0 1700000000.0 24/5261f06002ac0e989b15bb1453209fbe1c9ddd2330272f20e7d70d04a6c5e8 - 245261f06002ac0e989b15bb1453209fbe1c9ddd2330272f20e7d70d04a6c5e8
    /usr/bin/su2 5 104755 1 0 42 0 1700000000.0 24/5261f06002ac0e989b15bb1453209fbe1c9ddd2330272f20e7d70d04a6c5e8 - 245261f06002ac0e989b15bb1453209fbe1c9ddd2330272f20e7d70d04a6c5e8
    /usr/3-3-3-3-component-component 0 40755 2 0 42 0 1700000000.0 - - -
    /usr/3-3-3-3-component-component/end 4 100644 1 0 42 0 1700000000.0 fc/66f021c67d064c1490a12b5a4d4d2f5167ca692a16ca12f1f3a4cda29a6fa9 - fc66f021c67d064c1490a12b5a4d4d2f5167ca692a16ca12f1f3a4cda29a6fa9
    /usr/empty 0 100644 1 0 42 0 1700000000.0 - - -
    ");
    for ending in [".gz", ".xz", ".zst"] {
        let packed = deb(ending, &tar);
        assert_eq!(write_dump(&unpack(&packed).expect("good")), plain, "{ending}");
        assert_eq!(read_control(&packed[..], "x").expect("good"), "Package: x\n");
    }
}

#[test]
fn every_cut_is_refused() {
    let tar = tarball(&[dir("./"), file("./a", "content"), link("./b", b'2', "a")]);
    for ending in ["", ".gz", ".xz", ".zst"] {
        let whole = deb(ending, &tar);
        unpack(&whole).expect("whole");
        for cut in 0..whole.len() {
            // The final padding byte of the container is all that carries nothing.
            let result = unpack(&whole[..cut]);
            assert!(
                result.is_err() || (cut + 1 == whole.len() && whole[cut] == b'\n'),
                "{ending}: accepted when cut to {cut} of {} bytes",
                whole.len()
            );
        }
    }
}

#[test]
fn a_flipped_byte_in_a_compressed_package_is_refused_or_harmless() {
    let tar = tarball(&[dir("./"), file("./a", "content"), link("./b", b'2', "a")]);
    for ending in [".gz", ".xz", ".zst"] {
        let whole = deb(ending, &tar);
        let tree = unpack(&whole).expect("whole");
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x21;
            if let Ok(other) = unpack(&bad) {
                // zstd's frames made here carry no checksum.
                assert!(
                    other == tree || ending == ".zst",
                    "{ending}: byte {at} changed the tree unnoticed"
                );
            }
        }
    }
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let long = "x".repeat(256);
    let mut bad_sum = file("./sum", "").bytes();
    bad_sum[0] = b'!';
    let mut hidden = file("./a", "").bytes();
    hidden[5] = b'b';
    seal(&mut hidden);
    let mut old = file("./old", "").bytes();
    old[257..265].fill(0);
    seal(&mut old);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("dotdot", tarball(&[file("./../x", "")])),
        ("dotdot inside", tarball(&[dir("./a"), file("./a/../../x", "")])),
        ("absolute", tarball(&[file("/etc/x", "")])),
        ("absolute root", tarball(&[dir("/")])),
        ("empty component", tarball(&[file("./a//b", "")])),
        (
            "long component",
            tarball(&[
                raw("././@LongLink", b'L', format!("./{long}")),
                file(&format!("./{long}"), ""),
            ]),
        ),
        ("file named as a directory", tarball(&[file("./a/", "")])),
        ("no parent", tarball(&[file("./a/b", "")])),
        (
            "below a symlink",
            tarball(&[link("./a", b'2', "/etc"), file("./a/b", "")]),
        ),
        ("file twice", tarball(&[file("./a", "1"), file("./a", "2")])),
        (
            "file over symlink",
            tarball(&[link("./a", b'2', "/etc/passwd"), file("./a", "2")]),
        ),
        ("directory over file", tarball(&[file("./a", "1"), dir("./a")])),
        (
            "directory twice, unlike",
            tarball(&[
                dir("./a"),
                Raw {
                    mode: 0o700,
                    ..dir("./a")
                },
            ]),
        ),
        ("root late", tarball(&[dir("./a"), dir("./")])),
        ("root a file", tarball(&[file("./", "")])),
        ("hard link outside", tarball(&[link("./a", b'1', "../../etc/passwd")])),
        ("hard link absolute", tarball(&[link("./a", b'1', "/etc/passwd")])),
        (
            "hard link forward",
            tarball(&[link("./a", b'1', "./b"), file("./b", "")]),
        ),
        (
            "hard link to symlink",
            tarball(&[link("./b", b'2', "x"), link("./a", b'1', "./b")]),
        ),
        (
            "hard link unlike",
            tarball(&[
                file("./b", ""),
                Raw {
                    mode: 0o4755,
                    ..link("./a", b'1', "./b")
                },
            ]),
        ),
        ("symlink without target", tarball(&[link("./a", b'2', "")])),
        (
            "symlink with content",
            tarball(&[Raw {
                data: b"x".into(),
                ..link("./a", b'2', "b")
            }]),
        ),
        ("file with link name", tarball(&[link("./a", b'0', "b")])),
        ("character device", tarball(&[raw("./null", b'3', "")])),
        ("block device", tarball(&[raw("./sda", b'4', "")])),
        ("fifo", tarball(&[raw("./pipe", b'6', "")])),
        ("sparse", tarball(&[raw("./sparse", b'S', "")])),
        ("contiguous", tarball(&[raw("./c", b'7', "")])),
        (
            "global pax",
            tarball(&[Raw {
                posix: true,
                ..raw("./g", b'g', "")
            }]),
        ),
        ("unknown type", tarball(&[raw("./u", b'Z', "")])),
        (
            "mode",
            tarball(&[Raw {
                mode: 0o1_000_644,
                ..file("./m", "")
            }]),
        ),
        ("nul in name", [hidden, vec![0; 1024]].concat()),
        (
            "nul in long name",
            tarball(&[raw("././@LongLink", b'L', "./a\0b\0"), file("./a", "")]),
        ),
        (
            "nul in pax path",
            tarball(&[pax(&[("path", "./a\0b")]), file("./a\0b", "")]),
        ),
        ("checksum", [bad_sum, vec![0; 1024]].concat()),
        ("no magic", [old, vec![0; 1024]].concat()),
        ("pax path unlike", tarball(&[pax(&[("path", "./b")]), file("./a", "")])),
        (
            "pax path extends a short name",
            tarball(&[pax(&[("path", "./ab")]), file("./a", "")]),
        ),
        (
            "long name unlike",
            tarball(&[raw("././@LongLink", b'L', "./b\0"), file("./a", "")]),
        ),
        (
            "pax and long name",
            tarball(&[
                raw("././@LongLink", b'L', "./a\0"),
                pax(&[("path", "./a")]),
                file("./a", ""),
            ]),
        ),
        ("pax size unlike", tarball(&[pax(&[("size", "2")]), file("./a", "1")])),
        ("pax mtime unlike", tarball(&[pax(&[("mtime", "5")]), file("./a", "1")])),
        (
            "pax uid huge",
            tarball(&[pax(&[("uid", "4294967296")]), file("./a", "1")]),
        ),
        (
            "two pax headers",
            tarball(&[pax(&[("uid", "1")]), pax(&[("uid", "1")]), file("./a", "1")]),
        ),
        (
            "two long names",
            tarball(&[raw("././@LongLink", b'L', "./a"), raw("././@LongLink", b'L', "./a")]),
        ),
        ("pax without entry", tarball(&[file("./a", "1"), pax(&[("uid", "1")])])),
        ("no end", entries(&[file("./a", "1")])),
        ("half an end", [entries(&[file("./a", "1")]), vec![0; 512]].concat()),
        (
            "one and a half end",
            [entries(&[file("./a", "1")]), vec![0; 700]].concat(),
        ),
        (
            "data after end",
            [tarball(&[file("./a", "1")]), entries(&[file("./b", "1")])].concat(),
        ),
        (
            "data between ends",
            [entries(&[file("./a", "1")]), vec![0; 512], entries(&[file("./b", "1")])].concat(),
        ),
        (
            "ends in header",
            entries(&[file("./a", "1"), file("./b", "1")])[..1100].to_vec(),
        ),
        (
            "ends in content",
            entries(&[file("./a", &"1".repeat(600))])[..600].to_vec(),
        ),
        (
            "size beyond all",
            tarball(&[Raw {
                size: Some(0o77_777_777_777),
                ..file("./a", "")
            }]),
        ),
        (
            "size beyond the archive",
            tarball(&[Raw {
                size: Some(1 << 20),
                ..file("./a", "")
            }]),
        ),
    ];
    let mut told = String::new();
    for (name, tar) in cases {
        // dpkg unpacks the data archive itself, and the control archive with tar, which knows pax headers.
        let said = |result: Result<(), DebError>, member: &str| {
            let message = result.map_or_else(|error| self::told(&error), |()| "taken".to_owned());
            let message = message.replace(&format!("unpack package x 1 all: {member}: "), "");
            message.replace(&long, "x{256}")
        };
        let data = said(unpack(&deb("", &tar)).map(drop), "data.tar");
        let control = entries(&[file("./control", "")]);
        let parts: [(&str, &[u8]); 3] = [
            ("debian-binary", b"2.0\n"),
            ("control.tar", &[&control[..], &tar].concat()),
            ("data.tar", b""),
        ];
        let control = said(
            read_control(&ar(&parts)[..], "package x 1 all").map(drop),
            "control.tar",
        );
        let line = match data == control {
            true => format!("{name}: {data}"),
            false => format!("{name}: {data}\n  control: {control}"),
        };
        writeln!(told, "{line}").expect("a string takes all");
    }
    insta::assert_snapshot!(told, @r#"
    dotdot: entry "./../x" has a component ".."
    dotdot inside: entry "./a/../../x" has a component ".."
    absolute: entry "etc/x" lies below "etc", which is not before it in the package
      control: entry "/etc/x" is absolute
    absolute root: taken
      control: entry "/" is absolute
    empty component: entry "a/b" lies below "a", which is not before it in the package
      control: entry "./a//b" has an empty component
    long component: entry "./x{256}" has a component longer than 255 bytes
    file named as a directory: taken
      control: entry "./a/" has an empty component
    no parent: entry "a/b" lies below "a", which is not before it in the package
      control: taken
    below a symlink: entry "a/b" lies below "a", where a link leads in a circle or belongs to the package itself
      control: taken
    file twice: taken
    file over symlink: entry "a" is there twice, as different kinds of files
      control: taken
    directory over file: entry "a" is there twice, as different kinds of files
      control: taken
    directory twice, unlike: taken
    root late: taken
    root a file: entry "./" stands at the root but is not a directory
    hard link outside: entry "./a" is a hard link to "../../etc/passwd", which has a component ".."
    hard link absolute: entry "a" lies below "etc", which is not before it in the package
      control: entry "./a" is a hard link to "/etc/passwd", which is absolute
    hard link forward: entry "a" is a hard link to b, which is not before it in the package
      control: taken
    hard link to symlink: entry "a" is a hard link to b, which is not a regular file
      control: taken
    hard link unlike: taken
    symlink without target: entry "./a" is a symbolic link without a target
    symlink with content: after entry "./a" the header of "x" does not have the checksum that it states
      control: entry "./a" is not a regular file but has 1 bytes of content
    file with link name: taken
      control: entry "./a" is not a link but has a link name: "b"
    character device: entry "./null" is a device node, which cannot be made here
      control: entry "./null" is a device node, which is not unpacked
    block device: entry "./sda" is a device node, which cannot be made here
      control: entry "./sda" is a device node, which is not unpacked
    fifo: entry "./pipe" is a named pipe, which cannot be made here
      control: entry "./pipe" is a named pipe, which is not unpacked
    sparse: entry "./sparse" is a sparse file, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./sparse" is a sparse file, which is not supported
    contiguous: entry "./c" is of the type "7", which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./c" has the unknown type "7"
    global pax: entry "./g" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./g" is a global pax header, which is not supported
    unknown type: entry "./u" is of the type "Z", which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./u" has the unknown type "Z"
    mode: taken
      control: entry "./m" has mode 1000644
    nul in name: taken
      control: after entry "./control" the header's name holds a NUL byte: "./a\x00\x00b"
    nul in long name: taken
      control: entry "./a\x00b" has path "./a" in its header but "./a\x00b" in a GNU long name
    nul in pax path: entry "./PaxHeaders/x" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: after entry "./PaxHeaders/x" the header's name holds a NUL byte: "./a\x00b"
    checksum: at the start the header of "!/sum" does not have the checksum that it states
      control: after entry "./control" the header states the checksum 3480, but its bytes sum to 3467
    no magic: taken
      control: after entry "./control" the header has the unknown magic "\x00\x00\x00\x00\x00\x00\x00\x00"
    pax path unlike: entry "./PaxHeaders/x" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./b" has path "./a" in its header but "./b" in a pax record
    pax path extends a short name: entry "./PaxHeaders/x" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./ab" has path "./a" in its header but "./ab" in a pax record
    long name unlike: taken
      control: entry "./b" has path "./a" in its header but "./b" in a GNU long name
    pax and long name: entry "./a" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./a" has its path both in a GNU long name and in a pax record
    pax size unlike: entry "./PaxHeaders/x" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./a" has size 1 in its header but 2 in a pax record
    pax mtime unlike: entry "./PaxHeaders/x" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./a" has mtime 1700000000 in its header but 5 in a pax record
    pax uid huge: entry "./PaxHeaders/x" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./a" has uid 4294967296, which does not fit 32 bits
    two pax headers: entry "./PaxHeaders/x" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: entry "./PaxHeaders/x" has two pax headers
    two long names: taken
      control: entry "./a" has two GNU long names
    pax without entry: entry "./PaxHeaders/x" is a pax header, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive
      control: after entry "./PaxHeaders/x" an extended header has no entry after it
    no end: taken
      control: after entry "./a" the end-of-archive blocks are missing
    half an end: taken
      control: after entry "./a" the end-of-archive blocks are incomplete
    one and a half end: taken
      control: after entry "./a" the end-of-archive blocks are incomplete
    data after end: taken
      control: after entry "./a" there is data after the end-of-archive block
    data between ends: taken
      control: after entry "./a" there is data after the end-of-archive block
    ends in header: after entry "./a" the archive ends within a header (76 of 512 bytes)
    ends in content: read package x 1 all: data.tar: a: the archive ends 512 bytes before the end of the entry
      control: read package x 1 all: control.tar: entry "./a": the archive ends 512 bytes before the end of the entry
    size beyond all: read package x 1 all: data.tar: a: the archive ends 8589933567 bytes before the end of the entry
      control: entry "./a" says it has 8589934591 bytes, more than the limit of 67108864
    size beyond the archive: read package x 1 all: data.tar: a: the archive ends 1047552 bytes before the end of the entry
      control: read package x 1 all: control.tar: entry "./a": the archive ends 1047552 bytes before the end of the entry
    "#);
}

#[test]
fn hostile_containers_are_refused_by_name() {
    let version = ("debian-binary", &b"2.0\n"[..]);
    let control = control();
    let control = ("control.tar", &control[..]);
    let data = tarball(&[dir("./")]);
    let data = ("data.tar", &data[..]);
    let xz = compress(".xz", data.1);
    let (xz_twice, xz_more) = ([&xz[..], &xz[..]].concat(), [&xz[..], b"more"].concat());
    let zst_twice = [compress(".zst", data.1), compress(".zst", b"")].concat();
    let gz_more = [&compress(".gz", data.1)[..], b"more"].concat();
    let whole = ar(&[version, control, data]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("not an archive", b"PK\x03\x04 and so on".to_vec()),
        ("no members", ar(&[])),
        ("no version", ar(&[control, data])),
        ("new version", ar(&[("debian-binary", b"3.0\n"), control, data])),
        ("long version", ar(&[("debian-binary", &[b'2'; 4096]), control, data])),
        ("no control", ar(&[version, data])),
        ("no data", ar(&[version, control])),
        ("wrong order", ar(&[version, data, control])),
        ("extra before data", ar(&[version, control, ("_gpgorigin", b"x"), data])),
        ("extra after data", ar(&[version, control, data, ("_gpgorigin", b"x")])),
        ("data twice", ar(&[version, control, data, data])),
        (
            "unknown compression",
            ar(&[version, control, ("data.tar.bz2", b"BZh9")]),
        ),
        (
            "no compression by that name",
            ar(&[version, control, ("data.tarball", b"")]),
        ),
        ("not xz", ar(&[version, control, ("data.tar.xz", data.1)])),
        ("not zstd", ar(&[version, control, ("data.tar.zst", data.1)])),
        ("not gzip", ar(&[version, control, ("data.tar.gz", data.1)])),
        ("empty xz", ar(&[version, control, ("data.tar.xz", b"")])),
        ("two xz streams", ar(&[version, control, ("data.tar.xz", &xz_twice)])),
        ("bytes after xz", ar(&[version, control, ("data.tar.xz", &xz_more)])),
        ("two zstd frames", ar(&[version, control, ("data.tar.zst", &zst_twice)])),
        ("bytes after gzip", ar(&[version, control, ("data.tar.gz", &gz_more)])),
        ("cut xz", ar(&[version, control, ("data.tar.xz", &xz[..xz.len() - 20])])),
        ("bytes after all", [&whole[..], b"more"].concat()),
        (
            "member size",
            String::from_utf8_lossy(&whole)
                .replacen("4         `", "-4        `", 1)
                .into_bytes(),
        ),
        (
            "member end",
            String::from_utf8_lossy(&whole)
                .replacen("4         `\n", "4         \n`", 1)
                .into_bytes(),
        ),
    ];
    let mut told = String::new();
    for (name, deb) in cases {
        let said = unpack(&deb).map_or_else(|error| self::told(&error), |_| "taken".to_owned());
        writeln!(told, "{name}: {}", said.replace("package x 1 all", "X")).expect("a string takes all");
    }
    insta::assert_snapshot!(told, @r#"
    empty: read X: ends within the archive's first line
    not an archive: read X: is not an ar archive: it begins with "PK\x03\x04 and"
    no members: read X: has no members
    no version: read X: begins with member "control.tar" instead of "debian-binary"
    new version: read X: has format version "3.0\n" instead of 2.0
    long version: read X: has format version "22222222222222222222" instead of 2.0
    no control: read X: has member "data.tar" where "control.tar" is expected
    no data: read X: has no member "data.tar"
    wrong order: read X: has member "data.tar" where "control.tar" is expected
    extra before data: taken
    extra after data: taken
    data twice: taken
    unknown compression: read X: member "data.tar.bz2" has an unknown compression
    no compression by that name: read X: has member "data.tarball" where "data.tar" is expected
    not xz: read X: data.tar.xz: at the start: stream/file format not recognized
    not zstd: read X: data.tar.zst: at the start: Unknown frame descriptor
    not gzip: read X: data.tar.gz: at the start: invalid gzip header
    empty xz: read X: data.tar.xz: at the start: premature eof
    two xz streams: taken
    bytes after xz: taken
    two zstd frames: taken
    bytes after gzip: taken
    cut xz: read X: data.tar.xz: after entry "./": premature eof
    bytes after all: taken
    member size: read X: member "debian-binary" has size "-4", which is not a number
    member end: read X: has no member header where one is expected: "debian-binary   "
    "#);
}

#[test]
fn bombs_stop_at_the_limits() {
    let limits = TarLimits {
        entries: 3,
        bytes: 64 << 10,
        header_bytes: 1024,
    };
    let bounded = |tar: &[u8]| told(&deb_tree(&deb(".xz", tar)[..], "x", &limits, &mut put).expect_err("a bomb"));
    let zeros = bounded(&vec![0; 10 << 20]);
    let many = bounded(&tarball(&[dir("./a"), dir("./b"), dir("./c"), dir("./d")]));
    let large = bounded(&tarball(&[file("./a", &"x".repeat(100 << 10))]));
    let several = bounded(&tarball(&[
        file("./a", &"x".repeat(40 << 10)),
        file("./b", &"x".repeat(40 << 10)),
    ]));
    let name = bounded(&tarball(&[
        raw("././@LongLink", b'L', "x".repeat(2000)),
        file("./a", ""),
    ]));
    insta::assert_snapshot!([zeros, many, large, several, name].join("\n"), @r#"
    read x: data.tar.xz: at the start: the archive is larger than the limit of 65536 bytes
    unpack x: data.tar.xz: after entry "./c" there are more than 3 entries
    unpack x: data.tar.xz: entry "./a" says it has 102400 bytes, more than the limit of 65536
    read x: data.tar: b: the archive is larger than the limit of 65536 bytes
    unpack x: data.tar.xz: entry "././@LongLink" says it has 2000 bytes, more than the limit of 1024
    "#);
    let exact = tarball(&[file("./a", &"x".repeat(63 << 10))]);
    let limits = TarLimits {
        bytes: exact.len() as u64,
        ..limits
    };
    deb_tree(&deb(".xz", &exact)[..], "x", &limits, &mut put).expect("exactly at the limit");
}

#[test]
fn what_the_store_says_is_checked_and_passed_on() {
    let package = deb(".xz", &tarball(&[file("./a", "content")]));
    let full = |_: &mut dyn Read| Err(io::Error::from(io::ErrorKind::StorageFull));
    let error = deb_tree(&package[..], "x", &TarLimits::default(), &mut { full }).expect_err("no space");
    assert_eq!(told(&error), "store \"a\" of x: no storage space");
    let lazy = |_: &mut dyn Read| Ok((VerityDigest::new([0; 32]), 0));
    let error = deb_tree(&package[..], "x", &TarLimits::default(), &mut { lazy }).expect_err("nothing read");
    assert_eq!(
        told(&error),
        "unpack x: data.tar: entry \"a\" has 7 bytes but 0 were stored"
    );
}

/// The package with uncompressed members.
fn plain(deb: &[u8], limits: &TarLimits) -> Result<Vec<u8>, DebError> {
    let mut out = Cursor::new(Vec::new());
    plain_deb(deb, "package x 1 all", limits, &mut out)?;
    Ok(out.into_inner())
}

#[test]
fn a_package_without_compression_says_the_same() {
    let tar = tarball(&good());
    let tree = unpack(&deb("", &tar)).expect("good");
    for ending in ["", ".gz", ".xz", ".zst"] {
        let out = plain(&deb(ending, &tar), &TarLimits::default()).expect("good");
        assert_eq!(out.len(), deb("", &tar).len(), "{ending}");
        assert_eq!(unpack(&out).expect("good"), tree, "{ending}");
        assert_eq!(read_control(&out[..], "x").expect("good"), "Package: x\n");
        assert_eq!(plain(&out, &TarLimits::default()).expect("good"), out, "{ending}");
    }
    // Archives of odd length are no archives, but the container can hold them.
    let odd = ar(&[("debian-binary", b"2.0\n"), ("control.tar", b"odd"), ("data.tar", b"x")]);
    let expected = &odd[..odd.len()];
    let out = plain(&odd, &TarLimits::default()).expect("only copied");
    assert_eq!((out.len(), &out[out.len() - 2..]), (expected.len(), &b"x\n"[..]));
}

#[test]
fn what_cannot_be_decompressed_is_refused() {
    let tar = tarball(&[dir("./"), file("./a", "content"), link("./b", b'2', "a")]);
    for ending in ["", ".gz", ".xz", ".zst"] {
        let whole = deb(ending, &tar);
        for cut in 0..whole.len() {
            // A padding byte behind the data archive is not read.
            assert!(
                plain(&whole[..cut], &TarLimits::default()).is_err() || (cut + 1 == whole.len() && whole[cut] == b'\n'),
                "{ending}: accepted when cut to {cut}"
            );
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x21;
            // Refused, or the same to whoever reads it as the original with that byte.
            if let Ok(out) = plain(&bad, &TarLimits::default()) {
                assert_eq!(unpack(&out).ok(), unpack(&bad).ok(), "{ending}: byte {at}");
            }
        }
    }
    let small = TarLimits {
        bytes: tar.len() as u64 - 1,
        ..TarLimits::default()
    };
    let refused = [
        plain(&deb(".xz", &tar), &small),
        plain(
            &ar(&[
                ("debian-binary", b"2.0\n"),
                ("control.tar", &tar),
                ("data.tar.lz4", &tar),
            ]),
            &TarLimits::default(),
        ),
    ];
    let refused = refused.map(|r| told(&r.expect_err("must be refused")));
    insta::assert_snapshot!(refused.join("\n").replace(&small.bytes.to_string(), "LIMIT"), @r#"
    read package x 1 all: member "control.tar.xz" is larger than the limit of LIMIT bytes
    read package x 1 all: member "data.tar.lz4" has an unknown compression
    "#);
}

#[test]
fn the_control_file_must_be_there_and_be_text() {
    let with = |entries: &[Raw]| {
        let control = tarball(entries);
        let deb = ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar", &control),
            ("data.tar", &tarball(&[])),
        ]);
        told(&read_control(&deb[..], "x").expect_err("must be refused"))
    };
    let told = [
        with(&[file("./md5sums", "")]),
        with(&[raw("./control", b'0', b"Package: \xff\n")]),
        with(&[link("./control", b'2', "/etc/passwd")]),
        with(&[file("./control", &"x".repeat(2 << 20))]),
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    read x: control.tar holds no file "control"
    read x: control.tar: file "control" is not UTF-8 at byte 9
    unpack x: control.tar: entry "control" is not a regular file
    unpack x: control.tar: entry "control" has 2097152 bytes, more than the limit of 1048576
    "#);
}
