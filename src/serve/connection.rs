//! One HTTP connection: receives requests and answers them, one after the other.

use super::{
    HttpLimits, Log, Protocol, Served, ServedDirectory, Stop, Wake,
    dir::{Missing, ServedFile},
    request::{self, HttpMethod, HttpRequest, REASONS},
    served::printable,
};
use crate::model::RelPath;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

/// Bytes and time in which the rest of a request is read and dropped before its connection is closed, so that the client receives the
/// answer.
const LINGER: (usize, Duration) = (256 << 10, Duration::from_secs(1));
/// Why a client gets no answer, or 503.
pub(super) const TOO_MANY: &str = "too many connections";
/// Bytes read from a file, and from a client, at once.
const CHUNK: usize = 64 << 10;
const HEAD_CHUNK: usize = 4 << 10;

/// Why a connection ends early.
enum Broken {
    /// The server stops.
    Stopped,
    /// The client is too slow.
    Slow,
    /// An error of the connection or the file.
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Io(error)
    }
}

impl Broken {
    fn problem(&self) -> String {
        match self {
            Broken::Stopped => "the server was stopped".to_owned(),
            Broken::Slow => "the client was too slow".to_owned(),
            Broken::Io(error) => error.to_string(),
        }
    }
}

/// The result of waiting for a request.
enum Heard {
    Request(HttpRequest),
    /// The client sends no further request.
    Nothing,
    /// The request is malformed; it is answered with this status.
    Refused(u16, String),
}

/// A connection of a client.
pub(super) struct Connection<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) dir: &'a ServedDirectory,
    pub(super) limits: &'a HttpLimits,
    pub(super) stop: &'a Stop,
    pub(super) log: Log<'a>,
    /// Received bytes that are not parsed yet; none at first.
    pub(super) buffer: Vec<u8>,
}

/// The head of a response.
struct Head<'a> {
    status: u16,
    content_type: &'a str,
    length: u64,
    /// Further fields, each with its line end.
    more: String,
    keep_alive: bool,
    /// Whether the request is of HTTP/1.0.
    old: bool,
}

impl Head<'_> {
    fn text(&self) -> String {
        let connection = match (self.keep_alive, self.old) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
        };
        format!(
            "HTTP/1.1 {} {}\r\nServer: pnb\r\nContent-Type: {}\r\nContent-Length: {}\r\nX-Content-Type-Options: nosniff\r\n{}{connection}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.length,
            self.more,
        )
    }
}

fn reason(status: u16) -> &'static str {
    REASONS.iter().find(|(s, _)| *s == status).map_or("", |(_, text)| text)
}

