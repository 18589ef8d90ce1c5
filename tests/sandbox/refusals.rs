//! A program that goes on without a system call that was refused: an error, or declared.

use crate::host::*;
use libc::*;
use pnb::{
    model::{CallGroup, Hint},
    sandbox::*,
};

/// A Perl program that makes one system call and goes on whatever comes of it.
fn calling(arguments: &str) -> String {
    format!("sub c {{my $x=shift;$x}} syscall({arguments}); print 'on'")
}

fn judged(mut spec: Spec, declared: &[(&str, CallGroup)]) -> Spec {
    let mut refused = DeclaredRefusals::new();
    for (program, group) in declared {
        refused.entry((*program).to_owned()).or_default().insert(*group);
    }
    spec.refused = Some(refused);
    spec
}

/// The message and the hint of a run that must fail because of refusals.
fn undeclared(spec: &Spec) -> (String, String) {
    let (outcome, log) = run(spec);
    let error = outcome.map(|o| o.measured).expect_err(&log);
    let hint = error.hint().map(|hint| hint.into_owned()).unwrap_or_default();
    (error.to_string(), hint)
}

/// One call of each group, and how the message shows it.
fn one_of_each() -> Vec<(CallGroup, String, &'static str)> {
    use CallGroup::*;
    vec![
        (Chroot, format!("{SYS_chroot}, c(\"/tmp\\0\")"), "chroot(\"/tmp\")"),
        (Clock, format!("{SYS_settimeofday}, 0, 0"), "settimeofday()"),
        (
            Device,
            format!("{SYS_mknodat}, -100, c(\"n\\0\"), 8612, 259"),
            "mknodat(\"n\", 0o20644)",
        ),
        (
            FileAttribute,
            format!("{SYS_setxattr}, c(\"/tmp\\0\"), c(\"security.capability\\0\"), c(\"x\"), 1, 0"),
            "setxattr(\"/tmp\", \"security.capability\")",
        ),
        (FileFlag, format!("{SYS_ioctl}, 0, 0x40086602, 0"), "ioctl(0x40086602)"),
        (HostName, format!("{SYS_sethostname}, c(\"x\"), 1"), "sethostname()"),
        (Kernel, format!("{SYS_swapon}, c(\"/swap\\0\"), 0"), "swapon(\"/swap\")"),
        (Keyring, format!("{SYS_keyctl}, 0, -3, 0"), "keyctl(0)"),
        (
            Mount,
            format!("{SYS_mount}, c(\"none\\0\"), c(\"/tmp\\0\"), c(\"tmpfs\\0\"), 0, 0"),
            "mount(\"none\", \"/tmp\", \"tmpfs\")",
        ),
        (Namespace, format!("{SYS_unshare}, 0x10000000"), "unshare(0x10000000)"),
        (Network, format!("{SYS_socket}, 2, 1, 0"), "socket(2, 1, 0)"),
        (
            Owner,
            format!("{SYS_fchownat}, -100, c(\"f\\0\"), 70000, -1, 0"),
            "fchownat(\"f\", 70000, -1)",
        ),
        (
            Personality,
            format!("{SYS_personality}, 0x0400000"),
            "personality(0x400000)",
        ),
        (Process, format!("{SYS_ptrace}, 0, 0, 0, 0"), "ptrace(0)"),
        (SystemVIpc, format!("{SYS_shmget}, 0, 4096, 384"), "shmget()"),
        (Terminal, format!("{SYS_ioctl}, 0, 0x5412, 0"), "ioctl(0x5412)"),
        (Watch, format!("{SYS_inotify_init1}, 0"), "inotify_init1()"),
    ]
}

