//! The superblock's description of the file system.

use super::{
    Ext4,
    format::{
        COMPAT_JOURNAL, EXT3_INCOMPAT, EXT3_RO_COMPAT, INCOMPAT_64BIT, INCOMPAT_JOURNAL_DEV, MAGIC, S_BLOCKS_COUNT_HI,
        S_BLOCKS_COUNT_LO, S_FEATURE_COMPAT, S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT, S_FREE_BLOCKS_COUNT_HI,
        S_FREE_BLOCKS_COUNT_LO, S_FREE_INODES_COUNT, S_HASH_SEED, S_INODES_COUNT, S_LASTCHECK, S_LOG_BLOCK_SIZE,
        S_MAGIC, S_MKFS_TIME, S_MTIME, S_STATE, S_UUID, S_VOLUME_NAME, S_VOLUME_NAME_SIZE, S_WTIME, SUPERBLOCK_OFFSET,
        SUPERBLOCK_SIZE, halves, le16, le32,
    },
    volume::{corrupt, read_at},
};
use crate::image::{ImageError, ReadAt};
use std::collections::BTreeMap;

/// Names of feature bits, as `dumpe2fs` prints them: word (0 compat, 1 incompat, 2 ro_compat), bit, name.
const FEATURES: [(usize, u32, &str); 42] = [
    (0, 0x1, "dir_prealloc"),
    (0, 0x2, "imagic_inodes"),
    (0, 0x4, "has_journal"),
    (0, 0x8, "ext_attr"),
    (0, 0x10, "resize_inode"),
    (0, 0x20, "dir_index"),
    (0, 0x200, "sparse_super2"),
    (0, 0x400, "fast_commit"),
    (0, 0x800, "stable_inodes"),
    (0, 0x1000, "orphan_file"),
    (1, 0x1, "compression"),
    (1, 0x2, "filetype"),
    (1, 0x4, "needs_recovery"),
    (1, 0x8, "journal_dev"),
    (1, 0x10, "meta_bg"),
    (1, 0x40, "extent"),
    (1, 0x80, "64bit"),
    (1, 0x100, "mmp"),
    (1, 0x200, "flex_bg"),
    (1, 0x400, "ea_inode"),
    (1, 0x1000, "dirdata"),
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
    (2, 0x80, "snapshot"),
    (2, 0x100, "quota"),
    (2, 0x200, "bigalloc"),
    (2, 0x400, "metadata_csum"),
    (2, 0x800, "replica"),
    (2, 0x1000, "read-only"),
    (2, 0x2000, "project"),
    (2, 0x4000, "shared_blocks"),
    (2, 0x8000, "verity"),
    (2, 0x1_0000, "orphan_present"),
];

/// The names of the features in the words compat, incompat and ro_compat; bits without a name as a number.
pub(super) fn feature_names(words: [u32; 3]) -> Vec<String> {
    let mut left = words;
    let mut names = Vec::new();
    for (word, bit, name) in FEATURES {
        if words[word] & bit != 0 {
            names.push(name.to_owned());
            left[word] &= !bit;
        }
    }
    let unknown = ["compat", "incompat", "ro_compat"]
        .iter()
        .zip(left)
        .filter(|(_, bits)| *bits != 0);
    names.extend(unknown.map(|(word, bits)| format!("{word}:{bits:#x}")));
    names
}

/// The file system that a superblock describes, by its features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtKind {
    /// Without a journal and without a feature of ext4.
    Ext2,
    /// With a journal, and without a feature of ext4.
    Ext3,
    /// With a feature of ext4.
    Ext4,
    /// The journal of another file system.
    JournalDevice,
}

impl ExtKind {
    fn of(words: [u32; 3]) -> Self {
        let [compat, incompat, ro_compat] = words;
        if incompat & INCOMPAT_JOURNAL_DEV != 0 {
            Self::JournalDevice
        } else if incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0 {
            Self::Ext4
        } else if compat & COMPAT_JOURNAL != 0 {
            Self::Ext3
        } else {
            Self::Ext2
        }
    }

