//! What a stage sees when its variation are made different, and what stays as it is.

use crate::host::{Host, input, printed, rel, scratch};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use pnb::sandbox::{Access, BuildDir, Processors, SystemInfo, Variation};
use std::fs;

/// The output of `script` under a variation.
fn said(script: &str, variation: Variation) -> String {
    let host = Host::new();
    let mut spec = host.shell(script);
    spec.variation = variation;
    printed(&spec)
}

#[test]
fn each_variation_has_its_effect() {
    let none = Variation::default;
    let env = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let own = sched_getaffinity(Pid::from_raw(0)).expect("known");
    let mut all = (0..CpuSet::count()).filter(|cpu| own.is_set(*cpu) == Ok(true));
    let runs_on = format!(
        "perl -e 'my $c = \"\\0\" x 4; syscall({}, $c, 0, 0); print unpack(\"L\", $c), \"\\n\"'",
        libc::SYS_getcpu
    );
    let last = all.next_back().expect("one").to_string();
    let cases: [(&str, Variation, &str); 12] = [
        (
            "getconf _PHYS_PAGES; getconf _AVPHYS_PAGES",
            Variation {
                machine: Some(SystemInfo {
                    uptime: 5,
                    load: 1,
                    memory: (3 << 30, 1 << 30),
                    processes: 9,
                }),
                ..none()
            },
            "786432\n262144",
        ),
        (
            "stat -f -c '%b %c' /usr /etc",
            Variation {
                other_inputs: true,
                ..none()
            },
            "1792 20000\n1792 20000",
        ),
        (
            "echo $TZ-$NOISE",
            Variation {
                env: env("NOISE", "loud"),
                ..none()
            },
            "UTC-loud",
        ),
        (
            "date +%Z",
            Variation {
                env: env("TZ", "<+1345>-13:45"),
                ..none()
            },
            "+1345",
        ),
        (
            "uname -n; domainname",
            Variation {
                names: Some(("another".to_owned(), "example.org".to_owned())),
                ..none()
            },
            "another\nexample.org",
        ),
        (
            "umask",
            Variation {
                umask: Some(0o027),
                ..none()
            },
            "0027",
        ),
        (
            "id -u; id -g; touch f; stat -c %u:%g f",
            Variation {
                id: Some(4321),
                ..none()
            },
            "4321\n4321\n4321:4321",
        ),
        (
            "pwd; touch f; ls /build",
            Variation {
                work_dir: Some(rel("a/longer/place")),
                ..none()
            },
            "/a/longer/place\nf",
        ),
        (
            "nproc",
            Variation {
                processors: Some(Processors { count: 2, last: false }),
                ..none()
            },
            "2",
        ),
        (
            // Where it runs; the number that it sees is the same with one processor.
            &runs_on,
            Variation {
                processors: Some(Processors { count: 1, last: true }),
                ..none()
            },
            &last,
        ),
        (
            "uname -rn",
            Variation {
                kernel: Some("9.8.7-other".to_owned()),
                ..none()
            },
            "pnb 9.8.7-other",
        ),
        (
            "ulimit -d",
            Variation {
                memory_factor: Some(2),
                ..none()
            },
            &(4u64 << 20).to_string(),
        ),
    ];
    for (script, variation, expected) in cases {
        let plain = said(script, none());
        let found = said(script, variation);
        assert_eq!(found.trim(), expected, "{script}");
        assert_ne!(plain, found, "{script}: the same without");
    }
}

#[test]
fn programs_are_laid_out_alike_where_that_is_asked_for() {
    let script = "/usr/bin/perl -e 'my $x = {}; print \"$x\"'";
    let fixed = || Variation {
        fixed_layout: true,
        ..Variation::default()
    };
    assert_eq!(said(script, fixed()), said(script, fixed()));
    let (a, b) = (said(script, Variation::default()), said(script, Variation::default()));
    assert_ne!(a, b, "and differently otherwise");
}

#[test]
fn listings_come_in_another_order_that_the_seed_decides() {
    let dir = scratch();
    for i in 0..60 {
        fs::write(dir.path().join(format!("file-{i}")), "x").expect("written");
    }
    // find(1) lists without sorting, with threads of its own or not; perl lists through its own buffer.
    let script = "find /inputs/dir -type f -printf '%f\\n'; perl -e 'opendir(D, \"/inputs/dir\"); print \"$_\\n\" while $_ = readdir D'; \
                  rm -rf /tmp/x; mkdir -p /tmp/x/y; touch /tmp/x/y/1 /tmp/x/y/2; rm -r /tmp/x; test ! -e /tmp/x";
    let listed = |shuffle: Option<u64>| {
        let host = Host::new();
        let mut spec = host.shell(script);
        spec.mounts.push(input(dir.path(), "dir", Access::ReadOnly));
        spec.variation.shuffle = shuffle;
        printed(&spec)
    };
    let plain = listed(None);
    assert_eq!(plain, listed(None));
    let shuffled = listed(Some(1));
    assert_ne!(shuffled, plain);
    assert_eq!(shuffled, listed(Some(1)));
    assert_ne!(shuffled, listed(Some(2)));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&shuffled), sorted(&plain), "nothing is lost or twice there");
}

#[test]
fn files_of_a_variation_lie_below_dev_and_in_every_inner_root() {
    let passed = scratch();
    fs::write(passed.path().join("file"), "passed").expect("written");
    let host = Host::new();
    for build_dir in [None, Some(scratch())] {
        let mut spec = host.shell("cat /dev/pnb/file /build/inner/dev/pnb/file; echo x 2>/dev/null >/dev/pnb/file || echo no; cd /other; echo y > g; cat /build/g");
        spec.dev_in.push(rel("inner"));
        spec.variation.files = Some(passed.path().to_owned());
        spec.variation.work_dir = Some(rel("other"));
        if let Some(dir) = &build_dir {
            spec.build_dir = BuildDir::Disk(dir.path().to_owned());
        }
        assert_eq!(printed(&spec).trim(), "passedpassedno\ny");
    }
}

#[test]
fn the_policy_has_no_variation() {
    let host = Host::new();
    let mut spec = host.shell("true");
    let policy = spec.policy();
    spec.variation = Variation {
        umask: Some(0o077),
        env: [("NOISE".to_owned(), "x".to_owned())].into(),
        memory_factor: Some(3),
        ..Variation::default()
    };
    assert_eq!(spec.policy(), policy);
}
