//! Builds that share a cache: BuildBox's server, and doubles that lie, stall and refuse.

use crate::{
    double::RemoteDouble,
    engine::{Casd, CasdOptions},
    ground::Ground,
    http_cache::HttpCache,
};
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
    assert_eq!(
        ground.output("first", "three", "out"),
        ground.output("second", "three", "out")
    );
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
    assert!(calls.len() <= 4 * ALL.len(), "{} requests: {calls:?}", calls.len());
    assert!(!calls.iter().any(|call| call.starts_with("PUT")), "{calls:?}");
}

/// Names of the blobs of at least `size` bytes, the disk and the large file of the tree among them.
fn large_blobs(kept: &crate::faults::Kept, size: usize) -> BTreeSet<String> {
    let blobs = kept.blobs.iter().filter(|(_, bytes)| bytes.len() >= size);
    blobs.map(|(name, _)| name.clone()).collect()
}

/// A build against a full cache in which something is wrong by now: it ends well with the right output, and says once what was wrong.
fn with_fault(
    grpc: bool,
    arguments: &[&str],
    wrong: impl FnOnce(&mut crate::faults::Kept),
) -> (Vec<String>, String, String) {
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
