//! The built-in `machine`: runs a program, an HTTP server and relays in one sandbox.
//!
//! A machine that boots over a network needs a server, and the network of a sandbox has no other member. The built-in therefore serves in
//! a thread, and runs the program as its child. Relays lead to servers outside, through Unix sockets. The arguments are JSON:
//!
//! ```json
//! {"argv": ["/usr/bin/qemu-system-x86_64", "…"], "http": {"dir": "/inputs/artifact", "port": 8080},
//!  "inlets": [{"port": 20000, "socket": "/inputs/reach/0"}], "forward": [], "pulse": true}
//! ```

use super::{ForwardEnd, Inlet, forward::with_forward_ends, relay::with_inlets};
use crate::{
    model::chain,
    sandbox::{BuiltinTable, BuiltinWriter},
    serve::{HttpLimits, Served, ServedDirectory, Stop, serve_http},
};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        atomic::{AtomicI32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Name of the built-in.
pub const MACHINE: &str = "machine";

/// Time between two pulses on the console.
const PULSE_TIME: Duration = Duration::from_secs(1);
/// The byte of a pulse: a NUL, for which a console has no use.
pub const PULSE: u8 = 0;
/// The byte for each second of processor time that the program has used: an ACK, for which a console has no use either. It follows a pulse.
pub const PROCESSOR_SECOND: u8 = 6;
/// Most of these bytes behind one pulse.
const MAX_SECONDS: u64 = 64;

/// Arguments of the built-in `machine`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServedMachine {
    /// Program, by absolute path, and arguments.
    pub argv: Vec<String>,
    /// The directory served while the program runs; needs [`crate::sandbox::Network::Loopback`].
    pub http: Option<HttpRoot>,
    /// The relays that run with it; need the same network.
    pub inlets: Vec<Inlet>,
    /// The ends of the forwarded ports; need the same network.
    pub forward: Vec<ForwardEnd>,
    /// Whether a [`PULSE`] is written to the console every second, so that its reader notices the time while nothing is printed, with a
    /// [`PROCESSOR_SECOND`] for each second of processor time that was used.
    pub pulse: bool,
}

/// A directory served over HTTP on 127.0.0.1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRoot {
    /// Directory inside the sandbox.
    pub dir: PathBuf,
    /// TCP port, above 1023: the sandbox lacks the capability to bind lower ones.
    pub port: u16,
}

/// The built-ins of this room, for the sandbox helper.
pub fn table() -> BuiltinTable {
    [(MACHINE, machine as BuiltinWriter)].into()
}

/// The environment of the program; a built-in has none that the program could inherit.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/homeless"),
    ("LANG", "C.UTF-8"),
    ("TZ", "UTC"),
    ("TMPDIR", "/build"),
];

fn machine(arguments: &[u8]) -> Result<(), String> {
    let machine: ServedMachine =
        serde_json::from_slice(arguments).map_err(|e| format!("failed to read the arguments: {e}"))?;
    let (program, arguments) = machine
        .argv
        .split_first()
        .ok_or("failed to start: there is no program")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(ENVIRONMENT);
    let unconnected = |socket: &Path, error: &io::Error| {
        let _ = writeln!(io::stderr(), "failed to connect to {}: {error}", socket.display());
    };
    let started = || {
        let running = AtomicI32::new(0);
        with_pulse(machine.pulse, &running, || match &machine.http {
            None => run(&mut command, &running),
            Some(http) => serving(http, || run(&mut command, &running)),
        })
    };
    let relayed = || with_forward_ends(&machine.forward, started);
    let status = with_inlets(&machine.inlets, &unconnected, relayed)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("{program} ended with exit code {code}")),
        (None, signal) => Err(format!("{program} was killed by signal {}", signal.unwrap_or(0))),
    }
}

