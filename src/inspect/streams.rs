//! Compressed streams, cpio archives, and the initramfs that is several of them one after the other.

use super::{
    error::chain,
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

/// A stream that holds more is not laid down, bytes.
const MAX_CONTENT: u64 = 8 << 30;
/// Memory that decompressing xz may take, bytes.
const XZ_MEMORY: u64 = 256 << 20;
/// How much is decompressed at a time; runs of zeros of this length stay holes.
const PIECE: usize = 128 * 1024;
/// More entries than this are not listed.
const MAX_ENTRIES: usize = 200_000;
/// Content longer than this is jumped over rather than read.
const JUMP: u64 = 256 * 1024;
/// `S_IFMT` and its values.
const TYPE_MASK: u32 = 0o170_000;

/// Name of the format a compression makes.
pub(super) const fn format_of(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "cpio",
        Compression::Zstd => "zstd",
        Compression::Gzip => "gzip",
        Compression::Xz => "xz",
    }
}

/// A stream or an archive, or several of them.
pub(super) fn look(source: &Source, size: u64, compression: Compression, scratch: &SpoolDirectory) -> Look {
    // More than one segment makes an initramfs; a lone stream may hold anything.
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
        // Whatever is wrong with the only segment is found again below.
        _ if compression == Compression::None => archive(source, size),
        _ => stream(source, size, compression, scratch),
    }
}

/// What a compressed stream holds.
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

/// Reads what `source` holds.
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

/// Lays down what `source` holds in a file without a name, zeros as holes.
pub(super) fn decompressed(
    source: &Source,
    compression: Compression,
    scratch: &SpoolDirectory,
) -> io::Result<(File, u64)> {
    spool(&mut decoder(source, compression)?, scratch)
}

/// Lays down what `reader` gives, at most 8 GiB.
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
            return Err(io::Error::other(format!("it holds more than {MAX_CONTENT} bytes")));
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
        look.problem = Some(chain(&error));
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
    // Seeking to an absolute place cannot fail.
    let _ = cursor.seek(SeekFrom::Start(from));
    cursor
}

/// Parts with one name are told apart by their number.
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
