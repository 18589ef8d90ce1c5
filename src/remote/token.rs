//! The files with which pnb proves who it is: a bearer token that may be renewed meanwhile, a certificate with its key.

use super::{Endpoint, RemoteError};
use crate::{
    http::{ClientIdentity, is_loopback},
    store::read_foreign,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The most bytes of a token.
const MAX_TOKEN: usize = 16 << 10;
/// The most bytes of a file with credentials.
const MAX_FILE: u64 = 1 << 20;

/// The value of a token, which is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bearer(Arc<str>);

impl Bearer {
    /// The token itself.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// The value of the field `Authorization`.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(…)")
    }
}

/// The token of an endpoint, and the file from which it is read again.
#[derive(Debug)]
pub(super) struct TokenFile {
    place: Option<(PathBuf, Mutex<Bearer>)>,
}

impl TokenFile {
    /// Reads the token of an endpoint.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or holds no token, and if the token would cross the network without TLS.
    pub(super) fn open(endpoint: &Endpoint) -> Result<Self, RemoteError> {
        let Some(path) = &endpoint.token_file else {
            return Ok(Self { place: None });
        };
        let address = &endpoint.address;
        if !address.tls() && !is_loopback(host(address.authority())) {
            return Err(RemoteError::Credentials {
                path: path.clone(),
                problem: format!("{address} is not encrypted, and the token would be readable on the network"),
            });
        }
        let bearer = read_token(path)?;
        Ok(Self {
            place: Some((path.clone(), Mutex::new(bearer))),
        })
    }

    /// The token in use.
    pub(super) fn get(&self) -> Option<Bearer> {
        let (_, bearer) = self.place.as_ref()?;
        Some(bearer.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether there is another token than `refused`: one that another thread has read, or the present one of the file.
    pub(super) fn renewed(&self, refused: Option<&Bearer>) -> bool {
        let Some((path, bearer)) = &self.place else {
            return false;
        };
        let mut bearer = bearer.lock().unwrap_or_else(PoisonError::into_inner);
        if Some(&*bearer) != refused {
            return true;
        }
        match read_token(path) {
            Ok(read) if read != *bearer => {
                *bearer = read;
                true
            }
            _ => false,
        }
    }
}

/// The certificate of an endpoint.
///
/// # Errors
///
/// If a file cannot be read or used, and if the endpoint is not reached over TLS.
pub(super) fn identity(endpoint: &Endpoint) -> Result<Option<ClientIdentity>, RemoteError> {
    let Some((certificate, key)) = &endpoint.identity else {
        return Ok(None);
    };
    let bad = |path: &Path, problem: String| RemoteError::Credentials {
        path: path.to_owned(),
        problem,
    };
    if !endpoint.address.tls() {
        return Err(bad(
            certificate,
            format!(
                "{} is not encrypted, and certificates are a part of TLS",
                endpoint.address
            ),
        ));
    }
    let chain = read_foreign(certificate, MAX_FILE).map_err(|e| bad(certificate, e.to_string()))?;
    let secret = read_foreign(key, MAX_FILE).map_err(|e| bad(key, e.to_string()))?;
    let identity = ClientIdentity::from_pem(&chain, &secret).map_err(|problem| {
        bad(
            certificate,
            format!("the certificate of this client cannot be used: {problem}"),
        )
    })?;
    Ok(Some(identity))
}

/// The host of an authority; an address of IPv6 keeps its brackets.
pub(super) fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, _)) if !authority.ends_with(']') => host,
        _ => authority,
    }
}

