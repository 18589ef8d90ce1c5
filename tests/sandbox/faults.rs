//! Hosts that lack a layer, and callers that are killed.

use crate::host::*;
use pnb::{model::Hint, sandbox::*};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Runs the smallest stage on a thread, and so in a helper, for which `call` fails with `errno`.
fn on_a_host_without(
    call: i64,
    rules: Vec<SeccompRule>,
    errno: i32,
    strict: bool,
) -> Result<StageOutcome, SandboxError> {
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let rules = [(call, rules)].into();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("compiles");
    thread::spawn(move || {
        seccompiler::apply_filter(&program).expect("installs");
        let host = Host::new();
        run_into(&host.shell("true"), strict, &mut Vec::new()).0
    })
    .join()
    .expect("ends")
}

#[test]
fn without_landlock_a_hermetic_run_is_refused_and_another_says_so() {
    let text = on_a_host_without(libc::SYS_landlock_create_ruleset, vec![], libc::ENOSYS, true)
        .expect_err("refused")
        .to_string();
    assert!(text.contains("hermetically: Landlock is not available"), "{text}");
    let outcome =
        on_a_host_without(libc::SYS_landlock_create_ruleset, vec![], libc::ENOSYS, false).expect("a warning only");
    assert_eq!(outcome.weaker.len(), 1, "{:?}", outcome.weaker);
    assert!(
        outcome.measured.landlock_leaks,
        "measured, not believed: what Landlock would forbid can be opened"
    );
    on_a_host_without(libc::SYS_uselib, vec![], libc::ENOSYS, true)
        .expect("control: another missing call does no harm");
}

#[test]
fn without_overlays_a_hermetic_run_is_refused_and_another_says_so() {
    // Of all file systems that the sandbox makes, only overlays are mounted with these attributes: read-only, nosuid, nodev.
    let attributes = |value| {
        let condition =
            SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value).expect("a condition");
        vec![SeccompRule::new(vec![condition]).expect("a rule")]
    };
    let text = on_a_host_without(libc::SYS_fsmount, attributes(7), libc::ENODEV, true)
        .expect_err("refused")
        .to_string();
    let shared = "inputs have inodes of the host (/etc, /usr), because the kernel makes no overlay";
    assert!(text.contains(shared), "{text}");
    let outcome = on_a_host_without(libc::SYS_fsmount, attributes(7), libc::ENODEV, false).expect("a warning only");
    assert!(
        outcome.weaker.iter().all(|w| w.contains(shared)),
        "{:?}",
        outcome.weaker
    );
    assert_eq!(outcome.weaker.len(), 1);
    assert_eq!(outcome.measured.shared_inputs, ["/etc", "/usr"]);
    let whole = on_a_host_without(libc::SYS_fsmount, attributes(99), libc::ENODEV, true).expect("control");
    assert_eq!(whole.measured.shared_inputs, Vec::<String>::new());
}

#[test]
fn without_user_namespaces_there_is_one_clear_error() {
    let flag = libc::CLONE_NEWUSER as u64;
    let condition =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag).expect("a condition");
    let rules = vec![SeccompRule::new(vec![condition]).expect("a rule")];
    for strict in [true, false] {
        let error = on_a_host_without(libc::SYS_clone, rules.clone(), libc::EPERM, strict).expect_err("refused");
        let (text, hint) = (error.to_string(), error.hint().unwrap_or_default());
        assert!(
            text.contains("no user namespace on this host") && hint.starts_with("allow user namespaces"),
            "{text}, {hint}"
        );
    }
}

/// What the sleeping processes of this caller are told apart by.
fn mark(caller: u32) -> String {
    format!("8765.{caller}")
}

/// The caller that the next test kills; left alone, it meets the limit of its stage.
#[test]
#[ignore = "long: it waits ten seconds for a limit, and a_killed_caller_leaves_nothing runs it; cargo test -- --include-ignored"]
fn a_caller_that_waits() {
    struct Print;
    impl LogSink for Print {
        fn output(&mut self, bytes: &[u8]) -> std::io::Result<std::ops::ControlFlow<()>> {
            print!("{}", String::from_utf8_lossy(bytes));
            Ok(std::ops::ControlFlow::Continue(()))
        }
    }
    let host = Host::new();
    let mark = mark(std::process::id());
    let mut spec = host.shell(&format!("echo; echo up; (setsid sleep {mark} &) ; sleep {mark}"));
    spec.limits.wall = Duration::from_secs(10);
    let text = run_into(&spec, true, &mut Print).0.expect_err("ended").to_string();
    assert!(text.contains("wall time of 10s"), "{text}");
}

#[test]
fn a_killed_caller_leaves_nothing() {
    // Groups of builders that are gone. A run sweeps the groups beside its own; others' lie where they were before, too.
    let script = "for d in $(find /sys/fs/cgroup -maxdepth 6 -type d -name 'pnb-*' 2>/dev/null); do n=${d##*pnb-}; [ -d /proc/${n%%-*} ] || echo $d; done";
    let left = || -> BTreeSet<String> {
        let text = outside(&["/bin/sh", "-c", script], Path::new("/"));
        text.lines().map(str::to_owned).collect()
    };
    let before = left();
    let mut caller = Command::new(std::env::current_exe().expect("own path"))
        .args(["--ignored", "--exact", "faults::a_caller_that_waits", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    // Other tests run at the same time: what counts is this stage's sleep.
    let sleeps = mark(caller.id());
    let list = || processes().iter().filter(|p| p.contains(&sleeps)).count();
    let out = BufReader::new(caller.stdout.take().expect("piped"));
    assert!(
        out.lines().map_while(Result::ok).any(|l| l == "up"),
        "the stage started"
    );
    thread::sleep(Duration::from_millis(200));
    assert!(list() >= 2, "control: its processes are seen");
    caller.kill().expect("killed");
    let pid = caller.id();
    caller.wait().expect("gone");
    let begin = Instant::now();
    while list() > 0 && begin.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(list(), 0, "processes are left of caller {pid}");
    // A next run sweeps the control groups that the killed helper could not remove, once the kernel has let go of them.
    let mut groups = None;
    while groups.as_ref().is_none_or(|g: &BTreeSet<_>| !g.is_empty()) && begin.elapsed() < Duration::from_secs(10) {
        printed(&Host::new().shell("true"));
        groups = Some(left().difference(&before).cloned().collect());
    }
    assert_eq!(groups, Some(BTreeSet::new()), "control groups are left");
}

#[test]
fn a_stage_that_fails_on_disk_with_a_root_of_its_own_is_said_to_have_failed() {
    let host = Host::new();
    let dir = scratch();
    let mut spec = host.shell("exit 3");
    spec.dev_in.push(rel("inner"));
    spec.build_dir = BuildDir::Disk(dir.path().to_owned());
    let message = refused(&spec);
    assert!(message.contains("exit code 3"), "{message}");
    fs::remove_dir(dir.path()).expect("empty, for nothing is left");
}
