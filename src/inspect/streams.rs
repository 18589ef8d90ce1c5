//! Compressed streams, cpio archives, and initramfs files, which consist of several of them.

use super::{
    budget::Metered,
    detect::{CPIO_MAGIC, Holder, stream_magic},
    error::one_line,
    ext4::{shown, time},
    part::{Fields, Look, Part, PartExtent, PartKind, SpoolDirectory},
};
use crate::image::{
    ImageError, ReadAt, ReadCursor, Source, Window,
    cpio::{
        Compression, CpioReader, FrameReader, MAX_MAGIC, Segment, next_nonzero, segments_until_damage,
        unread_compression,
    },
    lz4::Lz4Reader,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// Content behind this length is not read, bytes.
const MAX_CONTENT: u64 = 8 << 30;
/// Name of zeros between and behind the pieces of a file, which have no meaning.
pub(super) const PADDING: &str = "padding";
/// Bytes that are decompressed at a time; a piece of zeros stays a hole. Content up to this length is kept in memory.
const PIECE: usize = 128 * 1024;
/// Cost of a frame beside its content, in decompressed bytes: a decoder is set up for each.
const FRAME: u64 = 64 * 1024;
/// Longer content is skipped by seeking instead of reading, bytes.
const JUMP: u64 = 256 * 1024;
/// `S_IFMT`.
const TYPE_MASK: u32 = 0o170_000;

/// A stream or an archive of a known form that is not read.
pub(super) fn unread(format: &'static str, what: &str) -> Look {
    Look {
        format,
        problem: Some(format!("this {what} is not read")),
        ..Look::default()
    }
}

/// A stream, an archive, or an initramfs of several of them.
pub(super) fn look(holder: &Holder<'_>, compression: Compression) -> Look {
    // A stream may consist of several frames, as pzstd and bgzip write it. Only if its content is a cpio archive, these frames are the
    // segments of an initramfs, each unpacked by itself.
    if compression != Compression::None && !begins_with_archive(holder.source, compression) {
        return stream(holder, compression);
    }
    let spend = |bytes: u64| holder.budget.unpacked.spend(bytes);
    let (mut found, error) = segments_until_damage(ReadCursor::new(holder.source), &spend);
    // A damaged segment shows its beginning too. One of a compression that is not read ends the file.
    let mut unread = false;
    if error.is_some() && !found.is_empty() {
        let (damaged, compression) = damaged_segment(holder, &found);
        found.extend(damaged);
        unread = compression.is_some();
    }
    let alike = found.iter().all(|s| s.compression == compression);
    let archives = || found[1..].iter().all(|s| segment_begins_with_archive(holder.source, s));
    if (found.len() > 1 || unread) && (compression == Compression::None || !alike || archives()) {
        let mut look = Look {
            format: "initramfs",
            problem: error.map(|e| one_line(&e)),
            ..Look::default()
        };
        for (number, segment) in (1..).zip(&found) {
            let name = format!("segment {number} ({})", segment.compression.as_str());
            let part = Part::slice(name, PartKind::Segment, holder.source, segment.offset, segment.len);
            look.children.push(part.keyed(format!("segment {number}")));
        }
        let taken: Vec<(u64, u64)> = found.iter().map(|s| (s.offset, s.len)).collect();
        let end = if look.problem.is_some() {
            None
        } else {
            Some(holder.size)
        };
        add_padding(&mut look, holder.source, &taken, end);
        return look;
    }
    // A problem with the only segment is found again.
    if compression == Compression::None {
        archive(holder.source, holder.size)
    } else {
        stream(holder, compression)
    }
}

/// The segment behind those in `found`, up to the end of the file, if one begins there, or else the name of its compression, which is not
/// read.
fn damaged_segment(holder: &Holder<'_>, found: &[Segment]) -> (Option<Segment>, Option<&'static str>) {
    let end = found.last().map_or(0, |s| s.offset + s.len);
    let Ok(Some(offset)) = next_nonzero(&mut tail(holder.source, end), end) else {
        return (None, None);
    };
    let mut magic = vec![0; MAX_MAGIC.min((holder.size - offset) as usize)];
    if holder.source.read_exact_at(&mut magic, offset).is_err() {
        return (None, None);
    }
    let plain = CPIO_MAGIC.iter().any(|m| magic.starts_with(*m)) && offset.is_multiple_of(4);
    let compression = if plain {
        Some(Compression::None)
    } else {
        Compression::of(&magic)
    };
    let segment = compression.map(|compression| Segment {
        offset,
        len: holder.size - offset,
        compression,
    });
    (segment, unread_compression(&magic))
}

/// Adds the ranges in front of, between and behind the pieces `taken`, which are zeros, up to `end`.
fn add_padding(look: &mut Look, source: &Source, taken: &[(u64, u64)], end: Option<u64>) {
    let mut at = 0;
    for (from, len) in taken.iter().copied().chain(end.map(|end| (end, 0))) {
        if from > at {
            let part = Part::slice(PADDING, PartKind::Region, source, at, from - at);
            look.children.push(part);
        }
        at = from + len;
    }
}

/// Whether the content of a compressed stream begins as a cpio archive does.
fn begins_with_archive(source: &Source, compression: Compression) -> bool {
    let mut magic = [0; 6];
    let read = decoder(source, compression).and_then(|mut decoder| decoder.read_exact(&mut magic));
    read.is_ok() && CPIO_MAGIC.iter().any(|m| magic == **m)
}

fn segment_begins_with_archive(source: &Source, segment: &Segment) -> bool {
    Window::new(source.clone(), segment.offset, segment.len)
        .is_ok_and(|window| begins_with_archive(&(Arc::new(window) as Source), segment.compression))
}

/// The frames of a stream.
#[derive(Default)]
struct Frames {
    /// Offset and length of each, the last one up to where its damage was found.
    found: Vec<(u64, u64)>,
    /// Offset of bytes behind them that belong to no frame.
    behind: Option<u64>,
}

/// A compressed stream of one or more frames. Content in front of damage is shown.
fn stream(holder: &Holder<'_>, compression: Compression) -> Look {
    let mut look = Look {
        format: compression.as_str(),
        ..Look::default()
    };
    let (mut spool, mut frames) = (Spool::default(), Frames::default());
    if let Err(error) = unpack(holder, compression, &mut spool, &mut frames) {
        look.problem = Some(error.to_string());
    }
    let len = spool.len();
    if len > 0 || look.problem.is_none() {
        match spool.finish() {
            Ok(content) => {
                let content = Metered::source(content, holder.budget);
                let mut at = 0;
                let made_from = joined(&frames.found).into_iter().map(|(from, len)| {
                    let extent = PartExtent { at, from, len };
                    at += len;
                    extent
                });
                look.children
                    .push(Part::derived("content", content, len, made_from.collect()));
            }
            Err(error) => look.add_problem(format!("its content cannot be stored: {error}")),
        }
    }
    add_padding(
        &mut look,
        holder.source,
        &frames.found,
        frames.behind.or(Some(holder.size)),
    );
    if let Some(from) = frames.behind {
        let name = "bytes behind the stream";
        look.children.push(Part::slice(
            name,
            PartKind::Region,
            holder.source,
            from,
            holder.size - from,
        ));
    }
    look
}

/// Neighbouring ranges as one.
fn joined(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (from, len) in ranges.iter().copied() {
        match out.last_mut() {
            Some((start, before)) if *start + *before == from => *before += len,
            _ => out.push((from, len)),
        }
    }
    out
}

/// Decompresses every frame of a stream; zeros behind a frame are padding.
fn unpack(holder: &Holder<'_>, compression: Compression, spool: &mut Spool, frames: &mut Frames) -> io::Result<()> {
    let mut at = 0;
    loop {
        let mut input = BufReader::with_capacity(PIECE, tail(holder.source, at));
        let done = holder.budget.unpacked.spend(FRAME).and_then(|()| {
            let mut frame = FrameReader::new(&mut input, compression)?;
            spool.fill(&mut frame, holder)?;
            Ok(frame.over_read())
        });
        let end = input.stream_position()?;
        let over_read = match done {
            Ok(over_read) => over_read,
            Err(error) => {
                frames.found.push((at, holder.size - at));
                let name = compression.as_str();
                let text = match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        format!("it is cut off: the {name} data from byte {at} on have no end")
                    }
                    _ => format!(
                        "the {name} data from byte {at} on cannot be decompressed behind about byte {end}: {error}"
                    ),
                };
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        };
        let end = end - over_read;
        frames.found.push((at, end - at));
        let Some(next) = next_nonzero(&mut tail(holder.source, end), end)? else {
            return Ok(());
        };
        let mut magic = vec![0; MAX_MAGIC.min((holder.size - next) as usize)];
        holder.source.read_exact_at(&mut magic, next)?;
        if stream_magic(&magic) != Some(compression) {
            frames.behind = Some(next);
            let problem = format!(
                "{} bytes from byte {next} on are not {}",
                holder.size - next,
                compression.as_str()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        at = next;
    }
}

/// Content that is written while it is decompressed: a short one is kept in memory, a longer one in an unlinked file, with holes for
/// zeros.
#[derive(Default)]
struct Spool {
    short: Vec<u8>,
    file: Option<File>,
    len: u64,
}

impl Spool {
    fn len(&self) -> u64 {
        self.len
    }

    /// Adds the bytes of `reader`; an error leaves those in front of it.
    fn fill(&mut self, reader: &mut dyn Read, holder: &Holder<'_>) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let (n, error) = read_piece(reader, &mut piece);
            holder.budget.unpacked.spend(n as u64)?;
            self.add(&piece[..n], holder.scratch)?;
            match error {
                Some(error) => return Err(error),
                None if n < PIECE => return Ok(()),
                None => {}
            }
        }
    }

    fn add(&mut self, piece: &[u8], scratch: &SpoolDirectory) -> io::Result<()> {
        if self.len + piece.len() as u64 > MAX_CONTENT {
            return Err(too_long());
        }
        if self.file.is_none() && self.short.len() + piece.len() > PIECE {
            let file = scratch.file()?;
            write_sparse(&file, &self.short, 0)?;
            self.file = Some(file);
            self.short = Vec::new();
        }
        match &self.file {
            Some(file) => write_sparse(file, piece, self.len)?,
            None => self.short.extend(piece),
        }
        self.len += piece.len() as u64;
        Ok(())
    }

    fn finish(self) -> io::Result<Source> {
        Ok(match self.file {
            Some(file) => {
                file.set_len(self.len)?;
                Arc::new(file)
            }
            None => Arc::new(self.short),
        })
    }
}

/// Reads until `piece` is full, the reader ends, or it fails.
fn read_piece(reader: &mut dyn Read, piece: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut n = 0;
    while n < piece.len() {
        match reader.read(&mut piece[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (n, Some(e)),
        }
    }
    (n, None)
}

fn write_sparse(file: &File, piece: &[u8], at: u64) -> io::Result<()> {
    match piece.iter().any(|b| *b != 0) {
        true => file.write_all_at(piece, at),
        false => Ok(()),
    }
}

fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it has more than {MAX_CONTENT} bytes of content"),
    )
}

