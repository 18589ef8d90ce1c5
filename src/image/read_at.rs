//! Bytes at any offset: the input of every reader of a format. Readers can be stacked (a file in a file system in a partition in a
//! disk image) without a copy.

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// Bytes at any offset.
pub trait ReadAt {
    /// Fills `buffer` with the bytes at `offset`; if there are fewer, the error has the kind `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Number of bytes.
    fn size(&self) -> io::Result<u64>;
    /// A range of possible data that ends behind `from`; all bytes between `from` and its start are zeros. `None` when only zeros
    /// follow. The range may contain zeros too: the method serves to skip holes, not to find every zero.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size()?;
        Ok((from < size).then_some(from..size))
    }
    /// Counts `bytes` that are made without a read, such as the zeros of a hole. An error when these bytes have a limit, which is reached.
    fn spend(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that several readers share.
pub type Source = Arc<dyn ReadAt + Send + Sync>;

/// The bytes of the file at `path`.
///
/// # Errors
/// The file cannot be opened.
pub fn open_source(path: &Path) -> io::Result<Source> {
    Ok(Arc::new(File::open(path)?))
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }
    /// Asks the file system for its holes; the position of the file is restored.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let size = ReadAt::size(self)?;
        if from >= size {
            return Ok(None);
        }
        let at = i64::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
        let position = lseek(self, 0, Whence::SeekCur)?;
        let start = lseek(self, at, Whence::SeekData);
        let end = start.and_then(|start| lseek(self, start, Whence::SeekHole));
        lseek(self, position, Whence::SeekSet)?;
        match (start, end) {
            (Ok(start), Ok(end)) => Ok(Some(start as u64..end as u64)),
            (Err(Errno::ENXIO), _) => Ok(None),
            // The file system does not support holes.
            (Err(Errno::EINVAL), _) => Ok(Some(from..size)),
            (Err(e), _) | (_, Err(e)) => Err(e.into()),
        }
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let bytes = from.and_then(|from| self.get(from..from.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $pointer {
            fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
                (**self).read_exact_at(buffer, offset)
            }
            fn size(&self) -> io::Result<u64> {
                (**self).size()
            }
            fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
                (**self).next_data(from)
            }
            fn spend(&self, bytes: u64) -> io::Result<()> {
                (**self).spend(bytes)
            }
        }
    )*};
}

forward!(Box<T>, Arc<T>, &T);

/// A part of other bytes, such as a partition of a disk.
#[derive(Clone, Debug)]
pub struct Window<R> {
    inner: R,
    start: u64,
    len: u64,
}

impl<R: ReadAt> Window<R> {
    /// The `len` bytes of `inner` from `start` on; the error has the kind `UnexpectedEof` when `inner` is shorter.
    pub fn new(inner: R, start: u64, len: u64) -> io::Result<Self> {
        match start.checked_add(len) {
            Some(end) if end <= inner.size()? => Ok(Self { inner, start, len }),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: ReadAt> ReadAt for Window<R> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.len => self.inner.read_exact_at(buffer, self.start + offset),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        if from >= self.len {
            return Ok(None);
        }
        let found = self.inner.next_data(self.start + from)?;
        let found =
            found.map(|d| d.start.max(self.start + from) - self.start..d.end.saturating_sub(self.start).min(self.len));
        Ok(found.filter(|d| d.start < d.end))
    }
    fn spend(&self, bytes: u64) -> io::Result<()> {
        self.inner.spend(bytes)
    }
}

/// `Read` and `Seek` over bytes at any offset.
#[derive(Clone, Debug)]
pub struct ReadCursor<R> {
    inner: R,
    at: u64,
}

impl<R: ReadAt> ReadCursor<R> {
    /// A cursor at the first byte of `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, at: 0 }
    }
}

impl<R: ReadAt> Read for ReadCursor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.inner.size()?.saturating_sub(self.at);
        let n = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if n > 0 {
            self.inner.read_exact_at(&mut buffer[..n], self.at)?;
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl<R: ReadAt> Seek for ReadCursor<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.inner.size()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_shows_its_part_and_nothing_beside_it() {
        let bytes: Vec<u8> = (0..100).collect();
        let window = Window::new(&bytes, 10, 20).expect("inside");
        let mut all = Vec::new();
        ReadCursor::new(&window).read_to_end(&mut all).expect("readable");
        assert_eq!(all, bytes[10..30]);
        let mut two = [0; 2];
        window.read_exact_at(&mut two, 18).expect("the last two");
        assert_eq!(two, [28, 29]);
        for (offset, why) in [(19, "over the end"), (u64::MAX, "overflow")] {
            let error = window.read_exact_at(&mut two, offset).expect_err(why);
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{why}");
        }
        assert!(Window::new(&bytes, 90, 11).is_err() && Window::new(&bytes, u64::MAX, 1).is_err());
    }

    #[test]
    fn the_holes_of_a_file_are_skipped_also_through_a_window() {
        let file = tempfile::tempfile().expect("scratch");
        file.write_all_at(b"data", 8 << 20).expect("written");
        file.set_len(32 << 20).expect("grown");
        (&file).seek(SeekFrom::Start(5)).expect("inside");
        let data = file.next_data(0).expect("readable").expect("there");
        // A block of the file, or the whole file where the file system does not support holes.
        assert!(data.start <= 8 << 20 && data.end >= (8 << 20) + 4, "{data:?}");
        assert_eq!((&file).stream_position().expect("known"), 5);
        assert_eq!(file.next_data(32 << 20).expect("readable"), None);
        let window = Window::new(&file, (8 << 20) + 2, 16 << 20).expect("inside");
        let part = window.next_data(0).expect("readable").expect("there");
        let wanted = 0..(data.end - (8 << 20) - 2).min(16 << 20);
        assert_eq!(part, wanted);
        assert_eq!(window.next_data(16 << 20).expect("readable"), None);
        let empty = Window::new(&file, 0, 8 << 20)
            .expect("inside")
            .next_data(0)
            .expect("readable");
        assert_eq!(empty.is_some(), data.start < 8 << 20);
        assert_eq!(vec![0; 10].next_data(4).expect("known"), Some(4..10));
    }

    #[test]
    fn a_cursor_seeks_from_everywhere_but_not_before_the_start() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut cursor = ReadCursor::new(&bytes);
        assert_eq!(cursor.seek(SeekFrom::End(-10)).expect("inside"), 90);
        assert_eq!(cursor.seek(SeekFrom::Current(5)).expect("inside"), 95);
        let mut rest = Vec::new();
        cursor.read_to_end(&mut rest).expect("readable");
        assert_eq!(rest, bytes[95..]);
        assert!(cursor.seek(SeekFrom::Current(-101)).is_err());
        assert_eq!(cursor.seek(SeekFrom::Start(200)).expect("past the end"), 200);
        assert_eq!(cursor.read(&mut [0; 4]).expect("nothing"), 0);
    }
}
