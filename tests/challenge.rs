//! Manifests of several builders against each other, through the program: who agrees, what explains a difference, what is refused.

mod fixture;

use fixture::{artifact, facts, lock, path, root_image, write_all};
use pnb::{
    manifest::{MANIFEST_FILE, Manifest, RECORD_FILE, SUMS_FILE, Statements, write_value},
    model::{Epoch, Sha256Digest, StageKey, VerityDigest},
    store::Output,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output as Ended},
};

fn pnb(dir: &Path, arguments: &[&str]) -> Ended {
    Command::new(env!("CARGO_BIN_EXE_pnb"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .expect("starts")
}

/// Exit code and what was said.
fn said(dir: &Path, arguments: &[&str]) -> String {
    let output = pnb(dir, arguments);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    format!("exit {}\n{}", output.status.code().expect("exits"), text.trim_end())
}

fn manifest() -> Manifest {
    let (image, root) = root_image();
    let files = artifact(image, format!("{root}\n").as_bytes());
    let lock = lock();
    Statements::describe(&facts(&lock, *root, &files))
        .expect("whole facts")
        .manifest
}

/// A directory of manifests, each as `change` made it.
struct Builders(tempfile::TempDir);

impl Builders {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("scratch"))
    }
    fn dir(&self) -> &Path {
        self.0.path()
    }
    fn add(&self, name: &str, change: impl FnOnce(&mut Manifest)) -> &Self {
        let mut manifest = manifest();
        change(&mut manifest);
        self.put(name, &manifest.to_json().expect("writable"))
    }
    fn put(&self, name: &str, text: &str) -> &Self {
        fs::write(self.dir().join(name), text).expect("written");
        self
    }
    /// A manifest in which JSON was changed, written canonically again.
    fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) -> &Self {
        let mut value = serde_json::to_value(manifest()).expect("JSON");
        change(&mut value);
        self.put(name, &write_value(&value).expect("integers only"))
    }
    fn said(&self, arguments: &[&str]) -> String {
        said(self.dir(), &[&["challenge"], arguments].concat())
    }
    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = pnb(self.dir(), &[&["challenge", "--json"], arguments].concat());
        let value = serde_json::from_slice(&output.stdout).expect("one object");
        (output.status.code().expect("exits"), value)
    }
}

/// What a builder whose `rootfs` came out differently states: everything behind that stage differs too.
fn deviate(manifest: &mut Manifest) {
    let other = VerityDigest::new([0x77; 32]);
    let rootfs = &mut manifest.stages[1];
    rootfs.outputs.insert("tree".to_owned(), Output::Tree { digest: other });
    let root = &mut manifest.stages[2];
    root.key = StageKey::new([0x78; 32]);
    root.inputs.get_mut("rootfs").expect("there").content = pnb::manifest::InputContent::Tree { digest: other };
    manifest.fsverity_root_hash = VerityDigest::new([0x79; 32]);
    let initramfs = manifest.artifacts.get_mut(&path("initramfs.cpio.zst")).expect("there");
    initramfs.sha256 = Sha256Digest::new([0x7a; 32]);
}

