//! Stores on disks that are full or read-only, and objects and records that are not whole.

use crate::{
    invariants::{Subject, is_told, whole_objects},
    project::text,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a script in a mount namespace of its own; for an ordinary user in a user namespace too, in which that user may mount.
fn in_own_mounts(script: &str, subject: &Subject) -> std::process::Output {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.args(["--mount", "sh"]);
    in_shell(command, script, subject)
}

/// Runs a script with the shell that `command` starts, in the project.
fn in_shell(mut command: Command, script: &str, subject: &Subject) -> std::process::Output {
    command.args(["-c", script]);
    let pnb = subject.build();
    command.current_dir(pnb.get_current_dir().expect("set"));
    command
        .env("PNB_STORE", subject.store())
        .env("PNB", env!("CARGO_BIN_EXE_pnb"));
    for name in ["ARCH", "VARIANT", "PNB_MIRROR", "PNB_PROJECT"] {
        command.env_remove(name);
    }
    command.output().expect("unshare starts")
}

#[test]
#[ignore = "needs-host: root, to build on a small file system; cargo test -- --include-ignored"]
fn a_full_disk_is_an_error_and_room_makes_the_same_outputs() {
    let subject = Subject::new();
    let (mut full, mut whole) = (0, 0);
    // From a disk that has no room for the store's directories to one that has enough; a page is the unit.
    for pages in (1..120).step_by(3) {
        fs::create_dir(subject.store()).expect("made");
        let script = format!(
            "mount -t tmpfs -o size={}k none \"$PNB_STORE\" || exit 99
             \"$PNB\" build --stage agent --offline; code=$?
             mount -o remount,size=64m \"$PNB_STORE\" || exit 99
             cp -a \"$PNB_STORE\" \"$PNB_STORE.copy\"; exit $code",
            pages * 4
        );
        let output = in_own_mounts(&script, &subject);
        let what = format!("a store of {pages} pages");
        let copy = PathBuf::from(format!("{}.copy", subject.store().display()));
        subject.remove_store();
        fs::rename(&copy, subject.store()).expect("copied");
        assert_ne!(output.status.code(), Some(99), "{}", text(&output));
        if output.status.success() {
            whole += 1;
        } else {
            full += 1;
            is_told(&what, &output, &["No space left on device", "ENOSPC"]);
        }
        subject.holds(&what, &BTreeSet::new());
        subject.remove_store();
    }
    assert!(full > 3 && whole > 3, "{full} full, {whole} whole");
}

#[test]
fn a_read_only_store_is_an_error_that_says_so() {
    let subject = Subject::new();
    let good = subject.build().output().expect("starts");
    assert!(good.status.success(), "{}", text(&good));
    let valid = whole_objects(&subject.store(), "before");
    let script = "mount --bind \"$PNB_STORE\" \"$PNB_STORE\" && mount -o remount,bind,ro \"$PNB_STORE\" || exit 99
                  \"$PNB\" build --stage agent --offline";
    let output = in_own_mounts(script, &subject);
    assert!(!output.status.success(), "{}", text(&output));
    is_told("a read-only store", &output, &["Read-only file system"]);
    assert!(
        text(&output).contains(subject.store().to_str().expect("UTF-8")),
        "{}",
        text(&output)
    );
    subject.holds("a read-only store", &valid);
}

#[test]
fn too_few_descriptors_are_an_error_and_never_half_a_build() {
    let subject = Subject::new();
    let (mut refused, mut whole) = (0, 0);
    for most in (4..64).step_by(4) {
        let script = format!("ulimit -n {most}; exec \"$PNB\" build --stage agent --offline");
        let output = in_shell(Command::new("sh"), &script, &subject);
        let what = format!("{most} descriptors");
        if output.status.success() {
            whole += 1;
        } else if !text(&output).contains("error while loading shared libraries") {
            refused += 1;
            is_told(&what, &output, &["Too many open files", "EMFILE"]);
        }
        subject.holds(&what, &BTreeSet::new());
        subject.remove_store();
    }
    assert!(refused > 1 && whole > 1, "{refused} refused, {whole} whole");
}

#[test]
fn a_truncated_object_or_record_is_found_and_made_again() {
    let subject = Subject::new();
    let good = subject.build().output().expect("starts");
    assert!(good.status.success(), "{}", text(&good));
    let all: Vec<PathBuf> = walkdir::WalkDir::new(subject.store())
        .into_iter()
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.into_path())
        .filter(|path| {
            ["objects", "records"]
                .iter()
                .any(|dir| path.starts_with(subject.store().join(dir)))
        })
        .collect();
    assert!(all.len() > 6, "{all:?}");
    for path in all {
        for part in [0, 1, 2] {
            subject.remove_store();
            let good = subject.build().output().expect("starts");
            assert!(good.status.success(), "{}", text(&good));
            let size = fs::metadata(&path).expect("there again").len();
            let length = usize::try_from([0, size / 2, size.saturating_sub(1)][part]).expect("small");
            cut(&path, length);
            let first = subject.build().output().expect("starts");
            if !first.status.success() {
                let what = format!("{path:?} of {length} bytes");
                is_told(&what, &first, &[path.to_str().expect("UTF-8")]);
                assert!(
                    text(&first).contains("pnb store verify --repair"),
                    "{what}: {}",
                    text(&first)
                );
            }
            let repaired = subject
                .checkout
                .pnb(&["store", "verify", "--repair"])
                .output()
                .expect("starts");
            assert!(
                repaired.status.code().is_some_and(|code| code == 0 || code == 5),
                "{}",
                text(&repaired)
            );
            subject.holds(&format!("{path:?} cut to {length} bytes"), &BTreeSet::new());
        }
    }
}

fn cut(path: &Path, length: usize) {
    use std::os::unix::fs::PermissionsExt;
    let bytes = fs::read(path).expect("readable");
    let mode = fs::metadata(path).expect("there").permissions().mode();
    fs::remove_file(path).expect("removed");
    fs::write(path, &bytes[..length.min(bytes.len())]).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}
