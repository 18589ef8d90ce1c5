//! Archives in the forms in which they are found: what is kept and moved by a new lock, preferences, layouts, signatures and keyrings.

#[path = "fixture/signed_archive.rs"]
mod signed_archive;

use crate::signed_archive::*;
use pgp::{
    composed::{ArmorOptions, CleartextSignedMessage, SignedSecretKey},
    crypto::hash::HashAlgorithm,
    packet::SignatureType,
    ser::Serialize as _,
    types::Password,
};
use pnb::{
    lock::{
        ArchiveLocation, Indexes, LockChange, LockError, LockRequest, Lockfile, WantedSet, check, diff, parse_archives,
        parse_lock, update, write_lock,
    },
    model::{Arch, Epoch, Hint, Moment, NodeId, RelPath, Sha256Digest, chain},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
};

/// How an archive is signed.
#[derive(Clone, Copy, PartialEq)]
enum Signed {
    Inline,
    Detached,
    DetachedBinary,
}

/// One suite: its release file's further fields, its packages, and its form.
#[derive(Clone)]
struct Suite {
    name: &'static str,
    date: u32,
    fields: String,
    /// Index by path below the suite's directory, uncompressed.
    indexes: Vec<(String, String)>,
    endings: &'static [&'static str],
    signed: Signed,
    document: fn(String) -> String,
    /// The directory of a flat archive, as `sources.list` has it.
    flat: Option<&'static str>,
}

impl Suite {
    fn new(name: &'static str, packages: &str) -> Self {
        Self {
            name,
            date: DATE,
            fields: "Architectures: amd64\nComponents: main\n".to_owned(),
            indexes: vec![("main/binary-amd64/Packages".to_owned(), packages.to_owned())],
            endings: &[".xz"],
            signed: Signed::Inline,
            document: |text| text,
            flat: None,
        }
    }

    fn release(&self, files: &[(String, Vec<u8>)]) -> String {
        let date = Epoch::new(self.date).to_rfc3339();
        let date: jiff::Timestamp = date.parse().expect("a time");
        let date = date.strftime("%a, %d %b %Y %H:%M:%S UTC");
        let lines: String = files
            .iter()
            .map(|(path, bytes)| format!(" {} {} {path}\n", sha256(bytes), bytes.len()))
            .collect();
        let suite = match self.flat {
            None => format!("Suite: {}\n", self.name),
            Some(_) => String::new(),
        };
        format!("{suite}Date: {date}\n{}SHA256:\n{lines}", self.fields)
    }
}

fn packed(ending: &str, text: &str) -> Vec<u8> {
    match ending {
        ".xz" => xz(text),
        ".zst" => zstd::encode_all(text.as_bytes(), 3).expect("in memory"),
        ".gz" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut encoder, text.as_bytes()).expect("in memory");
            encoder.finish().expect("in memory")
        }
        ".lzma" => {
            let options = liblzma::stream::LzmaOptions::new_preset(6).expect("a preset");
            let stream = liblzma::stream::Stream::new_lzma_encoder(&options).expect("an encoder");
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            io::Write::write_all(&mut encoder, text.as_bytes()).expect("in memory");
            encoder.finish().expect("in memory")
        }
        _ => text.as_bytes().to_vec(),
    }
}

/// Archives in memory, and what was said about them.
struct Served {
    mirror: Mirror,
    remarks: RefCell<Vec<String>>,
}

impl Indexes for Served {
    fn get(
        &self,
        place: ArchiveLocation<'_>,
        path: &RelPath,
        expected: Option<(u64, Sha256Digest)>,
    ) -> io::Result<Vec<u8>> {
        let bytes = self.mirror.get(place, path, expected)?;
        // As the servers of a mirror do it: a file with another digest is not the one that was asked for.
        match expected {
            Some((_, digest)) if digest != sha256(&bytes) => Err(io::Error::other("another SHA-256")),
            _ => Ok(bytes),
        }
    }

    fn remark(&self, archive: &str, text: &str) {
        self.remarks.borrow_mut().push(format!("{archive} {text}"));
    }
}

