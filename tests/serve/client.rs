//! What the cases share: a directory, servers on it, and clients of a few lines.

use pnb::serve::*;
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsRawFd, unix::fs::symlink},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Long enough for anything that works, on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn directory() -> tempfile::TempDir {
    let outer = tempfile::tempdir().expect("scratch");
    let dir = outer.path().join("served");
    fs::create_dir_all(dir.join("amd64")).expect("made");
    fs::write(outer.path().join("secret"), "secret").expect("written");
    fs::write(dir.join("boot.ipxe"), "#!ipxe\nshell\n").expect("written");
    fs::write(dir.join("empty"), "").expect("written");
    fs::write(dir.join("amd64/kernel"), pattern(200_000)).expect("written");
    fs::write(dir.join("a b+c%d"), "odd").expect("written");
    symlink("amd64/kernel", dir.join("link")).expect("link");
    symlink("../secret", dir.join("out")).expect("link");
    symlink("/etc/passwd", dir.join("absolute")).expect("link");
    symlink("loop", dir.join("loop")).expect("link");
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRUSR).expect("fifo");
    outer
}

pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n % 251) as u8).collect()
}

/// Runs `client` against an HTTP server on the directory above; returns the lines of its log.
pub(crate) fn http(limits: &HttpLimits, client: impl FnOnce(SocketAddr)) -> Vec<Served> {
    let outer = directory();
    http_in(&outer.path().join("served"), limits, client)
}

pub(crate) fn http_in(dir: &Path, limits: &HttpLimits, client: impl FnOnce(SocketAddr)) -> Vec<Served> {
    let dir = ServedDirectory::open(dir).expect("opens");
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    serving(
        |stop, log| serve_http(&listener, &dir, limits, stop, log),
        || client(address),
    )
}

/// As [`http_in`], over TFTP; waits until `lines` transfers have ended, for the server hears of its end after the client.
pub(crate) fn tftp_in<Kept>(
    dir: &Path,
    limits: &TftpLimits,
    lines: usize,
    client: impl FnOnce(SocketAddr) -> Kept,
) -> Vec<Served> {
    let dir = ServedDirectory::open(dir).expect("opens");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = socket.local_addr().expect("bound");
    let ended = AtomicUsize::new(0);
    serving(
        |stop, log| {
            let count = |served: &Served| {
                log(served);
                ended.fetch_add(1, Ordering::SeqCst);
            };
            serve_tftp(&socket, &dir, limits, stop, &count)
        },
        || {
            // A socket that the client returns stays open until the log is whole: a closed one would refuse the server's packets.
            let kept = client(address);
            let begin = Instant::now();
            while ended.load(Ordering::SeqCst) < lines && begin.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
            }
            drop(kept);
        },
    )
}

pub(crate) fn serving(
    server: impl FnOnce(&Stop, Log<'_>) -> Result<(), ServeError> + Send,
    client: impl FnOnce(),
) -> Vec<Served> {
    /// Also when the client fails, or the test would wait for the server for ever.
    struct AtEnd<'a>(&'a Stop);
    impl Drop for AtEnd<'_> {
        fn drop(&mut self) {
            self.0.request();
        }
    }
    let stop = Stop::new().expect("a socket pair");
    let lines = Mutex::new(Vec::new());
    let begin = Instant::now();
    thread::scope(|scope| {
        let log = |served: &Served| lines.lock().expect("whole").push(served.clone());
        let stop = &stop;
        let server = scope.spawn(move || server(stop, &log));
        {
            let _at_end = AtEnd(stop);
            client();
        }
        server.join().expect("no panic").expect("serves");
    });
    assert!(begin.elapsed() < 3 * PATIENCE, "it did not stop: {:?}", begin.elapsed());
    lines.into_inner().expect("whole")
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    prepared(TcpStream::connect(address).expect("connects"))
}

/// A connection from this address.
pub(crate) fn connect_from(client: Ipv4Addr, server: SocketAddrV4) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(client, 0))).expect("binds");
    connect(fd.as_raw_fd(), &SockaddrIn::from(server)).expect("connects");
    prepared(fd.into())
}

fn prepared(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// A response: status, head, body.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.head.lines().filter_map(|l| l.split_once(": "));
        found
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
            .next()
    }
}

