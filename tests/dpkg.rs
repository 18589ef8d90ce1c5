//! Packages in the forms in which programs write them: pnb takes what the pinned dpkg takes, refuses what it refuses, and makes the same
//! files of it. `dpkg --unpack` runs in the sandbox, with a range of ids, on every case.

#[path = "fixture/check_tools.rs"]
mod check_tools;
#[path = "fixture/raw_package.rs"]
mod raw_package;

use crate::raw_package::*;
use pnb::{
    debian::{TarLimits, UnpackedRoot, deb_entries, read_names},
    model::{Capability, Epoch, Meta, Node, RelPath, Tree, VerityDigest},
    sandbox::{Access, Collected, Executor, Ids, Limits, Mount, OutputKind, OutputSpec, RootFs, Spec, Workload},
    store::Content,
    verity::digest_bytes,
};
use std::{
    collections::BTreeMap,
    error::Error as _,
    fs,
    io::{self, Read, Write},
    time::Duration,
};

/// A case: its name, the packages, and what pnb says where it refuses a package that dpkg takes, on purpose.
struct Case {
    name: &'static str,
    debs: Vec<Vec<u8>>,
    stricter: Option<&'static str>,
}

/// One package with this data archive.
fn tar(name: &'static str, data: Vec<u8>) -> Case {
    Case {
        name,
        debs: vec![deb_of(&control(&fields("p", "")), &data)],
        stricter: None,
    }
}

/// One package with these entries below a root directory.
fn one(name: &'static str, all: &[Raw]) -> Case {
    tar(name, tarball(&[&[dir("./")], all].concat()))
}

fn strict(case: Case, stricter: &'static str) -> Case {
    Case {
        stricter: Some(stricter),
        ..case
    }
}

fn debs(name: &'static str, debs: Vec<Vec<u8>>) -> Case {
    Case {
        name,
        debs,
        stricter: None,
    }
}

/// Names and their order.
fn names() -> Vec<Case> {
    let long_name = format!("./{}", "l".repeat(180));
    let plain = |first: Raw| tar("", tarball(&[first, file("usr/a")])).debs;
    vec![
        one(
            "ordinary",
            &[
                dir("./usr/"),
                file("./usr/a"),
                symlink("./b", "usr/a"),
                hard("./c", "./usr/a"),
            ],
        ),
        tar("no dots", tarball(&[dir("usr/"), file("usr/a")])),
        tar(
            "absolute",
            tarball(&[dir("/usr/"), file("/usr/a"), hard("/b", "/usr/a")]),
        ),
        debs("absolute beside plain", plain(dir("/usr"))),
        one("two slashes at the end", &[dir("./usr//"), file("./usr/a")]),
        one(
            "inner slashes",
            &[dir("./usr/"), file("./usr///a"), file(".//b"), file("././c")],
        ),
        one("inner dots", &[dir("./usr/"), file("./usr/./a")]),
        strict(
            one("parent", &[dir("./usr/"), file("./usr/../b")]),
            "entry \"./usr/../b\" has a component \"..\"",
        ),
        one("no directory", &[file("./usr/a")]),
        one("directory later", &[file("./usr/a"), dir("./usr/")]),
        one("directory without slash", &[dir("./a"), file("./a/b")]),
        one("long name", &[long(b'L', &long_name), file(&long_name)]),
        one("another long name", &[long(b'L', "./long"), file("./short")]),
        one(
            "two long names",
            &[long(b'L', "./l1"), long(b'L', "./l2"), file("./short")],
        ),
        one("nul within a long name", &[long(b'L', "./l1\0more"), file("./short")]),
        one(
            "long link",
            &[long(b'K', &"q".repeat(150)), symlink("./s", &"q".repeat(100))],
        ),
        one("long name of nothing", &[file("./a"), long(b'L', "./l1")]),
        one(
            "too long a component",
            &[long(b'L', &format!("./{}", "l".repeat(256))), file("./l")],
        ),
        one(
            "ustar prefix",
            &[
                dir("./p/"),
                Raw {
                    magic: *POSIX,
                    ..file("a")
                }
                .with(345, "./p"),
            ],
        ),
        one("prefix in a gnu header", &[file("./a").with(345, "zz")]),
        one("nul in a name", &[file("./a\0b")]),
        one("no name", &[file("")]),
        one("utf-8", &[file("./caf\u{e9}")]),
        one("latin-1", &[raw(b"./caf\xe9", b'0', "x")]),
        one("newline", &[file("./a\nb")]),
        one("blanks", &[file("./ a b "), file("./-c")]),
    ]
}

