//! The blocks of a directory, as they are written: the counterpart of `directory`.
//!
//! ```text
//! entry   inode le32 · length of the entry le16 · length of the name u8 · type u8 · name · padding to 4
//! block   entries; the last reaches to the tail · tail of 12 bytes with the checksum
//! ```
//!
//! The entries are `.`, `..` and then the names in order, without an index. Source:
//! <https://docs.kernel.org/filesystems/ext4/directory.html>.

use super::{
    checksum::crc32c,
    format::{BLOCK, DIRECTORY_TAIL, put16, put32},
};

/// Bytes of an entry in front of the name.
const ENTRY: usize = 8;
/// Bytes of a block for entries.
const ROOM: usize = BLOCK as usize - DIRECTORY_TAIL;
/// Types of files in entries.
const TYPE_FILE: u8 = 1;
const TYPE_DIRECTORY: u8 = 2;
/// Type of the entry that the tail looks like.
const TYPE_TAIL: u8 = 0xde;

/// An entry of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NewEntry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
    pub(super) is_directory: bool,
}

fn entry_size(name: &[u8]) -> usize {
    ENTRY + name.len().next_multiple_of(4)
}

/// Number of blocks of a directory with `names`.
pub(super) fn directory_blocks<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut blocks, mut used) = (1, 0);
    for size in [&b"."[..], b".."].into_iter().chain(names).map(entry_size) {
        if used + size > ROOM {
            (blocks, used) = (blocks + 1, 0);
        }
        used += size;
    }
    blocks
}

/// The bytes of directory `inode`, whose parent is `parent`; `entries` are sorted. `seed` is that of the inode's checksums.
pub(super) fn directory(inode: u32, parent: u32, entries: &[NewEntry<'_>], seed: u32) -> Vec<u8> {
    let dot = |name, inode| NewEntry {
        name,
        inode,
        is_directory: true,
    };
    let dots: [NewEntry<'_>; 2] = [dot(b".", inode), dot(b"..", parent)];
    let mut out = Vec::new();
    let (mut used, mut last) = (ROOM, 0);
    for entry in dots.iter().chain(entries) {
        let size = entry_size(entry.name);
        if used + size > ROOM {
            stretch(&mut out, last, used);
            used = 0;
            out.resize(out.len() + BLOCK as usize, 0);
        }
        last = out.len() - BLOCK as usize + used;
        let bytes = &mut out[last..last + size];
        put32(bytes, 0, entry.inode);
        put16(bytes, 4, size as u16);
        bytes[6] = entry.name.len() as u8;
        bytes[7] = if entry.is_directory { TYPE_DIRECTORY } else { TYPE_FILE };
        bytes[ENTRY..ENTRY + entry.name.len()].copy_from_slice(entry.name);
        used += size;
    }
    stretch(&mut out, last, used);
    for block in out.chunks_exact_mut(BLOCK as usize) {
        let (data, tail) = block.split_at_mut(ROOM);
        put16(tail, 4, DIRECTORY_TAIL as u16);
        tail[7] = TYPE_TAIL;
        put32(tail, 8, crc32c(seed, data));
    }
    out
}

/// Lets the entry at `last` reach to the tail of its block, of which `used` bytes are used.
fn stretch(out: &mut [u8], last: usize, used: usize) {
    if let Some(entry) = out.get_mut(last..last + ENTRY) {
        let size = entry[4..6].try_into().map_or(0, u16::from_le_bytes);
        put16(entry, 4, size + (ROOM - used) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize, len: usize) -> Vec<Vec<u8>> {
        (0..count).map(|n| format!("{n:0len$}").into_bytes()).collect()
    }

    #[test]
    fn entries_fill_their_blocks_to_the_tail() {
        for (count, len) in [(0, 1), (1, 62), (56, 62), (57, 62), (5000, 62), (16, 255), (900, 4)] {
            let names = names(count, len);
            let entries = names.iter().enumerate().map(|(n, name)| NewEntry {
                name,
                inode: n as u32 + 20,
                is_directory: n % 2 == 0,
            });
            let entries: Vec<NewEntry<'_>> = entries.collect();
            let bytes = directory(12, 2, &entries, 5);
            let blocks = directory_blocks(names.iter().map(Vec::as_slice));
            assert_eq!(bytes.len() as u64, blocks * BLOCK, "{count} names of {len} bytes");
            let mut found = Vec::new();
            for block in bytes.chunks(BLOCK as usize) {
                let mut at = 0;
                while at < ROOM {
                    let size = usize::from(u16::from_le_bytes([block[at + 4], block[at + 5]]));
                    let number = u32::from_le_bytes(block[at..at + 4].try_into().expect("four"));
                    let name = &block[at + 8..at + 8 + usize::from(block[at + 6])];
                    found.push((name.to_vec(), number, block[at + 7] == 2));
                    at += size;
                }
                assert_eq!(at, ROOM);
                assert_eq!(block[ROOM..ROOM + 8], [0, 0, 0, 0, 12, 0, 0, 0xde]);
                assert_eq!(block[ROOM + 8..], crc32c(5, &block[..ROOM]).to_le_bytes());
            }
            let wanted = [(b".".to_vec(), 12, true), (b"..".to_vec(), 2, true)].into_iter();
            let wanted = wanted.chain(entries.iter().map(|e| (e.name.to_vec(), e.inode, e.is_directory)));
            assert!(wanted.eq(found), "{count} names of {len} bytes");
        }
        // 24 bytes of dots, then 72 bytes for each name.
        let blocks = |count| directory_blocks(names(count, 62).iter().map(Vec::as_slice));
        assert_eq!((blocks(56), blocks(57), blocks(56 + 56), blocks(56 + 57)), (1, 2, 2, 3));
    }
}
