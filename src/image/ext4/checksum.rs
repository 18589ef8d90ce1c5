//! Checksums of the structures, with the feature metadata_csum: CRC-32C, seeded with the UUID of the file system or, with
//! metadata_csum_seed, with a number in the superblock.
//!
//! ```text
//! superblock   of the bytes in front of s_checksum, seed ~0
//! descriptor   of the group's number (le32) and the descriptor, whose checksum counts as zeros; the low 16 bits
//! bitmaps      of a bit for each block, or inode, of the group; the descriptor has the low 16 bits
//! inode        of its number, its generation and the inode, whose checksum counts as zeros
//! directory    of each block with a tail: number, generation, and the bytes in front of the tail
//! extents      of each block of the tree: number and generation of the inode, header and room for entries
//! ```
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/checksums.html>. The crate `crc32fast` has the other polynomial, and the sums here
//! cover a few hundred bytes each.

use super::{
    Ext4, Ext4Inode,
    format::{
        BG_CHECKSUM, I_CHECKSUM_HI, I_CHECKSUM_LO, I_EXTRA_ISIZE, I_GENERATION, INODE_READ, S_CHECKSUM, S_UUID, le16,
        le32,
    },
};
use crate::image::ReadAt;

/// CRC-32C (Castagnoli) of each byte, reflected.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// CRC-32C of `bytes` behind those of `seed`, without the inversion at begin and end, as the kernel's `crc32c`.
pub(super) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(seed, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

/// Whether the superblock has the checksum that it states.
pub(super) fn superblock_fits(sb: &[u8]) -> bool {
    crc32c(!0, &sb[..S_CHECKSUM]) == le32(sb, S_CHECKSUM)
}

/// Seed of the checksums in a file system whose superblock states none.
pub(super) fn uuid_seed(sb: &[u8]) -> u32 {
    crc32c(!0, &sb[S_UUID..S_UUID + 16])
}

/// Checksum of a group's descriptor, whole in `bytes`.
pub(super) fn descriptor_checksum(seed: u32, group: u64, bytes: &[u8]) -> u16 {
    let crc = crc32c(seed, &(group as u32).to_le_bytes());
    let crc = crc32c(crc, &bytes[..BG_CHECKSUM]);
    let crc = crc32c(crc, &[0; 2]);
    crc32c(crc, bytes.get(BG_CHECKSUM + 2..).unwrap_or_default()) as u16
}

/// Seed of the checksums of an inode, of its directory blocks and of its extent tree.
pub(super) fn inode_seed(seed: u32, number: u32, generation: u32) -> u32 {
    let crc = crc32c(seed, &number.to_le_bytes());
    crc32c(crc, &generation.to_le_bytes())
}

impl<R: ReadAt> Ext4<R> {
    /// Whether a group's descriptor, whole in `bytes`, has the checksum that it states.
    pub(super) fn descriptor_fits(&self, group: u64, bytes: &[u8]) -> bool {
        let Some(seed) = self.checksum_seed else { return true };
        descriptor_checksum(seed, group, bytes) == le16(bytes, BG_CHECKSUM)
    }

    /// Whether an inode, whole in `raw`, has the checksum that it states.
    pub(super) fn inode_fits(&self, number: u32, raw: &[u8]) -> bool {
        let Some(seed) = self.inode_seed(number, le32(raw, I_GENERATION)) else {
            return true;
        };
        let mut zeroed = raw.to_vec();
        zeroed[I_CHECKSUM_LO..I_CHECKSUM_LO + 2].fill(0);
        let wide = raw.len() > INODE_READ && le16(raw, I_EXTRA_ISIZE) >= 4;
        let mut stated = u32::from(le16(raw, I_CHECKSUM_LO));
        if wide {
            zeroed[I_CHECKSUM_HI..I_CHECKSUM_HI + 2].fill(0);
            stated |= u32::from(le16(raw, I_CHECKSUM_HI)) << 16;
        }
        let sum = crc32c(seed, &zeroed);
        stated == if wide { sum } else { sum & 0xffff }
    }

    /// Whether a block of a directory has the checksum of its tail; a block without a tail has none.
    pub(super) fn directory_block_fits(&self, inode: &Ext4Inode, block: &[u8]) -> bool {
        let Some(seed) = self.inode_seed(inode.number, inode.generation) else {
            return true;
        };
        let Some((data, tail)) = block.split_last_chunk::<12>() else {
            return true;
        };
        // An entry of inode 0 with 12 bytes and the file type 0xde.
        tail[..8] != [0, 0, 0, 0, 12, 0, 0, 0xde] || crc32c(seed, data) == le32(tail, 8)
    }

    fn inode_seed(&self, number: u32, generation: u32) -> Option<u32> {
        self.checksum_seed.map(|seed| inode_seed(seed, number, generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_standard() {
        // RFC 3720, appendix B.4: 32 bytes of zeros, and of ones.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(!0, &[0xff; 32]), 0x62a8_ab43);
    }
}
