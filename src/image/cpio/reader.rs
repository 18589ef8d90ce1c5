//! Reads archives of unknown origin: nothing is trusted, and memory does not grow with a header's claim.

use super::format::{
    ALIGN, CpioHeader, FORMAT, HEADER_SIZE, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, TRAILER,
    padding,
};
use crate::{image::ImageError, model::RelPath};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// Longest name with its NUL, and longest link target plus one (`PATH_MAX`).
const PATH_MAX: u32 = 4096;

/// One entry of an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpioEntry {
    /// Path of the entry; `None` is the root directory, `.`, or a name that cannot be a path.
    pub path: Option<RelPath>,
    /// The name as it is stored, without its NULs.
    pub stored_name: Vec<u8>,
    /// The problem of an entry that only [`CpioReader::any_name`] returns.
    pub problem: Option<String>,
    /// File type and permissions, as `st_mode`.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Number of links. Entries of one archive with the same device and inode and two or more links are the same file.
    pub nlink: u32,
    /// Modification time, seconds since the Unix epoch.
    pub mtime: u32,
    /// Length of a file's content or of a link's target; 0 for other types.
    pub size: u32,
    /// Device of the file, major and minor number, and its inode number there.
    pub inode: (u32, u32, u32),
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// Offset of the header, in bytes from the first byte read.
    pub offset: u64,
    /// Stated sum of the bytes of a file's content, in the form of archive with checksums. The reader compares it.
    pub checksum: Option<u32>,
}

impl CpioEntry {
    /// The path for people.
    pub fn name(&self) -> String {
        self.path.as_ref().map_or(".".to_owned(), ToString::to_string)
    }
}

enum State {
    /// In front of an archive or behind one, where zeros may follow.
    Between,
    /// Inside an archive.
    Inside,
}

/// Reads archives one after the other from uncompressed bytes, which begin with an archive.
///
/// [`CpioReader::next_entry`] returns an entry. Its content is read through `Read` of [`CpioReader`] before the next call, which
/// skips the unread rest.
pub struct CpioReader<R> {
    reader: BufReader<R>,
    offset: u64,
    /// Unread bytes of the current entry's content, and zeros behind them.
    left: u64,
    pad: u64,
    /// Of an entry with a checksum: offset of its header, the stated sum, and that of the bytes read so far.
    sums: Option<(u64, u32, u32)>,
    state: State,
    archives: u64,
    /// Whether entries with a problem are returned.
    any_name: bool,
}

impl<R: Read> CpioReader<R> {
    /// Reads from the position of `reader` on.
    pub fn new(reader: R) -> Self {
        Self {
            reader: BufReader::with_capacity(64 * 1024, reader),
            offset: 0,
            left: 0,
            pad: 0,
            sums: None,
            state: State::Between,
            archives: 0,
            any_name: false,
        }
    }

    /// The reader that also returns entries whose name or mode is refused otherwise: the structure of the archive does not depend on
    /// them. A name with `/` in front, or with repeated `/` and `./`, stands for the path that the kernel makes of it.
    #[must_use]
    pub fn any_name(mut self) -> Self {
        self.any_name = true;
        self
    }

    /// Number of archives that were read to their end.
    pub fn archives(&self) -> u64 {
        self.archives
    }

    /// The next entry of this or a following archive; `None` at the end of the input. An input that ends inside an archive is an
    /// error.
    pub fn next_entry(&mut self) -> Result<Option<CpioEntry>, ImageError> {
        loop {
            if matches!(self.state, State::Between) && !self.skip_zeros()? {
                return Ok(None);
            }
            self.state = State::Inside;
            if let Some(entry) = self.next_in_archive()? {
                return Ok(Some(entry));
            }
            self.state = State::Between;
        }
    }

