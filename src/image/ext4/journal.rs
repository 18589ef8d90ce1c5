//! The journal of a file system that was not unmounted: its committed transactions, laid over the image without a copy.
//!
//! ```text
//! block 0       superblock of the journal: s_first, s_sequence, s_start (0: nothing to do), features
//! from s_start  transactions, in a ring from s_first to the end or to the area of fast commits
//!   descriptor  header · tags, one for each block that follows · [checksum]
//!   blocks      the bytes of one block of the file system each; the first four are zeros where they would be the magic
//!   revocation  header · length · blocks that no transaction up to this one may write · [checksum]
//!   commit      header · checksum · time; without it the transaction counts as not written
//! header        be32 magic c03b3998 · be32 kind · be32 number of the transaction
//! ```
//!
//! As the kernel, in three passes: the committed transactions, the revocations, the blocks. Integers are big-endian. Source: the kernel's
//! `fs/jbd2/recovery.c`, <https://docs.kernel.org/filesystems/ext4/journal.html>.

use super::{
    Ext4,
    checksum::{crc32c, superblock_fits},
    format::{
        COMPAT_JOURNAL, IMAGE_FORMAT, INCOMPAT_RECOVER, RO_METADATA_CSUM, S_CHECKSUM, S_FEATURE_COMPAT,
        S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT, S_JOURNAL_INUM, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, le16, le32,
    },
    superblock::superblock,
    volume::{corrupt, read_at},
};
use crate::image::{ImageError, ReadAt};
use std::{
    collections::BTreeMap,
    io,
    ops::{ControlFlow, Range},
};

/// First bytes of each of the journal's own blocks.
const MAGIC: u32 = 0xc03b_3998;
// Kinds of these blocks.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOCATION: u32 = 5;
/// Bytes of the header.
const HEADER: usize = 12;
// The superblock of the journal.
const J_BLOCK_SIZE: usize = 0xc;
const J_LENGTH: usize = 0x10;
const J_FIRST: usize = 0x14;
const J_SEQUENCE: usize = 0x18;
const J_START: usize = 0x1c;
const J_COMPAT: usize = 0x24;
const J_INCOMPAT: usize = 0x28;
const J_UUID: usize = 0x30;
const J_FAST_BLOCKS: usize = 0x54;
const J_CHECKSUM: usize = 0xfc;
const J_SIZE: usize = 1024;
// Its features.
const COMPAT_CHECKSUM: u32 = 0x1;
const WIDE: u32 = 0x2;
const CHECKSUM_V2: u32 = 0x8;
const CHECKSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// Those that are read: revocations, 64bit, async_commit, both checksums, fast commits.
const KNOWN: u32 = 0x1 | WIDE | 0x4 | CHECKSUM_V2 | CHECKSUM_V3 | FAST_COMMIT;
/// Blocks of fast commits where the superblock states none.
const DEFAULT_FAST_BLOCKS: u32 = 256;
/// Kind of the first record of a fast commit (`EXT4_FC_TAG_HEAD`).
const FAST_HEAD: u16 = 9;
// Flags of a tag: the block begins with the magic, has no UUID of its own, is the last one.
const ESCAPED: u32 = 0x1;
const SAME_UUID: u32 = 0x2;
const LAST: u32 = 0x8;
// The commit block.
const C_TYPE: usize = 0xc;
const C_SUM: usize = 0x10;
const C_SECONDS: usize = 0x30;
const C_SIZE: usize = 0x40;
/// Type and size of the checksum over a whole transaction: CRC-32 in 4 bytes.
const WHOLE_SUM: [u8; 2] = [1, 4];

/// Longest log that is read, in blocks: 4 GiB in blocks of 4 KiB.
const MAX_LOG: u64 = 1 << 20;
/// Most blocks that are laid over an image, and most revocations.
const MAX_RECORDS: usize = 4 << 20;

/// Most problems that are noted.
const MAX_PROBLEMS: usize = 64;

/// The CRC-32 of each byte, with the highest bit first.
const CRC32_BE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// CRC-32 of `bytes` behind those of `sum`, with the highest bit first, as the kernel's `crc32_be`.
fn crc32_be(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |crc, byte| {
        crc << 8 ^ CRC32_BE[usize::from((crc >> 24) as u8 ^ *byte)]
    })
}

