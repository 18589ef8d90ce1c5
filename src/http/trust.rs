//! Authorities whose certificates count: those compiled into pnb, and those that the machine or the command line names.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` are read as OpenSSL reads them, and stand in place of the machine's bundle. The public authorities
//! compiled into pnb count in any case, so that a machine without a bundle works.

use super::error::HttpError;
use crate::model::visible_path;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The most bytes of a file with certificates.
const MAX_FILE: u64 = 8 << 20;
/// The most files of a directory of certificates that are read.
const MAX_FILES: usize = 4096;

/// The bundles of the common distributions: Debian, Fedora, SUSE, Alpine. The first that is there is read.
pub const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The places of authorities beside those compiled into pnb; by default none.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TrustPlaces {
    /// A file of certificates in PEM that the command line names.
    pub ca_file: Option<PathBuf>,
    /// `SSL_CERT_FILE`.
    pub cert_file: Option<PathBuf>,
    /// The directories of `SSL_CERT_DIR`.
    pub cert_dirs: Vec<PathBuf>,
    /// Bundles of which the first that is there counts, unless one of the two variables is set.
    pub bundles: Vec<PathBuf>,
}

/// The authorities in force.
#[derive(Clone, Debug)]
pub struct Trust {
    /// For the check of a chain.
    pub(super) roots: RootCertStore,
    /// The certificates beside the public ones. A server may present one of them itself.
    pub(super) named: Vec<CertificateDer<'static>>,
    /// Where they come from.
    origins: Vec<String>,
}

impl Default for Trust {
    /// The public authorities compiled into pnb.
    fn default() -> Self {
        Self {
            roots: RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            },
            named: Vec::new(),
            origins: Vec::new(),
        }
    }
}

impl Trust {
    /// Reads the places.
    ///
    /// # Errors
    ///
    /// If a file or directory that was named cannot be read or holds no certificate. A bundle of the machine that is not readable does not
    /// count.
    pub fn load(places: &TrustPlaces) -> Result<Self, HttpError> {
        let mut trust = Self::default();
        if let Some(path) = &places.ca_file {
            trust.named_file("--ca-file", path)?;
        }
        if let Some(path) = &places.cert_file {
            trust.named_file("SSL_CERT_FILE", path)?;
        }
        for path in &places.cert_dirs {
            trust.directory(path)?;
        }
        if places.cert_file.is_none() && places.cert_dirs.is_empty() {
            let found = places.bundles.iter().find_map(|path| Some((path, read(path).ok()?)));
            if let Some((path, pem)) = found {
                let added = trust.add(certificates(&pem).0);
                trust.origins.push(format!("{added} of {}", visible_path(path)));
            }
        }
        Ok(trust)
    }

    /// Adds the certificates of a PEM text that was given as `name`.
    ///
    /// # Errors
    ///
    /// If it holds no certificate, or something else.
    pub fn add_pem(&mut self, name: &str, pem: &[u8]) -> Result<(), HttpError> {
        let bad = |problem: &str| HttpError::Authority {
            problem: problem.to_owned(),
        };
        let (found, others, broken) = certificates(pem);
        match (found.is_empty(), others, broken) {
            (_, _, true) => return Err(bad("it is not PEM")),
            (_, true, _) => return Err(bad("there is something else than certificates")),
            (true, ..) => return Err(bad("there is no certificate")),
            _ => {}
        }
        let added = self.add(found);
        self.origins.push(format!("{added} of {name}"));
        Ok(())
    }

    /// The authorities in words, for a message.
    pub fn describe(&self) -> String {
        let mut text = "the public authorities compiled into pnb".to_owned();
        for origin in &self.origins {
            text.push_str(" and ");
            text.push_str(origin);
        }
        text
    }

    fn named_file(&mut self, name: &str, path: &Path) -> Result<(), HttpError> {
        let shown = format!("{name} {}", visible_path(path));
        let bad = |problem: String| HttpError::Authorities {
            from: shown.clone(),
            problem,
        };
        let pem = read(path).map_err(|e| bad(e.to_string()))?;
        let (found, _, _) = certificates(&pem);
        if found.is_empty() {
            return Err(bad("there is no certificate in PEM in it".to_owned()));
        }
        let added = self.add(found);
        if added == 0 {
            return Err(bad("none of its certificates can be read".to_owned()));
        }
        self.origins.push(format!("{added} of {shown}"));
        Ok(())
    }

