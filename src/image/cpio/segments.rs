//! The segments of an initramfs: offset, length and compression of each archive.
//!
//! dracut writes the microcode as a plain archive and the rest as a compressed archive; pnb appends further archives.

use super::{format::MAGICS, reader::CpioReader};
use crate::image::ImageError;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};

const FORMAT: &str = "an initramfs";
/// First bytes of a zstd frame, RFC 8878 section 3.1.1.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// First bytes of a gzip member with deflate, RFC 1952.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 0x08];
/// First bytes of an xz stream, <https://tukaani.org/xz/xz-file-format.txt>.
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0x00];

/// Memory limit for decompressing xz, bytes.
const XZ_MEMORY: u64 = 256 << 20;

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
pub fn segments(input: impl Read + Seek) -> Result<Vec<Segment>, ImageError> {
    match segments_until_damage(input, &|_| Ok(())) {
        (found, None) => Ok(found),
        (_, Some(error)) => Err(error),
    }
}

/// Like [`segments`], with the segments in front of an error too. `spend` is called with numbers of bytes that are decoded to find the
/// end of a segment, which its format does not state; its error ends the search.
pub fn segments_until_damage(
    mut input: impl Read + Seek,
    spend: &dyn Fn(u64) -> io::Result<()>,
) -> (Vec<Segment>, Option<ImageError>) {
    let mut found = Vec::new();
    let mut position = 0;
    loop {
        match segment(&mut input, position, spend) {
            Ok(Some(segment)) => {
                position = segment.offset + segment.len;
                found.push(segment);
            }
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

/// The next segment from `position` on; `None` when only zeros follow.
fn segment(
    input: &mut (impl Read + Seek),
    position: u64,
    spend: &dyn Fn(u64) -> io::Result<()>,
) -> Result<Option<Segment>, ImageError> {
    let Some(offset) = next_nonzero(input, position).map_err(|e| failed(position, e))? else {
        return Ok(None);
    };
    let mut magic = [0; 6];
    let n = read_up_to(input, offset, &mut magic).map_err(|e| failed(offset, e))?;
    let magic = &magic[..n];
    input.seek(SeekFrom::Start(offset)).map_err(|e| failed(offset, e))?;
    let from = BufReader::with_capacity(64 * 1024, input);
    let (compression, len) = if MAGICS.iter().any(|m| magic == *m) {
        if !offset.is_multiple_of(4) {
            return Err(corrupt(
                offset,
                "an archive begins at an offset that is not a multiple of 4",
            ));
        }
        (Compression::None, archive_length(from).map_err(|e| e.shifted(offset))?)
    } else if magic.starts_with(ZSTD_MAGIC) {
        (Compression::Zstd, zstd_length(from).map_err(|e| failed(offset, e))?)
    } else if magic.starts_with(GZIP_MAGIC) {
        let len = decoded_length(from, |r| discard(&mut flate2::bufread::GzDecoder::new(r), spend));
        (Compression::Gzip, len.map_err(|e| failed(offset, e))?)
    } else if magic.starts_with(XZ_MAGIC) {
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(|e| failed(offset, e.into()))?;
        let len = decoded_length(from, |r| {
            discard(&mut liblzma::bufread::XzDecoder::new_stream(r, stream), spend)
        });
        (Compression::Xz, len.map_err(|e| failed(offset, e))?)
    } else {
        let text = format!(
            "\"{}\" is neither the beginning of an archive nor a known compression",
            magic.escape_ascii()
        );
        return Err(corrupt(offset, &text));
    };
    Ok(Some(Segment {
        offset,
        len,
        compression,
    }))
}

/// Decodes to the end, and drops the content.
fn discard(decoder: &mut dyn Read, spend: &dyn Fn(u64) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => spend(n as u64)?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
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

/// Offset of the first byte from `start` on that is not zero; `None` when there is none.
///
/// # Errors
/// `input` cannot be read.
pub fn next_nonzero(input: &mut (impl Read + Seek), start: u64) -> io::Result<Option<u64>> {
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
    decode: impl FnOnce(&mut CountingReader<R>) -> io::Result<()>,
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
