//! What two stages with the same inputs, and a stage and the host, must not have in common: the state that Linux keeps in an inode.

use crate::host::*;
use pnb::sandbox::*;
use std::{
    fs,
    io::{self, BufRead, BufReader},
    ops::ControlFlow,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

/// Perl that locks every file given in `@P` in each way there is, prints a line, and goes on until it is ended.
const HOLD: &str = r#"
use Fcntl qw(:flock :DEFAULT); $| = 1; $SIG{IO} = 'IGNORE';
for my $p (@P) {
    my ($f, $g, $l, $h);
    open $f, '<', $p or die "$p: $!"; flock($f, LOCK_EX) or die "flock of $p: $!"; push @kept, $f;
    open $g, '<', $p or die "$p: $!"; my $k = pack('s s l! l! i x4', F_RDLCK, 0, 7, 1, 0); fcntl($g, F_SETLK, $k) or die "lock of $p: $!"; push @kept, $g;
    my $hint = pack('Q', 4); open $h, '<', $p; fcntl($h, 1036, $hint); push @kept, $h;
    open $l, '<', "$p.leased"; fcntl($l, 1024, F_WRLCK); push @kept, $l;
}
while (1) { print "held\n"; select undef, undef, undef, 0.05 }
"#;

/// Perl that prints what it meets of [`HOLD`].
const SEEK: &str = r#"
use Fcntl qw(:flock :DEFAULT);
for my $p (@P) {
    my ($f, $g, $h, $l);
    open $f, '<', $p or die "$p: $!"; flock($f, LOCK_EX | LOCK_NB) or print "flock\n"; flock($f, LOCK_UN);
    open $g, '<', $p or die "$p: $!"; my $k = pack('s s l! l! i x4', F_WRLCK, 0, 7, 1, 0);
    fcntl($g, F_GETLK, $k) or die "ask for a lock of $p: $!"; print "lock\n" if (unpack 's', $k)[0] != F_UNLCK;
    my $hint = pack('Q', 0); open $h, '<', $p; fcntl($h, 1035, $hint); print "hint\n" if unpack 'Q', $hint;
    sysopen $l, "$p.leased", O_RDONLY | O_NONBLOCK or print "lease\n";
}
print "sought\n";
"#;

fn script(paths: &[String], body: &str) -> String {
    format!(
        "@P = ({}); {body}",
        paths.iter().map(|p| format!("'{p}', ")).collect::<String>()
    )
}

/// Says when the stage has printed its first line, and ends it when told to.
struct Holder {
    held: Option<Sender<()>>,
    enough: Arc<AtomicBool>,
    text: Vec<u8>,
}

impl LogSink for Holder {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        self.text.extend_from_slice(bytes);
        if self.text.windows(5).any(|w| w == b"held\n")
            && let Some(held) = self.held.take()
        {
            held.send(()).expect("waited for");
        }
        Ok(match self.enough.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }
}

/// Runs `seek` while the stage `hold` holds what it can.
fn while_held(hold: &Spec, seek: impl FnOnce()) {
    let (held, wait) = channel();
    let enough = Arc::new(AtomicBool::new(false));
    let mut log = Holder {
        held: Some(held),
        enough: Arc::clone(&enough),
        text: Vec::new(),
    };
    thread::scope(|scope| {
        let holding = scope.spawn(move || {
            let outcome = run_into(hold, true, &mut log).0;
            assert!(
                outcome.is_ok(),
                "{:?} {}",
                outcome.map_err(|e| e.to_string()),
                String::from_utf8_lossy(&log.text)
            );
        });
        // The sender is dropped where the stage fails before it holds anything.
        let begun = wait.recv_timeout(Duration::from_secs(30));
        if begun.is_ok() {
            seek();
        }
        enough.store(true, Ordering::Relaxed);
        holding.join().expect("the holder ends well");
        begun.expect("the stage holds its locks");
    });
}

/// A file that can be locked, and one that can be leased beside it.
fn lockable(at: &Path) {
    fs::write(at, "content").expect("written");
    fs::write(at.with_extension("leased"), "content").expect("written");
}

#[test]
fn locks_leases_and_hints_of_one_stage_are_not_found_by_another_or_the_host() {
    let host = Host::new();
    let inputs = scratch();
    // A file of the root, of a directory, and one that is mounted by itself.
    let root = host.dir.path().join("etc/in-root");
    let in_directory = inputs.path().join("directory/file");
    let alone = inputs.path().join("alone");
    fs::create_dir(inputs.path().join("directory")).expect("made");
    for file in [&root, &in_directory, &alone] {
        lockable(file);
    }
    let outside: Vec<String> = [&root, &in_directory, &alone]
        .map(|p| p.to_str().expect("text").to_owned())
        .into();
    let inside = ["/etc/in-root", "/inputs/directory/file", "/inputs/alone"].map(str::to_owned);
    let stage = |body: &str| {
        let mut spec = host.perl(&script(&inside, body));
        spec.mounts
            .push(input(&inputs.path().join("directory"), "directory", Access::ReadOnly));
        spec.mounts.push(input(&alone, "alone", Access::ReadOnly));
        let leased = alone.with_extension("leased");
        spec.mounts.push(input(&leased, "alone.leased", Access::ReadOnly));
        spec
    };
    let seek_outside = || crate::host::outside(&["/usr/bin/perl", "-e", &script(&outside, SEEK)], Path::new("/"));

    while_held(&stage(HOLD), || {
        assert_eq!(printed(&stage(SEEK)), "sought\n", "another stage");
        assert_eq!(seek_outside(), "sought\n", "the host");
    });
    assert_eq!(printed(&stage(SEEK)), "sought\n", "a later stage");

    let mut holder = Command::new("/usr/bin/perl")
        .args(["-e", &script(&outside, HOLD)])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("read");
    let met = seek_outside();
    let inside = printed(&stage(SEEK));
    holder.kill().expect("killed");
    holder.wait().expect("gone");
    for way in ["flock", "lock", "hint", "lease"] {
        assert!(met.matches(&format!("{way}\n")).count() >= 3, "control of {way}: {met}");
    }
    // A lease on the lower file is found: opening a file of an overlay opens the lower one. Here the first to open it may have ended the
    // holder, which leases tell by a signal.
    let found: Vec<&str> = inside
        .lines()
        .filter(|line| !["lease", "sought"].contains(line))
        .collect();
    assert!(
        found.is_empty() && inside.ends_with("sought\n"),
        "a stage finds the host's: {inside}"
    );
}

#[test]
fn a_lock_of_dev_null_is_the_stages_own_where_root_builds() {
    let host = Host::new();
    // Only root of the host may make device nodes: a stage of an ordinary user has the host's (docs/sandbox.md, Known gaps).
    let shared = !is_root();
    let lock = |names: &str, then: &str| {
        format!(
            "use Fcntl ':flock'; $| = 1; for my $d (qw({names})) {{ open my $f, '<', \"/dev/$d\" or die; push @k, $f; \
             flock($f, LOCK_EX | LOCK_NB) or print \"GOT $d \" }} {then}"
        )
    };
    let wait = "while (1) { print \"held\\n\"; select undef, undef, undef, 0.05 }";
    // Standard input is /dev/null too.
    let hold = lock(
        "zero full random urandom",
        &format!("flock(STDIN, LOCK_EX) or die; {wait}"),
    );
    let seek = lock("null zero full random urandom", "");
    while_held(&host.perl(&hold), || {
        assert_eq!(printed(&host.perl(&seek)).contains("GOT"), shared, "another stage");
        let outside = outside(&["/usr/bin/perl", "-e", &seek], Path::new("/"));
        assert_eq!(outside.contains("GOT"), shared, "the host: {outside}");
    });
    let both = format!("if (!fork) {{ {hold} }} sleep 1; {seek} kill 9, -1");
    let met = run(&host.perl(&both)).1;
    for name in ["null", "zero", "full", "random", "urandom"] {
        assert!(
            met.contains(&format!("GOT {name}")),
            "control: within one stage they meet: {met}"
        );
    }
}

#[test]
fn the_hosts_file_systems_are_not_seen_in_inputs() {
    let host = Host::new();
    let dir = scratch();
    fs::write(dir.path().join("f"), "x").expect("written");
    let mut spec = host.shell("stat -f -c '%t %S %b %c' /inputs/d /inputs/f /etc");
    spec.mounts.push(input(dir.path(), "d", Access::ReadOnly));
    spec.mounts.push(input(&dir.path().join("f"), "f", Access::ReadOnly));
    // An overlay with the size of the sandbox' root, 4 MiB.
    assert_eq!(printed(&spec), "794c7630 4096 1024 16384\n".repeat(3));
    let outside = outside(&["/usr/bin/stat", "-f", "-c", "%t %S %b %c"], dir.path());
    assert!(!outside.contains("1024 16384"), "control: {outside}");
}

/// However many processors the host has, and whichever the caller may use: the stage sees those that it declares.
#[test]
fn a_stage_sees_the_processors_that_it_declares_and_not_the_hosts() {
    let host = Host::new();
    let ask = format!(
        "my $b = \"\\0\" x 128; my $n = syscall({}, 0, 128, $b); print $n, ' ', unpack 'b*', substr $b, 0, 8",
        libc::SYS_sched_getaffinity
    );
    let first = |count: usize| format!("8 {}{}", "1".repeat(count), "0".repeat(64 - count));
    let offered = std::thread::available_parallelism().map_or(1, usize::from);
    // More than this host has too, in a strict run, which any layer that is weaker would end.
    for cpus in [1, 2, 3, offered + 5] {
        let mut spec = host.perl(&ask);
        spec.limits.cpus = u32::try_from(cpus).expect("few");
        assert_eq!(printed(&spec), first(cpus));
        let mut spec = host
            .shell("nproc; getconf _NPROCESSORS_ONLN; cat /proc/cpuinfo /sys/devices/system/cpu/online 2>&1 | wc -l");
        spec.limits.cpus = u32::try_from(cpus).expect("few");
        assert_eq!(
            printed(&spec),
            format!("{cpus}\n{cpus}\n2\n"),
            "two files that are not there"
        );
    }
    // What the kernel refuses is refused: a buffer that is too small, and an address that cannot be written to.
    let refused = format!(
        "print syscall({0}, 0, 4, 0) < 0 ? $!+0 : 'GOT', ' ', syscall({0}, 0, 8, 0) < 0 ? $!+0 : 'GOT'",
        libc::SYS_sched_getaffinity
    );
    assert_eq!(
        printed(&host.perl(&refused)),
        format!("{} {}", libc::EINVAL, libc::EFAULT)
    );
}

#[test]
fn sysinfo_tells_of_the_stage_and_not_of_the_host() {
    let host = Host::new();
    let ask = format!(
        "my $b = \"\\xff\" x 112; syscall({}, $b); print join ' ', unpack 'q4 Q6 S', $b",
        libc::SYS_sysinfo
    );
    let memory = Limits::small().memory;
    let expected = format!("3600 0 0 0 {memory} {memory} 0 0 0 0 1");
    assert_eq!(printed(&host.perl(&ask)), expected);
    let outside = outside(&["/usr/bin/perl", "-e", &ask], Path::new("/"));
    assert_eq!(outside.split(' ').count(), 11);
    assert_ne!(outside, expected, "control");
    // An address that cannot be written to is the stage's own fault, and many calls at once are answered one by one.
    let hostile = format!(
        "print syscall({0}, 0) < 0 ? $!+0 : 'GOT', ' '; for (1..20) {{ unless (fork) {{ my $b = \"\\0\" x 112; \
         syscall({0}, $b) for 1..200; kill 9, $$ if $_ % 2; exit }} }} 1 while wait > 0; print 'done'",
        libc::SYS_sysinfo
    );
    assert_eq!(printed(&host.perl(&hostile)), format!("{} done", libc::EFAULT));
}

/// System calls about the host's inodes, or about others' use of them, that must fail with a given error inside.
#[test]
fn calls_that_tell_of_the_hosts_inodes_are_refused() {
    use libc::*;
    let host = Host::new();
    let dir = scratch();
    fs::write(dir.path().join("f"), vec![b'x'; 10_000]).expect("written");
    // Each call, the error inside, and whether it ends otherwise on every file system and for every user.
    let ioctl = |number: u64| format!("{SYS_ioctl}, $f, {number}, $b");
    let fcntl = |command: i32| format!("{SYS_fcntl}, $f, {command}, $b");
    let calls = [
        ("FIEMAP", ioctl(0xc020_660b), ENOTTY, false),
        ("GETVERSION", ioctl(0x8008_7601), ENOTTY, false),
        ("GETFLAGS", ioctl(0x8008_6601), ENOTTY, false),
        ("GETFLAGS with a high bit", ioctl(0x1_8008_6601), ENOTTY, false),
        ("FSGETXATTR", ioctl(0x801c_581f), ENOTTY, false),
        ("GETFSUUID", ioctl(0x8011_1500), ENOTTY, false),
        ("GETFSSYSFSPATH", ioctl(0x8081_1501), ENOTTY, false),
        ("GETFSLABEL", ioctl(0x8100_9431), ENOTTY, false),
        ("F_SETLEASE", format!("{SYS_fcntl}, $f, 1024, 0"), EINVAL, true),
        ("F_GETLEASE", format!("{SYS_fcntl}, $f, 1025, 0"), EINVAL, true),
        ("F_NOTIFY", format!("{SYS_fcntl}, $d, 1026, 1"), EINVAL, true),
        ("F_GET_RW_HINT", fcntl(1035), EINVAL, true),
        ("F_SET_RW_HINT", fcntl(1036), EINVAL, true),
        ("F_GET_FILE_RW_HINT", fcntl(1037), EINVAL, false),
        ("F_SET_FILE_RW_HINT", fcntl(1038), EINVAL, false),
        ("F_SETPIPE_SZ", format!("{SYS_fcntl}, $p, 1031, 65536"), EPERM, true),
        ("inotify_init1", format!("{SYS_inotify_init1}, 0"), ENOSYS, true),
        ("mincore", format!("{SYS_mincore}, 0, 0, $b"), ENOSYS, true),
        ("cachestat", "451, $f, $b, $b, 0".to_owned(), ENOSYS, true),
        (
            "preadv2 with RWF_NOWAIT",
            format!("{SYS_preadv2}, $f, $b, 0, 0, 0, 8"),
            EOPNOTSUPP,
            false,
        ),
        (
            "name_to_handle_at",
            format!("{SYS_name_to_handle_at}, $f, $n, $b, $b, 0x1000"),
            EOPNOTSUPP,
            false,
        ),
        ("io_setup", format!("{SYS_io_setup}, 1, $z"), ENOSYS, true),
        ("lsm_list_modules", "461, $b, $b, 0".to_owned(), ENOSYS, false),
        ("lsm_get_self_attr", "459, 0, $b, $b, 0".to_owned(), ENOSYS, false),
        (
            "sched_setaffinity",
            format!("{SYS_sched_setaffinity}, 0, 128, $ones"),
            EPERM,
            true,
        ),
    ];
    for (name, arguments, errno, everywhere) in &calls {
        let script = |dir: &str| {
            format!(
                "open F, '+<', '{dir}/f' or open F, '<', '{dir}/f' or die; opendir D, '{dir}' or die; pipe R, W; my ($f, $d, $p) = (fileno F, fileno D, fileno W); \
                 my ($b, $z, $n, $ones) = (\"\\0\" x 4096, \"\\0\" x 8, \"\\0\", \"\\xff\" x 128); \
                 my $r = syscall({arguments}); print $r < 0 ? $!+0 : 0, \"\\n\""
            )
        };
        let mut spec = host.perl(&script("/inputs/d"));
        spec.mounts.push(input(dir.path(), "d", Access::ReadOnly));
        assert_eq!(printed(&spec).trim(), errno.to_string(), "{name} inside");
        let on_own_file = format!(
            "mkdir '/build/d'; open O, '>', '/build/d/f'; close O; {}",
            script("/build/d")
        );
        assert_eq!(
            printed(&host.perl(&on_own_file)).trim(),
            errno.to_string(),
            "{name} on a file of its own"
        );
        let outside = outside(
            &["/usr/bin/perl", "-e", &script(dir.path().to_str().expect("text"))],
            Path::new("/"),
        );
        if *everywhere {
            assert_ne!(outside.trim(), errno.to_string(), "control of {name}");
        }
    }
}