    /// The name of the format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::JournalDevice => "ext4 journal",
        }
    }
}

/// The fields of a superblock that describe the file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuperblockFacts {
    /// The file system, by its features.
    pub kind: ExtKind,
    /// Volume label.
    pub label: Vec<u8>,
    /// UUID, 16 bytes.
    pub uuid: [u8; 16],
    /// Seed of the directory hashes, 16 bytes.
    pub hash_seed: [u8; 16],
    /// Names of the features; bits without a name as a number.
    pub features: Vec<String>,
    /// Bytes in a block.
    pub block_size: u64,
    /// Number of blocks, and of free ones.
    pub blocks: (u64, u64),
    /// Number of inodes, and of free ones.
    pub inodes: (u32, u32),
    /// Times of the creation, the last mount, the last write and the last check, in seconds since 1970.
    pub times: BTreeMap<&'static str, u32>,
    /// `s_state`: 1 after a clean unmount.
    pub state: u16,
}

/// Reads the superblock of an image, which is known by its magic.
pub(super) fn superblock<R: ReadAt>(image: &R) -> Result<[u8; SUPERBLOCK_SIZE], ImageError> {
    let mut sb = [0; SUPERBLOCK_SIZE];
    read_at(image, &mut sb, SUPERBLOCK_OFFSET)?;
    let magic = le16(&sb, S_MAGIC);
    if magic != MAGIC {
        let problem = format!("the magic is {magic:#06x} instead of {MAGIC:#06x}");
        return Err(corrupt(SUPERBLOCK_OFFSET, problem));
    }
    Ok(sb)
}

impl SuperblockFacts {
    /// Reads the superblock of an image, whatever features it has.
    ///
    /// # Errors
    /// The image ends before, or the superblock has no magic.
    pub fn read<R: ReadAt>(image: &R) -> Result<Self, ImageError> {
        let sb = superblock(image)?;
        let words = [
            le32(&sb, S_FEATURE_COMPAT),
            le32(&sb, S_FEATURE_INCOMPAT),
            le32(&sb, S_FEATURE_RO_COMPAT),
        ];
        let features = feature_names(words);
        let wide = words[1] & INCOMPAT_64BIT != 0;
        let count = |low: usize, high: usize| match wide {
            true => halves(&sb, (low, high)),
            false => u64::from(le32(&sb, low)),
        };
        let label = &sb[S_VOLUME_NAME..S_VOLUME_NAME + S_VOLUME_NAME_SIZE];
        let sixteen = |at: usize| <[u8; 16]>::try_from(&sb[at..at + 16]).unwrap_or_default();
        let times = [
            ("made", S_MKFS_TIME),
            ("mounted", S_MTIME),
            ("written", S_WTIME),
            ("checked", S_LASTCHECK),
        ];
        Ok(SuperblockFacts {
            label: label.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
            uuid: sixteen(S_UUID),
            hash_seed: sixteen(S_HASH_SEED),
            kind: ExtKind::of(words),
            features,
            // A shift that no block size has is shown as 0.
            block_size: 1024u64.checked_shl(le32(&sb, S_LOG_BLOCK_SIZE)).unwrap_or(0),
            blocks: (
                count(S_BLOCKS_COUNT_LO, S_BLOCKS_COUNT_HI),
                count(S_FREE_BLOCKS_COUNT_LO, S_FREE_BLOCKS_COUNT_HI),
            ),
            inodes: (le32(&sb, S_INODES_COUNT), le32(&sb, S_FREE_INODES_COUNT)),
            times: times.map(|(name, at)| (name, le32(&sb, at))).into(),
            state: le16(&sb, S_STATE),
        })
    }
}

impl<R: ReadAt> Ext4<R> {
    /// The fields of the superblock.
    pub fn facts(&self) -> Result<SuperblockFacts, ImageError> {
        SuperblockFacts::read(&self.image)
    }
}
