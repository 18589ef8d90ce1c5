//! Page-aligned buffers, to which the kernel copies at full speed, and a pool of them.

use crate::model::lock;
use std::{
    ops::{Deref, DerefMut},
    sync::Mutex,
};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes of the buffers that [`Buffers`] keeps.
pub(super) const BUFFER: usize = 4 << 20;

/// A buffer that begins at a page. The C library begins large allocations 16 bytes after a page, where `rep movsb`, the instruction by
/// which the kernel copies file content, has a third of its speed on some processors (measured on AMD's Zen 3).
#[derive(Debug)]
pub struct PageBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl PageBuffer {
    /// `len` zeros.
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE];
        // align_offset() may fail by its contract; the buffer is then slower, but correct.
        let start = Some(bytes.as_ptr().align_offset(PAGE)).filter(|n| *n < PAGE);
        Self {
            bytes,
            start: start.unwrap_or(0),
            len,
        }
    }
}

impl Deref for PageBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

/// A pool of buffers: a new one would have to be filled with zeros.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<PageBuffer>>);

impl Buffers {
    pub(super) fn take(&self) -> PageBuffer {
        let free = lock(&self.0).pop();
        free.unwrap_or_else(|| PageBuffer::new(BUFFER))
    }

    pub(super) fn give_back(&self, buffer: PageBuffer) {
        lock(&self.0).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_page_and_has_the_length_asked_for() {
        for len in [0, 1, PAGE, 3 * PAGE + 5, BUFFER] {
            let mut buffer = PageBuffer::new(len);
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % PAGE), (len, 0));
            buffer.fill(7);
            assert!(buffer.iter().all(|b| *b == 7));
        }
    }
}