/// Kinds of entries, and two at one path.
fn kinds() -> Vec<Case> {
    let sized = |entry: Raw| entry.with(124, "00000000005");
    vec![
        one("pax", &[raw("./x", b'x', "9 path=a\n"), file("./a")]),
        tar("global pax", tarball(&[raw("./g", b'g', ""), dir("./")])),
        one("sparse", &[raw("./s", b'S', "")]),
        one("contiguous", &[raw("./c", b'7', "x")]),
        one("volume", &[raw("./v", b'V', "")]),
        one("solaris", &[raw("./s", b'X', "")]),
        one("unknown", &[raw("./z", b'Z', "")]),
        one("old file", &[raw("./a", 0, "x")]),
        one(
            "old header",
            &[Raw {
                magic: [0; 8],
                ..file("./a")
            }],
        ),
        one(
            "odd magic",
            &[Raw {
                magic: *b"abcdefgh",
                ..file("./a")
            }],
        ),
        one("size of a directory", &[sized(dir("./d/")), file("./c")]),
        one("size of a link", &[sized(symlink("./l", "b")), file("./c")]),
        one(
            "size of a hard link",
            &[file("./b"), sized(hard("./a", "./b")), file("./c")],
        ),
        one("link name of a file", &[link("./a", b'0', "b")]),
        one("link to nothing", &[symlink("./a", "")]),
        one(
            "directory twice",
            &[dir("./a/").mode(0o700), file("./a/b"), dir("./a/")],
        ),
        one("root twice", &[dir("./a/"), dir("./").mode(0o700)]),
        one("file twice", &[text("./a", "1"), text("./a", "22").mode(0o755)]),
        one("link twice", &[symlink("./a", "b"), symlink("./a", "cc")]),
        one("link over directory", &[dir("./a/"), symlink("./a", "b")]),
        one(
            "file below a link of its own",
            &[dir("./b/"), symlink("./a", "b"), file("./a/x")],
        ),
        strict(
            one("file over link", &[symlink("./a", "b"), file("./a")]),
            "entry \"a\" is there twice, as different kinds of files",
        ),
        strict(
            one("link over file", &[file("./a"), symlink("./a", "b")]),
            "entry \"a\" is there twice, as different kinds of files",
        ),
        strict(
            one("file over an empty directory", &[dir("./a/"), file("./a")]),
            "entry \"a\" would replace a directory",
        ),
        one("directory over file", &[file("./a"), dir("./a/")]),
        one("hard link first", &[hard("./a", "./b"), file("./b")]),
        one("hard link", &[file("./b").mode(0o600), hard("./a", "./b")]),
        one(
            "hard link with another mode",
            &[file("./b").mode(0o600), hard("./a", "b").mode(0o4755)],
        ),
        one(
            "chain of hard links",
            &[file("./b"), hard("./a", "./b"), hard("./c", "./a"), text("./b", "new")],
        ),
        one(
            "hard link of an old inode",
            &[
                file("./b"),
                hard("./a", "./b"),
                text("./b", "new").mode(0o600),
                hard("./c", "./b").mode(0o640),
            ],
        ),
        one("hard link to itself", &[hard("./a", "./a")]),
        one("hard link to a directory", &[dir("./d/"), hard("./a", "./d")]),
        one("hard link to nothing", &[hard("./a", "./b")]),
        one("hard link outside", &[hard("./a", "../../etc/passwd")]),
        one("hard link to a link", &[symlink("./b", "q"), hard("./a", "./b")]),
    ]
}

