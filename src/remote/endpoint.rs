//! [`Endpoint`]: the address of a remote cache or engine, and the files with which pnb proves who it is.

use super::RemoteError;
use std::{fmt, path::PathBuf, str::FromStr};

/// The protocol of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// The Remote Execution API over gRPC (`grpc`, `grpcs`).
    Grpc,
    /// Bazel's HTTP cache: `GET` and `PUT` of `/ac/<SHA-256>` and `/cas/<SHA-256>` (`http`, `https`).
    Http,
}

/// The address of a server: `grpc[s]://host[:port][/instance]` or `http[s]://host[:port][/path]`.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteAddress {
    protocol: Protocol,
    tls: bool,
    /// Host and port; the host of an IPv6 address is in brackets.
    authority: String,
    /// The instance, or the path, without slashes at its ends.
    path: String,
}

impl RemoteAddress {
    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the connection is encrypted.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The instance name of the Remote Execution API, or the path of an HTTP cache; empty for none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The address with the scheme `http` or `https`.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        match (self.protocol, self.path.as_str()) {
            (Protocol::Grpc, _) | (_, "") => format!("{scheme}://{}", self.authority),
            (Protocol::Http, path) => format!("{scheme}://{}/{path}", self.authority),
        }
    }
}

impl FromStr for RemoteAddress {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let bad = |problem: &str| RemoteError::Address {
            url: crate::http::shown(text),
            problem: problem.to_owned(),
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
        let (protocol, tls) = match scheme {
            "grpc" => (Protocol::Grpc, false),
            "grpcs" => (Protocol::Grpc, true),
            "http" => (Protocol::Http, false),
            "https" => (Protocol::Http, true),
            _ => return Err(bad("its scheme is none of grpc, grpcs, http, https")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        if authority.is_empty() {
            return Err(bad("it has no host"));
        }
        if authority.contains('@') {
            return Err(bad("it has a user name; credentials are given in a file"));
        }
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        if !plain(authority) || !plain(path) {
            return Err(bad("it has a character that an address does not have"));
        }
        // The instance is a part of the names of blobs there, in which these words have a meaning.
        const RESERVED: [&str; 6] = [
            "blobs",
            "uploads",
            "actions",
            "actionResults",
            "operations",
            "capabilities",
        ];
        if protocol == Protocol::Grpc && path.split('/').any(|part| RESERVED.contains(&part)) {
            return Err(bad("its instance has a name that the protocol reserves"));
        }
        let port = authority
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && !authority.ends_with(']'));
        match port {
            Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => {}
            Some(_) => return Err(bad("its port is no number from 1 to 65535")),
            None if protocol == Protocol::Grpc => return Err(bad("it has no port")),
            None => {}
        }
        Ok(Self {
            protocol,
            tls,
            authority: authority.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.protocol, self.tls) {
            (Protocol::Grpc, false) => "grpc",
            (Protocol::Grpc, true) => "grpcs",
            (Protocol::Http, false) => "http",
            (Protocol::Http, true) => "https",
        };
        write!(f, "{scheme}://{}", self.authority)?;
        match self.path.as_str() {
            "" => Ok(()),
            path => write!(f, "/{path}"),
        }
    }
}

impl fmt::Debug for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteAddress({self})")
    }
}

/// A server, and the files with credentials for it. The files are read when a connection is made; the token's is read again when the server
/// refuses the token, because such tokens live for minutes.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The address.
    pub address: RemoteAddress,
    /// File with a bearer token on its first line.
    pub token_file: Option<PathBuf>,
    /// File with the certificate of this client in PEM, and the file with its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for text in [
            "grpc://127.0.0.1:50051",
            "grpcs://cache.example.org:443/main",
            "grpc://[::1]:9092/a/b",
            "http://cache.example.org",
            "https://cache.example.org:8443/pnb/cache",
        ] {
            let address: RemoteAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        let address: RemoteAddress = "grpcs://cache.example.org:443/main/".parse().expect("read");
        assert_eq!(
            (address.url().as_str(), address.path()),
            ("https://cache.example.org:443", "main")
        );
        let address: RemoteAddress = "http://127.0.0.1:8080/cache/".parse().expect("read");
        assert_eq!(address.url(), "http://127.0.0.1:8080/cache");
    }

    #[test]
    fn other_addresses_are_refused_by_name() {
        for (text, problem) in [
            ("127.0.0.1:50051", "no scheme"),
            ("ftp://host:21", "scheme"),
            ("grpc://", "no host"),
            ("grpc:///main", "no host"),
            ("grpc://host", "no port"),
            ("grpc://[::1]", "no port"),
            ("grpc://host:0", "port"),
            ("grpc://host:65536", "port"),
            ("http://host:x", "port"),
            ("https://user:secret@host/cache", "user name"),
            ("grpc://host:1/a/blobs", "reserves"),
            ("http://host/cache?x=1", "character"),
            ("http://host/a b", "character"),
        ] {
            let error = text.parse::<RemoteAddress>().expect_err(text).to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