    /// Number of bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry of this archive; `None` at its trailer.
    pub(super) fn next_in_archive(&mut self) -> Result<Option<CpioEntry>, ImageError> {
        self.skip_content()?;
        let offset = self.offset;
        let mut bytes = [0; HEADER_SIZE];
        if self.at_end()? {
            return Err(corrupt(offset, "the archive has no trailer".to_owned()));
        }
        self.fill(&mut bytes)?;
        let (header, summed) = CpioHeader::decode(&bytes).map_err(|problem| corrupt(offset, problem))?;
        let name = self.name(offset, header.namesize)?;
        if name == TRAILER {
            if header.size != 0 {
                return Err(corrupt(offset, "the trailer has content".to_owned()));
            }
            self.archives += 1;
            return Ok(None);
        }
        let cleaned = if self.any_name { plain_path(&name) } else { name.clone() };
        // Both forms of the root's name, with and without "./" in front of every name, come from common tools.
        let (path, problem) = match cleaned.strip_prefix(b"./").unwrap_or(&cleaned) {
            b"." | b"" if !name.is_empty() => (None, entry_problem(&header, true).map(str::to_owned)),
            rest => match RelPath::new(rest) {
                Ok(path) => (Some(path), entry_problem(&header, false).map(str::to_owned)),
                Err(error) if self.any_name => (None, Some(error.to_string())),
                Err(error) => return Err(corrupt(offset, error.to_string())),
            },
        };
        let problem = problem.map(|problem| {
            let name = name.escape_ascii();
            format!("\"{name}\" (mode {:o}) {problem}", header.mode)
        });
        if let Some(problem) = problem.as_ref().filter(|_| !self.any_name) {
            return Err(corrupt(offset, problem.clone()));
        }
        // The kernel compares the checksums of files only; a name of a file whose content stands at a later name has none.
        let summed = summed && header.mode & S_IFMT == S_IFREG && header.size > 0;
        let checksum = summed.then_some(header.check);
        self.sums = checksum.map(|stated| (offset, stated, 0));
        self.left = u64::from(header.size);
        self.pad = padding(self.offset + self.left, ALIGN);
        Ok(Some(CpioEntry {
            path,
            stored_name: name,
            problem,
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            nlink: header.nlink,
            mtime: header.mtime,
            size: header.size,
            inode: (header.dev.0, header.dev.1, header.ino),
            rdev: header.rdev,
            offset,
            checksum,
        }))
    }

    /// The name behind a header, without its NULs; the header at `offset` states `size` bytes.
    fn name(&mut self, offset: u64, size: u32) -> Result<Vec<u8>, ImageError> {
        if !(1..=PATH_MAX).contains(&size) {
            return Err(corrupt(
                offset,
                format!("the name has {size} bytes, not 1 to {PATH_MAX}"),
            ));
        }
        let mut name = vec![0; size as usize];
        self.fill(&mut name)?;
        self.skip(padding(self.offset, ALIGN))?;
        let end = name.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        if end == name.len() {
            return Err(corrupt(offset, "the name does not end with a NUL byte".to_owned()));
        }
        name.truncate(end);
        Ok(name)
    }

    /// Skips the unread content of the current entry, and the padding behind it. A wrong checksum is an error.
    fn skip_content(&mut self) -> Result<(), ImageError> {
        if let Some((offset, stated, _)) = self.sums {
            let at = self.offset;
            let skipped = io::copy(self, &mut io::sink());
            skipped.map_err(|source| match source.kind() {
                ErrorKind::UnexpectedEof => corrupt(at, "the archive ends in the middle of an entry".to_owned()),
                _ => ImageError::Input {
                    format: FORMAT,
                    offset: at,
                    source,
                },
            })?;
            let actual = self.sums.take().map_or(0, |(_, _, actual)| actual);
            if actual != stated {
                let problem = format!("the content has the checksum {actual:#x}, but its header states {stated:#x}");
                return Err(corrupt(offset, problem));
            }
        }
        self.skip(self.left + self.pad)?;
        (self.left, self.pad) = (0, 0);
        Ok(())
    }