/// A request for a lock.
#[derive(Clone)]
struct Ask {
    want: Vec<&'static str>,
    more: &'static str,
    ring: Option<Vec<u8>>,
    now: u32,
    snapshot: Option<u32>,
    keep: bool,
    previous: Option<Lockfile>,
    essential: bool,
    closure: bool,
}

fn ask(want: &[&'static str]) -> Ask {
    Ask {
        want: want.to_vec(),
        more: "",
        ring: None,
        now: DATE + DAY,
        snapshot: None,
        keep: false,
        previous: None,
        essential: false,
        closure: true,
    }
}

impl Ask {
    fn set(&self) -> WantedSet {
        WantedSet {
            node: NodeId::new("x", Arch::Amd64),
            names: self.want.iter().map(|name| (*name).to_owned()).collect(),
            essential: self.essential,
            closure: self.closure,
        }
    }

    fn of(&self, suites: &[Suite]) -> Result<(Lockfile, Vec<String>), LockError> {
        let key = new_key(1);
        let mut mirror = Mirror::default();
        let mut archives = String::new();
        for suite in suites {
            serve(&mut mirror, suite, &key);
            archives += &format!(
                "[[archive]]\nname = \"{0}\"\ndistribution = \"debian\"\nbase = \"debian\"\nsuite = \"{0}\"\n\
                 {2}\narchitectures = [\"amd64\"]\nkeyring = \"k\"\n{1}\n",
                suite.name,
                self.more,
                match suite.flat {
                    None => "components = [\"main\"]".to_owned(),
                    Some(flat) => format!("flat = {flat:?}"),
                }
            );
        }
        let archives = parse_archives(&archives, "archives.toml")?;
        let ring = key.to_public_key().to_armored_bytes(ArmorOptions::default());
        let ring = self.ring.clone().unwrap_or(ring.expect("armored"));
        let served = Served {
            mirror,
            remarks: RefCell::default(),
        };
        let request = LockRequest {
            archives: &archives,
            keyrings: &BTreeMap::from([("k".parse().expect("a path"), ring)]),
            suites: &BTreeSet::new(),
            wanted: &[self.set()],
            files: &[],
            now: self.now,
            snapshot: self.snapshot.map(Moment::new),
            previous: self.previous.as_ref(),
            keep: self.keep,
        };
        let lock = update(&request, &served)?;
        Ok((lock, served.remarks.into_inner()))
    }

    fn lock(&self, suites: &[Suite]) -> Lockfile {
        let made = self.of(suites).map_err(|error| chain(&error));
        made.expect("locked").0
    }

    fn refusal(&self, suites: &[Suite]) -> String {
        let error = self.of(suites).expect_err("must be refused");
        let hint = error.hint().map_or(String::new(), |hint| format!("\nhint: {hint}"));
        let text = format!("{}{hint}", chain(&error));
        let words = text.clone();
        words
            .split(|c: char| !c.is_ascii_hexdigit())
            .filter(|word| word.len() == 40)
            .fold(text, |text, word| text.replace(word, "<key>"))
    }
}

fn serve(mirror: &mut Mirror, suite: &Suite, key: &SignedSecretKey) {
    let base = match suite.flat {
        None => format!("debian/dists/{}", suite.name),
        Some("./") => "debian".to_owned(),
        Some(flat) => format!("debian/{}", flat.trim_end_matches('/')),
    };
    let files: Vec<(String, Vec<u8>)> = suite
        .indexes
        .iter()
        .flat_map(|(path, text)| {
            suite
                .endings
                .iter()
                .map(move |e| (format!("{path}{e}"), packed(e, text)))
        })
        .collect();
    let release = suite.release(&files);
    for (path, bytes) in files {
        mirror.0.insert(format!("{base}/{path}"), bytes);
    }
    let signer = &key.secret_subkeys[0].key;
    match suite.signed {
        Signed::Inline => {
            let text = (suite.document)(sign(&release, signer, HashAlgorithm::Sha256, suite.date));
            mirror.0.insert(format!("{base}/InRelease"), text.into_bytes());
        }
        form @ (Signed::Detached | Signed::DetachedBinary) => {
            let mut config = config(signer, HashAlgorithm::Sha512, suite.date);
            config.typ = SignatureType::Binary;
            let signature = config
                .sign(signer, &Password::empty(), release.as_bytes())
                .expect("signed");
            let signature = pgp::composed::DetachedSignature::new(signature);
            let bytes = match form {
                Signed::DetachedBinary => signature.to_bytes().expect("bytes"),
                _ => signature.to_armored_bytes(ArmorOptions::default()).expect("armored"),
            };
            let document = (suite.document)(release);
            mirror.0.insert(format!("{base}/Release"), document.into_bytes());
            mirror.0.insert(format!("{base}/Release.gpg"), bytes);
        }
    }
}

/// `name=version` of each package, and the archive where it is not the first.
fn picked(lock: &Lockfile) -> String {
    let first = &lock.archives[0].name;
    let mut all: Vec<String> = lock
        .packages
        .iter()
        .map(|p| match p.archive == *first {
            true => format!("{}={}", p.name, p.version),
            false => format!("{}={}/{}", p.name, p.version, p.archive),
        })
        .collect();
    all.sort();
    all.join(" ")
}

fn amd64(name: &str, version: &str, rest: &str) -> String {
    package(name, "amd64", version, rest)
}

#[test]
fn what_is_added_does_not_move_what_is_there() {
    let first = Suite::new(
        "trixie",
        &(amd64("a", "1", "") + &amd64("b", "1", "") + &amd64("c", "1", "")),
    );
    let newer = Suite {
        date: DATE + 3 * DAY,
        ..Suite::new("trixie", &(amd64("a", "2", "") + &amd64("b", "2", "")))
    };
    let old = ask(&["a"]).lock(std::slice::from_ref(&first));
    assert_eq!(picked(&old), "a=1");
    let add = Ask {
        keep: true,
        previous: Some(old.clone()),
        now: DATE + 90 * DAY,
        ..ask(&["a", "b"])
    };
    // The archive as it was is read although its validity by the clock is over; the new version does not matter.
    let added = add.lock(std::slice::from_ref(&first));
    assert_eq!(picked(&added), "a=1 b=1");
    assert_eq!(added.archives, old.archives);
    assert_eq!(added.source_date_epoch, old.source_date_epoch);
    let changes: Vec<String> = diff(&old, &added).iter().map(LockChange::to_string).collect();
    assert_eq!(changes, ["~ set x/amd64 +b", "+ b amd64 1"]);
    // A mirror that has moved on is no answer: nothing is taken from it.
    let gone = add.refusal(std::slice::from_ref(&newer));
    insta::assert_snapshot!(gone, @r"
    fetch dists/trixie/InRelease of the archive trixie as it was at 20261122T091544Z, the snapshot of the lock: another SHA-256
    hint: name a mirror that still has it with --mirror, or take the newest versions of all packages with `pnb lock --update`
    ");
    let moved = Ask {
        keep: false,
        now: DATE + 4 * DAY,
        ..add.clone()
    };
    assert_eq!(picked(&moved.lock(&[newer])), "a=2 b=2");
    // An archive that is new joins at the moment of the lock.
    let second = Suite::new("extra", &amd64("d", "1", ""));
    let joined = Ask {
        want: vec!["a", "d"],
        ..add
    };
    let joined = joined.lock(&[first, second]);
    assert_eq!(picked(&joined), "a=1 d=1/extra");
    assert_eq!(joined.archives[1].snapshot, old.archives[0].snapshot);
}

#[test]
fn a_lock_states_its_wants_and_the_check_compares_them() {
    let suite = Suite::new(
        "trixie",
        &(amd64("a", "1", "Depends: b\n") + &amd64("b", "1", "Essential: yes\n")),
    );
    let asked = ask(&["a"]);
    let lock = asked.lock(&[suite]);
    let text = write_lock(&lock).expect("writable");
    assert!(
        text.contains("\n[[set]]\nname = \"x/amd64\"\nwant = [\"a\"]\n"),
        "{text}"
    );
    assert_eq!(parse_lock(&text, "lockfile.toml").expect("valid"), lock);
    let problems = |ask: &Ask| -> Vec<String> { check(&lock, &[ask.set()]).iter().map(ToString::to_string).collect() };
    assert_eq!(problems(&asked), [] as [&str; 0]);
    let changed = Ask {
        want: vec![],
        essential: true,
        closure: false,
        ..asked.clone()
    };
    assert_eq!(
        problems(&changed),
        [
            "set x/amd64 is locked with a, which the stage no longer wants",
            "set x/amd64 is locked with essential = false, and the stage has essential = true",
            "set x/amd64 is locked with closure = true, and the stage has closure = false"
        ]
    );
    let other = text.replace("name = \"x/amd64\"", "name = \"y/amd64\"");
    let other = parse_lock(&other, "lockfile.toml").expect("valid");
    let problems: Vec<String> = check(&other, &[asked.set()]).iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "set x/amd64 is locked without its wants",
            "set y/amd64 is locked, but no stage wants it"
        ]
    );
    let before = Lockfile {
        sets: Vec::new(),
        ..lock.clone()
    };
    assert_eq!(
        check(&before, &[changed.set()]),
        [],
        "a lock without records is compared by names"
    );
    let bad = text.replace("want = [\"a\"]", "want = [\"a b\"]");
    let error = parse_lock(&bad, "lockfile.toml").expect_err("no name").to_string();
    assert!(
        error.contains("set x/amd64: not a package name or name/archive: \"a b\""),
        "{error}"
    );
}

