//! Extent trees, as they are written: the counterpart of `extents`.

use super::{
    checksum::crc32c,
    format::{
        BLOCK, EH_DEPTH, EH_ENTRIES, EH_MAX, EXTENT_BLOCKS, EXTENT_ENTRY, EXTENT_MAGIC, I_BLOCK_SIZE, put16, put32,
    },
    space::Stretch,
};

/// Extents or indexes in an inode, and in a block: the last four bytes hold its checksum.
const IN_INODE: usize = I_BLOCK_SIZE / EXTENT_ENTRY - 1;
const IN_BLOCK: usize = (BLOCK as usize - 4) / EXTENT_ENTRY - 1;

/// A run of a file's blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    logical: u64,
    place: Stretch,
}

/// Where the blocks of a file lie.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct BlockRuns {
    runs: Vec<Run>,
}

/// A finished tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ExtentTree {
    /// The root, which lies in the inode.
    pub(super) root: [u8; I_BLOCK_SIZE],
    /// The other nodes, each with its block.
    pub(super) nodes: Vec<(u64, Vec<u8>)>,
}

/// The first block of a file that an entry is for, and the entry.
type Entry = (u64, [u8; EXTENT_ENTRY]);

impl BlockRuns {
    /// Adds a run behind all others of the file: its blocks from `logical` on lie at `place`.
    pub(super) fn push(&mut self, logical: u64, place: Stretch) {
        match self.runs.last_mut() {
            Some(last) if last.logical + last.place.len == logical && last.place.end() == place.first => {
                last.place.len += place.len;
            }
            _ => self.runs.push(Run { logical, place }),
        }
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.runs.iter().map(|run| run.place.len).sum()
    }

    fn extents(&self) -> Vec<Entry> {
        let mut out = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let mut done = 0;
            while done < run.place.len {
                let len = (run.place.len - done).min(EXTENT_BLOCKS);
                let mut entry = [0; EXTENT_ENTRY];
                put32(&mut entry, 0, (run.logical + done) as u32);
                put16(&mut entry, 4, len as u16);
                put32(&mut entry, 8, (run.place.first + done) as u32);
                out.push((run.logical + done, entry));
                done += len;
            }
        }
        out
    }

    /// The tree, whose nodes get their blocks from `take`. `seed` is that of the inode's checksums.
    pub(super) fn tree(&self, seed: u32, mut take: impl FnMut() -> u64) -> ExtentTree {
        let mut entries = self.extents();
        let (mut depth, mut nodes) = (0, Vec::new());
        while entries.len() > IN_INODE {
            let mut above = Vec::with_capacity(entries.len() / IN_BLOCK + 1);
            for part in entries.chunks(IN_BLOCK) {
                let mut bytes = vec![0; BLOCK as usize];
                node(&mut bytes[..BLOCK as usize - 4], part, IN_BLOCK, depth);
                let checksum = crc32c(seed, &bytes[..BLOCK as usize - 4]);
                put32(&mut bytes, BLOCK as usize - 4, checksum);
                let block = take();
                let mut index = [0; EXTENT_ENTRY];
                put32(&mut index, 0, part[0].0 as u32);
                put32(&mut index, 4, block as u32);
                above.push((part[0].0, index));
                nodes.push((block, bytes));
            }
            entries = above;
            depth += 1;
        }
        let mut root = [0; I_BLOCK_SIZE];
        node(&mut root, &entries, IN_INODE, depth);
        ExtentTree { root, nodes }
    }
}

/// Fills a node, which has room for `max` entries, at the height `depth` above the leaves.
fn node(bytes: &mut [u8], entries: &[Entry], max: usize, depth: u16) {
    put16(bytes, 0, EXTENT_MAGIC);
    put16(bytes, EH_ENTRIES, entries.len() as u16);
    put16(bytes, EH_MAX, max as u16);
    put16(bytes, EH_DEPTH, depth);
    for (place, (_, entry)) in bytes[EXTENT_ENTRY..].chunks_exact_mut(EXTENT_ENTRY).zip(entries) {
        place.copy_from_slice(entry);
    }
}

/// Number of blocks of a tree of `extents` extents.
fn node_blocks(extents: u64) -> u64 {
    let (mut entries, mut total) = (extents, 0);
    while entries > IN_INODE as u64 {
        entries = entries.div_ceil(IN_BLOCK as u64);
        total += entries;
    }
    total
}

