//! What a build costs: cold, nothing changed, another agent; what building twice costs, an audit, and finding a byte in an image.
//!
//! `cargo bench --bench build` prints one table. Each figure is the middle one of several runs. The ratio beside it is to the cold build of
//! `kernel-initrd` of the same run; the row that repeats a build of all variants has its ratio to a cold build of all. Rows that are measured in
//! turns with cold builds have the middle one of the ratios of single turns, as the machine's speed changes from one to the next. Where mmdebstrap is installed it configures the same packages as root, outside any sandbox,
//! as a peer. Words choose rows: `cargo bench --bench build -- agent unchanged`.
//!
//! With the word `before=DIR`, a checkout of another commit with its program in `target/release/pnb`, each build is measured in turns with
//! that one, and the table has the processor time there and the middle one of the ratios of single turns.
//!
//! Memory is what a build's processes and file systems in memory hold at once: anonymous memory of the processes (`RssAnon` of
//! proc_pid_status(5)) and tmpfs (`Shmem` of proc_meminfo(5), which counts the whole machine), looked at every 50 ms. Pages of files on
//! disks are not counted.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What one run took.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

/// The most memory that a run held at once, in bytes.
#[derive(Clone, Copy, Default)]
struct Memory {
    /// Of all processes and file systems in memory.
    all: u64,
    /// Of the largest process.
    process: u64,
}

/// A program with its project and its store.
struct Side {
    program: PathBuf,
    project: PathBuf,
    scratch: PathBuf,
    mirror: String,
}

struct Bench {
    this: Side,
    before: Option<Side>,
    words: Vec<String>,
    /// The number of the last agent that was made: no two of a run are the same.
    agents: Cell<u32>,
}

fn main() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).expect("scratch");
    let mirror = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mirror");
    let mirror_url = format!("file://{}", mirror.display());
    let side = |name: &str, program: PathBuf, project: &Path| {
        let side = Side {
            program,
            project: project.to_owned(),
            scratch: scratch.join(name),
            mirror: mirror_url.clone(),
        };
        fs::create_dir_all(&side.scratch).expect("scratch");
        run(side.bare().arg("vendor").arg(&mirror));
        side
    };
    let this = side(
        "this",
        env!("CARGO_BIN_EXE_pnb").into(),
        Path::new(env!("CARGO_MANIFEST_DIR")),
    );
    // Cargo's own word for a benchmark is not one of ours.
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let dir = words
        .iter()
        .find_map(|word| Some(word.strip_prefix(BEFORE)?.to_owned()));
    words.retain(|word| !word.starts_with(BEFORE));
    let before = dir.map(|dir| {
        let dir = fs::canonicalize(dir).expect("the word before= has a directory");
        side("before", dir.join("target/release/pnb"), &dir)
    });
    let bench = Bench {
        this,
        before,
        words,
        agents: Cell::new(std::process::id()),
    };
    println!(
        "{:<44} {:>8} {:>8} {:>8}{}",
        "",
        "wall s",
        "CPU s",
        "of cold",
        if bench.before.is_some() {
            "   CPU s before   ratio"
        } else {
            ""
        }
    );
    bench.this.fetch("amd64");
    let cold = middle((0..3).map(|_| bench.this.cold("amd64", KERNEL_INITRD)).collect());
    bench.builds(cold);
    bench.twice();
    if bench.wants("audit") {
        bench.this.build("amd64", KERNEL_INITRD, None);
        print("audit", middle((0..3).map(|_| bench.this.audit()).collect()), cold);
    }
    if bench.wants("byte") {
        let (bytes, found) = bench.this.diff();
        print(&format!("a byte found in {} MB", bytes / 1_000_000), found, cold);
    }
    if bench.wants("mmdebstrap")
        && let Some(peer) = bench.this.mmdebstrap()
    {
        print("mmdebstrap, same packages, no image", peer, cold);
    }
    if bench.wants("memory") {
        bench.memory();
    }
    if bench.wants("arm64") {
        bench.row("all of arm64, cold", 2, cold, |side| side.cold("arm64", EVERY_VARIANT));
    }
}

