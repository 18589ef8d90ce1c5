//! [`HttpCache`]: Bazel's HTTP cache, `GET` and `PUT` of `/ac/<SHA-256>` and `/cas/<SHA-256>` below an address.
//!
//! The body below `ac` is the message `ActionResult`; the name is the digest of the action. Any server that keeps what was `PUT` is such a
//! cache. It has no batches, so a few requests run at the same time.
//!
//! Source: Bazel's documentation, *Remote caching*, *HTTP caching protocol*.

use super::{
    BlobDigest, CachedResult, Checked, Endpoint, OpenBlob, RemoteCache, RemoteError, RemoteLimits, proto,
    token::{self, TokenFile},
};
use crate::{
    http::{
        Answer, ClientOptions, HeaderMap, HeaderName, HeaderValue, HttpClient, HttpClock, HttpError, MachineClock,
        Method, NetworkSettings, Request, RequestBody, header, status_text,
    },
    model::chain,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::ActionResult;
use prost::Message as _;
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Cursor, Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The most bytes of a result.
const MAX_RESULT: u64 = 4 << 20;
/// Requests at the same time; as many connections are kept.
const AT_ONCE: usize = 4;

/// Header fields of a request.
type Fields = Vec<(HeaderName, HeaderValue)>;

/// A cache over HTTP.
pub(super) struct HttpCache {
    name: String,
    url: String,
    /// For requests that read.
    reading: HttpClient,
    /// For uploads, after which a server may work for a while.
    writing: HttpClient,
    limits: RemoteLimits,
    token: TokenFile,
    /// Whether the server does not know `HEAD`.
    headless: AtomicBool,
}

impl fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpCache({})", self.name)
    }
}

/// The part of the bytes that is slow ends a request.
struct Paced<T> {
    inner: T,
    clock: Arc<dyn HttpClock>,
    limits: RemoteLimits,
    /// The begin of the window, and the bytes in it.
    window: (Duration, u64),
    /// Time that this machine took for its own part.
    own: Duration,
}

impl<T> Paced<T> {
    fn new(inner: T, clock: &Arc<dyn HttpClock>, limits: &RemoteLimits) -> Self {
        Self {
            inner,
            clock: Arc::clone(clock),
            limits: *limits,
            window: (clock.elapsed(), 0),
            own: Duration::ZERO,
        }
    }

    /// Moves some bytes by `step`, whose time is this machine's, after a look at the window.
    fn step<R>(&mut self, step: impl FnOnce(&mut T) -> io::Result<R>) -> io::Result<R> {
        let now = self.clock.elapsed();
        let waited = now.saturating_sub(self.window.0).saturating_sub(self.own);
        if waited >= self.limits.window {
            let bytes = self.window.1;
            self.window = (now, 0);
            self.own = Duration::ZERO;
            if bytes < self.limits.floor {
                return Err(io::Error::other(Slow(format!(
                    "only {bytes} bytes of a request moved in {waited:?}"
                ))));
            }
        }
        let moved = step(&mut self.inner);
        self.own += self.clock.elapsed().saturating_sub(now);
        moved
    }
}

/// A request in which too few bytes moved.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Slow(String);

impl<T: Write> Write for Paced<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.step(|inner| inner.write(bytes))?;
        self.window.1 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Paced<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.step(|inner| inner.read(buffer))?;
        self.window.1 += read as u64;
        Ok(read)
    }
}

impl HttpCache {
    /// A client of the endpoint. There is no request that says what a server offers, so none is sent.
    ///
    /// # Errors
    ///
    /// If a file of the endpoint cannot be used.
    pub(super) fn new(
        endpoint: &Endpoint,
        network: &NetworkSettings,
        limits: &RemoteLimits,
    ) -> Result<Self, RemoteError> {
        Self::with_clock(endpoint, network, limits, Arc::new(MachineClock::default()))
    }

    fn with_clock(
        endpoint: &Endpoint,
        network: &NetworkSettings,
        limits: &RemoteLimits,
        clock: Arc<dyn HttpClock>,
    ) -> Result<Self, RemoteError> {
        let address = &endpoint.address;
        let token = TokenFile::open(endpoint)?;
        let identity = token::identity(endpoint)?;
        // A server that is silent once is not asked again.
        let client = |silence: Duration| {
            HttpClient::with_clock(
                ClientOptions {
                    ca: None,
                    identity: identity.clone(),
                    connect: limits.connect,
                    silence,
                    tries: limits.tries,
                    total: silence,
                    network: network.clone(),
                    plain_http: vec![address.authority().to_owned()],
                },
                Arc::clone(&clock),
            )
            .map_err(|e| RemoteError::Gone {
                server: address.to_string(),
                problem: chain(&e),
            })
        };
        Ok(Self {
            name: address.to_string(),
            url: address.url(),
            reading: client(limits.silence)?,
            writing: client(limits.commit)?,
            limits: *limits,
            token,
            headless: AtomicBool::new(false),
        })
    }

