//! Fetching from servers that behave in every way a server can.

mod network;
mod ordinary;
mod waits;

use pnb::fetch::{
    Base, Downloaded, Downloader, FetchError, FetchItem, Fetched, FileTransport, HttpOptions, HttpTransport, Location,
    LocationKind, Pauses, Progress, RetryPolicy, Silent, Transports, fetch_all,
};
use pnb::http::NetworkSettings;
use pnb::model::{Hint, Sha256Digest};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

/// One request as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    path: String,
    range: Option<String>,
    if_range: Option<String>,
}

/// A server that answers each connection's one request with what `answer(request, number)` writes.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn new(answer: impl Fn(&Asked, usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(request) = read_request(&stream) else { return };
                    let number = {
                        let mut log = log.lock().expect("not poisoned");
                        log.push(request.clone());
                        log.len()
                    };
                    answer(&request, number, &mut stream);
                });
            }
        });
        Self { address, asked }
    }

    fn place(&self) -> Location {
        let base: Base = format!("http://{}/debian", self.address).parse().expect("valid");
        base.place(LocationKind::Mirror, &"pool/x.deb".parse().expect("path"))
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut asked = Asked {
        path: first.split(' ').nth(1)?.to_owned(),
        range: None,
        if_range: None,
    };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.range = Some(value.to_owned()),
            "if-range" => asked.if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(asked)
}

/// Writes an answer and closes; errors are the client's business.
fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    let _ = stream.write_all(body);
}

fn ok(stream: &mut TcpStream, body: &[u8]) {
    send(stream, "200 OK", &format!("Content-Length: {}\r\n", body.len()), body);
}

/// Answers ranges as RFC 9110 says, for a file with this ETag.
fn ranged(asked: &Asked, etag: &str, body: &[u8], stream: &mut TcpStream, sent: usize) {
    let fresh = asked.if_range.as_deref().is_none_or(|e| e == etag);
    let offset = asked.range.as_deref().filter(|_| fresh).map_or(0, |r| {
        r.trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .expect("a range")
    });
    let part = &body[offset..];
    let length = part.len();
    let (status, range) = match offset {
        0 => ("200 OK", String::new()),
        _ => (
            "206 Partial Content",
            format!("Content-Range: bytes {offset}-{}/{}\r\n", body.len() - 1, body.len()),
        ),
    };
    let headers = format!("Content-Length: {length}\r\nETag: {etag}\r\n{range}");
    send(stream, status, &headers, &part[..sent.min(length)]);
}

/// 300,000 bytes that do not repeat soon.
fn content() -> Vec<u8> {
    (0..300_000u32)
        .flat_map(|n| [(n.wrapping_mul(2_654_435_761) >> 24) as u8])
        .collect()
}

fn item(content: &[u8], places: Vec<Location>) -> FetchItem {
    FetchItem {
        what: "package x 1 amd64".into(),
        size: content.len() as u64,
        sha256: Sha256Digest::new(Sha256::digest(content).into()),
        places,
    }
}

fn transports() -> Transports {
    let second = Duration::from_secs(1);
    let options = HttpOptions {
        connect: second,
        response: second,
        read: second,
        network: NetworkSettings::default(),
    };
    Transports {
        http: HttpTransport::new(&options),
        file: FileTransport,
    }
}

const POLICY: RetryPolicy = RetryPolicy {
    attempts: 3,
    backoff: Duration::from_millis(500),
    grace: Duration::from_secs(1),
    min_rate: 1000,
    longest_wait: Duration::from_secs(120),
    patience: Duration::from_secs(300),
};

