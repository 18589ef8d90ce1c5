//! Where things lie in an ext4 file system and what it says of itself, for a reader that explains bytes.
//!
//! ```text
//! group g          begins at block s_first_data_block + g * s_blocks_per_group
//! its descriptor   block bitmap le32 0x0 · inode bitmap le32 0x4 · inode table le32 0x8, high halves at 0x20, 0x24, 0x28
//! copies           groups 0, 1 and powers of 3, 5 and 7 (sparse_super) begin with superblock and descriptors
//! ```
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/globals.html>.

use super::{
    DESCRIPTOR_SIZE, Ext4, Ext4Inode, ImageError, MerkleTree, ReadAt, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, VERITY_ALIGN,
    corrupt, le16, le32, read_at,
};
use crate::model::VerityDigest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// More groups than this are not listed: 8 TiB with blocks of 4 KiB.
const MAX_GROUPS: u64 = 1 << 16;
/// Bit of s_feature_ro_compat: not every group begins with copies.
const RO_SPARSE_SUPER: u32 = 0x1;

/// Names of feature bits, as `dumpe2fs` says them: word (compat, incompat, ro_compat), bit, name.
const FEATURES: [(usize, u32, &str); 26] = [
    (0, 0x4, "has_journal"),
    (0, 0x8, "ext_attr"),
    (0, 0x10, "resize_inode"),
    (0, 0x20, "dir_index"),
    (0, 0x200, "sparse_super2"),
    (0, 0x1000, "orphan_file"),
    (1, 0x2, "filetype"),
    (1, 0x4, "needs_recovery"),
    (1, 0x40, "extent"),
    (1, 0x80, "64bit"),
    (1, 0x200, "flex_bg"),
    (1, 0x2000, "metadata_csum_seed"),
    (1, 0x4000, "large_dir"),
    (1, 0x8000, "inline_data"),
    (1, 0x1_0000, "encrypt"),
    (1, 0x2_0000, "casefold"),
    (2, 0x1, "sparse_super"),
    (2, 0x2, "large_file"),
    (2, 0x8, "huge_file"),
    (2, 0x10, "uninit_bg"),
    (2, 0x20, "dir_nlink"),
    (2, 0x40, "extra_isize"),
    (2, 0x100, "quota"),
    (2, 0x400, "metadata_csum"),
    (2, 0x2000, "project"),
    (2, 0x8000, "verity"),
];

/// What a superblock says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuperblockFacts {
    /// Volume label.
    pub label: Vec<u8>,
    /// Its UUID, 16 bytes.
    pub uuid: [u8; 16],
    /// The seed of directory hashes, 16 bytes.
    pub hash_seed: [u8; 16],
    /// Names of the features; a number for those without.
    pub features: Vec<String>,
    /// Bytes in a block.
    pub block_size: u64,
    /// All blocks, and those that are free.
    pub blocks: (u64, u64),
    /// All inodes, and those that are free.
    pub inodes: (u32, u32),
    /// Seconds since 1970 of its making, the last mount, the last write and the last check.
    pub times: BTreeMap<&'static str, u32>,
    /// `s_state`: 1 when it was unmounted cleanly.
    pub state: u16,
}

/// A run of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataRun {
    /// Offset in the file, bytes.
    pub at: u64,
    /// Offset in the image; none for what was never written and reads as zeros.
    pub from: Option<u64>,
    /// Bytes; the last run of a file may go beyond its data.
    pub len: u64,
}

/// Bytes of the file system's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// What they are.
    pub name: String,
    /// Where they begin in the image.
    pub offset: u64,
    /// How many there are.
    pub len: u64,
}

impl Ext4Inode {
    /// Where it lies in the image.
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// `i_flags`.
    pub fn flags(&self) -> u32 {
        self.flags
    }
}

impl<R: ReadAt> Ext4<R> {
    fn superblock(&self) -> Result<[u8; SUPERBLOCK_SIZE], ImageError> {
        let mut sb = [0; SUPERBLOCK_SIZE];
        read_at(&self.image, &mut sb, SUPERBLOCK_OFFSET)?;
        Ok(sb)
    }

    /// What the superblock says.
    pub fn facts(&self) -> Result<SuperblockFacts, ImageError> {
        let sb = self.superblock()?;
        let words = [le32(&sb, 0x5c), le32(&sb, 0x60), le32(&sb, 0x64)];
        let mut left = words;
        let mut features = Vec::new();
        for (word, bit, name) in FEATURES {
            if words[word] & bit != 0 {
                features.push(name.to_owned());
                left[word] &= !bit;
            }
        }
        let unknown = ["compat", "incompat", "ro_compat"]
            .iter()
            .zip(left)
            .filter(|(_, bits)| *bits != 0);
        features.extend(unknown.map(|(word, bits)| format!("{word}:{bits:#x}")));
        let label = &sb[0x78..0x88];
        let sixteen = |at: usize| <[u8; 16]>::try_from(&sb[at..at + 16]).unwrap_or_default();
        let times = [("made", 0x108), ("mounted", 0x2c), ("written", 0x30), ("checked", 0x40)];
        Ok(SuperblockFacts {
            label: label.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
            uuid: sixteen(0x68),
            hash_seed: sixteen(0xec),
            features,
            block_size: self.block_size,
            blocks: (
                self.blocks,
                u64::from(le32(&sb, 0xc)) | u64::from(le32(&sb, 0x158)) << 32,
            ),
            inodes: (self.inodes, le32(&sb, 0x10)),
            times: times.map(|(name, at)| (name, le32(&sb, at))).into(),
            state: le16(&sb, 0x3a),
        })
    }

    /// Bytes of one inode.
    pub fn inode_size(&self) -> u64 {
        self.inode_size
    }