#[test]
fn archives_that_are_not_automatic_wait_to_be_named() {
    let stable = Suite::new("trixie", &(amd64("a", "1", "") + &amd64("b", "1", "Depends: a\n")));
    let mut backports = Suite::new("backports", &(amd64("a", "2~bpo", "") + &amd64("new", "2~bpo", "")));
    for (fields, found) in [
        (
            "NotAutomatic: yes\nButAutomaticUpgrades: yes\n",
            "a=1 b=1 new=2~bpo/backports",
        ),
        ("NotAutomatic: yes\n", "a=1 b=1 new=2~bpo/backports"),
        ("", "a=2~bpo/backports b=1 new=2~bpo/backports"),
    ] {
        backports.fields = format!("Architectures: amd64\nComponents: main\n{fields}");
        let suites = [stable.clone(), backports.clone()];
        let (lock, remarks) = ask(&["b", "new"]).of(&suites).expect("locked");
        assert_eq!(picked(&lock), found, "{fields}");
        let remarked: &[&str] = match fields {
            "" => &[],
            _ => &[
                "backports is NotAutomatic: a package that another archive has too is taken from it only where it is wanted as \"NAME/backports\"",
            ],
        };
        assert_eq!(remarks, remarked);
        let named = ask(&["b", "a/backports"]).lock(&suites);
        assert_eq!(picked(&named), "a=2~bpo/backports b=1", "{fields}");
    }
}