    fn gone(&self, problem: String) -> RemoteError {
        RemoteError::Gone {
            server: self.name.clone(),
            problem,
        }
    }

    /// The address of a result or blob.
    fn place(&self, part: &str, blob: &BlobDigest) -> String {
        format!("{}/{part}/{}", self.url, blob.sha256)
    }

    /// Sends a request with the header of the token; once more after 401 if the file has another one meanwhile.
    fn ask(&self, mut send: impl FnMut(Fields) -> Result<Answer, HttpError>) -> Result<Answer, RemoteError> {
        let mut renewed = false;
        loop {
            let mut fields = Fields::new();
            let bearer = self.token.get();
            if let Some(bearer) = &bearer {
                let value = HeaderValue::from_str(&bearer.header());
                let mut value = value.map_err(|_| self.gone("the token cannot stand in a header".to_owned()))?;
                value.set_sensitive(true);
                fields.push((header::AUTHORIZATION, value));
            }
            let answer = send(fields).map_err(|e| self.failed(e))?;
            if answer.status == 401 && !renewed && self.token.renewed(bearer.as_ref()) {
                renewed = true;
                continue;
            }
            return Ok(answer);
        }
    }

    /// What a request without an answer means.
    fn failed(&self, error: HttpError) -> RemoteError {
        let slow = |source: &io::Error| source.get_ref().is_some_and(|inner| inner.is::<Slow>());
        match error {
            HttpError::Source { source, .. } if slow(&source) => self.gone(source.to_string()),
            HttpError::Sink { source, .. } if slow(&source) => self.gone(source.to_string()),
            HttpError::Source { source, .. } => RemoteError::Local {
                doing: format!("read a blob for the remote cache {}", self.name),
                source,
            },
            HttpError::Sink { source, .. } => RemoteError::Local {
                doing: format!("write a blob of the remote cache {}", self.name),
                source,
            },
            // A body that is longer than its name says, or a result longer than one of pnb.
            error @ HttpError::Long { .. } => RemoteError::Result {
                server: self.name.clone(),
                problem: chain(&error),
            },
            error => self.gone(chain(&error)),
        }
    }

    /// What a status that is none of the expected ones means.
    fn refused(&self, method: &Method, part: &str, answer: &Answer) -> RemoteError {
        let writes = *method == Method::PUT;
        let mut problem = format!("{method} of /{part}/… answered {}", status_text(answer.status));
        let said = answer.said();
        if !said.is_empty() {
            problem.push_str(": ");
            problem.push_str(&said);
        }
        let server = self.name.clone();
        let doing = if writes { "write to" } else { "read from" };
        match answer.status {
            401 | 403 => RemoteError::Denied { server, doing, problem },
            // A server of files takes no uploads, and is still read.
            405 | 501 if writes => RemoteError::Denied { server, doing, problem },
            413 | 507 if writes => RemoteError::Full { server, problem },
            404 if writes => RemoteError::Denied {
                server,
                doing,
                problem: format!("{problem}; it takes no uploads below this address"),
            },
            _ => self.gone(problem),
        }
    }

    /// Runs `work` on each item, a few at the same time, and returns the results in order, or the first error.
    fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R, RemoteError> + Sync,
    ) -> Result<Vec<R>, RemoteError> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let done: Mutex<Vec<(usize, Result<R, RemoteError>)>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(items.len()) {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(at) else { return };
                        let result = work(item);
                        if result.is_err() {
                            failed.store(true, Ordering::Relaxed);
                        }
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(at, result)| (result.is_ok(), *at));
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// Whether the server has a blob.
    fn has(&self, blob: &BlobDigest) -> Result<bool, RemoteError> {
        let url = self.place("cas", blob);
        let mut answer = None;
        if !self.headless.load(Ordering::Relaxed) {
            let said = self.ask(|headers| {
                let request = Request::new(Method::HEAD, &url);
                self.reading.send(Request { headers, ..request })
            })?;
            match said.status {
                405 | 501 => self.headless.store(true, Ordering::Relaxed),
                _ => answer = Some((Method::HEAD, said)),
            }
        }
        let (method, answer) = match answer {
            Some(answered) => answered,
            None => (Method::GET, self.first_byte(&url)?),
        };
        match answer.status {
            200..=299 | 416 => Ok(true),
            404 | 410 => Ok(false),
            _ => Err(self.refused(&method, "cas", &answer)),
        }
    }

    /// Asks for the first byte of a blob, and takes no further one of a server that sends all of them.
    fn first_byte(&self, url: &str) -> Result<Answer, RemoteError> {
        struct Enough;
        impl Write for Enough {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("enough"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        self.ask(|headers| {
            let request = Request {
                headers,
                limit: u64::MAX,
                ..Request::new(Method::GET, url)
            };
            let request = request.header(header::RANGE, "bytes=0-0");
            match self.reading.read(request, &mut Enough) {
                Err(HttpError::Sink { .. }) => Ok(Answer {
                    status: 200,
                    headers: HeaderMap::new(),
                    body: Vec::new(),
                }),
                other => other,
            }
        })
    }

    fn send(&self, part: &str, blob: &BlobDigest, size: u64, open: OpenBlob<'_>) -> Result<(), RemoteError> {
        let url = self.place(part, blob);
        let (clock, limits) = (self.clock(), self.limits);
        let answer = self.ask(|headers| {
            let mut paced =
                || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Paced::new(open()?, &clock, &limits))) };
            self.writing.send(Request {
                headers,
                body: RequestBody::Stream { size, open: &mut paced },
                ..Request::new(Method::PUT, &url)
            })
        })?;
        match answer.is_success() {
            true => Ok(()),
            false => Err(self.refused(&Method::PUT, part, &answer)),
        }
    }

    fn send_bytes(&self, part: &str, blob: &BlobDigest, bytes: &[u8]) -> Result<(), RemoteError> {
        let open: OpenBlob<'_> = &mut || Ok(Box::new(Cursor::new(bytes.to_vec())));
        self.send(part, blob, bytes.len() as u64, open)
    }

    fn clock(&self) -> Arc<dyn HttpClock> {
        Arc::clone(self.reading.shared_clock())
    }
}

