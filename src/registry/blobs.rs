//! Blobs: whether one is there, upload and download.
//!
//! An upload is one streamed `PUT` with its length. A registry throws the session of an upload away that was cut, so a blob that was cut is
//! sent again from its start; whole blobs are not.

use super::{RegistryClient, RegistryError, client::Ask, login::percent};
use crate::{
    http::{Answer, HttpError, Method, RequestBody, Retry, header, is_temporary},
    model::Sha256Digest,
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    sync::Arc,
};

/// Most redirects of one download.
const MAX_REDIRECTS: usize = 5;

/// A step of a transfer, for a display.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferStep {
    /// A blob of this size begins, or begins again.
    Begin(Sha256Digest, u64),
    /// So many bytes of it were moved.
    Bytes(u64),
    /// It is there now.
    End(Sha256Digest),
    /// It was there before.
    There(Sha256Digest, u64),
}

/// Receives the steps of transfers.
pub type OnTransfer = Arc<dyn Fn(TransferStep) + Send + Sync>;

/// Receives no steps.
pub fn silent() -> OnTransfer {
    Arc::new(|_| {})
}

/// Where a downloaded blob goes: it can be begun again.
pub trait BlobSink: Write {
    /// Drops everything that was written.
    ///
    /// # Errors
    ///
    /// If that fails.
    fn restart(&mut self) -> io::Result<()>;
}

impl BlobSink for File {
    fn restart(&mut self) -> io::Result<()> {
        self.rewind()?;
        self.set_len(0)
    }
}

impl BlobSink for Vec<u8> {
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

/// How one try of an upload ended.
enum Tried {
    Stored,
    Again(String, Option<Answer>),
}

impl RegistryClient {
    /// Whether the repository has a blob of this digest and size.
    ///
    /// # Errors
    ///
    /// If the registry does not say, or says another digest or size.
    pub fn has_blob(&self, digest: &Sha256Digest, size: u64) -> Result<bool, RegistryError> {
        let what = format!(
            "look for the blob sha256:{digest} in {}/{}",
            self.registry, self.repository
        );
        let ask = Ask::new(&what, Method::HEAD, self.url(&format!("blobs/sha256:{digest}")));
        let answer = self.exchange(&ask, &mut RequestBody::Empty, None)?;
        match answer.status {
            200 => {
                self.check_digest(&what, &answer, digest)?;
                let stated: Option<u64> = answer.header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
                match stated.filter(|stated| *stated != size) {
                    Some(stated) => Err(RegistryError::Malformed {
                        what,
                        problem: format!("the registry says that it has {stated} bytes, and it has {size}"),
                    }),
                    None => Ok(true),
                }
            }
            // The blob lies elsewhere.
            301 | 302 | 303 | 307 | 308 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refusal(&what, &answer)),
        }
    }

    /// Takes a blob over from another repository of the same registry, without sending it. `false` if the registry does not do that.
    ///
    /// # Errors
    ///
    /// If the registry refuses, or names another digest.
    pub fn mount_blob(&self, digest: &Sha256Digest, from: &str) -> Result<bool, RegistryError> {
        let what = format!(
            "mount the blob sha256:{digest} of {from} in {}/{}",
            self.registry, self.repository
        );
        super::reference::check_name(from).map_err(|problem| RegistryError::Reference {
            value: crate::model::excerpt(from),
            problem,
        })?;
        let url = self.url(&format!("blobs/uploads/?mount=sha256:{digest}&from={}", percent(from)));
        let mut ask = Ask::new(&what, Method::POST, url);
        ask.scopes.push(format!("repository:{from}:pull"));
        let answer = self.exchange(&ask, &mut RequestBody::Empty, None)?;
        match answer.status {
            201 => self.check_digest(&what, &answer, digest).map(|()| true),
            // A session for an upload, which the registry drops by itself.
            202 => Ok(false),
            _ => Err(self.refusal(&what, &answer)),
        }
    }

    /// Uploads a blob, which `open` opens at its start, for each try. Bytes that do not have the digest are not sent to their end.
    ///
    /// # Errors
    ///
    /// If the blob cannot be read or has another digest, and by the class of the refusal.
    pub fn upload_blob(
        &self,
        digest: &Sha256Digest,
        size: u64,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
        on: &OnTransfer,
    ) -> Result<(), RegistryError> {
        let what = format!(
            "upload the blob sha256:{digest} to {}/{}",
            self.registry, self.repository
        );
        let mut tries = self.http.tries();
        loop {
            on(TransferStep::Begin(*digest, size));
            let (problem, answer) = match self.upload_once(&what, digest, size, open, on)? {
                Tried::Stored => break,
                Tried::Again(problem, answer) => (problem, answer),
            };
            tries.restart();
            if !tries.again(answer.as_ref()) {
                return Err(RegistryError::Down {
                    what,
                    registry: self.registry.clone(),
                    problem: format!("{problem} ({} tries)", tries.made()),
                });
            }
            // It may be there although the answer was lost.
            if self.has_blob(digest, size)? {
                break;
            }
        }
        on(TransferStep::End(*digest));
        Ok(())
    }

