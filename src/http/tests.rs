//! The client against a server that does what each test says, and a clock that nobody waits for.

use super::*;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// A request as the server saw it.
#[derive(Clone, Default, Debug)]
struct Seen {
    line: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Seen {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A server that answers request number n, counted from 1, with what `answer(n, request)` returns, and closes the connection. An answer
/// without bytes is a reset.
struct Double {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Double {
    fn new(answer: impl Fn(usize, &Seen) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                let Some(mut request) = read_head(&mut reader) else {
                    continue;
                };
                let number = log.lock().expect("whole").len() + 1;
                // An answer to an announcement comes before the body.
                let announced = request.field("expect").is_some();
                let early = if announced {
                    answer(number, &request)
                } else {
                    Vec::new()
                };
                if announced && early.starts_with(b"HTTP/1.1 100") {
                    let _ = stream.write_all(&early);
                }
                if !announced || early.starts_with(b"HTTP/1.1 100") {
                    let size = request
                        .field("content-length")
                        .map_or(0, |n| n.parse().expect("a size"));
                    let _ = (&mut reader).take(size).read_to_end(&mut request.body);
                    log.lock().expect("whole").push(request.clone());
                    request.fields.retain(|(name, _)| name != "expect");
                    send(&mut stream, &answer(number, &request));
                } else {
                    log.lock().expect("whole").push(request);
                    send(&mut stream, &early);
                }
            }
        });
        Self { address, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("whole").clone()
    }
}

fn send(stream: &mut TcpStream, bytes: &[u8]) {
    if bytes.is_empty() {
        // Unread bytes or none: either way the client reads no answer.
        let _ = stream.shutdown(Shutdown::Both);
    } else {
        let _ = stream.write_all(bytes);
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<Seen> {
    let mut lines = reader.lines();
    let line = lines.next()?.ok()?;
    let fields = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let fields = fields
        .filter_map(|line| {
            Some((
                line.split_once(": ")?.0.to_lowercase(),
                line.split_once(": ")?.1.to_owned(),
            ))
        })
        .collect();
    Some(Seen {
        line,
        fields,
        body: Vec::new(),
    })
}

fn answer(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let size = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n{fields}\r\n{body}").into_bytes()
}

/// A clock that moves only when somebody waits, and notes how long.
#[derive(Default, Debug)]
struct Waits(Mutex<Vec<u64>>);

impl HttpClock for Waits {
    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.lock().expect("whole").iter().sum())
    }
    fn unix(&self) -> i64 {
        784_111_770
    }
    fn wait(&self, time: Duration) {
        self.0.lock().expect("whole").push(time.as_secs());
    }
}

fn client() -> (HttpClient, Arc<Waits>) {
    let waits = Arc::new(Waits::default());
    let options = ClientOptions {
        silence: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    (
        HttpClient::with_clock(options, Arc::<Waits>::clone(&waits)).expect("a client"),
        waits,
    )
}

fn waited(waits: &Waits) -> Vec<u64> {
    waits.0.lock().expect("whole").clone()
}

#[test]
fn a_temporary_failure_is_tried_again_as_the_server_asks() {
    let server = Double::new(|number, _| match number {
        1 => Vec::new(),
        2 => answer("429 Slow down", "Retry-After: 7\r\n", ""),
        3 => answer("503 Later", "Retry-After: Sun, 06 Nov 1994 08:49:41 GMT\r\n", ""),
        4 => answer("500 Fault", "", ""),
        _ => answer("404 Not found", "X-Field: kept\r\n", "no\u{1b} such thing\n"),
    });
    let (client, waits) = client();
    let url = server.url("/x?q=1");
    let found = client.send(Request::new(Method::GET, &url)).expect("an answer");
    assert_eq!((found.status, found.header("x-field")), (404, Some("kept")));
    assert_eq!(found.said(), "no\\u{1b} such thing");
    assert_eq!(waited(&waits), [1, 7, 11, 8]);
    assert_eq!(server.seen()[4].line, "GET /x?q=1 HTTP/1.1");
}

#[test]
fn the_last_answer_or_reason_is_returned() {
    let server = Double::new(|_, _| answer("502 Bad", "", "upstream"));
    let (client, waits) = client();
    let url = server.url("/");
    let found = client.send(Request::new(Method::GET, &url)).expect("an answer");
    assert_eq!((found.status, found.said().as_str()), (502, "upstream"));
    assert_eq!((waited(&waits).len(), server.seen().len()), (4, 5));

    let resets = Double::new(|_, _| Vec::new());
    let url = resets.url("/a?token=secret");
    let error = client.send(Request::new(Method::GET, &url)).expect_err("no answer");
    assert!(error.is_temporary());
    let text = error.to_string();
    let begin = format!("GET http://{}/a?…: ", resets.address);
    assert!(text.starts_with(&begin) && text.ends_with("(5 tries)"), "{text}");
    assert_eq!(resets.seen().len(), 5);
}

#[test]
fn a_request_that_must_not_be_repeated_is_not() {
    let server = Double::new(|_, _| answer("503 Later", "Retry-After: 1\r\n", ""));
    let (client, waits) = client();
    let url = server.url("/");
    let mut request = Request::new(Method::POST, &url);
    request.body = RequestBody::Bytes(b"once");
    assert_eq!(client.send(request).expect("an answer").status, 503);
    assert_eq!((server.seen().len(), waited(&waits).len()), (1, 0));
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.body.as_slice(), seen.field("content-length")),
        (b"once".as_slice(), Some("4"))
    );
    // A body of no bytes has a length too.
    client.send(Request::new(Method::POST, &url)).expect("an answer");
    assert_eq!(server.seen()[1].field("content-length"), Some("0"));
}

