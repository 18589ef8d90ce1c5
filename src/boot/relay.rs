//! Relays connections between a machine and the servers of this host that it may reach.
//!
//! ```text
//! machine ── QEMU's network ── busybox nc ── 127.0.0.1 of the sandbox ── Unix socket ── loopback of this host ── server
//!                                            [`Inlet`], in the sandbox               [`Outlet`], outside
//! ```
//!
//! The sandbox has no network but its own loopback, so a Unix socket in a mounted directory is the only way out, and its other end decides
//! where that way leads.

use super::Reach;
use crate::serve::{Stop, Wake};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::AsFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Time in which the receiver of relayed bytes must take some.
const STALL: Duration = Duration::from_secs(60);
/// Pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// First of the ports that inlets listen on.
const FIRST_PORT: u16 = 20_000;

/// The end of a relay in the machine's sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inlet {
    /// TCP port on 127.0.0.1 that takes connections.
    pub port: u16,
    /// The Unix socket that each connection is relayed to.
    pub socket: PathBuf,
}

impl Inlet {
    /// The inlets for `reaches`, whose sockets are in the directory `dir` of the sandbox.
    pub fn all(reaches: &[Reach], dir: &str) -> Vec<Self> {
        let named = (FIRST_PORT..).zip(reaches).enumerate();
        named
            .map(|(n, (port, _))| Self {
                port,
                socket: format!("{dir}/{n}").into(),
            })
            .collect()
    }
}

/// Runs `work` while the inlets relay. `failed` is told of each socket that could not be connected to.
pub(super) fn with_inlets<T>(
    inlets: &[Inlet],
    failed: &(dyn Fn(&Path, &io::Error) + Sync),
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let mut ends = Vec::new();
    for inlet in inlets {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, inlet.port))
            .map_err(|e| format!("failed to listen on 127.0.0.1:{}: {e}", inlet.port))?;
        ends.push(End {
            listener,
            connect: || UnixStream::connect(&inlet.socket),
        });
    }
    let failed = |at: usize, error: &io::Error| failed(&inlets[at].socket, error);
    relaying(&ends, &failed, work).map_err(|e| format!("failed to relay connections: {e}"))?
}

/// The ends of the relays outside of the sandbox.
#[derive(Debug)]
pub struct Outlet {
    listener: UnixListener,
    server: SocketAddr,
}

impl Outlet {
    /// Makes the Unix sockets of `reaches` in the new directory `dir`: the names that [`Inlet::all`] gives them.
    ///
    /// # Errors
    ///
    /// The directory or a socket cannot be made.
    pub fn all(reaches: &[Reach], dir: &Path) -> io::Result<Vec<Self>> {
        fs::create_dir(dir)?;
        // The id of the machine's sandbox is not the user's.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        let opened = fs::File::open(dir)?;
        let mut all = Vec::new();
        for (n, reach) in reaches.iter().enumerate() {
            // The name of a socket has at most 107 bytes, which the path of a store can exceed.
            let short = format!("/proc/self/fd/{}/{n}", std::os::fd::AsRawFd::as_raw_fd(&opened));
            let listener = UnixListener::bind(short)?;
            fs::set_permissions(dir.join(n.to_string()), fs::Permissions::from_mode(0o666))?;
            all.push(Self {
                listener,
                server: reach.server,
            });
        }
        Ok(all)
    }

    /// Runs `work` while the outlets relay. `failed` is told of each server that could not be reached.
    ///
    /// # Errors
    ///
    /// No thread, or no descriptor, is left for the relays.
    pub fn with_all<T>(
        outlets: &[Self],
        failed: &(dyn Fn(SocketAddr, &io::Error) + Sync),
        work: impl FnOnce() -> T,
    ) -> io::Result<T> {
        let ends: Vec<_> = outlets
            .iter()
            .map(|outlet| End {
                listener: &outlet.listener,
                connect: || TcpStream::connect(outlet.server),
            })
            .collect();
        relaying(&ends, &|at, error| failed(outlets[at].server, error), work)
    }
}

/// One end of a relay: where connections come from, and where they go to.
struct End<L, C> {
    listener: L,
    connect: C,
}

/// A listener whose connections are relayed.
trait Accepting: AsFd {
    type Stream: Piped;
    fn next(&self) -> io::Result<Self::Stream>;
    fn prepare(&self) -> io::Result<()>;
}

impl Accepting for TcpListener {
    type Stream = TcpStream;
    fn next(&self) -> io::Result<TcpStream> {
        self.accept().map(|(stream, _)| stream)
    }
    fn prepare(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }
}

impl Accepting for &UnixListener {
    type Stream = UnixStream;
    fn next(&self) -> io::Result<UnixStream> {
        self.accept().map(|(stream, _)| stream)
    }
    fn prepare(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }
}

/// A connection that is relayed. Both kinds are used by two threads at once.
pub(super) trait Piped: AsFd + Send + Sync {
    fn take(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn give(&self, bytes: &[u8]) -> io::Result<()>;
    fn end(&self, how: Shutdown);
    fn prepare(&self) -> io::Result<()>;
}

macro_rules! piped {
    ($stream:ty) => {
        impl Piped for $stream {
            fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let mut stream = self;
                stream.read(buffer)
            }
            fn give(&self, bytes: &[u8]) -> io::Result<()> {
                let mut stream = self;
                stream.write_all(bytes)
            }
            fn end(&self, how: Shutdown) {
                // Fails only if the connection has ended.
                let _ = self.shutdown(how);
            }
            fn prepare(&self) -> io::Result<()> {
                self.set_nonblocking(false)?;
                self.set_write_timeout(Some(STALL))
            }
        }
    };
}
piped!(TcpStream);
piped!(UnixStream);

