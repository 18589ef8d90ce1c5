//! Stages that behave.

use crate::host::*;
use pnb::{model::Capability, sandbox::*};
use std::{fs, io, ops::ControlFlow, os::unix::fs::PermissionsExt, path::Path, time::Duration};

#[test]
fn a_stage_sees_what_was_declared_and_nothing_of_the_host() {
    let host = Host::new();
    let file = host.dir.path().join("etc/input");
    fs::write(&file, "hello\n").expect("written");
    let mut spec = host.shell("id -u; id -g; id -G; hostname; nproc; umask; pwd; cat /inputs/x; ls /; env | sort");
    spec.mounts.push(input(&file, "x", Access::ReadOnly));
    spec.env.insert("PNB_STAGE".into(), "test".into());
    let expected = "0\n0\n0\npnb\n1\n0022\n/build\nhello\nbin\nbuild\ndev\netc\ninputs\nlib\nlib64\nproc\nsbin\ntmp\nusr\n\
        HOME=/homeless\nLANG=C.UTF-8\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nPNB_STAGE=test\nPWD=/build\n\
        SOURCE_DATE_EPOCH=1750000000\nTZ=UTC\n";
    assert_eq!(printed(&spec), expected);
}

#[test]
fn a_file_given_to_be_written_is_written_by_whoever_owns_it() {
    let host = Host::new();
    let dir = scratch();
    let (given, other) = (dir.path().join("given"), dir.path().join("other"));
    for path in [&given, &other] {
        fs::write(path, "before\n").expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
    }
    let mut spec = host.shell("echo after >/inputs/given; (echo after >/inputs/other) 2>/dev/null || echo refused");
    spec.mounts.push(input(&given, "given", Access::ReadWrite));
    spec.mounts.push(input(&other, "other", Access::ReadOnly));
    assert_eq!(printed(&spec), "refused\n");
    assert_eq!(fs::read_to_string(&given).expect("there"), "after\n");
    assert_eq!(fs::read_to_string(&other).expect("there"), "before\n");
}

#[test]
fn every_layer_is_measured_from_inside() {
    let host = Host::new();
    let (outcome, _) = run(&host.shell("true"));
    let outcome = outcome.expect("ends well");
    let found = &outcome.measured;
    assert_eq!(outcome.weaker, Vec::<String>::new());
    assert_eq!(found.namespaces, ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]);
    assert!(found.no_new_privs && !found.landlock_leaks, "{found:?}");
    assert_eq!(found.shared_inputs, Vec::<String>::new());
    assert_eq!((found.seccomp_mode, found.landlock.as_str()), (2, "fully enforced"));
    assert_eq!(
        (
            found.capabilities_bounding.as_str(),
            found.capabilities_effective.as_str()
        ),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!(
        (found.network.as_slice(), found.leaked_descriptors.as_slice()),
        (["lo".to_owned()].as_slice(), [].as_slice())
    );
    let mut writable = found.writable.clone();
    writable.sort();
    assert_eq!(writable, ["/build", "/tmp"]);
}

#[test]
fn a_range_of_ids_and_capabilities_serve_maintainer_scripts() {
    let host = Host::new();
    let mut spec = host.shell("cat /proc/self/uid_map 2>/dev/null; mkdir out && touch out/a && chown 7:65535 out/a && chmod 4755 out/a && stat -c '%u %g %a' out/a");
    spec.ids = Ids::Range;
    spec.capabilities = [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
    ]
    .into();
    let mut declared = output("out", OutputKind::Tree);
    declared.allow_setid = true;
    spec.outputs.push(declared);
    let (outcome, log) = run(&spec);
    let outcome = outcome.unwrap_or_else(|e| panic!("failed to {e}\n{log}"));
    assert_eq!(log, "7 65535 4755\n");
    let Some(Collected::Tree(tree)) = outcome.outputs.get("out") else {
        panic!("{outcome:?}")
    };
    let meta = &tree.get(&rel("a")).expect("collected").meta;
    assert_eq!(
        (meta.uid, meta.gid, meta.mode, meta.mtime),
        (7, 65_535, 0o4755, spec.epoch)
    );
    assert_eq!(outcome.measured.uid_map, "0 0 1 1 1 65535");
}

#[test]
fn a_root_inside_the_build_directory_gets_its_devices() {
    let host = Host::new();
    let mut spec = host.shell("ls root/dev; echo x > root/dev/null && head -c 3 root/dev/zero | od -An -tx1; touch root/a; chroot / true && echo chroot");
    spec.dev_in.push(rel("root"));
    spec.ids = Ids::Range;
    spec.capabilities = [Capability::SysChroot].into();
    spec.outputs.push(output("root", OutputKind::Tree));
    let (outcome, log) = run(&spec);
    let outcome = outcome.unwrap_or_else(|e| panic!("failed to {e}\n{log}"));
    assert_eq!(log, "full\nnull\nrandom\nurandom\nzero\n 00 00 00\nchroot\n");
    let Some(Collected::Tree(tree)) = outcome.outputs.get("out") else {
        panic!("{outcome:?}")
    };
    let names: Vec<String> = tree.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(names, ["a", "dev"], "the mounted nodes are no part of the output");
}

