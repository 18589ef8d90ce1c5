//! Streaming fs-verity: one pass over the data, one 4 KiB block of memory per level of the tree.

use super::{
    block::{BLOCK_SIZE, HASH_SIZE, hash_block},
    descriptor::{descriptor, descriptor_digest},
    lanes::{Message, hash_blocks},
};
use crate::model::{Sha256Digest, VerityDigest};
use std::io::{self, ErrorKind, Read, Write};

/// Bytes that [`digest_reader`] reads at a time: a multiple of the block, a few times the first-level cache.
const READ_SIZE: usize = 128 * 1024;

/// A block that is filled step by step.
#[derive(Clone)]
struct Block {
    bytes: Box<[u8; BLOCK_SIZE]>,
    len: usize,
}

impl Block {
    fn new() -> Self {
        Self {
            bytes: Box::new([0; BLOCK_SIZE]),
            len: 0,
        }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Takes the part of `data` that fits and returns the rest.
    fn take<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let (now, rest) = data.split_at(data.len().min(BLOCK_SIZE - self.len));
        self.bytes[self.len..][..now.len()].copy_from_slice(now);
        self.len += now.len();
        rest
    }
}

/// fs-verity digest of bytes that arrive in pieces. Memory: 4 KiB per level, at most eight levels.
#[derive(Clone)]
pub struct Hasher {
    size: u64,
    data: Block,
    /// Level 0 first. A full block is hashed only when the next hash of its level arrives, because the last block of a level is the
    /// root.
    levels: Vec<Block>,
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher {
    /// A hasher without any bytes.
    pub fn new() -> Self {
        Self {
            size: 0,
            data: Block::new(),
            levels: Vec::new(),
        }
    }

    /// Number of bytes taken.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if self.data.len > 0 {
            bytes = self.data.take(bytes);
            if self.data.len < BLOCK_SIZE {
                return;
            }
            let hash = hash_block(self.data.filled());
            self.data.len = 0;
            self.push(0, hash);
        }
        // Whole blocks are hashed without a copy.
        let (blocks, rest) = bytes.as_chunks::<BLOCK_SIZE>();
        hash_blocks(blocks, |hash| self.push(0, hash));
        self.data.take(rest);
    }

    /// Number of bytes that the current block lacks; 0 when none has begun.
    fn missing(&self) -> usize {
        if self.data.len == 0 {
            0
        } else {
            BLOCK_SIZE - self.data.len
        }
    }

    /// Takes the hash of the next whole block; no block may have begun.
    fn take_hash(&mut self, hash: [u8; HASH_SIZE]) {
        self.size += BLOCK_SIZE as u64;
        self.push(0, hash);
    }

    fn push(&mut self, mut level: usize, mut hash: [u8; HASH_SIZE]) {
        loop {
            if level == self.levels.len() {
                self.levels.push(Block::new());
            }
            let block = &mut self.levels[level];
            let full = (block.len == BLOCK_SIZE).then(|| hash_block(block.filled()));
            if full.is_some() {
                block.len = 0;
            }
            block.take(&hash);
            match full {
                None => return,
                Some(above) => {
                    hash = above;
                    level += 1;
                }
            }
        }
    }

    /// The digest of all bytes taken.
    pub fn finish(mut self) -> VerityDigest {
        let root = if self.size == 0 { [0; HASH_SIZE] } else { self.root() };
        descriptor_digest(&descriptor(self.size, &root))
    }

    fn root(&mut self) -> [u8; HASH_SIZE] {
        if self.data.len > 0 {
            let hash = hash_block(self.data.filled());
            self.push(0, hash);
        }
        let mut level = 0;
        loop {
            let filled = self.levels[level].filled();
            if level + 1 == self.levels.len()
                && let Ok(only) = <[u8; HASH_SIZE]>::try_from(filled)
            {
                return only;
            }
            let hash = hash_block(filled);
            self.push(level + 1, hash);
            level += 1;
        }
    }
}

/// SHA-256, fs-verity digest and length of the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digests {
    /// SHA-256 of the bytes.
    pub sha256: Sha256Digest,
    /// fs-verity digest of the bytes.
    pub verity: VerityDigest,
    /// Number of bytes.
    pub size: u64,
}

/// SHA-256 and fs-verity digest in one pass: each block is hashed for both at the same time.
#[derive(Clone)]
pub struct Both {
    sha256: Message,
    verity: Hasher,
}

impl Default for Both {
    fn default() -> Self {
        Self::new()
    }
}

impl Both {
    /// A hasher without any bytes.
    pub fn new() -> Self {
        Self {
            sha256: Message::new(),
            verity: Hasher::new(),
        }
    }

