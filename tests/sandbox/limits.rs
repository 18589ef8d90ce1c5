//! Using up what there is: the host stays usable and the error names the limit.

use crate::host::*;
use pnb::sandbox::*;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn tight() -> Limits {
    Limits {
        memory: 64 * MIB,
        processes: 40,
        wall: Duration::from_secs(20),
        log_bytes: MIB,
        build_bytes: 24 * MIB,
        build_inodes: 500,
        tmp_bytes: 8 * MIB,
        output_bytes: 16 * MIB,
        output_entries: 100,
        output_depth: 10,
        cpus: 1,
    }
}

/// Runs a bomb under tight limits and then, as control, the same with room for it where `control` says how.
fn bomb(spec: &mut Spec, says: &str, control: Option<fn(&mut Limits)>) {
    spec.limits = tight();
    spec.stage = "bomb".into();
    let begin = Instant::now();
    let text = refused(spec);
    assert!(
        text.contains("it reached its limit") && text.contains(says),
        "{says}: {text}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{says}: took {:?}",
        begin.elapsed()
    );
    if let Some(widen) = control {
        widen(&mut spec.limits);
        let (outcome, log) = run(spec);
        assert!(
            outcome.is_ok(),
            "control of {says}: {:?}\n{log}",
            outcome.map_err(|e| e.to_string())
        );
    }
}

#[test]
fn bombs_of_memory() {
    let _alone = ALONE.lock();
    let host = Host::new();
    let wide = |l: &mut Limits| (l.memory, l.build_bytes, l.tmp_bytes) = (1024 * MIB, 512 * MIB, 512 * MIB);
    let hold = "select(undef,undef,undef,0.3);";
    bomb(
        &mut host.perl(&format!("$x = 'x' x 150_000_000; {hold}")),
        "memory of 67108864 bytes",
        Some(wide),
    );
    let forked =
        format!("for (1..8) {{ unless (fork) {{ $x = 'x' x 20_000_000; {hold} exit }} }} while (wait > 0) {{}}");
    bomb(&mut host.perl(&forked), "memory of 67108864 bytes", Some(wide));
    let memfd = format!(
        "$n = \"m\\0\"; for $f (1..8) {{ $fd = syscall({}, $n, 0); open $h[$f], '>&=', $fd or die; print {{$h[$f]}} 'x' x 20_000_000 }} {hold}",
        libc::SYS_memfd_create
    );
    bomb(&mut host.perl(&memfd), "memory of 67108864 bytes", Some(wide));
    // Both tmpfs are bounded by themselves, and count as memory.
    let mut tmpfs = host.shell("head -c 100000000 /dev/zero > /build/a");
    bomb(&mut tmpfs, "25165824 bytes below /build", None);
}

/// Memory that the kernel holds for a process and that is in none of its mappings.
#[test]
fn bombs_of_kernel_memory() {
    let _alone = ALONE.lock();
    let host = Host::new();
    let wide = |l: &mut Limits| l.memory = 2048 * MIB;
    let hold = "select(undef,undef,undef,0.5);";
    let fill = "use Socket; use IO::Handle; my $x = 'x' x 65536; sub fill { my $h = shift; $h->blocking(0); 1 while syswrite($h, $x) }";
    for (kind, keep) in [
        ("SOCK_STREAM", "$a, $b"),
        ("SOCK_STREAM", "$b"),
        ("SOCK_SEQPACKET", "$b"),
        ("SOCK_DGRAM", "$b"),
    ] {
        let sockets = format!(
            "{fill} for (1..450) {{ socketpair(my $a, my $b, AF_UNIX, {kind}, 0) or die; fill($a); push @k, {keep} }} {hold}"
        );
        bomb(&mut host.perl(&sockets), "memory of 67108864 bytes", Some(wide));
    }
    let sent = format!(
        "{fill} for (1..4) {{ unless (fork) {{ for (1..120) {{ socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0); fill($a); \
         push @k, $a, $b }} {hold} exit }} }} while (wait > 0) {{}}"
    );
    bomb(&mut host.perl(&sent), "memory of 67108864 bytes", Some(wide));
    let pipes = format!(
        "{fill} for (1..4) {{ unless (fork) {{ for (1..400) {{ pipe(my $r, my $w) or die; fill($w); push @k, $r, $w }} {hold} exit }} }} \
         while (wait > 0) {{}}"
    );
    bomb(&mut host.perl(&pipes), "memory of 67108864 bytes", Some(wide));
    // One page, mapped 20000 times at distances of 2 MiB: each mapping needs a page of page tables of its own.
    let tables = format!(
        "open F, '+>', '/build/one'; truncate F, 4096; my $f = fileno F; for my $n (1..20000) {{ \
         my $at = syscall({}, 0x100000000000 + ($n << 21), 4096, 1, 0x11, $f, 0); my $x = unpack('P1', pack('Q', $at)) }} {hold}",
        libc::SYS_mmap
    );
    bomb(&mut host.perl(&tables), "memory of 67108864 bytes", Some(wide));
    let idle = format!(
        "use Socket; for (1..300) {{ socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0) or die; push @k, $a, $b }} {hold}"
    );
    let mut idle = host.perl(&idle);
    idle.limits = tight();
    printed(&idle);
}

