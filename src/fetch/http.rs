//! The HTTP and HTTPS transport: ranges, redirects, time limits.
//!
//! Source: RFC 9110, §10.2.3 (`Retry-After`), §13 (conditional requests), §14 (ranges), §15 (status codes).

use super::location::{Address, Location};
use super::transport::{AnswerRange, Response, Transport, TransportFailure};
use crate::http::{
    HttpClock, MachineClock, NetworkSettings, RequestFault, Routes, is_temporary, join, retry_after, shown, status_text,
};
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, Uri, header};

/// Most redirects followed for one file.
const MAX_REDIRECTS: usize = 5;
/// Idle connections kept open to one server: no fewer than the usual number of workers.
const IDLE_PER_HOST: usize = 16;

/// Time limits of the HTTP client, and its way to servers.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// For resolving the server's name, and for connecting to it, each.
    pub connect: Duration,
    /// For receiving the head of an answer.
    pub response: Duration,
    /// For each read of the body.
    pub read: Duration,
    /// The proxies and the authorities of the machine.
    pub network: NetworkSettings,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            response: Duration::from_secs(60),
            read: Duration::from_secs(30),
            network: NetworkSettings::default(),
        }
    }
}

/// An HTTP client that keeps connections open between files.
pub struct HttpTransport {
    routes: Routes,
}

impl HttpTransport {
    /// A client with these limits.
    pub fn new(options: &HttpOptions) -> Self {
        let routes = Routes::new(&options.network, None, None, |proxy| {
            Agent::config_builder()
                .proxy(proxy)
                .http_status_as_error(false)
                .max_redirects(0)
                .user_agent(concat!("pnb/", env!("CARGO_PKG_VERSION")))
                .max_idle_connections(4 * IDLE_PER_HOST)
                .max_idle_connections_per_host(IDLE_PER_HOST)
                .timeout_resolve(Some(options.connect))
                .timeout_connect(Some(options.connect))
                .timeout_send_request(Some(options.connect))
                .timeout_recv_response(Some(options.response))
                .timeout_per_read(Some(options.read))
                .build()
        });
        Self { routes }
    }

    /// Why an answer with this status gives no file.
    fn refusal(&self, code: u16, uri: &Uri, headers: &HeaderMap) -> TransportFailure {
        let why = match self.routes.proxy_name(uri).filter(|_| code == 407) {
            Some(proxy) => format!(
                "the proxy {proxy} answered {}: it wants a user name and a password in its address",
                status_text(code)
            ),
            None => format!("the server answered {}", status_text(code)),
        };
        match code {
            404 | 410 => TransportFailure::NotFound,
            416 => TransportFailure::Unsatisfiable,
            code if is_temporary(code) => match retry_after(headers, server_time(headers)) {
                Some(wait) => TransportFailure::Busy { why, wait },
                None => TransportFailure::Temporary(why),
            },
            _ => TransportFailure::Refused(why),
        }
    }
}

/// The time by the server's clock, with which its dates are compared; by this machine's, if it does not tell its own.
fn server_time(headers: &HeaderMap) -> i64 {
    let date = text(headers, header::DATE).and_then(|text| jiff::fmt::rfc2822::parse(text.trim()).ok());
    date.map_or_else(|| MachineClock::default().unix(), |date| date.timestamp().as_second())
}

impl Transport for HttpTransport {
    fn open(&self, place: &Location, offset: u64, if_range: Option<&str>) -> Result<Response, TransportFailure> {
        let Address::Http(start) = &place.address else {
            return Err(TransportFailure::Refused("is not an http address".to_owned()));
        };
        let mut uri: Uri = start
            .parse()
            .map_err(|e| TransportFailure::Refused(format!("is not a valid address: {e}")))?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.routes.ask(&uri, |agent| {
                let mut request = agent.get(uri.clone()).header(header::ACCEPT_ENCODING, "identity");
                if offset > 0 {
                    request = request.header(header::RANGE, format!("bytes={offset}-"));
                    if let Some(validator) = if_range {
                        request = request.header(header::IF_RANGE, validator);
                    }
                }
                request.call()
            });
            let answer = answer.map_err(failure)?;
            let code = answer.status().as_u16();
            match code {
                301 | 302 | 303 | 307 | 308 => uri = redirect(&uri, answer.headers(), &place.redirects)?,
                200 | 206 => {
                    let status = match status(code, answer.headers()) {
                        Ok(status) => status,
                        // Without the range, the server may send the file whole.
                        Err(_) if offset > 0 => return Err(TransportFailure::Unsatisfiable),
                        Err(failure) => return Err(failure),
                    };
                    let validator = validator(answer.headers());
                    let encoding =
                        text(answer.headers(), header::CONTENT_ENCODING).map(|t| t.trim().to_ascii_lowercase());
                    let body = Box::new(answer.into_body().into_reader());
                    return Ok(Response {
                        status,
                        validator,
                        encoding: encoding.filter(|coding| !coding.is_empty() && coding != "identity"),
                        body,
                    });
                }
                _ => return Err(self.refusal(code, &uri, answer.headers())),
            }
        }
        Err(TransportFailure::Refused(format!(
            "redirects more than {MAX_REDIRECTS} times"
        )))
    }
}