impl Connection<'_> {
    /// Answers requests until the connection ends.
    pub(super) fn run(mut self) {
        loop {
            let keep = match self.hear() {
                Ok(Heard::Request(request)) => self.answer(&request),
                Ok(Heard::Refused(status, shown)) => {
                    let refusal = Refusal::new(status, &shown, false);
                    self.refuse(&refusal)
                }
                Ok(Heard::Nothing) | Err(_) => return,
            };
            if !keep {
                self.linger();
                return;
            }
        }
    }

    /// Answers that there are too many connections.
    pub(super) fn busy(self) {
        let mut refusal = Refusal::new(503, "-", false).because(TOO_MANY.to_owned());
        refusal.more = "Retry-After: 1\r\n".to_owned();
        self.refuse(&refusal);
        self.linger();
    }

    /// Receives the head of the next request.
    fn hear(&mut self) -> Result<Heard, Broken> {
        let deadline = Instant::now() + self.limits.head;
        let mut chunk = [0u8; HEAD_CHUNK];
        loop {
            if !self.buffer.is_empty() {
                match request::parse_http_request(&self.buffer) {
                    Ok(Some((request, length))) => {
                        self.buffer.drain(..length);
                        return Ok(Heard::Request(request));
                    }
                    Ok(None) if self.buffer.len() >= self.limits.head_bytes => {
                        let first_line = self.buffer.contains(&b'\n');
                        return Ok(self.refused(if first_line { 431 } else { 414 }));
                    }
                    Ok(None) => {}
                    Err(status) => return Ok(self.refused(status)),
                }
            }
            match self.stop.readable(self.stream, Some(deadline))? {
                Wake::Ready => {}
                Wake::Stopped => return Err(Broken::Stopped),
                Wake::TimedOut if self.buffer.is_empty() => return Ok(Heard::Nothing),
                Wake::TimedOut => return Ok(self.refused(408)),
            }
            let room = (self.limits.head_bytes - self.buffer.len().min(self.limits.head_bytes)).clamp(1, HEAD_CHUNK);
            match (&mut &*self.stream).read(&mut chunk[..room]) {
                Ok(0) if self.buffer.is_empty() => return Ok(Heard::Nothing),
                Ok(0) => return Ok(self.refused(400)),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A request that cannot be read, with its first line for the log.
    fn refused(&self, status: u16) -> Heard {
        let line = self.buffer.split(|b| *b == b'\n').next().unwrap_or_default();
        Heard::Refused(status, printable(line.trim_ascii()))
    }

    /// Answers a request; returns whether the connection stays open.
    fn answer(&self, request: &HttpRequest) -> bool {
        // After a refusal, the connection of an HTTP/1.0 client is closed, so the answer needs no "Connection: keep-alive".
        let refused = |status| Refusal::new(status, &request.shown, request.keep_alive && !request.old);
        let refusal = match request.method {
            HttpMethod::Refused => refused(405),
            HttpMethod::Unknown => refused(501),
            HttpMethod::Get | HttpMethod::Head => {
                let opened = match &request.name {
                    Ok(name) => self.dir.asked(name),
                    Err(status) => return self.refuse(&refused(*status).for_method(request.method)),
                };
                match opened {
                    Ok((path, opened)) => return self.send_file(request, &path, &opened),
                    Err(Missing::Absent) => refused(404),
                    Err(Missing::Forbidden) => refused(403),
                    Err(Missing::Broken(error)) => refused(500).because(error.to_string()),
                }
            }
        };
        self.refuse(&refusal.for_method(request.method))
    }

    fn refuse(&self, refusal: &Refusal) -> bool {
        let body = format!("{} {}\n", refusal.status, reason(refusal.status));
        let head = Head {
            status: refusal.status,
            content_type: "text/plain; charset=utf-8",
            length: body.len() as u64,
            more: refusal.more.clone(),
            keep_alive: refusal.keep_alive,
            old: false,
        };
        let mut text = head.text();
        if !refusal.headless {
            text.push_str(&body);
        }
        let deadline = Instant::now() + self.limits.stall;
        let sent = self.write(text.as_bytes(), deadline);
        let problem = sent.as_ref().err().map(Broken::problem);
        (self.log)(&Served {
            protocol: Protocol::Http,
            peer: self.peer,
            request: refusal.request.clone(),
            status: Some(refusal.status),
            bytes: 0,
            problem: problem.or_else(|| refusal.problem.clone()),
        });
        sent.is_ok() && refusal.keep_alive
    }

    fn send_file(&self, request: &HttpRequest, path: &RelPath, opened: &ServedFile) -> bool {
        let mut more = "Accept-Ranges: bytes\r\n".to_owned();
        let (status, first, length) = match request.range {
            None => (200, 0, opened.size),
            Some(range) => match range.within(opened.size) {
                Some((first, length)) => {
                    let last = first + length - 1;
                    more.push_str(&format!("Content-Range: bytes {first}-{last}/{}\r\n", opened.size));
                    (206, first, length)
                }
                None => {
                    let mut refusal = Refusal::new(416, &request.shown, request.keep_alive && !request.old);
                    refusal.more = format!("Content-Range: bytes */{}\r\n", opened.size);
                    return self.refuse(&refusal);
                }
            },
        };
        let head = Head {
            status,
            content_type: request::content_type(path),
            length,
            more,
            keep_alive: request.keep_alive,
            old: request.old,
        };
        let deadline = Instant::now() + self.limits.stall + Duration::from_secs(length / self.limits.slowest.max(1));
        let mut bytes = 0;
        let mut sent = self.write(head.text().as_bytes(), deadline);
        if sent.is_ok() && request.method == HttpMethod::Get {
            sent = self.send_bytes(opened, first, length, deadline, &mut bytes);
        }
        (self.log)(&Served {
            protocol: Protocol::Http,
            peer: self.peer,
            request: request.shown.clone(),
            status: Some(status),
            bytes,
            problem: sent.as_ref().err().map(Broken::problem),
        });
        sent.is_ok() && request.keep_alive
    }

    /// Sends a part of a file. sendfile(2) is not used, because it raises SIGPIPE when the client is gone.
    fn send_bytes(
        &self,
        opened: &ServedFile,
        first: u64,
        length: u64,
        deadline: Instant,
        sent: &mut u64,
    ) -> Result<(), Broken> {
        let mut chunk = vec![0u8; CHUNK];
        while *sent < length {
            let want = usize::try_from(length - *sent).map_or(CHUNK, |left| left.min(CHUNK));
            let got = match opened.file.read_at(&mut chunk[..want], first + *sent) {
                // Content-Length was sent already: only a closed connection can tell the client.
                Ok(0) => return Err(io::Error::other("the file became shorter").into()),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.write(&chunk[..got], deadline)?;
            *sent += got as u64;
        }
        Ok(())
    }

    /// Writes all of `bytes`; fails when the client reads too slowly.
    fn write(&self, mut bytes: &[u8], deadline: Instant) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match (&mut &*self.stream).write(bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if again(&error) => {
                    let stalled = Instant::now() + self.limits.stall;
                    match self.stop.writable(self.stream, stalled.min(deadline))? {
                        Wake::Ready => {}
                        Wake::Stopped => return Err(Broken::Stopped),
                        Wake::TimedOut => return Err(Broken::Slow),
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > deadline {
                return Err(Broken::Slow);
            }
        }
        Ok(())
    }

    /// Reads and drops the rest of the client's request: closing a socket with unread bytes resets the connection, and the client might
    /// lose the answer (RFC 9112, section 9.6).
    fn linger(&self) {
        let (most, time) = LINGER;
        let deadline = Instant::now() + time;
        let mut chunk = [0u8; HEAD_CHUNK];
        let mut taken = 0;
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        while taken < most && matches!(self.stop.readable(self.stream, Some(deadline)), Ok(Wake::Ready)) {
            match (&mut &*self.stream).read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => taken += count,
                Err(error) if again(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// Whether a call is to be repeated.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// An answer with an error status.
struct Refusal {
    status: u16,
    request: String,
    keep_alive: bool,
    /// Further fields, each with its line end.
    more: String,
    /// Whether only the head is sent.
    headless: bool,
    problem: Option<String>,
}

impl Refusal {
    fn new(status: u16, request: &str, keep_alive: bool) -> Self {
        Self {
            status,
            request: request.to_owned(),
            keep_alive,
            more: match status {
                405 => "Allow: GET, HEAD\r\n".to_owned(),
                _ => String::new(),
            },
            headless: false,
            problem: None,
        }
    }

    fn for_method(mut self, method: HttpMethod) -> Self {
        self.headless = method == HttpMethod::Head;
        self
    }

    fn because(mut self, problem: String) -> Self {
        self.problem = Some(problem);
        self
    }
}