#[test]
fn a_refusal_that_a_program_ignores_is_an_error_unless_it_is_declared() {
    let host = Host::new();
    let cases = one_of_each();
    let groups: Vec<CallGroup> = cases.iter().map(|(group, ..)| *group).collect();
    assert_eq!(groups, CallGroup::ALL, "each group has a case");
    for (group, arguments, shown) in cases {
        let script = calling(&arguments);
        let spec = host.perl(&script);
        let (text, hint) = undeclared(&judged(spec.clone(), &[]));
        assert_eq!(
            text,
            format!(
                "run stage test: it ended well although the sandbox refused system calls:\n  {shown} to perl: /usr/bin/perl -e {script}"
            )
        );
        assert_eq!(
            hint,
            format!(
                "on a machine these calls work, and the outputs may be others; if they are right without them, declare that in the stage's \
                 stage.toml, below [sandbox]: refused = {{ perl = [\"{group}\"] }}"
            )
        );
        // Another program's declaration, or another group's, does not count.
        let other = CallGroup::ALL.iter().copied().find(|g| *g != group).expect("several");
        assert_eq!(
            undeclared(&judged(spec.clone(), &[("sh", group), ("perl", other)])).0,
            text
        );
        for declared in [Some(("perl", group)), Some(("*", group)), None] {
            let spec = match declared {
                Some(declared) => judged(spec.clone(), &[declared]),
                None => spec.clone(),
            };
            let (outcome, log) = run(&spec);
            let found = outcome
                .unwrap_or_else(|e| panic!("{group}: {e}\n{log}"))
                .measured
                .refused;
            assert_eq!(log, "on");
            let [refusal] = &found.list[..] else {
                panic!("{group}: {found:?}")
            };
            assert_eq!(
                (refusal.group, refusal.count, refusal.program.as_str()),
                (group, 1, "perl")
            );
        }
    }
}

/// What is refused in an ordinary kernel's words, or answered, is no refusal.
#[test]
fn calls_that_change_no_output_are_not_reported() {
    let host = Host::new();
    let mode_only = "pack('L(SSL)3', 2, 1, 6, -1, 4, 4, -1, 32, 4, -1)";
    let named = "pack('L(SSL)5', 2, 1, 6, -1, 2, 6, 7, 4, 4, -1, 16, 6, -1, 32, 4, -1)";
    let list = |value: &str| {
        let size = if value == named { 44 } else { 28 };
        format!("{SYS_setxattr}, c(\"/tmp\\0\"), c(\"system.posix_acl_access\\0\"), c({value}), {size}, 0")
    };
    for (name, arguments, reported) in [
        ("clone3", format!("{SYS_clone3}, 0, 0"), false),
        ("io_uring_setup", format!("{SYS_io_uring_setup}, 1, 0"), false),
        ("fsync", format!("{SYS_fsync}, 0"), false),
        ("FS_IOC_FIEMAP", format!("{SYS_ioctl}, 0, 0xc020660b, 0"), false),
        ("a call of the future", "467, -1, 0, 0, 0, 0".to_owned(), false),
        ("the audit log", format!("{SYS_socket}, 16, 3, 9"), false),
        ("netlink", format!("{SYS_socket}, 16, 3, 0"), true),
        ("a fifo", format!("{SYS_mknodat}, -100, c(\"f\\0\"), 4516, 0"), false),
        (
            "the owner that it has",
            format!("{SYS_fchownat}, -100, c(\"/tmp\\0\"), -1, -1, 0"),
            false,
        ),
        ("a list that is a mode", list(mode_only), false),
        ("a list with a name", list(named), true),
        ("sysinfo", format!("{SYS_sysinfo}, 0"), false),
    ] {
        let (outcome, log) = run(&judged(host.perl(&calling(&arguments)), &[]));
        assert_eq!(
            outcome.is_err(),
            reported,
            "{name}: {:?}\n{log}",
            outcome.map(|o| o.measured.refused)
        );
        assert_eq!(log, "on", "{name}");
    }
}

#[test]
fn a_shell_script_that_says_or_true_is_found_out() {
    let host = Host::new();
    let script = "mknod null c 1 3 || true; mknod zero c 1 5 || :; mkdir out; echo x >out/a";
    let mut spec = judged(host.shell(script), &[]);
    spec.outputs.push(output("out", OutputKind::Tree));
    let (text, _) = undeclared(&spec);
    assert!(
        text.ends_with("system calls:\n  mknodat(\"null\", 0o20666) to mknod, 2 times: mknod null c 1 3"),
        "{text}"
    );
    let spec = judged(spec, &[("mknod", CallGroup::Device)]);
    let policy = serde_json::to_value(spec.policy()).expect("serializes");
    assert_eq!(policy["refused"], serde_json::json!({ "mknod": ["device"] }));
    let outcome = run(&spec).0.unwrap_or_else(|e| panic!("failed to {e}"));
    assert!(outcome.outputs.contains_key("out"));
    assert_eq!(outcome.measured.refused.list[0].count, 2);
}

