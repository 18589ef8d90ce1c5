//! `Forward`: a port of this host's loopback that leads to a port of a machine.
//!
//! ```text
//! client ── loopback of this host ── Unix socket ── 127.0.0.1 of the sandbox ── QEMU's network ── machine
//!           [`ForwardListener`], outside            [`ForwardEnd`], in the sandbox
//! ```
//!
//! Only the listener outside accepts: the end in the sandbox always keeps one idle connection to its Unix socket, and a byte on it says
//! that a client has come. So pnb never connects to a file that the sandbox could have replaced by another.

use super::{MachineError, relay::pipe};
use crate::serve::{Stop, Wake};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// First of the ports of the sandbox's loopback on which QEMU listens.
const FIRST_PORT: u16 = 21_000;
/// Most ports of one machine.
const MOST: usize = 64;
/// Most connections of one machine at a time, over all its ports. Each has threads in the machine's sandbox, whose processes are limited:
/// QEMU must not run out of them.
const MOST_RELAYS: usize = 64;
/// The byte that says that a client has come.
const CLIENT: u8 = b'C';
/// Most tries to connect to QEMU, a [`PAUSE`] apart: 5 seconds.
const START_TRIES: u32 = 50;
/// Pause after a connection that could not be made or accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// A value of `--forward`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// The address on this host's loopback; port 0 stands for any free one.
    pub host: SocketAddr,
    /// The TCP port of the machine.
    pub port: u16,
}

impl Forward {
    /// Parses `[ADDRESS:]PORT:PORT`.
    ///
    /// # Errors
    ///
    /// The text has another form, or the address is not on the loopback.
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        let bad = |problem: String| MachineError::Forward {
            value: text.to_owned(),
            problem,
        };
        let form = || bad("it is not [ADDRESS:]PORT:PORT".to_owned());
        if text.contains('/') {
            return Err(bad("only TCP is forwarded, so a port has no protocol".to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let port: u16 = port.parse().map_err(|_| form())?;
        let host = match host.parse() {
            Ok(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            Err(_) => host.parse().map_err(|_| form())?,
        };
        if !host.ip().is_loopback() {
            let problem = "is not an address of the loopback, and nobody else shall reach the machine";
            return Err(bad(format!("{} {problem}", host.ip())));
        }
        match port {
            0 => Err(bad("the machine has no port 0".to_owned())),
            port => Ok(Self { host, port }),
        }
    }

    /// Parses the values of `--forward`: each address of this host leads to one port.
    ///
    /// # Errors
    ///
    /// Those of [`Self::parse`]; an address is named twice, or there are too many.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>, MachineError> {
        let mut all: Vec<Self> = Vec::new();
        for text in texts {
            let bad = |problem| MachineError::Forward {
                value: text.clone(),
                problem,
            };
            let forward = Self::parse(text)?;
            if forward.host.port() != 0 && all.iter().any(|other| other.host == forward.host) {
                return Err(bad(format!("{} leads to another port already", forward.host)));
            }
            if all.len() == MOST {
                return Err(bad(format!("a machine has at most {MOST} forwarded ports")));
            }
            all.push(forward);
        }
        Ok(all)
    }

    /// The values of QEMU's `hostfwd=` for the ports of `forwards`.
    pub(super) fn arguments(forwards: &[Self]) -> Vec<String> {
        let ports = (FIRST_PORT..).zip(forwards);
        ports
            .map(|(own, forward)| format!("tcp:127.0.0.1:{own}-:{}", forward.port))
            .collect()
    }
}

/// The end of a forwarded port in the machine's sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardEnd {
    /// TCP port on 127.0.0.1 on which QEMU listens.
    pub port: u16,
    /// The Unix socket on which clients are announced.
    pub socket: PathBuf,
}

impl ForwardEnd {
    /// The ends of `forwards`, whose sockets are in the directory `dir` of the sandbox.
    pub fn all(forwards: &[Forward], dir: &str) -> Vec<Self> {
        let named = (FIRST_PORT..).zip(forwards).enumerate();
        named
            .map(|(n, (port, _))| Self {
                port,
                socket: format!("{dir}/{n}").into(),
            })
            .collect()
    }