/// A reader of the decompressed bytes of `source`, up to damage, padding or the end. The frames of lzma and LZ4 are read singly.
pub(super) fn decoder(source: &Source, compression: Compression) -> io::Result<Box<dyn Read>> {
    use liblzma::{bufread::XzDecoder, stream::Stream};
    const XZ_MEMORY: u64 = 256 << 20;
    let input = BufReader::with_capacity(PIECE, ReadCursor::new(source.clone()));
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(XzDecoder::new_stream(input, stream))
        }
        Compression::Lzma => Box::new(XzDecoder::new_stream(input, Stream::new_lzma_decoder(XZ_MEMORY)?)),
        Compression::Lz4 => Box::new(Lz4Reader::new(input)),
    })
}

/// Writes the bytes of `reader`, at most 8 GiB, to an unlinked file.
pub(super) fn spool(reader: &mut dyn Read, scratch: &SpoolDirectory) -> io::Result<Source> {
    let mut spool = Spool::default();
    let mut piece = vec![0; PIECE];
    loop {
        let (n, error) = read_piece(reader, &mut piece);
        if let Some(error) = error {
            return Err(error);
        }
        spool.add(&piece[..n], scratch)?;
        if n < PIECE {
            return spool.finish();
        }
    }
}

/// The entries of one or more plain archives.
fn archive(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "cpio",
        ..Look::default()
    };
    if let Err(error) = entries(source, size, &mut look) {
        look.add_problem(one_line(&error));
    }
    unique(&mut look.children);
    look.fields
        .insert("entries".to_owned(), look.children.len().to_string());
    if look.problem.is_none()
        && let Ok(end) = end_of_data(source, size)
    {
        // The name of the trailer ends with a NUL, and is padded to 4.
        let end = (end + 1).next_multiple_of(4).min(size);
        add_padding(&mut look, source, &[(0, end)], Some(size));
    }
    look
}

