//! What stages on workers cost and gain: an action of stages that do nothing, and a fan-out of four agents by five variants.
//!
//! `cargo bench --bench fan_out` prints two tables. BuildGrid, PostgreSQL, the workers and the clients run on this machine. A worker has one
//! processor, its number among the processors of the machine; the clients come after everything else (nice(1)), each with an empty store, as
//! the jobs of a matrix. The bytes are those of the loopback: `unshare -n` keeps others' out (docs/scale.md).

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(dead_code, reason = "shared with the tests, which use all of it")]

#[path = "../tests/remote/buildgrid.rs"]
mod buildgrid;
#[path = "../tests/remote/client.rs"]
mod client;
#[path = "../tests/remote/engine.rs"]
mod engine;
#[path = "../tests/remote/ground.rs"]
mod ground;
#[path = "../tests/fixture/own_loader.rs"]
mod own_loader;
#[path = "../tests/remote/process.rs"]
mod process;
#[path = "../tests/source/project.rs"]
mod project;
#[path = "../tests/fixture/stage_tree.rs"]
mod stage_tree;
#[path = "../tests/publish/tls.rs"]
mod tls;

use buildgrid::{BuildGrid, WorkerOptions, start_worker};
use engine::Casd;
use ground::Ground;
use process::{ServerProcess, below, fields};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The variants, unless others are named.
const VARIANTS: &str = "kernel-initrd,iso,raw,qcow2,oci";
/// Agents of a fan-out.
const AGENTS: u32 = 4;

fn main() {
    // Which tables: `actions`, `home`, `warm`, `cold`; all unless named. `variants=NAME,…` are others than the five.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let variants = words
        .iter()
        .find_map(|word| word.strip_prefix("variants="))
        .unwrap_or(VARIANTS);
    let named: Vec<&String> = words.iter().filter(|word| !word.contains('=')).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|word| *word == name);
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fan-out");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).expect("scratch");
    let mirror = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mirror");
    let vendored = pnb().arg("vendor").arg(&mirror).status().expect("starts");
    assert!(vendored.success(), "pnb vendor");
    if wanted("actions") {
        actions();
    }
    let bench = Bench {
        mirror: format!("file://{}", mirror.display()),
        variants: variants.to_owned(),
        scratch,
    };
    if wanted("home") || wanted("warm") || wanted("cold") {
        head(variants);
    }
    if wanted("home") {
        println!("{:<34} {:>8.1}", "at home, one processor, warm", bench.home());
    }
    if wanted("warm") {
        bench.warm();
    }
    if wanted("cold") {
        bench.cold();
    }
    fs::remove_dir_all(&bench.scratch).expect("removed");
}

fn pnb() -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19", env!("CARGO_BIN_EXE_pnb"), "--quiet"]);
    command.arg("--project").arg(env!("CARGO_MANIFEST_DIR"));
    command
}