/// Whether the transaction `a` is later than `b`; their numbers wrap.
fn later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// The contents of a journal that were laid over an image.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct JournalFacts {
    /// Committed transactions.
    pub transactions: usize,
    /// Blocks of the file system that they change.
    pub blocks: usize,
    /// Blocks in them that a revocation takes back.
    pub revoked: usize,
}

/// Where the bytes of blocks lie, and whether their first four are the magic.
type Places = BTreeMap<u64, (u64, bool)>;

/// An image with its journal laid over it: the bytes that it has after the kernel has replayed the journal.
#[derive(Clone, Debug)]
pub struct ReplayedImage<R> {
    image: R,
    block_size: u64,
    blocks: Places,
    /// The superblock without the mark that a journal is to be replayed.
    superblock: Vec<u8>,
}

/// A journal that was laid over its image.
#[derive(Debug)]
pub struct Replayed<R> {
    /// The image with its journal.
    pub image: ReplayedImage<R>,
    /// The numbers of its transactions and blocks.
    pub facts: JournalFacts,
    /// Why the kernel could show more, or refuses the file system.
    pub problems: Vec<ImageError>,
}

/// Lays the journal over an image. `None` where there is nothing to lay over it: the file system was unmounted, or its journal is on another
/// device.
///
/// # Errors
/// The superblocks or the inode of the journal are damaged, or the journal is longer than is read.
pub fn replay<R: ReadAt>(image: R) -> Result<Option<Replayed<R>>, ImageError> {
    let sb = superblock(&image)?;
    let inode = le32(&sb, S_JOURNAL_INUM);
    let dirty = le32(&sb, S_FEATURE_INCOMPAT) & INCOMPAT_RECOVER != 0;
    if !dirty || le32(&sb, S_FEATURE_COMPAT) & COMPAT_JOURNAL == 0 || inode == 0 {
        return Ok(None);
    }
    let (blocks, facts, problems, block_size) = {
        let (fs, _) = Ext4::open_any(&image)?;
        let mut log = Log::open(&fs, inode)?;
        let (blocks, facts) = match log.start {
            0 => Default::default(),
            _ => log.replay()?,
        };
        (blocks, facts, log.problems, fs.block_size())
    };
    let mut replayed = ReplayedImage {
        image,
        block_size,
        blocks,
        superblock: Vec::new(),
    };
    let mut sb = vec![0; SUPERBLOCK_SIZE];
    read_at(&replayed, &mut sb, SUPERBLOCK_OFFSET)?;
    let summed = le32(&sb, S_FEATURE_RO_COMPAT) & RO_METADATA_CSUM != 0 && superblock_fits(&sb);
    let features = le32(&sb, S_FEATURE_INCOMPAT) & !INCOMPAT_RECOVER;
    sb[S_FEATURE_INCOMPAT..S_FEATURE_INCOMPAT + 4].copy_from_slice(&features.to_le_bytes());
    if summed {
        let sum = crc32c(!0, &sb[..S_CHECKSUM]);
        sb[S_CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    }
    replayed.superblock = sb;
    Ok(Some(Replayed {
        image: replayed,
        facts,
        problems,
    }))
}

/// A tag of a descriptor.
#[derive(Clone, Copy, Debug)]
struct Tag {
    /// The block of the file system.
    block: u64,
    flags: u32,
    /// 32 bits, or the low 16 with the second version of checksums.
    checksum: u32,
}

/// A journal that is read.
struct Log<'a, R> {
    fs: &'a Ext4<&'a R>,
    /// Places of the journal's blocks: first block, offset in the image, number of blocks.
    runs: Vec<(u64, u64, u64)>,
    /// The ring of transactions.
    ring: Range<u64>,
    /// The blocks of fast commits.
    fast: Range<u64>,
    start: u64,
    sequence: u32,
    compat: u32,
    incompat: u32,
    /// Seed of the checksums.
    seed: u32,
    problems: Vec<ImageError>,
}