/// The number of blocks that a file of `blocks` blocks takes at most, with those of its extent tree, however many of its blocks are
/// zeros and are left out.
pub(super) fn most_blocks(blocks: u64) -> u64 {
    // Without a hole there are two runs, which copies and the length of extents divide. A hole makes one extent more and saves a block,
    // which pays for the node that the tree may grow by, up to the number of extents at which it grows by two.
    if blocks <= (IN_INODE * IN_BLOCK) as u64 {
        blocks
    } else {
        blocks + node_blocks(2 * (blocks / EXTENT_BLOCKS) + 4) + 2
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{le16, le32};
    use super::super::space::Space;
    use super::*;

    const SEED: u32 = 7;

    /// The extents of a tree as (block of the file, block, length), and its depth.
    fn walk(tree: &ExtentTree) -> (Vec<(u64, u64, u64)>, u16) {
        let depth = le16(&tree.root, EH_DEPTH);
        let mut out = Vec::new();
        let mut seen = 0;
        visit(tree, &tree.root, depth, &mut out, &mut seen);
        assert_eq!(seen, tree.nodes.len(), "every node hangs in the tree");
        (out, depth)
    }

    fn visit(tree: &ExtentTree, node: &[u8], depth: u16, out: &mut Vec<(u64, u64, u64)>, seen: &mut usize) {
        assert_eq!((le16(node, 0), le16(node, EH_DEPTH)), (EXTENT_MAGIC, depth));
        let (count, max) = (le16(node, EH_ENTRIES), le16(node, EH_MAX));
        assert!((1..=max).contains(&count), "{count} of {max}");
        assert_eq!(usize::from(max), if node.len() == I_BLOCK_SIZE { 4 } else { 340 });
        for at in (1..=usize::from(count)).map(|n| n * EXTENT_ENTRY) {
            let logical = u64::from(le32(node, at));
            if depth == 0 {
                out.push((logical, u64::from(le32(node, at + 8)), u64::from(le16(node, at + 4))));
                continue;
            }
            let block = u64::from(le32(node, at + 4));
            let found = tree.nodes.iter().find(|(number, _)| *number == block).expect("a node");
            *seen += 1;
            assert_eq!(crc32c(SEED, &found.1[..4092]), le32(&found.1, 4092));
            let before = out.len();
            visit(tree, &found.1, depth - 1, out, seen);
            assert_eq!(out[before].0, logical, "an index names the first block below it");
        }
    }

    /// The tree of a file whose data and metadata are taken from `space`, and how often a block was asked for.
    fn build(pieces: &[(u64, u64)], space: &mut Space) -> (ExtentTree, u64) {
        let mut runs = BlockRuns::default();
        for (logical, len) in pieces {
            let mut at = *logical;
            for place in space.take_all(*len) {
                runs.push(at, place);
                at += place.len;
            }
        }
        assert_eq!(runs.blocks(), pieces.iter().map(|p| p.1).sum::<u64>());
        let stored = runs.blocks();
        let tree = runs.tree(SEED, || space.take(1).first);
        let nodes = tree.nodes.len() as u64;
        (tree, stored + nodes)
    }

    #[test]
    fn four_extents_fit_the_inode() {
        let pieces: Vec<(u64, u64)> = (0..4).map(|n| (n * 10, 3)).collect();
        let (tree, blocks) = build(&pieces, &mut Space::new(2, 100));
        assert_eq!((tree.nodes.len(), blocks), (0, 12));
        assert_eq!(
            walk(&tree),
            (vec![(0, 100, 3), (10, 103, 3), (20, 106, 3), (30, 109, 3)], 0)
        );
        // Pieces that follow in file and image are one.
        let (tree, _) = build(&[(0, 3), (3, 5), (8, 1)], &mut Space::new(2, 100));
        assert_eq!(walk(&tree).0, [(0, 100, 9)]);
    }

    #[test]
    fn many_extents_take_levels_of_blocks() {
        for (count, depth, nodes) in [
            (5, 1, 1),
            (340, 1, 1),
            (1360, 1, 4),
            (1361, 2, 6),
            (200_000, 2, 589 + 2),
        ] {
            let pieces: Vec<(u64, u64)> = (0..count).map(|n| (n * 2, 1)).collect();
            let (tree, _) = build(&pieces, &mut Space::new(2, 100));
            let (extents, found) = walk(&tree);
            assert_eq!((extents.len() as u64, found, tree.nodes.len()), (count, depth, nodes));
            assert_eq!(node_blocks(count), nodes as u64);
            assert!(extents.iter().zip(&pieces).all(|(e, p)| (e.0, e.2) == *p));
        }
    }

    /// A file of 300 GiB lies around the copies, in extents that are as long as they may be.
    #[test]
    fn a_file_far_above_64_gib_has_a_deep_tree() {
        let (data, tail) = ((300 << 30) / BLOCK, (300 << 30) / BLOCK / 127 + 2);
        let mut space = Space::new(20, 20_000);
        let (tree, blocks) = build(&[(0, data), (data + 5, tail)], &mut space);
        let (extents, depth) = walk(&tree);
        assert_eq!(depth, 2);
        let mut next = 0;
        for (number, (logical, place, len)) in extents.iter().enumerate() {
            assert!(*logical == next || *logical == data + 5, "extent {number}");
            assert!((1..=EXTENT_BLOCKS).contains(len), "extent {number}");
            // 2400 groups: those of copies are the powers of 3, 5 and 7.
            for copy in [1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343, 625, 729, 2187].map(|g| g * 32_768) {
                assert!(place + len <= copy || *place >= copy + 20, "extent {number}");
            }
            next = logical + len;
        }
        assert_eq!(next, data + 5 + tail);
        assert!(blocks <= most_blocks(data + tail), "{blocks}");
    }

    #[test]
    fn no_file_takes_more_than_it_may() {
        // Runs of data with one hole between them: as many blocks as `whole` without the holes.
        for whole in [1u64, 3, 8, 100, 1360, 1361, 5000, 70_000, 300_000] {
            for holes in [0, 1, 2, 3, 4, 5, 100, 338, 339, 340, 1357, 1358, 1359, 1360, 2000] {
                let Some(left) = whole.checked_sub(2 * holes + 2) else {
                    continue;
                };
                let mut pieces: Vec<(u64, u64)> = (0..=holes).map(|n| (n * 2, 1)).collect();
                pieces.push((whole, left + 1));
                for start in [100, 32_768 - whole / 2 % 32_768] {
                    let (_, blocks) = build(&pieces, &mut Space::new(2, start));
                    assert!(blocks <= most_blocks(whole), "{whole} blocks, {holes} holes: {blocks}");
                }
            }
        }
    }
}
