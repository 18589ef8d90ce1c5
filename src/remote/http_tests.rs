//! The client of Bazel's HTTP cache against a server that does what each test says.

use super::{BlobDigest, CachedResult, Endpoint, Loss, RemoteCache, RemoteError, RemoteLimits, connect, double::QUICK};
use crate::http::NetworkSettings;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Cursor, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// What the server does in place of the right thing.
#[derive(Clone, Debug)]
enum Trouble {
    /// It answers with this status, and words.
    Status(u16),
    /// It closes the connection.
    Reset,
    /// It never answers.
    Silence,
    /// It sends the blob a byte at a time.
    Trickle,
    /// It sends other bytes of the same number.
    Wrong,
    /// It sends a byte more.
    More,
    /// It says how many bytes there are, and closes the connection after some.
    Cut(usize),
}

#[derive(Default)]
struct HttpDoubleState {
    files: BTreeMap<String, Vec<u8>>,
    /// Troubles by method; the next one first.
    plan: Vec<(&'static str, Trouble)>,
    /// Method, path, and the value of `Authorization`.
    requests: Vec<(String, String, Option<String>)>,
    token: Option<String>,
    /// Whether the user agent was another one than pnb's.
    foreign: bool,
}

struct Server {
    address: SocketAddr,
    state: Arc<Mutex<HttpDoubleState>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state: Arc<Mutex<HttpDoubleState>> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(answer(stream, &shared)));
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, HttpDoubleState> {
        self.state.lock().expect("whole")
    }