/// What the first pass finds.
#[derive(Default)]
struct Found {
    /// Descriptors and blocks of revocations, with their transactions.
    descriptors: Vec<(u64, u32)>,
    revocations: Vec<(u64, u32)>,
    transactions: usize,
    /// The number behind the last committed transaction.
    end: u32,
}

impl<'a, R: ReadAt> Log<'a, R> {
    fn open(fs: &'a Ext4<&'a R>, number: u32) -> Result<Self, ImageError> {
        let inode = fs.inode(number)?;
        let block_size = fs.block_size();
        let runs = fs.runs(&inode)?;
        let runs = runs
            .iter()
            .filter_map(|run| Some((run.at / block_size, run.from?, run.len / block_size)));
        let mut log = Self {
            fs,
            runs: runs.collect(),
            ring: 0..0,
            fast: 0..0,
            start: 0,
            sequence: 0,
            compat: 0,
            incompat: 0,
            seed: 0,
            problems: Vec::new(),
        };
        let at = log.offset(0)?;
        let bad = |problem: String| corrupt(at, format!("the journal {problem}"));
        let mut sb = vec![0; J_SIZE];
        read_at(&log.fs.image, &mut sb, at)?;
        let kind = be32(&sb, 4);
        if be32(&sb, 0) != MAGIC || ![SUPERBLOCK_V1, SUPERBLOCK_V2].contains(&kind) {
            return Err(bad("has no superblock".to_owned()));
        }
        if u64::from(be32(&sb, J_BLOCK_SIZE)) != block_size {
            let own = be32(&sb, J_BLOCK_SIZE);
            return Err(bad(format!(
                "has blocks of {own} bytes, and the file system of {block_size}"
            )));
        }
        if kind == SUPERBLOCK_V2 {
            (log.compat, log.incompat) = (be32(&sb, J_COMPAT), be32(&sb, J_INCOMPAT));
            log.seed = crc32c(!0, &sb[J_UUID..J_UUID + 16]);
        }
        let unknown = log.incompat & !KNOWN;
        if unknown != 0 {
            return Err(bad(format!("has the features {unknown:#x}, which are not supported")));
        }
        if log.has_checksums() {
            let stated = be32(&sb, J_CHECKSUM);
            sb[J_CHECKSUM..J_CHECKSUM + 4].fill(0);
            if crc32c(!0, &sb) != stated {
                return Err(bad("does not have the checksum of its superblock".to_owned()));
            }
        }
        let (length, first) = (u64::from(be32(&sb, J_LENGTH)), u64::from(be32(&sb, J_FIRST)));
        let fast = match (log.incompat & FAST_COMMIT, be32(&sb, J_FAST_BLOCKS)) {
            (0, _) => 0,
            (_, 0) => u64::from(DEFAULT_FAST_BLOCKS),
            (_, stated) => u64::from(stated),
        };
        (log.start, log.sequence) = (u64::from(be32(&sb, J_START)), be32(&sb, J_SEQUENCE));
        let end = length.saturating_sub(fast);
        if first == 0 || first >= end || length > MAX_LOG || (log.start != 0 && !(first..end).contains(&log.start)) {
            let start = log.start;
            return Err(bad(format!(
                "is said to have {length} blocks, its log from block {first} to {end}, and to begin at block {start}"
            )));
        }
        (log.ring, log.fast) = (first..end, end..length);
        Ok(log)
    }

    fn has_checksums(&self) -> bool {
        self.incompat & (CHECKSUM_V2 | CHECKSUM_V3) != 0
    }

    /// Bytes of the checksum behind the content of a descriptor or a revocation.
    fn tail(&self) -> usize {
        if self.has_checksums() { 4 } else { 0 }
    }

    /// Offset in the image of a block of the journal.
    fn offset(&self, block: u64) -> Result<u64, ImageError> {
        let at = self.runs.partition_point(|(first, ..)| *first <= block);
        let run = at.checked_sub(1).and_then(|at| self.runs.get(at));
        let run = run.filter(|(first, _, len)| block - first < *len);
        let offset = run.map(|(first, from, _)| from + (block - first) * self.fs.block_size());
        offset.ok_or_else(|| corrupt(SUPERBLOCK_OFFSET, format!("block {block} of the journal has no place")))
    }