/// Numbers of headers.
fn numbers() -> Vec<Case> {
    let at = |name: &'static str, at: usize, bytes: &[u8]| one(name, &[file("./a").with(at, bytes), file("./b")]);
    vec![
        one("all bits", &[file("./a").mode(0o7777), dir("./d/").mode(0o3770)]),
        one("type in the mode", &[file("./a").mode(0o100_644)]),
        one("more in the mode", &[file("./a").mode(0o1_000_644)]),
        at("binary size", 124, b"\x80\0\0\0\0\0\0\0\0\0\0\x01"),
        at("negative size", 124, &[0xff; 12]),
        at("size of letters", 124, b"zzzz"),
        at("size without end", 124, b"000000000001"),
        at("binary time", 136, b"\x80\0\0\0\0\0\0\x01\0\0\0\0"),
        at("time before 1970", 136, &[0xff; 12]),
        at("late time", 136, b"77777777777\0"),
        at("no time", 136, &[0; 12]),
        at("owner", 108, b"0000052\0"),
        at("blanks before an owner", 108, b"    12 \0"),
        at("binary owner", 108, b"\x80\0\0\0\0\0\x01\0"),
        at("largest owner", 108, b"\x80\0\0\0\xff\xff\xff\xff"),
        at("larger owner", 108, b"\x80\0\0\x01\0\0\0\0"),
        at("no owner", 108, &[0; 8]),
        at("owner of letters", 108, b"0000xx \0"),
        at("group of letters", 116, b"zz"),
        at("mode of letters", 100, b"zz"),
        at("device numbers of a file", 329, b"zzzzzzz"),
    ]
}