/// Runs a download in `dir` without waiting between tries; returns the waits it asked for.
fn get_in(
    dir: &Path,
    item: &FetchItem,
    offline: bool,
    progress: &dyn Progress,
) -> (Result<Fetched, FetchError>, Vec<u128>) {
    let waits = Mutex::new(Vec::new());
    let transport = transports();
    let downloader = Downloader {
        transport: &transport,
        directory: dir,
        offline,
        policy: POLICY,
        sleep: &|d| waits.lock().expect("not poisoned").push(d.as_millis()),
        progress,
        pauses: Pauses::default(),
    };
    let result = downloader.get(item, &|| false, &|| false);
    (result, waits.into_inner().expect("not poisoned"))
}

fn get(item: &FetchItem) -> (Result<Fetched, FetchError>, Vec<u128>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (result, waits) = get_in(dir.path(), item, false, &Silent);
    if result.is_err() {
        assert_eq!(entries(dir.path()), 0, "an empty part was left");
    }
    (result, waits)
}

fn bytes_of(fetched: Fetched) -> Vec<u8> {
    let Fetched::Downloaded(Downloaded {
        mut file, size, verity, ..
    }) = fetched
    else {
        unreachable!("not downloaded")
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("readable");
    assert_eq!(bytes.len() as u64, size);
    assert_eq!(pnb::verity::digest_bytes(&bytes), verity);
    bytes
}

/// What the error of a download that must fail says about its only place.
fn refusal(server: &Server) -> String {
    let (result, _) = get(&item(&content(), vec![server.place()]));
    about_place(&result.expect_err("must be refused"), server)
}

fn about_place(error: &FetchError, server: &Server) -> String {
    let text = told(error, server);
    let about =
        text.strip_prefix("fetch package x 1 amd64: no place has it\n  mirror http://SERVER/debian/pool/x.deb: ");
    let (about, hint) = about
        .expect("names the package and the place")
        .split_once("\n\n")
        .expect("ends with a hint");
    let passing = ["tried ", "waited ", "asks to wait"]
        .iter()
        .any(|word| about.contains(word));
    let hint = hint.strip_prefix("hint: ").expect("a hint");
    match passing {
        true => assert_eq!(
            hint,
            "run `pnb fetch` again, or name a mirror that has the file with --mirror"
        ),
        false if about.contains("redirects to another") => {
            assert!(hint.contains("address to which the mirror leads"), "{hint}")
        }
        false => assert_eq!(hint, "name a mirror that has the file with --mirror", "{about}"),
    }
    about.to_owned()
}

fn told(error: &FetchError, server: &Server) -> String {
    let mut text = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\n\nhint: {hint}"));
    }
    text.replace(&server.address.to_string(), "SERVER")
}

#[expect(clippy::disallowed_methods, reason = "only counted")]
fn entries(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir).expect("listed").count()
}

#[test]
fn a_good_server_gives_the_file_in_one_request() {
    let server = Server::new(|_, _, s| ok(s, &content()));
    let (result, waits) = get(&item(&content(), vec![server.place()]));
    assert_eq!(bytes_of(result.expect("fetched")), content());
    assert_eq!(waits, []);
    let path = "/debian/pool/x.deb".to_owned();
    assert_eq!(
        server.asked(),
        [Asked {
            path,
            range: None,
            if_range: None
        }]
    );
}

#[test]
fn a_file_without_a_stated_length_is_fetched_too() {
    let server = Server::new(|_, _, s| send(s, "200 OK", "", &content()));
    assert_eq!(
        bytes_of(get(&item(&content(), vec![server.place()])).0.expect("fetched")),
        content()
    );
}

