//! Reads LZ4, in the form of frames and in the legacy form, which kernels and initramfs files have.
//!
//! ```text
//! frame    04 22 4d 18 · flags · block size · [le64 size] · [le32 dictionary] · sum of these · blocks · le32 0 · [le32 sum of the content]
//! legacy   02 21 4c 18 · blocks of at most 8 MiB of content, up to the end, a zero, or another magic
//! block    le32 length (bit 31: stored as it is; not in the legacy form) · bytes · [le32 sum]
//! bytes    token (4 bits literals, 4 bits match - 4) · [further lengths] · literals · le16 distance · [further lengths]
//! ```
//!
//! Sources: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>, `…/lz4_Block_format.md`, the kernel's `lib/decompress_unlz4.c`.
//! Own code (docs/dependencies.md): the crates do not read the legacy form, and the block format is a page.

use std::io::{self, ErrorKind, Read};
use xxhash_rust::xxh32::{Xxh32, xxh32};

/// First bytes of a frame, and of the legacy form.
pub const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// First bytes of the legacy form.
pub const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Content of a block of the legacy form, and its longest form as stored (`LZ4_compressBound`).
const LEGACY_BLOCK: usize = 8 << 20;
const LEGACY_STORED: usize = LEGACY_BLOCK + LEGACY_BLOCK / 255 + 16;
/// Content in front of a block to which the block may refer.
const HISTORY: usize = 64 << 10;
/// Shortest match.
const MIN_MATCH: usize = 4;
/// Bit of a block's length: the block is stored as it is.
const STORED: u32 = 1 << 31;
// Bits of the flags of a frame.
const VERSION: u8 = 0xc0;
const VERSION_1: u8 = 0x40;
const INDEPENDENT: u8 = 0x20;
const BLOCK_SUM: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_SUM: u8 = 0x04;
const RESERVED: u8 = 0x02;
const DICTIONARY: u8 = 0x01;

/// The form of a stream.
enum Form {
    Legacy,
    Frame {
        max_block: usize,
        linked: bool,
        block_sum: bool,
        content_sum: Option<Xxh32>,
        /// Bytes of content that are missing, if the frame states its size.
        left: Option<u64>,
    },
}

/// Reads the content of one frame, or of one stream in the legacy form, and leaves the input behind it, up to [`Lz4Reader::over_read`].
pub struct Lz4Reader<R> {
    input: R,
    /// `None` in front of the header.
    form: Option<Form>,
    ended: bool,
    /// The error behind the content in the window.
    failed: Option<io::Error>,
    over_read: u64,
    /// Content: what a block may refer to, then the last block, of which the bytes from `at` on were not read yet.
    window: Vec<u8>,
    at: usize,
    stored: Vec<u8>,
}

impl<R: Read> Lz4Reader<R> {
    /// Reads from the position of `input` on, where the magic is.
    pub fn new(input: R) -> Self {
        Self {
            input,
            form: None,
            ended: false,
            failed: None,
            over_read: 0,
            window: Vec::new(),
            at: 0,
            stored: Vec::new(),
        }
    }

    /// Number of bytes that were read of the input and lie behind the end.
    pub fn over_read(&self) -> u64 {
        self.over_read
    }

