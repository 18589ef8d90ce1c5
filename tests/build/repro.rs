//! Building twice under different circumstances: nothing real differs, and whatever a stage lets through is found, with its cause.

use crate::project::*;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What leaks into which output, and what each output must be found to depend on.
const LEAKS: &[(&str, &str)] = &[
    ("clock", "date +%Y"),
    ("time-zone", "date -d @0 +%H:%M"),
    ("locale", "printf 'b\\nA\\na\\nB\\n' | sort | tr -d '\\n'"),
    ("host-name", "uname -n"),
    ("ids", "id -u"),
    ("umask", "umask"),
    ("home", "echo \"$HOME\""),
    ("build-path", "pwd"),
    ("file-system", "stat -f -c %T ."),
    ("listing", "ls -U /inputs/many | tr '\\n' ' '"),
    ("processors", "nproc"),
    ("memory-limit", "ulimit -d"),
    ("environment", "echo \"${CAUGHT_FROM_THE_ENVIRONMENT:-nothing}\""),
    ("kernel", "uname -r"),
    ("machine", "getconf _PHYS_PAGES"),
    ("inputs", "stat -f -c %b /inputs/many"),
    ("links", "stat -c %h /inputs/many/file-1"),
];

/// A project with a stage `leaks`, which has an output of that name for each of `leaks` and one `sound`.
fn project(dir: &Path, leaks: &[(&str, &str)], more: &str) {
    copy_of_project(dir);
    let stage = dir.join("stages/leaks");
    fs::create_dir_all(&stage).expect("made");
    let many = dir.join("many");
    fs::create_dir_all(&many).expect("made");
    for i in 0..40 {
        fs::write(many.join(format!("file-{i}")), "x").expect("written");
    }
    let mut script = "#!/bin/sh\nset -eu\necho sound > sound\n".to_owned();
    let mut outputs = "sound = { kind = \"file\" }\n".to_owned();
    for (name, leak) in leaks {
        script.push_str(&format!("{{ printf 'before '; {leak}; }} > {name}\n"));
        outputs.push_str(&format!("{name} = {{ kind = \"file\" }}\n"));
    }
    script.push_str(more);
    if more.contains("nested.tar") {
        outputs.push_str("\"nested.tar\" = { kind = \"file\" }\ntree = { kind = \"tree\" }\n");
    }
    fs::write(stage.join("build.sh"), script).expect("written");
    let text = format!(
        "summary = \"Lets its variation through\"\nroot = \"tools\"\ncommand = [\"/bin/sh\", \"/stage/build.sh\"]\n\
         [inputs]\nmany = {{ files = \"many\" }}\n[outputs]\n{outputs}"
    );
    fs::write(stage.join("stage.toml"), text).expect("written");
}

/// Runs `pnb verify-repro` on the planted stage; its exit code, and the verdict.
fn verdict(dir: &Path, words: &[&str]) -> (Option<i32>, Value) {
    verdict_of(&["--stage", "leaks"], dir, words)
}

fn verdict_of(what: &[&str], dir: &Path, words: &[&str]) -> (Option<i32>, Value) {
    let output = pnb(dir, &store())
        .args(["--json", "verify-repro"])
        .args(what)
        .args(words)
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = said.lines().last().unwrap_or_default();
    let value = serde_json::from_str(last);
    assert!(value.is_ok(), "{}", text(&output));
    (output.status.code(), value.expect("JSON"))
}

/// A project in which a stage's writer is replaced by a script.
fn with_script(dir: &Path, stage: &str, script: &str) {
    copy_of_project(dir);
    let file = dir.join("stages").join(stage).join("stage.toml");
    let text = fs::read_to_string(&file).expect("readable");
    let command = format!("root = \"tools\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n");
    let is_writer = |line: &&str| line.starts_with("writer = ");
    assert_eq!(text.lines().filter(is_writer).count(), 1, "{text}");
    let lines = text
        .split_inclusive('\n')
        .map(|line| if is_writer(&line) { &command } else { line });
    let changed: String = lines.collect();
    fs::write(&file, changed).expect("written");
}

fn findings(verdict: &Value) -> BTreeMap<String, Value> {
    let all = verdict["findings"].as_array().expect("a list").iter();
    all.map(|f| (f["output"].as_str().expect("a name").to_owned(), f.clone()))
        .collect()
}