#[test]
fn bombs_of_processes_time_and_words() {
    let _alone = ALONE.lock();
    let host = Host::new();
    bomb(
        &mut host.perl("for (1..100) { unless (fork) { sleep 20; exit } } select(undef,undef,undef,0.5); exit 0"),
        "40 processes",
        None,
    );
    bomb(&mut host.perl("while (1) { fork }"), "40 processes", None);
    let mut few = host.perl("for (1..30) { unless (fork) { exit } } while (wait > 0) {}");
    few.limits = tight();
    printed(&few);

    bomb(
        &mut host.shell("yes '\u{1b}[2J\u{1b}[32mok: stage finished'"),
        "1048576 bytes of log",
        None,
    );
    let mut slow = host.shell("while sleep 0.2; do printf x; done");
    slow.limits.wall = Duration::from_secs(2);
    let text = refused(&slow);
    assert!(text.contains("it reached its limit: wall time of 2s"), "{text}");
}

#[test]
fn bombs_of_files() {
    let _alone = ALONE.lock();
    let host = Host::new();
    bomb(
        &mut host.shell("i=0; while : > /build/f$i; do i=$((i+1)); done; exit 1"),
        "500 inodes below /build",
        None,
    );
    bomb(
        &mut host.shell("head -c 50000000 /dev/zero > /tmp/a"),
        "8388608 bytes below /tmp",
        Some(|l| l.tmp_bytes = 60 * MIB),
    );
    bomb(
        &mut host.shell("truncate -s 1T /build/a"),
        "a file of 25165824 bytes",
        None,
    );

    let mut sparse = host.shell("mkdir out; truncate -s 12M out/a; truncate -s 12M out/b");
    sparse.outputs.push(output("out", OutputKind::Tree));
    bomb(
        &mut sparse,
        "16777216 bytes of output \"out\"",
        Some(|l| l.output_bytes = 30 * MIB),
    );
    let mut many = host.shell("mkdir out; for i in $(seq 150); do : > out/$i; done");
    many.outputs.push(output("out", OutputKind::Tree));
    bomb(
        &mut many,
        "100 entries of output \"out\"",
        Some(|l| l.output_entries = 200),
    );
    let mut deep = host.shell("mkdir -p out/1/2/3/4/5/6/7/8/9/10/11/12");
    deep.outputs.push(output("out", OutputKind::Tree));
    bomb(&mut deep, "depth 10 of output \"out\"", Some(|l| l.output_depth = 20));

    let disk = scratch();
    for (script, says) in [
        (
            "for i in 1 2 3 4; do head -c 20000000 /dev/zero > f$i; done; sleep 15",
            "25165824 bytes below /build",
        ),
        (
            "i=0; while [ $i -lt 800 ]; do : > g$i; i=$((i+1)); done; sleep 15",
            "500 inodes below /build",
        ),
    ] {
        let mut spec = host.shell(script);
        spec.build_dir = BuildDir::Disk(disk.path().to_owned());
        bomb(&mut spec, says, None);
        assert_eq!(outside(&["ls", "-A"], disk.path()), "");
    }
}
