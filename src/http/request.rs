//! Requests and answers. Neither shows a secret in `Debug`: values of headers, queries and bodies are left out.

use super::address::shown;
use crate::model::visible_message;
use std::{fmt, io, io::Read};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The most bytes that an answer has unless the caller says otherwise.
const SMALL: u64 = 1 << 20;

/// Whether a request may be sent more than once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// The server's state is the same after one and after two of them: try again after a failed connection and a temporary status.
    Safe,
    /// One try.
    Never,
}

/// The body of a request.
pub enum RequestBody<'a> {
    /// None; a `POST`, `PUT` or `PATCH` says that it has 0 bytes.
    Empty,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A body of a known size, which is opened anew for each try and sent with `Content-Length`.
    Stream {
        /// The size in bytes. A body with fewer is an error; more are not sent.
        size: u64,
        /// Opens it at its start.
        open: &'a mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
    },
}

impl RequestBody<'_> {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stream { size, .. } => *size,
        }
    }
}

impl RequestBody<'_> {
    /// The same body for another request.
    pub fn again(&mut self) -> RequestBody<'_> {
        match self {
            Self::Empty => RequestBody::Empty,
            Self::Bytes(bytes) => RequestBody::Bytes(bytes),
            Self::Stream { size, open } => RequestBody::Stream {
                size: *size,
                open: *open,
            },
        }
    }
}

impl fmt::Debug for RequestBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.size())
    }
}

/// A request. [`Request::new`] has the defaults.
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: &'a str,
    /// How errors name the address; by default without user name and query.
    pub name: Option<&'a str>,
    /// Header fields beside those of the body and the connection.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: RequestBody<'a>,
    /// The most bytes of the answer. The text of an answer of 300 and up is cut there, and any other that is longer is an error.
    pub limit: u64,
    /// Whether it may be sent again.
    pub retry: Retry,
}

impl<'a> Request<'a> {
    /// A request without a body, of which the answer has at most 1 MiB. `GET`, `HEAD` and `PUT` may be sent again.
    pub fn new(method: Method, url: &'a str) -> Self {
        let safe = [Method::GET, Method::HEAD, Method::PUT].contains(&method);
        Self {
            method,
            url,
            name: None,
            headers: Vec::new(),
            body: RequestBody::Empty,
            limit: SMALL,
            retry: if safe { Retry::Safe } else { Retry::Never },
        }
    }

    /// With a field of text that is no secret.
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// With a field whose value is a secret; `None` if the value cannot stand in a header.
    pub fn secret(mut self, name: HeaderName, value: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        self.headers.push((name, value));
        Some(self)
    }

    /// The address as errors show it.
    pub(super) fn shown(&self) -> String {
        self.name.map_or_else(|| shown(self.url), str::to_owned)
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "{} {} {names:?} {:?}", self.method, self.shown(), self.body)
    }
}

/// The answer of a server.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body; empty if it went to a writer.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header field of printable ASCII; the first one, if there are several.
    pub fn header(&self, name: impl ureq::http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The text of the body, visible and shortened, for a message about a refusal.
    pub fn said(&self) -> String {
        visible_message(String::from_utf8_lossy(&self.body).trim())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        write!(f, "{} {names:?} {} bytes", self.status, self.body.len())
    }
}
