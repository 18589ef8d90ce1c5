//! Extent trees: the place of a file's blocks.

use super::{
    Ext4, Ext4Inode,
    format::{EH_DEPTH, EH_ENTRIES, EXTENT_ENTRY, EXTENT_MAGIC, FLAG_COMPRESSED, FLAG_EXTENTS, I_BLOCK, le16, le32},
    volume::{corrupt, read_at},
};
use crate::image::{ImageError, ReadAt};

/// Longer extents are allocated but were never written: they read as zeros.
const MAX_WRITTEN: u16 = 0x8000;
/// Highest depth of an extent tree (`EXT4_MAX_EXTENT_DEPTH`).
const MAX_DEPTH: u16 = 5;
/// A file with more extents is refused: 16 MiB of memory.
pub(super) const MAX_EXTENTS: usize = 1 << 19;

/// A run of blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ext4Extent {
    /// First block in the file.
    pub(super) logical: u64,
    /// Number of blocks.
    pub(super) len: u64,
    /// First block in the image; `None` for blocks that were never written.
    physical: Option<u64>,
}

impl Ext4Extent {
    /// One block of a file, which is stored.
    pub(super) fn written(logical: u64, physical: u64) -> Self {
        Self {
            logical,
            len: 1,
            physical: Some(physical),
        }
    }

    /// Whether block `logical` of the file, which is stored at block `physical`, follows on both sides.
    pub(super) fn continues_with(&self, logical: u64, physical: u64) -> bool {
        self.logical + self.len == logical && self.physical.is_some_and(|first| first + self.len == physical)
    }
}

/// A run of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataRun {
    /// Offset in the file, in bytes.
    pub at: u64,
    /// Offset in the image; `None` for a range that was never written and reads as zeros.
    pub from: Option<u64>,
    /// Length in bytes; the last run of a file may go beyond its data.
    pub len: u64,
}

impl<R: ReadAt> Ext4<R> {
    /// The runs of an inode's bytes, sorted; a range without a run reads as zeros.
    pub fn runs(&self, inode: &Ext4Inode) -> Result<Vec<DataRun>, ImageError> {
        if inode.is_inline() {
            return self.inline_runs(inode);
        }
        let extents = self.extents(inode)?;
        let runs = extents.iter().map(|e| DataRun {
            at: e.logical * self.block_size,
            from: e.physical.map(|block| block * self.block_size),
            len: e.len * self.block_size,
        });
        Ok(runs.collect())
    }

    /// The extents of an inode, sorted, without overlap, all inside the image.
    pub(super) fn extents(&self, inode: &Ext4Inode) -> Result<Vec<Ext4Extent>, ImageError> {
        if inode.flags & FLAG_COMPRESSED != 0 {
            let problem = format!("inode {} is compressed (e2compr), which is not supported", inode.number);
            return Err(corrupt(inode.offset, problem));
        }
        if inode.is_inline() {
            let problem = format!("inode {} has inline data instead of blocks", inode.number);
            return Err(corrupt(inode.offset, problem));
        }
        if inode.flags & FLAG_EXTENTS == 0 {
            return self.mapped_blocks(inode);
        }
        let mut out = Vec::new();
        let depth = le16(&inode.block, EH_DEPTH);
        if depth > MAX_DEPTH {
            return Err(corrupt(
                inode.offset + I_BLOCK as u64,
                format!("the extent tree has the depth {depth}, more than {MAX_DEPTH}"),
            ));
        }
        self.extent_node(&inode.block, inode.offset + I_BLOCK as u64, depth, true, &mut out)?;
        Ok(out)
    }

    /// Adds the extents of a node and of the nodes below it to `out`.
    fn extent_node(
        &self,
        node: &[u8],
        at: u64,
        depth: u16,
        root: bool,
        out: &mut Vec<Ext4Extent>,
    ) -> Result<(), ImageError> {
        let (magic, count) = (le16(node, 0), usize::from(le16(node, EH_ENTRIES)));
        // A node below the root has at least one entry, so every node that is visited adds to `out`, which is bounded.
        if magic != EXTENT_MAGIC
            || le16(node, EH_DEPTH) != depth
            || EXTENT_ENTRY * (1 + count) > node.len()
            || (count == 0 && !root)
        {
            let problem = format!(
                "a node of the extent tree has the magic {magic:#06x}, {count} entries and the depth {}",
                le16(node, EH_DEPTH)
            );
            return Err(corrupt(at, problem));
        }
        for entry in node[EXTENT_ENTRY..EXTENT_ENTRY * (1 + count)]
            .as_chunks::<EXTENT_ENTRY>()
            .0
        {
            if depth == 0 {
                let extent = self.extent(entry, at, out.last())?;
                out.push(extent);
                if out.len() > MAX_EXTENTS {
                    return Err(corrupt(at, format!("a file has more than {MAX_EXTENTS} extents")));
                }
                continue;
            }
            let block = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
            if block == 0 || block >= self.blocks {
                return Err(corrupt(
                    at,
                    format!(
                        "a node of the extent tree is said to be at block {block} of {}",
                        self.blocks
                    ),
                ));
            }
            let mut child = vec![0; self.block_size as usize];
            let child_at = block * self.block_size;
            read_at(&self.image, &mut child, child_at)?;
            self.extent_node(&child, child_at, depth - 1, false, out)?;
        }
        Ok(())
    }

    /// An entry of a leaf, which must lie behind `last` in the file.
    fn extent(&self, entry: &[u8; EXTENT_ENTRY], at: u64, last: Option<&Ext4Extent>) -> Result<Ext4Extent, ImageError> {
        let logical = u64::from(le32(entry, 0));
        let len = le16(entry, 4);
        let start = u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32;
        let (len, written) = match len {
            ..=MAX_WRITTEN => (len, true),
            _ => (len - MAX_WRITTEN, false),
        };
        let len = u64::from(len);
        let after = last.map_or(0, |e| e.logical + e.len);
        if len == 0 || logical < after || start == 0 || start + len > self.blocks {
            let problem = format!(
                "an extent of {len} blocks for block {logical} of its file is stored at block {start} of {}",
                self.blocks
            );
            return Err(corrupt(at, problem));
        }
        Ok(Ext4Extent {
            logical,
            len,
            physical: written.then_some(start),
        })
    }

    /// Fills `buffer` with a file's bytes from `position` on; a range without an extent reads as zeros.
    pub(super) fn read_mapped(
        &self,
        extents: &[Ext4Extent],
        mut buffer: &mut [u8],
        mut position: u64,
    ) -> Result<(), ImageError> {
        while !buffer.is_empty() {
            let logical = position / self.block_size;
            let next = extents.partition_point(|e| e.logical + e.len <= logical);
            let (physical, until) = match extents.get(next) {
                Some(e) if e.logical <= logical => {
                    let physical = e.physical.map(|p| p + (logical - e.logical));
                    (physical, (e.logical + e.len) * self.block_size)
                }
                Some(e) => (None, e.logical * self.block_size),
                None => (None, u64::MAX),
            };
            let n = usize::try_from(until - position).map_or(buffer.len(), |n| n.min(buffer.len()));
            let (now, rest) = buffer.split_at_mut(n);
            match physical {
                Some(block) => read_at(&self.image, now, block * self.block_size + position % self.block_size)?,
                None => now.fill(0),
            }
            buffer = rest;
            position += n as u64;
        }
        Ok(())
    }
}
