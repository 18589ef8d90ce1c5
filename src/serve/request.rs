//! Parses the head of an HTTP request; no I/O.
//!
//! Sources: RFC 9112 (HTTP/1.1), RFC 9110 section 14 (ranges), RFC 3986 section 2.1 (percent-encoding). `httparse` parses the syntax; this
//! file interprets it.

use super::{AskedName, served::printable};
use crate::model::RelPath;

/// Most header fields in a request.
const MAX_FIELDS: usize = 64;

/// Statuses that the server sends, with their reason phrases.
pub(super) const REASONS: [(u16, &str); 14] = [
    (200, "OK"),
    (206, "Partial Content"),
    (400, "Bad Request"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (408, "Request Timeout"),
    (414, "URI Too Long"),
    (416, "Range Not Satisfiable"),
    (431, "Request Header Fields Too Large"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (503, "Service Unavailable"),
    (505, "HTTP Version Not Supported"),
];

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpMethod {
    /// The file, or a range of it.
    Get,
    /// The head of the answer only.
    Head,
    /// A method of HTTP that this server does not support.
    Refused,
    /// Any other word.
    Unknown,
}

/// The byte range of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteRange {
    /// From an offset to another one (inclusive), or to the end.
    From(u64, Option<u64>),
    /// This number of bytes at the end.
    Last(u64),
}

impl ByteRange {
    /// First byte and length in a file of `size` bytes; `None` when the file has no byte of the range.
    pub fn within(self, size: u64) -> Option<(u64, u64)> {
        match self {
            ByteRange::From(first, last) if first < size => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                Some((first, end - first))
            }
            ByteRange::Last(count) if count > 0 && size > 0 => {
                let count = count.min(size);
                Some((size - count, count))
            }
            _ => None,
        }
    }
}

/// The head of a request.
#[derive(Debug)]
pub struct HttpRequest {
    /// Its method.
    pub method: HttpMethod,
    /// Method and target, printable.
    pub shown: String,
    /// The name of the requested file, or the status that refuses the request.
    pub name: Result<AskedName, u16>,
    /// The part of the file that a GET asks for.
    pub range: Option<ByteRange>,
    /// Whether the connection stays open for further requests.
    pub keep_alive: bool,
    /// Whether the request is of HTTP/1.0, where an answer must state that the connection stays open.
    pub old: bool,
}

/// Parses the head at the start of `bytes`; returns the request and the length of its head, or `None` while its end is missing.
///
/// # Errors
///
/// The status that refuses the request.
pub fn parse_http_request(bytes: &[u8]) -> Result<Option<(HttpRequest, usize)>, u16> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut raw = httparse::Request::new(&mut fields);
    let length = match raw.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(httparse::Error::Version) => return Err(505),
        Err(_) => return Err(400),
    };
    let (Some(method), Some(target), Some(minor)) = (raw.method, raw.path, raw.version) else {
        return Err(400);
    };
    let all = |name: &'static str| {
        raw.headers
            .iter()
            .filter(move |h| h.name.eq_ignore_ascii_case(name))
            .map(|h| h.value.trim_ascii())
    };
    let hosts = all("host").count();
    if hosts > 1 || (hosts == 0 && minor == 1) {
        return Err(400);
    }
    let has_token = |token: &str| {
        all("connection")
            .flat_map(|v| v.split(|b| *b == b','))
            .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    let persistent = if minor == 1 {
        !has_token("close")
    } else {
        has_token("keep-alive")
    };
    // A body has no meaning in these methods. The connection is closed instead of reading it, so that it cannot be mistaken for the next
    // request.
    let body = all("transfer-encoding").next().is_some() || all("content-length").any(|v| v != b"0");
    let method_read = match method {
        "GET" => HttpMethod::Get,
        "HEAD" => HttpMethod::Head,
        "CONNECT" | "DELETE" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE" => HttpMethod::Refused,
        _ => HttpMethod::Unknown,
    };
    // The server sends no validators, so an If-Range condition never holds.
    let mut ranges = all("range");
    let range = match (ranges.next(), ranges.next(), all("if-range").next()) {
        (Some(value), None, None) if method_read == HttpMethod::Get => parse_range(value),
        _ => None,
    };
    let request = HttpRequest {
        method: method_read,
        shown: printable(format!("{method} {target}").as_bytes()),
        name: parse_target(target.as_bytes()),
        range,
        keep_alive: persistent && !body,
        old: minor == 0,
    };
    Ok(Some((request, length)))
}