impl RemoteCache for HttpCache {
    fn name(&self) -> &str {
        &self.name
    }

    fn result(&self, action: &BlobDigest) -> Result<Option<CachedResult>, RemoteError> {
        let url = self.place("ac", action);
        let answer = self.ask(|headers| {
            self.reading.send(Request {
                headers,
                limit: MAX_RESULT,
                ..Request::new(Method::GET, &url)
            })
        })?;
        match answer.status {
            404 | 410 => Ok(None),
            200 => {
                let message = ActionResult::decode(answer.body.as_slice()).map_err(|_| RemoteError::Result {
                    server: self.name.clone(),
                    problem: "it is no message of the Remote Execution API".to_owned(),
                })?;
                proto::cached_result(&self.name, &message).map(Some)
            }
            _ => Err(self.refused(&Method::GET, "ac", &answer)),
        }
    }

    fn put_result(&self, action: &BlobDigest, result: &CachedResult) -> Result<(), RemoteError> {
        self.send_bytes("ac", action, &proto::action_result(result).encode_to_vec())
    }

    fn missing(&self, blobs: &[BlobDigest]) -> Result<BTreeSet<BlobDigest>, RemoteError> {
        let asked: Vec<BlobDigest> = blobs.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let has = self.each(&asked, |blob| self.has(blob))?;
        Ok(asked
            .into_iter()
            .zip(has)
            .filter(|(_, has)| !has)
            .map(|(blob, _)| blob)
            .collect())
    }

    fn read_small(&self, blobs: &[BlobDigest]) -> Result<Vec<Vec<u8>>, RemoteError> {
        self.each(blobs, |blob| {
            let mut bytes = Vec::new();
            self.read(blob, &mut bytes, &|_| {})?;
            Ok(bytes)
        })
    }

    fn read(&self, blob: &BlobDigest, sink: &mut dyn Write, seen: &dyn Fn(u64)) -> Result<(), RemoteError> {
        /// Tells of each piece.
        struct Told<'a, W> {
            inner: W,
            seen: &'a dyn Fn(u64),
        }
        impl<W: Write> Write for Told<'_, W> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let written = self.inner.write(bytes)?;
                (self.seen)(written as u64);
                Ok(written)
            }
            fn flush(&mut self) -> io::Result<()> {
                self.inner.flush()
            }
        }
        let mut checked = Checked::new(*blob, sink);
        // The empty blob is the same everywhere.
        if blob.size == 0 {
            return checked.finish(&self.name);
        }
        let url = self.place("cas", blob);
        let clock = self.clock();
        let answer = self.ask(|headers| {
            let told = Told {
                inner: &mut checked,
                seen,
            };
            let request = Request {
                headers,
                limit: blob.size,
                ..Request::new(Method::GET, &url)
            };
            self.reading.read(request, &mut Paced::new(told, &clock, &self.limits))
        })?;
        match answer.status {
            200 => checked.finish(&self.name),
            404 | 410 => Err(RemoteError::Lacks {
                server: self.name.clone(),
                blob: *blob,
            }),
            _ => Err(self.refused(&Method::GET, "cas", &answer)),
        }
    }

    fn put_small(&self, blobs: &[(BlobDigest, &[u8])]) -> Result<(), RemoteError> {
        self.each(blobs, |(blob, bytes)| self.send_bytes("cas", blob, bytes))
            .map(|_| ())
    }

    fn put(&self, blob: &BlobDigest, open: OpenBlob<'_>) -> Result<(), RemoteError> {
        self.send("cas", blob, blob.size, open)
    }
}