/// The archive around the entries.
fn containers() -> Vec<Case> {
    let (a, good) = (file("./a"), tarball(&[dir("./"), file("./a")]));
    let ctl = control(&fields("p", ""));
    let mut bad_sum = a.bytes();
    bad_sum[0] = b'!';
    let two = || member("debian-binary", b"2.0\n", b'\n');
    let c = || member("control.tar", &ctl, b'\n');
    let d = || member("data.tar", &good, b'\n');
    let packed = |ending: &str| {
        let part = |stem: &str, data: &[u8]| member(&format!("{stem}.tar{ending}"), &compress(ending, data), b'\n');
        ar(&[two(), part("control", &ctl), part("data", &good)])
    };
    // The data archive without its end, and something behind its compressed form.
    let open = entries(&[dir("./"), file("./a")]);
    let twice = |ending: &str, more: &[u8]| {
        let data = [&compress(ending, &open)[..], more].concat();
        ar(&[two(), c(), member(&format!("data.tar{ending}"), &data, b'\n')])
    };
    let version = |text: &[u8]| vec![ar(&[member("debian-binary", text, b'\n'), c(), d()])];
    let extra = || member("_gpgorigin", b"odd", b'\n');
    let lzma = ar(&[two(), c(), member("data.tar.lzma", &compress(".lzma", &good), b'\n')]);
    let slash = ar(&[
        member("debian-binary/", b"2.0\n", b'\n'),
        member("control.tar/", &ctl, b'\n'),
        member("data.tar/", &good, b'\n'),
    ]);
    vec![
        tar("empty", Vec::new()),
        tar("no end", entries(&[dir("./"), a.clone()])),
        tar(
            "half an end",
            [entries(std::slice::from_ref(&a)), vec![0; 512]].concat(),
        ),
        tar(
            "a part of a header",
            [entries(std::slice::from_ref(&a)), vec![b'x'; 100]].concat(),
        ),
        tar(
            "entries after the end",
            [good.clone(), entries(&[file("./b")])].concat(),
        ),
        tar("bytes after the end", [good.clone(), b"and so on".to_vec()].concat()),
        tar("wrong checksum", [bad_sum, vec![0; 1024]].concat()),
        tar("a size beyond the end", tarball(&[a.with(124, "00000077777")])),
        debs("gzip", vec![packed(".gz")]),
        debs("xz", vec![packed(".xz")]),
        debs("zstd", vec![packed(".zst")]),
        debs("lzma", vec![lzma]),
        debs("names with a slash", vec![slash]),
        debs("minor version", version(b"2.7\n")),
        debs("more lines", version(b"2.0\nmore\n")),
        debs("no newline", version(b"2.0")),
        debs("no minor version", version(b"2\n")),
        debs("major version", version(b"3.0\n")),
        debs("no version", vec![ar(&[c(), d()])]),
        debs("odd padding", vec![ar(&[two(), member("_x", b"odd", b'?'), c(), d()])]),
        debs("extra members", vec![ar(&[two(), extra(), c(), extra(), d(), extra()])]),
        debs(
            "another member before data",
            vec![ar(&[two(), c(), member("zz", b"", b'\n'), d()])],
        ),
        debs(
            "another member after data",
            vec![ar(&[two(), c(), d(), member("zz", b"", b'\n')])],
        ),
        debs("data twice", vec![ar(&[two(), c(), d(), d()])]),
        debs("control twice", vec![ar(&[two(), c(), c(), d()])]),
        debs("data first", vec![ar(&[two(), d(), c()])]),
        debs("no data", vec![ar(&[two(), c()])]),
        debs(
            "bytes after the members",
            vec![[ar(&[two(), c(), d()]), b"more".to_vec()].concat()],
        ),
        debs("bytes after gzip", vec![twice(".gz", b"more")]),
        debs(
            "two gzip members",
            vec![twice(".gz", &compress(".gz", &entries(&[file("./b")])))],
        ),
        debs("bytes after xz", vec![twice(".xz", b"more")]),
        debs(
            "two xz streams",
            vec![twice(".xz", &compress(".xz", &entries(&[file("./b")])))],
        ),
        debs("bytes after zstd", vec![twice(".zst", b"more")]),
        debs(
            "two zstd frames",
            vec![twice(".zst", &compress(".zst", &entries(&[file("./b")])))],
        ),
        debs(
            "unknown compression",
            vec![ar(&[two(), c(), member("data.tar.lz4", &good, b'\n')])],
        ),
        debs("not xz", vec![ar(&[two(), c(), member("data.tar.xz", &good, b'\n')])]),
    ]
}

/// Control files.
fn controls() -> Vec<Case> {
    let data = tarball(&[dir("./"), file("./a")]);
    let with = |name: &'static str, text: String| debs(name, vec![deb_of(&control(&text), &data)]);
    let versioned = |name: &'static str, version: &str| {
        with(
            name,
            fields("p", "").replace("Version: 1", &format!("Version: {version}")),
        )
    };
    vec![
        with("continuation", fields("p", "Depends: a,\n b\n")),
        with("case", fields("p", "").replace("Package:", "PACKAGE:")),
        with("comment", format!("# made by hand\n{}", fields("p", ""))),
        with(
            "blanks before the colon",
            fields("p", "").replace("Version:", "Version :"),
        ),
        with("field twice", fields("p", "Section: a\nSection: b\n")),
        with("two paragraphs", format!("{}\n{}", fields("p", ""), fields("q", ""))),
        with("blank lines before", format!("\n\n{}", fields("p", ""))),
        with("no package", fields("p", "").replace("Package: p\n", "")),
        with("no version", fields("p", "").replace("Version: 1\n", "")),
        with("odd package", fields("a b", "")),
        with("no colon", fields("p", "Nothing\n")),
        with("malformed relation", fields("p", "Replaces: a (>> \n")),
        versioned("epoch", "1:2-3"),
        versioned("tilde", "1~rc1-1"),
        versioned("dot first", ".1"),
        versioned("letter first", "a1"),
        versioned("colons", "1:2:3"),
        versioned("empty revision", "1-"),
        versioned("empty epoch", ":1"),
        versioned("negative epoch", "-1:1"),
        versioned("large epoch", "99999999999:1"),
        versioned("underscore", "1_2"),
        versioned("blank", "1 2"),
    ]
}

