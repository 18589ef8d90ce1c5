//! Block maps: the place of a file's blocks in ext2 and ext3, and in files that ext4 took over from them.
//!
//! ```text
//! i_block      0..12: blocks 0 to 11 of the file · 12: a block of numbers · 13: a block of such blocks · 14: one more level
//! number       le32 block in the image; 0 reads as zeros
//! ```
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/ifork.html>.

use super::{
    Ext4, Ext4Inode,
    extents::{Ext4Extent, MAX_EXTENTS},
    format::{I_BLOCK, le32},
    volume::{corrupt, read_at},
};
use crate::image::{ImageError, ReadAt};
use std::collections::BTreeSet;

/// Blocks that the inode names itself, and levels of blocks of numbers behind them.
const DIRECT: u64 = 12;
const LEVELS: u32 = 3;

/// The walk over one map.
struct MapWalk {
    /// Blocks of the file.
    blocks: u64,
    /// First block of the file that was not reached yet.
    next: u64,
    /// Blocks of numbers that were read: each is there once.
    seen: BTreeSet<u64>,
    out: Vec<Ext4Extent>,
}

impl<R: ReadAt> Ext4<R> {
    /// The extents of an inode with a block map, sorted. A block that belongs to the map itself is in none.
    pub(super) fn mapped_blocks(&self, inode: &Ext4Inode) -> Result<Vec<Ext4Extent>, ImageError> {
        let at = inode.offset + I_BLOCK as u64;
        let mut walk = MapWalk {
            blocks: inode.size.div_ceil(self.block_size),
            next: 0,
            seen: BTreeSet::new(),
            out: Vec::new(),
        };
        for index in 0..DIRECT {
            self.map_entry(le32(&inode.block, index as usize * 4), 0, at, &mut walk)?;
        }
        for level in 1..=LEVELS {
            let number = le32(&inode.block, (DIRECT as usize + level as usize - 1) * 4);
            self.map_entry(number, level, at, &mut walk)?;
        }
        Ok(walk.out)
    }

    /// Follows an entry of a map at offset `at`, below which there are `level` levels of blocks of numbers.
    fn map_entry(&self, number: u32, level: u32, at: u64, walk: &mut MapWalk) -> Result<(), ImageError> {
        if walk.next >= walk.blocks {
            return Ok(());
        }
        let number = u64::from(number);
        let per_block = self.block_size / 4;
        if number == 0 {
            walk.next = walk.next.saturating_add(per_block.saturating_pow(level));
            return Ok(());
        }
        if number >= self.blocks {
            let problem = format!(
                "block {} of a file is said to be at block {number} of {}",
                walk.next, self.blocks
            );
            return Err(corrupt(at, problem));
        }
        if level > 0 {
            if !walk.seen.insert(number) {
                return Err(corrupt(at, format!("block {number} is twice in one block map")));
            }
            let mut node = vec![0; self.block_size as usize];
            let node_at = number * self.block_size;
            read_at(&self.image, &mut node, node_at)?;
            for entry in node.chunks_exact(4) {
                self.map_entry(le32(entry, 0), level - 1, node_at, walk)?;
            }
            return Ok(());
        }
        walk.out_block(number, at)
    }
}

impl MapWalk {
    /// Adds the next block of the file, which is stored at block `number`.
    fn out_block(&mut self, number: u64, at: u64) -> Result<(), ImageError> {
        let logical = self.next;
        self.next += 1;
        if let Some(last) = self.out.last_mut().filter(|last| last.continues_with(logical, number)) {
            last.len += 1;
            return Ok(());
        }
        if self.out.len() >= MAX_EXTENTS {
            let problem = format!("a file has more than {MAX_EXTENTS} runs of blocks");
            return Err(corrupt(at, problem));
        }
        self.out.push(Ext4Extent::written(logical, number));
        Ok(())
    }
}
