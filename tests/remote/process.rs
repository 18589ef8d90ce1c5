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

    /// The processes below this one with this text in their command line.
    pub(crate) fn running(&self, text: &str) -> Vec<i32> {
        let below = below(self.pid());
        let mut found = with_command_line(text);
        found.retain(|pid| below.contains(pid));
        found
    }

    pub(crate) fn pid(&self) -> i32 {
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

    /// Kills it and the processes directly below it that have this text in their command line, and nothing that those have started.
    pub(crate) fn kill_with(&mut self, text: &str) {
        let mut direct = children(self.pid());
        direct.retain(|pid| with_command_line(text).contains(pid));
        let _ = self.child.kill();
        for pid in direct {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        self.ended = true;
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

/// Whether a process is there, dead and not waited for or not.
pub(crate) fn is_there(pid: i32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// The processes that this one has started, or was given by the end of others, as `/proc` has them.
fn children(pid: i32) -> Vec<i32> {
    let mut found = all();
    found.retain(|child| fields(*child).get(1).and_then(|parent| parent.parse().ok()) == Some(pid));
    found
}

/// The fields of a process from its state on.
pub(crate) fn fields(pid: i32) -> Vec<String> {
    // The name in parentheses may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    rest.split(' ').map(str::to_owned).collect()
}

/// All processes below this one.
pub(crate) fn below(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    found
}