#[test]
fn builders_who_state_the_same_agree() {
    let builders = Builders::new();
    builders.add("a.json", |_| {}).add("b.json", |_| {});
    let text = builders.said(&["a.json", "b.json"]);
    let text = text.replace(&root_image().1.to_hex(), "<root>");
    // The archive's bytes follow from the version of zstd; that they are equal is what matters here.
    let text: Vec<&str> = text.lines().filter(|l| !l.contains("sha256 ")).collect();
    insta::assert_snapshot!(text.join("\n"), @"
    exit 0
    kernel-initrd/amd64

    builders
      1  a.json
      2  b.json

    inputs: equal (lock, revision, times, pnb, agent, platform)

    artifacts
      root
        1, 2  fs-verity <root>
      initramfs.cpio.zst
      kernel

    stages: all 3 equal

    builders 1, 2 agree on everything
    manifests that are equal byte for byte may be copies of one: ask each builder for its own
    agreed: 2 of 2 builders, 2 must
    ");
    let (code, json) = builders.json(&["a.json", "b.json"]);
    assert_eq!(
        (code, &json["met"], &json["groups"]),
        (0, &true.into(), &serde_json::json!([[1, 2]]))
    );
    assert_eq!(json["artifacts"][1]["what"], "kernel");
    assert_eq!(json["artifacts"][1]["seen"][0]["builders"], serde_json::json!([1, 2]));
}

#[test]
fn two_of_three_agree_and_the_third_is_told_where_it_diverges() {
    let builders = Builders::new();
    builders
        .add("a.json", |_| {})
        .add("b.json", deviate)
        .add("c.json", |_| {});
    let all = ["a.json", "b.json", "c.json"];
    let text = builders.said(&all);
    assert!(text.starts_with("exit 12\n"), "{text}");
    let (from, _) = text.split_once("\nbuilder 2 against").expect("compared");
    let rest = &text[from.len()..];
    insta::assert_snapshot!(rest.trim(), @r###"
    builder 2 against builder 1
      diverge first at rootfs/amd64: the same key, but a different "tree"

    builders 1, 3 agree on everything
    builder 2 stands alone
    not agreed: 2 of 3 builders, 3 must
    "###);
    let with = [&all[..], &["--threshold", "2"]].concat();
    let text = builders.said(&with);
    assert!(text.starts_with("exit 0\n") && text.contains("inputs: equal"), "{text}");
    assert!(text.ends_with("agreed: 2 of 3 builders, 2 must"), "{text}");
    let (code, json) = builders.json(&with);
    assert_eq!((code, &json["groups"]), (0, &serde_json::json!([[1, 3], [2]])));
    let divergence = &json["divergences"][0];
    assert_eq!(divergence["output"]["stage"], "rootfs/amd64");
    assert_eq!(divergence["output"]["outputs"], serde_json::json!(["tree"]));
    assert_eq!(divergence["input"], Value::Null);
    // Which builders have what, of a stage's output and of a file.
    let stage = &json["stages"][1];
    assert_eq!(stage["outputs"][1]["seen"][1]["builders"], serde_json::json!([2]));
    assert_eq!(json["artifacts"][0]["seen"][0]["builders"], serde_json::json!([1, 3]));
    assert_eq!(json["artifacts"][0]["seen"][1]["value"]["sha256"], "7a".repeat(32));
}

/// One file each is agreed on by two of three, but never by the same two.
#[test]
fn a_majority_for_each_file_is_none_for_the_artifact() {
    let builders = Builders::new();
    let change = |name: &'static str| {
        move |m: &mut Manifest| m.artifacts.get_mut(&path(name)).expect("there").sha256 = Sha256Digest::new([9; 32])
    };
    builders
        .add("a.json", |_| {})
        .add("b.json", change("kernel"))
        .add("c.json", change("initramfs.cpio.zst"));
    let text = builders.said(&["a.json", "b.json", "c.json", "--threshold", "2"]);
    assert!(text.starts_with("exit 12\n"), "{text}");
    assert!(text.contains("not agreed: 1 of 3 builders, 2 must"), "{text}");
    assert!(
        text.contains("every stage is equal: the stated files or root differ"),
        "{text}"
    );
    // The root is stated apart from the files, and must be agreed on with them.
    builders.add("d.json", |m| m.fsverity_root_hash = VerityDigest::new([1; 32]));
    assert!(builders.said(&["a.json", "d.json"]).starts_with("exit 12\n"));
}

#[test]
fn other_inputs_are_named_before_other_outputs() {
    let builders = Builders::new();
    builders.add("a.json", |_| {}).add("b.json", |m| {
        m.lockfile.sha256 = Sha256Digest::new([8; 32]);
        m.git_sha = None;
        m.source_date_epoch = Epoch::new(1_700_000_001);
        m.builder.code.writers = "cc".repeat(32);
        let tools = &mut m.stages[0];
        tools.key = StageKey::new([8; 32]);
        tools.inputs.get_mut("debs").expect("there").content = pnb::manifest::InputContent::Packages {
            count: 2,
            index: true,
            sha256: Sha256Digest::new([7; 32]),
        };
        deviate(m);
    });
    let text = builders.said(&["a.json", "b.json"]);
    let (inputs, rest) = text.split_once("\nartifacts\n").expect("two parts");
    insta::assert_snapshot!(inputs, @r###"
    exit 12
    kernel-initrd/amd64

    builders
      1  a.json
      2  b.json

    inputs that differ, which explains different outputs
      lock
        1  0202020202020202020202020202020202020202020202020202020202020202
        2  0808080808080808080808080808080808080808080808080808080808080808
      revision
        1  0123456789abcdef0123456789abcdef01234567
        2  none
      source_date_epoch
        1  1700000000
        2  1700000001
      pnb's code: writers
        1  bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
        2  cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
    "###);
    let (_, rest) = rest.split_once("\n\nbuilder 2 ").expect("compared");
    insta::assert_snapshot!(rest, @r###"
    against builder 1
      inputs differ from tools/amd64 on: input "debs"
      diverge first at rootfs/amd64: the same key, but a different "tree"

    builder 1 stands alone
    builder 2 stands alone
    not agreed: 1 of 2 builders, 2 must
    "###);
    let (code, json) = builders.json(&["a.json", "b.json"]);
    assert_eq!((code, &json["inputs"][0]["what"]), (12, &"lock".into()));
    assert_eq!(json["inputs"][1]["seen"][1]["value"], Value::Null);
}

/// What a stranger wrote into a manifest is shown, and neither obeyed by a terminal nor taken for a line of pnb's.
#[test]
fn nothing_in_a_manifest_commands_the_terminal() {
    let builders = Builders::new();
    builders
        .add("a.json", |_| {})
        .add("b.json", |m| {
            m.stages[1]
                .env
                .insert("X\u{1b}".to_owned(), "1\u{1b}[2J\nagreed: 9".to_owned());
        })
        .add("version.json", |m| {
            m.builder.version = "1\u{1b}[2J\nagreed: 9 of 9 builders, 2 must".to_owned()
        });
    let text = builders.said(&["a.json", "b.json"]);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let text = builders.said(&["a.json", "version.json"]);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("\"1\\u{1b}[2J\\nagreed: 9"), "{text}");
}

/// A name, a version or a moment has the form of its field, and no other.
#[test]
fn what_is_no_name_is_refused() {
    let builders = Builders::new();
    builders.add("a.json", |_| {});
    let long = "x".repeat(1 << 20);
    for (place, values) in [
        ("/apt_snapshot", &["", "../../x", "a\0b", "20250101"][..]),
        ("/kernel_version", &["", "6.1/../..", "6 1", "6\u{202e}"]),
        ("/git_sha", &["", "a b", "\u{1b}"]),
        ("/kernel_command_line", &["a\nb", "a\u{200b}"]),
        ("/agent/name", &["", "../x", "a/b", "\u{430}gent"]),
        ("/archives/0/name", &["", "a b"]),
        ("/archives/0/suite", &["a\u{1b}b", "a b"]),
        ("/archives/0/components/0", &["", "../x", "a\nb"]),
        ("/archives/0/snapshot", &["", "latest", "20251301T000000Z"]),
        ("/archives/0/snapshot_url", &["", "file:///x", "https://a b"]),
        ("/archives/0/keys/0", &["", "00", "\u{1b}"]),
        ("/builder/name", &["", "p\nnb"]),
        ("/builder/version", &["", "1 2"]),
        ("/builder/zstd", &["\u{9b}31m"]),
        ("/builder/code/sandbox", &["", "x", "AA"]),
        ("/files/0/name", &["", "a/b"]),
        ("/packages/0/name", &["", "A b", "\u{1b}"]),
        ("/packages/0/arch", &["", "mips"]),
        ("/packages/0/version", &["", "a b"]),
        ("/packages/0/archive", &["", "a\nb"]),
        ("/packages/0/url", &["", "x"]),
        ("/packages/0/sets/0", &["", "x", "a/b/c"]),
        ("/stages/0/stage", &["", "a b", "root\u{1b}fs"]),
    ] {
        for value in values.iter().copied().chain([long.as_str()]) {
            builders.edit("b.json", |manifest| {
                *manifest.pointer_mut(place).expect("a field of the manifest") = value.into();
            });
            let text = builders.said(&["a.json", "b.json"]);
            let shown = value.get(..40).unwrap_or(value);
            let begin = "exit 30\nerror: failed to read \"b.json\" as a manifest: ";
            assert!(text.starts_with(begin), "{place} {shown:?}: {text}");
            // A path of any other form is refused earlier.
            let field = place.trim_end_matches("/0");
            assert!(
                text.contains(&format!(" {field} ")) || text.contains("\" is longer than"),
                "{place} {shown:?}: {text}"
            );
            assert!(text.len() < 1500, "{place}: {} bytes", text.len());
        }
    }
    // A flat archive has no components.
    for place in ["/archives", "/archives/0/keys"] {
        builders.edit("b.json", |manifest| {
            *manifest.pointer_mut(place).expect("a field of the manifest") = Value::Array(Vec::new());
        });
        let text = builders.said(&["a.json", "b.json"]);
        assert!(text.contains(&format!("{place} is empty")), "{text}");
    }
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let builders = Builders::new();
    builders
        .add("a.json", |_| {})
        .add("b.json", |_| {})
        .add("raw.json", |m| m.variants = vec!["raw".parse().expect("a name")])
        .add("none.json", |m| m.variants.clear());
    insta::assert_snapshot!(builders.said(&["a.json", "raw.json"]), @r###"
    exit 2
    error: failed to compare "a.json" with "raw.json": the first describes kernel-initrd/amd64, the other raw/amd64
    "###);
    insta::assert_snapshot!(builders.said(&["a.json"]), @r###"
    exit 2
    error: failed to compare manifests: at least 2 are needed (given: 1)
    "###);
    insta::assert_snapshot!(builders.said(&["a.json", "b.json", "--threshold", "3"]), @r###"
    exit 2
    error: failed to require 3 of 2 builders to agree: the threshold must be from 2 to 2
    "###);
    insta::assert_snapshot!(builders.said(&["a.json", "b.json", "--threshold", "1"]), @r###"
    exit 2
    error: failed to require 1 of 2 builders to agree: the threshold must be from 2 to 2
    "###);
    std::os::unix::fs::symlink("a.json", builders.dir().join("link.json")).expect("linked");
    insta::assert_snapshot!(builders.said(&["a.json", "b.json", "link.json"]), @r###"
    exit 2
    error: failed to compare "a.json" with "link.json": both are the same file
    "###);
    insta::assert_snapshot!(builders.said(&["a.json", "none.json"]), @r###"
    exit 30
    error: failed to read "none.json" as a manifest: it describes 0 variants, but must describe exactly one
    "###);
    let (code, json) = builders.json(&["a.json", "raw.json"]);
    assert_eq!((code, &json["exit"]), (2, &2.into()));
}

#[test]
fn a_manifest_that_pnb_would_not_write_is_named_by_line() {
    let builders = Builders::new();
    let good = manifest().to_json().expect("writable");
    builders
        .add("a.json", |_| {})
        .put(
            "twice.json",
            &good.replace(
                "  \"arch\": \"amd64\",\n  \"archives\"",
                "  \"arch\": \"amd64\",\n  \"arch\": \"amd64\",\n  \"archives\"",
            ),
        )
        .put("loose.json", &good.replacen("\": ", "\" : ", 1))
        .put("text.json", "not JSON")
        .edit("more.json", |m| m["surprise"] = true.into())
        .edit("less.json", |m| {
            drop(m.as_object_mut().expect("object").remove("kernel_version"))
        })
        .edit("newer.json", |m| m["schema_version"] = 3.into());
    insta::assert_snapshot!(builders.said(&["a.json", "twice.json"]), @r###"
    exit 30
    error: failed to read "twice.json" as a manifest: read "build-manifest.json": key "arch" is there twice at line 9 column 8

    hint: only the bytes that pnb wrote are accepted: get the file again, without a tool that reformats it
    "###);
    insta::assert_snapshot!(builders.said(&["a.json", "more.json"]), @r#"
    exit 30
    error: failed to read "more.json" as a manifest: read "build-manifest.json": unknown field `surprise`, expected one of `schema_version`, `arch`, `base_image_digest`, `apt_snapshot`, `kernel_version`, `git_sha`, `variants`, `form`, `image`, `artifacts`, `oci_digest`, `fsverity_root_hash`, `agent`, `archives`, `base_image`, `builder`, `files`, `hermetic`, `kernel_command_line`, `lockfile`, `operating_system`, `packages`, `modules`, `platform`, `debug`, `graphics`, `recovery`, `root`, `source`, `source_date_epoch`, `unsigned_modules`, `stages` at line 359 column 12

    hint: only the bytes that pnb wrote are accepted: get the file again, without a tool that reformats it
    "#);
    insta::assert_snapshot!(builders.said(&["a.json", "newer.json"]), @r###"
    exit 31
    error: failed to read "newer.json" as a manifest: it has schema version 3, but this pnb reads version 2

    hint: use the version of pnb that wrote the manifest; it stands there under "builder"
    "###);
    insta::assert_snapshot!(builders.said(&["a.json", "nowhere.json"]), @"
    exit 2
    error: failed to find nowhere.json: there is no such file or directory

    hint: `pnb challenge a.json newer.json`
    ");
    insta::assert_snapshot!(builders.said(&["a.json", "."]), @r###"
    exit 30
    error: failed to find "build-manifest.json" in "."

    hint: name the directory of one artifact, <variant>/<arch>, or the manifest itself
    "###);
    for (name, want) in [
        ("less.json", "missing field `kernel_version`"),
        ("loose.json", "is not in canonical form"),
        ("text.json", "line 1"),
    ] {
        let text = builders.said(&["a.json", name]);
        assert!(
            text.starts_with("exit 30\n") && text.contains(want) && text.contains(name),
            "{text}"
        );
    }
    let (code, json) = builders.json(&["newer.json", "a.json"]);
    assert_eq!((code, &json["exit"]), (31, &31.into()));
    assert!(
        json["hints"][0].as_str().is_some_and(|h| h.contains("builder")),
        "{json}"
    );
}

/// A whole artifact in `<dir>/ours`, beside the manifest of another builder.
fn whole(builders: &Builders) -> PathBuf {
    let (image, root) = root_image();
    let files = artifact(image, format!("{root}\n").as_bytes());
    let dir = builders.dir().join("ours");
    fs::create_dir(&dir).expect("made");
    write_all(&dir, &files, &Statements::of(manifest()).expect("writable"));
    builders.add("theirs.json", |_| {});
    dir
}

#[test]
fn the_files_in_a_directory_must_be_those_of_its_manifest() {
    let builders = Builders::new();
    let dir = whole(&builders);
    let run = || builders.said(&["ours", "theirs.json"]);
    assert!(run().starts_with("exit 0\n"), "{}", run());
    let twice = builders.said(&["ours", "ours/build-manifest.json"]);
    assert!(
        twice.starts_with("exit 2\n") && twice.contains("both are the same file"),
        "{twice}"
    );

    let kernel = dir.join("kernel");
    let good = fs::read(&kernel).expect("there");
    let mut bad = good.clone();
    bad[1000] ^= 1;
    fs::write(&kernel, &bad).expect("written");
    insta::assert_snapshot!(run(), @r###"
    exit 35
    error: failed to check "ours/kernel": its sha256 differs from the one in "SHA256SUMS"
    expected: e8ca4bf83f56152c01649f88bd7c91b15ae8137d9a709572e04fae55894ea75e
      actual: bc21bd0b8f85fb4371fe3da86576ed76f10a32172d1e738417b5f9baf4aeeea8

    hint: `pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the directory
    "###);
    // A list that was made to fit does not help.
    let list = dir.join(SUMS_FILE);
    let sums = fs::read_to_string(&list).expect("there");
    let (was, is) = (
        fixture::digests(&good).sha256.to_hex(),
        fixture::digests(&bad).sha256.to_hex(),
    );
    fs::write(&list, sums.replace(&was, &is)).expect("written");
    insta::assert_snapshot!(run(), @r###"
    exit 35
    error: failed to check "ours/SHA256SUMS": the sha256 of "kernel" differs from the one in "build-manifest.json"
    expected: e8ca4bf83f56152c01649f88bd7c91b15ae8137d9a709572e04fae55894ea75e
      actual: bc21bd0b8f85fb4371fe3da86576ed76f10a32172d1e738417b5f9baf4aeeea8

    hint: `pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the directory
    "###);
    fs::remove_file(&list).expect("there");
    insta::assert_snapshot!(run(), @r###"
    exit 35
    error: failed to check "ours/kernel": its sha256 differs from the one in "build-manifest.json"
    expected: e8ca4bf83f56152c01649f88bd7c91b15ae8137d9a709572e04fae55894ea75e
      actual: bc21bd0b8f85fb4371fe3da86576ed76f10a32172d1e738417b5f9baf4aeeea8

    hint: `pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the directory
    "###);
    fs::remove_file(&kernel).expect("there");
    insta::assert_snapshot!(run(), @r###"
    exit 35
    error: failed to find "kernel" in "ours": "build-manifest.json" lists it

    hint: `pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the directory
    "###);
    fs::write(&list, &sums).expect("written");
    insta::assert_snapshot!(run(), @r###"
    exit 35
    error: failed to find "kernel" in "ours": "SHA256SUMS" lists it

    hint: `pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the directory
    "###);
    // The manifest alone can still be compared.
    assert!(
        builders
            .said(&["ours/build-manifest.json", "theirs.json"])
            .starts_with("exit 0\n")
    );

    fs::write(&kernel, &good).expect("written");
    fs::write(
        &list,
        sums.lines()
            .filter(|l| !l.ends_with("  kernel"))
            .fold(String::new(), |t, l| t + l + "\n"),
    )
    .expect("written");
    insta::assert_snapshot!(run(), @r###"
    exit 35
    error: failed to find "kernel" in "ours/SHA256SUMS": the manifest lists it

    hint: `pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the directory
    "###);
    let other = sums
        .lines()
        .filter(|l| !l.ends_with(MANIFEST_FILE))
        .fold(String::new(), |t, l| t + l + "\n");
    fs::write(&list, other).expect("written");
    insta::assert_snapshot!(run(), @r###"
    exit 35
    error: failed to find "build-manifest.json" in "ours/SHA256SUMS": the list must include the manifest

    hint: `pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the directory
    "###);
    fs::write(&list, "nonsense\n").expect("written");
    insta::assert_snapshot!(run(), @r###"
    exit 35
    error: failed to check "ours/SHA256SUMS": read "SHA256SUMS", line 1: it must have a digest, two spaces and a path

    hint: `pnb audit` lists every problem of a directory; to use the manifest alone, name the file instead of the directory
    "###);

    // Without a list the manifest's digests decide, and the record of the run does not matter.
    fs::remove_file(&list).expect("there");
    fs::remove_file(dir.join(RECORD_FILE)).expect("there");
    assert!(run().starts_with("exit 0\n"), "{}", run());
}