/// Runs the program; `running` is its process id meanwhile, else 0.
fn run(command: &mut Command, running: &AtomicI32) -> Result<ExitStatus, String> {
    let done = command.spawn().and_then(|mut child| {
        running.store(i32::try_from(child.id()).unwrap_or(0), Ordering::Relaxed);
        let done = child.wait();
        running.store(0, Ordering::Relaxed);
        done
    });
    done.map_err(|e| format!("failed to run {}: {e}", command.get_program().display()))
}

/// Seconds of processor time that a process has used, its threads together.
fn processor_seconds(pid: i32) -> Option<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
    u64::try_from(clock_gettime(clock).ok()?.tv_sec()).ok()
}

/// Runs `work` while a pulse goes to the console every second, if it is asked for, with the processor time of the process `running`.
fn with_pulse<T>(asked: bool, running: &AtomicI32, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    if !asked {
        return work();
    }
    let (working, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let beat = move || {
            let mut told = 0;
            while done.recv_timeout(PULSE_TIME) == Err(mpsc::RecvTimeoutError::Timeout) {
                let mut bytes = vec![PULSE];
                let pid = running.load(Ordering::Relaxed);
                if let Some(used) = Some(pid).filter(|pid| *pid > 0).and_then(processor_seconds) {
                    let more = used.saturating_sub(told).min(MAX_SECONDS);
                    told += more;
                    bytes.extend((0..more).map(|_| PROCESSOR_SECOND));
                }
                let _ = io::stderr().write_all(&bytes);
            }
        };
        let started = thread::Builder::new().spawn_scoped(scope, beat);
        let done = match started {
            Ok(_) => work(),
            Err(error) => Err(format!("failed to start the pulse: {error}")),
        };
        drop(working);
        done
    })
}

/// Runs `work` while the server runs. The port accepts connections before `work` begins.
fn serving<T>(http: &HttpRoot, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let failed = |action: String| move |e: io::Error| format!("failed to {action}: {e}");
    let dir = ServedDirectory::open(&http.dir).map_err(|e| format!("failed to {}", chain(&e)))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, http.port))
        .map_err(failed(format!("listen on 127.0.0.1:{}", http.port)))?;
    let stop = Stop::new().map_err(failed("make a socket pair".to_owned()))?;
    thread::scope(|scope| {
        let server = thread::Builder::new()
            .spawn_scoped(scope, || {
                serve_http(&listener, &dir, &HttpLimits::default(), &stop, &say)
            })
            .map_err(failed("start the server".to_owned()))?;
        let done = work();
        stop.request();
        match server.join() {
            Ok(Ok(())) => done,
            Ok(Err(error)) => Err(format!("failed to {}", chain(&error))),
            Err(_) => Err("failed to serve: the server panicked".to_owned()),
        }
    })
}

/// Writes failed requests to the console of the program. Successful ones are left out, because the judge reads the console.
fn say(served: &Served) {
    if served.problem.is_some() || served.status.is_some_and(|s| s >= 400) {
        let _ = writeln!(io::stderr(), "{served}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_program_is_the_end_of_the_machine() {
        let end = |argv: &[&str]| {
            let argv = argv.iter().map(|a| (*a).to_owned()).collect();
            let arguments = serde_json::to_vec(&ServedMachine {
                argv,
                http: None,
                inlets: Vec::new(),
                forward: Vec::new(),
                pulse: true,
            })
            .expect("JSON");
            machine(&arguments)
        };
        assert_eq!(end(&["/bin/true"]), Ok(()));
        let failed = |text: &str| Err(text.to_owned());
        assert_eq!(
            end(&["/bin/sh", "-c", "exit 3"]),
            failed("/bin/sh ended with exit code 3")
        );
        assert_eq!(
            end(&["/bin/sh", "-c", "kill -9 $$"]),
            failed("/bin/sh was killed by signal 9")
        );
        assert_eq!(
            end(&["/nowhere"]),
            failed("failed to run /nowhere: No such file or directory (os error 2)")
        );
        assert_eq!(end(&[]), failed("failed to start: there is no program"));
        assert!(machine(br#"{"argv": [], "http": null, "inlets": [], "pulse": false, "more": 1}"#).is_err());
    }
}