/// Reads one response from a connection; `bodiless` for those to HEAD.
pub(crate) fn response(stream: &mut TcpStream, bodiless: bool) -> Response {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ASCII");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let mut out = Response {
        status,
        head,
        body: Vec::new(),
    };
    let length: usize = out
        .field("Content-Length")
        .expect("a length")
        .parse()
        .expect("a number");
    if !bodiless {
        out.body = vec![0; length];
        stream.read_exact(&mut out.body).expect("a whole body");
    }
    out
}

pub(crate) fn ask(address: SocketAddr, request: &str) -> Response {
    ask_bytes(address, request.as_bytes())
}

pub(crate) fn ask_bytes(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = connect(address);
    stream.write_all(request).expect("sent");
    response(&mut stream, request.starts_with(b"HEAD"))
}

pub(crate) fn get(address: SocketAddr, target: &str, more: &str) -> Response {
    ask(address, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n{more}\r\n"))
}

/// A TFTP client of a few lines that can lose packets on purpose.
pub(crate) struct Tftp {
    pub(crate) socket: UdpSocket,
    pub(crate) block: usize,
    pub(crate) window: u16,
    /// Packets from the server so far, and which of them are taken as lost.
    pub(crate) seen: u64,
    pub(crate) lose: fn(u64) -> bool,
    /// Time that it takes to answer a block out of order.
    pub(crate) slow: Duration,
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    File(Vec<u8>),
    Error(u16, String),
}

impl Tftp {
    pub(crate) fn new() -> Self {
        Self::at("127.0.0.1")
    }

    /// A client with this address.
    pub(crate) fn at(address: &str) -> Self {
        let socket = UdpSocket::bind((address, 0)).expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self {
            socket,
            block: 512,
            window: 1,
            seen: 0,
            lose: |_| false,
            slow: Duration::ZERO,
        }
    }

    pub(crate) fn request(opcode: u8, name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = format!("\0{}{name}\0{mode}\0", char::from(opcode)).into_bytes();
        for (name, value) in options {
            packet.extend(format!("{name}\0{value}\0").bytes());
        }
        packet
    }

    pub(crate) fn receive(&mut self) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 70_000];
        let (length, from) = self.socket.recv_from(&mut buffer).expect("an answer in time");
        buffer.truncate(length);
        self.seen += 1;
        (!(self.lose)(self.seen)).then_some((buffer, from))
    }

    /// Gets a file; also returns the options that the server has agreed to.
    pub(crate) fn get(&mut self, server: SocketAddr, request: &[u8]) -> (Got, String) {
        self.socket.send_to(request, server).expect("sent");
        let (mut data, mut next, mut agreed) = (Vec::new(), 1u64, String::new());
        let mut unacknowledged = 0;
        loop {
            let Some((packet, from)) = self.receive() else { continue };
            let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let ack = |number: u64| {
                let bytes = [&[0, 4][..], &((number & 0xffff) as u16).to_be_bytes()].concat();
                self.socket.send_to(&bytes, from).expect("sent");
            };
            match word(0) {
                3 if word(2) == (next & 0xffff) as u16 => {
                    data.extend(&packet[4..]);
                    unacknowledged += 1;
                    let last = packet.len() - 4 < self.block;
                    if last || unacknowledged == self.window {
                        ack(next);
                        unacknowledged = 0;
                    }
                    next += 1;
                    if last {
                        return (Got::File(data), agreed);
                    }
                }
                // Any other block is answered, as firmware does that is built with EDK2.
                3 => {
                    if !self.slow.is_zero() {
                        thread::sleep(self.slow);
                    }
                    ack(next - 1);
                    unacknowledged = 0;
                }
                5 => {
                    let message = String::from_utf8_lossy(&packet[4..]).trim_end_matches('\0').to_owned();
                    return (Got::Error(word(2), message), agreed);
                }
                6 => {
                    let fields = packet[2..].split(|b| *b == 0).map(String::from_utf8_lossy);
                    agreed = fields.collect::<Vec<_>>().join(" ").trim().to_owned();
                    ack(0);
                }
                other => assert!([3, 5, 6].contains(&other), "opcode {other}"),
            }
        }
    }
}

pub(crate) fn octet(name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    Tftp::request(1, name, "octet", options)
}