#[test]
fn flat_archives_are_read_where_their_release_file_is() {
    let own = amd64("driver", "2", "Depends: data\n")
        + &package("driver", "arm64", "9", "")
        + &package("data", "all", "1", "");
    let own = own.replace("Filename: ", "Filename: ./");
    for flat in ["./", "any/where/"] {
        let archive = |fields: &str| Suite {
            flat: Some(flat),
            fields: fields.to_owned(),
            indexes: vec![("Packages".to_owned(), own.clone())],
            endings: &["", ".gz"],
            ..Suite::new("vendor", "")
        };
        let suites = [Suite::new("trixie", &amd64("a", "1", "")), archive("")];
        let lock = ask(&["a", "driver/vendor"]).lock(&suites);
        assert_eq!(picked(&lock), "a=1 data=1/vendor driver=2/vendor", "{flat}");
        // Names count from the archive's base, wherever the release file is.
        let paths: Vec<String> = lock.packages.iter().map(|package| package.path.to_string()).collect();
        assert!(paths.iter().all(|path| !path.starts_with(['.', '/'])), "{paths:?}");
        assert_eq!(lock.archives[1].components, [""; 0]);
        let text = write_lock(&lock).expect("writable");
        assert_eq!(parse_lock(&text, "lockfile.toml").expect("valid"), lock);
        // By digest, and with a suite that is stated and is another one.
        assert_eq!(
            picked(&ask(&["driver"]).lock(&[archive("Acquire-By-Hash: yes\n")])),
            "data=1 driver=2"
        );
        let other = ask(&["driver"]).refusal(&[archive("Suite: other\n")]);
        assert_eq!(
            other,
            "verify the archive vendor: InRelease: is for suite \"other\" (\"\"), not for \"vendor\""
        );
        let mut none = archive("");
        none.endings = &[".bz2"];
        let none = ask(&["driver"]).refusal(&[none]);
        assert_eq!(
            none,
            "lock the archive vendor: release file lists Packages.bz2 only, whose compression is not read"
        );
    }
}