    /// Owner and times of an inode: uid, gid, seconds of its last change of data, of itself, and of its last access.
    pub fn owner_and_times(&self, inode: &Ext4Inode) -> Result<[u32; 5], ImageError> {
        let mut raw = [0; 128];
        read_at(&self.image, &mut raw, inode.offset)?;
        let wide = |low: usize, high: usize| u32::from(le16(&raw, low)) | u32::from(le16(&raw, high)) << 16;
        Ok([
            wide(0x2, 0x78),
            wide(0x18, 0x7a),
            le32(&raw, 0x10),
            le32(&raw, 0xc),
            le32(&raw, 0x8),
        ])
    }

    /// Where an inode's bytes lie, sorted; what no run covers reads as zeros.
    pub fn runs(&self, inode: &Ext4Inode) -> Result<Vec<DataRun>, ImageError> {
        let extents = self.extents(inode)?;
        let runs = extents.iter().map(|e| DataRun {
            at: e.logical * self.block_size,
            from: e.physical.map(|block| block * self.block_size),
            len: e.len * self.block_size,
        });
        Ok(runs.collect())
    }

    /// What the kernel reports as the fs-verity digest of a file with verity: the digest of its descriptor, without looking
    /// at its data. `None` without verity.
    pub fn sealed_digest(&self, inode: &Ext4Inode) -> Result<Option<VerityDigest>, ImageError> {
        if !inode.has_verity() {
            return Ok(None);
        }
        let bad = |problem: &str| corrupt(inode.offset, format!("verity of inode {}: {problem}", inode.number));
        let extents = self.extents(inode)?;
        let end = extents.last().map_or(0, |e| (e.logical + e.len) * self.block_size);
        let tree_end = inode.size.checked_next_multiple_of(VERITY_ALIGN);
        let tree_end = tree_end.and_then(|at| at.checked_add(MerkleTree::size(inode.size)));
        let tree_end = tree_end
            .filter(|at| *at < end)
            .ok_or_else(|| bad("there is nothing behind the data"))?;
        let mut length = [0; 4];
        self.read_mapped(&extents, &mut length, end - 4)?;
        let at = (end - 4).checked_sub(u64::from(u32::from_le_bytes(length)));
        let at = at
            .map(|at| at / self.block_size * self.block_size)
            .filter(|at| *at >= tree_end);
        let known = u32::from_le_bytes(length) as usize == DESCRIPTOR_SIZE;
        let at = at
            .filter(|_| known)
            .ok_or_else(|| bad("the descriptor has an unknown size"))?;
        let mut descriptor = [0; DESCRIPTOR_SIZE];
        self.read_mapped(&extents, &mut descriptor, at)?;
        Ok(Some(VerityDigest::new(Sha256::digest(descriptor).into())))
    }

    /// The file system's own bytes, sorted: boot block, superblocks, descriptors, bitmaps and inode tables. What a broken
    /// descriptor places outside the image is left out.
    pub fn places(&self) -> Result<Vec<Region>, ImageError> {
        let sb = self.superblock()?;
        let first = u64::from(le32(&sb, 0x14));
        let per_group = u64::from(le32(&sb, 0x20));
        if per_group == 0 || self.blocks.div_ceil(per_group) > MAX_GROUPS {
            let problem = format!("{} blocks in groups of {per_group}", self.blocks);
            return Err(corrupt(SUPERBLOCK_OFFSET, problem));
        }
        let groups = self.blocks.saturating_sub(first).div_ceil(per_group);
        let table_len = u64::from(self.inodes_per_group) * self.inode_size;
        let descriptors_len = groups * self.descriptor_size;
        let sparse = le32(&sb, 0x64) & RO_SPARSE_SUPER != 0;
        let all = self.blocks * self.block_size;
        let mut out = Vec::new();
        let mut add = |name: String, offset: u64, len: u64| {
            if offset.checked_add(len).is_some_and(|end| end <= all) && len > 0 {
                out.push(Region { name, offset, len });
            }
        };
        add("boot block".to_owned(), 0, SUPERBLOCK_OFFSET);
        add("superblock".to_owned(), SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE as u64);
        add("group descriptors".to_owned(), self.descriptors, descriptors_len);
        for group in 0..groups {
            let start = (first + group * per_group) * self.block_size;
            if group > 0 && (!sparse || has_copy(group)) {
                add(
                    format!("superblock copy in group {group}"),
                    start,
                    SUPERBLOCK_SIZE as u64,
                );
                let behind = start + self.block_size;
                add(
                    format!("group descriptors copy in group {group}"),
                    behind,
                    descriptors_len,
                );
            }
            let mut raw = [0; 64];
            let used = self.descriptor_size.min(64) as usize;
            read_at(
                &self.image,
                &mut raw[..used],
                self.descriptors + group * self.descriptor_size,
            )?;
            let at = |low: usize, high: usize| u64::from(le32(&raw, low)) | u64::from(le32(&raw, high)) << 32;
            let block = self.block_size;
            for (name, number, len) in [
                ("block bitmap", at(0x0, 0x20), block),
                ("inode bitmap", at(0x4, 0x24), block),
                ("inode table", at(0x8, 0x28), table_len),
            ] {
                if let Some(offset) = number.checked_mul(block).filter(|o| *o > 0) {
                    add(format!("{name} of group {group}"), offset, len);
                }
            }
        }
        out.sort_by_key(|p| (p.offset, p.len));
        Ok(out)
    }
}

/// Whether `group` is 1 or a power of 3, 5 or 7.
fn has_copy(group: u64) -> bool {
    group <= 1
        || [3u64, 5, 7].iter().any(|base| {
            let mut power = *base;
            while power < group {
                power *= base;
            }
            power == group
        })
}