fn read_token(path: &Path) -> Result<Bearer, RemoteError> {
    let bad = |problem: String| RemoteError::Credentials {
        path: path.to_owned(),
        problem,
    };
    let bytes = read_foreign(path, MAX_FILE).map_err(|e| bad(e.to_string()))?;
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    if line.is_empty() {
        return Err(bad("its first line is empty, where the token should be".to_owned()));
    }
    if line.len() > MAX_TOKEN {
        return Err(bad(format!("its first line has more than {MAX_TOKEN} bytes")));
    }
    match str::from_utf8(line) {
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Bearer(text.into())),
        _ => Err(bad(
            "its first line has a character that a token does not have".to_owned()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, token: &Path) -> Endpoint {
        Endpoint {
            address: address.parse().expect("an address"),
            token_file: Some(token.to_owned()),
            identity: None,
        }
    }

    #[test]
    fn a_token_is_the_first_line_and_is_not_shown() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("token");
        let open = |content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            TokenFile::open(&endpoint("grpc://127.0.0.1:1", &path)).map_err(|e| e.to_string())
        };
        let token = open(b" secret.1\r\nmore\n").expect("a token");
        let bearer = token.get().expect("a token");
        assert_eq!(bearer.header(), "Bearer secret.1");
        assert!(!format!("{token:?}").contains("secret"));
        for (content, problem) in [
            (b"".as_slice(), "its first line is empty"),
            (b"\nsecret", "its first line is empty"),
            (b"secret two", "a character that a token does not have"),
            (b"secret\xff", "a character that a token does not have"),
            (&[b'a'; MAX_TOKEN + 1], "more than 16384 bytes"),
        ] {
            let error = open(content).expect_err(problem);
            assert!(error.contains(problem), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        std::fs::remove_file(&path).expect("removed");
        let error = TokenFile::open(&endpoint("grpc://127.0.0.1:1", &path)).expect_err("gone");
        assert!(matches!(error, RemoteError::Credentials { .. }), "{error}");
    }

    #[test]
    fn a_token_does_not_cross_the_network_in_the_clear() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "secret").expect("written");
        for (address, goes) in [
            ("grpc://127.0.0.1:1", true),
            ("grpc://[::1]:1", true),
            ("http://localhost:8080/x", true),
            ("grpcs://cache.example.org:1", true),
            ("https://cache.example.org", true),
            ("grpc://cache.example.org:1", false),
            ("http://cache.example.org", false),
            ("http://127.0.0.1.example.org", false),
        ] {
            let opened = TokenFile::open(&endpoint(address, &path));
            assert_eq!(opened.is_ok(), goes, "{address}");
            if let Err(error) = opened {
                assert!(matches!(error, RemoteError::Credentials { .. }), "{error}");
                assert!(error.to_string().contains("not encrypted"), "{error}");
            }
        }
    }

    #[test]
    fn a_token_is_renewed_when_the_file_has_another() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "first").expect("written");
        let token = TokenFile::open(&endpoint("grpc://127.0.0.1:1", &path)).expect("a token");
        let first = token.get();
        assert!(!token.renewed(first.as_ref()), "the file has the same");
        std::fs::write(&path, "second").expect("written");
        assert!(token.renewed(first.as_ref()));
        assert!(token.renewed(first.as_ref()), "it was renewed for another thread");
        assert_eq!(token.get().expect("a token").header(), "Bearer second");
        std::fs::remove_file(&path).expect("removed");
        assert!(!token.renewed(token.get().as_ref()), "there is no other");
    }

    #[test]
    fn a_certificate_is_read_with_its_key() {
        let fixture = |name: &str| {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures/tls")
                .join(name)
        };
        let made = |address: &str, certificate: &str, key: &str| {
            let endpoint = Endpoint {
                address: address.parse().expect("an address"),
                token_file: None,
                identity: Some((fixture(certificate), fixture(key))),
            };
            identity(&endpoint)
                .map(|made| format!("{made:?}"))
                .map_err(|e| e.to_string())
        };
        let shown = made("grpcs://h:1", "server.pem", "server.key");
        assert_eq!(shown.as_deref(), Ok("Some(ClientIdentity(1 certificates))"));
        for (address, certificate, key, problem) in [
            ("grpc://h:1", "server.pem", "server.key", "not encrypted"),
            ("grpcs://h:1", "gone.pem", "server.key", "No such file"),
            ("grpcs://h:1", "server.key", "server.key", "no certificate in its file"),
            ("grpcs://h:1", "server.pem", "server.pem", "no private key"),
            ("grpcs://h:1", "authority.pem", "server.key", "KeyMismatch"),
        ] {
            let error = made(address, certificate, key).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
    }
}
