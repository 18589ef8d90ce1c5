//! Builds that share a cache: BuildBox's server, and doubles that lie, stall and refuse.

use crate::{
    client::digest_of,
    double::RemoteDouble,
    engine::{Casd, CasdOptions},
    faults::Kept,
    ground::Ground,
    http_cache::HttpCache,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::{ActionResult, OutputFile};
use prost::Message as _;
use std::collections::BTreeSet;

const ALL: [&str; 4] = ["agent", "one", "three", "two"];

fn names(stages: &[&str]) -> Vec<String> {
    stages.iter().map(|stage| (*stage).to_owned()).collect()
}

/// The first build runs everything and fills the cache, the second runs nothing.
#[track_caller]
fn fill_and_take(ground: &Ground, url: &str) {
    let first = ground.build_with("first", url, &[]);
    assert_eq!(first.well(), (names(&ALL), vec![]), "{}", first.said);
    assert_eq!(first.warnings(), Vec::<String>::new());
    let second = ground.build_with("second", url, &[]);
    assert_eq!(second.well(), (vec![], names(&ALL)), "{}", second.said);
    assert_eq!(second.warnings(), Vec::<String>::new());
    for output in ["out", "version"] {
        let [first, second] = ["first", "second"].map(|store| ground.output(store, "three", output));
        assert_eq!(first, second);
    }
    // The disk and the tree stayed where they were: nothing here has read them.
    let ((many, _), (few, bytes)) = (first.objects(), second.objects());
    assert!(
        few < 20 && many > 300 && bytes < 100_000,
        "{few} objects of {bytes} bytes, {many}"
    );
}

#[test]
fn a_fresh_store_gets_everything_from_buildbox() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let mut casd = Casd::start(dir.path(), &CasdOptions::default());
    fill_and_take(&ground, &casd.url());
    // Another word runs stage `two` and the one behind it: the tree that it reads comes from the cache, and its log too.
    casd.restart();
    ground.word("another");
    let third = ground.build_with("third", &casd.url(), &[]);
    let (ran, shared) = third.well();
    assert_eq!(
        (ran, shared),
        (names(&["three", "two"]), names(&["agent", "one"])),
        "{}",
        third.said
    );
    let here = ground.build("here", &[]);
    here.well();
    for (stage, output) in [("one", "version"), ("two", "disk"), ("three", "out")] {
        assert_eq!(
            ground.output("third", stage, output),
            ground.output("here", stage, output),
            "{stage}"
        );
    }
    let log = ground.built("third", &["log", "one"]);
    assert!(log.said.contains("the log of one"), "{}", log.said);
    // What came from the cache is in the store now.
    let again = ground.build("third", &[]);
    assert_eq!(again.well().0, Vec::<String>::new(), "{}", again.said);
}

#[test]
fn a_fresh_store_gets_everything_over_http_in_few_requests() {
    let (ground, cache) = (Ground::new(), HttpCache::start());
    fill_and_take(&ground, &cache.url());
    cache.kept().calls.clear();
    ground.build_with("third", &cache.url(), &[]).well();
    let calls = cache.kept().calls.clone();
    assert!(calls.len() <= 5 * ALL.len(), "{} requests: {calls:?}", calls.len());
    assert!(!calls.iter().any(|call| call.starts_with("PUT")), "{calls:?}");
}

/// Names of the blobs of at least `size` bytes, the disk and the large file of the tree among them.
fn large_blobs(kept: &Kept, size: usize) -> BTreeSet<String> {
    let blobs = kept.blobs.iter().filter(|(_, bytes)| bytes.len() >= size);
    blobs.map(|(name, _)| name.clone()).collect()
}

/// A build against a full cache in which something is wrong by now: it ends well with the right output, and says once what was wrong.
fn with_fault(grpc: bool, arguments: &[&str], wrong: impl FnOnce(&mut Kept)) -> (Vec<String>, String, String) {
    let ground = Ground::new();
    let (http, double) = (HttpCache::start(), RemoteDouble::start());
    let url = if grpc { double.url() } else { http.url() };
    ground.build_with("first", &url, &[]).well();
    ground.word("another");
    match grpc {
        true => wrong(&mut double.kept()),
        false => wrong(&mut http.kept()),
    }
    let mut all = vec!["--jobs", "1"];
    all.extend(arguments);
    let second = ground.build_with("second", &url, &all);
    assert_eq!(second.code, 0, "{}", second.said);
    ground.build("here", &[]).well();
    assert_eq!(
        ground.output("second", "two", "disk"),
        ground.output("here", "two", "disk")
    );
    let (ran, _) = second.well();
    (ran, second.warnings().join("\n"), second.said)
}