    fn block(&self, block: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = vec![0; self.fs.block_size() as usize];
        read_at(&self.fs.image, &mut bytes, self.offset(block)?)?;
        Ok(bytes)
    }

    fn next(&self, block: u64) -> u64 {
        if block + 1 >= self.ring.end {
            self.ring.start
        } else {
            block + 1
        }
    }

    /// The tags of a descriptor.
    fn tags(&self, descriptor: &[u8]) -> Vec<Tag> {
        let third = self.incompat & CHECKSUM_V3 != 0;
        let wide = self.incompat & WIDE != 0;
        let size = match (third, self.incompat & CHECKSUM_V2 != 0, wide) {
            (true, ..) => 16,
            (_, second, wide) => 8 + if second { 2 } else { 0 } + if wide { 4 } else { 0 },
        };
        let (mut tags, mut at) = (Vec::new(), HEADER);
        while at + size <= descriptor.len() - self.tail() {
            let tag = &descriptor[at..at + size];
            let high = if wide { u64::from(be32(tag, 8)) } else { 0 };
            let flags = be32(tag, 4) & 0xffff;
            tags.push(Tag {
                block: high << 32 | u64::from(be32(tag, 0)),
                flags,
                checksum: if third { be32(tag, 12) } else { be32(tag, 4) >> 16 },
            });
            at += size + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST != 0 {
                break;
            }
        }
        tags
    }

