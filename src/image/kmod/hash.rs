//! The order in which kmod's hash table lists its keys: by bucket, and within a bucket by name.

/// Buckets of the table of symbols.
pub(super) const SYMBOL_BUCKETS: u32 = 2048;
/// Buckets of the table of modules by name.
pub(super) const NAME_BUCKETS: u32 = 512;

/// The bucket of an ASCII key, of `buckets`, which is a power of two.
pub(super) fn bucket(key: &str, buckets: u32) -> u32 {
    superfast(key.as_bytes()) & (buckets - 1)
}

/// Paul Hsieh's "SuperFastHash" (<http://www.azillionmonkeys.com/qed/hash.html>), seeded with the length.
fn superfast(key: &[u8]) -> u32 {
    let pair = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    let mut hash = key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        hash = hash.wrapping_add(pair(word[0], word[1]));
        hash = (hash << 16) ^ (pair(word[2], word[3]) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *words.remainder() {
        [a, b, c] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 16;
            hash ^= u32::from(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}