#[test]
fn what_a_cache_lost_or_changed_is_made_here() {
    for grpc in [true, false] {
        let (ran, said, all) = with_fault(grpc, &[], |kept| kept.faults.wrong_bytes = large_blobs(kept, 4_000_000));
        assert!(ran.contains(&"one".to_owned()), "{all}");
        assert!(
            said.starts_with("failed to read a blob from the remote cache ADDRESS"),
            "{all}"
        );
        let (ran, said, all) = with_fault(grpc, &[], |kept| {
            let large = large_blobs(kept, 4_000_000);
            kept.faults.missing = large;
        });
        assert!(ran.contains(&"one".to_owned()), "{all}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(said, @"failed to read blob DIGEST from the remote cache ADDRESS: it is gone; one/amd64 runs here");
        }
    }
}

#[test]
fn a_cache_that_is_gone_or_slow_is_left_alone() {
    let ground = Ground::new();
    // Nothing listens on the port of a listener that was closed.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("bound")
        .local_addr()
        .expect("bound")
        .port();
    for scheme in ["grpc", "http"] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        let built = ground.build_with(scheme, &url, &[]);
        assert_eq!(built.well().0.len(), ALL.len(), "{}", built.said);
        let said = built.warnings();
        assert_eq!(said.len(), 1, "once: {said:?}");
        assert!(
            said[0].starts_with("failed to reach the remote cache ADDRESS"),
            "{said:?}"
        );
        assert!(said[0].ends_with("; the build goes on without it"), "{said:?}");
        let required = ground.build_with("required", &url, &["--remote-required"]);
        assert_eq!(required.code, 4, "{}", required.said);
        assert!(
            required.said.contains("error: failed to reach the remote cache"),
            "{}",
            required.said
        );
    }
    for grpc in [true, false] {
        let (_, said, all) = with_fault(grpc, &[], |kept| {
            kept.faults.slow_first_byte = Some(std::time::Duration::from_secs(60))
        });
        assert!(said.contains("; the build goes on without it"), "{all}");
    }
}

#[test]
fn a_cache_that_takes_nothing_is_said_once_and_fails_nothing() {
    for grpc in [true, false] {
        for full in [true, false] {
            let (ran, said, all) = with_fault(grpc, &[], |kept| match full {
                true => kept.faults.full = true,
                false => kept.faults.reader_only = true,
            });
            assert_eq!(ran, ["three", "two"], "{all}");
            assert_eq!(said.lines().count(), 1, "{all}");
            assert!(
                said.starts_with("failed to write to the remote cache ADDRESS: "),
                "{all}"
            );
            assert!(said.ends_with("; nothing more is sent to it"), "{all}");
        }
    }
}

/// Changes the record that a cache has of `stage`; files of `more` are added to its result. The record is whole afterwards.
fn change_record(kept: &mut Kept, stage: &str, change: impl Fn(&mut serde_json::Value), more: &[(String, Vec<u8>)]) {
    let results: Vec<(String, Vec<u8>)> = kept.results.clone().into_iter().collect();
    for (action, encoded) in results {
        let mut result = ActionResult::decode(&encoded[..]).expect("a result");
        let Some(file) = result.output_files.iter_mut().find(|file| file.path == "record") else {
            continue;
        };
        let hash = file.digest.as_ref().expect("named").hash.clone();
        let text = String::from_utf8(kept.blobs[&hash].clone()).expect("text");
        let mut record: serde_json::Value = serde_json::from_str(text.lines().nth(1).expect("JSON")).expect("JSON");
        if record["stage"] != stage {
            continue;
        }
        change(&mut record);
        let record = record.to_string();
        let text = format!("{}\n{record}\n", blake3::hash(record.as_bytes()).to_hex());
        file.digest = Some(digest_of(text.as_bytes()));
        kept.add_blob(text.as_bytes());
        for (path, content) in more {
            kept.add_blob(content);
            result.output_files.push(OutputFile {
                path: path.clone(),
                digest: Some(digest_of(content)),
                ..OutputFile::default()
            });
        }
        result.output_files.sort_by(|a, b| a.path.cmp(&b.path));
        kept.poison(&action, &result);
        return;
    }
    unreachable!("the cache has no result of {stage}");
}