    /// Whether a descriptor or a block of revocations has its checksum, or needs none.
    fn fits(&self, block: &[u8]) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let body = block.len() - 4;
        crc32c(crc32c(self.seed, &block[..body]), &[0; 4]) == be32(block, body)
    }

    /// Whether a commit block has its checksum, or needs none. In old ones only the fields count, and not the bytes behind them.
    fn commit_fits(&self, block: &[u8]) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let stated = be32(block, C_SUM);
        let mut bytes = block.to_vec();
        bytes[C_SUM..C_SUM + 4].fill(0);
        if crc32c(self.seed, &bytes) == stated {
            return true;
        }
        bytes[C_SIZE..].fill(0);
        crc32c(self.seed, &bytes) == stated
    }

    /// Whether a block has the checksum of its tag, or needs none.
    fn data_fits(&self, tag: &Tag, sequence: u32, bytes: &[u8]) -> bool {
        let sum = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), bytes);
        match (self.incompat & CHECKSUM_V3, self.incompat & CHECKSUM_V2) {
            (0, 0) => true,
            (0, _) => sum & 0xffff == tag.checksum,
            _ => sum == tag.checksum,
        }
    }

    /// Notes a problem; of very many, the first.
    fn problem(&mut self, block: u64, problem: String) -> Result<(), ImageError> {
        let at = self.offset(block)?;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(corrupt(at, problem));
        }
        Ok(())
    }

    /// The first pass: every committed transaction.
    fn scan(&mut self) -> Result<Found, ImageError> {
        let mut found = Found {
            end: self.sequence,
            ..Found::default()
        };
        let (mut at, mut left) = (self.start, self.ring.end - self.ring.start);
        // Of the transaction that is not committed yet.
        let (mut descriptors, mut revocations) = (Vec::new(), Vec::new());
        let (mut whole, mut doubted, mut last_time) = (!0, false, 0);
        while left > 0 {
            let bytes = self.block(at)?;
            let (kind, sequence) = (be32(&bytes, 4), be32(&bytes, 8));
            if be32(&bytes, 0) != MAGIC || sequence != found.end {
                break;
            }
            let here = at;
            at = self.next(at);
            left -= 1;
            match kind {
                DESCRIPTOR => {
                    // A block that an earlier turn of the ring has left is told by the time of its commit.
                    doubted |= !self.fits(&bytes);
                    descriptors.push((here, sequence));
                    whole = crc32_be(
                        whole,
                        if self.compat & COMPAT_CHECKSUM != 0 {
                            &bytes
                        } else {
                            &[]
                        },
                    );
                    for _ in self.tags(&bytes) {
                        if left == 0 {
                            break;
                        }
                        if self.compat & COMPAT_CHECKSUM != 0 {
                            whole = crc32_be(whole, &self.block(at)?);
                        }
                        at = self.next(at);
                        left -= 1;
                    }
                }
                REVOCATION => {
                    doubted |= !self.fits(&bytes);
                    revocations.push((here, sequence));
                }
                COMMIT => {
                    let time = u64::from(be32(&bytes, C_SECONDS)) << 32 | u64::from(be32(&bytes, C_SECONDS + 4));
                    if self
                        .judge(&bytes, here, (doubted, whole), (time, last_time))?
                        .is_break()
                    {
                        break;
                    }
                    (last_time, whole) = (time, !0);
                    found.descriptors.append(&mut descriptors);
                    found.revocations.append(&mut revocations);
                    found.transactions += 1;
                    found.end = found.end.wrapping_add(1);
                }
                _ => break,
            }
        }
        Ok(found)
    }

    /// Whether the log ends in front of a transaction with this commit block. `doubted` says that one of its blocks does not have its
    /// checksum, `whole` is that of all.
    fn judge(
        &mut self,
        commit: &[u8],
        at: u64,
        (doubted, whole): (bool, u32),
        (time, last): (u64, u64),
    ) -> Result<ControlFlow<()>, ImageError> {
        let over_all = match self.compat & COMPAT_CHECKSUM {
            0 => true,
            _ => {
                let stated = be32(commit, C_SUM);
                let kind = [commit[C_TYPE], commit[C_TYPE + 1]];
                (kind == WHOLE_SUM && stated == whole) || (kind == [0, 0] && stated == 0)
            }
        };
        if !doubted && over_all && self.commit_fits(commit) {
            return Ok(ControlFlow::Continue(()));
        }
        // What an earlier turn of the ring has left is older than what was read before it.
        if time >= last {
            let sequence = be32(commit, 8);
            let text = format!(
                "transaction {sequence} of the journal does not have its checksum: it and all later ones are left out, and the kernel may \
                 refuse the file system"
            );
            self.problem(at, text)?;
        }
        Ok(ControlFlow::Break(()))
    }

    /// The second pass: the last transaction that revokes a block.
    fn revocations(&mut self, found: &Found) -> Result<BTreeMap<u64, u32>, ImageError> {
        let width = if self.incompat & WIDE != 0 { 8 } else { 4 };
        let mut revoked: BTreeMap<u64, u32> = BTreeMap::new();
        for (at, sequence) in &found.revocations {
            let bytes = self.block(*at)?;
            let end = (be32(&bytes, HEADER) as usize).min(bytes.len() - self.tail());
            let mut place = HEADER + 4;
            while place + width <= end {
                let low = u64::from(be32(&bytes, place + width - 4));
                let high = if width == 8 { u64::from(be32(&bytes, place)) } else { 0 };
                let last = revoked.entry(high << 32 | low).or_insert(*sequence);
                if later(*sequence, *last) {
                    *last = *sequence;
                }
                place += width;
            }
            if revoked.len() > MAX_RECORDS {
                let problem = format!("the journal revokes more than {MAX_RECORDS} blocks");
                return Err(corrupt(self.offset(*at)?, problem));
            }
        }
        Ok(revoked)
    }

    /// The third pass: the place of the last bytes of each block.
    fn replay(&mut self) -> Result<(Places, JournalFacts), ImageError> {
        let found = self.scan()?;
        let revoked = self.revocations(&found)?;
        let (mut blocks, mut taken_back) = (BTreeMap::new(), 0);
        // A journal that has the growth of a file system has blocks beyond the old end, too: the device is the limit, not the superblock.
        let size = self.fs.image.size().map_err(|source| ImageError::Input {
            format: IMAGE_FORMAT,
            offset: 0,
            source,
        })?;
        let device = size.div_ceil(self.fs.block_size()).max(self.fs.blocks);
        for (at, sequence) in &found.descriptors {
            let bytes = self.block(*at)?;
            let mut place = *at;
            for tag in self.tags(&bytes) {
                place = self.next(place);
                if revoked.get(&tag.block).is_some_and(|last| !later(*sequence, *last)) {
                    taken_back += 1;
                    continue;
                }
                if tag.block >= device {
                    let text = format!(
                        "transaction {sequence} of the journal has block {}, and there are {device}",
                        tag.block
                    );
                    self.problem(place, text)?;
                    continue;
                }
                if self.has_checksums() && !self.data_fits(&tag, *sequence, &self.block(place)?) {
                    let text = format!(
                        "block {} in transaction {sequence} of the journal does not have its checksum: it is left out, and the kernel \
                         refuses the file system",
                        tag.block
                    );
                    self.problem(place, text)?;
                    continue;
                }
                blocks.insert(tag.block, (self.offset(place)?, tag.flags & ESCAPED != 0));
            }
        }
        self.look_for_fast_commits(found.end)?;
        let facts = JournalFacts {
            transactions: found.transactions,
            blocks: blocks.len(),
            revoked: taken_back,
        };
        Ok((blocks, facts))
    }

    /// Fast commits that belong behind the last transaction are named; they state changes of inodes and names, not blocks.
    fn look_for_fast_commits(&mut self, expected: u32) -> Result<(), ImageError> {
        // The kernel leaves the block between the ring and the first fast commit free.
        let first = self.fast.start + 1;
        if first >= self.fast.end {
            return Ok(());
        }
        let bytes = self.block(first)?;
        // le16 kind, le16 length, le32 features, le32 transaction
        if (le16(&bytes, 0), le32(&bytes, 8)) == (FAST_HEAD, expected) {
            let text = format!(
                "the journal has fast commits behind transaction {}, which are not read: the kernel shows newer files",
                expected.wrapping_sub(1)
            );
            self.problem(first, text)?;
        }
        Ok(())
    }
}