/// Runs `work` while every connection to a listener of `ends` is relayed; ends all connections when `work` is done. `failed` is told the
/// number of an end that could not connect.
fn relaying<L, S, C, T>(
    ends: &[End<L, C>],
    failed: &(dyn Fn(usize, &io::Error) + Sync),
    work: impl FnOnce() -> T,
) -> io::Result<T>
where
    L: Accepting + Sync,
    C: Fn() -> io::Result<S> + Sync,
    S: Piped,
{
    let stop = Stop::new()?;
    for end in ends {
        end.listener.prepare()?;
    }
    thread::scope(|scope| {
        let mut started = Ok(());
        for (at, end) in ends.iter().enumerate() {
            let stop = &stop;
            let accept = move || {
                while let Ok(Wake::Ready | Wake::TimedOut) = stop.readable(&end.listener, None) {
                    match end.listener.next() {
                        Ok(from) => {
                            let relay = move || match (end.connect)() {
                                Ok(to) => pipe(&from, &to, stop),
                                Err(error) => failed(at, &error),
                            };
                            // Without a thread for it, the connection is closed.
                            let _ = thread::Builder::new().spawn_scoped(scope, relay);
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => thread::sleep(PAUSE),
                    }
                }
            };
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, accept) {
                started = Err(error);
                break;
            }
        }
        let done = started.map(|()| work());
        stop.request();
        done
    })
}

/// Relays the bytes of two connections to each other until both have ended or `stop` is requested.
pub(super) fn pipe(one: &impl Piped, other: &impl Piped, stop: &Stop) {
    if one.prepare().and_then(|()| other.prepare()).is_ok() {
        thread::scope(|scope| {
            let back = thread::Builder::new().spawn_scoped(scope, || copy(other, one, stop));
            if back.is_ok() {
                copy(one, other, stop);
            }
        });
    }
    one.end(Shutdown::Both);
    other.end(Shutdown::Both);
}

/// Copies until `from` ends, and passes its end on: the other direction goes on.
fn copy(from: &impl Piped, to: &impl Piped, stop: &Stop) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(Wake::Ready) = stop.readable(from, None) {
        let given = match from.take(&mut buffer) {
            Ok(0) => return to.end(Shutdown::Write),
            Ok(taken) => to.give(&buffer[..taken]),
            Err(error) => Err(error),
        };
        if given.is_err() {
            break;
        }
    }
    from.end(Shutdown::Both);
    to.end(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A server that answers each connection with its bytes in capitals once the client has ended its own.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(|| {
                    let mut stream = stream.expect("a connection");
                    let mut text = Vec::new();
                    stream.read_to_end(&mut text).expect("read");
                    text.make_ascii_uppercase();
                    stream.write_all(&text).expect("written");
                });
            }
        });
        address
    }

    fn reach(server: SocketAddr) -> Reach {
        Reach {
            node: "10.0.2.100:443".parse().expect("an address"),
            server,
        }
    }

    /// What a client of `port` gets for `text`.
    fn ask(port: u16, text: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connected");
        stream.write_all(text).expect("written");
        stream.shutdown(Shutdown::Write).expect("ended");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    #[test]
    fn bytes_go_both_ways_and_each_end_is_passed_on() {
        let dir = tempfile::tempdir().expect("a directory");
        // Deeper than the name of a socket can be.
        let deep = dir.path().join("d".repeat(120));
        let gone = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a port");
        let reaches = [reach(server()), reach(gone)];
        let outlets = Outlet::all(&reaches, &deep).expect("sockets");
        let failures = Mutex::new(Vec::new());
        let failed = |server: SocketAddr, _: &io::Error| failures.lock().expect("sound").push(server);
        // The inlet's ports are fixed in a sandbox; here others may have them.
        let short = tempfile::tempdir().expect("a directory");
        let link = short.path().join("s");
        std::os::unix::fs::symlink(&deep, &link).expect("linked");
        let ports: Vec<u16> = (0..2)
            .map(|_| {
                TcpListener::bind("127.0.0.1:0")
                    .and_then(|l| l.local_addr())
                    .expect("a port")
                    .port()
            })
            .collect();
        let inlets: Vec<Inlet> = Inlet::all(&reaches, &link.to_string_lossy())
            .into_iter()
            .zip(&ports)
            .map(|(inlet, port)| Inlet { port: *port, ..inlet })
            .collect();
        let said = Outlet::with_all(&outlets, &failed, || {
            with_inlets(&inlets, &|_, _| {}, || {
                let long = vec![b'x'; 3 << 20];
                let big = ask(ports[0], &long);
                assert!(big == long.to_ascii_uppercase(), "{} bytes", big.len());
                // A connection that nobody ends is ended with the relay.
                let open = TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0])).expect("connected");
                assert_eq!(ask(ports[1], b"nobody"), b"");
                Ok((ask(ports[0], b"one"), open))
            })
        });
        let (answer, mut open) = said.expect("relayed").expect("relayed");
        assert_eq!(answer, b"ONE");
        assert_eq!(open.read(&mut [0]).ok(), Some(0), "the relay has ended");
        assert_eq!(*failures.lock().expect("sound"), [gone]);
    }
}
