//! Compressed streams, cpio archives, and initramfs files, which consist of several of them.

use super::{
    budget::Metered,
    detect::{CPIO_MAGIC, Holder, MAX_MAGIC, stream_magic},
    error::one_line,
    ext4::{shown, time},
    part::{Fields, Look, Part, PartExtent, PartKind, SpoolDirectory},
};
use crate::image::{
    ImageError, ReadAt, ReadCursor, Source, Window,
    cpio::{Compression, CpioReader, Segment, next_nonzero, segments_until_damage},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// Content behind this length is not read, bytes.
const MAX_CONTENT: u64 = 8 << 30;
/// Memory limit for decompressing xz, bytes.
const XZ_MEMORY: u64 = 256 << 20;
/// Bytes that are decompressed at a time; a piece of zeros stays a hole. Content up to this length is kept in memory.
const PIECE: usize = 128 * 1024;
/// Cost of a frame beside its content, in decompressed bytes: a decoder is set up for each.
const FRAME: u64 = 64 * 1024;
/// Longer content is skipped by seeking instead of reading, bytes.
const JUMP: u64 = 256 * 1024;
/// `S_IFMT`.
const TYPE_MASK: u32 = 0o170_000;

/// Name of the format of a compression.
pub(super) const fn format_of(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "cpio",
        Compression::Zstd => "zstd",
        Compression::Gzip => "gzip",
        Compression::Xz => "xz",
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
    let (found, error) = segments_until_damage(ReadCursor::new(holder.source), &spend);
    let alike = found.iter().all(|s| s.compression == compression);
    let archives = || found[1..].iter().all(|s| segment_begins_with_archive(holder.source, s));
    if found.len() > 1 && (compression == Compression::None || !alike || archives()) {
        let mut look = Look {
            format: "initramfs",
            problem: error.map(|e| one_line(&e)),
            ..Look::default()
        };
        for (number, segment) in (1..).zip(&found) {
            let name = format!("segment {number} ({})", format_of(segment.compression));
            let part = Part::slice(name, PartKind::Segment, holder.source, segment.offset, segment.len);
            look.children.push(part.keyed(format!("segment {number}")));
        }
        return look;
    }
    // A problem with the only segment is found again.
    if compression == Compression::None {
        archive(holder.source, holder.size)
    } else {
        stream(holder, compression)
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

/// A compressed stream of one or more frames. Content in front of damage is shown.
fn stream(holder: &Holder<'_>, compression: Compression) -> Look {
    let mut look = Look {
        format: format_of(compression),
        ..Look::default()
    };
    let mut spool = Spool::default();
    if let Err(error) = unpack(holder, compression, &mut spool) {
        let text = if error.kind() == io::ErrorKind::UnexpectedEof {
            "it is cut off".to_owned()
        } else {
            format!("it cannot be decompressed: {error}")
        };
        look.problem = Some(text);
    }
    let len = spool.len();
    if len > 0 || look.problem.is_none() {
        match spool.finish() {
            Ok(content) => {
                let content = Metered::source(content, holder.budget);
                let made_from = vec![PartExtent {
                    at: 0,
                    from: 0,
                    len: holder.size,
                }];
                look.children.push(Part::derived("content", content, len, made_from));
            }
            Err(error) => look.add_problem(format!("its content cannot be stored: {error}")),
        }
    }
    look
}

/// Decompresses every frame of a stream; zeros behind a frame are padding.
fn unpack(holder: &Holder<'_>, compression: Compression, spool: &mut Spool) -> io::Result<()> {
    let mut at = 0;
    loop {
        holder.budget.unpacked.spend(FRAME)?;
        let mut input = BufReader::with_capacity(PIECE, tail(holder.source, at));
        let mut frame = frame(&mut input, compression)?;
        spool.fill(&mut frame, holder)?;
        drop(frame);
        let end = input.stream_position()?;
        let Some(next) = next_nonzero(&mut tail(holder.source, end), end)? else {
            return Ok(());
        };
        let mut magic = vec![0; MAX_MAGIC.min((holder.size - next) as usize)];
        holder.source.read_exact_at(&mut magic, next)?;
        if stream_magic(&magic) != Some(compression) {
            let problem = format!(
                "{} bytes from byte {next} on are not {}",
                holder.size - next,
                format_of(compression)
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        at = next;
    }
}

/// A reader of the content of one frame, which leaves `input` behind the frame.
fn frame<'a>(input: &'a mut (impl BufRead + 'a), compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input)?.single_frame()),
        Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(io::Error::other)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
    })
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

/// A reader of the decompressed bytes of `source`.
pub(super) fn decoder(source: &Source, compression: Compression) -> io::Result<Box<dyn Read>> {
    let input = BufReader::with_capacity(PIECE, ReadCursor::new(source.clone()));
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
            Box::new(liblzma::bufread::XzDecoder::new_stream(
                input,
                stream.map_err(io::Error::other)?,
            ))
        }
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
    look
}

fn entries(source: &Source, size: u64, look: &mut Look) -> Result<(), ImageError> {
    let mut base = 0;
    let mut reader = CpioReader::new(tail(source, base));
    // The content of a file with several names stands at the last one.
    let mut links: BTreeMap<(u32, u32, u32), Vec<usize>> = BTreeMap::new();
    while let Some(entry) = reader.next_entry().map_err(|e| e.shifted(base))? {
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
            None => "/".to_owned(),
        };
        if kind == PartKind::Symlink {
            let target = reader.link_target().map_err(|e| e.shifted(base))?;
            fields.insert("target".to_owned(), shown(&target));
        }
        let available = size.saturating_sub(content);
        let mut part =
            Part::slice(path, kind, source, content, len.min(available)).described_by(header, content - header);
        part.fields = fields;
        if kind == PartKind::File && entry.nlink > 1 {
            part = part.with("links", entry.nlink);
            if len == 0 {
                links.entry(entry.inode).or_default().push(look.children.len());
            } else {
                for name in links.remove(&entry.inode).unwrap_or_default() {
                    look.children[name].take_content(&part);
                }
            }
        }
        if !look.list(part) {
            return Ok(());
        }
        // A checksum is compared while content is read.
        if len > JUMP && len <= available && entry.checksum.is_none() {
            base = (content + len).next_multiple_of(4).min(size);
            reader = CpioReader::new(tail(source, base));
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