#[test]
fn nobody_waits_longer_than_the_total_time() {
    let server = Double::new(|_, _| answer("429 Slow down", "Retry-After: 301\r\n", ""));
    let (client, waits) = client();
    let url = server.url("/");
    let found = client.send(Request::new(Method::GET, &url)).expect("an answer");
    assert_eq!((found.status, found.header("retry-after")), (429, Some("301")));
    assert_eq!((server.seen().len(), waited(&waits).len()), (1, 0));
}

#[test]
fn an_answer_has_a_limit() {
    let server = Double::new(|_, seen| match seen.line.contains("/bad") {
        true => answer("400 Bad", "", &"x".repeat(3000)),
        false => answer("200 OK", "", &"x".repeat(3000)),
    });
    let (client, _) = client();
    let ask = |path: &str, limit| {
        let url = server.url(path);
        let mut request = Request::new(Method::GET, &url);
        request.limit = limit;
        client.send(request).map(|a| a.body.len()).map_err(|e| e.to_string())
    };
    assert_eq!(ask("/", 3000), Ok(3000));
    let long = format!("GET {}: the answer has more than 2999 bytes", server.url("/"));
    assert_eq!(ask("/", 2999), Err(long));
    // The text of a refusal is cut instead.
    assert_eq!(ask("/bad", 100), Ok(100));
}

#[test]
fn a_stream_is_opened_anew_and_sent_whole() {
    let server = Double::new(|number, seen| match number {
        _ if seen.field("expect").is_some() && number < 3 => b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
        1 => Vec::new(),
        2 => answer("201 Created", "", ""),
        _ => answer("413 Too large", "", "quota"),
    });
    let (client, _) = client();
    let content: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut opened = 0;
    let mut open = || -> io::Result<Box<dyn Read + Send>> {
        opened += 1;
        // More than is announced: the rest is not sent.
        Ok(Box::new(io::Cursor::new(content.clone()).chain(io::repeat(0))))
    };
    let url = server.url("/blob");
    let mut put = || {
        let mut request = Request::new(Method::PUT, &url);
        request.body = RequestBody::Stream {
            size: 3 << 20,
            open: &mut open,
        };
        client.send(request).expect("an answer").status
    };
    assert_eq!(put(), 201);
    // The third is refused before a byte of it is sent.
    assert_eq!(put(), 413);
    assert_eq!(opened, 3);
    let seen = server.seen();
    assert!(seen[1].body == content && seen[2].body.is_empty());
    assert_eq!(seen[1].field("content-length"), Some("3145728"));
    assert_eq!(seen[1].field("transfer-encoding"), None);
}

#[test]
fn a_body_that_cannot_be_read_is_no_fault_of_the_server() {
    let server = Double::new(|_, _| answer("201 Created", "", ""));
    let (client, waits) = client();
    let url = server.url("/blob");
    let put = |open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>| {
        let mut request = Request::new(Method::PUT, &url);
        request.body = RequestBody::Stream { size: 9, open };
        let error = client.send(request).expect_err("no body");
        crate::model::chain(&error)
    };
    let begin = format!("read the bytes to send to {}/blob: ", server.url(""));
    assert_eq!(put(&mut || Err(io::Error::other("gone"))), format!("{begin}gone"));
    assert_eq!(
        put(&mut || Ok(Box::new(io::Cursor::new(b"short")))),
        format!("{begin}it ends 4 bytes early")
    );
    assert!(waited(&waits).is_empty());
}

