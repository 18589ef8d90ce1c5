//! What a hostile stage must not achieve.
//!
//! A payload prints `GOT` when it gets through. Inside it must not; outside, as control, it must, where the host offers
//! what is attacked at all.

use crate::host::*;
use pnb::sandbox::*;
use std::os::linux::net::SocketAddrExt;
use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{SocketAddr, UnixListener},
    },
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

/// Runs the Perl `payload` inside and outside.
fn attack(name: &str, spec: &Spec, payload: &str, cwd: &Path, control: bool) {
    let inside = run(spec).1;
    assert!(!inside.contains("GOT"), "{name} got through: {inside}");
    if control {
        let outside = outside(&["/usr/bin/perl", "-e", payload], cwd);
        assert!(outside.contains("GOT"), "control of {name}: {outside}");
    }
}

#[test]
fn no_network_and_no_sockets_but_its_own() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let port = listener.local_addr().expect("bound").port();
    let tcp = format!(
        "use Socket; socket(S,AF_INET,SOCK_STREAM,0) && connect(S,sockaddr_in({port},inet_aton('127.0.0.1'))) && print 'GOT'"
    );
    attack("a TCP connection", &host.perl(&tcp), &tcp, Path::new("/"), true);
    // Family, type, whether every Linux has it for every user.
    for (name, family, kind, everywhere) in [
        ("inet stream", 2, 1, true),
        ("inet datagram", 2, 2, true),
        ("inet6 stream", 10, 1, false),
        ("netlink", 16, 3, true),
        ("packet", 17, 3, is_root()),
        ("bluetooth", 31, 1, false),
        ("rxrpc", 33, 2, false),
        ("alg", 38, 5, false),
        ("vsock", 40, 1, false),
        ("xdp", 44, 3, false),
    ] {
        let payload = format!("socket(S,{family},{kind},0) && print 'GOT'");
        attack(
            &format!("a socket of family {name}"),
            &host.perl(&payload),
            &payload,
            Path::new("/"),
            everywhere,
        );
        let pair = format!("use Socket; socketpair(S,T,{family},{kind},0) && print 'GOT'");
        attack(
            &format!("a pair of family {name}"),
            &host.perl(&pair),
            &pair,
            Path::new("/"),
            false,
        );
    }
    let own = "use Socket; socketpair(S,T,AF_UNIX,SOCK_STREAM,0) && print 'GOT'";
    assert!(printed(&host.perl(own)).contains("GOT"), "its own sockets work");
}

#[test]
fn no_socket_of_the_host_and_nothing_between_two_stages() {
    let host = Host::new();
    let name = format!("pnb-test-{}-{}", std::process::id(), nix::unistd::getuid());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("name")).expect("listens");
    let connect =
        format!("use Socket; socket(S,AF_UNIX,SOCK_STREAM,0); connect(S,sockaddr_un(\"\\0{name}\")) && print 'GOT'");
    attack(
        "an abstract socket of the host",
        &host.perl(&connect),
        &connect,
        Path::new("/"),
        true,
    );
    let named = scratch();
    let path = named.path().join("s");
    let _other = UnixListener::bind(&path).expect("listens");
    let connect = format!(
        "use Socket; socket(S,AF_UNIX,SOCK_STREAM,0); connect(S,sockaddr_un(q({}))) && print 'GOT'",
        path.display()
    );
    attack(
        "a socket in a directory of the host",
        &host.perl(&connect),
        &connect,
        Path::new("/"),
        true,
    );

    let name = format!("{name}-between");
    let offer = format!(
        "use Socket; socket(S,AF_UNIX,SOCK_STREAM,0); bind(S,sockaddr_un(\"\\0{name}\"))||die; listen(S,1); open F,'>/tmp/left'; $|=1; print 'up'; sleep 3"
    );
    let seek = format!(
        "use Socket; socket(S,AF_UNIX,SOCK_STREAM,0); connect(S,sockaddr_un(\"\\0{name}\")) && print 'GOT'; -e '/tmp/left' && print 'GOT'"
    );
    thread::scope(|scope| {
        scope.spawn(|| printed(&host.perl(&offer)));
        thread::sleep(Duration::from_millis(800));
        assert!(!printed(&host.perl(&seek)).contains("GOT"), "two stages met");
    });
    let both = format!(
        "if (fork) {{ sleep 1; {seek} }} else {{ {} }}",
        offer.replace("'up'", "''")
    );
    assert!(
        printed(&host.perl(&both)).contains("GOT"),
        "control: within one stage they meet"
    );
}

