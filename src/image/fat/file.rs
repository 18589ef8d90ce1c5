//! A file's pieces in the volume, and its bytes.

use super::{Fat, FatEntry, volume::corrupt};
use crate::image::{ImageError, ReadAt};
use std::io;

impl<R: ReadAt> Fat<R> {
    /// Offset in the volume and length of each piece of a file, in the order of its bytes.
    pub fn extents(&self, file: &FatEntry) -> Result<Vec<(u64, u64)>, ImageError> {
        if file.directory {
            return Err(corrupt(file.offset, "a directory where a file should be"));
        }
        if file.size == 0 && file.first == 0 {
            return Ok(Vec::new());
        }
        let mut left = u64::from(file.size);
        let runs = self.runs(file.first, Some(left.div_ceil(self.boot.cluster)))?;
        let extents = runs.into_iter().map(|(first, clusters)| {
            let length = left.min(u64::from(clusters) * self.boot.cluster);
            left -= length;
            (self.offset(first), length)
        });
        Ok(extents.collect())
    }

    /// Opens a file for reading at any offset.
    pub fn file(&self, file: &FatEntry) -> Result<FatFile<&R>, ImageError> {
        let mut start = 0;
        let pieces = self.extents(file)?.into_iter().map(|(offset, length)| {
            let piece = (start, offset, length);
            start += length;
            piece
        });
        Ok(FatFile {
            pieces: pieces.collect(),
            size: u64::from(file.size),
            source: &self.source,
        })
    }
}

/// The bytes of a file.
#[derive(Clone, Debug)]
pub struct FatFile<R> {
    source: R,
    /// Begin of each piece in the file, its begin in the volume, and its length.
    pieces: Vec<(u64, u64, u64)>,
    size: u64,
}

impl<R: ReadAt> ReadAt for FatFile<R> {
    fn read_exact_at(&self, mut buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        let mut index = self.pieces.partition_point(|(start, _, length)| start + length <= at);
        while !buffer.is_empty() {
            let (start, place, length) = *self.pieces.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
            let inside = at - start;
            let n = usize::try_from(length - inside).map_or(buffer.len(), |n| n.min(buffer.len()));
            let (head, tail) = buffer.split_at_mut(n);
            self.source.read_exact_at(head, place + inside)?;
            buffer = tail;
            at += n as u64;
            index += 1;
        }
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}
