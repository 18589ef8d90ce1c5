//! Plays the metadata service of a cloud for a machine, from a description in `metadata.json`.
//!
//! ```json
//! {"answers": [
//!   {"method": "PUT", "path": "/latest/api/token", "headers": {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "body": "TOKEN"},
//!   {"path": "/latest/user-data", "headers": {"X-aws-ec2-metadata-token": "TOKEN"}, "file": "user-data", "once": true},
//!   {"path": "/latest/user-data", "status": 500, "delay_ms": 2000}
//! ]}
//! ```
//!
//! The first answer whose method, path and headers are those of the request is sent; a request without one gets 404. Every request is a
//! line of `requests.log` beside the description: status, method, path, and the headers but `Host` and `Connection`.

use crate::{
    model::{Hint, RelPath, lock},
    serve::{Stop, Wake},
    store::{open_foreign_below, read_foreign},
};
use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

/// Name of the description.
pub const METADATA_FILE: &str = "metadata.json";
/// Name of the log.
pub const REQUESTS_FILE: &str = "requests.log";
/// Largest description, and largest body, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Largest head of a request in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Time for each read and write of a connection.
const STALL: Duration = Duration::from_secs(30);
/// Longest delay of an answer, milliseconds.
const MAX_DELAY: u64 = 60_000;

/// Why a metadata service cannot be played; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum CloudServiceError {
    /// A file cannot be read or written.
    #[error("{verb} {path:?}")]
    Io {
        /// The failed operation.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason that the system gave.
        #[source]
        source: io::Error,
    },
    /// The description is not in its form.
    #[error("read {path:?}")]
    Form {
        /// The file.
        path: PathBuf,
        /// The fault, with its line.
        #[source]
        source: serde_json::Error,
    },
    /// An answer contradicts itself.
    #[error("read {path:?}: answer {number} ({target:?}) {problem}")]
    Answer {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        number: usize,
        /// Its path.
        target: String,
        /// The fault.
        problem: &'static str,
    },
    /// No address of the loopback is free.
    #[error("listen on the loopback for the metadata service")]
    Listen(#[source] io::Error),
}

impl Hint for CloudServiceError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some("docs/boot-chain.md describes the directory of --metadata".into())
    }
}

/// The description.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    answers: Vec<Answer>,
}

/// One answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(default = "get")]
    method: String,
    /// Path and query.
    path: String,
    /// Headers that the request must have, with these values.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default = "ok")]
    status: u16,
    /// Further headers of the answer.
    #[serde(default)]
    answer_headers: BTreeMap<String, String>,
    body: Option<String>,
    /// A file beside the description with the body.
    file: Option<String>,
    /// Whether it is sent once only.
    #[serde(default)]
    once: bool,
    #[serde(default)]
    delay_ms: u64,
    #[serde(skip)]
    bytes: Vec<u8>,
}

fn get() -> String {
    "GET".to_owned()
}

const fn ok() -> u16 {
    200
}

/// A metadata service that is ready to be played.
#[derive(Debug)]
pub struct CloudService {
    answers: Vec<Answer>,
    listener: TcpListener,
    address: SocketAddr,
    log: Mutex<File>,
    /// Numbers of the answers that are sent once and were sent.
    spent: Mutex<BTreeSet<usize>>,
}