#[test]
fn a_long_answer_goes_to_a_writer() {
    let server = Double::new(|number, seen| match (number, seen.line.contains("/cut")) {
        (1, _) => answer("503 Later", "", ""),
        (_, true) => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf".to_vec(),
        _ => answer("200 OK", "Docker-Content-Digest: sha256:x\r\n", &"y".repeat(200_000)),
    });
    let (client, waits) = client();
    let get = |path: &str, limit, sink: &mut dyn Write| {
        let url = server.url(path);
        let mut request = Request::new(Method::GET, &url);
        request.limit = limit;
        client.read(request, sink)
    };
    let mut out = Vec::new();
    let head = get("/blob", 200_000, &mut out).expect("an answer");
    assert_eq!((out.len(), head.body.len(), waited(&waits)), (200_000, 0, vec![1]));
    assert_eq!(head.header("docker-content-digest"), Some("sha256:x"));
    let error = get("/blob", 199_999, &mut io::sink())
        .expect_err("too long")
        .to_string();
    assert!(error.ends_with("the answer has more than 199999 bytes"), "{error}");
    let error = get("/cut", 100, &mut io::sink()).expect_err("cut");
    assert!(error.to_string().contains("was cut after 4 bytes"), "{error}");
    assert!(error.is_temporary());
    let mut space = [0; 3];
    let mut full = space.as_mut_slice();
    let error = get("/blob", 200_000, &mut full).expect_err("full").to_string();
    assert_eq!(error, format!("write the answer of {}", server.url("/blob")));
}

#[test]
fn no_redirect_is_followed() {
    let server = Double::new(|_, _| answer("307 Elsewhere", "Location: /other\r\n", ""));
    let (client, _) = client();
    let url = server.url("/");
    let found = client.send(Request::new(Method::GET, &url)).expect("an answer");
    assert_eq!((found.status, found.header("location")), (307, Some("/other")));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn no_secret_is_shown() {
    const SECRET: &str = "hunter2";
    let server = Double::new(|_, _| answer("200 OK", &format!("X-Token: {SECRET}\r\n"), SECRET));
    let (client, _) = client();
    let url = server.url(&format!("/hook/{SECRET}?t={SECRET}"));
    let request = || {
        let mut request = Request::new(Method::POST, &url);
        request.name = Some("the webhook");
        request.body = RequestBody::Bytes(SECRET.as_bytes());
        request
            .secret(header::AUTHORIZATION, &format!("Bearer {SECRET}"))
            .expect("a value")
    };
    let mut texts = vec![format!("{:?}", request()), format!("{client:?}")];
    texts.push(format!("{:?}", client.send(request()).expect("an answer")));
    let mut long = request();
    long.limit = 1;
    texts.push(client.send(long).expect_err("too long").to_string());
    assert_eq!(texts[3], "POST the webhook: the answer has more than 1 bytes");
    for text in texts {
        assert!(!text.contains(SECRET), "{text}");
    }
    // The server got it.
    assert_eq!(server.seen()[0].field("authorization"), Some("Bearer hunter2"));
    assert!(
        Request::new(Method::GET, &url)
            .secret(header::AUTHORIZATION, "a\nb")
            .is_none()
    );
}

#[test]
fn a_breach_of_the_protocol_is_not_tried_again() {
    let server = Double::new(|_, _| b"SSH-2.0-server\r\n\r\n".to_vec());
    let (client, waits) = client();
    let url = server.url("/");
    let error = client.send(Request::new(Method::GET, &url)).expect_err("no HTTP");
    assert!(matches!(error, HttpError::Protocol { .. }), "{error}");
    assert!(!error.is_temporary() && waited(&waits).is_empty());
}

#[test]
fn the_scheme_of_a_server_follows_from_its_name_and_the_options() {
    let origin = |ca: bool, host: &str| {
        let options = ClientOptions {
            ca: ca.then(|| include_bytes!("../../tests/fixtures/tls/authority.pem").to_vec()),
            plain_http: vec!["plain.example:5000".to_owned()],
            ..ClientOptions::default()
        };
        HttpClient::new(options).expect("a client").origin(host)
    };
    for (host, scheme) in [
        ("r.example", "https"),
        ("r.example:5000", "https"),
        ("plain.example:5000", "http"),
        ("plain.example", "https"),
        ("127.0.0.1:5000", "http"),
        ("[::1]:5000", "http"),
        ("[::1]", "http"),
        ("localhost", "http"),
    ] {
        assert_eq!(origin(false, host), format!("{scheme}://{host}"));
    }
    assert_eq!(origin(true, "127.0.0.1:5000"), "https://127.0.0.1:5000");
    assert_eq!(origin(true, "plain.example:5000"), "http://plain.example:5000");
}
