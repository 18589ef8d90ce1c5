//! Servers that ask for a wait, send other ranges than they were asked for, or encode what they send.

use super::*;
use flate2::{Compression, write::GzEncoder};

/// Hears of waits.
#[derive(Default)]
struct Heard(Mutex<Vec<u64>>);

impl Progress for Heard {
    fn started(&self, _: &FetchItem, _: u64) {}
    fn advanced(&self, _: &FetchItem, _: u64) {}
    fn failed(&self, _: &FetchItem, _: &Location, _: &str) {}
    fn waiting(&self, _: &FetchItem, _: &Location, wait: Duration) {
        self.0.lock().expect("whole").push(wait.as_secs());
    }
    fn finished(&self, _: &FetchItem, _: bool) {}
}

/// A server that refuses with these status line and headers until `until` requests have come.
fn refusing(status: &'static str, headers: String, until: usize) -> Server {
    Server::new(move |_, n, s| match n <= until {
        true => send(s, status, &format!("{headers}Content-Length: 0\r\n"), b""),
        false => ok(s, &content()),
    })
}

/// Downloads; returns the seconds slept in all, and the waits that were told.
fn waited(server: &Server) -> (Result<Fetched, FetchError>, u128, Vec<u64>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let heard = Heard::default();
    let (result, slept) = get_in(dir.path(), &item(&content(), vec![server.place()]), false, &heard);
    (result, slept.iter().sum(), heard.0.into_inner().expect("whole"))
}

#[test]
fn a_server_is_given_the_time_that_it_asks_for() {
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:49 GMT\r\n";
    for (status, headers, most) in [
        ("429 Too Many Requests", "Retry-After: 12\r\n", 12_000),
        ("503 Service Unavailable", "Retry-After: 12\r\n", 12_000),
        // By the clock of the server, which need not be that of this machine.
        ("429 Too Many Requests", date, 12_000),
    ] {
        // More refusals than there are tries, as from a service that limits by rate.
        let server = refusing(status, headers.to_owned(), 5);
        let (result, slept, told) = waited(&server);
        assert_eq!(bytes_of(result.expect("fetched")), content(), "{headers}");
        assert!(
            (5 * most - 500..=5 * most + 4000).contains(&slept),
            "{headers}: {slept}"
        );
        assert_eq!(told[0], 12, "{headers}");
        assert_eq!(server.asked().len(), 6);
    }
    // In the past, and no wait at all: the pauses between tries stay.
    for headers in ["Retry-After: 0\r\n", "Retry-After: Sun, 06 Nov 1994 08:49:49 GMT\r\n"] {
        let server = refusing("503 Service Unavailable", headers.to_owned(), 3);
        let (result, slept, _) = waited(&server);
        result.expect("fetched");
        assert!((3000..=3600).contains(&slept), "{headers}: {slept}");
    }
}

#[test]
fn waits_have_an_end() {
    let long = refusing("429 Too Many Requests", "Retry-After: 86400\r\n".to_owned(), usize::MAX);
    assert_eq!(
        refusal(&long),
        "the server answered 429 Too Many Requests and asks to wait 86400 s, and pnb waits at most 120 s"
    );
    assert_eq!(long.asked().len(), 1);
    let always = refusing("503 Service Unavailable", "Retry-After: 100\r\n".to_owned(), usize::MAX);
    assert_eq!(
        refusal(&always),
        "the server answered 503 Service Unavailable (tried 4 times, waited 300 s as it asked)"
    );
    let hasty = refusing("503 Service Unavailable", "Retry-After: 0\r\n".to_owned(), usize::MAX);
    refusal(&hasty);
    assert!(hasty.asked().len() < 20, "{} requests", hasty.asked().len());
    // Not a wait: tried as any other.
    let other = refusing(
        "503 Service Unavailable",
        "Retry-After: soon\r\n".to_owned(),
        usize::MAX,
    );
    assert_eq!(
        refusal(&other),
        "the server answered 503 Service Unavailable (tried 3 times)"
    );
}

#[test]
fn one_refusal_holds_all_downloads_of_the_server() {
    let began = Arc::new(Mutex::new(None::<Instant>));
    let server = Server::new(move |a, _, s| {
        let began = *began.lock().expect("whole").get_or_insert_with(Instant::now);
        match began.elapsed() < Duration::from_millis(1900) {
            true => send(
                s,
                "429 Too Many Requests",
                "Retry-After: 2\r\nContent-Length: 0\r\n",
                b"",
            ),
            false => ok(s, a.path.as_bytes()),
        }
    });
    let base: Base = format!("http://{}", server.address).parse().expect("valid");
    let items: Vec<FetchItem> = (10..40)
        .map(|n| {
            let place = base.place(LocationKind::Mirror, &n.to_string().parse().expect("path"));
            item(format!("/{n}").as_bytes(), vec![place])
        })
        .collect();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (transport, heard) = (transports(), Heard::default());
    let downloader = Downloader {
        transport: &transport,
        directory: dir.path(),
        offline: false,
        policy: POLICY,
        sleep: &std::thread::sleep,
        progress: &heard,
        pauses: Pauses::default(),
    };
    fetch_all(&items, 8, &downloader, &|_| false, &|_, got| {
        std::fs::remove_file(got.path)
    })
    .expect("all are there");
    let refused = server.asked().len() - items.len();
    assert!((1..=16).contains(&refused), "{refused} requests were refused");
    let told = heard.0.into_inner().expect("whole");
    assert!((1..=3).contains(&told.len()), "told {told:?}");
}

