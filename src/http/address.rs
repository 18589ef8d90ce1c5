//! Addresses: which of them are used, how errors show them, and the target of a `Location` header.
//!
//! Source: RFC 3986, §5.2 (references), without the removal of dot segments, which servers resolve themselves.

use super::error::HttpError;
use crate::model::visible_message;
use std::net::IpAddr;
use ureq::http::Uri;

/// Parses an address and refuses what the client does not use: another scheme than `http` and `https`, a user name or password, and plain
/// `http` to another machine unless `plain` has the host, with its port if the address has one.
pub(super) fn parse(url: &str, name: &str, plain: &[String]) -> Result<Uri, HttpError> {
    let bad = |problem| HttpError::Address {
        url: name.to_owned(),
        problem,
    };
    let uri: Uri = url.parse().map_err(|_| bad("is not a valid address"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad("has no scheme and host"));
    };
    if authority.as_str().contains('@') {
        return Err(bad("has a user name in it"));
    }
    match scheme {
        "https" => {}
        "http" if is_loopback(authority.host()) => {}
        "http"
            if plain
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(authority.as_str())) => {}
        "http" => return Err(bad("is http without TLS, and the host is not this machine")),
        _ => return Err(bad("is neither https nor http")),
    }
    Ok(uri)
}

/// Whether a host, without its port, is this machine: `localhost` or a loopback address.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An address as messages show it: without user name and password, and without the query, where signed addresses have their secrets.
pub fn shown(url: &str) -> String {
    let (rest, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let mark = if query.is_empty() { "" } else { "?…" };
    let text = match rest.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let start = rest[..end].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}{mark}", &rest[start..])
        }
        None => format!("{rest}{mark}"),
    };
    visible_message(&text)
}

/// The address that a `Location` header of the answer to a request for `base` means; `None` if it is no address. The query is kept as it
/// stands, and a fragment is dropped.
pub fn join(base: &str, location: &str) -> Option<String> {
    if location.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let location = location.split('#').next().unwrap_or_default();
    let uri: Uri = base.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let absolute = if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", uri.path())
    } else if location.is_empty() {
        return None;
    } else {
        let path = uri.path();
        let parent = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
        format!("{scheme}://{authority}{parent}{location}")
    };
    let parsed: Uri = absolute.parse().ok()?;
    (parsed.scheme().is_some() && parsed.authority().is_some()).then_some(absolute)
}

/// Whether a reference begins with a scheme and `://`, before any `/` or `?`.
fn has_scheme(reference: &str) -> bool {
    reference.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> Option<String> {
        let plain = ["registry.example:5000".to_owned()];
        parse(url, &shown(url), &plain).err().map(|e| e.to_string())
    }

    #[test]
    fn plain_http_reaches_this_machine_and_named_hosts_only() {
        for good in [
            "https://a.example/x?y",
            "http://127.0.0.1:1/",
            "http://[::1]:1/x",
            "http://localhost/",
            "http://registry.example:5000/v2/",
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
        for (bad, problem) in [
            (
                "http://a.example/",
                "is http without TLS, and the host is not this machine",
            ),
            (
                "http://registry.example/",
                "is http without TLS, and the host is not this machine",
            ),
            (
                "http://127.0.0.1.example/",
                "is http without TLS, and the host is not this machine",
            ),
            (
                "http://localhost.example/",
                "is http without TLS, and the host is not this machine",
            ),
            ("ftp://a.example/", "is neither https nor http"),
            ("/v2/", "has no scheme and host"),
            ("https://", "is not a valid address"),
            ("https://a b/", "is not a valid address"),
        ] {
            assert_eq!(
                refused(bad),
                Some(format!("use address {}: {problem}", shown(bad))),
                "{bad}"
            );
        }
        assert_eq!(
            refused("https://user:secret@a.example/x?token=secret"),
            Some("use address https://a.example/x?…: has a user name in it".into())
        );
    }

    #[test]
    fn a_location_is_joined_with_its_query() {
        let base = "https://a.example:5000/v2/x/blobs/uploads/";
        for (location, want) in [
            (
                "/v2/x?_state=a%2Fb==",
                Some("https://a.example:5000/v2/x?_state=a%2Fb=="),
            ),
            ("https://b.example/u?s=1#part", Some("https://b.example/u?s=1")),
            ("http://a.example/u", Some("http://a.example/u")),
            ("//b.example/u", Some("https://b.example/u")),
            (
                "uuid?s=/://",
                Some("https://a.example:5000/v2/x/blobs/uploads/uuid?s=/://"),
            ),
            ("?s=1", Some("https://a.example:5000/v2/x/blobs/uploads/?s=1")),
            ("", None),
            ("a b", None),
            ("/a\r\nb", None),
        ] {
            assert_eq!(join(base, location).as_deref(), want, "{location:?}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        assert_eq!(shown("https://u:p@h/x/@y?sig=1#z"), "https://h/x/@y?…");
        assert_eq!(shown("\u{1b}[0m"), "\\u{1b}[0m");
    }
}
