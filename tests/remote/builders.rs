//! Stages on builders that are asked for by name, and on workers of another architecture.

use crate::{
    ground::Ground,
    workplace::{Seen, engine, engine_with},
};
use pnb::{
    model::StageKey,
    store::{Output, Record},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

const CHALLENGE: [&str; 4] = ["--challenge", "2", "--remote-builder", "rack-1,rack-2"];

/// The builder that an action asks for; empty if it asks for none.
fn builder(seen: &Seen) -> &str {
    seen.platform.get("pnb-builder").map_or("", String::as_str)
}

/// The record of the stage with this name among the files that a worker left, and its path.
fn record_of(files: &BTreeMap<String, Vec<u8>>, stage: &str) -> Option<(String, Record)> {
    files.iter().find_map(|(path, bytes)| {
        let text = std::str::from_utf8(bytes).ok().filter(|_| path.ends_with("/record"))?;
        let json = text.lines().nth(1)?;
        let record: Record = serde_json::from_str(json).ok()?;
        let key = StageKey::new(*blake3::hash(record.canonical.as_bytes()).as_bytes());
        (record.stage == stage).then(|| (path.clone(), Record::from_text(&key, text).expect("whole")))
    })
}

/// Gives another output to a stage. The result is whole, and only a comparison tells.
pub(crate) fn change(files: &mut BTreeMap<String, Vec<u8>>, stage: &str, output: &str) {
    let Some((path, mut record)) = record_of(files, stage) else {
        return;
    };
    let number = path.split('/').next().expect("a number");
    let other = b"another disk";
    let digest = pnb::verity::digest_bytes(other);
    let made = Output::File {
        digest,
        size: other.len() as u64,
    };
    record.outputs.insert(output.to_owned(), made);
    files.insert(format!("{number}/o/{digest}"), other.to_vec());
    files.insert(path, record.to_text().expect("JSON").into_bytes());
}

#[test]
fn builders_that_agree_make_a_result_and_others_an_error() {
    let ground = Ground::new();
    let (farm, seen) = engine(Box::new(|_, _| {}));
    let url = farm.url();
    let with = |more: &[&'static str]| [&["--remote", &url][..], &CHALLENGE, more].concat();
    let agreed = ground.build("agreed", &with(&[]));
    assert_eq!(agreed.well().0.len(), 4, "{}", agreed.said);
    let actions = seen.lock().expect("whole").clone();
    let asked: BTreeSet<&str> = actions.iter().map(builder).collect();
    assert_eq!(asked, ["rack-1", "rack-2"].into());
    assert!(actions.iter().all(|action| action.do_not_cache), "each has to run");
    ground.build("here", &[]).well();
    assert_eq!(
        ground.output("agreed", "three", "out"),
        ground.output("here", "three", "out")
    );
    // A reader of the cache gets what they agreed about; the command itself asks them again.
    let runs = actions.len();
    assert_eq!(ground.build("agreed", &with(&[])).well().0.len(), 4);
    assert_eq!(seen.lock().expect("whole").len(), 2 * runs);
    let reader = ground.build_with("reader", &url, &["--remote-upload", "never"]);
    assert_eq!(reader.well().1.len(), 4, "{}", reader.said);

    // One builder makes another output of the second stage.
    let (farm, _) = engine(Box::new(|seen, files| {
        if builder(seen) == "rack-2" {
            change(files, "two", "disk");
        }
    }));
    let url = farm.url();
    let split = ground.build("split", &[&["--remote", &url][..], &CHALLENGE].concat());
    assert_eq!(split.code, 12, "{}", split.said);
    let said = "error: failed to build two/amd64: the builders disagree about its output \"disk\"\n  rack-";
    assert!(split.said.contains(said), "{}", split.said);
    for (name, wrong) in [("rack-1", false), ("rack-2", true)] {
        let line = format!("  {name}: {}", pnb::verity::digest_bytes(b"another disk"));
        assert_eq!(split.said.contains(&line), wrong, "{}", split.said);
    }
    // Nothing of that stage is in the cache; what they agreed about before is.
    let reader = ground.build_with("second-reader", &url, &["--remote-upload", "never"]);
    assert_eq!(reader.well().1, ["agent", "one"], "{}", reader.said);
    // What was made here does not count either: the builders are asked, and disagree.
    let here = ground.build("here", &[&["--remote", &url][..], &CHALLENGE].concat());
    assert_eq!(here.code, 12, "{}", here.said);
    // Two names of one worker are no two builders.
    let (farm, _) = engine_with(Box::new(|_, _| {}), |_| "the only one".to_owned());
    let url = farm.url();
    let one = ground.build("one", &[&["--remote", &url][..], &CHALLENGE].concat());
    assert_eq!(one.code, 12, "{}", one.said);
    let said = "failed to build agent/amd64 on different builders: ";
    assert!(
        one.said.contains(said) && one.said.contains(" were the worker the only one\n"),
        "{}",
        one.said
    );
}

#[test]
fn the_store_says_what_the_build_used() {
    let ground = Ground::new();
    ground.build("store", &[]).well();
    let own = ground.output("store", "three", "out");
    // Both builders agree about another output than was made here.
    let (farm, _) = engine(Box::new(|_, files| change(files, "three", "out")));
    let url = farm.url();
    let built = ground.build("store", &[&["--remote", &url][..], &CHALLENGE].concat());
    assert_eq!(built.well().0.len(), 4, "{}", built.said);
    assert_eq!(built.warnings().len(), 1, "{}", built.said);
    assert_eq!(ground.output("store", "three", "out"), b"another disk");
    assert_ne!(own, b"another disk");
}

#[test]
fn a_second_build_on_workers_is_compared_with_the_first() {
    let ground = Ground::new();
    let (farm, seen) = engine(Box::new(|_, _| {}));
    let url = farm.url();
    let again = |url: &str, more: &[&str]| {
        let command = ["verify-repro", "--stage", "three", "--on", "workers", "--remote", url];
        ground.built("user", &[&command[..], more].concat())
    };
    // Not even what the cache has from another build counts.
    ground.build("earlier", &["--remote", &url]).well();
    let before = seen.lock().expect("whole").len();
    let equal = again(&url, &[]);
    assert_eq!(equal.code, 0, "{}", equal.said);
    assert!(
        equal.said.contains("reproducible: 6 outputs of 4 stages"),
        "{}",
        equal.said
    );
    assert!(seen.lock().expect("whole").len() > before, "nothing ran on a worker");
    let (farm, _) = engine(Box::new(|_, files| change(files, "three", "out")));
    let differs = again(&farm.url(), &[]);
    assert_eq!(differs.code, 10, "{}", differs.said);
    for line in [
        "differs first  three/amd64\n",
        "; the first stage that differs is three/amd64, ",
    ] {
        assert!(differs.said.contains(line), "{line:?}: {}", differs.said);
    }
    for (options, said) in [
        (
            &["--on", "workers"][..],
            "failed to build a second time on workers: no engine is named",
        ),
        (
            &["--remote", &url],
            "failed to use an engine or a cache: both builds run here without --on",
        ),
        (&["--on", "sparc"], "invalid value 'sparc' for '--on <WHERE>'"),
        (
            &["--on", "workers", "--remote", &url, "--vary", "clock"],
            "cannot be used with",
        ),
        (&["--on", "arm64", "--remote", &url], "no --remote-program is one"),
        (
            &["--on", "arm64", "--arch", "amd64", "--remote", &url],
            "natively for arm64: nothing that was asked for is for arm64",
        ),
        (
            &["--on", "workers", "--remote", &url, "--remote-native", "arm64"],
            "--remote-native does not",
        ),
    ] {
        let refused = ground.built("user", &[&["verify-repro", "--stage", "three"][..], options].concat());
        assert_eq!(refused.code, 2, "{options:?}: {}", refused.said);
        assert!(refused.said.contains(said), "{options:?}: {}", refused.said);
    }
}

#[test]
fn options_of_builders_and_programs_are_checked_before_anything_runs() {
    let ground = Ground::new();
    let nobody = "grpc://127.0.0.1:9";
    for (options, said) in [
        (
            &["--remote", nobody, "--challenge", "3", "--remote-builder", "a,b,a"][..],
            "failed to run stages on 3 builders: --remote-builder names 2",
        ),
        (
            &["--challenge", "2", "--remote-builder", "a,b"],
            "failed to run stages on builders: no engine is named",
        ),
        (
            &["--remote", nobody, "--challenge", "1", "--remote-builder", "a"],
            "1 is not in 2..=64",
        ),
        (&["--remote", nobody, "--challenge", "2"], "--remote-builder"),
        (
            &["--remote", nobody, "--challenge", "2", "--remote-builder", "a b,c"],
            "1 to 64 letters",
        ),
        (
            &["--remote-native", "arm64"],
            "failed to run stages natively: neither an engine nor a cache is named",
        ),
        (
            &["--remote", nobody, "--remote-native", "arm64"],
            "failed to run stages natively for arm64: workers need a pnb for arm64, and no --remote-program is one",
        ),
        (
            &["--remote", nobody, "--remote-program", "lockfile.toml"],
            "\"lockfile.toml\" as a pnb for workers: it does not begin with the ELF magic",
        ),
        (
            &["--remote", nobody, "--remote-program", "missing"],
            "failed to read \"missing\" as a pnb for workers",
        ),
        (
            &[
                "--remote-cache",
                "http://127.0.0.1:9",
                "--remote-native",
                "arm64",
                "--tools",
                "arm64",
            ],
            "failed to run stages natively beside --tools",
        ),
    ] {
        let refused = ground.build("refused", options);
        assert_eq!(refused.code, 2, "{options:?}: {}", refused.said);
        assert!(refused.said.contains(said), "{options:?}: {}", refused.said);
    }
}

#[test]
fn stages_of_another_architecture_go_to_its_workers() {
    let ground = Ground::new();
    // The worker is of this machine's architecture and gets its program: what a worker of the other one would do is the same. Only the
    // header of the program that is sent says otherwise.
    let own = fs::read(env!("CARGO_BIN_EXE_pnb")).expect("read");
    let mut foreign = own.clone();
    assert_eq!(foreign[18..20], [62, 0], "a program for amd64");
    foreign[18] = 183;
    let program = tempfile::NamedTempFile::new().expect("scratch");
    fs::write(program.path(), &foreign).expect("written");
    let path = program.path().to_str().expect("UTF-8").to_owned();
    let (farm, seen) = engine(Box::new(|_, _| {}));
    let url = farm.url();
    let native = [
        "--arch",
        "arm64",
        "--remote",
        &url,
        "--remote-native",
        "arm64",
        "--remote-program",
        &path,
    ];
    let built = ground.build("native", &native);
    let action = seen.lock().expect("whole").first().cloned().expect("an action");
    assert_eq!(action.platform["ISA"], "aarch64");
    assert!(action.files["pnb"] == foreign, "the program for the worker");
    let job: serde_json::Value = serde_json::from_slice(&action.files["job.json"]).expect("JSON");
    let canonical = job["stages"][0]["canonical"].as_str().expect("a text");
    assert!(canonical.contains("\narch arm64\nbuild-arch arm64\n"), "{canonical}");
    // This machine's kernel does not run it; that is the error of the worker.
    assert_eq!(built.code, 7, "{}", built.said);
    // Without the option, the stage is made with this machine's tools, and it is this machine's program that goes to a worker.
    let emulated = ground.build("emulated", &["--arch", "arm64", "--remote", &url]);
    let action = seen.lock().expect("whole").last().cloned().expect("an action");
    assert_eq!(action.platform["ISA"], "x86-64", "{}", emulated.said);
    assert!(action.files["pnb"] == own, "the own program");
    // Nothing of another machine runs here, even where the engine is not named.
    let nowhere = ground.build(
        "nowhere",
        &["--arch", "arm64", "--remote-cache", &url, "--remote-native", "arm64"],
    );
    assert_eq!(nowhere.code, 2, "{}", nowhere.said);
    let said = "its stages run natively, and this machine is of another architecture";
    assert!(nowhere.said.contains(said), "{}", nowhere.said);
}
