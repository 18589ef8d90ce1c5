//! Reads a tar archive entry by entry; every header is checked before its entry is passed on. The files of a package are read by
//! `dpkg_tar.rs` instead, which takes what dpkg takes.
//!
//! ```text
//! header block 512   name, mode, uid, gid, size, mtime, checksum, type, link name, "ustar" magic, prefix
//! content            size bytes, padded with NUL to a multiple of 512
//! ...
//! two zero blocks    then zeros only, to the end of the stream
//! ```
//!
//! GNU long names (types `L`, `K`) and pax records (type `x`) describe the entry after them. Sources: POSIX.1-2017 pax,
//! "ustar Interchange Format"; GNU tar manual, "Basic Tar Format". The crate `tar` decodes the fields; the walk over the blocks is own
//! code (docs/dependencies.md), because the crate's iterator stops silently at the first zero block and drops parts of unusual pax
//! headers.

use super::pax::{self, Pax};
use crate::model::{Epoch, Meta, RelPath};
use std::io::{self, Read};
use tar::{EntryType, Header};

/// Bytes of a block: headers and contents begin at its multiples.
const BLOCK: usize = 512;
/// A name field with at least this many bytes may hold only the beginning of a name: 100 bytes less a cut UTF-8 character and a NUL.
const CUT_FIELD: usize = 96;
/// The file type bits, which some writers repeat in the mode.
const S_IFMT: u64 = 0o170_000;

/// Limits on an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TarLimits {
    /// Most entries.
    pub entries: u64,
    /// Most bytes of the uncompressed archive.
    pub bytes: u64,
    /// Most bytes of one extended header (a long name, or pax records).
    pub header_bytes: u64,
}

impl Default for TarLimits {
    /// More than any package of Debian has: 500,000 entries, 8 GiB, 64 KiB.
    fn default() -> Self {
        Self {
            entries: 500_000,
            bytes: 8 << 30,
            header_bytes: 64 << 10,
        }
    }
}

/// Kind of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TarEntryKind {
    /// A directory.
    Directory,
    /// A regular file; the visitor can read its content.
    File,
    /// A symbolic link; the target is not empty and has no NUL.
    Symlink(Vec<u8>),
    /// Another name of an entry of the same archive.
    HardLink(RelPath),
}

/// The checked header of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// Mode, numeric owner, time and extended attributes, as stored.
    pub meta: Meta,
    /// Kind of the entry.
    pub kind: TarEntryKind,
    /// Bytes of content; 0 except for files.
    pub size: u64,
}

/// Why an archive is refused.
#[derive(Debug)]
pub(crate) enum TarError<E> {
    /// The entry (`entry "…"`, or its place) and the problem with it.
    Entry { entry: String, problem: String },
    /// Reading failed in or after the entry.
    Read { entry: String, source: io::Error },
    /// The visitor returned an error.
    Visit(E),
}

/// Receives each entry: its path (`None` for the root directory), its header and its content.
pub(crate) type Visit<'v, E> = dyn FnMut(Option<RelPath>, EntryHeader, &mut dyn Read) -> Result<(), E> + 'v;

/// Limits the bytes from a decompressor.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R> Bounded<R> {
    /// At most `limit` bytes of `inner`; more are an error.
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self {
            inner,
            left: limit,
            limit,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.inner.read(&mut buf[..room])?;
        self.left -= n as u64;
        if n == 0 && room == 0 && !buf.is_empty() {
            // At the limit, the stream must end.
            if self.inner.read(&mut [0])? != 0 {
                let message = format!("the archive is larger than the limit of {} bytes", self.limit);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
        }
        Ok(n)
    }
}

/// The content of one entry: exactly `left` bytes, or an error.
pub(super) struct EntryReader<'r, R> {
    inner: &'r mut R,
    left: u64,
}

impl<'r, R> EntryReader<'r, R> {
    /// The next `size` bytes of `inner`.
    pub(super) fn new(inner: &'r mut R, size: u64) -> Self {
        Self { inner, left: size }
    }
}