    /// Every file of a directory that holds certificates, in the order of names.
    fn directory(&mut self, path: &Path) -> Result<(), HttpError> {
        let shown = format!("SSL_CERT_DIR {}", visible_path(path));
        let bad = |e: io::Error| HttpError::Authorities {
            from: shown.clone(),
            problem: e.to_string(),
        };
        #[expect(clippy::disallowed_methods, reason = "the listing is sorted before use")]
        let listing = std::fs::read_dir(path).map_err(bad)?;
        let mut names = Vec::new();
        for entry in listing.take(MAX_FILES) {
            names.push(entry.map_err(bad)?.file_name());
        }
        names.sort();
        let mut added = 0;
        for name in names {
            // A directory of certificates has links that lead nowhere, and files of other kinds.
            if let Ok(pem) = read(&path.join(name)) {
                added += self.add(certificates(&pem).0);
            }
        }
        self.origins.push(format!("{added} of {shown}"));
        Ok(())
    }

    /// Adds what can be an authority, each certificate once; returns their number.
    fn add(&mut self, found: Vec<CertificateDer<'static>>) -> usize {
        let mut added = 0;
        for certificate in found {
            if self.named.contains(&certificate) {
                continue;
            }
            if self.roots.add(certificate.clone()).is_ok() {
                added += 1;
                self.named.push(certificate);
            }
        }
        added
    }
}

/// The certificates of a PEM text; whether it holds other items, and whether a part of it is malformed.
fn certificates(pem: &[u8]) -> (Vec<CertificateDer<'static>>, bool, bool) {
    let (mut found, mut broken) = (Vec::new(), false);
    for item in CertificateDer::pem_slice_iter(pem) {
        match item {
            Ok(certificate) => found.push(certificate),
            Err(_) => {
                broken = true;
                break;
            }
        }
    }
    let begins = |label: &[u8]| pem.windows(label.len()).filter(|window| *window == label).count();
    let others = begins(b"-----BEGIN ") > begins(b"-----BEGIN CERTIFICATE-----");
    (found, others, broken)
}

/// A regular file with a bounded size. A fifo is not waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &[u8] = include_bytes!("../../tests/fixtures/tls/authority.pem");
    const KEY: &[u8] = include_bytes!("../../tests/fixtures/tls/server.key");

    #[test]
    fn places_are_added_to_the_public_authorities_and_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let public = Trust::default().roots.len();
        assert!(public > 50, "{public} public authorities");
        let file = dir.path().join("ca.pem");
        // A bundle may hold text, keys and the same certificate twice.
        std::fs::write(&file, [b"# text\n", KEY, AUTHORITY, AUTHORITY].concat()).expect("written");
        std::os::unix::fs::symlink("gone", dir.path().join("0a1b2c3d.0")).expect("linked");
        let load = |places: TrustPlaces| Trust::load(&places).map(|t| (t.roots.len() - public, t.describe()));
        let shown = visible_path(&file);
        let public_text = "the public authorities compiled into pnb";
        let places = TrustPlaces {
            cert_file: Some(file.clone()),
            bundles: vec![file.clone()],
            ..TrustPlaces::default()
        };
        assert_eq!(
            load(places).expect("loads"),
            (1, format!("{public_text} and 1 of SSL_CERT_FILE {shown}"))
        );
        let places = TrustPlaces {
            cert_dirs: vec![dir.path().to_owned()],
            ..TrustPlaces::default()
        };
        let dir_text = format!("{public_text} and 1 of SSL_CERT_DIR {}", visible_path(dir.path()));
        assert_eq!(load(places).expect("loads"), (1, dir_text));
        let places = TrustPlaces {
            bundles: vec![dir.path().join("none"), file.clone()],
            ..TrustPlaces::default()
        };
        assert_eq!(
            load(places).expect("loads"),
            (1, format!("{public_text} and 1 of {shown}"))
        );
        let places = TrustPlaces {
            ca_file: Some(dir.path().join("none")),
            ..TrustPlaces::default()
        };
        let error = load(places).expect_err("is not there").to_string();
        assert!(error.contains("--ca-file") && error.contains("No such file"), "{error}");
        std::fs::write(&file, KEY).expect("written");
        let places = TrustPlaces {
            cert_file: Some(file),
            ..TrustPlaces::default()
        };
        let error = load(places).expect_err("holds a key").to_string();
        assert!(error.ends_with("there is no certificate in PEM in it"), "{error}");
    }
}