/// The four stages of the tests' small project, none of which takes a tenth of a second: at home, and on both engines, where they are one
/// action.
fn actions() {
    let dir = tempfile::tempdir().expect("scratch");
    let ground = Ground::new();
    let casd = Casd::with_runner(&made(&dir.path().join("casd")));
    let farm = BuildGrid::start(&made(&dir.path().join("farm")), &[WorkerOptions::named("one")]);
    let places = [
        ("at home", None),
        ("buildbox-casd", Some(casd.url())),
        ("BuildGrid", Some(farm.url())),
    ];
    println!(
        "{:<34} {:>9} {:>12} {:>6}",
        "four stages that do nothing", "wall s", "beside them", "load"
    );
    let mut times = vec![Vec::new(); places.len()];
    for round in 0..5 {
        for (number, (_, url)) in places.iter().enumerate() {
            let store = format!("{round}-{number}");
            let begin = Instant::now();
            let built = match url {
                None => ground.build(&store, &[]),
                Some(url) => ground.build(&store, &["--remote", url, "--remote-no-accept"]),
            };
            assert_eq!(built.well().0.len(), 4, "{}", built.said);
            times[number].push(begin.elapsed().as_secs_f64());
        }
    }
    let middles: Vec<f64> = times.into_iter().map(middle).collect();
    for ((name, _), wall) in places.iter().zip(&middles) {
        println!("{name:<34} {wall:>9.2} {:>12.2} {:>6}", wall - middles[0], load());
    }
    println!();
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn made(path: &Path) -> PathBuf {
    fs::create_dir_all(path).expect("made");
    path.to_owned()
}

/// The load average of the last minute.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").expect("mounted");
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Bytes that have gone over the loopback.
fn moved() -> u64 {
    let text = fs::read_to_string("/proc/net/dev").expect("mounted");
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    let first = line.and_then(|line| line.split_whitespace().next());
    first.and_then(|bytes| bytes.parse().ok()).expect("a loopback")
}

/// Processor time of every child that has ended.
fn children() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("asked");
    let seconds = |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The worker on processor `number`.
fn worker(number: u32) -> WorkerOptions {
    WorkerOptions {
        processor: Some(number),
        ..WorkerOptions::named(if number == 0 { "one" } else { "two" })
    }
}

fn head(variants: &str) {
    println!("{AGENTS} agents, amd64, {variants}");
    println!(
        "{:<34} {:>8} {:>13} {:>9} {:>9} {:>8} {:>6}",
        "", "wall s", "workers CPU s", "engine", "clients", "GB", "load"
    );
}

/// The processor time of a server and all that it has started and waited for, or that run below it.
fn spent_by(process: &ServerProcess) -> Duration {
    let mut all = below(process.pid());
    all.push(process.pid());
    // The 14th to 17th field of the line, in hundredths of a second (proc(5)).
    let ticks = all.into_iter().flat_map(|pid| {
        let fields = fields(pid);
        (11..15).map(move |field| fields.get(field).and_then(|value| value.parse().ok()).unwrap_or(0_u64))
    });
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// The processor time so far of each worker with its actions, and of the scheduler with its database.
fn spent(farm: &BuildGrid) -> (Vec<Duration>, Duration) {
    let workers = farm.workers.iter().map(|(_, process)| spent_by(process));
    let engine = [&farm.scheduler, &farm._database.process].map(spent_by);
    (workers.collect(), engine.into_iter().sum())
}

struct Bench {
    scratch: PathBuf,
    variants: String,
    mirror: String,
}

impl Bench {
    /// The shared stages are in the cache: on one worker, and on two.
    fn warm(&self) {
        let dir = made(&self.scratch.join("warm"));
        let mut farm = BuildGrid::start(&dir, &[worker(0)]);
        let first = self.client(&farm, 99).status().expect("starts");
        assert!(first.success(), "the first agent");
        self.forget(99, 1);
        let one = self.turn("one worker, warm", &farm, 4);
        let second = start_worker(&farm.directory, farm.address, &worker(1));
        farm.workers.push((worker(1), second));
        let two = self.turn("two workers, warm", &farm, 8);
        println!("{:<34} {:>8.2}", "two workers against one, warm", one / two);
        drop(farm);
        fs::remove_dir_all(dir).expect("removed");
    }

    /// The cache is empty: on one worker, and on two.
    fn cold(&self) {
        let turn = |name: &str, workers: &[WorkerOptions]| {
            let dir = made(&self.scratch.join("cold"));
            let farm = BuildGrid::start(&dir, workers);
            let wall = self.turn(name, &farm, 0);
            drop(farm);
            fs::remove_dir_all(dir).expect("removed");
            wall
        };
        let one = turn("one worker, cold", &[worker(0)]);
        let two = turn("two workers, cold", &[worker(0), worker(1)]);
        println!("{:<34} {:>8.2}", "two workers against one, cold", one / two);
    }

    /// The command that builds with agent number `agent` in a store of its own.
    fn build(&self, store: &Path, agent: u32) -> Command {
        let file = self.scratch.join(format!("agent-{agent}"));
        fs::write(&file, format!("#!/bin/sh\n# {agent}\nexec sleep 1000000\n")).expect("written");
        let mut command = pnb();
        command.arg("--store").arg(store).arg("--mirror").arg(&self.mirror);
        command.args([
            "build",
            "--hermetic",
            "--allow-dirty",
            "--arch",
            "amd64",
            "--variant",
            &self.variants,
        ]);
        command
            .arg("--agent")
            .arg(file)
            .arg("--output")
            .arg(store.join("images"));
        command.stdout(Stdio::null());
        command
    }

    /// The agents one after the other on one processor, in a store that has all that no agent is in.
    fn home(&self) -> f64 {
        let store = self.scratch.join("home");
        let run = |agent| {
            let command = self.build(&store, agent);
            let mut pinned = Command::new("taskset");
            pinned
                .args(["-c", "0"])
                .arg(command.get_program())
                .args(command.get_args());
            let status = pinned.stdout(Stdio::null()).status().expect("starts");
            assert!(status.success(), "agent {agent} at home");
        };
        run(99);
        let begin = Instant::now();
        (0..AGENTS).for_each(run);
        let wall = begin.elapsed().as_secs_f64();
        fs::remove_dir_all(&store).expect("removed");
        wall
    }

    /// Builds with four agents at once, prints a row, and returns the seconds.
    fn turn(&self, name: &str, farm: &BuildGrid, first: u32) -> f64 {
        let (begin, cpu, before, bytes) = (Instant::now(), children(), spent(farm), moved());
        let clients: Vec<Child> = (first..first + AGENTS)
            .map(|agent| self.client(farm, agent).spawn().expect("starts"))
            .collect();
        for mut client in clients {
            assert!(client.wait().expect("ends").success(), "{name}");
        }
        let (wall, after) = (begin.elapsed().as_secs_f64(), spent(farm));
        let each = after.0.iter().zip(&before.0).map(|(after, before)| *after - *before);
        let workers: Vec<String> = each.map(|spent| format!("{:.1}", spent.as_secs_f64())).collect();
        println!(
            "{name:<34} {wall:>8.1} {:>13} {:>9.1} {:>9.1} {:>8.2} {:>6}",
            workers.join(" "),
            (after.1 - before.1).as_secs_f64(),
            (children() - cpu).as_secs_f64(),
            (moved() - bytes) as f64 / 1e9,
            load()
        );
        self.forget(first, AGENTS);
        wall
    }

    /// Removes the stores of these clients.
    fn forget(&self, first: u32, count: u32) {
        for agent in first..first + count {
            fs::remove_dir_all(self.store_of(agent)).expect("removed");
        }
    }

    fn store_of(&self, agent: u32) -> PathBuf {
        self.scratch.join(format!("client-{agent}"))
    }

    /// The command that builds with agent number `agent` on the farm.
    fn client(&self, farm: &BuildGrid, agent: u32) -> Command {
        let mut command = self.build(&self.store_of(agent), agent);
        command.args(["--remote", &farm.url()]);
        command.args(["--remote-queue-timeout", "3600", "--remote-timeout", "60"]);
        command
    }
}