/// The failure that a request without an answer means.
fn failure(fault: RequestFault) -> TransportFailure {
    match fault {
        RequestFault {
            problem,
            temporary: true,
        } => TransportFailure::Temporary(problem),
        RequestFault { problem, .. } if problem.contains("UnknownIssuer") => TransportFailure::Untrusted(problem),
        RequestFault { problem, .. } => TransportFailure::Refused(problem),
    }
}

/// The part of the file that an answer holds, by its headers.
fn status(code: u16, headers: &HeaderMap) -> Result<AnswerRange, TransportFailure> {
    if code == 200 {
        let total = text(headers, header::CONTENT_LENGTH).and_then(|t| t.parse().ok());
        return Ok(AnswerRange::Full { total });
    }
    let range = text(headers, header::CONTENT_RANGE).unwrap_or_default();
    content_range(range).ok_or_else(|| {
        TransportFailure::Refused(format!(
            "sends a part of the file with the unusable Content-Range {range:?}"
        ))
    })
}

/// `bytes 100-199/200` or `bytes 100-199/*`.
fn content_range(text: &str) -> Option<AnswerRange> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (offset, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total: Option<u64> = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    // A range that ends before the file is treated as any answer that ends early.
    (offset <= last && total.is_none_or(|t| last < t)).then_some(AnswerRange::Partial { offset, total })
}

