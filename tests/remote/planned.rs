//! `pnb plan` beside a cache.

use crate::{
    double::{Executed, RemoteDouble},
    ground::{Built, Ground},
};
use serde_json::Value;

fn plan(ground: &Ground, store: &str, arguments: &[&str]) -> Built {
    let done = ground.built(store, &[&["plan", "--stage", "three"], arguments].concat());
    assert_eq!(done.code, 0, "{}", done.said);
    done
}

/// Every entry: the stage, whether it would run, and where its result would come from.
fn entries(built: &Built) -> Vec<(String, bool, Option<String>)> {
    let values = built
        .said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entries = values.filter(|value| value["node"].is_string());
    entries
        .map(|value| {
            let node = value["node"].as_str().expect("a name").to_owned();
            let source = value["source"].as_str().map(str::to_owned);
            (node, value["run"].as_bool().expect("a truth"), source)
        })
        .collect()
}

#[test]
fn a_plan_asks_the_cache_for_records_and_keeps_nothing() {
    let (ground, double) = (Ground::new(), RemoteDouble::start());
    let url = double.url();
    ground.build_with("full", &url, &[]).well();
    // All of them: the key of each follows from the record before.
    let before = double.kept().calls.len();
    let told = entries(&plan(&ground, "empty", &["--json", "--remote-cache", &url]));
    let all = ["agent/amd64", "one/amd64", "two/amd64", "three/amd64"];
    let mut names: Vec<&str> = told.iter().map(|(node, ..)| node.as_str()).collect();
    names.sort_by_key(|name| all.iter().position(|known| known == name));
    assert_eq!(names, all);
    assert!(
        told.iter()
            .all(|(_, run, source)| !run && source.as_deref() == Some(&url)),
        "{told:?}"
    );
    // A record for each, and nothing else is read or written, here or there.
    let calls: Vec<String> = double.kept().calls[before..].to_vec();
    let count = |call: &str| calls.iter().filter(|line| line.split(' ').next() == Some(call)).count();
    assert_eq!(count("GetActionResult"), 4, "{calls:?}");
    let reads: Vec<&String> = calls.iter().filter(|line| line.contains("Read")).collect();
    assert_eq!(reads, ["BatchReadBlobs 1"; 4].iter().collect::<Vec<_>>(), "{calls:?}");
    assert_eq!(
        calls
            .iter()
            .filter(|line| line.contains("Update") || line.contains("Write"))
            .count(),
        0
    );
    let records = walkdir::WalkDir::new(ground.store("empty").join("records")).into_iter();
    let records = records
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file());
    assert_eq!(records.count(), 0);
    assert!(
        entries(&plan(&ground, "empty", &["--json"]))
            .iter()
            .all(|(_, run, source)| *run && source.is_none())
    );
    // What has changed runs, and what waits for it; the store comes first.
    ground.word("another");
    let told = plan(&ground, "empty", &["--remote-cache", &url]);
    for line in [
        &format!("shared  one/amd64                from the cache {url}\n"),
        "run     two/amd64                it was never built\n",
        &format!("2 of 4 stages would run; 2 from {url}\n"),
        &format!("pnb build --stage three --remote-cache {url}"),
    ] {
        assert!(
            told.said.contains(line.trim_end_matches('\n')),
            "{line:?} is not in\n{}",
            told.said
        );
    }
    let full = entries(&plan(&ground, "full", &["--json", "--remote-cache", &url]));
    assert!(full.iter().all(|(_, _, source)| source.is_none()), "{full:?}");
    // One that takes nothing from a cache has nothing planned from it.
    let none = entries(&plan(
        &ground,
        "empty",
        &["--json", "--remote-cache", &url, "--remote-no-accept"],
    ));
    assert!(none.iter().all(|(_, run, _)| *run), "{none:?}");
}

#[test]
fn a_plan_goes_on_without_a_cache_that_lies_or_is_gone() {
    let (ground, double) = (Ground::new(), RemoteDouble::start());
    let url = double.url();
    ground.build_with("full", &url, &[]).well();
    let records: Vec<String> = {
        let kept = double.kept();
        let blobs = kept.blobs.iter();
        // The digest of the second line, and that line.
        let records = blobs.filter(|(_, bytes)| bytes.get(64..66) == Some(b"\n{"));
        records.map(|(name, _)| name.clone()).collect()
    };
    assert!(records.len() >= 4, "{records:?}");
    double.kept().faults.wrong_bytes.extend(records);
    let told = plan(&ground, "empty", &["--remote-cache", &url]);
    assert_eq!(told.warnings().len(), 1, "{}", told.said);
    assert!(told.said.contains("4 of 4 stages would run\n"), "{}", told.said);
    drop(double);
    let told = plan(&ground, "empty", &["--remote-cache", &url]);
    assert_eq!(told.warnings().len(), 1, "{}", told.said);
    let required = ground.built(
        "empty",
        &["plan", "--stage", "three", "--remote-cache", &url, "--remote-required"],
    );
    assert_eq!(required.code, 4, "{}", required.said);
}

#[test]
fn a_plan_goes_on_without_an_engine_that_is_gone() {
    let (ground, double) = (Ground::new(), RemoteDouble::with_worker(|_, _| Executed::Queued));
    let url = double.url();
    let there = plan(&ground, "empty", &["--remote", &url]);
    assert_eq!(
        (there.warnings().len(), double.called("Execute")),
        (0, 0),
        "{}",
        there.said
    );
    drop(double);
    let gone = plan(&ground, "empty", &["--remote", &url]);
    let said = gone.warnings();
    assert_eq!(said.len(), 1, "{}", gone.said);
    assert!(
        said[0].starts_with("failed to reach the remote cache ADDRESS")
            && said[0].ends_with("; the build goes on without it"),
        "{said:?}"
    );
    assert!(gone.said.contains("4 of 4 stages would run\n"), "{}", gone.said);
    assert!(
        gone.said.contains(&format!("pnb build --stage three --remote {url}")),
        "{}",
        gone.said
    );
    let line = ["plan", "--stage", "three", "--remote", &url, "--remote-required"];
    let required = ground.built("empty", &line);
    assert_eq!(required.code, 4, "{}", required.said);
}