#[test]
fn whatever_leaks_is_found_with_its_axis_file_and_offset_and_passes_unnoticed_without_variation() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    // One leak inside of an archive and one inside of a tree, to be named down to the file.
    let more = "mkdir -p tree/etc\n{ printf 'the host is '; uname -n; } > tree/etc/motd\nchmod 755 tree tree/etc\nchmod 644 tree/etc/motd\n\
                tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --format=ustar -cf nested.tar tree\n";
    project(dir.path(), LEAKS, more);
    let report = dir.path().join("report.html");
    let (code, found) = verdict(
        dir.path(),
        &["--vary", "all", "--report", report.to_str().expect("UTF-8")],
    );
    assert_eq!(code, Some(10), "{found:#}");
    assert_eq!(found["equal"], false);
    let of = findings(&found);
    assert!(!of.contains_key("sound"));
    for (axis, leak) in LEAKS {
        assert!(of.contains_key(*axis), "{axis}: {leak} was not found\n{found:#}");
        let finding = &of[*axis];
        assert_eq!(finding["node"], "leaks/amd64");
        assert_eq!(finding["cause"], "axes", "{finding:#}");
        let axes: Vec<&str> = finding["axes"]
            .as_array()
            .expect("axes")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(axes, [*axis], "{finding:#}");
        let difference = &finding["differences"][0];
        assert_eq!(difference["difference"], "content", "{difference:#}");
        assert_eq!(difference["path"][0], *axis);
        assert!(
            difference["offset"].as_u64().expect("a place") >= 7,
            "behind the word: {difference:#}"
        );
    }
    let host = &of["host-name"]["differences"][0];
    assert_eq!(
        (&host["offset"], &host["bytes"]),
        (&Value::from(7), &Value::from(10)),
        "{host:#}"
    );
    assert!(
        host["a"].as_str().expect("text").contains("pnb") && host["b"].as_str().expect("text").contains("elsewhere")
    );
    let path = |name: &str| {
        let parts = of[name]["differences"][0]["path"].as_array().expect("parts").iter();
        parts.filter_map(Value::as_str).collect::<Vec<_>>().join(" / ")
    };
    assert!(path("nested.tar").contains("tree/etc/motd"), "{}", path("nested.tar"));
    assert!(path("tree").contains("etc/motd"), "{}", path("tree"));
    for name in ["nested.tar", "tree"] {
        assert_eq!(of[name]["axes"], serde_json::json!(["host-name"]));
    }
    let page = fs::read_to_string(&report).expect("written");
    assert!(page.contains("leaks/amd64") && page.contains("host-name"));

    // The same faults, looked for as others do: they are there, and nobody sees them.
    let (code, blind) = verdict(dir.path(), &["--vary", "none"]);
    assert_eq!((code, &blind["equal"]), (Some(0), &Value::from(true)), "{blind:#}");
}

#[test]
#[ignore = "long: several builds; cargo test -- --include-ignored"]
fn a_large_artifact_that_differs_is_made_again_to_be_compared() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    // Larger than what is held in memory; what differs comes after that.
    let script = "head -c 5000000 /dev/zero > initramfs.cpio.zst; cp initramfs.cpio.zst kernel; \
                  uname -n >> initramfs.cpio.zst; head -c 16 /dev/urandom | od >> kernel";
    with_script(dir.path(), "kernel-initrd", script);
    let (code, found) = verdict_of(
        &["--variant", "kernel-initrd"],
        dir.path(),
        &["--vary", "host-name,links"],
    );
    assert_eq!(code, Some(10), "{found:#}");
    let of = findings(&found);
    let name = &of["initramfs.cpio.zst"];
    assert_eq!(name["axes"], serde_json::json!(["host-name"]), "{name:#}");
    let random = &of["kernel"];
    assert_eq!(random["cause"], "by-itself", "{random:#}");
    for finding in [name, random] {
        let offset = finding["differences"][0]["offset"].as_u64();
        assert!(offset.is_some_and(|at| at >= 5_000_000), "{finding:#}");
    }
}

#[test]
fn packages_have_one_link_first_and_then_more() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let script = "mkdir tree; stat -c %h /inputs/packages/*.deb | sort -u > tree/links";
    with_script(dir.path(), "microcode", script);
    let (code, found) = verdict_of(&["--stage", "microcode"], dir.path(), &["--vary", "links"]);
    assert_eq!(code, Some(10), "{found:#}");
    let finding = &found["findings"][0];
    assert_eq!(finding["axes"], serde_json::json!(["links"]), "{finding:#}");
    let difference = &finding["differences"][0];
    let links = |side: &str| difference[side].as_str().expect("text").replace("\\n", "");
    assert_eq!(
        (links("a"), links("b")),
        ("1".to_owned(), "2".to_owned()),
        "{difference:#}"
    );
}

