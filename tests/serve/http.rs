//! HTTP.

use crate::client::*;
use pnb::serve::*;
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

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

/// A file of more than the buffers on the way hold.
fn large(dir: &Path) {
    let file = fs::File::create(dir.join("large")).expect("made");
    file.set_len(64 << 20).expect("sparse");
}

#[test]
fn a_client_that_dawdles_is_let_go() {
    let limits = HttpLimits {
        connections: 8,
        head: Duration::from_millis(400),
        stall: Duration::from_millis(400),
        ..HttpLimits::default()
    };
    let outer = tempfile::tempdir().expect("scratch");
    large(outer.path());
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
    });
    let problems: Vec<_> = log.iter().filter_map(|l| l.problem.as_deref()).collect();
    assert_eq!(problems, ["the client was too slow"], "{log:?}");
}

#[test]
fn a_connection_too_many_is_told_so_until_there_is_room() {
    let limits = HttpLimits {
        connections: 3,
        ..HttpLimits::default()
    };
    let outer = tempfile::tempdir().expect("scratch");
    fs::write(outer.path().join("small"), "x").expect("written");
    let log = http_in(outer.path(), &limits, |address| {
        let from = |n: u8| from_loopback(n, address);
        // Each has had an answer, so the server counts it.
        let mut three = [from(2), from(3), from(4)];
        for stream in &mut three {
            stream.write_all(SMALL).expect("sent");
            assert_eq!(response(stream, false).status, 200);
        }
        // The request, of several pieces, arrives before and after the answer, which must not be lost for it.
        for _ in 0..20 {
            let mut late = from(5);
            let _ = late.write_all(SMALL);
            thread::sleep(Duration::from_millis(20));
            let _ = late.write_all(SMALL);
            let busy = response(&mut late, false);
            assert_eq!((busy.status, busy.field("Retry-After")), (503, Some("1")));
            late.shutdown(Shutdown::Write).expect("open");
            assert!(at_end(&mut late), "the connection was reset");
        }
        drop(three);
        let begin = Instant::now();
        while get(address, "/small", "").status != 200 {
            assert!(begin.elapsed() < Duration::from_secs(20), "there is no room again");
            thread::sleep(Duration::from_millis(20));
        }
    });
    let busy = log.iter().find(|l| l.status == Some(503)).expect("a line");
    assert!(
        busy.to_string().ends_with(" http - 503 0 bytes: too many connections"),
        "{busy}"
    );
}

/// A connection from 127.0.0.n.
fn from_loopback(n: u8, server: SocketAddr) -> TcpStream {
    assert_eq!(server.ip(), Ipv4Addr::LOCALHOST);
    connect_from(
        Ipv4Addr::new(127, 0, 0, n),
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, server.port()),
    )
}

const SMALL: &[u8] = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn one_address_does_not_get_all_connections() {
    let limits = HttpLimits {
        connections: 16,
        ..HttpLimits::default()
    };
    let outer = tempfile::tempdir().expect("scratch");
    fs::write(outer.path().join("small"), "x").expect("written");
    http_in(outer.path(), &limits, |address| {
        let served = |stream: &mut TcpStream| {
            stream.write_all(SMALL).expect("sent");
            response(stream, false).status == 200
        };
        // Clients that keep what they get.
        let mut kept = Vec::new();
        let mut counts = [0; 3];
        for _ in 0..16 {
            for (client, count) in [2, 3, 4].into_iter().zip(&mut counts) {
                let mut stream = from_loopback(client, address);
                if served(&mut stream) {
                    *count += 1;
                    kept.push(stream);
                }
            }
        }
        assert_eq!(counts, [4, 4, 4]);
        for client in [5, 6] {
            let mut stream = from_loopback(client, address);
            assert!(served(&mut stream), "127.0.0.{client} is refused");
            kept.push(stream);
        }
    });
    // Alone, an address gets more.
    http_in(outer.path(), &limits, |address| {
        let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(address)).collect();
        for stream in &mut streams {
            stream.write_all(SMALL).expect("sent");
            assert_eq!(response(stream, false).status, 200);
        }
    });
}

#[test]
fn a_stop_ends_what_is_under_way() {
    let outer = tempfile::tempdir().expect("scratch");
    large(outer.path());
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
