//! Compressed streams, cpio archives, and initramfs files, which consist of several of them.

use super::{
    error::one_line,
    ext4::{shown, time},
    part::{Fields, Look, Part, PartExtent, PartKind, SpoolDirectory},
};
use crate::image::{
    ImageError, ReadCursor, Source,
    cpio::{Compression, CpioReader, segments},
};
use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// A stream with more content is refused, bytes.
const MAX_CONTENT: u64 = 8 << 30;
/// Memory limit for decompressing xz, bytes.
const XZ_MEMORY: u64 = 256 << 20;
/// Bytes that are decompressed at a time; a piece of zeros stays a hole.
const PIECE: usize = 128 * 1024;
/// Entries above this number are not listed.
const MAX_ENTRIES: usize = 200_000;
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
pub(super) fn look(source: &Source, size: u64, compression: Compression, scratch: &SpoolDirectory) -> Look {
    // Several segments are an initramfs; a single stream may have any content.
    match segments(ReadCursor::new(source)) {
        Ok(found) if found.len() > 1 => {
            let mut look = Look {
                format: "initramfs",
                ..Look::default()
            };
            for (index, segment) in found.iter().enumerate() {
                let name = format!("segment {} ({})", index + 1, format_of(segment.compression));
                let part = Part::slice(name, PartKind::Segment, source, segment.offset, segment.len);
                look.children.push(part.keyed(format!("segment {}", index + 1)));
            }
            look
        }
        // A problem with the only segment is found again below.
        _ if compression == Compression::None => archive(source, size),
        _ => stream(source, size, compression, scratch),
    }
}

/// A compressed stream.
fn stream(source: &Source, size: u64, compression: Compression, scratch: &SpoolDirectory) -> Look {
    let mut look = Look {
        format: format_of(compression),
        ..Look::default()
    };
    match decompressed(source, compression, scratch) {
        Ok((file, len)) => {
            let made_from = vec![PartExtent {
                at: 0,
                from: 0,
                len: size,
            }];
            look.children
                .push(Part::derived("content", Arc::new(file), len, made_from));
        }
        Err(error) => look.problem = Some(format!("it cannot be decompressed: {error}")),
    }
    look
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

/// Writes the decompressed bytes of `source` to an unlinked file, with holes for zeros; returns the file and its length.
pub(super) fn decompressed(
    source: &Source,
    compression: Compression,
    scratch: &SpoolDirectory,
) -> io::Result<(File, u64)> {
    spool(&mut decoder(source, compression)?, scratch)
}

/// Writes the bytes of `reader`, at most 8 GiB, to an unlinked file.
pub(super) fn spool(reader: &mut dyn Read, scratch: &SpoolDirectory) -> io::Result<(File, u64)> {
    let file = scratch.file()?;
    let mut piece = vec![0; PIECE];
    let mut at = 0u64;
    loop {
        let mut n = 0;
        while n < piece.len() {
            match reader.read(&mut piece[n..]) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if piece[..n].iter().any(|b| *b != 0) {
            file.write_all_at(&piece[..n], at)?;
        }
        at += n as u64;
        if at > MAX_CONTENT {
            return Err(io::Error::other(format!(
                "it has more than {MAX_CONTENT} bytes of content"
            )));
        }
        if n < piece.len() {
            file.set_len(at)?;
            return Ok((file, at));
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
        look.problem = Some(one_line(&error));
    }
    look.fields
        .insert("entries".to_owned(), look.children.len().to_string());
    look
}

fn entries(source: &Source, size: u64, look: &mut Look) -> Result<(), ImageError> {
    let mut base = 0;
    let mut reader = CpioReader::new(tail(source, base));
    while let Some(entry) = reader.next_entry()? {
        if look.children.len() == MAX_ENTRIES {
            look.problem = Some(format!("it has more than {MAX_ENTRIES} entries"));
            return Ok(());
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
            None => "/".to_owned(),
        };
        if kind == PartKind::Symlink {
            fields.insert("target".to_owned(), shown(&reader.link_target()?));
        }
        let available = size.saturating_sub(content);
        let mut part =
            Part::slice(path, kind, source, content, len.min(available)).described_by(header, content - header);
        part.fields = fields;
        look.children.push(part);
        if len > JUMP && len <= available {
            base = (content + len).next_multiple_of(4).min(size);
            reader = CpioReader::new(tail(source, base));
        }
    }
    unique(&mut look.children);
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