/// Offset behind the last byte that is not zero.
fn end_of_data(source: &Source, size: u64) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut end = size;
    while end > 0 {
        let n = end.min(PIECE as u64) as usize;
        source.read_exact_at(&mut buffer[..n], end - n as u64)?;
        if let Some(last) = buffer[..n].iter().rposition(|b| *b != 0) {
            return Ok(end - n as u64 + last as u64 + 1);
        }
        end -= n as u64;
    }
    Ok(0)
}

fn entries(source: &Source, size: u64, look: &mut Look) -> Result<(), ImageError> {
    let mut base = 0;
    let mut reader = CpioReader::new(tail(source, base)).any_name();
    // The content of a file with several names stands at the last one.
    let mut links: BTreeMap<(u32, u32, u32), Vec<usize>> = BTreeMap::new();
    // Of some tools it stands at the first one.
    let mut stored: BTreeMap<(u32, u32, u32), usize> = BTreeMap::new();
    let (mut archives, mut archive) = (0, 0);
    while let Some(entry) = reader.next_entry().map_err(|e| e.shifted(base))? {
        // Numbers of inodes mean nothing in the next archive.
        if archives + reader.archives() != archive {
            archive = archives + reader.archives();
            links.clear();
            stored.clear();
        }
        let (header, content) = (base + entry.offset, base + reader.offset());
        let len = u64::from(entry.size);
        let kind = match entry.mode & TYPE_MASK {
            0o100_000 => PartKind::File,
            0o040_000 => PartKind::Directory,
            0o120_000 => PartKind::Symlink,
            _ => PartKind::Special,
        };
        let mut fields = Fields::new();
        let time = time(entry.mtime);
        for (name, value) in [
            ("mode", format!("{:04o}", entry.mode & 0o7777)),
            ("owner", format!("{}:{}", entry.uid, entry.gid)),
            ("modified", time),
        ] {
            fields.insert(name.to_owned(), value);
        }
        let path = match &entry.path {
            Some(path) => format!("/{}", shown(path.as_bytes())),
            None if entry.problem.is_some() => shown(&entry.stored_name),
            None => "/".to_owned(),
        };
        if kind == PartKind::Symlink && entry.problem.is_none() {
            let target = reader.link_target().map_err(|e| e.shifted(base))?;
            fields.insert("target".to_owned(), shown(&target));
        }
        let available = size.saturating_sub(content);
        let mut part =
            Part::slice(path, kind, source, content, len.min(available)).described_by(header, content - header);
        part.fields = fields;
        part.problem = entry.problem;
        if kind == PartKind::File && entry.nlink > 1 {
            part = part.with("links", entry.nlink);
            if let Some(first) = stored.get(&entry.inode).filter(|_| len == 0) {
                part.take_content(&look.children[*first]);
            } else if len == 0 {
                links.entry(entry.inode).or_default().push(look.children.len());
            } else {
                for name in links.remove(&entry.inode).unwrap_or_default() {
                    look.children[name].take_content(&part);
                }
                stored.insert(entry.inode, look.children.len());
            }
        }
        if !look.list(part) {
            return Ok(());
        }
        // A checksum is compared while content is read.
        if len > JUMP && len <= available && entry.checksum.is_none() {
            base = (content + len).next_multiple_of(4).min(size);
            archives += reader.archives();
            reader = CpioReader::new(tail(source, base)).any_name();
        }
    }
    Ok(())
}

fn tail(source: &Source, from: u64) -> ReadCursor<Source> {
    use std::io::{Seek, SeekFrom};
    let mut cursor = ReadCursor::new(source.clone());
    // Seeking to an absolute offset cannot fail.
    let _ = cursor.seek(SeekFrom::Start(from));
    cursor
}

/// Numbers parts of the same name.
pub(super) fn unique(children: &mut [Part]) {
    let mut seen = std::collections::BTreeMap::new();
    for child in children {
        let count = seen.entry(child.key.clone()).or_insert(0u32);
        *count += 1;
        if *count > 1 {
            child.key = format!("{} #{count}", child.key);
            child.name = format!("{} #{count}", child.name);
        }
    }
}
