//! `HttpClient`: a request with its tries.

use super::{
    address::{is_loopback, parse},
    agents::{Agents, ClientOptions, RequestFault},
    clock::{HttpClock, MachineClock},
    error::HttpError,
    request::{Answer, Request, RequestBody, Retry},
    retry::{Tries, is_temporary},
};
use std::{
    fmt, io,
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};
use ureq::{
    SendBody,
    http::{self, HeaderName, HeaderValue, Method, Response, Uri, header},
};

/// The most bytes of the text of a refusal that are kept when the body is for a writer.
const REFUSAL: u64 = 64 << 10;
/// A body from this size on is announced with `Expect: 100-continue`, so that a server can refuse before the bytes are sent.
const ANNOUNCED: u64 = 256 << 10;
/// Bytes read from the connection at once.
const BUFFER: usize = 128 << 10;

/// A client that keeps connections open. A clone shares them.
#[derive(Clone)]
pub struct HttpClient {
    agents: Arc<Agents>,
    options: Arc<ClientOptions>,
    clock: Arc<dyn HttpClock>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpClient({:?})", self.options)
    }
}

impl HttpClient {
    /// A client with the clock of this machine.
    ///
    /// # Errors
    ///
    /// If the certificates of the private authority cannot be read.
    pub fn new(options: ClientOptions) -> Result<Self, HttpError> {
        Self::with_clock(options, Arc::new(MachineClock::default()))
    }

    /// A client that waits and reads the time by `clock`.
    ///
    /// # Errors
    ///
    /// If the certificates of the private authority cannot be read.
    pub fn with_clock(options: ClientOptions, clock: Arc<dyn HttpClock>) -> Result<Self, HttpError> {
        Ok(Self {
            agents: Arc::new(Agents::new(&options)?),
            options: Arc::new(options),
            clock,
        })
    }

    /// The clock of the client, for the life of tokens.
    pub fn clock(&self) -> &dyn HttpClock {
        &*self.clock
    }

    /// The same clock, shared.
    #[cfg(feature = "remote")]
    pub(crate) fn shared_clock(&self) -> &Arc<dyn HttpClock> {
        &self.clock
    }

    /// The tries of work that consists of several requests, under the limits of this client.
    pub fn tries(&self) -> Tries<'_> {
        Tries::new(&*self.clock, self.options.tries, self.options.total)
    }

    /// The scheme and the authority of a server that is named by `host[:port]`: `http` for a host that the options allow it for, and for
    /// this machine unless a private authority is given; else `https`.
    pub fn origin(&self, host: &str) -> String {
        let bare = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| match port.ends_with(']') {
                true => host,
                false => name,
            });
        let named = self
            .options
            .plain_http
            .iter()
            .any(|plain| plain.eq_ignore_ascii_case(host));
        let plain = named || (is_loopback(bare) && self.options.ca.is_none());
        format!("{}://{host}", if plain { "http" } else { "https" })
    }

    /// Sends a request and returns the answer, whatever its status. If the request may be sent again, a failed connection and the statuses
    /// 408, 425, 429, 500, 502, 503 and 504 are followed by another try; the answer of the last one is returned.
    ///
    /// # Errors
    ///
    /// If the address is not used, if there is no answer, if it is too long, or if the body cannot be read.
    pub fn send(&self, request: Request<'_>) -> Result<Answer, HttpError> {
        self.exchange(request, None)
    }

    /// The same; the body of an answer of 200 to 299 goes to `sink`, and at most `request.limit` bytes of it. After the first of these bytes
    /// there is no further try.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::send`]; [`HttpError::Cut`] if the answer ends early; if `sink` refuses bytes.
    pub fn read(&self, request: Request<'_>, sink: &mut dyn Write) -> Result<Answer, HttpError> {
        self.exchange(request, Some(sink))
    }

    fn exchange(&self, mut request: Request<'_>, mut sink: Option<&mut dyn Write>) -> Result<Answer, HttpError> {
        let name = request.shown();
        let uri = parse(request.url, &name, &self.options.plain_http)?;
        let mut tries = self.tries();
        if request.retry == Retry::Never {
            tries.most = 1;
        }
        let mut announce = request.body.size() >= ANNOUNCED;
        loop {
            let left = tries.left();
            let fault = match self.attempt(&mut request, &uri, &name, announce, &mut sink, left) {
                // A server or proxy that does not know the announcement gets the request without it.
                Ok(answer) if answer.status == 417 && announce => {
                    announce = false;
                    continue;
                }
                Ok(answer) if is_temporary(answer.status) && tries.again(Some(&answer)) => continue,
                Ok(answer) => return Ok(answer),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Temporary(problem)) => problem,
            };
            if !tries.again(None) {
                return Err(HttpError::Unreachable {
                    method: request.method.to_string(),
                    url: name,
                    made: tries.made,
                    problem: fault,
                });
            }
        }
    }

    /// One try.
    fn attempt(
        &self,
        request: &mut Request<'_>,
        uri: &Uri,
        name: &str,
        announce: bool,
        sink: &mut Option<&mut dyn Write>,
        left: Duration,
    ) -> Result<Answer, Fault> {
        let (method, headers) = (request.method.clone(), request.headers.clone());
        let mut unreadable = None;
        let asked = self.agents.ask(uri, |agent| match &mut request.body {
            RequestBody::Empty if [Method::POST, Method::PUT, Method::PATCH].contains(&method) => {
                agent.run(head(&method, uri, &headers, None, false)?.map(|()| [].as_slice()))
            }
            RequestBody::Empty => agent.run(head(&method, uri, &headers, None, false)?),
            RequestBody::Bytes(bytes) => agent.run(head(&method, uri, &headers, None, announce)?.map(|()| *bytes)),
            RequestBody::Stream { size, open } => {
                let inner = open().map_err(|source| unread(&mut unreadable, source))?;
                let mut exact = Exact {
                    inner,
                    left: *size,
                    failed: &mut unreadable,
                };
                let head = head(&method, uri, &headers, Some(*size), announce)?;
                agent.run(head.map(|()| SendBody::from_reader(&mut exact)))
            }
        });
        if let Some(source) = unreadable {
            let url = name.to_owned();
            return Err(Fault::Final(HttpError::Source { url, source }));
        }
        let answer = asked.map_err(|error| settle(error, &method, name))?;
        match sink.as_deref_mut().filter(|_| answer.status().is_success()) {
            Some(sink) => pour(answer, request, name, sink),
            None => self.collect(answer, request, name, sink.is_some(), left),
        }
    }

    /// Reads the body of an answer into memory.
    fn collect(
        &self,
        answer: Response<ureq::Body>,
        request: &Request<'_>,
        name: &str,
        refusal: bool,
        left: Duration,
    ) -> Result<Answer, Fault> {
        let (parts, body) = answer.into_parts();
        let status = parts.status.as_u16();
        let limit = if refusal { REFUSAL } else { request.limit };
        let begin = self.clock.elapsed();
        let mut reader = body.into_reader();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 8 << 10]);
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                // The text of a refusal is help, not content.
                Err(_) if status >= 300 => break,
                Err(error) => return Err(fault(&ureq::Error::from(error), &request.method, name)),
            };
            bytes.extend_from_slice(&buffer[..read]);
            if bytes.len() as u64 > limit {
                if status >= 300 {
                    bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                    break;
                }
                return Err(Fault::Final(long(request, name)));
            }
            if self.clock.elapsed().saturating_sub(begin) > left {
                return Err(Fault::Temporary("the answer takes too long".to_owned()));
            }
        }
        Ok(Answer {
            status,
            headers: parts.headers,
            body: bytes,
        })
    }
}