/// Begin of the word that names a checkout of another commit.
const BEFORE: &str = "before=";
const KERNEL_INITRD: &[&str] = &["--variant", "kernel-initrd"];
const EVERY_VARIANT: &[&str] = &[];

impl Bench {
    /// Whether the row was asked for.
    fn wants(&self, word: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|wanted| wanted == word)
    }

    /// Cold builds, builds with nothing to do and builds with another agent, of one variant and of all.
    fn builds(&self, cold: Cost) {
        if self.wants("cold") {
            self.row("kernel-initrd, cold, packages in the store", 5, cold, |side| {
                side.cold("amd64", KERNEL_INITRD)
            });
            self.row("all of amd64, cold", 5, cold, |side| side.cold("amd64", EVERY_VARIANT));
        }
        for side in self.sides() {
            side.build("amd64", EVERY_VARIANT, None);
        }
        if self.wants("unchanged") {
            self.row("all, nothing changed", 9, cold, |side| {
                side.build("amd64", EVERY_VARIANT, None)
            });
        }
        if self.wants("agent") {
            self.row("kernel-initrd, another agent", 5, cold, |side| {
                side.build("amd64", KERNEL_INITRD, Some(self.agent()))
            });
            self.row("all, another agent", 5, cold, |side| {
                side.build("amd64", EVERY_VARIANT, Some(self.agent()))
            });
        }
    }

    /// Building twice, in turns with cold builds of the same program.
    fn twice(&self) {
        for (word, name, variants) in [
            (
                "repro",
                "verify-repro of kernel-initrd, everything varied",
                KERNEL_INITRD,
            ),
            ("repro-all", "verify-repro of all of amd64", EVERY_VARIANT),
        ] {
            if !self.wants(word) {
                continue;
            }
            let turns = (0..if variants.is_empty() { 3 } else { 5 }).map(|_| {
                let cold = self.this.cold("amd64", variants);
                self.this.surroundings();
                (self.this.twice(variants), cold)
            });
            in_turns(name, turns);
        }
    }

    /// What all variants of amd64 hold in memory, cold.
    fn memory(&self) {
        for side in self.sides() {
            let mut all: Vec<Memory> = (0..3).map(|_| side.cold_memory()).collect();
            all.sort_by_key(|memory| memory.all);
            println!(
                "{:<44} {:>8} MB in all, {} MB in the largest process",
                format!("memory of all of amd64, cold ({})", side.name()),
                all[1].all / 1_000_000,
                all[1].process / 1_000_000
            );
        }
    }

    /// Another agent than any before.
    fn agent(&self) -> String {
        let number = self.agents.get() + 1;
        self.agents.set(number);
        format!("#!/bin/sh\n# {number}\nexec sleep 1000000\n")
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        std::iter::once(&self.this).chain(&self.before)
    }

    /// Measures this program, and the one before in turns with it.
    fn row(&self, name: &str, turns: usize, cold: Cost, work: impl Fn(&Side) -> Cost) {
        let costs: Vec<(Cost, Option<Cost>)> = (0..turns)
            .map(|_| {
                let before = self.before.as_ref().map(&work);
                (work(&self.this), before)
            })
            .collect();
        let this = middle(costs.iter().map(|cost| cost.0).collect());
        let pairs: Vec<(Cost, Cost)> = costs
            .iter()
            .filter_map(|(this, before)| Some((*this, (*before)?)))
            .collect();
        let compared = if pairs.is_empty() {
            String::new()
        } else {
            let before = middle(pairs.iter().map(|pair| pair.1).collect());
            format!(
                "{:>15.3} {:>7.3}",
                before.cpu.as_secs_f64(),
                middle_ratio(pairs.into_iter())
            )
        };
        println!(
            "{}{compared}",
            line(name, this, this.cpu.as_secs_f64() / cold.cpu.as_secs_f64())
        );
    }
}

fn print(name: &str, cost: Cost, cold: Cost) {
    println!("{}", line(name, cost, cost.cpu.as_secs_f64() / cold.cpu.as_secs_f64()));
}

