//! The segments of an initramfs: offset, length and compression of each archive.
//!
//! dracut writes the microcode as a plain archive and the rest as a compressed archive; pnb appends further archives.

use super::reader::CpioReader;
use crate::image::ImageError;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};

const FORMAT: &str = "an initramfs";
/// First bytes of a zstd frame, RFC 8878 section 3.1.1.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// First bytes of a gzip member with deflate, RFC 1952.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 0x08];
/// First bytes of an xz stream, <https://tukaani.org/xz/xz-file-format.txt>.
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0x00];

/// Compression of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// A plain archive.
    None,
    /// One zstd frame.
    Zstd,
    /// One gzip member.
    Gzip,
    /// One xz stream.
    Xz,
}

/// One archive of an initramfs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes, without the zeros behind it.
    pub len: u64,
    /// Compression.
    pub compression: Compression,
}

/// Finds the segments of `input`, read from its first byte. Zeros between segments belong to no segment; other bytes, and a
/// segment that is cut off, are errors. The content of compressed segments is not checked.
pub fn segments(mut input: impl Read + Seek) -> Result<Vec<Segment>, ImageError> {
    let mut found = Vec::new();
    let mut position = 0;
    loop {
        let Some(offset) = next_nonzero(&mut input, position).map_err(|e| failed(position, e))? else {
            return Ok(found);
        };
        let mut magic = [0; 6];
        let n = read_up_to(&mut input, offset, &mut magic).map_err(|e| failed(offset, e))?;
        let magic = &magic[..n];
        input.seek(SeekFrom::Start(offset)).map_err(|e| failed(offset, e))?;
        let from = BufReader::with_capacity(64 * 1024, &mut input);
        let (compression, len) = if magic == super::format::MAGIC {
            if !offset.is_multiple_of(4) {
                return Err(corrupt(
                    offset,
                    "an archive begins at an offset that is not a multiple of 4",
                ));
            }
            (Compression::None, archive_length(from).map_err(|e| shift(e, offset))?)
        } else if magic.starts_with(ZSTD_MAGIC) {
            (Compression::Zstd, zstd_length(from).map_err(|e| failed(offset, e))?)
        } else if magic.starts_with(GZIP_MAGIC) {
            let len = decoded_length(from, |r| {
                io::copy(&mut flate2::bufread::GzDecoder::new(r), &mut io::sink())
            });
            (Compression::Gzip, len.map_err(|e| failed(offset, e))?)
        } else if magic.starts_with(XZ_MAGIC) {
            let len = decoded_length(from, |r| {
                io::copy(&mut liblzma::bufread::XzDecoder::new(r), &mut io::sink())
            });
            (Compression::Xz, len.map_err(|e| failed(offset, e))?)
        } else {
            let text = format!(
                "\"{}\" is neither the beginning of an archive nor a known compression",
                magic.escape_ascii()
            );
            return Err(corrupt(offset, &text));
        };
        found.push(Segment {
            offset,
            len,
            compression,
        });
        position = offset + len;
    }
}

fn corrupt(offset: u64, problem: &str) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem: problem.to_owned(),
    }
}

fn failed(offset: u64, source: io::Error) -> ImageError {
    match source.kind() {
        ErrorKind::UnexpectedEof => corrupt(offset, "the segment is cut off"),
        _ => ImageError::Input {
            format: FORMAT,
            offset,
            source,
        },
    }
}

/// An error of the archive at offset `by`, with offsets of the whole file.
fn shift(error: ImageError, by: u64) -> ImageError {
    match error {
        ImageError::Corrupt {
            format,
            offset,
            problem,
        } => ImageError::Corrupt {
            format,
            offset: offset + by,
            problem,
        },
        other => other,
    }
}

fn next_nonzero(input: &mut (impl Read + Seek), start: u64) -> io::Result<Option<u64>> {
    input.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::with_capacity(64 * 1024, input);
    let mut offset = start;
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if let Some(at) = bytes.iter().position(|b| *b != 0) {
            return Ok(Some(offset + at as u64));
        }
        let n = bytes.len();
        offset += n as u64;
        reader.consume(n);
    }
}

fn read_up_to(input: &mut (impl Read + Seek), offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    input.seek(SeekFrom::Start(offset))?;
    let mut len = 0;
    while len < buffer.len() {
        match input.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

fn archive_length(reader: impl Read) -> Result<u64, ImageError> {
    let mut archive = CpioReader::new(reader);
    while archive.next_in_archive()?.is_some() {}
    Ok(archive.offset())
}

/// Counts the bytes that are consumed from a reader.
struct CountingReader<R> {
    reader: R,
    count: u64,
}

impl<R: BufRead> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.count += n as u64;
        Ok(n)
    }
}
impl<R: BufRead> BufRead for CountingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }
    fn consume(&mut self, n: usize) {
        self.count += n as u64;
        self.reader.consume(n);
    }
}

/// Number of bytes that `decode` consumes. These formats do not state their length, so they are decoded and discarded.
fn decoded_length<R: BufRead>(
    reader: R,
    decode: impl FnOnce(&mut CountingReader<R>) -> io::Result<u64>,
) -> io::Result<u64> {
    let mut counted = CountingReader { reader, count: 0 };
    decode(&mut counted)?;
    Ok(counted.count)
}

/// Length of a zstd frame, from its headers alone (RFC 8878 section 3.1.1).
fn zstd_length(mut reader: impl Read) -> io::Result<u64> {
    let mut count = 0;
    let mut take = |n: u64| -> io::Result<u64> {
        // The fields that are evaluated have at most three bytes; longer ranges are skipped.
        let mut value = [0; 8];
        if n <= 8 {
            reader.read_exact(&mut value[..n as usize])?;
        } else if io::copy(&mut (&mut reader).take(n), &mut io::sink())? < n {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        count += n;
        Ok(u64::from_le_bytes(value))
    };
    take(ZSTD_MAGIC.len() as u64)?;
    let descriptor = take(1)?;
    let single_segment = descriptor >> 5 & 1;
    let dictionary = [0, 1, 2, 4][(descriptor & 3) as usize];
    let content_size = match descriptor >> 6 {
        0 => single_segment,
        log => 1 << log,
    };
    let checksum = (descriptor >> 2 & 1) * 4;
    take((1 - single_segment) + dictionary + content_size)?;
    loop {
        let header = take(3)?;
        let (last, kind, size) = (header & 1, header >> 1 & 3, header >> 3);
        match kind {
            0 | 2 => take(size)?,
            1 => take(1)?,
            _ => {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "the zstd frame has a block of the reserved type",
                ));
            }
        };
        if last == 1 {
            take(checksum)?;
            return Ok(count);
        }
    }
}
