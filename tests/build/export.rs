//! Exports that are killed or refused in the middle: a directory of an artifact is whole, or it is not there.

use crate::{project::*, strace::with_fault};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Calls with which an artifact is written, with an error that a full disk gives for them.
const CALLS: &[(&str, &str)] = &[
    ("openat", "EMFILE"),
    ("mkdir", "ENOSPC"),
    ("write", "ENOSPC"),
    ("copy_file_range", "ENOSPC"),
    ("sendfile", "ENOSPC"),
    ("ftruncate", "ENOSPC"),
    ("renameat2", "ENOSPC"),
    ("rename", "ENOSPC"),
    ("chmod", "EROFS"),
    ("unlinkat", "EIO"),
    ("flock", "ENOLCK"),
];

/// The files of an exported artifact but the record, which has the time of its build.
fn exported(dir: &Path) -> Option<BTreeMap<PathBuf, Vec<u8>>> {
    if !dir.exists() {
        return None;
    }
    // The sums are compared with the files by the program that users have for it.
    good(
        std::process::Command::new("sha256sum")
            .args(["--check", "--quiet", "SHA256SUMS"])
            .current_dir(dir),
    );
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.expect("readable");
        if entry.file_name() != "build-record.json" {
            files.insert(
                entry.path().strip_prefix(dir).expect("below").to_owned(),
                fs::read(entry.path()).expect("readable"),
            );
        }
    }
    Some(files)
}

/// Tries a fault at each of the calls, and checks the directory after it and after the next export. Returns the number of faults.
fn break_exports(calls: &[(&str, &str)]) -> usize {
    let whole = exported(artifact()).expect("built");
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let tools = tree_of("check-tools");
    let target = dir.path().join("kernel-initrd/amd64");
    let mut faults = 0;
    for (call, error) in calls {
        for fault in ["signal=SIGKILL".to_owned(), format!("error={error}")] {
            for at in 1.. {
                let what = format!("{fault} at {call} number {at}");
                // Half of the exports replace an artifact, which is an older one: a file of it is missing.
                let _ = fs::remove_dir_all(&target);
                let old = (at % 2 == 0).then(|| {
                    good(
                        build(repository(), &store())
                            .args(["--variant", "kernel-initrd", "--output"])
                            .arg(dir.path()),
                    );
                    let record = target.join("build-record.json");
                    fs::write(&record, "{}").expect("ours");
                    exported(&target).expect("exported")
                });
                let mut command = build(repository(), &store());
                command
                    .args(["--variant", "kernel-initrd", "--output"])
                    .arg(dir.path())
                    .current_dir(repository());
                let (output, injected) = with_fault(&tools, &command, call, &fault, at);
                if injected.is_none() {
                    assert!(output.status.success(), "{what}: {}", text(&output));
                    break;
                }
                faults += 1;
                match exported(&target) {
                    None => assert!(old.is_none(), "{what}: the old artifact is gone"),
                    Some(files) => assert!(files == whole, "{what}: {:?}", files.keys()),
                }
                good(
                    build(repository(), &store())
                        .args(["--variant", "kernel-initrd", "--output"])
                        .arg(dir.path()),
                );
                assert!(
                    exported(&target).as_ref() == Some(&whole),
                    "{what}: the next export differs"
                );
                let parent = target.parent().expect("a directory");
                let left = walkdir::WalkDir::new(parent).max_depth(1).min_depth(1).into_iter();
                let left: Vec<PathBuf> = left.map(|entry| entry.expect("readable").into_path()).collect();
                assert_eq!(left, std::slice::from_ref(&target), "{what}: directories are left");
            }
        }
    }
    faults
}

#[test]
fn an_export_that_is_killed_or_refused_where_it_gets_its_name_leaves_the_old_artifact_or_the_new_one() {
    assert!(break_exports(&[("renameat2", "ENOSPC")]) >= 2);
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: some hundred exports; cargo test -- --ignored nightly::"]
    fn an_export_that_is_killed_or_refused_at_any_call_leaves_the_old_artifact_or_the_new_one() {
        let faults = break_exports(CALLS);
        assert!(faults > 40, "only {faults} faults");
    }
}