/// The name in a request target. A malformed target is refused with 400, one that cannot name a file with 404. A fragment, which has no
/// place in a target, is left out as the query is.
fn parse_target(target: &[u8]) -> Result<AskedName, u16> {
    let target = target.split(|b| *b == b'?' || *b == b'#').next().unwrap_or_default();
    let is = |scheme: &&[u8]| {
        target
            .get(..scheme.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    let path = match [&b"http://"[..], b"https://"].into_iter().find(is) {
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            let slash = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            &rest[slash..]
        }
        None => target,
    };
    let decoded = percent_decode(path).ok_or(400u16)?;
    match decoded.split_first() {
        Some((b'/', name)) => AskedName::of_http(name).ok_or(404),
        None => Err(404),
        Some(_) => Err(400),
    }
}

fn percent_decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (digits, tail) = tail.split_first_chunk::<2>()?;
            let digit = |b: u8| char::from(b).to_digit(16);
            let value = digit(digits[0])? * 16 + digit(digits[1])?;
            out.push(u8::try_from(value).ok()?);
            rest = tail;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    Some(out)
}

/// Parses `bytes=…` with one range; any other value is ignored, as RFC 9110 permits.
fn parse_range(value: &[u8]) -> Option<ByteRange> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", last) => Some(ByteRange::Last(number(last)?)),
        (first, "") => Some(ByteRange::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(ByteRange::From(first, Some(last)))
        }
    }
}

