//! The segments of an initramfs: offset, length and compression of each archive.
//!
//! dracut writes the microcode as a plain archive and the rest as a compressed archive; pnb appends further archives.

use super::{decode::FrameReader, format::MAGICS, reader::CpioReader};
use crate::image::{
    ImageError,
    lz4::{LZ4_LEGACY_MAGIC, LZ4_MAGIC},
};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};

const FORMAT: &str = "an initramfs";
/// First bytes of a zstd frame, RFC 8878 section 3.1.1.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// First bytes of a gzip member with deflate, RFC 1952.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 0x08];
/// First bytes of an xz stream, <https://tukaani.org/xz/xz-file-format.txt>.
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0x00];
/// First byte of an lzma file with the usual properties; it has no magic.
const LZMA_PROPERTIES: u8 = 0x5d;
/// A larger size of an lzma file's content is not taken for one; `u64::MAX` stands for an unknown one. As in xz.
const MAX_LZMA: u64 = 1 << 38;
/// First bytes of forms that are not read: bzip2, lzop, compress, lzip, 7z.
const UNREAD: [(&[u8], &str); 5] = [
    (b"BZh", "bzip2"),
    (&[0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a], "lzo"),
    (&[0x1f, 0x9d], "compress"),
    (b"LZIP", "lzip"),
    (&[b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c], "7z"),
];
/// Bytes that [`Compression::of`] and [`unread_compression`] examine.
pub const MAX_MAGIC: usize = 13;

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
    /// One lzma file, as `xz --format=lzma` writes it.
    Lzma,
    /// One LZ4 frame, or one stream in the legacy form.
    Lz4,
}

impl Compression {
    /// The compression of a stream that begins with `head`, of which [`MAX_MAGIC`] bytes are examined; `None` for others, also for a
    /// plain archive.
    pub fn of(head: &[u8]) -> Option<Self> {
        let magics = [
            (ZSTD_MAGIC, Self::Zstd),
            (GZIP_MAGIC, Self::Gzip),
            (XZ_MAGIC, Self::Xz),
            (&LZ4_MAGIC, Self::Lz4),
            (&LZ4_LEGACY_MAGIC, Self::Lz4),
        ];
        let known = magics.iter().find(|(magic, _)| head.starts_with(magic));
        known
            .map(|(_, found)| *found)
            .or_else(|| is_lzma(head).then_some(Self::Lzma))
    }

    /// The name of the form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "cpio",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
        }
    }
}

/// Whether an lzma file begins here: usual properties, a dictionary of 2^n or 2^n + 2^(n-1) bytes, and a size that is unknown or below
/// 256 GiB. These are the tests of xz.
fn is_lzma(head: &[u8]) -> bool {
    let Some(([properties, dictionary @ .., _, _, _, _, _, _, _, _], _)) = head.split_first_chunk::<13>() else {
        return false;
    };
    let dictionary = u32::from_le_bytes([dictionary[0], dictionary[1], dictionary[2], dictionary[3]]);
    let size = head[5..13].try_into().map_or(0, u64::from_le_bytes);
    let round = dictionary.is_power_of_two() || dictionary % 3 == 0 && (dictionary / 3).is_power_of_two();
    *properties == LZMA_PROPERTIES && round && dictionary >= 1 << 12 && (size == u64::MAX || size < MAX_LZMA)
}

/// The name of a compression that is known and not read, if a stream of it begins with `head`.
pub fn unread_compression(head: &[u8]) -> Option<&'static str> {
    let found = UNREAD.iter().find(|(magic, _)| head.starts_with(magic));
    // The magic of bzip2 is short: a digit and the number of a block follow, or of the end.
    let bzip2 = |head: &[u8]| {
        head.get(3).is_some_and(|level| (b'1'..=b'9').contains(level))
            && [
                &[0x31, 0x41, 0x59, 0x26, 0x53, 0x59],
                &[0x17, 0x72, 0x45, 0x38, 0x50, 0x90],
            ]
            .iter()
            .any(|mark| head.get(4..10) == Some(&mark[..]))
    };
    found
        .map(|(_, name)| *name)
        .filter(|name| *name != "bzip2" || bzip2(head))
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
    let mut magic = [0; MAX_MAGIC];
    let n = read_up_to(input, offset, &mut magic).map_err(|e| failed(offset, e))?;
    let magic = &magic[..n];
    input.seek(SeekFrom::Start(offset)).map_err(|e| failed(offset, e))?;
    let from = BufReader::with_capacity(64 * 1024, input);
    let (compression, len) = if MAGICS.iter().any(|m| magic.starts_with(*m)) {
        if !offset.is_multiple_of(4) {
            return Err(corrupt(
                offset,
                "an archive begins at an offset that is not a multiple of 4",
            ));
        }
        (Compression::None, archive_length(from).map_err(|e| e.shifted(offset))?)
    } else if let Some(compression) = Compression::of(magic) {
        let len = match compression {
            Compression::Zstd => zstd_length(from),
            other => decoded_length(from, other, spend),
        };
        (compression, len.map_err(|e| failed(offset, e))?)
    } else if let Some(name) = unread_compression(magic) {
        return Err(corrupt(
            offset,
            &format!("the segment is {name}-compressed, which is not read"),
        ));
    } else {
        let text = format!(
            "\"{}\" is neither the beginning of an archive nor a known compression",
            magic[..n.min(6)].escape_ascii()
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
    let mut archive = CpioReader::new(reader).any_name();
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

/// Number of bytes of the frame that begins here. These formats do not state their length, so they are decoded and discarded.
fn decoded_length(
    reader: impl BufRead,
    compression: Compression,
    spend: &dyn Fn(u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut counted = CountingReader { reader, count: 0 };
    let mut frame = FrameReader::new(&mut counted, compression)?;
    discard(&mut frame, spend)?;
    let over_read = frame.over_read();
    drop(frame);
    Ok(counted.count - over_read)
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