impl CloudService {
    /// The service that the files in `dir` describe, on a free port of the loopback. Its log begins empty.
    ///
    /// # Errors
    ///
    /// The description is malformed, a file is missing, or the log cannot be written.
    pub fn open(dir: &Path) -> Result<Self, CloudServiceError> {
        let path = dir.join(METADATA_FILE);
        let text = read_foreign(&path, MAX_FILE).map_err(|source| CloudServiceError::Io {
            verb: "read",
            path: path.clone(),
            source,
        })?;
        let description: Description = serde_json::from_slice(&text).map_err(|source| CloudServiceError::Form {
            path: path.clone(),
            source,
        })?;
        let mut answers = description.answers;
        for (at, answer) in answers.iter_mut().enumerate() {
            if let Some(problem) = answer.problem() {
                return Err(CloudServiceError::Answer {
                    path,
                    number: at + 1,
                    target: answer.path.clone(),
                    problem,
                });
            }
            answer.load(dir)?;
        }
        let log = dir.join(REQUESTS_FILE);
        let log = File::create(&log).map_err(|source| CloudServiceError::Io {
            verb: "write",
            path: log,
            source,
        })?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(CloudServiceError::Listen)?;
        listener.set_nonblocking(true).map_err(CloudServiceError::Listen)?;
        let address = listener.local_addr().map_err(CloudServiceError::Listen)?;
        Ok(Self {
            answers,
            listener,
            address,
            log: Mutex::new(log),
            spent: Mutex::default(),
        })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs `work` while the service answers.
    ///
    /// # Errors
    ///
    /// No thread or no descriptor is left for it.
    pub fn with<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let stop = Stop::new()?;
        thread::scope(|scope| {
            let serve = || {
                while let Ok(Wake::Ready | Wake::TimedOut) = stop.readable(&self.listener, None) {
                    if let Ok((stream, _)) = self.listener.accept() {
                        // A client that cannot be answered sees its connection end.
                        let _ = thread::Builder::new().spawn_scoped(scope, move || self.answer(stream));
                    }
                }
            };
            let started = thread::Builder::new().spawn_scoped(scope, serve);
            let done = started.map(|_| work());
            stop.request();
            done
        })
    }

    /// Answers the one request of a connection.
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.set_write_timeout(Some(STALL))?;
        let mut head = Vec::new();
        let mut piece = [0; 1024];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
            match stream.read(&mut piece)? {
                0 => break,
                n => head.extend_from_slice(&piece[..n]),
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let request = Request::of(&head);
        let found = request.as_ref().and_then(|request| self.find(request));
        let status = match (&request, found) {
            (None, _) => 400,
            (_, None) => 404,
            (_, Some(answer)) => answer.status,
        };
        self.note(status, request.as_ref());
        if let Some(answer) = found {
            thread::sleep(Duration::from_millis(answer.delay_ms));
        }
        let body: &[u8] = found.map_or(b"", |answer| &answer.bytes);
        let mut said = format!("HTTP/1.0 {status} -\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in found.iter().flat_map(|answer| &answer.answer_headers) {
            let _ = write!(said, "{name}: {value}\r\n");
        }
        said += "\r\n";
        stream.write_all(said.as_bytes())?;
        stream.write_all(body)
    }

    /// The first answer to `request`.
    fn find(&self, request: &Request<'_>) -> Option<&Answer> {
        let mut spent = lock(&self.spent);
        let mut answers = self.answers.iter().enumerate();
        let (at, answer) = answers.find(|(at, answer)| answer.is_for(request) && !spent.contains(at))?;
        if answer.once {
            spent.insert(at);
        }
        Some(answer)
    }

    /// Writes the line of a request.
    fn note(&self, status: u16, request: Option<&Request<'_>>) {
        let mut line = status.to_string();
        match request {
            None => line += " -",
            Some(request) => {
                let _ = write!(line, " {} {}", request.method, request.path);
                for (name, value) in &request.headers {
                    if !["host", "connection"].contains(&name.to_ascii_lowercase().as_str()) {
                        let _ = write!(line, " {name}:{value}");
                    }
                }
            }
        }
        line.push('\n');
        // A test that misses a line fails.
        let _ = lock(&self.log).write_all(line.as_bytes());
    }
}