/// Parses a decimal number; one that is too large for 64 bits becomes the largest of them.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// `Content-Type` by a file's extension. Scripts and certificates are text, so that browsers show them; UEFI's HTTP boot decides by the
/// types of programs and media (UEFI specification, section 24.7).
pub(super) fn content_type(path: &RelPath) -> &'static str {
    let name = path.name();
    let dot = name.iter().rposition(|b| *b == b'.');
    let ending = dot.map(|at| name[at + 1..].to_ascii_lowercase()).unwrap_or_default();
    match (ending.as_slice(), name) {
        (b"ipxe" | b"cfg" | b"conf" | b"txt" | b"pem" | b"log", _) | (_, b"SHA256SUMS") => "text/plain; charset=utf-8",
        (b"json", _) => "application/json",
        (b"efi", _) => "application/efi",
        (b"iso", _) => "application/vnd.efi-iso",
        (b"img", _) => "application/vnd.efi-img",
        (b"zst", _) => "application/zstd",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(text: &str) -> Result<String, u16> {
        parse_target(text.as_bytes()).map(|name| {
            let all: Vec<String> = name.candidates().iter().map(ToString::to_string).collect();
            all.join(" or ")
        })
    }

    #[test]
    fn a_target_names_a_file_below_the_directory_or_none() {
        for (text, want) in [
            ("/kernel", Ok("kernel")),
            ("/amd64/initramfs.cpio.zst?x=/../y", Ok("amd64/initramfs.cpio.zst")),
            ("/a%20b%2Fc", Ok("a b/c")),
            ("http://host:8080/kernel", Ok("kernel")),
            ("HTTP://host", Err(404)),
            ("/", Err(404)),
            ("//etc/passwd", Ok("etc/passwd")),
            ("http://[fd00::1]:8080//kernel", Ok("kernel")),
            ("https://host/kernel#part", Ok("kernel")),
            ("/kernel#/../x", Ok("kernel")),
            ("http://host?/kernel", Err(404)),
            ("/a%23b", Ok("a#b")),
            ("/EFI%5CBOOT\\x", Ok("EFI\\BOOT\\x or EFI/BOOT/x")),
            ("/%2e%2e%5csecret", Err(404)),
            ("/a/%2e%2e%2fsecret", Err(404)),
            ("/../etc/passwd", Err(404)),
            ("/a/%2e%2E/%2e%2e/etc/passwd", Err(404)),
            ("/a/./b", Ok("a/b")),
            ("/a//b", Ok("a/b")),
            ("/a/", Err(404)),
            ("/a%00b", Err(404)),
            ("/a%2", Err(400)),
            ("/a%zz", Err(400)),
            ("/a%+1", Err(400)),
            ("*", Err(400)),
            ("kernel", Err(400)),
            ("%2Fkernel", Ok("kernel")),
        ] {
            assert_eq!(target(text), want.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_range_is_one_or_none() {
        for (text, size, want) in [
            ("bytes=0-0", 10, Some(Some((0, 1)))),
            ("bytes=2-5", 10, Some(Some((2, 4)))),
            ("Bytes = 7-", 10, Some(Some((7, 3)))),
            ("bytes=7-99999999999999999999999", 10, Some(Some((7, 3)))),
            ("bytes=-3", 10, Some(Some((7, 3)))),
            ("bytes=-30", 10, Some(Some((0, 10)))),
            ("bytes=-0", 10, Some(None)),
            ("bytes=10-", 10, Some(None)),
            ("bytes=99999999999999999999999-", 10, Some(None)),
            ("bytes=0-", 0, Some(None)),
            ("bytes=5-2", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("bytes=+1-2", 10, None),
            ("bytes=-", 10, None),
            ("lines=1-2", 10, None),
            ("bytes", 10, None),
        ] {
            assert_eq!(parse_range(text.as_bytes()).map(|r| r.within(size)), want, "{text}");
        }
    }

    #[test]
    fn connections_end_when_they_must() {
        let head = |version: &str, fields: &str| {
            let text = format!("GET /a HTTP/{version}\r\n{fields}\r\n");
            parse_http_request(text.as_bytes()).map(|r| r.map(|(r, _)| r.keep_alive))
        };
        assert_eq!(head("1.1", "Host: x\r\n"), Ok(Some(true)));
        assert_eq!(head("1.1", "Host: x\r\nConnection: te, Close\r\n"), Ok(Some(false)));
        assert_eq!(head("1.1", "Host: x\r\nContent-Length: 5\r\n"), Ok(Some(false)));
        assert_eq!(
            head("1.1", "Host: x\r\nTransfer-Encoding: chunked\r\n"),
            Ok(Some(false))
        );
        assert_eq!(head("1.0", ""), Ok(Some(false)));
        assert_eq!(head("1.0", "Connection: keep-alive\r\n"), Ok(Some(true)));
        assert_eq!(head("1.1", ""), Err(400));
        assert_eq!(head("1.1", "Host: x\r\nHost: y\r\n"), Err(400));
        assert_eq!(head("2.0", ""), Err(505));
        assert_eq!(head("1.1", &"A: b\r\n".repeat(65)), Err(431));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_in_does_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cut in 0usize..80,
            flip in 0usize..80,
        ) {
            let _ = parse_http_request(&bytes);
            let _ = parse_range(&bytes);
            if let Ok(name) = parse_target(&bytes) {
                for path in name.candidates() {
                    prop_assert!(path.components().all(|c| c != b".." && !c.is_empty()));
                }
            }
            let mut whole = b"GET /a%20b HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2\r\nConnection: keep-alive\r\n\r\n".to_vec();
            let at = flip % whole.len();
            whole[at] ^= 1 << (flip % 8);
            let _ = parse_http_request(&whole[..cut.min(whole.len())]);
            if let Ok(Some((_, length))) = parse_http_request(&whole) {
                prop_assert!(length <= whole.len());
            }
        }
    }
}