/// Packages beside each other.
fn several() -> Vec<Case> {
    let usr = |more: &[Raw]| [&[dir("./"), dir("./usr/"), dir("./usr/lib/")], more].concat();
    let link = |name: &str| named(name, "", &usr(&[symlink("./lib", "usr/lib")]));
    let lib = |name: &str| {
        named(
            name,
            "",
            &[dir("./"), dir("./lib/").mode(0o700), dir("./lib/x/"), file("./lib/x/y")],
        )
    };
    let etc =
        |name: &str, more: &str, data: &str| named(name, more, &[dir("./"), dir("./etc/"), text("./etc/f", data)]);
    vec![
        debs("link, then files below it", vec![link("a"), lib("b")]),
        debs("files, then a link", vec![lib("a"), link("b")]),
        debs(
            "link in a loop",
            vec![named("a", "", &[dir("./"), symlink("./lib", "lib")]), lib("b")],
        ),
        debs(
            "link to a file",
            vec![
                named("a", "", &[dir("./"), file("./f"), symlink("./lib", "f")]),
                lib("b"),
            ],
        ),
        debs(
            "two links on the way",
            vec![
                named("a", "", &usr(&[symlink("./l", "usr"), symlink("./lib", "l/lib")])),
                lib("b"),
            ],
        ),
        debs(
            "one path by two names",
            vec![
                named(
                    "a",
                    "",
                    &usr(&[
                        symlink("./lib", "usr/lib"),
                        dir("./usr/lib/x/"),
                        text("./usr/lib/x/y", "old"),
                    ]),
                ),
                lib("b"),
            ],
        ),
        debs(
            "directory of another package",
            vec![
                named("a", "", &[dir("./"), dir("./usr/")]),
                named("b", "", &[file("./usr/f")]),
            ],
        ),
        debs(
            "directory with another mode",
            vec![
                named("a", "", &[dir("./"), dir("./d/").mode(0o700)]),
                named("b", "", &[dir("./d/")]),
            ],
        ),
        debs("file of another package", vec![etc("a", "", "1"), etc("b", "", "22")]),
        debs("the same file", vec![etc("a", "", "1"), etc("b", "", "1")]),
        debs(
            "the same link",
            vec![
                named("a", "", &[symlink("./l", "x")]),
                named("b", "", &[symlink("./l", "x")]),
            ],
        ),
        debs(
            "the later one replaces",
            vec![etc("a", "", "1"), etc("b", "Replaces: a\n", "22")],
        ),
        debs(
            "the earlier one replaces",
            vec![etc("a", "Replaces: b\n", "1"), etc("b", "", "22")],
        ),
        debs(
            "replaces another version",
            vec![etc("a", "", "1"), etc("b", "Replaces: a (<< 1)\n", "22")],
        ),
        debs(
            "replaces this version",
            vec![etc("a", "", "1"), etc("b", "Replaces: z, a (<< 2)\n", "22")],
        ),
        debs(
            "replaces a provided name",
            vec![etc("a", "Provides: v\n", "1"), etc("b", "Replaces: v\n", "22")],
        ),
        debs(
            "file over a directory",
            vec![
                named("a", "", &[dir("./d/"), file("./d/f")]),
                named("b", "", &[file("./d")]),
            ],
        ),
        debs(
            "directory over a file",
            vec![named("a", "", &[file("./d")]), named("b", "", &[dir("./d/")])],
        ),
        debs(
            "link over a file",
            vec![
                named("a", "", &[file("./d")]),
                named("b", "Replaces: a\n", &[symlink("./d", "x")]),
            ],
        ),
        debs(
            "file over a link",
            vec![
                named("a", "", &[symlink("./d", "x")]),
                named("b", "Replaces: a\n", &[file("./d")]),
            ],
        ),
        debs(
            "hard link to a file of another package",
            vec![
                named("a", "", &[file("./f")]),
                named("b", "", &[hard("./g", "./f").mode(0o600)]),
            ],
        ),
        debs(
            "three packages",
            vec![
                etc("a", "", "1"),
                etc("b", "Replaces: a\n", "22"),
                etc("c", "Replaces: a\n", "333"),
            ],
        ),
    ]
}