#[test]
fn what_differs_by_itself_is_told_apart_and_what_stands_still_is_named() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let leaks = [
        ("instant", "date +%s%N"),
        ("random", "head -c 16 /dev/urandom | cksum"),
        ("address", "LD_TRACE_LOADED_OBJECTS=1 /bin/true | tr '\\n' ' '"),
    ];
    project(dir.path(), &leaks, "");
    let (code, found) = verdict(dir.path(), &["--vary", "host-name"]);
    assert_eq!(code, Some(10), "{found:#}");
    let of = findings(&found);
    assert_eq!(
        (&of["instant"]["cause"], &of["instant"]["still"]),
        (&"by-itself".into(), &"clock".into())
    );
    assert_eq!(
        (&of["random"]["cause"], &of["random"]["still"]),
        (&"by-itself".into(), &Value::Null)
    );
    assert_eq!(
        (&of["address"]["cause"], &of["address"]["still"]),
        (&"by-itself".into(), &"memory-layout".into())
    );
}

#[test]
fn what_needs_several_axes_is_found_to_need_just_these() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let both = "if test \"$HOME\" != /homeless && test \"$(uname -n)\" != pnb; then echo elsewhere; else echo here; fi";
    project(dir.path(), &[("both", both)], "");
    let (code, found) = verdict(dir.path(), &["--vary", "all"]);
    assert_eq!(code, Some(10), "{found:#}");
    let of = findings(&found);
    let axes = serde_json::json!(["host-name", "home"]);
    assert_eq!(
        (&of["both"]["cause"], &of["both"]["axes"]),
        (&"together".into(), &axes),
        "{found:#}"
    );
}

#[test]
fn a_stage_that_fails_elsewhere_is_a_finding_and_the_axis_is_named() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    project(
        dir.path(),
        &[],
        "test \"$(uname -n)\" = pnb || { echo fails here; exit 9; }\n",
    );
    let (code, found) = verdict(dir.path(), &["--vary", "clock,host-name,locale"]);
    assert_eq!(code, Some(10), "{found:#}");
    let finding = &found["findings"][0];
    assert_eq!(
        (&finding["node"], &finding["axes"]),
        (&"leaks/amd64".into(), &serde_json::json!(["host-name"]))
    );
    assert!(finding["output"].is_null(), "{finding:#}");
    let output = finding["failed"].as_str().expect("text");
    assert!(output.contains("exit code 9"));
    // The store of the second build is gone, the log is not.
    let log = output.lines().find_map(|line| line.strip_prefix("log: "));
    let log = fs::read_to_string(log.expect("a log is named")).expect("kept");
    assert!(log.contains("fails here"), "{log}");
    let shown = pnb(dir.path(), &store())
        .args(["log", "leaks", "--last"])
        .output()
        .expect("starts");
    assert_eq!(String::from_utf8_lossy(&shown.stdout), log);
}

#[test]
#[ignore = "long: several builds; cargo test -- --include-ignored"]
fn a_rebuild_that_fails_against_a_manifest_names_the_axis_and_is_an_error_where_nothing_helps() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let images = dir.path().join("images");
    let made = "echo made | tee kernel > initramfs.cpio.zst";
    with_script(dir.path(), "kernel-initrd", &format!("{made}; test $(uname -n) = pnb"));
    let mut command = pnb(dir.path(), &store());
    command.args(["build", "--variant", "kernel-initrd", "--output"]);
    good(command.arg(&images));
    let manifest = images.join("kernel-initrd/amd64/build-manifest.json");
    let against = [
        "--vary",
        "umask,host-name",
        "--against",
        manifest.to_str().expect("text"),
    ];
    let (code, found) = verdict_of(&[], dir.path(), &against);
    assert_eq!(code, Some(10), "{found:#}");
    let finding = &found["findings"][0];
    assert_eq!(
        (&finding["node"], &finding["axes"]),
        (&"kernel-initrd/amd64".into(), &serde_json::json!(["host-name"])),
        "{found:#}"
    );
    with_script(
        dir.path(),
        "kernel-initrd",
        &format!("{made}; echo fails always; exit 9"),
    );
    let (code, said) = verdict_of(&[], dir.path(), &against);
    assert_eq!(code, Some(7), "{said:#}");
    assert!(
        said["message"].as_str().is_some_and(|m| m.contains("fails always")),
        "{said:#}"
    );
}

#[test]
fn the_log_of_what_cannot_be_built_at_all_is_kept() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    project(dir.path(), &[], "echo fails always\nexit 9\n");
    let (code, said) = verdict(dir.path(), &["--vary", "clock"]);
    assert_eq!(code, Some(7), "{said:#}");
    let message = said["message"].as_str().expect("text");
    let log = message.lines().find_map(|line| line.strip_prefix("log: "));
    let log = fs::read_to_string(log.expect("a log is named")).expect("kept");
    assert!(log.contains("fails always"), "{log}");
}