/// A row of what was measured in turns with cold builds.
fn in_turns(name: &str, turns: impl Iterator<Item = (Cost, Cost)>) {
    let turns: Vec<(Cost, Cost)> = turns.collect();
    let costs = middle(turns.iter().map(|turn| turn.0).collect());
    println!("{}", line(name, costs, middle_ratio(turns.into_iter())));
}

fn line(name: &str, cost: Cost, ratio: f64) -> String {
    format!(
        "{name:<44} {:>8.3} {:>8.3} {ratio:>8.4}",
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64()
    )
}

/// The middle one of the ratios of processor times.
fn middle_ratio(pairs: impl Iterator<Item = (Cost, Cost)>) -> f64 {
    let mut ratios: Vec<f64> = pairs
        .map(|(one, other)| one.cpu.as_secs_f64() / other.cpu.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
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

/// Runs a program and looks at its memory until it ends.
fn watch(command: &mut Command) -> Memory {
    let base = field("/proc/meminfo", "Shmem:").expect("a field of /proc/meminfo");
    let mut child: Child = command.stdout(Stdio::null()).spawn().expect("starts");
    let mut most = Memory::default();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        let processes = descendants(child.id());
        let anonymous = || {
            processes
                .iter()
                .filter_map(|pid| field(&format!("/proc/{pid}/status"), "RssAnon:"))
        };
        let shared = field("/proc/meminfo", "Shmem:").expect("a field").saturating_sub(base);
        most.all = most.all.max(anonymous().sum::<u64>() + shared);
        most.process = most.process.max(anonymous().max().unwrap_or(0));
        thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{command:?}");
    most
}

/// A field in kB of a file of /proc, in bytes; `None` when the process has ended.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// A process and all that it has started, and that these have.
#[expect(clippy::disallowed_methods, reason = "only looked through")]
fn descendants(first: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // The name of the program, in brackets, may have any byte; the state and the parent follow it.
        let Ok(stat) = fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![first];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found
}

impl Side {
    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.scratch.file_name().expect("a name").to_string_lossy()
    }

    fn bare(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--project").arg(&self.project).arg("--quiet");
        command
    }

    fn pnb(&self) -> Command {
        let mut command = self.bare();
        command
            .arg("--store")
            .arg(self.scratch.join("store"))
            .arg("--offline")
            .arg("--mirror")
            .arg(&self.mirror);
        command
    }

    fn fetch(&self, arch: &str) -> Cost {
        run(self.pnb().args(["fetch", "--arch", arch]))
    }

    fn building(&self, arch: &str, variants: &[&str]) -> Command {
        let mut command = self.pnb();
        command.args(["build", "--hermetic", "--allow-dirty", "--arch", arch]);
        command.args(variants).arg("--output").arg(self.scratch.join("images"));
        command
    }

    fn build(&self, arch: &str, variants: &[&str], agent: Option<String>) -> Cost {
        let mut command = self.building(arch, variants);
        if let Some(text) = agent {
            let path = self.scratch.join("agent");
            fs::write(&path, text).expect("written");
            command.arg("--agent").arg(path);
        }
        run(&mut command)
    }

    /// Empties the store, but for the packages.
    fn empty(&self, arch: &str) {
        let _ = fs::remove_dir_all(self.scratch.join("store"));
        let _ = fs::remove_dir_all(self.scratch.join("images"));
        self.fetch(arch);
    }

    fn cold(&self, arch: &str, variants: &[&str]) -> Cost {
        self.empty(arch);
        self.build(arch, variants, None)
    }

    fn cold_memory(&self) -> Memory {
        self.empty("amd64");
        watch(&mut self.building("amd64", EVERY_VARIANT))
    }

    /// What `verify-repro` needs in the store the first time.
    fn surroundings(&self) -> Cost {
        run(self
            .pnb()
            .args(["build", "--stage", "surroundings,surroundings-locale"]))
    }

    fn twice(&self, variants: &[&str]) -> Cost {
        let mut command = self.pnb();
        command.args(["verify-repro", "--arch", "amd64", "--vary", "all"]);
        run(command.args(variants).arg("--output").arg(self.scratch.join("images")))
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
            let mut command = self.bare();
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
