//! Writes the file system from front to back: first the files, whose contents are read once, then what is known only behind them.

use super::{
    checksum::inode_seed,
    extent_tree::{BlockRuns, most_blocks},
    format::{BLOCK, FLAG_VERITY, FORMAT, GROUP, INODE_SIZE, LOST_FOUND, ROOT_INODE, SUPERBLOCK_OFFSET, VERITY_ALIGN},
    groups::has_superblock,
    listing::{NewEntry, directory, directory_blocks},
    plan::{Ext4Layout, Extents, VerityFile, refuse},
    records::{FIRST_INODE, GroupRecords, Identity, NewInode, Totals, checksum_seed, superblock_of},
    space::{FrontSpace, Space, Stretch},
};
use crate::{
    image::{ImageError, Open},
    model::{Epoch, RelPath, VerityDigest},
    verity::{Baked, DESCRIPTOR_SIZE, MerkleTree, VerityError},
};
use std::{collections::BTreeMap, io};

/// Stores bytes at an offset. Bytes that are never stored are zeros.
pub type StoreAt<'a> = &'a mut dyn FnMut(&[u8], u64) -> io::Result<()>;

/// Pieces that follow each other are stored together up to this many bytes.
const GATHERED: usize = 256 * 1024;
/// A piece of so many bytes is stored by itself.
const LARGE: usize = 64 * 1024;
const DIRECTORY_MODE: u16 = 0o040_555;
const ROOT_MODE: u16 = 0o040_755;
const LOST_FOUND_MODE: u16 = 0o040_700;
const FILE_MODE: u16 = 0o100_444;
/// A directory of more bytes would need the feature large_dir.
const MAX_DIRECTORY: u64 = u32::MAX as u64;

/// Writes the file system of the root `root` with the files of `layout` by `store`: files and directories from front to back, then the
/// tables. Returns its length in bytes. Directories have the mode 0555 and files 0444, all owned by root, and
/// every time is `epoch`. Each content is read once and checked against its digest.
///
/// # Errors
/// A content cannot be read or is not what its digest says; the files do not fit a file system; `store` fails.
///
/// Memory: the Merkle tree of one file, 1/127 of its length, and about 200 bytes for each file.
pub fn write(
    layout: &Ext4Layout,
    root: &VerityDigest,
    epoch: Epoch,
    open: Open<'_>,
    store: StoreAt<'_>,
) -> Result<u64, ImageError> {
    let folders = folders(layout)?;
    let inodes = u64::from(FIRST_INODE - 1) + (folders.len() - 1 + layout.items.len()) as u64;
    let front = FrontSpace::new(inodes, content(layout, &folders))?;
    let mut volume = NewVolume {
        out: Gatherer {
            store,
            at: 0,
            bytes: Vec::with_capacity(GATHERED),
        },
        space: Space::new(front.head, front.data),
        inodes: BTreeMap::new(),
    };
    // Directories have the first numbers, so that another file changes no directory's.
    let first_file = FIRST_INODE + folders.len() as u32 - 1;
    for (number, item) in (first_file..).zip(&layout.items) {
        volume.file(number, item, open)?;
    }
    for folder in &folders {
        volume.folder(folder)?;
    }
    let directories = Stretch {
        first: u64::from(FIRST_INODE),
        len: folders.len() as u64 - 1,
    };
    volume.tables(&front, inodes, directories, &Identity::new(root, epoch))
}

/// A directory with its number and its entries.
struct Folder<'a> {
    number: u32,
    parent: u32,
    mode: u16,
    entries: Vec<NewEntry<'a>>,
}

impl Folder<'_> {
    fn blocks(&self) -> u64 {
        directory_blocks(self.entries.iter().map(|e| e.name))
    }
}

/// The directories in the order of their numbers: the root, `lost+found` and those of the layout by path.
fn folders(layout: &Ext4Layout) -> Result<Vec<Folder<'_>>, ImageError> {
    let numbers: BTreeMap<Option<&RelPath>, u32> = std::iter::once((None, ROOT_INODE))
        .chain(layout.directories.iter().map(Some).zip(FIRST_INODE + 1..))
        .collect();
    let mut entries: BTreeMap<Option<RelPath>, Vec<NewEntry<'_>>> = BTreeMap::new();
    entries.entry(None).or_default().push(NewEntry {
        name: LOST_FOUND,
        inode: FIRST_INODE,
        is_directory: true,
    });
    let paths = layout.directories.iter().map(|path| (path, true));
    let paths = paths.chain(layout.items.iter().map(|item| (&item.path, false)));
    for ((path, is_directory), inode) in paths.zip(FIRST_INODE + 1..) {
        entries.entry(path.parent()).or_default().push(NewEntry {
            name: path.name(),
            inode,
            is_directory,
        });
    }
    let mut folder = |path: Option<&RelPath>, number, mode| {
        let mut entries = entries.remove(&path.cloned()).unwrap_or_default();
        entries.sort_unstable_by_key(|e| e.name);
        let parent = path.and_then(RelPath::parent);
        Folder {
            number,
            parent: numbers[&parent.as_ref()],
            mode,
            entries,
        }
    };
    let mut out = vec![folder(None, ROOT_INODE, ROOT_MODE)];
    out.push(Folder {
        number: FIRST_INODE,
        parent: ROOT_INODE,
        mode: LOST_FOUND_MODE,
        entries: Vec::new(),
    });
    for (path, number) in layout.directories.iter().zip(FIRST_INODE + 1..) {
        out.push(folder(Some(path), number, DIRECTORY_MODE));
        let bytes = out.last().map_or(0, Folder::blocks) * BLOCK;
        if bytes > MAX_DIRECTORY {
            let problem = format!("the directory needs {bytes} bytes, more than {MAX_DIRECTORY}");
            return Err(refuse(&path.to_string(), problem));
        }
    }
    Ok(out)
}