#[test]
fn indexes_are_read_in_every_compression_and_with_packages_for_all_apart() {
    let own = amd64("a", "1", "Depends: data\n");
    let all = package("data", "all", "1", "");
    for endings in [
        &[".xz"][..],
        &[".gz"],
        &[".zst"],
        &[".lzma"],
        &[""],
        &["", ".xz", ".gz", ".bz2"],
    ] {
        let suite = Suite {
            endings,
            ..Suite::new("trixie", &(own.clone() + &all))
        };
        assert_eq!(picked(&ask(&["a"]).lock(&[suite])), "a=1 data=1", "{endings:?}");
    }
    let mut suite = Suite::new("trixie", &own);
    suite.fields = "Architectures: all amd64\nComponents: main\n".to_owned();
    suite.indexes.push(("main/binary-all/Packages".to_owned(), all.clone()));
    assert_eq!(picked(&ask(&["a"]).lock(std::slice::from_ref(&suite))), "a=1 data=1");
    // Where the statement is that they are in every index, the index of its own is a copy.
    let mut copy = suite.clone();
    copy.fields.push_str("No-Support-for-Architecture-all: Packages\n");
    assert!(ask(&["a"]).refusal(&[copy]).contains("cannot be met: data"));
    // An archive of packages for all architectures only, and one that states nothing.
    let mut only = suite.clone();
    only.fields = "Architectures: all\nComponents: main\n".to_owned();
    only.indexes.remove(0);
    assert_eq!(picked(&ask(&["data"]).lock(&[only])), "data=1");
    let mut silent = Suite::new("trixie", &(own + &all));
    silent.fields = String::new();
    assert_eq!(picked(&ask(&["a"]).lock(std::slice::from_ref(&silent))), "a=1 data=1");
    let refusal = |change: fn(&mut Suite)| {
        let mut suite = suite.clone();
        change(&mut suite);
        ask(&["a"]).refusal(&[suite])
    };
    assert_eq!(
        refusal(|s| s.fields = "Architectures: arm64\nComponents: main\n".to_owned()),
        "lock the archive trixie: suite trixie has no architecture amd64 (it has: arm64)"
    );
    assert_eq!(
        refusal(|s| s.fields = "Architectures: amd64\nComponents: contrib non-free\n".to_owned()),
        "lock the archive trixie: suite trixie has no component \"main\" (it has: contrib, non-free)"
    );
    assert_eq!(
        refusal(|s| s.endings = &[".bz2"]),
        "lock the archive trixie: release file lists main/binary-amd64/Packages.bz2 only, whose compression is not read"
    );
    silent.indexes[0].0 = "contrib/binary-amd64/Packages".to_owned();
    assert_eq!(
        ask(&["a"]).refusal(&[silent]),
        "lock the archive trixie: release file lists no main/binary-amd64/Packages.xz"
    );
}

