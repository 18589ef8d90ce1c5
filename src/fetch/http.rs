//! The HTTP and HTTPS transport: ranges, redirects within one host, time limits.
//!
//! Source: RFC 9110, §13 (conditional requests), §14 (ranges), §15 (status codes).

use super::location::{Address, Location};
use super::transport::{AnswerRange, Response, Transport, TransportFailure};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, Uri, header};
use ureq::tls::TlsConfig;

/// Most redirects followed for one file.
const MAX_REDIRECTS: usize = 5;
/// Idle connections kept open to one server: no fewer than the usual number of workers.
const IDLE_PER_HOST: usize = 16;

/// Time limits and proxy of the HTTP client.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    /// For resolving the server's name, and for connecting to it, each.
    pub connect: Duration,
    /// For receiving the head of an answer.
    pub response: Duration,
    /// For each read of the body.
    pub read: Duration,
    /// Whether the environment variables `https_proxy`, `no_proxy` and their like choose a proxy.
    pub proxy_from_environment: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            response: Duration::from_secs(60),
            read: Duration::from_secs(30),
            proxy_from_environment: true,
        }
    }
}

/// An HTTP client that keeps connections open between files.
pub struct HttpTransport {
    agent: ureq::Agent,
}

impl HttpTransport {
    /// A client with these limits.
    pub fn new(options: &HttpOptions) -> Self {
        let proxy = if options.proxy_from_environment {
            ureq::Proxy::try_from_env()
        } else {
            None
        };
        // The cryptography of TLS is that of signatures: one library, and ureq knows no other without its feature for `ring`.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
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
            .build();
        Self {
            agent: config.new_agent(),
        }
    }
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
            let mut request = self.agent.get(uri.clone());
            if offset > 0 {
                request = request.header(header::RANGE, format!("bytes={offset}-"));
                if let Some(validator) = if_range {
                    request = request.header(header::IF_RANGE, validator);
                }
            }
            let answer = request.call().map_err(failure)?;
            let code = answer.status().as_u16();
            match code {
                301 | 302 | 303 | 307 | 308 => uri = redirect(&uri, answer.headers())?,
                200 | 206 => {
                    let status = status(code, answer.headers())?;
                    let validator = validator(answer.headers());
                    let body = Box::new(answer.into_body().into_reader());
                    return Ok(Response {
                        status,
                        validator,
                        body,
                    });
                }
                404 | 410 => return Err(TransportFailure::NotFound),
                416 => return Err(TransportFailure::Unsatisfiable),
                408 | 425 | 429 | 500 | 502 | 503 | 504 => {
                    return Err(TransportFailure::Temporary(format!("the server answered {code}")));
                }
                _ => return Err(TransportFailure::Refused(format!("the server answered {code}"))),
            }
        }
        Err(TransportFailure::Refused(format!(
            "redirects more than {MAX_REDIRECTS} times"
        )))
    }
}

/// Whether a failed request is worth another try: after an error of the connection it is, after a breach of the protocol it is not.
fn failure(error: ureq::Error) -> TransportFailure {
    match error {
        ureq::Error::Io(e) => TransportFailure::Temporary(e.to_string()),
        ureq::Error::Timeout(_) => TransportFailure::Temporary("did not answer in time".to_owned()),
        ureq::Error::HostNotFound => TransportFailure::Temporary("the host name does not resolve".to_owned()),
        ureq::Error::ConnectionFailed => TransportFailure::Temporary("the connection failed".to_owned()),
        other => TransportFailure::Refused(other.to_string()),
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

/// The target of a redirect, which must stay on the same host and must not lead from https to http.
fn redirect(from: &Uri, headers: &HeaderMap) -> Result<Uri, TransportFailure> {
    let Some(location) = text(headers, header::LOCATION) else {
        return Err(TransportFailure::Refused(
            "redirects without a Location header".to_owned(),
        ));
    };
    let refuse = |why: &str| TransportFailure::Refused(format!("redirects to {why}"));
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map_or("", |a| a.as_str());
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let path = from.path();
        let parent = path.rfind('/').map_or("", |slash| &path[..slash]);
        format!("{scheme}://{authority}{parent}/{location}")
    };
    let to: Uri = absolute.parse().map_err(|_| refuse("an address that is not valid"))?;
    let port = |uri: &Uri| {
        uri.port_u16()
            .unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
    };
    match (scheme, to.scheme_str()) {
        ("https", Some("http")) => return Err(refuse("http from https")),
        (_, Some("http" | "https")) => {}
        (_, other) => return Err(refuse(&format!("another scheme, {:?}", other.unwrap_or_default()))),
    }
    let (old, new) = (from.host().unwrap_or_default(), to.host().unwrap_or_default());
    if !old.eq_ignore_ascii_case(new) {
        return Err(refuse(&format!("another host, {new:?}")));
    }
    let upgraded = to.scheme_str() != Some(scheme);
    if !upgraded && port(from) != port(&to) {
        return Err(refuse(&format!("another port, {}", port(&to))));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::super::location::LocationKind;
    use super::*;

    fn led(from: &str, location: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.parse().expect("header"));
        let from: Uri = from.parse().expect("address");
        redirect(&from, &headers)
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
            Err("redirects to another host, \"b.example\"".into())
        );
        assert_eq!(
            led(from, "https://a.example@b.example/z"),
            Err("redirects to another host, \"b.example\"".into())
        );
        assert_eq!(
            led(from, "https://a.example:444/z"),
            Err("redirects to another port, 444".into())
        );
        assert_eq!(
            led(from, "file:///etc/passwd").map_err(|e| e.starts_with("redirects to a")),
            Err(true)
        );
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
        let transport = HttpTransport::new(&HttpOptions {
            proxy_from_environment: false,
            ..HttpOptions::default()
        });
        let place = Location {
            kind: LocationKind::Mirror,
            address: Address::Http(format!("https://127.0.0.1:{port}/x")),
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