/// A copy of the artifact's manifest with `from` replaced by `to`.
fn manifest_with(dir: &Path, from: &str, to: &str) -> PathBuf {
    let text = fs::read_to_string(artifact().join("build-manifest.json")).expect("there");
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "{from} is not in the manifest");
    let path = dir.join("build-manifest.json");
    fs::write(&path, changed).expect("written");
    path
}

#[test]
fn what_is_not_the_same_as_here_is_the_answer_each_with_its_code() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let text = fs::read_to_string(artifact().join("build-manifest.json")).expect("there");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let value = |path: &str| manifest.pointer(path).and_then(Value::as_str).expect(path).to_owned();
    let against = |path: &Path, code: i32| {
        bad(
            pnb(repository(), &store())
                .args(["verify-repro", "--against"])
                .arg(path),
            code,
        )
    };
    let other = "0123456789abcdef".repeat(4);
    let lock = value("/lockfile/sha256");
    let (code, version) = (value("/builder/code/sandbox"), value("/builder/version"));
    for (from, to, code, word) in [
        (lock.as_str(), other.as_str(), 32, "lockfile.toml"),
        (
            &format!("\"git_sha\": \"{}\"", value("/git_sha")),
            &format!("\"git_sha\": \"{}\"", &other[..40]),
            33,
            "revision",
        ),
        (code.as_str(), other.as_str(), 34, "the code of pnb"),
        (
            &format!("\"version\": \"{version}\""),
            "\"version\": \"99.0.0\"",
            34,
            "99.0.0",
        ),
        ("\"schema_version\": 2", "\"schema_version\": 77", 31, "77"),
        ("\"schema_version\": 2", "\"schema_version\": 1", 31, "schema version 1"),
        (
            "\"hermetic\": ",
            "\"hermetic\": true,\n  \"hermetic\": ",
            30,
            "hermetic",
        ),
        ("\"hermetic\": ", "\"helpful\": true,\n  \"hermetic\": ", 30, "helpful"),
        ("{", "", 30, "build-manifest.json"),
    ] {
        let said = against(&manifest_with(dir.path(), from, to), code);
        assert!(said.contains(word), "{word}: {said}");
    }
    let said = against(&dir.path().join("not-there.json"), 2);
    assert!(said.contains("not-there.json"), "{said}");

    // In a directory the files must be the manifest's.
    let copy = copy_of_artifact();
    fs::remove_file(copy.path().join("kernel")).expect("ours");
    let said = against(copy.path(), 35);
    assert!(said.contains("kernel"), "{said}");
    let copy = copy_of_artifact();
    flip(&copy.path().join("kernel"), 4096);
    let said = against(copy.path(), 35);
    assert!(said.contains("kernel") && said.contains("expected:"), "{said}");
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: the product is built three times; cargo test -- --ignored nightly::"]
    fn the_product_is_the_same_under_every_circumstance_and_says_so() {
        let images = images();
        let mut command = pnb(repository(), &store());
        command.args([
            "verify-repro",
            "--hermetic",
            "--allow-dirty",
            "--variant",
            "kernel-initrd,raw",
            "--output",
        ]);
        let said = good(command.arg(images));
        assert!(
            said.contains("reproducible: ") && said.contains("varied     clock"),
            "{said}"
        );
        let policy = tempfile::NamedTempFile::new().expect("scratch");
        fs::write(
            policy.path(),
            "version = 1\nreproducible = true\naxes = [\"clock\", \"listing\", \"umask\", \"build-path\"]\n",
        )
        .expect("written");
        for variant in ["kernel-initrd", "raw"] {
            let dir = images.join(variant).join("amd64");
            let said = good(
                pnb(repository(), &store())
                    .arg("audit")
                    .arg(&dir)
                    .arg("--policy")
                    .arg(policy.path()),
            );
            assert!(said.contains("policy: axes"), "{said}");
        }
        // Stated beside what was built, and the next build leaves it there.
        let said = good(build(repository(), &store()).arg("--output").arg(images));
        assert!(said.contains("unchanged"), "{said}");
        let record = fs::read_to_string(images.join("raw/amd64/build-record.json")).expect("there");
        assert!(record.contains("\"reproducibility\""));

        // An auditor, with nothing but the manifest. What says more of the artifact stays as it is.
        let manifest = images.join("kernel-initrd/amd64/build-manifest.json");
        let mut command = pnb(repository(), &store());
        command
            .args(["verify-repro", "--vary", "none", "--against"])
            .arg(&manifest);
        let said = good(command.arg("--output").arg(images));
        assert!(said.contains("reproducible: "), "{said}");
        let record = fs::read_to_string(images.join("kernel-initrd/amd64/build-record.json")).expect("there");
        assert!(record.contains("\"clock\""), "{record}");
    }
}
