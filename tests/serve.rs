//! `pnb serve` and its servers, asked by clients that behave, and by some that do not.

use pnb::serve::*;
use std::{
    fs,
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Long enough for anything that works, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

fn directory() -> tempfile::TempDir {
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

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n % 251) as u8).collect()
}

/// Runs `client` against an HTTP server on the directory above; returns the lines of its log.
fn http(limits: &HttpLimits, client: impl FnOnce(SocketAddr)) -> Vec<Served> {
    let outer = directory();
    http_in(&outer.path().join("served"), limits, client)
}

fn http_in(dir: &Path, limits: &HttpLimits, client: impl FnOnce(SocketAddr)) -> Vec<Served> {
    let dir = Directory::open(dir).expect("opens");
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    serving(
        |stop, log| serve_http(&listener, &dir, limits, stop, log),
        || client(address),
    )
}

/// As [`http_in`], over TFTP; waits until `lines` transfers have ended, for the server hears of its end after the client.
fn tftp_in(dir: &Path, limits: &TftpLimits, lines: usize, client: impl FnOnce(SocketAddr)) -> Vec<Served> {
    let dir = Directory::open(dir).expect("opens");
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
            client(address);
            let begin = Instant::now();
            while ended.load(Ordering::SeqCst) < lines && begin.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
            }
        },
    )
}

