//! A fault at each system call that changes the file system: the process is killed there, or the call fails.

use crate::{
    check_tools::check_tools,
    invariants::{Subject, is_told, whole_objects},
    project::text,
    strace::with_fault,
};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    process::{Command, Output},
};

/// Calls that change the file system, with the errors that a full, failing or exhausted system gives for them.
const CHANGES: &[(&str, &[&str])] = &[
    ("openat", &["EMFILE", "ENOSPC", "EIO"]),
    ("write", &["ENOSPC", "EIO"]),
    ("pwrite64", &["ENOSPC", "EIO"]),
    ("ftruncate", &["ENOSPC"]),
    ("copy_file_range", &["ENOSPC", "EIO"]),
    ("sendfile", &["ENOSPC", "EIO"]),
    ("mkdir", &["ENOSPC", "EMLINK"]),
    ("mkdirat", &["ENOSPC"]),
    ("rename", &["ENOSPC", "EIO"]),
    ("link", &["ENOSPC", "EMLINK"]),
    ("linkat", &["ENOSPC", "EMLINK"]),
    ("symlinkat", &["ENOSPC"]),
    ("unlink", &["EIO", "EROFS"]),
    ("unlinkat", &["EIO"]),
    ("fchmod", &["EROFS"]),
    ("chmod", &["EROFS"]),
    ("utimensat", &["EIO"]),
    ("flock", &["ENOLCK"]),
];
/// Calls that read it.
const READS: &[(&str, &[&str])] = &[
    ("read", &["EIO"]),
    ("pread64", &["EIO"]),
    ("statx", &["EIO"]),
    ("getdents64", &["EIO"]),
];

/// `pnb` without the program that limits its time, so that strace counts the calls of pnb.
fn alone(command: &Command) -> Command {
    let arguments: Vec<&OsStr> = command.get_args().collect();
    let mut direct = Command::new(arguments[1]);
    direct
        .args(&arguments[2..])
        .current_dir(command.get_current_dir().expect("set"));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => direct.env(name, value),
            None => direct.env_remove(name),
        };
    }
    direct
}

/// Tries `fault` at every call, until a run has fewer calls. Returns the number of faults.
fn at_every(subject: &Subject, call: &str, fault: &str, mut check: impl FnMut(&str, &Output, &str)) -> usize {
    let mut faults = 0;
    for at in 1.. {
        subject.remove_store();
        let what = format!("{fault} at {call} number {at}");
        let (output, injected) = with_fault(check_tools(), &alone(&subject.build()), call, fault, at);
        let Some(injected) = injected else {
            assert!(output.status.success(), "{what}: {}", text(&output));
            break;
        };
        faults += 1;
        check(&what, &output, &injected);
        subject.holds(&what, &BTreeSet::new());
    }
    faults
}

#[test]
fn killed_at_any_change_of_the_file_system_nothing_half_written_is_taken() {
    let subject = Subject::new();
    let mut kills = 0;
    for (call, _) in CHANGES {
        kills += at_every(&subject, call, "signal=SIGKILL", |what, output, _| {
            assert!(!output.status.success(), "{what}: {}", text(output));
        });
    }
    // Below this number strace has not injected what the table lists.
    assert!(kills > 60, "only {kills} kills");
}

#[test]
fn a_refused_change_is_an_error_that_names_it_or_does_no_harm() {
    let (refused, told) = refuse(CHANGES);
    assert!(refused > 150 && told > 80, "{refused} refused, {told} of them told");
}

#[test]
fn a_refused_read_is_an_error_that_names_it_or_does_no_harm() {
    let (refused, told) = refuse(READS);
    assert!(refused > 30 && told > 10, "{refused} refused, {told} of them told");
}