/// The validator for `If-Range`. A weak ETag is left out, because it does not promise equal bytes.
fn validator(headers: &HeaderMap) -> Option<String> {
    let etag = text(headers, header::ETAG).filter(|t| !t.starts_with("W/"));
    etag.or_else(|| text(headers, header::LAST_MODIFIED)).map(str::to_owned)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The target of a redirect. It stays on the host and the port, or goes to a host of `allowed`, and never leads from https to http.
fn redirect(from: &Uri, headers: &HeaderMap, allowed: &[String]) -> Result<Uri, TransportFailure> {
    let refuse = |why: &str| TransportFailure::Refused(format!("redirects {why}"));
    let Some(location) = headers.get(header::LOCATION) else {
        return Err(refuse("without a Location header"));
    };
    // Servers send names in UTF-8 and with spaces, which stand encoded in an address.
    let mut encoded = String::new();
    for &byte in location.as_bytes().trim_ascii() {
        match byte {
            b'!'..=b'~' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    let to: Option<Uri> = join(&from.to_string(), &encoded).and_then(|to| to.parse().ok());
    let to = to.ok_or_else(|| refuse("to an address that is not valid"))?;
    match (from.scheme_str(), to.scheme_str()) {
        (Some("https"), Some("http")) => return Err(refuse("to http from https")),
        (_, Some("http" | "https")) => {}
        (_, other) => return Err(refuse(&format!("to another scheme, {:?}", other.unwrap_or_default()))),
    }
    let (old, new) = (from.host().unwrap_or_default(), to.host().unwrap_or_default());
    let upgraded = to.scheme_str() != from.scheme_str();
    let rule = if !old.eq_ignore_ascii_case(new) {
        format!("another host, {new:?}")
    } else if !upgraded && port(from) != port(&to) {
        format!("another port, {}", port(&to))
    } else {
        return Ok(to);
    };
    if allowed.iter().any(|entry| allows(entry, &to)) {
        return Ok(to);
    }
    let host = match port(&to) == usual_port(&to) {
        true => new.to_owned(),
        false => format!("{new}:{}", port(&to)),
    };
    Err(TransportFailure::Elsewhere {
        why: format!("redirects to {rule}: {}", shown(&to.to_string())),
        host,
    })
}

fn usual_port(uri: &Uri) -> u16 {
    if uri.scheme_str() == Some("https") { 443 } else { 80 }
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or_else(|| usual_port(uri))
}

/// Whether an entry of `redirects` means the address: `host` or `*.domain` at the usual port, or with `:port` at that one.
fn allows(entry: &str, to: &Uri) -> bool {
    let (name, number) = match entry.rsplit_once(':') {
        Some((name, digits)) if !entry.ends_with(']') => (name, digits.parse().ok()),
        _ => (entry, Some(usual_port(to))),
    };
    let host = to.host().unwrap_or_default().to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    let same = match name.strip_prefix('*') {
        Some(domain) => domain.starts_with('.') && host.len() > domain.len() && host.ends_with(domain),
        None => host == name,
    };
    same && number == Some(port(to))
}

#[cfg(test)]
mod tests {
    use super::super::location::LocationKind;
    use super::*;

    fn led(from: &str, location: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.parse().expect("header"));
        let from: Uri = from.parse().expect("address");
        redirect(
            &from,
            &headers,
            &["cdn.example".to_owned(), "*.Storage.example:8443".to_owned()],
        )
        .map(|u| u.to_string())
        .map_err(|e| e.to_string())
    }

    #[test]
    fn redirects_stay_on_the_host_and_keep_https() {
        let from = "https://a.example/x/y";
        assert_eq!(led(from, "/z?q"), Ok("https://a.example/z?q".into()));
        assert_eq!(led(from, "z"), Ok("https://a.example/x/z".into()));
        assert_eq!(led(from, "//A.example/z"), Ok("https://A.example/z".into()));
        assert_eq!(
            led("http://a.example/x", "https://a.example/x"),
            Ok("https://a.example/x".into())
        );
        assert_eq!(
            led(from, "http://a.example/z"),
            Err("redirects to http from https".into())
        );
        assert_eq!(
            led(from, "https://b.example/z"),
            Err("redirects to another host, \"b.example\": https://b.example/z".into())
        );
        assert_eq!(
            led(from, "https://a.example@b.example/z?signature=secret"),
            Err("redirects to another host, \"b.example\": https://b.example/z?…".into())
        );
        assert_eq!(
            led(from, "https://a.example:444/z"),
            Err("redirects to another port, 444: https://a.example:444/z".into())
        );
        assert_eq!(led("http://a.example/x", "https://a.example:8443/x").map(drop), Ok(()));
        assert_eq!(
            led(from, " /a b/\u{e9}#part "),
            Ok("https://a.example/a%20b/%C3%A9".into())
        );
        assert_eq!(led(from, "?v=2"), Ok("https://a.example/x/y?v=2".into()));
        assert_eq!(
            led(from, "file:///etc/passwd").map_err(|e| e.starts_with("redirects to a")),
            Err(true)
        );
    }

    #[test]
    fn a_file_may_allow_further_hosts() {
        let from = "https://a.example/x";
        for good in [
            "https://cdn.example/z?signature=secret",
            "https://CDN.example:443/z",
            "https://eu.storage.example:8443/z",
            "https://a.eu.storage.example:8443/z",
        ] {
            assert_eq!(led(from, good).map(drop), Ok(()), "{good}");
        }
        assert_eq!(led("http://a.example/x", "http://cdn.example/z").map(drop), Ok(()));
        for bad in [
            "http://cdn.example/z",
            "https://cdn.example:8443/z",
            "https://cdn.example.evil/z",
            "https://evilcdn.example/z",
            "https://x.cdn.example/z",
            "https://eu.storage.example/z",
            "https://storage.example:8443/z",
            "https://evilstorage.example:8443/z",
            "https://cdn.example@evil/z",
        ] {
            assert!(led(from, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_connection_over_tls_has_its_cryptography() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = server.local_addr().expect("bound").port();
        let hello = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("a client");
            let mut head = [0; 3];
            std::io::Read::read_exact(&mut stream, &mut head).expect("a record of TLS");
            head
        });
        let transport = HttpTransport::new(&HttpOptions::default());
        let place = Location {
            kind: LocationKind::Mirror,
            address: Address::Http(format!("https://127.0.0.1:{port}/x")),
            redirects: vec![],
        };
        let opened = transport.open(&place, 0, None);
        assert!(
            matches!(opened, Err(TransportFailure::Temporary(_))),
            "the server hangs up"
        );
        // A handshake (22) of TLS, whose first record says version 3.1 or 3.3.
        assert_eq!(hello.join().expect("served")[..2], [22, 3]);
    }

    #[test]
    fn ranges_are_read_strictly() {
        let part = |offset, total| Some(AnswerRange::Partial { offset, total });
        assert_eq!(content_range("bytes 5-9/10"), part(5, Some(10)));
        assert_eq!(content_range("bytes 5-9/*"), part(5, None));
        for bad in [
            "",
            "bytes */10",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes -5-9/10",
            "items 5-9/10",
            "bytes 5-9",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_weak_etag_is_no_validator() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, "W/\"1\"".parse().expect("header"));
        assert_eq!(validator(&headers), None);
        headers.insert(
            header::LAST_MODIFIED,
            "Mon, 01 Jan 2026 00:00:00 GMT".parse().expect("header"),
        );
        assert_eq!(validator(&headers).as_deref(), Some("Mon, 01 Jan 2026 00:00:00 GMT"));
        headers.insert(header::ETAG, "\"1\"".parse().expect("header"));
        assert_eq!(validator(&headers).as_deref(), Some("\"1\""));
    }
}