fn serving(server: impl FnOnce(&Stop, Log<'_>) -> Result<(), ServeError> + Send, client: impl FnOnce()) -> Vec<Served> {
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

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// A response: status, head, body.
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn field(&self, name: &str) -> Option<&str> {
        let found = self.head.lines().filter_map(|l| l.split_once(": "));
        found
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
            .next()
    }
}

/// Reads one response from a connection; `bodiless` for those to HEAD.
fn response(stream: &mut TcpStream, bodiless: bool) -> Response {
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

fn ask(address: SocketAddr, request: &str) -> Response {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("sent");
    response(&mut stream, request.starts_with("HEAD"))
}

fn get(address: SocketAddr, target: &str, more: &str) -> Response {
    ask(address, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n{more}\r\n"))
}

/// Nothing more comes on this connection.
fn at_end(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn files_come_whole_with_their_type_and_length() {
    let log = http(&HttpLimits::default(), |address| {
        let kernel = get(address, "/amd64/kernel", "");
        assert_eq!((kernel.status, kernel.body), (200, pattern(200_000)));
        assert_eq!(get(address, "/link?token=x", "").body, pattern(200_000));
        assert_eq!(get(address, "/a%20b+c%25d", "").body, b"odd");
        assert_eq!(get(address, &format!("http://{address}/boot.ipxe"), "").status, 200);
        let empty = get(address, "/empty", "");
        assert_eq!((empty.status, empty.field("Content-Length")), (200, Some("0")));
        insta::assert_snapshot!(get(address, "/boot.ipxe", "").head.replace('\r', ""), @r###"
    HTTP/1.1 200 OK
    Server: pnb
    Content-Type: text/plain; charset=utf-8
    Content-Length: 13
    X-Content-Type-Options: nosniff
    Accept-Ranges: bytes
    "###);
        let head = ask(address, "HEAD /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(head.head, get(address, "/boot.ipxe", "").head);
        insta::assert_snapshot!(get(address, "/nothing", "").head.replace('\r', ""), @r###"
    HTTP/1.1 404 Not Found
    Server: pnb
    Content-Type: text/plain; charset=utf-8
    Content-Length: 14
    X-Content-Type-Options: nosniff
    "###);
    });
    let first = log.first().expect("a line");
    let line = first.to_string();
    assert!(line.ends_with(" http GET /amd64/kernel 200 200000 bytes"), "{line}");
    assert_eq!(log.len(), 9);
}

#[test]
fn a_connection_serves_several_requests_and_ends_when_asked() {
    http(&HttpLimits::default(), |address| {
        let mut stream = connect(address);
        let request = "GET /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\n";
        // Three at once, the last cut in two.
        stream
            .write_all(format!("{request}HEAD /empty HTTP/1.1\r\nHost: x\r\n\r\nGET /noth").as_bytes())
            .expect("sent");
        assert_eq!(response(&mut stream, false).body, b"#!ipxe\nshell\n");
        assert_eq!(response(&mut stream, true).status, 200);
        stream.write_all(b"ing HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        assert_eq!(response(&mut stream, false).status, 404);
        stream
            .write_all(request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())
            .expect("sent");
        let last = response(&mut stream, false);
        assert_eq!((last.status, last.field("Connection")), (200, Some("close")));
        assert!(at_end(&mut stream));

        let mut old = connect(address);
        old.write_all(b"GET /empty HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            .expect("sent");
        assert_eq!(response(&mut old, false).field("Connection"), Some("keep-alive"));
        old.write_all(b"GET /empty HTTP/1.0\r\n\r\n").expect("sent");
        assert_eq!(response(&mut old, false).field("Connection"), Some("close"));
        assert!(at_end(&mut old));
    });
}

#[test]
fn nothing_but_regular_files_below_the_directory_is_served() {
    let log = http(&HttpLimits::default(), |address| {
        for target in [
            "/../secret",
            "/amd64/../../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/%2e%2e%2fsecret",
            "//etc/passwd",
            "/%2fetc/passwd",
            "/out",
            "/absolute",
            "/loop",
            "/link/x",
            "/amd64",
            "/amd64/",
            "/",
            "/fifo",
            "/a%00",
            "/proc/self/environ",
            &format!("/{}", "x".repeat(300)),
            &format!("/{}", "x/".repeat(3000)),
        ] {
            let answer = get(address, target, "");
            assert_eq!(answer.status, 404, "{target}");
            assert_eq!(answer.body, b"404 Not Found\n", "{target}");
        }
        for target in ["amd64/kernel", "*", "/%", "/%2", "/%xx", "ftp://x/empty"] {
            assert_eq!(get(address, target, "").status, 400, "{target}");
        }
        // Backslashes are no separators here.
        assert_eq!(get(address, "/..\\secret", "").status, 404);
    });
    assert!(
        log.iter().all(|l| l.bytes == 0 && l.status.is_some_and(|s| s >= 400)),
        "{log:?}"
    );
    assert!(log.iter().all(|l| l.request.len() < 220), "a line is long");
}

#[test]
fn a_file_that_may_not_be_read_is_forbidden() {
    if nix::unistd::Uid::effective().is_root() {
        // Root may read everything; then an ordinary user serves it.
        let outer = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir();
        let outer = outer.expect("scratch");
        fs::write(outer.path().join("file"), "x").expect("written");
        let program = outer.path().join("pnb");
        fs::copy(env!("CARGO_BIN_EXE_pnb"), &program).expect("copied");
        fs::set_permissions(
            outer.path().join("file"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .expect("mode");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        let server = Server::start(
            command
                .arg(program)
                .arg("serve")
                .arg(outer.path())
                .args(["--http", "0"]),
        );
        assert_eq!(get(server.address("http"), "/file", "").status, 403);
        return;
    }
    let outer = tempfile::tempdir().expect("scratch");
    fs::write(outer.path().join("file"), "x").expect("written");
    fs::set_permissions(
        outer.path().join("file"),
        std::os::unix::fs::PermissionsExt::from_mode(0o000),
    )
    .expect("mode");
    http_in(outer.path(), &HttpLimits::default(), |address| {
        assert_eq!(get(address, "/file", "").status, 403);
    });
}

#[test]
fn ranges_are_parts_of_the_file() {
    http(&HttpLimits::default(), |address| {
        let whole = pattern(200_000);
        for (range, want) in [
            ("bytes=0-0", 0..1),
            ("bytes=100000-", 100_000..200_000),
            ("bytes=199999-300000", 199_999..200_000),
            ("bytes=-5", 199_995..200_000),
            ("bytes=5-70000", 5..70_001),
        ] {
            let part = get(address, "/amd64/kernel", &format!("Range: {range}\r\n"));
            assert_eq!((part.status, &part.body[..]), (206, &whole[want.clone()]), "{range}");
            let shown = format!("bytes {}-{}/200000", want.start, want.end - 1);
            assert_eq!(part.field("Content-Range"), Some(shown.as_str()));
        }
        for range in ["bytes=200000-", "bytes=-0"] {
            let none = get(address, "/amd64/kernel", &format!("Range: {range}\r\n"));
            assert_eq!(
                (none.status, none.field("Content-Range")),
                (416, Some("bytes */200000"))
            );
        }
        for fields in [
            "Range: bytes=0-1,5-6\r\n",
            "Range: lines=1-2\r\n",
            "Range: bytes=9-1\r\n",
            "Range: bytes=0-1\r\nRange: bytes=0-1\r\n",
            "Range: bytes=0-1\r\nIf-Range: \"x\"\r\n",
        ] {
            assert_eq!(get(address, "/amd64/kernel", fields).status, 200, "{fields}");
        }
    });
}

#[test]
fn what_is_no_request_is_told_so() {
    http(&HttpLimits::default(), |address| {
        let post = ask(
            address,
            "POST /boot.ipxe HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        );
        assert_eq!((post.status, post.field("Allow")), (405, Some("GET, HEAD")));
        assert_eq!(post.field("Connection"), Some("close"), "the body is not read");
        for (request, status) in [
            ("FLY /x HTTP/1.1\r\nHost: x\r\n\r\n", 501),
            ("GET /x HTTP/1.1\r\n\r\n", 400),
            ("GET /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
            ("GET /x HTTP/2.0\r\nHost: x\r\n\r\n", 505),
            ("\x16\x03\x01\x02\r\n\r\n", 400),
            ("GET\r\n\r\n", 400),
        ] {
            assert_eq!(ask(address, request).status, status, "{request:?}");
        }
        let long_target = format!("GET /{} HTTP/1.1\r\n", "x".repeat(17 << 10));
        assert_eq!(ask(address, &long_target).status, 414);
        let long_field = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "x".repeat(1 << 20));
        let mut stream = connect(address);
        // The server answers long before it has all of this.
        let _ = stream.write_all(long_field.as_bytes());
        assert_eq!(response(&mut stream, false).status, 431);
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100));
        assert_eq!(ask(address, &many).status, 431);
    });
}

#[test]
fn a_client_that_dawdles_is_let_go() {
    let limits = HttpLimits {
        connections: 2,
        head: Duration::from_millis(400),
        stall: Duration::from_millis(400),
        ..HttpLimits::default()
    };
    let outer = tempfile::tempdir().expect("scratch");
    fs::write(outer.path().join("large"), vec![7; 64 << 20]).expect("written");
    fs::write(outer.path().join("small"), "x").expect("written");
    let log = http_in(outer.path(), &limits, |address| {
        // A head that comes a byte at a time.
        let mut slow = connect(address);
        let begin = Instant::now();
        for byte in "GET /small HTTP/1.1\r\nHost: x\r\nX: ".bytes().chain([b'y'; 300]) {
            if slow.write_all(&[byte]).is_err() || begin.elapsed() > Duration::from_secs(2) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(response(&mut slow, false).status, 408);
        drop(slow);

        // One that says nothing at all gets nothing.
        assert!(at_end(&mut connect(address)));

        // One that does not take what it has asked for.
        let mut lazy = connect(address);
        lazy.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        thread::sleep(Duration::from_millis(1200));
        let mut taken = Vec::new();
        let _ = lazy.read_to_end(&mut taken);
        assert!(taken.len() < 64 << 20, "all of it came");
        drop(lazy);

        // And a third at a time has to wait.
        let _two = [connect(address), connect(address)];
        thread::sleep(Duration::from_millis(100));
        let mut third = connect(address);
        assert_eq!(response(&mut third, false).status, 503);
        thread::sleep(Duration::from_millis(600));
        assert_eq!(get(address, "/small", "").status, 200, "there is room again");
    });
    let problems: Vec<_> = log.iter().filter_map(|l| l.problem.as_deref()).collect();
    assert_eq!(problems, ["the client was too slow", "too many connections"], "{log:?}");
}

#[test]
fn a_stop_ends_what_is_under_way() {
    let outer = tempfile::tempdir().expect("scratch");
    fs::write(outer.path().join("large"), vec![7; 64 << 20]).expect("written");
    let mut open = None;
    let begin = Instant::now();
    let log = http_in(outer.path(), &HttpLimits::default(), |address| {
        let idle = connect(address);
        let mut lazy = connect(address);
        lazy.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        lazy.read_exact(&mut [0; 1000]).expect("begins");
        open = Some((idle, lazy));
    });
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let problem = log.first().and_then(|l| l.problem.as_deref());
    assert_eq!(problem, Some("the server was stopped"), "{log:?}");
}

/// A TFTP client of a few lines that can lose packets on purpose.
struct Tftp {
    socket: UdpSocket,
    block: usize,
    window: u16,
    /// Packets from the server so far, and which of them are taken as lost.
    seen: u64,
    lose: fn(u64) -> bool,
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    File(Vec<u8>),
    Error(u16, String),
}

impl Tftp {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self {
            socket,
            block: 512,
            window: 1,
            seen: 0,
            lose: |_| false,
        }
    }

    fn request(opcode: u8, name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = format!("\0{}{name}\0{mode}\0", char::from(opcode)).into_bytes();
        for (name, value) in options {
            packet.extend(format!("{name}\0{value}\0").bytes());
        }
        packet
    }

    fn receive(&mut self) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 70_000];
        let (length, from) = self.socket.recv_from(&mut buffer).expect("an answer in time");
        buffer.truncate(length);
        self.seen += 1;
        (!(self.lose)(self.seen)).then_some((buffer, from))
    }

    /// Gets a file; also returns the options that the server has agreed to.
    fn get(&mut self, server: SocketAddr, request: &[u8]) -> (Got, String) {
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
                3 => {
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

fn octet(name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    Tftp::request(1, name, "octet", options)
}

#[test]
fn tftp_sends_files_in_blocks_as_agreed() {
    let outer = directory();
    let served = outer.path().join("served");
    fs::write(served.join("even"), pattern(1024)).expect("written");
    let log = tftp_in(&served, &TftpLimits::default(), 8, |server| {
        let get = |block: usize, window: u16, request: &[u8]| {
            let mut client = Tftp::new();
            (client.block, client.window) = (block, window);
            client.get(server, request)
        };
        let file = |content: Vec<u8>, agreed: &str| (Got::File(content), agreed.to_owned());
        assert_eq!(get(512, 1, &octet("amd64/kernel", &[])), file(pattern(200_000), ""));
        assert_eq!(get(512, 1, &octet("/link", &[])), file(pattern(200_000), ""));
        assert_eq!(get(512, 1, &octet("even", &[])), file(pattern(1024), ""));
        assert_eq!(get(512, 1, &octet("empty", &[])), file(Vec::new(), ""));
        let request = Tftp::request(1, "boot.ipxe", "OCTET", &[("tsize", "0"), ("multicast", "")]);
        assert_eq!(get(512, 1, &request), file(b"#!ipxe\nshell\n".to_vec(), "tsize 13"));
        let options = [("blksize", "8"), ("timeout", "2")];
        assert_eq!(
            get(8, 1, &octet("even", &options)),
            file(pattern(1024), "blksize 8 timeout 2")
        );
        let options = [("BLKSIZE", "1428"), ("tsize", "0"), ("windowsize", "7")];
        assert_eq!(
            get(1428, 7, &octet("amd64/kernel", &options)),
            file(pattern(200_000), "blksize 1428 tsize 200000 windowsize 7")
        );
        let options = [("blksize", "65464"), ("windowsize", "65535")];
        assert_eq!(
            get(65_464, 64, &octet("amd64/kernel", &options)),
            file(pattern(200_000), "blksize 65464 windowsize 64")
        );
    });
    assert_eq!(log.len(), 8);
    assert!(log.iter().all(|l| l.problem.is_none() && l.status.is_none()), "{log:?}");
    let line = log[0].to_string();
    assert!(line.ends_with(" tftp RRQ amd64/kernel 200000 bytes"), "{line}");
}

#[test]
fn tftp_sends_again_what_was_lost() {
    let outer = directory();
    let served = outer.path().join("served");
    let limits = TftpLimits {
        timeout: Duration::from_millis(60),
        ..TftpLimits::default()
    };
    let log = tftp_in(&served, &limits, 2, |server| {
        for window in [1, 8] {
            let mut client = Tftp::new();
            client.lose = |n| n % 9 == 1 || n % 23 == 5;
            (client.block, client.window) = (4000, window);
            let options = [("blksize", "4000"), ("windowsize", if window == 1 { "1" } else { "8" })];
            let (got, _) = client.get(server, &octet("amd64/kernel", &options));
            assert_eq!(got, Got::File(pattern(200_000)), "window {window}");
        }
    });
    assert!(log.iter().all(|l| l.problem.is_none()), "{log:?}");
}

#[test]
fn tftp_gives_up_a_client_that_is_silent_and_hears_one_that_gives_up() {
    let outer = directory();
    let limits = TftpLimits {
        timeout: Duration::from_millis(50),
        retries: 3,
        transfers: 1,
        ..TftpLimits::default()
    };
    let log = tftp_in(&outer.path().join("served"), &limits, 4, |server| {
        let mut silent = Tftp::new();
        // The same request twice is one transfer.
        for _ in 0..2 {
            silent
                .socket
                .send_to(&octet("amd64/kernel", &[]), server)
                .expect("sent");
        }
        let (first, from) = silent.receive().expect("data");
        assert_eq!(first.len(), 516);
        let (got, _) = Tftp::new().get(server, &octet("amd64/kernel", &[]));
        assert_eq!(got, Got::Error(0, "too many transfers, try again later".to_owned()));
        for _ in 0..3 {
            assert_eq!(silent.receive().expect("again"), (first.clone(), from));
        }
        thread::sleep(Duration::from_millis(300));

        let mut size_only = Tftp::new();
        size_only
            .socket
            .send_to(&octet("amd64/kernel", &[("tsize", "0")]), server)
            .expect("sent");
        let (_, from) = size_only.receive().expect("options");
        size_only.socket.send_to(b"\0\x05\0\0enough\0", from).expect("sent");
        thread::sleep(Duration::from_millis(100));
        let (got, _) = Tftp::new().get(server, &octet("empty", &[]));
        assert_eq!(got, Got::File(Vec::new()), "there is room again");
    });
    let problems: Vec<_> = log.iter().filter_map(|l| l.problem.as_deref()).collect();
    assert_eq!(
        problems,
        [
            "too many transfers, try again later",
            "the client has become silent",
            "the client ended it with error 0 \"enough\""
        ]
    );
}

#[test]
fn tftp_counts_on_after_the_last_block_number() {
    let outer = tempfile::tempdir().expect("scratch");
    // A little more than 65536 blocks of 512 bytes, each different from its neighbours.
    let size = (32 << 20) + 1300;
    let content = pattern(size);
    fs::write(outer.path().join("large"), &content).expect("written");
    // A block at a time takes 65540 times there and back.
    let all: &[(u16, &[(&str, &str)])] = &[(16, &[("windowsize", "16")]), (1, &[])];
    #[expect(clippy::disallowed_methods, reason = "how the tests are asked for everything")]
    let thorough = std::env::var_os("PNB_TEST").is_some_and(|v| v == "all");
    let ways = if thorough { all } else { &all[..1] };
    tftp_in(outer.path(), &TftpLimits::default(), ways.len(), |server| {
        for &(window, options) in ways {
            let mut client = Tftp::new();
            client.window = window;
            let (got, _) = client.get(server, &octet("large", options));
            assert!(got == Got::File(content.clone()), "window {window}: another file came");
        }
    });
}

#[test]
fn tftp_refuses_what_is_not_reading_a_file_of_the_directory() {
    let outer = directory();
    let log = tftp_in(&outer.path().join("served"), &TftpLimits::default(), 21, |server| {
        let refused = |packet: &[u8]| match Tftp::new().get(server, packet).0 {
            Got::Error(code, message) => format!("{code} {message}"),
            Got::File(_) => panic!("it was served"),
        };
        for name in [
            "../secret",
            "/../secret",
            "amd64/../../secret",
            "out",
            "absolute",
            "//etc/passwd",
            "amd64",
            "fifo",
            "",
            ".",
        ] {
            assert_eq!(refused(&octet(name, &[])), "1 there is no such file", "{name:?}");
        }
        assert_eq!(
            refused(&Tftp::request(2, "new", "octet", &[])),
            "2 nothing can be written"
        );
        assert!(!outer.path().join("served/new").exists());
        assert_eq!(
            refused(&Tftp::request(1, "empty", "netascii", &[])),
            "4 only octet mode is served"
        );
        assert_eq!(
            refused(&Tftp::request(1, "empty", "mail", &[])),
            "4 only octet mode is served"
        );
        for packet in [
            &b""[..],
            b"\0",
            b"\0\x01",
            b"\0\x01empty",
            b"\0\x01empty\0octet",
            b"\0\x09x\0octet\0",
            &[1; 600],
        ] {
            assert_eq!(refused(packet), "4 not a request", "{}", packet.escape_ascii());
        }
        // What is part of a transfer, or an error, gets no answer: the next answer is to the next request.
        let mut client = Tftp::new();
        for packet in [&b"\0\x05\0\0x\0"[..], b"\0\x04\0\0", b"\0\x03\0\x01data", b"\0\x06\0"] {
            client.socket.send_to(packet, server).expect("sent");
        }
        assert_eq!(client.get(server, &octet("empty", &[])).0, Got::File(Vec::new()));
    });
    assert_eq!(log.len(), 21);
}

/// `pnb serve` as a process.
struct Server {
    child: Child,
    /// What it has said at its start.
    lines: Vec<String>,
    output: io::BufReader<ChildStdout>,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let output = io::BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Self {
            child,
            lines: Vec::new(),
            output,
        };
        let both = command.get_args().any(|a| a == "--tftp");
        for _ in 0..if both { 2 } else { 1 } {
            let line = server.line();
            server.lines.push(line);
        }
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line
    }

    fn address(&self, scheme: &str) -> SocketAddr {
        let prefix = format!("{scheme}://");
        let found = self.lines.iter().find_map(|l| l.split_once(&prefix));
        let (_, rest) = found.expect("the address was said");
        rest.split('/').next().expect("an address").parse().expect("an address")
    }

    /// Sends a signal; returns the exit code and what else was said.
    fn end(&mut self, signal: nix::sys::signal::Signal) -> (Option<i32>, String) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("sent");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("UTF-8");
        (self.child.wait().expect("ends").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pnb_serve(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("serve").arg(dir);
    command
}

#[test]
fn the_program_serves_until_it_is_told_to_end() {
    use nix::sys::signal::Signal;
    let outer = directory();
    let served = outer.path().join("served");
    let mut server = Server::start(pnb_serve(&served).args(["--http", "0", "--tftp", "127.0.0.1:0"]));
    let (web, tftp) = (server.address("http"), server.address("tftp"));
    assert_eq!(
        server.lines[0],
        format!("serving {} at http://{web}/\n", served.display())
    );
    assert!(web.ip().is_loopback());
    let mut kept = connect(web);
    kept.write_all(b"GET /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    assert_eq!(response(&mut kept, false).status, 200);
    assert_eq!(
        Tftp::new().get(tftp, &octet("boot.ipxe", &[])).0,
        Got::File(b"#!ipxe\nshell\n".to_vec())
    );
    for want in ["http GET /boot.ipxe 200 13 bytes\n", "tftp RRQ boot.ipxe 13 bytes\n"] {
        let line = server.line();
        assert_eq!(line.split_once(' ').map(|(_, what)| what), Some(want));
    }
    assert_eq!(server.end(Signal::SIGTERM), (Some(0), String::new()));

    let mut server = Server::start(pnb_serve(&served).args(["--http", "0", "--json"]));
    let web = server.address("http");
    assert_eq!(get(web, "/nothing", "").status, 404);
    let (code, said) = server.end(Signal::SIGINT);
    assert_eq!(code, Some(0));
    let mut event: serde_json::Value = serde_json::from_str(&said).expect("one object");
    assert!(
        event["peer"].as_str().is_some_and(|p| p.starts_with("127.0.0.1:")),
        "{event}"
    );
    event["peer"] = "<client>".into();
    insta::assert_snapshot!(event, @r#"{"bytes":0,"event":"served","peer":"<client>","problem":null,"protocol":"http","request":"GET /nothing","status":404}"#);
    let first: serde_json::Value = serde_json::from_str(&server.lines[0]).expect("an object");
    assert_eq!(
        (&first["event"], &first["url"]),
        (&"serving".into(), &format!("http://{web}/").into())
    );
}

/// Exit code and message of a `pnb serve` that cannot start.
fn refused(command: &mut Command) -> String {
    let done = command.output().expect("runs");
    let said = String::from_utf8_lossy(&done.stderr);
    format!("exit {}\n{}", done.status.code().expect("exits"), said.trim_end())
}

#[test]
fn what_keeps_it_from_serving_is_said_with_the_remedy() {
    let outer = directory();
    let served = outer.path().join("served");
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = taken.local_addr().expect("bound").port().to_string();
    let said = refused(pnb_serve(&served).args(["--http", &port]));
    insta::assert_snapshot!(said.replace(&port, "<port>"), @r###"
    exit 1
    error: failed to listen for HTTP on 127.0.0.1:<port>: Address already in use (os error 98)

    hint: another program has this port: end it, or choose another one
    "###);
    let said = refused(pnb_serve(&served).args(["--http", "192.0.2.1:8080"]));
    insta::assert_snapshot!(said, @r###"
    exit 1
    error: failed to listen for HTTP on 192.0.2.1:8080: Cannot assign requested address (os error 99)

    hint: that is no address of this machine; `ip address` lists them, 0.0.0.0 is all of them
    "###);
    let said = refused(&mut pnb_serve(&outer.path().join("nowhere")));
    insta::assert_snapshot!(said.replace(outer.path().to_str().expect("UTF-8"), "<dir>"), @r###"
    exit 1
    error: failed to open the directory <dir>/nowhere: No such file or directory (os error 2)

    hint: give a directory with what is to be served, such as images/ipxe/amd64
    "###);
    let said = refused(&mut pnb_serve(&outer.path().join("secret")));
    insta::assert_snapshot!(said.replace(outer.path().to_str().expect("UTF-8"), "<dir>"), @r###"
    exit 1
    error: failed to open the directory <dir>/secret: Not a directory (os error 20)

    hint: give a directory with what is to be served, such as images/ipxe/amd64
    "###);
    let said = refused(pnb_serve(&served).args(["--tftp", "here:69"]));
    insta::assert_snapshot!(said, @r###"
    exit 2
    error: invalid value 'here:69' for '--tftp <[ADDR:]PORT>': it is not PORT, ADDRESS:PORT or [ADDRESS]:PORT with the number of an address

    For more information, try '--help'.
    "###);
}