fn compress(ending: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match ending {
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
        ".lzma" => {
            let options = liblzma::stream::LzmaOptions::new_preset(6).expect("a preset");
            let stream = liblzma::stream::Stream::new_lzma_encoder(&options).expect("an encoder");
            let mut encoder = liblzma::write::XzEncoder::new_stream(&mut out, stream);
            encoder.write_all(data).expect("memory");
            encoder.finish().expect("memory");
        }
        _ => out = zstd::encode_all(data, 19).expect("memory"),
    }
    out
}

/// Unpacks the packages with pnb; the tree as lines, or the refusal.
fn ours(case: &Case) -> Result<Vec<String>, String> {
    let mut root = UnpackedRoot::new(Meta::root(0o755, Epoch::new(0)));
    let mut put = |content: &mut dyn Read| -> io::Result<(VerityDigest, u64)> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok((digest_bytes(&bytes), bytes.len() as u64))
    };
    for (number, deb) in case.debs.iter().enumerate() {
        let name = format!("{number}.deb");
        let told = |error: pnb::debian::DebError| match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        let names = read_names(&deb[..], &name).map_err(told)?;
        let entries = deb_entries(&deb[..], &name, &TarLimits::default(), &mut put).map_err(told)?;
        root.unpack(&name, names, entries).map_err(told)?;
    }
    Ok(lines(&root.into_tree()))
}

fn lines(tree: &Tree) -> Vec<String> {
    let line = |(path, entry): (&RelPath, &pnb::model::Entry)| {
        let (kind, more) = match &entry.node {
            Node::Directory => ("d", String::new()),
            Node::File { size, .. } => ("f", size.to_string()),
            Node::Symlink { target } => ("l", target.escape_ascii().to_string()),
            _ => ("?", String::new()),
        };
        let meta = &entry.meta;
        let mode = if kind == "l" { 0o777 } else { meta.mode };
        let path = path.as_bytes().escape_ascii();
        format!("{path} {kind} {mode:o} {}:{} {more}", meta.uid, meta.gid)
    };
    let mut all: Vec<String> = tree.iter().map(line).collect();
    all.sort();
    all
}