    fn plan(&self, plan: &[(&'static str, Trouble)]) {
        let mut state = self.state();
        state.plan = plan.to_vec();
        state.requests.clear();
    }

    /// The methods since the last plan.
    fn asked(&self) -> Vec<String> {
        self.state()
            .requests
            .iter()
            .map(|(method, ..)| method.clone())
            .collect()
    }

    fn has(&self, bytes: &[u8]) -> BlobDigest {
        let blob = BlobDigest::of(bytes);
        let path = format!("/pnb/cas/{}", blob.sha256);
        self.state().files.insert(path, bytes.to_vec());
        blob
    }

    fn connect_with(&self, token_file: Option<PathBuf>, limits: &RemoteLimits) -> Arc<dyn RemoteCache> {
        let endpoint = Endpoint {
            address: format!("http://{}/pnb", self.address).parse().expect("an address"),
            token_file,
            identity: None,
        };
        connect(&endpoint, &NetworkSettings::default(), limits).expect("connects")
    }

    fn connect(&self) -> Arc<dyn RemoteCache> {
        self.connect_with(None, &QUICK)
    }
}

/// Answers one request, and closes the connection.
fn answer(mut stream: TcpStream, shared: &Mutex<HttpDoubleState>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut fields = BTreeMap::new();
    for line in reader.by_ref().lines() {
        match line?.split_once(": ") {
            Some((name, value)) => drop(fields.insert(name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    if fields.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let size = fields
        .get("content-length")
        .map_or(0, |size| size.parse().expect("a size"));
    let mut body = Vec::new();
    reader.take(size).read_to_end(&mut body)?;
    let (trouble, mut status, mut content) = {
        let mut state = shared.lock().expect("whole");
        let token = fields.get("authorization").cloned();
        state.requests.push((method.clone(), path.clone(), token.clone()));
        state.foreign |= !fields.get("user-agent").is_some_and(|agent| agent.starts_with("pnb/"));
        let planned = state.plan.iter().position(|(planned, _)| *planned == method);
        let trouble = planned.map(|at| state.plan.remove(at).1);
        if state.token.is_some() && state.token != token {
            (None, 401, b"who is that?".to_vec())
        } else if method == "PUT" {
            if trouble.is_none() {
                state.files.insert(path, body);
            }
            (trouble, 201, Vec::new())
        } else {
            match state.files.get(&path) {
                Some(content) => (trouble, 200, content.clone()),
                None => (trouble, 404, Vec::new()),
            }
        }
    };
    let whole = content.len();
    let mut pause = Duration::ZERO;
    match trouble {
        None => {}
        Some(Trouble::Status(planned)) => (status, content) = (planned, b"as planned".to_vec()),
        Some(Trouble::Reset) => return Ok(()),
        Some(Trouble::Silence) => {
            std::thread::sleep(Duration::from_secs(20));
            return Ok(());
        }
        Some(Trouble::Trickle) => pause = Duration::from_millis(20),
        Some(Trouble::Wrong) => content[0] ^= 1,
        Some(Trouble::More) => content.push(0),
        Some(Trouble::Cut(size)) => content.truncate(size),
    }
    let announced = if matches!(trouble, Some(Trouble::Cut(_))) {
        whole
    } else {
        content.len()
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    if method == "HEAD" {
        return Ok(());
    }
    if pause.is_zero() {
        return stream.write_all(&content);
    }
    for byte in content.chunks(1) {
        stream.write_all(byte)?;
        std::thread::sleep(pause);
    }
    Ok(())
}

fn put(cache: &Arc<dyn RemoteCache>, bytes: &[u8]) -> Result<BlobDigest, RemoteError> {
    let blob = BlobDigest::of(bytes);
    cache.put(&blob, &mut || Ok(Box::new(Cursor::new(bytes.to_vec()))))?;
    Ok(blob)
}

fn read(cache: &Arc<dyn RemoteCache>, blob: &BlobDigest) -> Result<Vec<u8>, RemoteError> {
    let mut bytes = Vec::new();
    let seen = Mutex::new(0);
    cache.read(blob, &mut bytes, &|size| *seen.lock().expect("whole") += size)?;
    assert_eq!(seen.into_inner().expect("whole"), blob.size);
    Ok(bytes)
}

fn lost(result: Result<impl std::fmt::Debug, RemoteError>) -> (Loss, String) {
    let error = result.expect_err("an error");
    (error.loss(), error.to_string())
}

#[test]
fn results_and_blobs_come_back() {
    let server = Server::new();
    let cache = server.connect();
    let blobs: Vec<Vec<u8>> = (0..9_u8).map(|n| vec![n; 1000 * usize::from(n)]).collect();
    let names: Vec<BlobDigest> = blobs.iter().map(|bytes| BlobDigest::of(bytes)).collect();
    assert_eq!(cache.missing(&names).expect("asked"), names.iter().copied().collect());
    let pairs: Vec<(BlobDigest, &[u8])> = names.iter().copied().zip(blobs.iter().map(Vec::as_slice)).collect();
    cache.put_small(&pairs).expect("sent");
    let large = vec![7; 3_000_000];
    let blob = put(&cache, &large).expect("sent");
    assert_eq!(cache.missing(&names).expect("asked"), BTreeSet::new());
    let order = [names[2], names[0], names[1], names[0], names[8]];
    let back = cache.read_small(&order).expect("read");
    assert_eq!(back, [2, 0, 1, 0, 8].map(|at: usize| blobs[at].clone()));
    assert_eq!(read(&cache, &blob).expect("read"), large);
    let action = BlobDigest::of(b"action");
    assert_eq!(cache.result(&action).expect("asked"), None);
    let result = CachedResult {
        files: [("record".to_owned(), names[3])].into(),
    };
    cache.put_result(&action, &result).expect("sent");
    assert_eq!(cache.result(&action).expect("asked"), Some(result));
    let state = server.state();
    assert!(state.files.contains_key(&format!("/pnb/ac/{}", action.sha256)));
    assert!(!state.foreign, "the user agent");
    assert!(state.requests.iter().all(|(_, _, token)| token.is_none()));
}

#[test]
fn a_server_without_head_is_asked_for_a_first_byte() {
    let server = Server::new();
    let cache = server.connect();
    let (here, gone) = (server.has(&vec![1; 2_000_000]), BlobDigest::of(b"gone"));
    server.plan(&[("HEAD", Trouble::Status(405))]);
    assert_eq!(cache.missing(&[here]).expect("asked"), BTreeSet::new());
    assert_eq!(cache.missing(&[gone]).expect("asked"), [gone].into());
    assert_eq!(server.asked(), ["HEAD", "GET", "GET"]);
}

#[test]
fn other_bytes_than_those_of_the_name_are_refused() {
    let server = Server::new();
    let cache = server.connect();
    let blob = server.has(&[5; 1000]);
    server.plan(&[("GET", Trouble::Wrong)]);
    let error = read(&cache, &blob).expect_err("wrong");
    assert!(
        matches!(error, RemoteError::Wrong { expected, .. } if expected == blob),
        "{error}"
    );
    server.plan(&[("GET", Trouble::More)]);
    assert_eq!(lost(read(&cache, &blob)).0, Loss::Result);
    server.plan(&[("GET", Trouble::Cut(10))]);
    let (loss, said) = lost(read(&cache, &blob));
    assert_eq!(loss, Loss::Server, "{said}");
    let gone = BlobDigest::of(b"gone");
    for error in [
        read(&cache, &gone).map(|_| ()).expect_err("gone"),
        cache.read_small(&[blob, gone]).map(|_| ()).expect_err("gone"),
    ] {
        assert!(
            matches!(error, RemoteError::Lacks { blob, .. } if blob == gone),
            "{error}"
        );
    }
    let place = format!("/pnb/ac/{}", blob.sha256);
    server.state().files.insert(place.clone(), b"no message".to_vec());
    assert_eq!(lost(cache.result(&blob)).0, Loss::Result);
    server.state().files.insert(place, vec![0; 5 << 20]);
    assert_eq!(lost(cache.result(&blob)).0, Loss::Result, "a result without an end");
}

#[test]
fn statuses_have_their_meaning() {
    let server = Server::new();
    let cache = server.connect();
    let blob = server.has(b"blob");
    for (status, loss, words) in [
        (
            401,
            Loss::Writing,
            "PUT of /cas/… answered 401 Unauthorized: as planned",
        ),
        (403, Loss::Writing, "403 Forbidden"),
        (405, Loss::Writing, "405 Method Not Allowed"),
        (413, Loss::Writing, "413 Payload Too Large"),
        (507, Loss::Writing, "507 Insufficient Storage"),
        (404, Loss::Writing, "it takes no uploads below this address"),
        (400, Loss::Server, "400 Bad Request"),
    ] {
        server.plan(&[("PUT", Trouble::Status(status))]);
        let (lost, said) = lost(put(&cache, b"x"));
        assert_eq!(lost, loss, "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(server.asked(), ["PUT"]);
    }
    for status in [401, 403] {
        server.plan(&[("GET", Trouble::Status(status))]);
        let error = read(&cache, &blob).expect_err("denied");
        assert!(
            matches!(error, RemoteError::Denied { doing: "read from", .. }),
            "{error}"
        );
    }
    server.plan(&[("HEAD", Trouble::Status(403))]);
    assert_eq!(lost(cache.missing(&[blob])).0, Loss::Server);
}

#[test]
fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let server = Server::new();
    let cache = server.connect();
    let blob = server.has(b"blob");
    server.plan(&[("GET", Trouble::Status(503)), ("GET", Trouble::Reset)]);
    assert_eq!(read(&cache, &blob).expect("read"), b"blob");
    assert_eq!(server.asked(), ["GET"; 3]);
    server.plan(&[("PUT", Trouble::Status(503))]);
    put(&cache, b"x").expect("sent");
    assert_eq!(server.asked(), ["PUT"; 2]);
}

#[test]
fn a_silent_server_and_a_trickle_are_left() {
    let limits = RemoteLimits {
        silence: Duration::from_millis(300),
        commit: Duration::from_millis(300),
        window: Duration::from_millis(900),
        ..QUICK
    };
    let server = Server::new();
    let cache = server.connect_with(None, &limits);
    let blob = server.has(&[9; 10_000]);
    for method in ["GET", "PUT"] {
        server.plan(&[(method, Trouble::Silence)]);
        let (loss, said) = lost(match method {
            "GET" => read(&cache, &blob).map(|_| ()),
            _ => put(&cache, b"x").map(|_| ()),
        });
        assert_eq!(loss, Loss::Server, "{said}");
        assert_eq!(server.asked(), [method], "silence is not asked again");
    }
    server.plan(&[("GET", Trouble::Trickle)]);
    let (loss, said) = lost(read(&cache, &blob));
    assert_eq!(loss, Loss::Server);
    assert!(said.contains("bytes of a request moved in"), "{said}");
}

#[test]
fn a_token_is_sent_and_renewed_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "first-secret").expect("written");
    let server = Server::new();
    let blob = server.has(b"blob");
    server.state().token = Some("Bearer first-secret".to_owned());
    let cache = server.connect_with(Some(path.clone()), &QUICK);
    read(&cache, &blob).expect("read");
    std::fs::write(&path, "second-secret").expect("written");
    server.state().token = Some("Bearer second-secret".to_owned());
    server.plan(&[]);
    put(&cache, b"x").expect("sent");
    assert_eq!(server.asked(), ["PUT"; 2]);
    server.state().token = Some("Bearer third-secret".to_owned());
    server.plan(&[]);
    let error = put(&cache, b"x").expect_err("denied");
    assert!(
        matches!(error, RemoteError::Denied { doing: "write to", .. }),
        "{error}"
    );
    assert_eq!(server.asked(), ["PUT"]);
    let shown = format!("{error} {error:?} {cache:?}");
    assert!(!shown.contains("secret"), "{shown}");
}
