//! Two builders at once, and one that is killed.

use crate::project::*;
use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A stage that takes a second or two and needs no other.
const STAGE: [&str; 4] = ["build", "--stage", "initramfs-root", "--json"];

fn start(store: &std::path::Path) -> Child {
    let mut command = pnb(repository(), store);
    command
        .args(STAGE)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

#[test]
fn two_builders_share_the_work_and_agree() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let builders = [start(dir.path()), start(dir.path())];
    let said: Vec<String> = builders
        .into_iter()
        .map(|b| {
            let output = b.wait_with_output().expect("ends");
            assert!(output.status.success(), "{}", text(&output));
            text(&output)
        })
        .collect();
    let finished = said.iter().filter(|s| s.contains("\"event\":\"finished\"")).count();
    assert_eq!(finished, 1, "{said:?}");
    let check = good(pnb(repository(), dir.path()).args(["store", "verify"]));
    assert!(check.contains(" 0 damaged"), "{check}");
}

#[test]
fn a_killed_builder_leaves_nothing_half_done() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    for delay in [50, 300, 900] {
        let mut builder = start(dir.path());
        thread::sleep(Duration::from_millis(delay));
        builder.kill().expect("killed");
        builder.wait().expect("reaped");
    }
    let check = good(pnb(repository(), dir.path()).args(["store", "verify"]));
    assert!(check.contains(" 0 damaged"), "{check}");
    let said = good(pnb(repository(), dir.path()).args(STAGE));
    assert!(
        said.contains("\"event\":\"finished\"") || said.contains("\"event\":\"cached\""),
        "{said}"
    );
    // The next program sweeps what the killed ones left, once their sandboxes are gone too.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        good(pnb(repository(), dir.path()).args(["store", "verify"]));
        let left = entries(&dir.path().join("tmp"));
        if left == 0 {
            break;
        }
        assert!(Instant::now() < end, "{left} scratch directories are left");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(fs::metadata(dir.path().join("objects")).expect("there").is_dir());
}

#[expect(clippy::disallowed_methods, reason = "only counted")]
fn entries(dir: &std::path::Path) -> usize {
    fs::read_dir(dir).expect("listed").count()
}