#[test]
fn signatures_apart_from_the_release_file_and_odd_line_ends_are_read() {
    let suite = Suite::new("trixie", &amd64("a", "1", ""));
    let of = |change: fn(&mut Suite)| {
        let mut suite = suite.clone();
        change(&mut suite);
        suite
    };
    let good = [
        of(|_| {}),
        of(|s| s.signed = Signed::Detached),
        of(|s| s.signed = Signed::DetachedBinary),
        of(|s| s.document = |text| text.replace('\n', "\r\n")),
        of(|s| {
            s.document = |text| {
                text.replace("MESSAGE-----\n", "MESSAGE-----  \n")
                    .replacen("\n\n", "\n \t\n", 1)
            }
        }),
        of(|s| s.document = |text| text.replace("Suite: trixie", "Suite: trixie \t")),
        of(|s| {
            s.document = |text| {
                text.lines()
                    .filter(|l| !l.starts_with("Hash:"))
                    .map(|l| format!("{l}\n"))
                    .collect()
            }
        }),
        of(|s| s.document = |text| format!("{}\n\n\r\n", text.trim_end())),
        of(|s| {
            s.document = |text| {
                text.replace(
                    "BEGIN PGP SIGNATURE-----\n",
                    "BEGIN PGP SIGNATURE-----\nVersion: GnuPG v1\nComment: c\n",
                )
            };
        }),
    ];
    for (suite, number) in good.iter().zip(0..) {
        assert_eq!(
            picked(&ask(&["a"]).lock(std::slice::from_ref(suite))),
            "a=1",
            "{number}"
        );
    }
    let detached = |document: fn(String) -> String| {
        let mut suite = of(|s| s.signed = Signed::Detached);
        suite.document = document;
        ask(&["a"]).refusal(&[suite])
    };
    assert_eq!(
        detached(|text| text.replace("Suite: trixie", "Suite: trixie2")),
        "verify the archive trixie: Release: signature by <key> does not match the text"
    );
    // A lock keeps such an archive by the digest of its release file.
    let old = ask(&["a"]).lock(&[of(|s| s.signed = Signed::Detached)]);
    let kept = Ask {
        keep: true,
        previous: Some(old.clone()),
        ..ask(&["a"])
    };
    assert_eq!(kept.lock(&[of(|s| s.signed = Signed::Detached)]).archives, old.archives);
}