#[test]
fn a_poisoned_record_is_found_by_a_run_and_by_nothing_else() {
    let (ground, cache) = (Ground::new(), HttpCache::start());
    let url = cache.url();
    ground.build_with("first", &url, &[]).well();
    let evil = b"not what stage two makes".to_vec();
    let digest = pnb::verity::digest_bytes(&evil).to_string();
    change_record(
        &mut cache.kept(),
        "two",
        |record| {
            record["outputs"]["disk"] = serde_json::json!({ "kind": "file", "digest": digest, "size": evil.len() })
        },
        &[(format!("o/{digest}"), evil.clone())],
    );
    // Who takes results of a cache takes this one: docs/scale.md says so.
    let taken = ground.built("taken", &["build", "--stage", "two", "--remote-cache", &url]);
    assert_eq!(taken.well().0, Vec::<String>::new(), "{}", taken.said);
    assert_eq!(ground.output("taken", "two", "disk"), evil);
    // Who runs the stage finds it, keeps what it has made, and leaves the cache's record where it is.
    let before = cache.kept().results.clone();
    let compared = ground.build_with("compared", &url, &["--remote-no-accept"]);
    assert_eq!(compared.well().0, names(&ALL), "{}", compared.said);
    let said = compared.warnings();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with(
            "the remote cache ADDRESS is poisoned, or two/amd64 is irreproducible: output \"disk\" differs"
        ),
        "{said:?}"
    );
    assert!(compared.said.contains(&format!("cache: {digest}")), "{}", compared.said);
    assert_eq!(
        ground.output("compared", "two", "disk"),
        ground.output("first", "two", "disk")
    );
    assert!(cache.kept().results == before);
    // Also where the store has taken it before, and where the store's own result is older than the cache's.
    let arguments = ["build", "--stage", "two", "--remote-cache", &url, "--remote-no-accept"];
    let again = ground.built("taken", &arguments);
    assert!(again.well().0.contains(&"two".to_owned()), "{}", again.said);
    assert_eq!(again.warnings().len(), 1, "{}", again.said);
    assert_eq!(
        ground.output("taken", "two", "disk"),
        ground.output("first", "two", "disk")
    );
    let own = ground.built("first", &arguments);
    assert_eq!(own.well().0, Vec::<String>::new(), "{}", own.said);
    assert_eq!(own.warnings().len(), 1, "{}", own.said);
}

#[test]
fn a_record_that_no_run_here_could_make_is_refused_by_name() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 4] = [
        (
            |record| record["policy"]["proc_mount"] = false.into(),
            "two/amd64 ran under another policy than the one it has here",
        ),
        (
            |record| record["outputs"]["more"] = record["outputs"]["disk"].clone(),
            "its record has an output \"more\", which two/amd64 does not declare",
        ),
        (
            |record| record["arch"] = "arm64".into(),
            "its record is that of two/arm64",
        ),
        (
            |record| record["outputs"]["disk"]["kind"] = "tree".into(),
            "its record is damaged, of another version of pnb, or of another key",
        ),
    ];
    let (ground, cache) = (Ground::new(), HttpCache::start());
    let url = cache.url();
    ground.build_with("first", &url, &[]).well();
    let whole = cache.kept().results.clone();
    for (number, (change, why)) in cases.into_iter().enumerate() {
        cache.kept().results = whole.clone();
        change_record(&mut cache.kept(), "two", change, &[]);
        let store = format!("store-{number}");
        let built = ground.build_with(&store, &url, &[]);
        let (ran, _) = built.well();
        assert_eq!(ran, names(&["two"]), "{why}: {}", built.said);
        let wanted = format!("failed to take the result of the remote cache ADDRESS: {why}; two/amd64 runs here");
        // A record with other outputs is named as such, too, once the stage has run.
        let warnings = built.warnings();
        assert_eq!(warnings.first(), Some(&wanted), "{}", built.said);
        assert!(
            warnings[1..]
                .iter()
                .all(|said| said.contains("is poisoned, or two/amd64")),
            "{}",
            built.said
        );
        assert_eq!(
            ground.output(&store, "three", "out"),
            ground.output("first", "three", "out")
        );
    }
}

#[test]
fn a_hermetic_build_takes_no_record_of_a_weaker_sandbox() {
    let (ground, cache) = (Ground::new(), HttpCache::start());
    let url = cache.url();
    ground.checkout_commit();
    ground.build_with("first", &url, &[]).well();
    change_record(
        &mut cache.kept(),
        "two",
        |record| record["weaker"] = serde_json::json!(["landlock: this kernel has none"]),
        &[],
    );
    let loose = ground.build_with("loose", &url, &[]);
    assert_eq!(loose.well().0, Vec::<String>::new(), "{}", loose.said);
    let strict = ground.build_with("strict", &url, &["--hermetic"]);
    assert_eq!(strict.well().0, names(&["two"]), "{}", strict.said);
    // The record of the whole sandbox takes the place of the other.
    let again = ground.build_with("again", &url, &["--hermetic"]);
    assert_eq!(again.well().0, Vec::<String>::new(), "{}", again.said);
}