#[test]
fn refusals_that_stay_are_not_tried_again_and_named() {
    for (status, about) in [
        ("400 Bad Request", "the server answered 400 Bad Request"),
        ("401 Unauthorized", "the server answered 401 Unauthorized"),
        ("403 Forbidden", "the server answered 403 Forbidden"),
        ("405 Method Not Allowed", "the server answered 405 Method Not Allowed"),
        ("451 Whatever", "the server answered 451 Unavailable For Legal Reasons"),
        ("501 Whatever", "the server answered 501 Not Implemented"),
        ("599 Whatever", "the server answered 599"),
    ] {
        let server = refusing(status, String::new(), usize::MAX);
        assert_eq!(refusal(&server), about);
        assert_eq!(server.asked().len(), 1, "{status}");
    }
}

#[test]
fn ranges_that_cannot_be_used_lead_to_the_whole_file() {
    // Bytes of an earlier run, and a server whose ranges begin elsewhere, cannot be read, or are of an encoded file.
    for headers in [
        "Content-Range: bytes 999-299999/300000\r\n",
        "Content-Range: bytes 0-299999/300000\r\n",
        "Content-Range: bytes\r\n",
        "",
        "Content-Range: bytes 1000-9999/10000\r\nContent-Encoding: gzip\r\n",
    ] {
        let server = Server::new(move |a, _, s| match &a.range {
            Some(_) => send(s, "206 Partial Content", headers, &content()[999..]),
            None => ok(s, &content()),
        });
        let item = item(&content(), vec![server.place()]);
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join(format!("{}.part", item.sha256)), &content()[..1000]).expect("written");
        let (result, _) = get_in(dir.path(), &item, false, &Silent);
        assert_eq!(bytes_of(result.expect("fetched")), content(), "{headers}");
        assert_eq!(server.asked().len(), 2, "{headers}");
    }
}

#[test]
fn a_connection_that_breaks_after_many_bytes_is_taken_up_as_often_as_it_takes() {
    let whole: Vec<u8> = content().repeat(30);
    let body = whole.clone();
    let server = Server::new(move |a, _, s| ranged(a, "\"1\"", &body, s, 1_100_000));
    let (result, _) = get(&item(&whole, vec![server.place()]));
    assert_eq!(bytes_of(result.expect("fetched")), whole);
    assert_eq!(server.asked().len(), 9, "more than the tries of the policy");
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn an_encoded_answer_is_decoded_unless_the_file_itself_is_compressed() {
    let text = b"text ".repeat(60_000);
    let short = gzipped(&text);
    let encoded = |headers: String, body: Vec<u8>| {
        Server::new(move |a, _, s| {
            assert_eq!(a.range, None);
            send(s, "200 OK", &format!("Content-Encoding: gzip\r\n{headers}"), &body);
        })
    };
    // Encoded on the way, with and without a length.
    for headers in [format!("Content-Length: {}\r\n", short.len()), String::new()] {
        let server = encoded(headers, short.clone());
        assert_eq!(
            bytes_of(get(&item(&text, vec![server.place()])).0.expect("decoded")),
            text
        );
    }
    // The pinned file is the compressed one: by its length, and by its name.
    let server = encoded(format!("Content-Length: {}\r\n", short.len()), short.clone());
    assert_eq!(
        bytes_of(get(&item(&short, vec![server.place()])).0.expect("kept")),
        short
    );
    let server = encoded(String::new(), short.clone());
    let base: Base = format!("http://{}", server.address).parse().expect("valid");
    let place = base.place(LocationKind::Mirror, &"Packages.gz".parse().expect("path"));
    assert_eq!(bytes_of(get(&item(&short, vec![place])).0.expect("kept")), short);
    // A small answer does not become a large file.
    let bomb = gzipped(&vec![0; 50_000_000]);
    let server = encoded(String::new(), bomb);
    assert_eq!(
        refusal(&server),
        "wrong size\n      expected: 300000\n        actual: more"
    );
    let other = Server::new(|_, _, s| send(s, "200 OK", "Content-Encoding: br\r\n", b"xxx"));
    assert_eq!(
        refusal(&other),
        "sends the file with the Content-Encoding \"br\", which was not asked for"
    );
}

#[test]
fn old_and_chunked_answers_are_read() {
    let old = Server::new(|_, _, s| {
        let _ = s.write_all(b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6\r\n\r\n");
        let _ = s.write_all(&content());
    });
    let chunked = Server::new(|_, _, s| {
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in content().chunks(70_001) {
            let _ = s.write_all(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
            let _ = s.write_all(&[chunk, b"\r\n"].concat());
        }
        let _ = s.write_all(b"0\r\n\r\n");
    });
    for server in [old, chunked] {
        assert_eq!(
            bytes_of(get(&item(&content(), vec![server.place()])).0.expect("fetched")),
            content()
        );
    }
}

#[test]
fn a_busy_server_is_asked_again_and_a_forbidding_one_is_not() {
    let busy = Server::new(|_, n, s| match n {
        1 => send(s, "503 Service Unavailable", "Content-Length: 0\r\n", b""),
        2 => send(s, "429 Too Many Requests", "Content-Length: 0\r\n", b""),
        _ => ok(s, &content()),
    });
    let (result, waits) = get(&item(&content(), vec![busy.place()]));
    assert_eq!(bytes_of(result.expect("fetched")), content());
    assert_eq!(waits, [500, 1000]);
    let always = Server::new(|_, _, s| send(s, "503 Service Unavailable", "Content-Length: 0\r\n", b""));
    let forbids = Server::new(|_, _, s| send(s, "403 Forbidden", "Content-Length: 0\r\n", b""));
    insta::assert_snapshot!([refusal(&always), refusal(&forbids)].join("\n"), @r###"
    the server answered 503 Service Unavailable (tried 3 times)
    the server answered 403 Forbidden
    "###);
    assert_eq!((always.asked().len(), forbids.asked().len()), (3, 1));
}