impl<R: Read> Read for EntryReader<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..room])?;
        if n == 0 {
            let message = format!("the archive ends {} bytes before the end of the entry", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// The statements of extension headers about the next entry.
#[derive(Default)]
struct Pending {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.pax.is_none()
    }

    /// The name of the entry with this header, for messages.
    fn shown_name(&self, header: &Header) -> String {
        let long = self.name.as_ref();
        let long = long.or_else(|| self.pax.as_ref().and_then(|p| p.path.as_ref()));
        match long {
            Some(name) => name.escape_ascii().to_string(),
            None => header.path_bytes().escape_ascii().to_string(),
        }
    }
}

/// Reads a whole archive, to the end of `reader`, and passes every entry to `visit`. Content that the visitor does not read is
/// skipped.
pub(crate) fn read<E>(reader: impl Read, limits: &TarLimits, visit: &mut Visit<'_, E>) -> Result<(), TarError<E>> {
    let mut reader = Bounded::new(reader, limits.bytes);
    let mut pending = Pending::default();
    // The place of the next header, for messages.
    let mut last = "at the start".to_owned();
    let mut count = 0u64;
    loop {
        let refuse = |problem: String| TarError::Entry {
            entry: last.clone(),
            problem,
        };
        let header = match header(&mut reader, &pending) {
            Ok(Ok(Some(header))) => header,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(problem)) => return Err(refuse(problem)),
            Err(source) => return Err(TarError::Read { entry: last, source }),
        };
        count += 1;
        if count > limits.entries {
            return Err(refuse(format!("there are more than {} entries", limits.entries)));
        }
        let shown = pending.shown_name(&header);
        let bad = |problem: String| TarError::Entry {
            entry: format!("entry \"{shown}\""),
            problem,
        };
        let broken = |source| TarError::Read {
            entry: format!("entry \"{shown}\""),
            source,
        };
        let size = content_size(&header, limits).map_err(bad)?;
        if is_extension(header.entry_type()) {
            let mut data = Vec::new();
            let mut content = EntryReader::new(&mut reader, size);
            content.read_to_end(&mut data).map_err(broken)?;
            extend(&mut pending, header.entry_type(), data).map_err(bad)?;
        } else {
            let (path, entry) = check_entry(&header, size, std::mem::take(&mut pending)).map_err(bad)?;
            let mut content = EntryReader::new(&mut reader, entry.size);
            visit(path, entry, &mut content).map_err(TarError::Visit)?;
            io::copy(&mut content, &mut io::sink()).map_err(broken)?;
        }
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        if fill(&mut reader, &mut [0; BLOCK][..padding]).map_err(broken)? != padding {
            return Err(bad("is cut off within its padding".to_owned()));
        }
        last = format!("after entry \"{shown}\"");
    }
}

/// The next header; `None` at the end of the archive. The inner error is the problem with the bytes.
fn header(reader: &mut impl Read, pending: &Pending) -> io::Result<Result<Option<Header>, String>> {
    let mut header = Header::new_old();
    match fill(reader, header.as_mut_bytes())? {
        BLOCK => {}
        0 => return Ok(Err("the end-of-archive blocks are missing".to_owned())),
        n => return Ok(Err(format!("the archive ends within a header ({n} of 512 bytes)"))),
    }
    if header.as_bytes().iter().all(|b| *b == 0) {
        if !pending.is_empty() {
            return Ok(Err("an extended header has no entry after it".to_owned()));
        }
        return Ok(end(reader)?.map(|()| None));
    }
    Ok(check_form(&header).map(|()| Some(header)))
}

/// The size that a header states, which must be within the limits.
fn content_size(header: &Header, limits: &TarLimits) -> Result<u64, String> {
    let size = header
        .entry_size()
        .map_err(|e| format!("has an unreadable size: {e}"))?;
    if size > limits.bytes {
        return Err(format!(
            "says it has {size} bytes, more than the limit of {}",
            limits.bytes
        ));
    }
    if is_extension(header.entry_type()) && size > limits.header_bytes {
        let limit = limits.header_bytes;
        return Err(format!(
            "has an extended header of {size} bytes, more than the limit of {limit}"
        ));
    }
    Ok(size)
}

