//! [`BlobDigest`]: the name of a blob on a server, and [`Checked`], which compares arriving bytes with it.

use super::RemoteError;
use crate::model::Sha256Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fmt,
    io::{self, Write},
};

/// The name of a blob in the Remote Execution API with the digest function SHA256: the digest of its bytes, and their number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobDigest {
    /// SHA-256 of the bytes.
    pub sha256: Sha256Digest,
    /// Number of bytes.
    pub size: u64,
}

impl BlobDigest {
    /// The name of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            sha256: Sha256Digest::new(Sha256::digest(bytes).into()),
            size: bytes.len() as u64,
        }
    }
}

impl fmt::Display for BlobDigest {
    /// `<SHA-256>/<bytes>`, as the Remote Execution API writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sha256, self.size)
    }
}

/// A writer that passes on the bytes of a blob and hashes them. It refuses a byte beyond the blob's size.
pub struct Checked<'a> {
    sink: &'a mut dyn Write,
    expected: BlobDigest,
    hasher: Sha256,
    size: u64,
}

impl<'a> Checked<'a> {
    /// Bytes of the blob `expected`, which go to `sink`.
    pub fn new(expected: BlobDigest, sink: &'a mut dyn Write) -> Self {
        Self {
            sink,
            expected,
            hasher: Sha256::new(),
            size: 0,
        }
    }

    /// Compares the bytes that were written with the blob's name. `server` is the name of their sender, for the error.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Wrong`] for other bytes.
    pub fn finish(self, server: &str) -> Result<(), RemoteError> {
        let actual = BlobDigest {
            sha256: Sha256Digest::new(self.hasher.finalize().into()),
            size: self.size,
        };
        if actual == self.expected {
            return Ok(());
        }
        Err(RemoteError::Wrong {
            server: server.to_owned(),
            expected: self.expected,
            actual,
        })
    }
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.expected.size - self.size {
            return Err(io::Error::other(format!(
                "more bytes arrive than the {} of the blob",
                self.expected.size
            )));
        }
        self.sink.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_compared_with_the_name_of_their_blob() {
        let blob = BlobDigest::of(b"content");
        let arrive = |parts: &[&[u8]]| -> Result<Vec<u8>, String> {
            let mut sink = Vec::new();
            let mut checked = Checked::new(blob, &mut sink);
            for part in parts {
                checked.write_all(part).map_err(|e| e.to_string())?;
            }
            checked.finish("the cache").map_err(|e| e.to_string())?;
            Ok(sink)
        };
        assert_eq!(arrive(&[b"con", b"", b"tent"]).as_deref(), Ok(b"content".as_slice()));
        assert!(arrive(&[b"Content"]).is_err(), "another byte");
        assert!(arrive(&[b"conten"]).is_err(), "a byte too few");
        assert!(arrive(&[b"content", b"s"]).is_err(), "a byte too many");
        assert!(arrive(&[]).is_err());
    }
}
