//! A server of a test as a process: a free port, a log, and an end that leaves nothing behind.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take until it answers: on a machine with a loaded processor too.
pub(crate) const READY: Duration = Duration::from_secs(60);
/// How long a server may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address of the loopback that is free now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound")
}

/// Asks `ready` until it says yes or the time is over.
pub(crate) fn wait_until(time: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < time {
        if ready() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// A process in a group of its own, which ends with the value together with all processes below it. The log of a test that fails is shown.
pub(crate) struct ServerProcess {
    name: String,
    log: PathBuf,
    child: Child,
    ended: bool,
}

impl ServerProcess {
    /// Starts it. What it prints is added to the file `log`.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(log);
        let file = file.expect("a log");
        command.stdin(Stdio::null()).process_group(0);
        command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| unreachable!("{name}: {error}"));
        Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
            ended: false,
        }
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.ended = self.ended || self.child.try_wait().expect("a state").is_some();
        self.ended
    }

    /// All it printed so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether a process with this text in its command line runs below this one.
    pub(crate) fn runs(&self, text: &str) -> bool {
        let below = below(self.pid());
        with_command_line(text).iter().any(|pid| below.contains(pid))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Kills it and all processes below it, as a machine that loses power.
    pub(crate) fn kill(&mut self) {
        if self.has_ended() {
            return;
        }
        let below = below(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.ended = true;
        for pid in below {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Asks it to end with SIGTERM, and kills what is there after that.
    pub(crate) fn stop(&mut self) {
        self.stop_by(Signal::SIGTERM);
    }

    /// The same with another signal.
    pub(crate) fn stop_by(&mut self, signal: Signal) {
        if self.has_ended() {
            return;
        }
        let below = below(self.pid());
        let _ = kill(Pid::from_raw(self.pid()), signal);
        wait_until(PATIENCE, || self.has_ended());
        if self.ended {
            for pid in below {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        } else {
            self.kill();
        }
    }
}

impl Drop for ServerProcess {
    #[expect(clippy::print_stderr, reason = "the test's own output, which is shown when it fails")]
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- log of {}:\n{}\n---", self.name, last.join("\n"));
        }
    }
}

/// All processes of the machine.
fn all() -> Vec<i32> {
    #[expect(clippy::disallowed_methods, reason = "the order of processes does not matter")]
    let entries = fs::read_dir("/proc").expect("mounted");
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// All processes of the machine with this text in their command line.
pub(crate) fn with_command_line(text: &str) -> Vec<i32> {
    let mut found = all();
    found.retain(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    });
    found
}

/// All processes below this one.
fn below(pid: i32) -> Vec<i32> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    for child in all() {
        // The name in parentheses may hold anything; the state and the parent follow the last one.
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        if let Some(parent) = rest.split(' ').nth(1).and_then(|parent| parent.parse().ok()) {
            parents.push((child, parent));
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == found[next]);
        let children: Vec<i32> = children.map(|(child, _)| *child).collect();
        found.extend(children);
        next += 1;
    }
    found.remove(0);
    found
}