impl<R: ReadAt> ReplayedImage<R> {
    /// Fills `buffer`, which lies in one block of the file system.
    fn read_in_block(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let within = offset % self.block_size;
        let Some((from, escaped)) = self.blocks.get(&(offset / self.block_size)) else {
            return self.image.read_exact_at(buffer, offset);
        };
        self.image.read_exact_at(buffer, from + within)?;
        if *escaped {
            overwrite(buffer, within, &MAGIC.to_be_bytes(), 0);
        }
        Ok(())
    }
}

/// Writes the part of `bytes`, which lie at `at`, that falls into `buffer`, which lies at `from`.
fn overwrite(buffer: &mut [u8], from: u64, bytes: &[u8], at: u64) {
    let end = from.saturating_add(buffer.len() as u64).min(at + bytes.len() as u64);
    let start = from.max(at);
    if start < end {
        let (to, own) = ((start - from) as usize, (start - at) as usize);
        let len = (end - start) as usize;
        buffer[to..to + len].copy_from_slice(&bytes[own..own + len]);
    }
}

impl<R: ReadAt> ReadAt for ReplayedImage<R> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset
            .checked_add(buffer.len() as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.size()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let touched = offset / self.block_size..end.div_ceil(self.block_size);
        match self.blocks.range(touched).next() {
            None => self.image.read_exact_at(buffer, offset)?,
            Some(_) => {
                let mut done = 0;
                while done < buffer.len() {
                    let at = offset + done as u64;
                    let len = (self.block_size - at % self.block_size).min((buffer.len() - done) as u64) as usize;
                    self.read_in_block(&mut buffer[done..done + len], at)?;
                    done += len;
                }
            }
        }
        overwrite(buffer, offset, &self.superblock, SUPERBLOCK_OFFSET);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.image.size()
    }

    /// A block that lies over a hole is data.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let under = self.image.next_data(from)?;
        let over = self.blocks.range(from / self.block_size..).next();
        let size = self.size()?;
        // The image may end in the middle of a block.
        let over =
            over.map(|(block, _)| (block * self.block_size).max(from)..((block + 1) * self.block_size).min(size));
        Ok(match (under, over.filter(|over| over.start < size)) {
            (Some(under), Some(over)) if over.start < under.start => Some(over.start..over.end.min(under.start)),
            (None, over) => over,
            (under, _) => under,
        })
    }

    fn spend(&self, bytes: u64) -> io::Result<()> {
        self.image.spend(bytes)
    }
}
