//! Copies file contents into an image, and counts bytes.

use super::ImageError;
use crate::model::VerityDigest;
use std::io::{self, ErrorKind, Read, Write};

/// Opens the content of a file by its digest, from its first byte.
pub type Open<'a> = &'a dyn Fn(&VerityDigest) -> io::Result<Box<dyn Read>>;

/// Bytes that are copied at a time.
const COPY_SIZE: usize = 128 * 1024;

/// Copies exactly `size` bytes of the content of `path`; content that is shorter or longer is an error.
pub(super) fn copy_exact(
    format: &'static str,
    path: &str,
    size: u64,
    reader: &mut dyn Read,
    writer: &mut dyn Write,
) -> Result<(), ImageError> {
    let read = |source| ImageError::Read {
        path: path.to_owned(),
        source,
    };
    let length = |actual, more| ImageError::Length {
        path: path.to_owned(),
        expected: size,
        actual,
        more,
    };
    // One byte more than the content should have, to notice a longer one. Most files are small, and a large buffer would have to
    // be zeroed for each.
    let mut buffer = vec![0; usize::try_from(size).map_or(COPY_SIZE, |s| s.saturating_add(1).min(COPY_SIZE))];
    let mut done = 0u64;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(read(e)),
        };
        if n as u64 > size - done {
            return Err(length(done + n as u64, true));
        }
        writer
            .write_all(&buffer[..n])
            .map_err(|source| ImageError::Write { format, source })?;
        done += n as u64;
    }
    if done < size {
        return Err(length(done, false));
    }
    Ok(())
}

/// A writer that counts the bytes passing through.
#[derive(Debug)]
pub struct CountingWriter<W> {
    out: W,
    count: u64,
}

impl<W> CountingWriter<W> {
    /// Counts the bytes written to `out` from now on.
    pub fn new(out: W) -> Self {
        Self { out, count: 0 }
    }

    /// Number of bytes written.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