/// Refuses each of the calls; returns the number of faults, and that of the runs which ended with an error because of one.
fn refuse(calls: &[(&str, &[&str])]) -> (usize, usize) {
    let subject = Subject::new();
    let (mut refused, mut told) = (0, 0);
    for (call, errors) in calls {
        for error in *errors {
            let cause = cause_of(error);
            refused += at_every(&subject, call, &format!("error={error}"), |what, output, injected| {
                let said = text(output);
                // An error that was to be printed cannot tell that printing failed. Within the stage, strace replaces the call by one that
                // the stage's own filter answers with a signal. Before pnb has begun, the loader tells of the fault.
                let printed = !["write(1,", "write(2,"]
                    .iter()
                    .any(|console| injected.contains(console));
                let elsewhere = ["it ended with signal 31", "error while loading shared libraries"];
                if !output.status.success() && printed && !elsewhere.iter().any(|words| said.contains(words)) {
                    told += 1;
                    is_told(what, output, cause);
                }
            });
        }
    }
    (refused, told)
}

/// The words for an error of the system, those of the C library and its name.
fn cause_of(error: &str) -> &'static [&'static str] {
    match error {
        "EMFILE" => &["Too many open files", "EMFILE"],
        "ENOSPC" => &["No space left on device", "ENOSPC"],
        "EMLINK" => &["Too many links", "EMLINK"],
        "EROFS" => &["Read-only file system", "EROFS"],
        "ENOLCK" => &["No locks available", "ENOLCK"],
        _ => &["Input/output error", "EIO"],
    }
}

#[test]
fn a_fault_in_a_store_with_builds_loses_none_of_them() {
    let subject = Subject::new();
    for (call, fault) in [
        ("rename", "signal=SIGKILL"),
        ("unlink", "signal=SIGKILL"),
        ("write", "signal=SIGKILL"),
        ("rename", "error=ENOSPC"),
        ("write", "error=ENOSPC"),
        ("openat", "error=EMFILE"),
    ] {
        for at in 1.. {
            subject.remove_store();
            let first = subject.build().output().expect("starts");
            assert!(first.status.success(), "{}", text(&first));
            let valid = whole_objects(&subject.store(), "before");
            let what = format!("{fault} at {call} number {at} of a second build");
            // The second build has another agent, and the next one the first agent again.
            let other = alone(&subject.build());
            let agent = subject.checkout.path().join("overlay/etc/motd");
            let before = fs::read(&agent).expect("readable");
            fs::write(&agent, "changed\n").expect("written");
            let (output, injected) = with_fault(check_tools(), &other, call, fault, at);
            fs::write(&agent, before).expect("written");
            if injected.is_none() {
                assert!(output.status.success(), "{what}: {}", text(&output));
                break;
            }
            subject.holds(&what, &valid);
        }
    }
}

#[test]
fn a_collector_or_a_repair_that_cannot_read_removes_nothing_valid() {
    let subject = Subject::new();
    let good = subject.build().output().expect("starts");
    assert!(good.status.success(), "{}", text(&good));
    let mut faults = 0;
    for arguments in [&["store", "gc"][..], &["store", "verify", "--repair"]] {
        // What the command leaves of the store when it can read.
        let kept = || {
            let output = alone(&subject.checkout.pnb(arguments)).output().expect("starts");
            assert!(output.status.success(), "{}", text(&output));
            let records = walkdir::WalkDir::new(subject.store().join("records"))
                .into_iter()
                .count();
            (whole_objects(&subject.store(), "kept"), records)
        };
        let (objects, records) = kept();
        assert!(!objects.is_empty() && records > 1);
        for (call, errors) in CHANGES.iter().chain(READS) {
            for at in 1.. {
                let fault = format!("error={}", errors.last().expect("an error"));
                let what = format!("{fault} at {call} number {at} of {arguments:?}");
                let command = alone(&subject.checkout.pnb(arguments));
                let (_, injected) = with_fault(check_tools(), &command, call, &fault, at);
                if injected.is_none() {
                    break;
                }
                faults += 1;
                assert_eq!(kept(), (objects.clone(), records), "{what}");
            }
        }
        subject.holds("collections", &BTreeSet::new());
    }
    assert!(faults > 60, "only {faults} faults");
}