#[test]
fn the_watcher_ends_a_stage_when_it_has_seen_enough() {
    struct UntilReady(String);
    impl LogSink for UntilReady {
        fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
            self.0.push_str(&String::from_utf8_lossy(bytes));
            Ok(if self.0.contains("ready") {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        }
    }
    let host = Host::new();
    let mut watch = UntilReady(String::new());
    let (outcome, _) = run_into(&host.shell("echo booting; echo ready; sleep 25"), true, &mut watch);
    let outcome = outcome.expect("ends well");
    assert!(outcome.stopped && outcome.wall < Duration::from_secs(10), "{outcome:?}");
}

#[test]
fn a_built_in_runs_in_the_same_sandbox() {
    let host = Host::new();
    let mut spec = host.shell("");
    spec.root = RootFs::Empty;
    spec.mounts.clear();
    spec.workload = Workload::builtin("nothing", Vec::new());
    let (outcome, log) = run(&spec);
    let found = outcome.unwrap_or_else(|e| panic!("failed to {e}\n{log}")).measured;
    assert_eq!((found.seccomp_mode, found.landlock.as_str()), (2, "fully enforced"));
    spec.workload = Workload::builtin("unheard-of", Vec::new());
    assert!(refused(&spec).contains("there is no built-in \"unheard-of\""));
}

#[test]
fn a_built_in_runs_before_a_command() {
    let host = Host::new();
    let preceded = |name: &str, argv: &[&str]| {
        let mut spec = host.shell("");
        let (name, args) = (name.to_owned(), Vec::new());
        spec.workload = Workload::Command {
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            before: Some(BuiltinCall { name, args }),
        };
        spec
    };
    let prepared = |name: &str| preceded(name, &["/bin/sh", "-c", "echo started"]);
    let (outcome, log) = run(&prepared("nothing"));
    let found = outcome.unwrap_or_else(|e| panic!("failed to {e}\n{log}")).measured;
    assert_eq!((found.seccomp_mode, log.as_str()), (2, "started\n"));
    // This writer refuses to be told nothing.
    let (outcome, log) = run(&prepared("unpack"));
    let error = outcome.expect_err("fails").to_string();
    assert!(error.contains("exit code 1"), "{error}");
    assert!(
        log.starts_with("built-in unpack: failed to read the arguments") && !log.contains("started"),
        "{log}"
    );
    assert!(refused(&prepared("unheard-of")).contains("there is no built-in \"unheard-of\""));
    // A missing program is found after the built-in has run.
    let (outcome, log) = run(&preceded("nothing", &["/usr/bin/unheard-of"]));
    let error = outcome.expect_err("fails").to_string();
    assert!(
        error.contains("exit code 127") && log.contains("failed to run /usr/bin/unheard-of"),
        "{error}\n{log}"
    );
}

#[test]
fn a_build_directory_on_disk_is_emptied_whatever_was_left_in_it() {
    let host = Host::new();
    let disk = scratch();
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o700)).expect("mode");
    // Paths longer than any call takes; and, where the stage fails anyway, deeper than there are descriptors.
    for (ids, depth, end) in [
        (Ids::Single, 200, "true"),
        (Ids::Range, 200, "true"),
        (Ids::Single, 3000, "exit 3"),
    ] {
        let deep = format!("$d = q(d) x 50; for (1..{depth}) {{ mkdir $d, 0755; chdir $d || die }} open F, q(>f);");
        let script = format!(
            "/usr/bin/perl -e '{deep}' && mkdir -p out/locked/in && echo data > out/file && mkdir -m 000 shut && chmod 000 d* out/locked"
        );
        let mut spec = host.shell(&format!("{script}; {end}"));
        spec.ids = ids;
        spec.build_dir = BuildDir::Disk(disk.path().to_owned());
        spec.outputs.push(output("out", OutputKind::Tree));
        let (outcome, log) = run(&spec);
        assert_eq!(
            outcome.is_ok(),
            end == "true",
            "{:?}\n{log}",
            outcome.map_err(|e| e.to_string())
        );
        assert_eq!(outside(&["ls", "-A"], disk.path()), "", "something is left");
    }
}

#[test]
fn the_doctor_finds_every_layer() {
    let layers = probe(&pnb());
    let names: Vec<_> = layers.iter().map(|l| l.name).collect();
    assert_eq!(
        names,
        [
            "namespaces",
            "range of ids",
            "network",
            "overlays",
            "Landlock",
            "seccomp",
            "capabilities",
            "limits",
            "emulation"
        ]
    );
    assert!(layers.iter().all(|l| l.problem.is_none()), "{layers:#?}");
}

#[test]
fn costs_little() {
    let host = Host::new();
    let spec = host.command(&["/bin/true"]);
    let mut cpu: Vec<Duration> = (0..15).map(|_| run(&spec).0.expect("ends well").cpu).collect();
    cpu.sort();
    println!(
        "processor time of a sandbox around true: {:?} at best, {:?} median",
        cpu[0], cpu[7]
    );
    assert!(cpu[0] < Duration::from_millis(60), "{cpu:?}");
}

#[test]
fn the_policy_names_no_path_of_the_host() {
    let host = Host::new();
    let mut spec = host.shell("true");
    spec.build_dir = BuildDir::Disk("/somewhere/on/the/host".into());
    let text = serde_json::to_string(&spec.policy()).expect("serializes");
    let other = serde_json::to_string(&Host::new().shell("true").policy()).expect("serializes");
    assert!(
        !text.contains(host.dir.path().to_str().expect("text")) && !text.contains("/somewhere"),
        "{text}"
    );
    assert_eq!(text, other);
}

#[test]
fn a_stage_does_not_wait_for_a_disk() {
    let host = Host::new();
    // A descriptor that is none tells whether the kernel was asked.
    for (name, call) in [
        ("fsync", libc::SYS_fsync),
        ("fdatasync", libc::SYS_fdatasync),
        ("syncfs", libc::SYS_syncfs),
        ("sync_file_range", libc::SYS_sync_file_range),
    ] {
        let script = format!("print syscall({call}, -1, 0, 0, 0)");
        assert_eq!(printed(&host.perl(&script)), "0", "{name}");
        assert_eq!(
            outside(&["/usr/bin/perl", "-e", &script], Path::new("/")),
            "-1",
            "{name}"
        );
    }
}
