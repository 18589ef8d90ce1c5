//! The `ar` container of a binary package, read as a stream.
//!
//! ```text
//! "!<arch>\n"  then for each member:
//!   name 16  mtime 12  uid 6  gid 6  mode 8  size 10  "`\n"      text, padded with spaces (60 bytes)
//!   size bytes of content, then "\n" when size is odd
//! ```
//!
//! Source: deb(5), <https://manpages.debian.org/deb.5>. Only the form that it allows is read, without symbol and long-name tables.
//!
//! Own code instead of the crate `ar` (docs/dependencies.md): it streams from any `BufRead`, and its errors name the member.

use std::io::{self, BufRead, Read};

/// First bytes of every archive.
const MAGIC: &[u8; 8] = b"!<arch>\n";
/// Length of a member's header.
const HEADER: usize = 60;
/// Range of the decimal size in the header.
const SIZE: std::ops::Range<usize> = 48..58;
/// Last two bytes of a header.
const END: &[u8; 2] = b"`\n";

/// First bytes of an archive, for a writer.
pub(super) fn magic() -> &'static [u8] {
    MAGIC
}

/// The header of a member; `None` for a size with more than ten digits.
pub(super) fn header(name: &str, size: u64) -> Option<Vec<u8>> {
    let text = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, "100644");
    (text.len() == HEADER).then(|| text.into_bytes())
}

/// Why an archive cannot be read.
#[derive(Debug)]
pub(super) enum ArError {
    /// The bytes are not an archive of the expected form.
    Form(String),
    /// The input failed or ended too early.
    Read(io::Error),
}

impl From<io::Error> for ArError {
    fn from(source: io::Error) -> Self {
        Self::Read(source)
    }
}

/// Walks the members of an archive; reading gives the content of the current member.
pub(super) struct ArReader<R> {
    inner: R,
    /// Unread bytes of the current member.
    left: u64,
    /// Whether a padding byte follows the current member.
    odd: bool,
}

impl<R: BufRead> ArReader<R> {
    /// Checks the magic; the reader is then in front of the first member.
    pub(super) fn new(mut inner: R) -> Result<Self, ArError> {
        let mut magic = [0; MAGIC.len()];
        exact(&mut inner, &mut magic, "the archive's first line")?;
        if &magic != MAGIC {
            return Err(ArError::Form(format!(
                "is not an ar archive: it begins with \"{}\"",
                magic.escape_ascii()
            )));
        }
        Ok(Self {
            inner,
            left: 0,
            odd: false,
        })
    }

    /// Skips the unread rest of the current member and reads the next header; `None` at the end of the archive.
    pub(super) fn next_member(&mut self) -> Result<Option<(String, u64)>, ArError> {
        io::copy(self, &mut io::sink())?;
        if self.odd {
            // Its value is a newline by the format, and any byte to dpkg.
            exact(&mut self.inner, &mut [0], "the padding after a member")?;
            self.odd = false;
        }
        let mut header = [0; HEADER];
        let mut have = 0;
        while have < HEADER {
            match self.inner.read(&mut header[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => {
                    return Err(ArError::Form(format!(
                        "has {have} bytes after the last member that are not a member header: \"{}\"",
                        header[..have].escape_ascii()
                    )));
                }
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        if header[HEADER - END.len()..] != *END {
            return Err(ArError::Form(format!(
                "has no member header where one is expected: \"{}\"",
                header[..16].escape_ascii()
            )));
        }
        let name = header[..16].trim_ascii_end();
        let name = name.strip_suffix(b"/").unwrap_or(name).escape_ascii().to_string();
        let size = header[SIZE].trim_ascii_end();
        let digits = !size.is_empty() && size.iter().all(u8::is_ascii_digit);
        let value = std::str::from_utf8(size).ok().and_then(|s| s.parse().ok());
        let (true, Some(size)) = (digits, value) else {
            return Err(ArError::Form(format!(
                "member {name:?} has size \"{}\", which is not a number",
                size.escape_ascii()
            )));
        };
        self.left = size;
        self.odd = size % 2 == 1;
        Ok(Some((name, size)))
    }
}

impl<R: Read> Read for ArReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..room])?;
        if n == 0 {
            return Err(ended(self.left));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

impl<R: BufRead> BufRead for ArReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let buffer = self.inner.fill_buf()?;
        if buffer.is_empty() {
            return Err(ended(self.left));
        }
        Ok(&buffer[..buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.left = self.left.saturating_sub(amount as u64);
    }
}

/// Fills `buf`; the error of a file that is too short names the structure `what`.
fn exact(reader: &mut impl Read, buf: &mut [u8], what: &str) -> Result<(), ArError> {
    reader.read_exact(buf).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => ArError::Form(format!("ends within {what}")),
        _ => ArError::Read(e),
    })
}

fn ended(left: u64) -> io::Error {
    let message = format!("the file ends {left} bytes before the end of the member");
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}