/// Number of blocks that all files and directories take at most.
fn content(layout: &Ext4Layout, folders: &[Folder<'_>]) -> u64 {
    let files = layout.items.iter().map(|item| {
        let extents = Extents::new(item.size);
        most_blocks(item.size.div_ceil(BLOCK) + (extents.end - extents.tree) / BLOCK)
    });
    let folders = folders.iter().map(|folder| most_blocks(folder.blocks()));
    files.chain(folders).fold(0, u64::saturating_add)
}

/// Gathers pieces that follow each other, because a file has several small ones.
struct Gatherer<'a> {
    store: StoreAt<'a>,
    /// Where the bytes go that were gathered.
    at: u64,
    bytes: Vec<u8>,
}

impl Gatherer<'_> {
    fn put(&mut self, bytes: &[u8], at: u64) -> Result<(), ImageError> {
        let end = self.at + self.bytes.len() as u64;
        // The last block of a file's data is often not full.
        let gap = at.checked_sub(end).filter(|gap| *gap < BLOCK).map(|gap| gap as usize);
        match gap {
            Some(gap) if bytes.len() < LARGE && self.bytes.len() + gap + bytes.len() <= GATHERED => {
                self.bytes.resize(self.bytes.len() + gap, 0);
                self.bytes.extend_from_slice(bytes);
                return Ok(());
            }
            _ => self.flush()?,
        }
        self.at = at;
        if bytes.len() >= LARGE {
            self.at += bytes.len() as u64;
            return stored((self.store)(bytes, at));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        if !self.bytes.is_empty() {
            stored((self.store)(&self.bytes, self.at))?;
            self.at += self.bytes.len() as u64;
            self.bytes.clear();
        }
        Ok(())
    }
}

fn stored(result: io::Result<()>) -> Result<(), ImageError> {
    result.map_err(|source| ImageError::Write { format: FORMAT, source })
}

/// A file system that is being written.
struct NewVolume<'a> {
    out: Gatherer<'a>,
    space: Space,
    inodes: BTreeMap<u32, NewInode>,
}