#[test]
fn a_clock_that_is_behind_is_named_and_a_snapshot_does_without_it() {
    let suite = Suite::new("trixie", &amd64("a", "1", ""));
    let at = |now: u32, snapshot: Option<u32>| Ask {
        now,
        snapshot,
        ..ask(&["a"])
    };
    insta::assert_snapshot!(at(DATE - 3 * 3600, None).refusal(std::slice::from_ref(&suite)), @r"
    verify the archive trixie: InRelease is not signed by a trusted key:
      key <key>: signature was made at 2026-11-21T09:15:44Z, after 2026-11-21T06:15:44Z, which is now by this machine's clock
    hint: if this machine's clock is behind, set it; `pnb lock --snapshot T` judges the archives at the moment T instead of the clock's
    ");
    // The signed date proves the clock wrong.
    let lock = at(DATE - 3 * 3600, Some(DATE + 60)).lock(std::slice::from_ref(&suite));
    assert_eq!(picked(&lock), "a=1");
    insta::assert_snapshot!(at(DATE + 60, Some(DATE + 3600)).refusal(std::slice::from_ref(&suite)), @r"
    use the snapshot 20261121T101544Z: it lies in the future, for it is 2026-11-21T09:16:44Z by this machine's clock
    hint: name a moment that has passed; if this machine's clock is behind, set it
    ");
    insta::assert_snapshot!(at(DATE + 60, Some(DATE - 60)).refusal(std::slice::from_ref(&suite)), @r"
    verify the archive trixie: InRelease is not signed by a trusted key:
      key <key>: signature was made at 2026-11-21T09:15:44Z, after 2026-11-21T09:14:44Z, the moment of the snapshot
    ");
    let mut valid = suite;
    valid.fields.push_str("Valid-Until: Sat, 28 Nov 2026 09:15:44 UTC\n");
    insta::assert_snapshot!(at(DATE + 30 * DAY, None).refusal(std::slice::from_ref(&valid)), @r"
    verify the archive trixie: InRelease was valid until 2026-11-28T09:15:44Z, not at 2026-12-21T09:15:44Z, which is now by this machine's clock
    hint: if this machine's clock is ahead, set it; otherwise the mirror is no longer updated: name another with --mirror, or a moment at which the file was valid with `pnb lock --snapshot T`
    ");
    assert_eq!(picked(&at(DATE + 30 * DAY, Some(DATE + DAY)).lock(&[valid])), "a=1");
}

#[test]
fn the_other_keys_of_a_damaged_keyring_serve() {
    let suite = Suite::new("trixie", &amd64("a", "1", ""));
    let good = new_key(1).to_public_key().to_bytes().expect("bytes");
    let other = new_key(2).to_public_key().to_bytes().expect("bytes");
    let with = |ring: Vec<u8>| Ask {
        ring: Some(ring),
        ..ask(&["a"])
    };
    let size = good.len();
    for (ring, fault) in [
        (
            [&good[..], &other[..40]].concat(),
            format!("the part at byte {size} is an OpenPGP packet that is cut off"),
        ),
        (
            [&other[..60], &good].concat(),
            "the part at byte 0 is a key of version 4 that is damaged or cut off".to_owned(),
        ),
        (
            [&[0x99, 0, 3, 2, 0, 0][..], &good].concat(),
            "the part at byte 0 is a key of version 2, and only 4 and 6 are read".to_owned(),
        ),
    ] {
        let (lock, remarks) = with(ring)
            .of(std::slice::from_ref(&suite))
            .expect("the good key serves");
        assert_eq!(picked(&lock), "a=1");
        assert_eq!(remarks, [format!("trixie in the keyring k, {fault}")]);
    }
    let refusal = with([&other[..], &good[..40]].concat()).refusal(std::slice::from_ref(&suite));
    assert_eq!(
        refusal,
        format!(
            "verify the archive trixie: InRelease is not signed by a trusted key:\n  key <key>: not in the keyring\n  \
             in the keyring, the part at byte {} is an OpenPGP packet that is cut off",
            other.len()
        )
    );
    assert_eq!(
        with(good[..40].to_vec()).refusal(&[suite]),
        "verify the archive trixie: keyring k: not OpenPGP keys\n  the part at byte 0 is an OpenPGP packet that is cut off"
    );
}

#[test]
fn a_signature_that_cannot_be_read_does_not_harm_a_good_one() {
    let mut suite = Suite::new("trixie", &amd64("a", "1", ""));
    suite.document = |text| {
        // A packet of a signature of version 9 before the good one.
        let begin = "-----BEGIN PGP SIGNATURE-----";
        let (head, block) = text.split_once(begin).expect("signed");
        let message = CleartextSignedMessage::from_string(&text).expect("well-formed").0;
        assert!(!block.is_empty());
        let unknown = [0x88, 3, 9, 1, 2];
        let mut bytes = unknown.to_vec();
        for signature in message.signatures() {
            pgp::packet::PacketTrait::to_writer_with_header(signature, &mut bytes).expect("written");
        }
        let mut armored = Vec::new();
        pgp::armor::write(&Raw(bytes), pgp::armor::BlockType::Signature, &mut armored, None, true).expect("armored");
        format!("{head}{}", String::from_utf8(armored).expect("text"))
    };
    assert_eq!(picked(&ask(&["a"]).lock(&[suite])), "a=1");
}

/// Bytes for the armor writer.
struct Raw(Vec<u8>);

impl pgp::ser::Serialize for Raw {
    fn to_writer<W: io::Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
        writer.write_all(&self.0)?;
        Ok(())
    }

    fn write_len(&self) -> usize {
        self.0.len()
    }
}