/// Unpacks the packages of every case with dpkg; for each, what it leaves as lines, or what it says.
fn theirs(cases: &[Case]) -> Vec<Result<Vec<String>, String>> {
    let scratch = tempfile::tempdir().expect("scratch");
    for (number, case) in cases.iter().enumerate() {
        let dir = scratch.path().join(number.to_string());
        fs::create_dir(&dir).expect("made");
        for (n, deb) in case.debs.iter().enumerate() {
            fs::write(dir.join(format!("{n}.deb")), deb).expect("written");
        }
    }
    let script = format!(
        r#"set -u
        export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
        mkdir out
        n=0
        while [ $n -lt {} ]; do
            r=/build/r$n
            mkdir -p $r/var/lib/dpkg/info $r/var/lib/dpkg/updates
            : >$r/var/lib/dpkg/status
            if dpkg --root=$r --log=/dev/null --force-bad-path --force-architecture --force-depends --force-unsafe-io \
                --unpack /inputs/debs/$n/*.deb >/build/said 2>&1; then
                rm -rf $r/var
                (cd $r && find . -mindepth 1 -printf '%P\t%y\t%m\t%U:%G\t%s\t%l\0') >out/$n.tree
            else
                cp /build/said out/$n.said
            fi
            rm -rf $r
            n=$((n + 1))
        done
        "#,
        cases.len()
    );
    let spec = Spec {
        mounts: vec![Mount {
            source: scratch.path().canonicalize().expect("there"),
            target: "inputs/debs".parse().expect("a path"),
            access: Access::ReadOnly,
        }],
        outputs: vec![OutputSpec {
            name: "out".to_owned(),
            path: "out".parse().expect("a path"),
            kind: OutputKind::Tree,
            allow_setid: false,
            allow_devices: false,
        }],
        ids: Ids::Range,
        capabilities: [
            Capability::Chown,
            Capability::DacOverride,
            Capability::Fowner,
            Capability::Fsetid,
        ]
        .into(),
        limits: Limits {
            wall: Duration::from_secs(300),
            ..Limits::small()
        },
        ..Spec::new(
            "dpkg",
            RootFs::Tree(check_tools::check_tools().to_owned()),
            Workload::command(["/bin/sh", "-c", &script].map(str::to_owned).to_vec()),
        )
    };
    let executor = Executor {
        helper: env!("CARGO_BIN_EXE_pnb").into(),
        strict: false,
    };
    let mut contents = BTreeMap::new();
    let mut put = |_: &OutputSpec, _: bool, content: &mut dyn Content| {
        let mut bytes = Vec::new();
        io::Read::read_to_end(content, &mut bytes)?;
        let (digest, size) = (digest_bytes(&bytes), bytes.len() as u64);
        contents.insert(digest, bytes);
        Ok((digest, size))
    };
    let mut log = Vec::new();
    let ended = executor.run(&spec, &mut put, &mut log);
    let told = |error| format!("{error}: {}", String::from_utf8_lossy(&log));
    let outcome = ended.map_err(told).expect("the script ends well");
    let Some(Collected::Tree(out)) = outcome.outputs.get("out") else {
        unreachable!("the output is a tree");
    };
    let made = |name: String| match out.get(&name.parse().expect("a path")).map(|entry| &entry.node) {
        Some(Node::File { digest, size }) => Some(if *size == 0 {
            Vec::new()
        } else {
            contents[digest].clone()
        }),
        _ => None,
    };
    let outcome = |n: usize| match made(format!("{n}.tree")) {
        Some(tree) => Ok(listed(&tree)),
        None => Err(String::from_utf8_lossy(&made(format!("{n}.said")).expect("one of both")).into_owned()),
    };
    (0..cases.len()).map(outcome).collect()
}

/// The records of find as lines.
fn listed(tree: &[u8]) -> Vec<String> {
    let record = |record: &[u8]| {
        let part: Vec<&[u8]> = record.split(|b| *b == b'\t').collect();
        let [path, kind, mode, owner, size, target] = part[..] else {
            unreachable!("not a record of find: {}", record.escape_ascii());
        };
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let more = match kind {
            b"f" => show(size),
            b"l" => show(target),
            _ => String::new(),
        };
        format!("{} {} {} {} {more}", show(path), show(kind), show(mode), show(owner))
    };
    let records = tree.split(|b| *b == 0).filter(|record| !record.is_empty());
    let mut all: Vec<String> = records.map(record).collect();
    all.sort();
    all
}

#[test]
fn packages_are_taken_as_dpkg_takes_them() {
    let cases: Vec<Case> = [names(), kinds(), numbers(), containers(), controls(), several()]
        .into_iter()
        .flatten()
        .collect();
    let theirs = theirs(&cases);
    let (mut taken, mut refused, mut wrong) = (0, 0, Vec::new());
    for (case, theirs) in cases.iter().zip(theirs) {
        let name = case.name;
        match (ours(case), theirs, case.stricter) {
            (Ok(ours), Ok(theirs), None) if ours == theirs => taken += 1,
            (Err(_), Err(_), None) => refused += 1,
            (Err(ours), Ok(_), Some(stricter)) if ours.contains(stricter) => refused += 1,
            (ours, theirs, _) => wrong.push(format!("{name}:\n  pnb:  {ours:?}\n  dpkg: {theirs:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken > 50 && refused > 40, "{taken} taken, {refused} refused");
}