impl NewVolume<'_> {
    /// Stores a file, data and metadata.
    fn file(&mut self, number: u32, item: &VerityFile, open: Open<'_>) -> Result<(), ImageError> {
        let path = || item.path.to_string();
        let content = open(&item.digest).map_err(|source| ImageError::Read { path: path(), source })?;
        let mut runs = BlockRuns::default();
        let mut at = 0;
        let baked = MerkleTree::build_tee(content, item.size, |piece| {
            self.data(&mut runs, at, piece).map_err(StoreFailure::Output)?;
            at += piece.len() as u64 / BLOCK;
            Ok(())
        })
        .map_err(|e: StoreFailure| e.into_error(item))?;
        if baked.digest != item.digest {
            return Err(ImageError::Digest {
                path: path(),
                expected: item.digest,
                actual: baked.digest,
            });
        }
        let tail = tail(item.size, baked);
        self.place(&mut runs, item.size.next_multiple_of(VERITY_ALIGN) / BLOCK, &tail)?;
        self.inode(number, &runs, item.size, (FILE_MODE, FLAG_VERITY, 1))
    }

    /// Stores a piece of a file's data, which begins at block `first` of the file, without the blocks of zeros.
    fn data(&mut self, runs: &mut BlockRuns, first: u64, piece: &[u8]) -> Result<(), ImageError> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        let mut at = 0;
        while at < piece.len() {
            let block = |at: usize| &piece[at..(at + BLOCK as usize).min(piece.len())];
            let start = at;
            while at < piece.len() && block(at) != &ZEROS[..block(at).len()] {
                at += block(at).len();
            }
            if at > start {
                self.place(runs, first + (start as u64) / BLOCK, &piece[start..at])?;
            } else {
                at += block(at).len();
            }
        }
        Ok(())
    }

    /// Stores `bytes` as the blocks of a file from block `logical` on.
    fn place(&mut self, runs: &mut BlockRuns, mut logical: u64, mut bytes: &[u8]) -> Result<(), ImageError> {
        while !bytes.is_empty() {
            let place = self.space.take((bytes.len() as u64).div_ceil(BLOCK));
            let (now, rest) = bytes.split_at(bytes.len().min((place.len * BLOCK) as usize));
            self.out.put(now, place.first * BLOCK)?;
            runs.push(logical, place);
            logical += place.len;
            bytes = rest;
        }
        Ok(())
    }

    /// Stores the extent tree behind a file and keeps its inode: mode, flags and links.
    fn inode(
        &mut self,
        number: u32,
        runs: &BlockRuns,
        size: u64,
        (mode, flags, links): (u16, u32, u64),
    ) -> Result<(), ImageError> {
        let seed = inode_seed(checksum_seed(), number, 0);
        let tree = runs.tree(seed, || self.space.take(1).first);
        for (block, bytes) in &tree.nodes {
            self.out.put(bytes, block * BLOCK)?;
        }
        let blocks = runs.blocks() + tree.nodes.len() as u64;
        let inode = NewInode {
            mode,
            flags,
            links,
            size,
            blocks,
            tree: tree.root,
        };
        self.inodes.insert(number, inode);
        Ok(())
    }

    fn folder(&mut self, folder: &Folder<'_>) -> Result<(), ImageError> {
        let seed = inode_seed(checksum_seed(), folder.number, 0);
        let bytes = directory(folder.number, folder.parent, &folder.entries, seed);
        let mut runs = BlockRuns::default();
        self.place(&mut runs, 0, &bytes)?;
        let below = folder.entries.iter().filter(|e| e.is_directory).count() as u64;
        self.inode(folder.number, &runs, bytes.len() as u64, (folder.mode, 0, 2 + below))
    }

    /// Stores the tables, and returns the length of the file system.
    fn tables(
        mut self,
        front: &FrontSpace,
        inodes: u64,
        directories: Stretch,
        identity: &Identity,
    ) -> Result<u64, ImageError> {
        let blocks = self.space.end();
        let tables = front.tables(blocks);
        let heads: Vec<u64> = (0..tables.groups).filter(|g| has_superblock(*g)).collect();
        let head = |group: &u64| Stretch {
            first: group * GROUP,
            len: 1 + tables.descriptors,
        };
        let mut used: Vec<Stretch> = heads.iter().map(head).collect();
        for [block_bitmap, inode_bitmap, table] in &tables.of_groups {
            for (first, len) in [(*block_bitmap, 1), (*inode_bitmap, 1), (*table, tables.table())] {
                used.push(Stretch { first, len });
            }
        }
        used.extend(Space::new(front.head, front.data).stretches_up_to(blocks));
        used.sort_unstable_by_key(|s| s.first);
        let totals = Totals {
            blocks,
            inodes,
            directories,
            used,
        };
        let (mut descriptors, mut free) = (Vec::new(), 0);
        for (group, [block_bitmap, inode_bitmap, _]) in (0..).zip(&tables.of_groups) {
            let records = GroupRecords::new(group, &tables, &totals);
            self.out.put(&records.block_bitmap, block_bitmap * BLOCK)?;
            self.out.put(&records.inode_bitmap, inode_bitmap * BLOCK)?;
            free += records.free_blocks;
            descriptors.extend_from_slice(&records.descriptor);
        }
        for (number, inode) in &self.inodes {
            let (group, index) = (
                u64::from(number - 1) / tables.inodes_per_group,
                u64::from(number - 1) % tables.inodes_per_group,
            );
            let at = tables.of_groups[group as usize][2] * BLOCK + index * INODE_SIZE;
            self.out.put(&inode.encode(*number, identity), at)?;
        }
        for group in heads {
            let superblock = superblock_of(group, &tables, &totals, free, identity);
            let offset = if group == 0 { SUPERBLOCK_OFFSET } else { 0 };
            self.out.put(&superblock, group * GROUP * BLOCK + offset)?;
            self.out.put(&descriptors, (group * GROUP + 1) * BLOCK)?;
        }
        self.out.flush()?;
        Ok(blocks * BLOCK)
    }
}

/// The metadata of a file of `size` bytes, as they lie from a block on: the Merkle tree, the descriptor, and its size at the end of its
/// block.
fn tail(size: u64, baked: Baked) -> Vec<u8> {
    let extents = Extents::new(size);
    let mut tail = baked.tree;
    tail.resize((extents.descriptor - extents.tree) as usize, 0);
    tail.extend_from_slice(&baked.descriptor);
    tail.resize((extents.end - extents.tree) as usize - 4, 0);
    tail.extend_from_slice(&(DESCRIPTOR_SIZE as u32).to_le_bytes());
    tail
}

/// An error of reading the content or of storing it.
enum StoreFailure {
    Verity(VerityError),
    Output(ImageError),
}

impl From<VerityError> for StoreFailure {
    fn from(error: VerityError) -> Self {
        Self::Verity(error)
    }
}

impl StoreFailure {
    fn into_error(self, item: &VerityFile) -> ImageError {
        match self {
            Self::Output(error) => error,
            Self::Verity(VerityError::Size { expected, actual, more }) => ImageError::Length {
                path: item.path.to_string(),
                expected,
                actual,
                more,
            },
            Self::Verity(source) => ImageError::Verity {
                path: item.path.to_string(),
                source,
            },
        }
    }
}