    /// Connects to QEMU, which listens a moment after it was started. Where the machine refuses, QEMU ends the connection.
    fn connect(&self, stop: &Stop) -> Option<TcpStream> {
        for _ in 0..START_TRIES {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
                Ok(stream) => return Some(stream),
                Err(_) if matches!(stop.pause(PAUSE), Ok(Wake::TimedOut)) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Waits for clients until `stop` is requested.
    fn run<'scope>(&'scope self, scope: &'scope thread::Scope<'scope, '_>, stop: &'scope Stop) {
        loop {
            let Ok(mut idle) = UnixStream::connect(&self.socket) else {
                match stop.pause(PAUSE) {
                    Ok(Wake::TimedOut) => continue,
                    _ => return,
                }
            };
            match stop.readable(&idle, None) {
                Ok(Wake::Ready) => {}
                _ => return,
            }
            let mut byte = [0];
            match idle.read(&mut byte) {
                Ok(1) => {
                    let relay = move || {
                        if let Some(to) = self.connect(stop) {
                            pipe(&idle, &to, stop);
                        }
                    };
                    // Without a thread for it, the connection is closed.
                    let _ = thread::Builder::new().spawn_scoped(scope, relay);
                }
                // The listener has gone, or was stopped.
                _ => drop(stop.pause(PAUSE)),
            }
        }
    }
}

/// Runs `work` while the ends relay.
pub(super) fn with_forward_ends<T>(ends: &[ForwardEnd], work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let stop = Stop::new().map_err(|e| format!("failed to make a socket pair: {e}"))?;
    thread::scope(|scope| {
        let mut started = Ok(());
        for end in ends {
            let stop = &stop;
            let thread = thread::Builder::new().spawn_scoped(scope, move || end.run(scope, stop));
            started = started.and(thread.map(drop));
        }
        let done = started
            .map_err(|e| format!("failed to forward ports: {e}"))
            .and_then(|()| work());
        stop.request();
        done
    })
}

/// One of the [`MOST_RELAYS`] connections, until it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    /// `None` if as many as there may be are `taken`.
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        let one_more = |n: usize| (n < MOST_RELAYS).then_some(n + 1);
        let before = taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        before.ok().map(|_| Self(taken))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A forwarded port on this host.
#[derive(Debug)]
pub struct ForwardListener {
    clients: TcpListener,
    machine: UnixListener,
    /// The address with the port that it really has, and the machine's port.
    forward: Forward,
}

impl ForwardListener {
    /// Takes the ports of `forwards` on this host, and makes the Unix sockets in the new directory `dir`: the names that
    /// [`ForwardEnd::all`] gives them.
    ///
    /// # Errors
    ///
    /// The address and the cause, of a port that cannot be taken; for a socket, without an address.
    pub fn all(forwards: &[Forward], dir: &Path) -> Result<Vec<Self>, (Option<SocketAddr>, io::Error)> {
        let socket = |error| (None, error);
        fs::create_dir(dir).map_err(socket)?;
        // The id of the machine's sandbox is not the user's.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(socket)?;
        let opened = fs::File::open(dir).map_err(socket)?;
        let mut all = Vec::new();
        for (n, forward) in forwards.iter().enumerate() {
            let clients = TcpListener::bind(forward.host).map_err(|e| (Some(forward.host), e))?;
            let host = clients.local_addr().map_err(|e| (Some(forward.host), e))?;
            // The name of a socket has at most 107 bytes, which the path of a store can exceed.
            let short = format!("/proc/self/fd/{}/{n}", opened.as_raw_fd());
            let machine = UnixListener::bind(short).map_err(socket)?;
            fs::set_permissions(dir.join(n.to_string()), fs::Permissions::from_mode(0o666)).map_err(socket)?;
            clients.set_nonblocking(true).map_err(socket)?;
            machine.set_nonblocking(true).map_err(socket)?;
            all.push(Self {
                clients,
                machine,
                forward: Forward { host, ..*forward },
            });
        }
        Ok(all)
    }

    /// The address with the port that it really has, and the machine's port.
    pub fn forward(&self) -> Forward {
        self.forward
    }