    /// Number of bytes taken.
    pub fn size(&self) -> u64 {
        self.verity.size
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (first, bytes) = bytes.split_at(bytes.len().min(self.verity.missing()));
        self.sha256.update(first);
        self.verity.update(first);
        let (blocks, rest) = bytes.as_chunks();
        for block in blocks {
            let hash = self.sha256.update_and_hash(block);
            self.verity.take_hash(hash);
        }
        self.sha256.update(rest);
        self.verity.update(rest);
    }

    /// The digests of all bytes taken.
    pub fn finish(self) -> Digests {
        Digests {
            size: self.verity.size,
            sha256: Sha256Digest::new(self.sha256.finish()),
            verity: self.verity.finish(),
        }
    }
}

macro_rules! writer {
    ($name:ty) => {
        /// Takes every byte and cannot fail, for use with `io::copy` and tees.
        impl Write for $name {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.update(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    };
}
writer!(Hasher);
writer!(Both);

/// fs-verity digest of `bytes`.
pub fn digest_bytes(bytes: &[u8]) -> VerityDigest {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// fs-verity digest and length of all bytes of `reader`; the first error of the reader is returned unchanged.
pub fn digest_reader(reader: impl Read) -> io::Result<(VerityDigest, u64)> {
    copy_digest(reader, io::sink())
}

/// Copies all bytes of `reader` to `writer`; returns their fs-verity digest and length. The first error of either is returned unchanged.
pub fn copy_digest(mut reader: impl Read, mut writer: impl Write) -> io::Result<(VerityDigest, u64)> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                writer.write_all(&buffer[..n])?;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let size = hasher.size();
    Ok((hasher.finish(), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EMPTY_FILE;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    /// Byte `i` is `i mod 251`: no two blocks of 4096 bytes are alike for a long while.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    /// The digest of `pattern(len)` that `fsverity digest` of fsverity-utils 1.5 prints.
    const KNOWN: [(usize, &str); 9] = [
        (0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
        (1, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551"),
        (4095, "5f4953aad672b0188023d6cd6fbce9d09508eb7dad165b6298ce0086bc1e72db"),
        (4096, "13e9b8848ae484a36acb3f3cac0ceb2f7601e96633d15c92f9bd3dd44e492157"),
        (4097, "b0d074abef4d544404facfab6ba242f6a8ccbde90f1325cd286f3c8aa8d0f8aa"),
        (
            128 * 4096 - 1,
            "9735c4bb231d3222d1e5e23a4004d8b59dd33395d7de390530e15c2572000b47",
        ),
        (
            128 * 4096,
            "d82861203d50ae9b60948504a704f35f5118bd229aeb1a22d6dae47b1767c4c4",
        ),
        (
            128 * 4096 + 1,
            "4dc6905041c9c4ee73e13b53f63f5d289c46da359b664a965ead7f8cc4d799d4",
        ),
        (
            128 * 128 * 4096 + 1,
            "acba6554fbff4e8b2fc0361086b9e8ed6afbbd3196ade159c0f3e2bf9ecb2ed1",
        ),
    ];

    #[test]
    fn known_answers() {
        for (len, digest) in KNOWN {
            assert_eq!(digest_bytes(&pattern(len)).to_hex(), digest, "{len} bytes");
        }
    }

    #[test]
    fn the_empty_file_is_the_models_constant() {
        assert_eq!(digest_bytes(b""), EMPTY_FILE);
    }

    #[test]
    fn a_reader_that_stutters_gives_the_same_and_one_that_fails_gives_its_error() {
        struct Stutter<'a>(&'a [u8], bool);
        impl Read for Stutter<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(ErrorKind::Interrupted.into());
                }
                let n = self.0.len().min(buffer.len()).min(1000);
                buffer[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("worn out"))
            }
        }
        let data = pattern(1_000_001);
        let read = digest_reader(Stutter(&data, false)).expect("readable");
        assert_eq!(read, (digest_bytes(&data), 1_000_001));
        let err = digest_reader(data.as_slice().chain(Broken)).expect_err("broken");
        assert_eq!(err.to_string(), "worn out");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(len in 0usize..20_000, cuts in proptest::collection::vec(0usize..20_000, 0..6)) {
            let data = pattern(len);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c <= len).chain([0, len]).collect();
            cuts.sort_unstable();
            let (mut hasher, mut both) = (Hasher::new(), Both::new());
            for pair in cuts.windows(2) {
                hasher.update(&data[pair[0]..pair[1]]);
                both.update(&data[pair[0]..pair[1]]);
            }
            let whole = digest_bytes(&data);
            prop_assert_eq!(hasher.finish(), whole);
            let sha256 = Sha256Digest::new(Sha256::digest(&data).into());
            prop_assert_eq!(both.finish(), Digests { sha256, verity: whole, size: len as u64 });
        }
    }
}
