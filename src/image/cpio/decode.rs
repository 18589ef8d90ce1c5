//! Decompression of one frame at a time, in every form that the kernel takes for an initramfs and that is read here.

use super::segments::Compression;
use crate::image::lz4::Lz4Reader;
use std::io::{self, BufRead, Read};

/// Memory limit for decompressing xz and lzma, bytes.
const XZ_MEMORY: u64 = 256 << 20;

/// Reads the content of one frame, member or stream, and leaves the input behind it, up to [`FrameReader::over_read`].
pub enum FrameReader<'a> {
    /// All forms but LZ4.
    Other(Box<dyn Read + 'a>),
    /// LZ4 in both forms.
    Lz4(Box<Lz4Reader<&'a mut dyn BufRead>>),
}

impl<'a> FrameReader<'a> {
    /// A reader of the frame that begins at the position of `input`.
    ///
    /// # Errors
    /// The decoder cannot be set up.
    pub fn new(input: &'a mut dyn BufRead, compression: Compression) -> io::Result<Self> {
        use liblzma::{bufread::XzDecoder, stream::Stream};
        Ok(Self::Other(match compression {
            Compression::None => Box::new(input),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input)?.single_frame()),
            Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
            Compression::Xz => Box::new(XzDecoder::new_stream(input, Stream::new_stream_decoder(XZ_MEMORY, 0)?)),
            Compression::Lzma => Box::new(XzDecoder::new_stream(input, Stream::new_lzma_decoder(XZ_MEMORY)?)),
            Compression::Lz4 => return Ok(Self::Lz4(Box::new(Lz4Reader::new(input)))),
        }))
    }

    /// Number of bytes that were read of the input and lie behind the end of the frame.
    pub fn over_read(&self) -> u64 {
        match self {
            Self::Other(_) => 0,
            Self::Lz4(reader) => reader.over_read(),
        }
    }
}

impl Read for FrameReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Other(reader) => reader.read(buffer),
            Self::Lz4(reader) => reader.read(buffer),
        }
    }
}

impl std::fmt::Debug for FrameReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameReader")
    }
}