    /// Runs `work` while clients are led to the machine.
    ///
    /// # Errors
    ///
    /// No thread, or no descriptor, is left for the relays.
    pub fn with_all<T>(listeners: &[Self], work: impl FnOnce() -> T) -> io::Result<T> {
        let stop = Stop::new()?;
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            let mut started = Ok(());
            for listener in listeners {
                let (stop, taken) = (&stop, &taken);
                let thread = thread::Builder::new().spawn_scoped(scope, move || listener.run(scope, stop, taken));
                started = started.and(thread.map(drop));
            }
            let done = started.map(|()| work());
            stop.request();
            done
        })
    }

    fn run<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        stop: &'scope Stop,
        taken: &'scope AtomicUsize,
    ) {
        while let Ok(Wake::Ready) = stop.readable(&self.clients, None) {
            // Without a place for it, the client waits in the kernel's queue.
            let Some(place) = Place::take(taken) else {
                match stop.pause(PAUSE) {
                    Ok(Wake::TimedOut) => continue,
                    _ => return,
                }
            };
            let Ok((client, _)) = self.clients.accept() else {
                thread::sleep(PAUSE);
                continue;
            };
            let lead = move || {
                let _place = place;
                if let Some(machine) = self.machine_end(stop) {
                    pipe(&client, &machine, stop);
                }
            };
            // Without a thread for it, the connection is closed.
            let _ = thread::Builder::new().spawn_scoped(scope, lead);
        }
    }

    /// The next idle connection of the machine's end, which is told of the client. Before the machine is started, there is none.
    fn machine_end(&self, stop: &Stop) -> Option<UnixStream> {
        while let Ok(Wake::Ready) = stop.readable(&self.machine, None) {
            let Ok((mut idle, _)) = self.machine.accept() else {
                thread::sleep(PAUSE);
                continue;
            };
            // An end that has gone meanwhile is left out.
            if idle.set_nonblocking(false).is_ok() && idle.write_all(&[CLIENT]).is_ok() {
                return Some(idle);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_port_of_the_loopback_leads_to_one_of_the_machine() {
        let parse = |text: &str| Forward::parse(text).map(|f| (f.host.to_string(), f.port));
        for (text, host, port) in [
            ("2222:22", "127.0.0.1:2222", 22),
            ("0:80", "127.0.0.1:0", 80),
            ("127.0.0.2:8080:80", "127.0.0.2:8080", 80),
            ("[::1]:8080:80", "[::1]:8080", 80),
        ] {
            assert_eq!(parse(text), Ok((host.to_owned(), port)));
        }
        for (text, problem) in [
            ("22", "it is not [ADDRESS:]PORT:PORT"),
            ("localhost:2222:22", "it is not [ADDRESS:]PORT:PORT"),
            ("2222:70000", "it is not [ADDRESS:]PORT:PORT"),
            ("5353/udp:53", "only TCP is forwarded, so a port has no protocol"),
            ("2222:0", "the machine has no port 0"),
            (
                "0.0.0.0:2222:22",
                "0.0.0.0 is not an address of the loopback, and nobody else shall reach the machine",
            ),
            (
                "192.0.2.1:2222:22",
                "192.0.2.1 is not an address of the loopback, and nobody else shall reach the machine",
            ),
        ] {
            let want = MachineError::Forward {
                value: text.to_owned(),
                problem: problem.to_owned(),
            };
            assert_eq!(parse(text), Err(want));
        }
        let all = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Forward::parse_all(&texts).map(|all| all.len())
        };
        assert_eq!(all(&["0:22", "0:80", "2222:22"]), Ok(3));
        let error = all(&["2222:22", "2222:80"]).expect_err("twice").to_string();
        assert!(
            error.ends_with("127.0.0.1:2222 leads to another port already"),
            "{error}"
        );
    }

    /// A server that answers each connection with the number of its bytes, once the client has ended its own.
    fn server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(|| {
                    let mut stream = stream.expect("a connection");
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).expect("read");
                    stream.write_all(bytes.len().to_string().as_bytes()).expect("written");
                });
            }
        });
        port
    }

    fn ask(address: SocketAddr, bytes: usize) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(&vec![7; bytes]).expect("written");
        stream.shutdown(std::net::Shutdown::Write).expect("ended");
        let mut answer = String::new();
        // A connection that nobody took is reset or ends.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn more_clients_than_places_wait_for_one() {
        let dir = tempfile::tempdir().expect("scratch");
        let wanted = ["0:22", "0:80"].map(|text| Forward::parse(text).expect("valid"));
        let listeners = ForwardListener::all(&wanted, &dir.path().join("forward")).expect("taken");
        let addresses: Vec<SocketAddr> = listeners.iter().map(|l| l.forward().host).collect();
        let mut ends = ForwardEnd::all(&wanted, &dir.path().join("forward").to_string_lossy());
        // The machine tells of each connection, and holds it.
        let machine = TcpListener::bind("127.0.0.1:0").expect("a port");
        for end in &mut ends {
            end.port = machine.local_addr().expect("bound").port();
        }
        let (sender, seen) = mpsc::channel();
        thread::spawn(move || machine.incoming().for_each(|client| drop(sender.send(client))));
        let done = ForwardListener::with_all(&listeners, || {
            with_forward_ends(&ends, || {
                let wait = Duration::from_secs(10);
                let connect = |address: &SocketAddr| TcpStream::connect(address).expect("queued");
                let clients: Vec<_> = (0..MOST_RELAYS).map(|_| connect(&addresses[0])).collect();
                let held: Vec<_> = (0..MOST_RELAYS).map_while(|_| seen.recv_timeout(wait).ok()).collect();
                let waiting: Vec<_> = addresses.iter().cycle().take(6).map(connect).collect();
                let early = seen.recv_timeout(Duration::from_millis(500)).is_ok();
                let places = held.len();
                // Others get the places of those that end.
                drop((clients, held));
                let late = waiting.iter().map_while(|_| seen.recv_timeout(wait).ok()).count();
                Ok((places, early, late))
            })
        });
        // Not before: whoever fails while the relays run waits for them.
        assert_eq!(done.expect("relayed"), Ok((MOST_RELAYS, false, 6)));
    }

    #[test]
    fn clients_get_through_to_the_port_in_the_sandbox() {
        let dir = tempfile::tempdir().expect("scratch");
        // Longer than the name of a socket may be.
        let deep = dir.path().join("x".repeat(120));
        let wanted = [
            Forward::parse("0:22").expect("valid"),
            Forward::parse("0:80").expect("valid"),
        ];
        let listeners = ForwardListener::all(&wanted, &deep).expect("taken");
        let addresses: Vec<SocketAddr> = listeners.iter().map(|l| l.forward().host).collect();
        assert!(addresses.iter().all(|address| address.port() != 0));
        // In the sandbox, the directory has a short name.
        let short = dir.path().join("short");
        std::os::unix::fs::symlink(&deep, &short).expect("made");
        let mut ends = ForwardEnd::all(&wanted, &short.to_string_lossy());
        ends[0].port = server();
        // Nothing listens on the second one.
        ends[1].port = 1;
        let done = ForwardListener::with_all(&listeners, || {
            // A client that comes before the machine waits for it.
            let (sender, early) = mpsc::channel();
            let first = addresses[0];
            let client = thread::spawn(move || sender.send(ask(first, 3)));
            thread::sleep(Duration::from_millis(200));
            assert!(early.try_recv().is_err());
            with_forward_ends(&ends, || {
                assert_eq!(early.recv().expect("an answer"), "3");
                client.join().expect("whole").expect("sent");
                for bytes in [0, 1, 5_000_000] {
                    assert_eq!(ask(first, bytes), bytes.to_string());
                }
                assert_eq!(ask(addresses[1], 3), "", "the machine refused");
                let many: Vec<_> = (1..20).map(|n| thread::spawn(move || (n, ask(first, n)))).collect();
                for thread in many {
                    let (n, answer) = thread.join().expect("whole");
                    assert_eq!(answer, n.to_string());
                }
                Ok(7)
            })
        });
        assert_eq!(done.expect("relayed"), Ok(7));
        // A port that is taken is named.
        let again = [Forward {
            host: addresses[0],
            port: 22,
        }];
        let (at, error) = ForwardListener::all(&again, &dir.path().join("other")).expect_err("taken");
        assert_eq!((at, error.kind()), (Some(addresses[0]), io::ErrorKind::AddrInUse));
    }
}