    /// The whole target of the link that [`CpioReader::next_entry`] returned last.
    pub fn link_target(&mut self) -> Result<Vec<u8>, ImageError> {
        let offset = self.offset;
        if self.left >= u64::from(PATH_MAX) {
            return Err(corrupt(
                offset,
                format!("the link target has {} bytes, more than 4095", self.left),
            ));
        }
        let mut target = Vec::new();
        self.read_to_end(&mut target).map_err(|source| ImageError::Input {
            format: FORMAT,
            offset,
            source,
        })?;
        if target.contains(&0) {
            return Err(corrupt(offset, "the link target holds a NUL byte".to_owned()));
        }
        Ok(target)
    }

    /// Skips zeros up to the next archive, which begins at a multiple of 4; `false` at the end of the input.
    fn skip_zeros(&mut self) -> Result<bool, ImageError> {
        self.skip_content()?;
        loop {
            let offset = self.offset;
            let available = self.reader.fill_buf().map_err(|source| ImageError::Input {
                format: FORMAT,
                offset,
                source,
            })?;
            if available.is_empty() {
                return Ok(false);
            }
            let zeros = available.iter().position(|b| *b != 0);
            let n = zeros.unwrap_or(available.len());
            self.reader.consume(n);
            self.offset += n as u64;
            if zeros.is_some() {
                if !self.offset.is_multiple_of(ALIGN) {
                    return Err(corrupt(
                        self.offset,
                        "an archive begins at an offset that is not a multiple of 4".to_owned(),
                    ));
                }
                return Ok(true);
            }
        }
    }

    fn at_end(&mut self) -> Result<bool, ImageError> {
        let offset = self.offset;
        let available = self.reader.fill_buf().map_err(|source| ImageError::Input {
            format: FORMAT,
            offset,
            source,
        })?;
        Ok(available.is_empty())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ImageError> {
        let offset = self.offset;
        self.reader.read_exact(bytes).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => corrupt(offset, "the archive ends in the middle of an entry".to_owned()),
            _ => ImageError::Input {
                format: FORMAT,
                offset,
                source,
            },
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> Result<(), ImageError> {
        let mut buffer = [0; 4096];
        while count > 0 {
            let n = count.min(buffer.len() as u64);
            self.fill(&mut buffer[..n as usize])?;
            count -= n;
        }
        Ok(())
    }
}

/// Reads the content of the entry that [`CpioReader::next_entry`] returned last. An input that ends too early is an error.
impl<R: Read> Read for CpioReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = self.left.min(buffer.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        let n = self.reader.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the archive ends in the middle of a file",
            ));
        }
        if let Some((_, _, actual)) = &mut self.sums {
            *actual = buffer[..n]
                .iter()
                .fold(*actual, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        }
        self.left -= n as u64;
        self.offset += n as u64;
        Ok(n)
    }
}

/// A name without `/` in front and at its end, and with one `/` for several and for `/./`.
fn plain_path(name: &[u8]) -> Vec<u8> {
    let parts = name.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b"."));
    match parts.collect::<Vec<_>>().join(&b'/') {
        joined if joined.is_empty() && !name.is_empty() => b".".to_vec(),
        joined => joined,
    }
}

/// The problem of an entry with this header; `root` is whether its path is the root.
fn entry_problem(header: &CpioHeader, root: bool) -> Option<&'static str> {
    let kind = header.mode & S_IFMT;
    match kind {
        S_IFLNK if !(1..PATH_MAX).contains(&header.size) => {
            Some("has a target that is empty or longer than 4095 bytes")
        }
        S_IFREG | S_IFLNK => root.then_some("is the root but not a directory"),
        S_IFDIR | S_IFCHR | S_IFBLK | S_IFIFO if header.size != 0 => Some("has content but is not a file"),
        S_IFDIR => None,
        S_IFCHR | S_IFBLK | S_IFIFO => root.then_some("is the root but not a directory"),
        _ => Some("has an unknown type"),
    }
}

pub(super) fn corrupt(offset: u64, problem: String) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem,
    }
}