    fn upload_once(
        &self,
        what: &str,
        digest: &Sha256Digest,
        size: u64,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
        on: &OnTransfer,
    ) -> Result<Tried, RegistryError> {
        let start = self.url("blobs/uploads/");
        let begun = self.exchange(
            &Ask::new(what, Method::POST, start.clone()),
            &mut RequestBody::Empty,
            None,
        )?;
        if begun.status != 202 {
            return Err(self.refusal(what, &begun));
        }
        let session = self.location(what, &start, &begun)?;
        let mark = if session.contains('?') { '&' } else { '?' };
        let mut put = Ask::new(what, Method::PUT, format!("{session}{mark}digest=sha256:{digest}"))
            .header(header::CONTENT_TYPE, "application/octet-stream")?;
        put.retry = Retry::Never;
        let mut open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(Checked {
                inner: open()?,
                hash: Sha256::new(),
                left: size,
                expected: *digest,
                on: Arc::clone(on),
            }))
        };
        let mut body = RequestBody::Stream { size, open: &mut open };
        let answer = match self.exchange(&put, &mut body, None) {
            Err(RegistryError::Down { problem, .. }) => return Ok(Tried::Again(problem, None)),
            other => other?,
        };
        match answer.status {
            201 => self.check_digest(what, &answer, digest).map(|()| Tried::Stored),
            // The session is gone, with what was sent in it.
            404 | 416 => Ok(Tried::Again(
                format!("it lost the upload: {}", super::client::said(&answer)),
                None,
            )),
            status if is_temporary(status) => Ok(Tried::Again(format!("it answered {status}"), Some(answer))),
            _ => Err(self.refusal(what, &answer)),
        }
    }

    /// Downloads a blob of this digest and size. `sink` has it when this returns; after an error it has a part of it, or other bytes.
    ///
    /// # Errors
    ///
    /// If the bytes have another size or digest, which is not tried again; by the class of the refusal; if `sink` fails.
    pub fn read_blob(
        &self,
        digest: &Sha256Digest,
        size: u64,
        sink: &mut dyn BlobSink,
        on: &OnTransfer,
    ) -> Result<(), RegistryError> {
        let what = format!(
            "download the blob sha256:{digest} from {}/{}",
            self.registry, self.repository
        );
        let mut tries = self.http.tries();
        loop {
            on(TransferStep::Begin(*digest, size));
            sink.restart().map_err(|source| RegistryError::Http {
                what: what.clone(),
                source: HttpError::Sink {
                    url: self.registry.clone(),
                    source,
                },
            })?;
            let mut hashing = Hashing {
                inner: &mut *sink,
                hash: Sha256::new(),
                size: 0,
                on,
            };
            match self.read_once(&what, digest, size, &mut hashing) {
                Err(RegistryError::Http { source, .. }) if source.is_temporary() => {
                    tries.restart();
                    if !tries.again(None) {
                        return Err(RegistryError::Down {
                            what,
                            registry: self.registry.clone(),
                            problem: format!("{source} ({} tries)", tries.made()),
                        });
                    }
                    continue;
                }
                other => other?,
            }
            let (received, actual) = (hashing.size, Sha256Digest::new(hashing.hash.finalize().into()));
            if actual != *digest {
                return Err(self.lie(what, digest, format!("sha256:{actual} ({received} bytes)")));
            }
            if received != size {
                let problem = format!("it has {received} bytes instead of {size}");
                return Err(RegistryError::Malformed { what, problem });
            }
            on(TransferStep::End(*digest));
            return Ok(());
        }
    }

    fn read_once(
        &self,
        what: &str,
        digest: &Sha256Digest,
        size: u64,
        sink: &mut dyn Write,
    ) -> Result<(), RegistryError> {
        let mut url = self.url(&format!("blobs/sha256:{digest}"));
        for _ in 0..=MAX_REDIRECTS {
            let mut ask = Ask::new(what, Method::GET, url.clone());
            ask.limit = size;
            let answer = self.exchange(&ask, &mut RequestBody::Empty, Some(&mut *sink))?;
            match answer.status {
                200 => return Ok(()),
                301 | 302 | 303 | 307 | 308 => url = self.location(what, &url, &answer)?,
                _ => return Err(self.refusal(what, &answer)),
            }
        }
        Err(RegistryError::Malformed {
            what: what.to_owned(),
            problem: format!("{} redirects more than {MAX_REDIRECTS} times", self.registry),
        })
    }

    /// Refuses an answer that names another digest.
    pub(super) fn check_digest(
        &self,
        what: &str,
        answer: &Answer,
        expected: &Sha256Digest,
    ) -> Result<(), RegistryError> {
        match answer.header("docker-content-digest") {
            Some(stated) if stated != format!("sha256:{expected}") => Err(self.lie(
                what.to_owned(),
                expected,
                crate::model::visible(&crate::model::excerpt(stated)),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn lie(&self, what: String, expected: &Sha256Digest, actual: String) -> RegistryError {
        RegistryError::Lie {
            what,
            who: format!("{} has", self.registry),
            expected: *expected,
            actual,
        }
    }
}

/// A blob on its way to the registry: its last bytes are held back if it has another digest.
struct Checked {
    inner: Box<dyn Read + Send>,
    hash: Sha256,
    left: u64,
    expected: Sha256Digest,
    on: OnTransfer,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        let before = self.left;
        self.left = self.left.saturating_sub(read as u64);
        if before > 0 && self.left == 0 {
            let actual = Sha256Digest::new(self.hash.finalize_reset().into());
            if actual != self.expected {
                let text = format!(
                    "the blob has another digest\nexpected: sha256:{}\n  actual: sha256:{actual}",
                    self.expected
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        (self.on)(TransferStep::Bytes(read as u64));
        Ok(read)
    }
}

/// A blob on its way from the registry.
struct Hashing<'a> {
    inner: &'a mut dyn BlobSink,
    hash: Sha256,
    size: u64,
    on: &'a OnTransfer,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        (self.on)(TransferStep::Bytes(written as u64));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
