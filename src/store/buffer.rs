//! Buffers that the kernel copies to at full speed, and that are used again.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes of the buffers that [`Buffers`] keeps.
pub(super) const BUFFER: usize = 4 << 20;

/// Bytes that begin where a page does. The C library puts large allocations 16 bytes behind that, and there some processors copy at
/// a third of their speed with the instruction that the kernel reads files by (`rep movsb`; measured on AMD's Zen 3).
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
        // It may say that it does not know; any place is right then.
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

/// Buffers that were used before: making one means writing zeros to all of it.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<PageBuffer>>);

impl Buffers {
    pub(super) fn take(&self) -> PageBuffer {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| PageBuffer::new(BUFFER))
    }

    pub(super) fn give_back(&self, buffer: PageBuffer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
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