/// Why a try has no answer.
enum Fault {
    /// Another try may have one.
    Temporary(String),
    /// Another try would end the same.
    Final(HttpError),
}

/// Writes the body of an answer to `sink`.
fn pour(
    answer: Response<ureq::Body>,
    request: &Request<'_>,
    name: &str,
    sink: &mut dyn Write,
) -> Result<Answer, Fault> {
    let (parts, body) = answer.into_parts();
    let mut reader = body.into_reader();
    let (mut received, mut buffer) = (0, vec![0; BUFFER]);
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if received == 0 => return Err(fault(&ureq::Error::from(error), &request.method, name)),
            Err(error) => {
                return Err(Fault::Final(HttpError::Cut {
                    method: request.method.to_string(),
                    url: name.to_owned(),
                    received,
                    problem: RequestFault::new(&ureq::Error::from(error), None).problem,
                }));
            }
        };
        received += read as u64;
        if received > request.limit {
            return Err(Fault::Final(long(request, name)));
        }
        sink.write_all(&buffer[..read]).map_err(|source| {
            Fault::Final(HttpError::Sink {
                url: name.to_owned(),
                source,
            })
        })?;
    }
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: Vec::new(),
    })
}

fn long(request: &Request<'_>, name: &str) -> HttpError {
    HttpError::Long {
        method: request.method.to_string(),
        url: name.to_owned(),
        limit: request.limit,
    }
}

/// The head of a request.
fn head(
    method: &Method,
    uri: &Uri,
    headers: &[(HeaderName, HeaderValue)],
    size: Option<u64>,
    announce: bool,
) -> Result<http::Request<()>, ureq::Error> {
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(size) = size {
        request = request.header(header::CONTENT_LENGTH, size);
    }
    if announce {
        request = request.header(header::EXPECT, "100-continue");
    }
    Ok(request.body(())?)
}

/// What an error of the connection means for another try.
fn fault(error: &ureq::Error, method: &Method, name: &str) -> Fault {
    settle(RequestFault::new(error, None), method, name)
}

fn settle(fault: RequestFault, method: &Method, name: &str) -> Fault {
    match fault.temporary {
        true => Fault::Temporary(fault.problem),
        false => Fault::Final(HttpError::Protocol {
            method: method.to_string(),
            url: name.to_owned(),
            problem: fault.problem,
        }),
    }
}

/// Exactly `left` bytes of a body; keeps the error of reading, which is not one of the connection.
struct Exact<'a> {
    inner: Box<dyn Read + Send>,
    left: u64,
    failed: &'a mut Option<io::Error>,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        loop {
            match self.inner.read(&mut buffer[..most]) {
                Ok(0) => {
                    let text = format!("it ends {} bytes early", self.left);
                    return Err(unread(self.failed, io::Error::new(io::ErrorKind::UnexpectedEof, text)).into_io());
                }
                Ok(read) => {
                    self.left -= read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unread(self.failed, error).into_io()),
            }
        }
    }
}

/// Keeps the reason why a body cannot be read, and returns an error that ends the request.
fn unread(kept: &mut Option<io::Error>, source: io::Error) -> ureq::Error {
    let end = io::Error::other("the body cannot be read");
    *kept = Some(source);
    ureq::Error::Io(end)
}