    fn word(&mut self) -> io::Result<u32> {
        let mut word = [0; 4];
        self.input.read_exact(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn header(&mut self) -> io::Result<Form> {
        match self.word()?.to_le_bytes() {
            LZ4_LEGACY_MAGIC => return Ok(Form::Legacy),
            LZ4_MAGIC => {}
            _ => return Err(bad("there is no LZ4 magic")),
        }
        let mut header = vec![0; 2];
        self.input.read_exact(&mut header)?;
        let (flags, size) = (header[0], header[1]);
        if flags & VERSION != VERSION_1 || flags & RESERVED != 0 {
            return Err(bad(format!("the flags of the LZ4 frame are {flags:#04x}")));
        }
        if flags & DICTIONARY != 0 {
            return Err(bad("the LZ4 frame needs a dictionary"));
        }
        let max_block = match size >> 4 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => return Err(bad(format!("the block size of the LZ4 frame is {size:#04x}"))),
        };
        if flags & CONTENT_SIZE != 0 {
            header.resize(10, 0);
            self.input.read_exact(&mut header[2..])?;
        }
        let mut sum = [0];
        self.input.read_exact(&mut sum)?;
        if (xxh32(&header, 0) >> 8) as u8 != sum[0] {
            return Err(bad("the header of the LZ4 frame does not have its checksum"));
        }
        let left = header
            .get(2..)
            .and_then(|size| size.try_into().ok())
            .map(u64::from_le_bytes);
        Ok(Form::Frame {
            max_block,
            linked: flags & INDEPENDENT == 0,
            block_sum: flags & BLOCK_SUM != 0,
            content_sum: (flags & CONTENT_SUM != 0).then(|| Xxh32::new(0)),
            left,
        })
    }

    /// Reads the next block into the window; `false` behind the last one.
    fn block(&mut self) -> io::Result<bool> {
        let mut form = match self.form.take() {
            Some(form) => form,
            None => self.header()?,
        };
        let found = match &mut form {
            Form::Legacy => self.legacy_block(),
            Form::Frame { .. } => self.frame_block(&mut form),
        };
        self.form = Some(form);
        found
    }

    fn legacy_block(&mut self) -> io::Result<bool> {
        self.window.clear();
        self.at = 0;
        // The form has no end of its own: zeros are padding, and another magic begins another stream.
        let (word, found) = self.maybe_word()?;
        let len = u32::from_le_bytes(word) as usize;
        if found == 4 && word == LZ4_LEGACY_MAGIC {
            // An empty block.
            return Ok(true);
        }
        if found < 4 || len == 0 || len > LEGACY_STORED {
            self.over_read = found as u64;
            return Ok(false);
        }
        self.take(len)?;
        decode(&self.stored, &mut self.window, LEGACY_BLOCK)?;
        Ok(true)
    }

    /// The next four bytes, and the number of those that are there.
    fn maybe_word(&mut self) -> io::Result<([u8; 4], usize)> {
        let (mut word, mut found) = ([0; 4], 0);
        while found < 4 {
            match self.input.read(&mut word[found..]) {
                Ok(0) => break,
                Ok(n) => found += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok((word, found))
    }

    fn frame_block(&mut self, form: &mut Form) -> io::Result<bool> {
        let Form::Frame {
            max_block,
            linked,
            block_sum,
            content_sum,
            left,
        } = form
        else {
            return Ok(false);
        };
        let keep = if *linked { self.window.len().min(HISTORY) } else { 0 };
        self.window.drain(..self.window.len() - keep);
        self.at = self.window.len();
        let word = self.word()?;
        if word == 0 {
            if let Some(sum) = content_sum
                && self.word()? != sum.digest()
            {
                return Err(bad("the content of the LZ4 frame does not have its checksum"));
            }
            if left.is_some_and(|left| left > 0) {
                return Err(bad("the LZ4 frame has less content than it states"));
            }
            return Ok(false);
        }
        let len = (word & !STORED) as usize;
        if len > *max_block {
            return Err(bad(format!(
                "a block of the LZ4 frame has {len} bytes, more than {max_block}"
            )));
        }
        self.take(len)?;
        if *block_sum && self.word()? != xxh32(&self.stored, 0) {
            return Err(bad("a block of the LZ4 frame does not have its checksum"));
        }
        match word & STORED {
            0 => decode(&self.stored, &mut self.window, *max_block)?,
            _ => self.window.extend_from_slice(&self.stored),
        }
        let content = &self.window[self.at..];
        if let Some(sum) = content_sum {
            sum.update(content);
        }
        if let Some(left) = left {
            *left = (*left)
                .checked_sub(content.len() as u64)
                .ok_or_else(|| bad("the LZ4 frame has more content than it states"))?;
        }
        Ok(true)
    }

    /// Reads `len` bytes of a block as stored. Memory grows with the bytes that are there.
    fn take(&mut self, len: usize) -> io::Result<()> {
        self.stored.clear();
        let found = (&mut self.input).take(len as u64).read_to_end(&mut self.stored)?;
        if found < len {
            // The content in front of the cut; the error is the cut, whatever its last bytes are.
            let _ = decode(&self.stored, &mut self.window, LEGACY_BLOCK);
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl<R: Read> Read for Lz4Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.window.len() && !self.ended && !buffer.is_empty() {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            match self.block() {
                Ok(more) => self.ended = !more,
                // The content in front of the damage comes first.
                Err(error) if self.at < self.window.len() => self.failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        let n = buffer.len().min(self.window.len() - self.at);
        buffer[..n].copy_from_slice(&self.window[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

fn bad(problem: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem.into())
}

/// Adds the content of a block to `out`, at most `max` bytes.
fn decode(block: &[u8], out: &mut Vec<u8>, max: usize) -> io::Result<()> {
    let end = out.len() + max;
    let mut rest = block;
    loop {
        let token = one(&mut rest)?;
        let literals = length(token >> 4, &mut rest)?;
        if literals > rest.len() || literals > end - out.len() {
            return Err(bad("a block of LZ4 has more literals than fit"));
        }
        let (now, behind) = rest.split_at(literals);
        out.extend_from_slice(now);
        rest = behind;
        // The last sequence has literals only.
        if rest.is_empty() {
            return Ok(());
        }
        let distance = usize::from(u16::from_le_bytes([one(&mut rest)?, one(&mut rest)?]));
        let matched = length(token & 15, &mut rest)? + MIN_MATCH;
        if distance == 0 || distance > out.len() || matched > end - out.len() {
            return Err(bad(format!(
                "a match of LZ4 lies {distance} bytes back and has {matched} bytes"
            )));
        }
        // A match may reach into itself.
        let from = out.len() - distance;
        let mut left = matched;
        while left > 0 {
            let n = left.min(out.len() - from);
            out.extend_from_within(from..from + n);
            left -= n;
        }
    }
}

fn one(rest: &mut &[u8]) -> io::Result<u8> {
    let (first, behind) = rest.split_first().ok_or_else(|| bad("a block of LZ4 ends too early"))?;
    *rest = behind;
    Ok(*first)
}

/// A length whose first four bits are `short`; 15 is followed by bytes that are added, up to one that is not 255.
fn length(short: u8, rest: &mut &[u8]) -> io::Result<usize> {
    let mut sum = usize::from(short);
    if short == 15 {
        loop {
            let more = one(rest)?;
            sum += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_may_reach_into_itself() {
        let mut out = Vec::new();
        // Two literals, then 10 bytes from 2 back, then the last literal.
        decode(&[0x26, b'a', b'b', 2, 0, 0x10, b'c'], &mut out, 100).expect("valid");
        assert_eq!(out, b"ababababababc");
        for (block, why) in [
            (&[0x26, b'a', b'b', 3, 0, 0x10, b'c'][..], "in front of the content"),
            (&[0x26, b'a', b'b', 0, 0, 0x10, b'c'], "no distance"),
            (&[0x26, b'a'], "cut literals"),
            (&[0xf0, 255, 255], "cut length"),
            (&[0x2f, b'a', b'b', 2, 0, 255, 255, 0], "longer than the limit"),
        ] {
            assert!(decode(block, &mut Vec::new(), 100).is_err(), "{why}");
        }
    }
}
