//! SHA-256 of two messages interleaved.
//!
//! Each step of SHA-256 waits for the previous one, so a processor with SHA instructions is idle for most of the time. The steps of
//! two independent messages, taken in turn, fill each other's gaps: together they take three quarters of the time that the messages
//! take one after the other. The steps are those of the `sha2` crate; this file has only their order and the padding.
//! Source: FIPS 180-4, sections 5.1.1 (padding), 5.2.1 (blocks) and 5.3.3 (initial value).

use super::block::{BLOCK_SIZE, HASH_SIZE, ZEROS, ZEROS_HASH, hash_block};
use sha2::block_api::compress256;

/// Bytes of a message that one step takes.
const STEP: usize = 64;
/// Bytes at the end of a message that hold its length in bits, big endian.
const LENGTH: usize = 8;
/// The initial state.
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// The step after the last whole one of a message of [`BLOCK_SIZE`] bytes.
const END_OF_BLOCK: [u8; STEP] = {
    let mut step = [0; STEP];
    step[0] = 0x80;
    let bits = (BLOCK_SIZE as u64 * 8).to_be_bytes();
    let mut n = 0;
    while n < LENGTH {
        step[STEP - LENGTH + n] = bits[n];
        n += 1;
    }
    step
};

type Block = [u8; BLOCK_SIZE];
type Hash = [u8; HASH_SIZE];

fn hash(state: &[u32; 8]) -> Hash {
    let mut out = [0; HASH_SIZE];
    for (bytes, word) in out.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    out
}

/// Advances two messages by the steps of one block each, in turn.
fn compress_two((a, with_a): (&mut [u32; 8], &Block), (b, with_b): (&mut [u32; 8], &Block)) {
    let (with_a, _) = with_a.as_chunks::<STEP>();
    let (with_b, _) = with_b.as_chunks::<STEP>();
    for (for_a, for_b) in with_a.iter().zip(with_b) {
        compress256(a, std::slice::from_ref(for_a));
        compress256(b, std::slice::from_ref(for_b));
    }
}

/// Passes the hash of each block to `take`, in order. Blocks of zeros are not hashed: their hash is known.
pub(super) fn hash_blocks(blocks: &[Block], mut take: impl FnMut(Hash)) {
    let (pairs, last) = blocks.as_chunks::<2>();
    for [a, b] in pairs {
        if *a == ZEROS || *b == ZEROS {
            take(hash_block(a));
            take(hash_block(b));
            continue;
        }
        let (mut for_a, mut for_b) = (START, START);
        compress_two((&mut for_a, a), (&mut for_b, b));
        compress256(&mut for_a, &[END_OF_BLOCK]);
        compress256(&mut for_b, &[END_OF_BLOCK]);
        take(hash(&for_a));
        take(hash(&for_b));
    }
    for block in last {
        take(hash_block(block));
    }
}

/// SHA-256 of a message that arrives in pieces.
#[derive(Clone)]
pub(super) struct Message {
    state: [u32; 8],
    size: u64,
    /// The bytes of an incomplete step.
    rest: [u8; STEP],
}

impl Message {
    pub(super) fn new() -> Self {
        Self {
            state: START,
            size: 0,
            rest: [0; STEP],
        }
    }

    /// Number of bytes of the incomplete step.
    fn used(&self) -> usize {
        (self.size % STEP as u64) as usize
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        let used = self.used();
        self.size += bytes.len() as u64;
        if used > 0 {
            let (now, later) = bytes.split_at(bytes.len().min(STEP - used));
            self.rest[used..][..now.len()].copy_from_slice(now);
            if used + now.len() < STEP {
                return;
            }
            compress256(&mut self.state, &[self.rest]);
            bytes = later;
        }
        let (steps, rest) = bytes.as_chunks();
        compress256(&mut self.state, steps);
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// Takes the next bytes, a whole block, and returns the hash of that block alone.
    pub(super) fn update_and_hash(&mut self, block: &Block) -> Hash {
        if *block == ZEROS {
            self.update(block);
            return ZEROS_HASH;
        }
        if self.used() > 0 {
            self.update(block);
            return hash_block(block);
        }
        self.size += BLOCK_SIZE as u64;
        let mut alone = START;
        compress_two((&mut self.state, block), (&mut alone, block));
        compress256(&mut alone, &[END_OF_BLOCK]);
        hash(&alone)
    }

    /// The hash of all bytes taken.
    pub(super) fn finish(mut self) -> Hash {
        let used = self.used();
        let bits = self.size.wrapping_mul(8).to_be_bytes();
        let mut end = [[0; STEP]; 2];
        let steps = 1 + usize::from(used + 1 + LENGTH > STEP);
        let bytes = end.as_flattened_mut();
        bytes[..used].copy_from_slice(&self.rest[..used]);
        bytes[used] = 0x80;
        bytes[steps * STEP - LENGTH..steps * STEP].copy_from_slice(&bits);
        compress256(&mut self.state, &end[..steps]);
        hash(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    /// The hash by the crate itself.
    fn expected(bytes: &[u8]) -> Hash {
        Sha256::digest(bytes).into()
    }

    fn pattern(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| ((i + seed) * 7919 % 251) as u8).collect()
    }

    fn block(seed: usize) -> Block {
        pattern(BLOCK_SIZE, seed).try_into().expect("a block")
    }

    #[test]
    fn known_answers() {
        // FIPS 180-4's examples, from NIST's "Examples with Intermediate Values".
        for (text, hash) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (
                "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            let mut message = Message::new();
            message.update(text.as_bytes());
            assert_eq!(hex::encode(message.finish()), hash, "{text:?}");
        }
    }

    #[test]
    fn every_length_around_a_step_is_padded_right() {
        for len in 0..4 * STEP {
            let bytes = pattern(len, 3);
            let mut message = Message::new();
            message.update(&bytes);
            assert_eq!(message.finish(), expected(&bytes), "{len} bytes");
        }
    }

    #[test]
    fn blocks_have_the_hashes_they_have_alone_zeros_among_them_or_not() {
        let full: Vec<Block> = (0..5).map(block).collect();
        for zeros in 0u32..1 << full.len() {
            for count in 0..=full.len() {
                let mut blocks = full[..count].to_vec();
                for (n, block) in blocks.iter_mut().enumerate().filter(|(n, _)| zeros & 1 << n != 0) {
                    *block = ZEROS;
                    // Nearly zeros are hashed.
                    block[BLOCK_SIZE - 1] = u8::from(n == 3);
                }
                let mut hashes = Vec::new();
                hash_blocks(&blocks, |hash| hashes.push(hash));
                let alone: Vec<Hash> = blocks.iter().map(|b| expected(b)).collect();
                assert_eq!(hashes, alone, "{count} blocks, zeros {zeros:b}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_message_in_pieces_and_its_blocks(pieces in proptest::collection::vec((0usize..300, any::<bool>(), any::<bool>()), 0..12)) {
            let (mut message, mut all) = (Message::new(), Vec::new());
            for (n, (len, whole, zeros)) in pieces.into_iter().enumerate() {
                if whole {
                    let block = if zeros { ZEROS } else { block(n) };
                    prop_assert_eq!(message.update_and_hash(&block), expected(&block));
                    all.extend(block);
                } else {
                    message.update(&pattern(len, n));
                    all.extend(pattern(len, n));
                }
            }
            prop_assert_eq!(message.finish(), expected(&all));
        }
    }
}
