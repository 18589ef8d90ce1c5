//! Zstandard compression whose bytes are the same on every machine.
//!
//! The bytes depend on the library version, the level, whether the size is known beforehand, and whether the multi-threaded
//! compressor is used; they do not depend on the number of threads. So the size is always given, at least one worker is always used,
//! and the manifest records [`library_version`]. The frame carries its content size and a checksum.
//! Source: RFC 8878, and <https://facebook.github.io/zstd/zstd_manual.html> (`ZSTD_c_nbWorkers`).

use super::{CountingWriter, ImageError};
use crate::model::ZstdLevel;
use std::{
    io::{self, Read, Write},
    num::NonZeroU32,
};

const FORMAT: &str = "zstd";
/// Compresses exactly `size` bytes of `reader` into one frame at `level` and returns the writer.
///
/// `name` is the input's name in messages. The bytes are the same for any number of `workers`.
pub fn compress<W: Write>(
    name: &str,
    reader: &mut dyn Read,
    size: u64,
    writer: W,
    level: ZstdLevel,
    workers: NonZeroU32,
) -> Result<W, ImageError> {
    let content = |out: &mut dyn Write| super::copy_exact(FORMAT, name, size, reader, out);
    compress_with(size, writer, level, workers, content)
}

/// Like [`compress`], for the `size` bytes that `content` writes. The sizes of the single writes, and flushes between them, do not
/// change the bytes.
pub fn compress_with<W: Write>(
    size: u64,
    writer: W,
    level: ZstdLevel,
    workers: NonZeroU32,
    content: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<W, ImageError> {
    let write = |source| ImageError::Write { format: FORMAT, source };
    let mut encoder = zstd::Encoder::new(writer, level.number()).map_err(write)?;
    encoder.multithread(workers.get()).map_err(write)?;
    encoder.include_checksum(true).map_err(write)?;
    encoder.include_contentsize(true).map_err(write)?;
    encoder.set_pledged_src_size(Some(size)).map_err(write)?;
    let mut counted = CountingWriter::new(Input(&mut encoder));
    content(&mut counted)?;
    // The multi-threaded compressor does not compare the size itself.
    if counted.count() != size {
        return Err(ImageError::Length {
            path: "the input of the compressor".to_owned(),
            expected: size,
            actual: counted.count(),
            more: false,
        });
    }
    encoder.finish().map_err(write)
}

/// The input of the compressor. Flushes are ignored, since they would end a block and so change the bytes.
struct Input<'a>(&'a mut dyn Write);

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Version of the linked compressor, e.g. `1.5.7`.
pub fn library_version() -> &'static str {
    zstd::zstd_safe::version_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn sample() -> Vec<u8> {
        (0..3_000_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect()
    }

    fn level(number: i32) -> ZstdLevel {
        ZstdLevel::of(number).expect("a level")
    }

    fn pack(number: i32, workers: u32, size: u64) -> Result<Vec<u8>, ImageError> {
        let workers = NonZeroU32::new(workers).expect("not zero");
        compress(
            "sample",
            &mut Cursor::new(sample()),
            size,
            Vec::new(),
            level(number),
            workers,
        )
    }

    #[test]
    fn the_number_of_workers_does_not_change_the_bytes() {
        let size = sample().len() as u64;
        let one = pack(3, 1, size).expect("compressible");
        for workers in [2, 5] {
            assert!(
                pack(3, workers, size).expect("compressible") == one,
                "{workers} workers"
            );
        }
        assert!(zstd::decode_all(&one[..]).expect("valid") == sample());
        // Frame header descriptor: checksum flag set, and a content size field of four bytes.
        assert_eq!(one[4] & 0b1100_0100, 0b1000_0100);
    }

    #[test]
    fn the_size_of_the_pieces_does_not_change_the_bytes() {
        let whole = sample();
        let size = whole.len() as u64;
        for piece in [1_000, 4_096, 300_007] {
            let content = |out: &mut dyn Write| {
                whole
                    .chunks(piece)
                    .try_for_each(|c| out.write_all(c).and_then(|()| out.flush()))
                    .map_err(|source| ImageError::Write { format: FORMAT, source })
            };
            let packed = compress_with(size, Vec::new(), level(3), NonZeroU32::MIN, content).expect("compressible");
            assert!(packed == pack(3, 2, size).expect("compressible"), "pieces of {piece}");
        }
    }

    #[test]
    fn a_wrong_size_is_refused() {
        let size = sample().len() as u64;
        for wrong in [size - 1, size + 1] {
            let text = pack(1, 1, wrong).expect_err("wrong size").to_string();
            assert!(text.contains(&format!("expected: {wrong} bytes")), "{text}");
        }
        for given in [size - 1, size + 1] {
            let content = |out: &mut dyn Write| {
                out.write_all(&sample())
                    .map_err(|source| ImageError::Write { format: FORMAT, source })
            };
            assert!(
                compress_with(given, Vec::new(), level(1), NonZeroU32::MIN, content).is_err(),
                "{given}"
            );
        }
    }
}