/// Reads until `buf` is full or the stream ends; returns the number of bytes read.
pub(super) fn fill(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buf.len() {
        match reader.read(&mut buf[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

/// Checks that the first zero block is followed by a second one, and then by zeros only.
fn end(reader: &mut impl Read) -> io::Result<Result<(), String>> {
    let mut block = [0; BLOCK];
    let mut blocks = 1u64;
    loop {
        let n = fill(reader, &mut block)?;
        if block[..n].iter().any(|b| *b != 0) {
            return Ok(Err("there is data after the end-of-archive block".to_owned()));
        }
        match n {
            BLOCK => blocks += 1,
            0 if blocks >= 2 => return Ok(Ok(())),
            _ => return Ok(Err("the end-of-archive blocks are incomplete".to_owned())),
        }
    }
}

fn is_extension(kind: EntryType) -> bool {
    kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions()
}

/// Checks checksum and magic, and that no text field hides bytes behind a NUL.
fn check_form(header: &Header) -> Result<(), String> {
    let bytes = header.as_bytes();
    let sum: u32 = bytes[..148]
        .iter()
        .chain(&bytes[156..])
        .map(|b| u32::from(*b))
        .sum::<u32>()
        + 8 * u32::from(b' ');
    let stated = header
        .cksum()
        .map_err(|e| format!("the header checksum is unreadable: {e}"))?;
    if stated != sum {
        return Err(format!(
            "the header states the checksum {stated}, but its bytes sum to {sum}"
        ));
    }
    if header.as_gnu().is_none() && header.as_ustar().is_none() {
        return Err(format!(
            "the header has the unknown magic \"{}\"",
            bytes[257..265].escape_ascii()
        ));
    }
    let old = header.as_old();
    let prefix = header.as_ustar().map_or(&[][..], |h| &h.prefix);
    for (field, text) in [
        ("name", &old.name[..]),
        ("link name", &old.linkname),
        ("prefix", prefix),
    ] {
        let shown = &text[..text.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)];
        if shown.contains(&0) {
            return Err(format!(
                "the header's {field} holds a NUL byte: \"{}\"",
                shown.escape_ascii()
            ));
        }
    }
    Ok(())
}

/// Adds an extension header to `pending`.
fn extend(pending: &mut Pending, kind: EntryType, mut data: Vec<u8>) -> Result<(), String> {
    if kind.is_pax_local_extensions() {
        return match pending.pax.replace(pax::parse(&data)?) {
            None => Ok(()),
            Some(_) => Err("has two pax headers".to_owned()),
        };
    }
    data.pop_if(|b| *b == 0);
    let slot = if kind.is_gnu_longname() {
        &mut pending.name
    } else {
        &mut pending.link
    };
    match slot.replace(data) {
        None => Ok(()),
        Some(_) => Err("has two GNU long names".to_owned()),
    }
}

/// Checks a header, together with the extension headers in front of it, as an entry.
fn check_entry(header: &Header, size: u64, pending: Pending) -> Result<(Option<RelPath>, EntryHeader), String> {
    let Pending { name, link, pax } = pending;
    let mut pax = pax.unwrap_or_default();
    let raw_path = full_text("path", &header.path_bytes(), name, pax.path.take())?;
    let path = relative(&raw_path, header.entry_type().is_dir())?;
    let link_field = header.link_name_bytes().unwrap_or_default();
    let target = full_text("link name", &link_field, link, pax.linkpath.take())?;
    let kind = kind(header.entry_type(), &target)?;
    if path.is_none() && kind != TarEntryKind::Directory {
        return Err("stands at the root but is not a directory".to_owned());
    }
    if !target.is_empty() && !matches!(kind, TarEntryKind::Symlink(_) | TarEntryKind::HardLink(_)) {
        return Err(format!(
            "is not a link but has a link name: \"{}\"",
            target.escape_ascii()
        ));
    }
    if size != 0 && kind != TarEntryKind::File {
        return Err(format!("is not a regular file but has {size} bytes of content"));
    }
    agree("size", size, pax.size)?;
    let meta = meta(header, pax)?;
    Ok((path, EntryHeader { meta, kind, size }))
}

/// The kind of an entry with this type and link target.
fn kind(kind: EntryType, target: &[u8]) -> Result<TarEntryKind, String> {
    Ok(match kind {
        EntryType::Regular => TarEntryKind::File,
        EntryType::Directory => TarEntryKind::Directory,
        EntryType::Symlink if target.is_empty() => return Err("is a symbolic link without a target".to_owned()),
        EntryType::Symlink if target.contains(&0) => {
            return Err("is a symbolic link to a path with a NUL byte".to_owned());
        }
        EntryType::Symlink => TarEntryKind::Symlink(target.to_vec()),
        EntryType::Link => match relative(target, false) {
            Ok(Some(path)) => TarEntryKind::HardLink(path),
            Ok(None) => return Err("is a hard link to the root directory".to_owned()),
            Err(problem) => {
                return Err(format!(
                    "is a hard link to \"{}\", which {problem}",
                    target.escape_ascii()
                ));
            }
        },
        EntryType::Char | EntryType::Block => return Err("is a device node, which is not unpacked".to_owned()),
        EntryType::Fifo => return Err("is a named pipe, which is not unpacked".to_owned()),
        EntryType::GNUSparse => return Err("is a sparse file, which is not supported".to_owned()),
        EntryType::XGlobalHeader => return Err("is a global pax header, which is not supported".to_owned()),
        other => {
            let byte = [other.as_byte()];
            return Err(format!("has the unknown type \"{}\"", byte.escape_ascii()));
        }
    })
}

/// Mode, owner, time and extended attributes of an entry.
fn meta(header: &Header, pax: Pax) -> Result<Meta, String> {
    let text = |field: &str, value: io::Result<u64>| value.map_err(|e| format!("has an unreadable {field}: {e}"));
    let number = |field: &'static str, value: u64| {
        u32::try_from(value).map_err(|_| format!("has {field} {value}, which does not fit 32 bits"))
    };
    let mode = u64::from(header.mode().map_err(|e| format!("has an unreadable mode: {e}"))?) & !S_IFMT;
    if mode > 0o7777 {
        return Err(format!("has mode {mode:o}"));
    }
    let owner = |field: &'static str, value: u64, stated: Option<u64>| {
        // A writer that cannot fit an owner into the header writes zero or its low digits; only the pax record is right then.
        number(field, stated.unwrap_or(value))
    };
    let mtime = text("mtime", header.mtime())?;
    agree("mtime", mtime, pax.mtime)?;
    Ok(Meta {
        mode: number("mode", mode)?,
        uid: owner("uid", text("uid", header.uid())?, pax.uid)?,
        gid: owner("gid", text("gid", header.gid())?, pax.gid)?,
        mtime: Epoch::new(number("mtime", mtime)?),
        xattrs: pax.xattrs,
    })
}

/// Checks that a pax number repeats the number of the header, since readers differ in which of the two they use.
fn agree(field: &str, header: u64, pax: Option<u64>) -> Result<(), String> {
    match pax {
        Some(value) if value != header => Err(format!(
            "has {field} {header} in its header but {value} in a pax record"
        )),
        _ => Ok(()),
    }
}

/// The whole text of a field that an extension may have extended; the header must hold the same text or its beginning.
fn full_text(field: &str, header: &[u8], gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    let (source, long) = match (gnu, pax) {
        (Some(_), Some(_)) => return Err(format!("has its {field} both in a GNU long name and in a pax record")),
        (None, None) => return Ok(header.to_vec()),
        (Some(long), None) => ("a GNU long name", long),
        (None, Some(long)) => ("a pax record", long),
    };
    let begins = |whole: &[u8]| whole == header || (header.len() >= CUT_FIELD && whole.starts_with(header));
    // Go's archive/tar leaves out of the header the bytes that are not ASCII.
    let ascii = || long.iter().copied().filter(u8::is_ascii).collect::<Vec<u8>>();
    if begins(&long) || begins(&ascii()) {
        return Ok(long);
    }
    Err(format!(
        "has {field} \"{}\" in its header but \"{}\" in {source}",
        header.escape_ascii(),
        long.escape_ascii()
    ))
}

/// The relative path of a stored path (`./usr/bin/`, `usr/bin`); `None` for the root itself.
fn relative(raw: &[u8], directory: bool) -> Result<Option<RelPath>, String> {
    if raw == b"." || raw == b"./" {
        return Ok(None);
    }
    let mut path = raw.strip_prefix(b"./").unwrap_or(raw);
    if directory && path.len() > 1 {
        path = path.strip_suffix(b"/").unwrap_or(path);
    }
    match RelPath::new(path) {
        Ok(path) => Ok(Some(path)),
        Err(crate::model::ModelError::Path { problem, .. }) => Err(problem.to_owned()),
        Err(other) => Err(other.to_string()),
    }
}
