//! What BuildBox's server does that the tests of pnb rely on.

use crate::{
    client::{Job, RemoteClient, digest_of, output},
    engine::{Casd, CasdOptions},
};
use bazel_remote_apis::build::bazel::remote::execution::v2::{ActionResult, OutputFile};
use std::fs;
use tonic::Code;

fn client(casd: &Casd) -> RemoteClient {
    RemoteClient::connect(&casd.url()).expect("connected")
}

const HELLO: Job<'static> = Job {
    arguments: &["/bin/sh", "-c", "echo hi > out; /usr/bin/env"],
    environment: &[("OWN", "1")],
    output_paths: &["out"],
    platform: &[],
    salt: b"",
    skip_cache: false,
};

#[test]
fn a_cache_keeps_blobs_and_results_over_a_restart() {
    let dir = tempfile::tempdir().expect("scratch");
    let mut casd = Casd::start(dir.path(), &CasdOptions::default());
    let before = client(&casd);
    let capabilities = before.capabilities().expect("stated");
    let cache = capabilities.cache_capabilities.expect("a cache");
    assert_eq!(cache.digest_functions, [1], "SHA-256");
    assert!(cache.action_cache_update_capabilities.expect("stated").update_enabled);
    assert!(!capabilities.execution_capabilities.unwrap_or_default().exec_enabled);

    let (small, large) = (b"a small blob".to_vec(), vec![7; 3_000_001]);
    let absent = digest_of(b"nobody has this");
    for bytes in [&small, &large] {
        let digest = digest_of(bytes);
        assert_eq!(
            before.missing(&[digest.clone(), absent.clone()]).expect("asked").len(),
            2
        );
        before.put(bytes).expect("taken");
        assert_eq!(
            before.missing(&[digest.clone(), absent.clone()]).expect("asked"),
            std::slice::from_ref(&absent)
        );
        assert!(before.get(&digest).expect("there") == *bytes);
        assert!(fs::read(casd.stored(&digest.hash)).expect("stored") == *bytes);
    }
    assert_eq!(before.get(&absent).expect_err("nowhere").code(), Code::NotFound);
    // Other bytes than the name says are refused.
    let refused = before
        .put_as(&digest_of(b"one thing"), b"otherones")
        .expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

    let action = digest_of(b"the name of an action");
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "record".to_owned(),
            digest: Some(digest_of(&small)),
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(before.cached(&action).expect("asked"), None);
    before.publish(&action, &result).expect("taken");
    casd.restart();
    let after = client(&casd);
    let kept = after.cached(&action).expect("asked").expect("kept");
    assert_eq!(kept.output_files, result.output_files);
    assert!(after.get(&digest_of(&small)).expect("kept") == small);

    // A result whose blobs are gone is no result.
    fs::remove_file(casd.stored(&digest_of(&small).hash)).expect("removed");
    casd.restart();
    assert_eq!(client(&casd).cached(&action).expect("asked"), None);

    casd.kill();
    assert!(RemoteClient::connect(&casd.url()).is_err());
}

#[test]
fn a_cache_with_a_runner_runs_an_action_once() {
    let dir = tempfile::tempdir().expect("scratch");
    let mut casd = Casd::with_runner(dir.path());
    let before = client(&casd);
    let stated = before.capabilities().expect("stated").execution_capabilities;
    assert!(stated.expect("execution").exec_enabled);
    let first = before.run(&HELLO).expect("run");
    let result = first.result.as_ref().expect("a result");
    assert_eq!((result.exit_code, first.cached_result), (0, false), "{first:?}");
    assert_eq!(output(&before, &first, "out"), b"hi\n");
    // The runner passes nothing of the test's environment on.
    let printed = match &result.stdout_digest {
        Some(digest) if result.stdout_raw.is_empty() => before.get(digest).expect("there"),
        _ => result.stdout_raw.clone(),
    };
    let printed = String::from_utf8(printed).expect("text");
    let mut names: Vec<&str> = printed.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["OWN", "PWD"], "{printed}");

    assert!(before.run(&HELLO).expect("run").cached_result);
    casd.restart();
    let after = client(&casd);
    let again = after.run(&HELLO).expect("run");
    assert!(again.cached_result);
    assert_eq!(output(&after, &again, "out"), b"hi\n");
    let anew = Job {
        skip_cache: true,
        ..HELLO
    };
    assert!(!after.run(&anew).expect("run").cached_result);
    let failing = Job {
        arguments: &["/bin/sh", "-c", "exit 3"],
        output_paths: &[],
        ..HELLO
    };
    let failed = after.run(&failing).expect("run");
    assert_eq!(failed.result.expect("a result").exit_code, 3);
}

#[test]
fn a_cache_with_a_limit_forgets_what_was_used_longest_ago() {
    let dir = tempfile::tempdir().expect("scratch");
    let options = CasdOptions {
        quota: Some("4M".to_owned()),
        arguments: vec!["--reserved=0".to_owned()],
        ..CasdOptions::default()
    };
    let casd = Casd::start(dir.path(), &options);
    let client = client(&casd);
    let blobs: Vec<_> = (0..12u8).map(|byte| vec![byte; 1_000_000]).collect();
    for blob in &blobs {
        client.put(blob).expect("taken");
    }
    let digests: Vec<_> = blobs.iter().map(|blob| digest_of(blob)).collect();
    assert!(
        crate::process::wait_until(std::time::Duration::from_secs(20), || {
            client.missing(&digests).expect("asked").contains(&digests[0])
        }),
        "the first blob is still there"
    );
    assert!(!client.missing(&digests).expect("asked").contains(&digests[11]));
}
