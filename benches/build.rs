//! What a build costs: cold, nothing changed, another agent; what building twice costs, an audit, and finding a byte in an image.
//!
//! `cargo bench --bench build` prints one table; each figure is the middle one of several runs, beside its ratio to the cold build of the
//! same run. What is measured in turns with cold builds has the middle one of the ratios of single turns, as the machine's speed changes
//! from one to the next. Where mmdebstrap is installed it configures the same packages as root, outside any sandbox, as a peer.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Wall and processor time of one run.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

struct Bench {
    scratch: PathBuf,
    mirror: String,
}

fn main() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).expect("scratch");
    let mirror = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mirror");
    run(pnb().arg("vendor").arg(&mirror));
    let bench = Bench {
        mirror: format!("file://{}", mirror.display()),
        scratch,
    };
    bench.fetch();
    println!(
        "{:<34} {:>9} {:>9} {:>8}",
        "kernel-initrd/amd64", "wall s", "CPU s", "of cold"
    );
    // In turns, so that all meet the same neighbours.
    let rounds: Vec<_> = (0..5)
        .map(|_| (bench.cold(), bench.surroundings(), bench.twice()))
        .collect();
    let cold = middle(rounds.iter().map(|round| round.0).collect());
    row("cold, packages in the store", cold, cold);
    in_turns("another clock and locale, once", rounds.iter().map(|r| (r.1, r.0)));
    in_turns("verify-repro, everything varied", rounds.iter().map(|r| (r.2, r.0)));
    row(
        "nothing changed",
        middle((0..9).map(|_| bench.build(None)).collect()),
        cold,
    );
    let agents = (0..5).map(|n| bench.build(Some(&format!("#!/bin/sh\n# {n}\nexec sleep 1000000\n"))));
    row("another agent", middle(agents.collect()), cold);
    row("audit", middle((0..3).map(|_| bench.audit()).collect()), cold);
    let (bytes, found) = bench.diff();
    row(&format!("a byte found in {} MB", bytes / 1_000_000), found, cold);
    if let Some(peer) = bench.mmdebstrap() {
        row("mmdebstrap, same packages, no image", peer, cold);
    }
}

fn pnb() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("--project").arg(env!("CARGO_MANIFEST_DIR")).arg("--quiet");
    command
}

fn row(name: &str, cost: Cost, cold: Cost) {
    print(name, cost, cost.cpu.as_secs_f64() / cold.cpu.as_secs_f64());
}

/// A row of what was measured in turns with cold builds.
fn in_turns(name: &str, turns: impl Iterator<Item = (Cost, Cost)>) {
    let (costs, mut ratios): (Vec<Cost>, Vec<f64>) = turns
        .map(|(cost, cold)| (cost, cost.cpu.as_secs_f64() / cold.cpu.as_secs_f64()))
        .unzip();
    ratios.sort_by(f64::total_cmp);
    print(name, middle(costs), ratios[ratios.len() / 2]);
}

fn print(name: &str, cost: Cost, ratio: f64) {
    println!(
        "{name:<34} {:>9.3} {:>9.3} {ratio:>8.4}",
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64()
    );
}

fn middle(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|c| c.cpu);
    costs[costs.len() / 2]
}

/// Processor time of every child that has ended.
fn children() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("asked");
    let seconds = |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn run(command: &mut Command) -> Cost {
    run_to(command, 0)
}

/// Runs a program that has to end with an exit code.
fn run_to(command: &mut Command, code: i32) -> Cost {
    let (start, before) = (Instant::now(), children());
    let status = command.stdout(Stdio::null()).status().expect("starts");
    assert_eq!(status.code(), Some(code), "{command:?}");
    Cost {
        wall: start.elapsed(),
        cpu: children() - before,
    }
}

impl Bench {
    fn pnb(&self) -> Command {
        let mut command = pnb();
        command
            .arg("--store")
            .arg(self.scratch.join("store"))
            .arg("--offline")
            .arg("--mirror")
            .arg(&self.mirror);
        command
    }

    fn fetch(&self) -> Cost {
        run(self.pnb().args(["fetch", "--arch", "amd64"]))
    }