/// Perl hands only what could be changed to a system call.
const COPY: &str = "sub c { my $x = shift; $x }";

/// System calls that must fail with a given error inside, and with another outcome outside.
#[test]
fn no_way_into_the_kernel() {
    use libc::*;
    let host = Host::new();
    let clone = |flag: i32| format!("{SYS_clone}, {}, 0, 0, 0, 0", flag | SIGCHLD);
    let calls = [
        ("io_uring_setup", format!("{SYS_io_uring_setup}, 1, 0"), ENOSYS),
        ("bpf", format!("{SYS_bpf}, 99, 0, 0"), EPERM),
        (
            "perf_event_open",
            format!("{SYS_perf_event_open}, 0, 0, 0, 0, 0"),
            EPERM,
        ),
        ("userfaultfd", format!("{SYS_userfaultfd}, 0x7fffff"), EPERM),
        (
            "ptrace of another process",
            format!("{SYS_ptrace}, 0x4206, 4194303, 0, 0"),
            EPERM,
        ),
        ("ptrace_traceme", format!("{SYS_ptrace}, 0, 0, 0, 0"), EPERM),
        (
            "process_vm_readv",
            format!("{SYS_process_vm_readv}, $$, 0, 0, 0, 0, 0"),
            EPERM,
        ),
        (
            "process_vm_writev",
            format!("{SYS_process_vm_writev}, $$, 0, 0, 0, 0, 0"),
            EPERM,
        ),
        ("pidfd_getfd", format!("{SYS_pidfd_getfd}, 0, 0, 0"), EPERM),
        ("kcmp", format!("{SYS_kcmp}, $$, $$, 99, 0, 0"), EPERM),
        ("keyctl", format!("{SYS_keyctl}, 0, -3, 0"), ENOSYS),
        ("add_key", format!("{SYS_add_key}, 0, 0, 0, 0, -3"), ENOSYS),
        ("request_key", format!("{SYS_request_key}, 0, 0, 0, 0"), ENOSYS),
        (
            "unshare of a user namespace",
            format!("{SYS_unshare}, {CLONE_NEWUSER}"),
            EPERM,
        ),
        (
            "unshare of a time namespace",
            format!("{SYS_unshare}, 0x10000080"),
            EPERM,
        ),
        ("clone of a user namespace", clone(CLONE_NEWUSER), EPERM),
        (
            "clone of a user and mount namespace",
            clone(CLONE_NEWUSER | CLONE_NEWNS),
            EPERM,
        ),
        ("clone3", format!("{SYS_clone3}, 0, 0"), ENOSYS),
        ("setns", format!("{SYS_setns}, -1, 0"), EPERM),
        ("open_tree", format!("{SYS_open_tree}, -1, 0, 0"), ENOSYS),
        ("fsopen", format!("{SYS_fsopen}, 0, 0"), ENOSYS),
        ("move_mount", format!("{SYS_move_mount}, -1, 0, -1, 0, 0"), ENOSYS),
        ("mount_setattr", format!("{SYS_mount_setattr}, -1, 0, 0, 0, 0"), ENOSYS),
        ("shmget", format!("{SYS_shmget}, 0, 4096, 0600"), ENOSYS),
        ("TIOCSTI", format!("{SYS_ioctl}, 0, 0x5412, 0"), EPERM),
        (
            "TIOCSTI in the upper half",
            format!("{SYS_ioctl}, 0, 0x100005412, 0"),
            EPERM,
        ),
        ("TIOCLINUX", format!("{SYS_ioctl}, 0, 0x541c, 0"), EPERM),
        (
            "prlimit of another process",
            format!("{SYS_prlimit64}, 1, 7, 0, 0"),
            EPERM,
        ),
        ("a call of the future", "467, -1, 0, 0, 0, 0".to_owned(), ENOSYS),
        (
            "setxattr",
            format!("{SYS_setxattr}, c(\"/tmp\\0\"), c(\"user.a\\0\"), c(\"x\"), 1, 0"),
            EOPNOTSUPP,
        ),
        ("personality", format!("{SYS_personality}, 0x0400000"), EPERM),
    ];
    for (name, arguments, errno) in &calls {
        // A child of a clone that succeeds ends at once; a success counts as errno 0.
        let script = format!(
            "{COPY} require POSIX; my $me = $$; my $r = syscall({arguments}); POSIX::_exit(0) if $r == 0 && POSIX::getpid() != $me; print $r < 0 ? $!+0 : 0, \"\\n\""
        );
        let inside = printed(&host.perl(&script));
        assert_eq!(inside.trim(), errno.to_string(), "{name} inside");
        let outside = outside(&["/usr/bin/perl", "-e", &script], Path::new("/tmp"));
        let privileged = [
            "bpf",
            "prlimit of another process",
            "perf_event_open",
            "unshare of a user namespace",
            "TIOCLINUX",
            "userfaultfd",
        ];
        if is_root() || !privileged.contains(name) {
            assert_ne!(outside.trim(), errno.to_string(), "control of {name}");
        }
    }
    for (name, arguments) in [
        (
            "mount",
            format!("{SYS_mount}, c(\"x\\0\"), c(\"/tmp\\0\"), c(\"tmpfs\\0\"), 0, 0"),
        ),
        ("umount", format!("{SYS_umount2}, c(\"/proc\\0\"), 2")),
        (
            "pivot_root",
            format!("{SYS_pivot_root}, c(\"/tmp\\0\"), c(\"/tmp\\0\")"),
        ),
        ("chroot", format!("{SYS_chroot}, c(\"/tmp\\0\")")),
        ("sethostname", format!("{SYS_sethostname}, c(\"x\"), 1")),
        ("clock_settime", format!("{SYS_clock_settime}, 0, 0")),
        ("reboot", format!("{SYS_reboot}, 0, 0, 0, 0")),
        ("open_by_handle_at", format!("{SYS_open_by_handle_at}, -100, 0, 0")),
        ("init_module", format!("{SYS_init_module}, 0, 0, 0")),
        ("syslog", format!("{SYS_syslog}, 3, 0, 0")),
    ] {
        let script = format!("{COPY} syscall({arguments}) >= 0 ? print 'GOT' : print $!+0");
        assert_eq!(printed(&host.perl(&script)), EPERM.to_string(), "{name}");
    }
}

