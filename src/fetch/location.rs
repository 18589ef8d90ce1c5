//! Addresses of files, and of mirrors, which hold many files below one address.

use super::error::FetchError;
use crate::model::RelPath;
use std::{fmt, path::PathBuf, str::FromStr};

/// The address of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// An `http://` or `https://` address, percent-encoded.
    Http(String),
    /// A file of this machine.
    File(PathBuf),
}

impl Address {
    /// Whether reading the file needs a network.
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Http(_))
    }

    /// The server: scheme, host and port.
    pub(super) fn server(&self) -> String {
        match self {
            Self::Http(text) => {
                let bare = without_user(text);
                let start = bare.find("://").map_or(0, |at| at + 3);
                let end = bare[start..].find(['/', '?']).map_or(bare.len(), |at| start + at);
                bare[..end].to_owned()
            }
            Self::File(_) => "file:".to_owned(),
        }
    }
}

impl FromStr for Address {
    type Err = FetchError;

    /// Reads `http://…`, `https://…` or `file:///…`. The path of a `file:` address is taken as it stands, undecoded.
    fn from_str(text: &str) -> Result<Self, FetchError> {
        let bad = |problem| FetchError::Address {
            value: without_user(&crate::model::excerpt(text)),
            problem,
        };
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(bad("holds a space or control character"));
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = match path.strip_prefix("//") {
                Some(path) if path.starts_with('/') => path,
                Some(_) => return Err(bad("names a host in a file: address (file:///dir has three slashes)")),
                None => path,
            };
            if !path.starts_with('/') {
                return Err(bad("is not an absolute path"));
            }
            return Ok(Self::File(PathBuf::from(path)));
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err(bad("is not http://, https:// or file://"));
        }
        let uri: ureq::http::Uri = text.parse().map_err(|_| bad("is not a valid address"))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(bad("names no host"));
        }
        if text.contains('#') {
            return Err(bad("has a fragment"));
        }
        Ok(Self::Http(text.to_owned()))
    }
}

/// The address as given, without user name and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(text) => f.write_str(&without_user(text)),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// The address without `user:password@`.
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => text.to_owned(),
    }
}

/// The source of a place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LocationKind {
    /// The mirror given to pnb.
    Mirror,
    /// A mirror from this machine's apt configuration.
    AptMirror,
    /// The snapshot service the lock names.
    Snapshot,
    /// The address in the lock of a file that is not a package.
    Origin,
}

impl fmt::Display for LocationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mirror => "mirror",
            Self::AptMirror => "apt mirror",
            Self::Snapshot => "snapshot",
            Self::Origin => "origin",
        })
    }
}

/// A place that may have a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// The source of the place.
    pub kind: LocationKind,
    /// The file's address.
    pub address: Address,
    /// Hosts beside that of the address to which the server may lead: `host`, `host:port` or `*.domain`.
    pub redirects: Vec<String>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.address)
    }
}

/// A directory of files, on this machine or on a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base(Address);

impl Base {
    /// The place of the file `path` below this directory.
    pub fn place(&self, kind: LocationKind, path: &RelPath) -> Location {
        let address = match &self.0 {
            Address::Http(base) => Address::Http(format!("{base}/{}", encode(path))),
            Address::File(base) => Address::File(base.join(path)),
        };
        Location {
            kind,
            address,
            redirects: Vec::new(),
        }
    }

    /// Whether the last components of the address are `tail`.
    pub fn ends_with(&self, tail: &RelPath) -> bool {
        match &self.0 {
            Address::File(base) => base.ends_with(tail),
            Address::Http(base) => base.strip_suffix(&encode(tail)).is_some_and(|rest| rest.ends_with('/')),
        }
    }
}

impl FromStr for Base {
    type Err = FetchError;

    fn from_str(text: &str) -> Result<Self, FetchError> {
        match text.parse()? {
            Address::Http(text) if text.contains('?') => Err(FetchError::Address {
                value: without_user(&text),
                problem: "has a query, which a directory of files cannot have",
            }),
            Address::Http(text) => Ok(Self(Address::Http(text.trim_end_matches('/').to_owned()))),
            file @ Address::File(_) => Ok(Self(file)),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Percent-encodes all characters except the unreserved ones of RFC 3986 and `/`. `+` is encoded too, because some servers read it as a
/// space.
fn encode(path: &RelPath) -> String {
    let mut out = String::with_capacity(path.as_bytes().len() + 8);
    for &b in path.as_bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_encoded_and_shown_without_passwords() {
        let base: Base = "http://user:secret@mirror.example/x/debian//".parse().expect("valid");
        assert!(base.ends_with(&"debian".parse().expect("path")));
        assert!(!base.ends_with(&"ebian".parse().expect("path")));
        let place = base.place(LocationKind::Mirror, &"pool/g++_1~2%3a.deb".parse().expect("path"));
        assert_eq!(
            place.address,
            Address::Http("http://user:secret@mirror.example/x/debian/pool/g%2B%2B_1~2%253a.deb".into())
        );
        assert_eq!(
            place.to_string(),
            "mirror http://mirror.example/x/debian/pool/g%2B%2B_1~2%253a.deb"
        );
        let base: Base = "file:///srv/vendor".parse().expect("valid");
        let place = base.place(LocationKind::Mirror, &"pool/g++.deb".parse().expect("path"));
        assert_eq!(place.to_string(), "mirror file:///srv/vendor/pool/g++.deb");
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for (bad, why) in [
            ("ftp://a/b", "is not http"),
            ("mirror", "is not http"),
            ("http://", "not a valid address"),
            ("file://host/dir", "names a host"),
            ("file:dir", "not an absolute path"),
            ("http://a/b c", "space"),
            ("http://a/b?c", "query"),
            ("http://a/b#c", "fragment"),
        ] {
            let error = bad.parse::<Base>().expect_err("must be refused").to_string();
            assert!(error.contains(why) && error.contains(bad), "{bad}: {error}");
        }
    }
}