#[test]
fn a_stage_that_fails_says_what_was_refused_before() {
    let host = Host::new();
    let script = format!("{}; exit 3", calling(&format!("{SYS_swapon}, c(\"/swap\\0\"), 0")));
    let (text, hint) = undeclared(&judged(host.perl(&script), &[]));
    assert_eq!(text, "run stage test: exit code 3");
    let cause = "the cause may be that the sandbox refused it system calls:\n  swapon(\"/swap\") to perl: ";
    assert!(hint.starts_with(cause), "{hint}");
    let declared = judged(host.perl(&script), &[("perl", CallGroup::Kernel)]);
    assert_eq!(
        undeclared(&declared),
        ("run stage test: exit code 3".to_owned(), String::new())
    );
}

/// A stage can change its name and call as often as it likes: the list stays short, and nothing is hidden by it.
#[test]
fn the_list_of_refusals_is_bounded_and_hides_nothing() {
    let host = Host::new();
    let script = format!(
        "for my $n (1..90) {{ $0 = \"p$n\"; syscall({SYS_setns}, -1, 0) for 1..20 }} for (1..5000) {{ syscall({SYS_setns}, -1, 0) }}"
    );
    let (text, _) = undeclared(&judged(host.perl(&script), &[("p1", CallGroup::Namespace)]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 64 + 1, "{text}");
    assert_eq!(lines[1], "  setns() to p2, 20 times: p2");
    assert_eq!(
        lines[65],
        format!("  and {} of other programs or calls", 25 * 20 + 5000)
    );
}

#[test]
fn however_many_declared_refusals_are_no_error() {
    let host = Host::new();
    let script = format!("for my $n (1..90) {{ $0 = \"p$n\"; syscall({SYS_setns}, -1, 0) for 1..20 }} print 'on'");
    let (outcome, log) = run(&judged(host.perl(&script), &[("*", CallGroup::Namespace)]));
    let refused = outcome
        .unwrap_or_else(|e| panic!("failed to {e}: {log}"))
        .measured
        .refused;
    assert_eq!((refused.list.len(), refused.further), (64, 0));
    assert_eq!(refused.further_declared, [(CallGroup::Namespace, 26 * 20)].into());
}

#[test]
fn the_build_directory_of_a_stage_that_ignores_refusals_is_kept() {
    let host = Host::new();
    let base = scratch();
    for (declared, kept) in [(&[][..], true), (&[("mknod", CallGroup::Device)][..], false)] {
        let dir = pnb::store::build_directory(base.path(), "stage-").expect("made");
        let mut spec = judged(host.shell("mknod null c 1 3 || true; echo x >left"), declared);
        spec.build_dir = BuildDir::Disk(dir.clone());
        spec.keep_failed = true;
        assert_eq!(run(&spec).0.is_err(), kept);
        assert_eq!(dir.join("left").exists(), kept);
    }
}

/// A call that one row answers with success and another with an error: the limit for core dumps of another process.
#[test]
fn the_limits_of_another_process_are_refused_and_told() {
    let host = Host::new();
    let script = format!(
        "my $z = pack 'QQ', 0, 0; for my $p (0, 1, 1) {{ print syscall({SYS_prlimit64}, $p, {RLIMIT_CORE}, $z, 0), ' ' }}"
    );
    let (outcome, log) = run(&judged(host.perl(&script), &[("perl", CallGroup::Process)]));
    let refused = outcome
        .unwrap_or_else(|e| panic!("failed to {e}: {log}"))
        .measured
        .refused;
    assert_eq!(log, "0 -1 -1 ");
    assert_eq!((refused.list[0].call.as_str(), refused.list[0].count), ("prlimit64", 2));
}

/// The call of a thread is that of its process, whatever the thread calls itself; and a caller that is killed while pid 1 looks at it is no
/// fault of the sandbox.
#[test]
fn callers_that_end_while_they_wait_are_no_fault() {
    let host = Host::new();
    let script = format!(
        "for (1..40) {{ my $p = fork; if (!$p) {{ syscall({SYS_setns}, -1, 0) while 1 }} select(undef, undef, undef, 0.01); kill 9, $p; waitpid $p, 0 }} print 'on'"
    );
    let spec = judged(host.perl(&script), &[("perl", CallGroup::Namespace)]);
    let (outcome, log) = run(&spec);
    let found = outcome
        .unwrap_or_else(|e| panic!("failed to {e}\n{log}"))
        .measured
        .refused;
    assert!(
        log == "on" && found.list.iter().all(|r| r.program == "perl"),
        "{found:?}"
    );
    assert!(found.list[0].count > 40, "{found:?}");
}