/// Machine code that asks through the tables of i386 and x32.
#[cfg(target_arch = "x86_64")]
#[test]
fn foreign_system_call_tables_are_deadly() {
    let host = Host::new();
    let code = host.dir.path().join("etc/foreign");
    let source = host.dir.path().join("foreign.c");
    fs::write(&source, FOREIGN).expect("written");
    let built = Command::new("cc")
        .args(["-O0", "-o"])
        .arg(&code)
        .arg(&source)
        .status()
        .expect("cc runs");
    assert!(built.success());
    for (argument, works_outside) in [("i386", false), ("x32", false), ("none", true)] {
        let mut spec = host.command(&["/inputs/foreign", argument]);
        spec.mounts.push(input(&code, "foreign", Access::ReadOnly));
        let outcome = run(&spec).0;
        if works_outside {
            assert!(outcome.is_ok(), "control: the program itself runs");
        } else {
            let text = outcome.expect_err("killed").to_string();
            assert!(text.contains("signal 31"), "{argument}: {text}");
            assert!(
                Command::new(&code).arg(argument).status().expect("runs").success(),
                "control: {argument}"
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
const FOREIGN: &str = r#"
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    long r;
    if (!strcmp(argv[1], "i386")) __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
    if (!strcmp(argv[1], "x32")) __asm__ volatile("syscall" : "=a"(r) : "a"(0x40000000L + 39) : "rcx", "r11", "memory");
    return 0;
}
"#;

#[test]
fn nothing_of_pid_1_the_host_or_its_kernel_can_be_read_or_written() {
    let host = Host::new();
    for path in [
        "/proc/1/environ",
        "/proc/1/mem",
        "/proc/1/exe",
        "/proc/1/maps",
        "/proc/1/root",
        "/proc/1/fd",
        "/proc/1/status",
        "/proc/kcore",
        "/proc/sysrq-trigger",
        "/proc/keys",
        "/proc/sys/kernel/random/boot_id",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/stat",
        "/proc/version",
        "/proc/mounts",
        "/proc/self/mountinfo",
        "/proc/self/mounts",
        "/proc/self/mountstats",
        "/proc/self/cgroup",
        "/proc/self/environ",
        "/sys/kernel",
        "/dev/tty",
        "/dev/kmsg",
        "/dev/mem",
        "/dev/shm",
        "/dev/ptmx",
        "/etc/passwd",
        "/root",
        "/home",
        "/var",
        "/run",
    ] {
        let open = format!("open(F, '<', '{path}') || opendir(F, '{path}') and print 'GOT'");
        let written = format!("open(F, '+<', '{path}') and print 'GOT'");
        let privileged = ["/proc/1/", "/proc/kcore", "/proc/sysrq", "/dev/", "/root", "/sys/"]
            .iter()
            .any(|p| path.starts_with(p));
        let there = fs::File::open(path).is_ok();
        attack(
            path,
            &host.perl(&open),
            &open,
            Path::new("/"),
            there && (is_root() || !privileged),
        );
        assert!(
            !run(&host.perl(&written)).1.contains("GOT"),
            "{path} was opened for writing"
        );
    }
    let links = "for my $p (glob('/proc/[0-9]*')) { my $e = readlink(\"$p/exe\"); open(F, '+<', \"$p/exe\") and print 'GOT'; print \"$p $e\\n\" }";
    let seen = printed(&host.perl(links));
    assert!(!seen.contains("GOT") && !seen.contains("/proc/1 "), "{seen}");
    let mut marked = host.perl("opendir D, '/proc/self/fd' or die; print join(',', sort grep {/\\d/} readdir D)");
    marked.env.insert("X".into(), "y".into());
    let _open = fs::File::open("/dev/zero").expect("opens");
    // 3 is the directory being listed.
    assert_eq!(printed(&marked), "0,1,2,3");
}

#[test]
fn no_signal_reaches_the_host_and_no_limit_pid_1() {
    let host = Host::new();
    let mut sleeper = Command::new("sleep").arg("60").spawn().expect("runs");
    let payload = format!("kill(0, {}) and print 'GOT'", sleeper.id());
    attack("a signal", &host.perl(&payload), &payload, Path::new("/"), true);
    let killing = host.perl("kill(9, 1); kill(15, 1); kill(9, -1); sleep 1; print 'alive'; $l = pack('QQ', 0, 0); syscall(302, 1, 7, $l, 0); mkdir 'out'; open F, '>out/a'; print F 'x'");
    let mut spec = killing;
    spec.outputs.push(output("out", OutputKind::Tree));
    let (outcome, log) = run(&spec);
    assert!(
        outcome.is_ok() && log == "alive",
        "{log} {:?}",
        outcome.map_err(|e| e.to_string())
    );
    assert!(
        sleeper.try_wait().expect("asked").is_none(),
        "the host's process is alive"
    );
    sleeper.kill().expect("killed");
    sleeper.wait().expect("gone");
}

#[test]
fn inputs_stay_as_they_are() {
    let host = Host::new();
    let dir = scratch();
    let file = dir.path().join("f");
    let ways = [
        "open(F, '>', 'P/f') and print 'GOT'",
        "open(F, '>>', 'P/f') and print 'GOT'",
        "open(F, '+<', 'P/f') and print 'GOT'",
        "truncate('P/f', 0) and print 'GOT'",
        "chmod(0777, 'P/f') and print 'GOT'",
        "utime(1, 1, 'P/f') and print 'GOT'",
        "rename('P/f', 'P/g') and print 'GOT'",
        "unlink('P/f') and print 'GOT'",
        "link('P/f', 'P/h') and print 'GOT'",
        "symlink('x', 'P/l') and print 'GOT'",
        "mkdir('P/d') and print 'GOT'",
        "open(F, '<', 'P/f'); open(G, '+<', '/proc/self/fd/'.fileno(F)) and print 'GOT'",
        "open(F, '<', 'P/f'); open(G, '>>', '/dev/fd/'.fileno(F)) and print 'GOT'",
        "rename('/proc/self/cwd/../P/f', 'x') and print 'GOT'",
    ];
    for way in ways {
        let reset = || {
            let _ = fs::remove_dir_all(dir.path().join("d"));
            for name in ["f", "g", "h", "l"] {
                let _ = fs::remove_file(dir.path().join(name));
            }
            fs::write(&file, "content").expect("written");
        };
        reset();
        let before = fs::metadata(&file).expect("there");
        let mut spec = host.perl(&way.replace("P/", "/inputs/d/"));
        spec.mounts.push(input(dir.path(), "d", Access::ReadOnly));
        // For a stage that root runs the input belongs to it as far as it can see: permissions alone would not stop it.
        let payload = way.replace("P/", &format!("{}/", dir.path().display()));
        let control = !way.contains("cwd");
        attack(way, &spec, &payload, Path::new("/"), false);
        let after = fs::metadata(&file).expect("still there");
        assert_eq!(
            (before.mtime(), before.mode(), before.nlink(), before.ino()),
            (after.mtime(), after.mode(), after.nlink(), after.ino())
        );
        assert_eq!(fs::read(&file).expect("read"), b"content");
        if control {
            reset();
            assert!(
                outside(&["/usr/bin/perl", "-e", &payload], Path::new("/")).contains("GOT"),
                "control: {way}"
            );
        }
    }
    let mut linked =
        host.perl("link('/inputs/d/f', '/build/x') and print 'GOT'; link('/inputs/d/f', '/tmp/x') and print 'GOT'");
    linked.mounts.push(input(dir.path(), "d", Access::ReadOnly));
    assert!(!run(&linked).1.contains("GOT"));
    let own = host.perl("open(F,'>','/build/f'); link('/build/f', '/build/x') and print 'GOT'");
    assert!(printed(&own).contains("GOT"), "control: links within /build work");
}

#[test]
fn nothing_outlives_the_stage() {
    let host = Host::new();
    let mark = format!("7{:06}.25", std::process::id());
    let running = || {
        processes()
            .iter()
            .filter(|p| p.contains(&format!("sleep {mark}")))
            .count()
    };
    printed(&host.shell(&format!(
        "setsid sleep {mark} </dev/null >/dev/null 2>&1 & setsid sleep {mark} & sleep 0.2"
    )));
    assert_eq!(running(), 0);
    let mut control = Command::new("sleep").arg(&mark).spawn().expect("runs");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(running(), 1, "control: it would be seen");
    control.kill().expect("killed");
    control.wait().expect("gone");

    // Nobody writes after the end: the daemon would append for as long as it lives.
    let mut late = host.shell("mkdir out; (while :; do echo x >> out/a; done) >/dev/null 2>&1 & sleep 0.3");
    late.outputs.push(output("out", OutputKind::Tree));
    printed(&late);
}

#[test]
fn failing_and_absent_programs_are_told_apart() {
    let host = Host::new();
    assert_eq!(refused(&host.shell("exit 3")), "run stage test: exit code 3");
    assert_eq!(refused(&host.shell("kill -9 $$")), "run stage test: signal 9");
    assert!(refused(&host.command(&["/no/such/program"])).contains("run /no/such/program: ENOENT"));
    let mut missing = host.shell("true");
    missing
        .mounts
        .push(input(Path::new("/no/such/input"), "x", Access::ReadOnly));
    let text = refused(&missing);
    assert!(text.contains("/no/such/input"), "{text}");
}

#[test]
fn a_crash_starts_no_program_of_the_host_and_no_processor_is_added() {
    let host = Host::new();
    // getrlimit(RLIMIT_CORE), then two ways to change it, and getrlimit again. Only a limit of 1 keeps the kernel from starting the
    // program of a core_pattern with a pipe.
    let limit = format!(
        "sub l {{ my $l = \"\\0\" x 16; syscall({}, 4, $l); join ':', unpack 'QQ', $l }} print l(), ' '; my $n = pack 'QQ', 0, 1; \
         print syscall({}, 4, $n), ' ', l(), ' '; print syscall({}, 0, 4, $n, 0), ' ', l()",
        libc::SYS_getrlimit,
        libc::SYS_setrlimit,
        libc::SYS_prlimit64
    );
    assert_eq!(printed(&host.perl(&limit)), "1:1 0 1:1 0 1:1");
    let soft = format!(
        "ulimit -Hc 1 2>/dev/null; exec /usr/bin/perl -e '{}'",
        limit.replace("pack 'QQ'", "pack \"QQ\"").replace('\'', "\"")
    );
    let control = outside(&["/bin/sh", "-c", &soft], Path::new("/"));
    assert!(
        control.ends_with(" 0 0:1") || control.contains(" 0:"),
        "control: {control}"
    );

    // sched_getaffinity tells as many processors after the attempt as before.
    let widen = format!(
        "sub n {{ my $m = \"\\0\" x 128; syscall({}, 0, 128, $m); unpack '%32b*', $m }} my $all = \"\\xff\" x 128; \
         my $before = n(); syscall({}, 0, 128, $all); print 'GOT' if n() > $before; print n()",
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_setaffinity
    );
    assert_eq!(printed(&host.perl(&widen)), "1");
    let control = outside(
        &["/usr/bin/taskset", "1", "/usr/bin/perl", "-e", &widen],
        Path::new("/"),
    );
    assert!(control.contains("GOT"), "control: {control}");
}

#[test]
fn no_other_user_reaches_what_a_stage_leaves_on_disk() {
    let host = Host::new();
    let base = scratch();
    let dir = pnb::store::build_directory(base.path(), "stage-").expect("made");
    let mut spec = host.shell("cp /usr/bin/id left; chmod 4755 left; chmod 0777 /build; exit 1");
    spec.build_dir = BuildDir::Disk(dir.clone());
    spec.keep_failed = true;
    assert_eq!(refused(&spec), "run stage test: exit code 1");
    let left = dir.join("left");
    let closed = dir.parent().expect("below a directory of its own");
    assert_eq!(fs::metadata(closed).expect("there").mode() & 0o077, 0);
    assert_eq!(fs::metadata(&left).expect("left").mode() & 0o7777, 0o4755);
    if is_root() {
        let program = left.to_str().expect("text");
        // By way of a shell: setpriv(1) keeps capabilities until it executes a program.
        let other = [
            "/usr/bin/setpriv",
            "--reuid",
            "65534",
            "--clear-groups",
            "/bin/sh",
            "-c",
            program,
        ];
        let run = || outside(&other, Path::new("/"));
        assert_eq!(run(), "");
        fs::set_permissions(closed, fs::Permissions::from_mode(0o755)).expect("opened");
        assert!(run().contains("uid=65534"), "control: without the closed directory");
    }
}

#[test]
fn pid_1_keeps_its_priority_and_scheduling() {
    let host = Host::new();
    // Which process, nice value 5; scheduling policy SCHED_IDLE; scheduling attributes of the same; idle class of I/O.
    let calls = format!(
        "sub t {{ my $p = shift; my $z = pack 'i', 0; my $a = pack 'LLQlLQQQ', 48, 5, 0, 5, 0, 0, 0, 0; \
         join ' ', map {{ $_ < 0 ? $!+0 : 'GOT' }} syscall({}, 0, $p, 5), syscall({}, $p, 5, $z), syscall({}, $p, $a, 0), \
         syscall({}, 1, $p, 3 << 13) }} print t(1), ' '; print t($$)",
        libc::SYS_setpriority,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setattr,
        libc::SYS_ioprio_set
    );
    let seen = printed(&host.perl(&calls));
    let (of_pid_1, own) = seen.split_at(seen.find("GOT").unwrap_or(seen.len()));
    assert!(
        !of_pid_1.contains("GOT") && of_pid_1.split_whitespace().count() == 4,
        "{seen}"
    );
    assert_eq!(own, "GOT GOT GOT GOT", "control: {seen}");
}