    fn build(&self, agent: Option<&str>) -> Cost {
        let mut command = self.pnb();
        command.args([
            "build",
            "--hermetic",
            "--allow-dirty",
            "--variant",
            "kernel-initrd",
            "--output",
        ]);
        command.arg(self.scratch.join("images"));
        if let Some(text) = agent {
            let path = self.scratch.join("agent");
            fs::write(&path, text).expect("written");
            command.arg("--agent").arg(path);
        }
        run(&mut command)
    }

    fn cold(&self) -> Cost {
        let _ = fs::remove_dir_all(self.scratch.join("store"));
        let _ = fs::remove_dir_all(self.scratch.join("images"));
        self.fetch();
        self.build(None)
    }

    /// What `verify-repro` needs in the store the first time.
    fn surroundings(&self) -> Cost {
        run(self
            .pnb()
            .args(["build", "--stage", "surroundings,surroundings-locale"]))
    }

    fn twice(&self) -> Cost {
        let mut command = self.pnb();
        command.args([
            "verify-repro",
            "--variant",
            "kernel-initrd",
            "--vary",
            "all",
            "--output",
        ]);
        run(command.arg(self.scratch.join("images")))
    }

    /// Compares a disk with a copy in which one byte is another; how large it is, and what that costs.
    fn diff(&self) -> (u64, Cost) {
        let images = self.scratch.join("images");
        let mut command = self.pnb();
        command.args(["build", "--variant", "raw", "--output"]).arg(&images);
        run(&mut command);
        let (disk, copy) = (images.join("raw/amd64/disk.raw"), self.scratch.join("copy.raw"));
        fs::copy(&disk, &copy).expect("copied");
        let file = File::options().read(true).write(true).open(&copy).expect("ours");
        let size = file.metadata().expect("there").len();
        let mut byte = [0];
        // Behind the middle, in what is no hole.
        let place = (size / 2..).step_by(4096).find(|place| {
            file.read_exact_at(&mut byte, *place).expect("readable");
            byte[0] != 0
        });
        file.write_all_at(&[!byte[0]], place.expect("some content"))
            .expect("written");
        let costs = (0..5).map(|_| {
            let mut command = pnb();
            command.arg("diff").arg(&disk).arg(&copy);
            run_to(&mut command, 1)
        });
        (size, middle(costs.collect()))
    }

    fn audit(&self) -> Cost {
        run(self
            .pnb()
            .arg("audit")
            .arg(self.scratch.join("images/kernel-initrd/amd64")))
    }

    /// The same packages from the same files, by the host's mmdebstrap in its own user namespace.
    fn mmdebstrap(&self) -> Option<Cost> {
        Command::new("mmdebstrap")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .ok()?;
        let packages = self.scratch.join("packages");
        let listing = Command::new("find")
            .arg(self.mirror.strip_prefix("file://")?)
            .args(["-name", "*.deb"])
            .output()
            .ok()?;
        let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("lockfile.toml")).ok()?;
        let lock = pnb::lock::parse_lock(&lock, "lockfile.toml").ok()?;
        fs::create_dir_all(&packages).ok()?;
        let mut names = Vec::new();
        for package in lock.packages_of(&"rootfs/amd64".parse().ok()?) {
            let file = String::from_utf8_lossy(package.path.name()).into_owned();
            let found = String::from_utf8_lossy(&listing.stdout)
                .lines()
                .find(|l| l.ends_with(&file))
                .map(str::to_owned)?;
            fs::copy(found, packages.join(file)).ok()?;
            names.push(package.name.clone());
        }
        let index = "cd \"$0\" && apt-ftparchive packages . > Packages && apt-ftparchive -o APT::FTPArchive::Release::Suite=x \
                     -o APT::FTPArchive::Release::Codename=x release . > Release";
        run(Command::new("sh").arg("-c").arg(index).arg(&packages));
        let source = format!("deb [trusted=yes] copy:{} ./", packages.display());
        let include = format!("--include={}", names.join(","));
        let target = self.scratch.join("peer.tar");
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--quiet", "--variant=essential", &include, "x"])
            .arg(target)
            .arg(source)
            .stderr(Stdio::null());
        Some(run(&mut command))
    }
}