impl Answer {
    fn problem(&self) -> Option<&'static str> {
        if !self.path.starts_with('/') || self.path.contains(char::is_whitespace) {
            return Some("has a path that does not begin with / or holds white space");
        }
        if self.body.is_some() && self.file.is_some() {
            return Some("has both body and file");
        }
        if !(100..600).contains(&self.status) {
            return Some("has a status that is none of HTTP");
        }
        (self.delay_ms > MAX_DELAY).then_some("has a delay of more than a minute")
    }

    /// Reads the body.
    fn load(&mut self, dir: &Path) -> Result<(), CloudServiceError> {
        let Some(name) = &self.file else {
            self.bytes = self.body.clone().unwrap_or_default().into_bytes();
            return Ok(());
        };
        let failed = |source| CloudServiceError::Io {
            verb: "read",
            path: dir.join(name),
            source,
        };
        let path = RelPath::new(name).map_err(|error| failed(io::Error::other(error)))?;
        let file = open_foreign_below(dir, &path).map_err(failed)?;
        file.take(MAX_FILE).read_to_end(&mut self.bytes).map_err(failed)?;
        Ok(())
    }

    fn is_for(&self, request: &Request<'_>) -> bool {
        let has = |(name, value): (&String, &String)| {
            let mut all = request.headers.iter();
            all.any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value)
        };
        self.method == request.method && self.path == request.path && self.headers.iter().all(has)
    }
}

/// A request's head.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Request<'a> {
    fn of(head: &'a str) -> Option<Self> {
        let (head, _) = head.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, path, version) = (words.next()?, words.next()?, words.next()?);
        let headers = lines.map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())));
        (version.starts_with("HTTP/1.") && words.next().is_none()).then_some(())?;
        Some(Self {
            method,
            path,
            headers: headers.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn ask(service: &CloudService, request: &str) -> String {
        let mut stream = TcpStream::connect(service.address()).expect("connected");
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    #[test]
    fn a_request_is_answered_by_its_method_path_and_headers_and_logged() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(
            dir.path().join(METADATA_FILE),
            r#"{"answers": [
                {"method": "PUT", "path": "/token", "headers": {"X-Ttl": "60"}, "body": "T", "answer_headers": {"X-A": "b"}},
                {"path": "/data", "headers": {"X-Token": "T"}, "file": "one", "once": true},
                {"path": "/data", "headers": {"x-token": "T"}, "status": 500}]}"#,
        )
        .expect("written");
        fs::write(dir.path().join("one"), "first").expect("written");
        let service = CloudService::open(dir.path()).expect("described");
        service
            .with(|| {
                let put = ask(&service, "PUT /token HTTP/1.0\r\nHost: x\r\nx-ttl: 60\r\n\r\n");
                assert_eq!(put, "HTTP/1.0 200 -\r\nContent-Length: 1\r\nX-A: b\r\n\r\nT");
                assert!(ask(&service, "GET /data HTTP/1.1\r\n\r\n").starts_with("HTTP/1.0 404 "));
                assert!(ask(&service, "GET /data HTTP/1.1\r\nX-Token: T\r\n\r\n").ends_with("\r\n\r\nfirst"));
                assert!(ask(&service, "GET /data HTTP/1.1\r\nX-Token: T\r\n\r\n").starts_with("HTTP/1.0 500 "));
                assert!(ask(&service, "nonsense\r\n\r\n").starts_with("HTTP/1.0 400 "));
            })
            .expect("served");
        let log = fs::read_to_string(dir.path().join(REQUESTS_FILE)).expect("a log");
        let want = "200 PUT /token x-ttl:60\n404 GET /data\n200 GET /data X-Token:T\n500 GET /data X-Token:T\n400 -\n";
        assert_eq!(log, want);
    }

    #[test]
    fn a_wrong_description_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        for (text, want) in [
            (
                r#"{"answers": [{"path": "/a"}, {"path": "b"}]}"#,
                "answer 2 (\"b\") has a path",
            ),
            (
                r#"{"answers": [{"path": "/a", "body": "", "file": "x"}]}"#,
                "has both body and file",
            ),
            (r#"{"answers": [{"path": "/a", "file": "missing"}]}"#, "missing\""),
            (r#"{"answers": [{"path": "/a", "file": "../x"}]}"#, "../x\""),
            (r#"{"answers": [{"path": "/a", "stauts": 1}]}"#, "metadata.json\""),
            (r#"{"answers": [{"path": "/a", "status": 9}]}"#, "none of HTTP"),
        ] {
            fs::write(dir.path().join(METADATA_FILE), text).expect("written");
            let error = CloudService::open(dir.path()).expect_err("it is wrong").to_string();
            assert!(error.contains(want), "{want} is not in {error}");
        }
    }
}