#[test]
fn a_vanished_file_says_where_it_was_looked_for_and_what_to_do() {
    let server = Server::new(|_, _, s| send(s, "404 Not Found", "Content-Length: 0\r\n", b""));
    let dir = tempfile::tempdir().expect("temporary directory");
    let nowhere: Base = "file:///nonexistent".parse().expect("valid");
    let places = vec![
        nowhere.place(LocationKind::Mirror, &"debian/pool/x.deb".parse().expect("path")),
        Location {
            kind: LocationKind::Snapshot,
            ..server.place()
        },
    ];
    let (result, waits) = get_in(dir.path(), &item(&content(), places), false, &Silent);
    insta::assert_snapshot!(told(&result.expect_err("gone"), &server), @r###"
    fetch package x 1 amd64: no place has it
      mirror file:///nonexistent/debian/pool/x.deb: not found
      snapshot http://SERVER/debian/pool/x.deb: not found

    hint: the archive has dropped this version; run `pnb lock --update`
    "###);
    assert_eq!(waits, [], "asking again would not help");
}

#[test]
fn offline_uses_no_network_and_says_so() {
    let server = Server::new(|_, _, s| ok(s, &content()));
    let dir = tempfile::tempdir().expect("temporary directory");
    let (result, _) = get_in(dir.path(), &item(&content(), vec![server.place()]), true, &Silent);
    insta::assert_snapshot!(told(&result.expect_err("offline"), &server), @r###"
    fetch package x 1 amd64: no place has it
      mirror http://SERVER/debian/pool/x.deb: not tried (--offline)

    hint: no place on this machine has it, and --offline forbids the network; run `pnb fetch` where there is a network
    "###);
    assert_eq!(server.asked(), []);
    std::fs::write(dir.path().join("x.deb"), content()).expect("written");
    let local: Base = format!("file://{}", dir.path().display()).parse().expect("valid");
    let place = local.place(LocationKind::Mirror, &"x.deb".parse().expect("path"));
    let (result, _) = get_in(
        dir.path(),
        &item(&content(), vec![server.place(), place]),
        true,
        &Silent,
    );
    assert_eq!(bytes_of(result.expect("copied")), content());
}

#[test]
fn wrong_bytes_are_refused_and_the_next_place_is_asked() {
    let mut wrong = content();
    wrong[123_456] ^= 1;
    let bad = Server::new(move |_, _, s| ok(s, &wrong));
    let (result, _) = get(&item(&content(), vec![bad.place()]));
    let message = told(&result.expect_err("must be refused"), &bad);
    let actual = Sha256Digest::new(
        Sha256::digest({
            let mut wrong = content();
            wrong[123_456] ^= 1;
            wrong
        })
        .into(),
    );
    let message = message
        .replace(&item(&content(), vec![]).sha256.to_hex(), "PINNED")
        .replace(&actual.to_hex(), "OTHER");
    insta::assert_snapshot!(message, @r###"
    fetch package x 1 amd64: no place has it
      mirror http://SERVER/debian/pool/x.deb: wrong content
          expected: PINNED
            actual: OTHER

    hint: name a mirror that has the file with --mirror
    "###);
    assert_eq!(bad.asked().len(), 1, "the same bytes would come again");
    let good = Server::new(|_, _, s| ok(s, &content()));
    let (result, _) = get(&item(&content(), vec![bad.place(), good.place()]));
    assert_eq!(bytes_of(result.expect("fetched")), content());
    assert_eq!(good.asked()[0].range, None, "nothing of the wrong bytes was kept");
}

#[test]
fn more_bytes_than_pinned_are_refused() {
    let said = Server::new(|_, _, s| ok(s, &[&content()[..], b"x"].concat()));
    let unsaid = Server::new(|_, _, s| send(s, "200 OK", "", &[&content()[..], b"x"].concat()));
    let endless = Server::new(|_, _, s| {
        let _ = write!(s, "HTTP/1.1 200 OK\r\n\r\n");
        while s.write_all(&[7; 65_536]).is_ok() {}
    });
    insta::assert_snapshot!([refusal(&said), refusal(&unsaid), refusal(&endless)].join("\n"), @r###"
    wrong size
          expected: 300000
            actual: 300001
    wrong size
          expected: 300000
            actual: more
    wrong size
          expected: 300000
            actual: more
    "###);
}

#[test]
fn a_short_answer_is_tried_again_and_resumed() {
    let said = Server::new(|_, _, s| ok(s, &content()[..299_999]));
    let unsaid = Server::new(|_, _, s| send(s, "200 OK", "", &content()[..299_999]));
    let cut = Server::new(|a, _, s| ranged(a, "\"1\"", &content(), s, 100));
    insta::assert_snapshot!([refusal(&said), refusal_keeping(&unsaid), refusal_keeping(&cut)].join("\n"), @r###"
    wrong size
          expected: 300000
            actual: 299999
    ends after 299999 of 300000 bytes (tried 3 times)
    breaks off after 300 of 300000 bytes: Peer disconnected (tried 3 times)
    "###);
    let ranges: Vec<_> = cut.asked().into_iter().map(|a| a.range).collect();
    assert_eq!(
        ranges,
        [None, Some("bytes=100-".to_owned()), Some("bytes=200-".to_owned())]
    );
    assert_eq!(cut.asked()[1].if_range.as_deref(), Some("\"1\""));

    let heals = Server::new(|a, n, s| ranged(a, "\"1\"", &content(), s, if n < 3 { 100_000 } else { 300_000 }));
    let (result, waits) = get(&item(&content(), vec![heals.place()]));
    assert_eq!(bytes_of(result.expect("fetched")), content());
    assert_eq!(waits, [500, 1000]);
}

/// Like `refusal`, where bytes to resume from may stay.
fn refusal_keeping(server: &Server) -> String {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (result, _) = get_in(dir.path(), &item(&content(), vec![server.place()]), false, &Silent);
    about_place(&result.expect_err("must be refused"), server)
}

#[test]
fn a_server_that_ignores_ranges_starts_anew() {
    let server = Server::new(|_, n, s| match n {
        1 => send(s, "200 OK", "Content-Length: 300000\r\n", &content()[..1000]),
        _ => ok(s, &content()),
    });
    let (result, _) = get(&item(&content(), vec![server.place()]));
    assert_eq!(bytes_of(result.expect("fetched")), content());
    assert_eq!(server.asked()[1].range.as_deref(), Some("bytes=1000-"));
}

#[test]
fn a_file_that_changed_between_two_tries_is_not_mixed() {
    // First another version of the file breaks off, then the right one is there under another ETag.
    let server = Server::new(|a, n, s| match n {
        1 => ranged(a, "\"old\"", &vec![9; 300_000], s, 5000),
        _ => ranged(a, "\"new\"", &content(), s, 300_000),
    });
    let (result, _) = get(&item(&content(), vec![server.place()]));
    assert_eq!(bytes_of(result.expect("fetched")), content());
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].if_range.as_deref(), Some("\"old\""));
}

#[test]
fn ranges_that_lie_are_refused() {
    let shifted = Server::new(|a, n, s| match n {
        1 => ranged(a, "\"1\"", &content(), s, 1000),
        _ => send(
            s,
            "206 Partial Content",
            "Content-Range: bytes 999-299999/300000\r\n",
            &content()[999..],
        ),
    });
    let unasked = Server::new(|_, _, s| {
        send(
            s,
            "206 Partial Content",
            "Content-Range: bytes 5-299999/300000\r\n",
            b"",
        )
    });
    let garbled = Server::new(|_, _, s| send(s, "206 Partial Content", "Content-Range: bytes\r\n", b""));
    let told = [refusal_keeping(&shifted), refusal(&unasked), refusal(&garbled)];
    insta::assert_snapshot!(told.join("\n"), @r###"
    sends bytes from 999 on when asked for those from 0 on
    sends bytes from 5 on when asked for those from 0 on
    sends a part of the file with the unusable Content-Range "bytes"
    "###);
}

#[test]
fn redirects_are_followed_on_the_same_host_only() {
    let moved = Server::new(|a, _, s| match a.path.as_str() {
        "/debian/pool/x.deb" => send(s, "302 Found", "Location: ../by-hash/1\r\nContent-Length: 0\r\n", b""),
        _ => ok(s, &content()),
    });
    assert_eq!(
        bytes_of(get(&item(&content(), vec![moved.place()])).0.expect("fetched")),
        content()
    );
    let other = Server::new(|_, _, s| ok(s, &content()));
    let target = other.address;
    let away = Server::new(move |_, _, s| {
        send(
            s,
            "301 Moved",
            &format!(
                "Location: http://localhost:{}/x\r\nContent-Length: 0\r\n",
                target.port()
            ),
            b"",
        );
    });
    let local = Server::new(|_, _, s| {
        send(
            s,
            "302 Found",
            "Location: file:///etc/passwd\r\nContent-Length: 0\r\n",
            b"",
        )
    });
    let circle = Server::new(|_, _, s| send(s, "302 Found", "Location: /again\r\nContent-Length: 0\r\n", b""));
    let told = [refusal(&away), refusal(&local), refusal(&circle)].join("\n");
    insta::assert_snapshot!(told.replace(&target.port().to_string(), "PORT"), @r###"
    redirects to another host, "localhost": http://localhost:PORT/x
    redirects to an address that is not valid
    redirects more than 5 times
    "###);
    assert_eq!(other.asked(), []);
}

#[test]
fn a_silent_or_trickling_server_is_given_up() {
    let silent = Server::new(|_, _, _| std::thread::sleep(Duration::from_secs(60)));
    let stuck = Server::new(|_, _, s| {
        send(s, "200 OK", "Content-Length: 300000\r\n", &content()[..10]);
        std::thread::sleep(Duration::from_secs(60));
    });
    let trickle = Server::new(|_, _, s| {
        send(s, "200 OK", "Content-Length: 300000\r\n", b"");
        while s.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let slow_head = Server::new(|_, _, s| {
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while s.write_all(b"H").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let began = Instant::now();
    let told = [
        refusal(&silent),
        refusal_keeping(&stuck),
        refusal_keeping(&trickle),
        refusal(&slow_head),
    ];
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // How much a trickle brought until then is a matter of milliseconds.
    insta::assert_snapshot!(told.join("\n"), @r###"
    the server did not answer in time (tried 3 times)
    breaks off after 10 of 300000 bytes: timeout: per read (tried 3 times)
    sends less than 1000 bytes per second (tried 3 times)
    the server did not answer in time (tried 3 times)
    "###);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let gone = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("bound")
    };
    let server = Server {
        address: gone,
        asked: Arc::default(),
    };
    insta::assert_snapshot!(refusal(&server), @r###"Connection refused (os error 111) (tried 3 times)"###);
}

#[test]
fn what_an_earlier_run_left_is_hashed_whole_and_resumed() {
    let server = Server::new(|a, _, s| ranged(a, "\"1\"", &content(), s, 300_000));
    let item = item(&content(), vec![server.place()]);
    let part = |dir: &Path| dir.join(format!("{}.part", item.sha256));

    // A run that was killed after 200,000 bytes: only the rest is transferred.
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(part(dir.path()), &content()[..200_000]).expect("written");
    assert_eq!(
        bytes_of(get_in(dir.path(), &item, false, &Silent).0.expect("fetched")),
        content()
    );
    assert_eq!(
        server.asked().last().and_then(|a| a.range.clone()).as_deref(),
        Some("bytes=200000-")
    );
    assert_eq!(server.asked().len(), 1);

    // A run that was killed when all bytes were there: nothing is transferred.
    assert_eq!(
        bytes_of(get_in(dir.path(), &item, false, &Silent).0.expect("whole")),
        content()
    );
    assert_eq!(server.asked().len(), 1);

    // Damaged meanwhile: found by the digest, then fetched from the start.
    let mut damaged = content()[..200_000].to_vec();
    damaged[7] ^= 1;
    std::fs::write(part(dir.path()), &damaged).expect("written");
    assert_eq!(
        bytes_of(get_in(dir.path(), &item, false, &Silent).0.expect("fetched")),
        content()
    );
    let ranges: Vec<_> = server.asked().into_iter().skip(1).map(|a| a.range).collect();
    assert_eq!(ranges, [Some("bytes=200000-".to_owned()), None]);

    // Longer than the file can be, or whole and wrong: dropped at once.
    for left in [vec![0; 300_001], vec![0; 300_000]] {
        std::fs::write(part(dir.path()), left).expect("written");
        assert_eq!(
            bytes_of(get_in(dir.path(), &item, false, &Silent).0.expect("fetched")),
            content()
        );
        assert_eq!(server.asked().last().expect("asked").range, None);
    }
}

#[test]
fn a_server_without_the_bytes_to_resume_from_is_asked_from_the_start() {
    let server = Server::new(|a, _, s| match a.range {
        Some(_) => send(s, "416 Range Not Satisfiable", "Content-Length: 0\r\n", b""),
        None => ok(s, &content()),
    });
    let item = item(&content(), vec![server.place()]);
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join(format!("{}.part", item.sha256)), b"old").expect("written");
    assert_eq!(
        bytes_of(get_in(dir.path(), &item, false, &Silent).0.expect("fetched")),
        content()
    );
}

#[test]
fn a_link_in_place_of_the_part_is_not_followed() {
    let server = Server::new(|_, _, s| ok(s, &content()));
    let item = item(&content(), vec![server.place()]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "precious").expect("written");
    std::os::unix::fs::symlink(&victim, dir.path().join(format!("{}.part", item.sha256))).expect("linked");
    let error = get_in(dir.path(), &item, false, &Silent).0.expect_err("refused");
    assert!(matches!(error, FetchError::Part { action: "open", .. }), "{error}");
    assert_eq!(std::fs::read(&victim).expect("readable"), b"precious");
}

#[test]
fn two_builders_transfer_a_file_once() {
    let server = Server::new(|a, _, s| {
        std::thread::sleep(Duration::from_millis(200));
        ranged(a, "\"1\"", &content(), s, 300_000);
    });
    let item = item(&content(), vec![server.place()]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = dir.path().join("object");
    let (both, delivered) = (Barrier::new(2), AtomicUsize::new(0));
    let build = || {
        let transport = transports();
        let downloader = Downloader {
            transport: &transport,
            directory: dir.path(),
            offline: false,
            policy: POLICY,
            sleep: &|_| {},
            progress: &Silent,
            pauses: Pauses::default(),
        };
        both.wait();
        match downloader.get(&item, &|| store.exists(), &|| false).expect("fetched") {
            Fetched::Present => {}
            Fetched::Downloaded(got) => {
                std::fs::rename(&got.path, &store).expect("renamed");
                delivered.fetch_add(1, Ordering::Relaxed);
            }
        }
        assert_eq!(std::fs::read(&store).expect("readable"), content());
    };
    std::thread::scope(|scope| {
        scope.spawn(build);
        scope.spawn(build);
    });
    assert_eq!((server.asked().len(), delivered.into_inner()), (1, 1));
    assert_eq!(entries(dir.path()), 1, "only the object is left");
}

/// Stops the process's download once some bytes are there, as a killed builder would.
struct StopAt(u64, AtomicBool);

impl Progress for StopAt {
    fn started(&self, _: &FetchItem, _: u64) {}
    fn advanced(&self, _: &FetchItem, position: u64) {
        self.1.fetch_or(position >= self.0, Ordering::Relaxed);
    }
    fn failed(&self, _: &FetchItem, _: &Location, _: &str) {}
    fn finished(&self, _: &FetchItem, _: bool) {}
}

#[test]
fn a_download_that_was_stopped_goes_on_where_it_was() {
    let server = Server::new(|a, _, s| ranged(a, "\"1\"", &content(), s, 300_000));
    let item = item(&content(), vec![server.place()]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let (transport, stop) = (transports(), StopAt(1, AtomicBool::new(false)));
    let downloader = Downloader {
        transport: &transport,
        directory: dir.path(),
        offline: false,
        policy: POLICY,
        sleep: &|_| {},
        progress: &stop,
        pauses: Pauses::default(),
    };
    let error = downloader
        .get(&item, &|| false, &|| stop.1.load(Ordering::Relaxed))
        .expect_err("stopped");
    assert!(matches!(error, FetchError::Stopped { .. }), "{error}");
    let left = std::fs::metadata(dir.path().join(format!("{}.part", item.sha256)))
        .expect("kept")
        .len();
    assert!(left > 0 && left < 300_000, "{left}");
    assert_eq!(
        bytes_of(get_in(dir.path(), &item, false, &Silent).0.expect("fetched")),
        content()
    );
    assert_eq!(server.asked()[1].range, Some(format!("bytes={left}-")));
}

#[test]
fn many_files_are_fetched_at_once_and_the_same_failure_is_told_every_time() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (r, m) = (Arc::clone(&running), Arc::clone(&most));
    let server = Server::new(move |a, _, s| {
        m.fetch_max(r.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        r.fetch_sub(1, Ordering::SeqCst);
        match a.path.as_str() {
            // The later of the two failures comes first.
            "/bad/7" => std::thread::sleep(Duration::from_millis(100)),
            "/bad/9" => {}
            path => {
                let name = path.rsplit('/').next().unwrap_or_default();
                return ok(s, name.repeat(100).as_bytes());
            }
        }
        send(s, "404 Not Found", "Content-Length: 0\r\n", b"");
    });
    let base: Base = format!("http://{}", server.address).parse().expect("valid");
    let make = |bad: &[usize]| -> Vec<FetchItem> {
        let one = |n: usize| {
            let name = format!("{}{n}", "x".repeat(40 - n));
            let path = if bad.contains(&n) {
                format!("bad/{n}")
            } else {
                name.clone()
            };
            let place = base.place(LocationKind::Mirror, &path.parse().expect("path"));
            FetchItem {
                what: format!("file {n}"),
                ..item(name.repeat(100).as_bytes(), vec![place])
            }
        };
        (0..20).map(one).collect()
    };
    let run = |items: &[FetchItem]| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let transport = transports();
        let downloader = Downloader {
            transport: &transport,
            directory: dir.path(),
            offline: false,
            policy: POLICY,
            sleep: &|_| {},
            progress: &Silent,
            pauses: Pauses::default(),
        };
        let done = Mutex::new(Vec::new());
        let result = fetch_all(items, 6, &downloader, &|_| false, &|item, got| {
            done.lock().expect("not poisoned").push(item.what.clone());
            std::fs::remove_file(got.path)
        });
        (result, done.into_inner().expect("not poisoned").len())
    };
    let (result, done) = run(&make(&[]));
    result.expect("all are there");
    assert_eq!(done, 20);
    let at_once = most.load(Ordering::SeqCst);
    assert!((2..=6).contains(&at_once), "{at_once} at once");
    for _ in 0..3 {
        let (result, done) = run(&make(&[7, 9]));
        let message = result.expect_err("two are gone").to_string();
        assert!(message.starts_with("fetch file 7: no place has it"), "{message}");
        assert!((7..20).contains(&done), "{done} were fetched");
    }
    let items = make(&[]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let transport = transports();
    let downloader = Downloader {
        transport: &transport,
        directory: dir.path(),
        offline: false,
        policy: POLICY,
        sleep: &|_| {},
        progress: &Silent,
        pauses: Pauses::default(),
    };
    let full = |_: &FetchItem, _: Downloaded| Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
    let error = fetch_all(&items, 6, &downloader, &|_| false, &full).expect_err("no space");
    assert_eq!(told(&error, &server), "store file 0: no storage space");
}
