//! The layout of an image: the offset of every inode and data block, decided before a byte is written.
//!
//! Inodes follow each other in 32-byte slots. Data of less than a block is stored behind its inode and must not cross into the
//! next block: in front of an inode whose data would, slots are left free. A link target that fills a block together with its
//! inode gets a block of its own. The rules are those of `compute_erofs_inode_padding_for_tail` and `compute_erofs_inodes` in
//! `libcomposefs/lcfs-writer-erofs.c` of composefs 1.0.8.

use super::{
    format::{
        BLOCK, BLOCK_BITS, CHUNK_BLOCK_BITS_MAX, CHUNK_INDEX_SIZE, COMPACT_SIZE, DataLayout, EXTENDED_SIZE, FORMAT,
        INODES_OFFSET, SLOT, XATTR_UNIT,
    },
    inodes::{Body, ErofsInode},
    xattr::Attribute,
};
use crate::image::ImageError;

/// Place of one inode and of its data.
pub(super) struct InodePlacement {
    /// Byte offset of the inode, a multiple of [`SLOT`].
    pub(super) offset: u64,
    /// Whether the header has the compact form.
    pub(super) compact: bool,
    pub(super) layout: DataLayout,
    /// Size field of the inode: bytes of data.
    pub(super) size: u64,
    /// First data block, device number or chunk format.
    pub(super) union: u32,
}

impl InodePlacement {
    /// Whether the target of this link lies in a block of its own.
    pub(super) fn target_apart(&self) -> bool {
        self.layout == DataLayout::Plain
    }
}

/// The layout of an image.
pub(super) struct ErofsLayout {
    /// The place of each inode.
    pub(super) places: Vec<InodePlacement>,
    /// Number of the root's inode.
    pub(super) root_nid: u16,
    /// The earliest modification time in the tree, in seconds; inodes with this time can have the compact form.
    pub(super) build_time: u64,
    /// Byte offset behind the last inode: the beginning of the shared attributes.
    pub(super) inodes_end: u64,
    /// The block in which the shared attributes begin.
    pub(super) xattr_block: u32,
    /// References to the shared attributes: offsets from the start of that block in units of 4 bytes.
    pub(super) references: Vec<u32>,
    /// Byte offset of the first data block.
    pub(super) data: u64,
    /// Size of the image, in blocks.
    pub(super) blocks: u32,
}

impl ErofsLayout {
    /// Places `inodes` and the `shared` attributes they refer to. An image of 2³² blocks or inodes is refused.
    pub(super) fn new(inodes: &[ErofsInode<'_>], shared: &[Attribute<'_>]) -> Result<Self, ImageError> {
        to_u32(inodes.len() as u64, "inodes")?;
        let build_time = inodes.iter().map(|i| i.meta.mtime.seconds()).min().unwrap_or(0);
        let mut places = Vec::with_capacity(inodes.len());
        let mut inodes_end = INODES_OFFSET;
        for inode in inodes {
            let place = place(inode, inodes_end, build_time);
            inodes_end = end(inode, &place);
            places.push(place);
        }

        let xattr_block = inodes_end / BLOCK;
        let mut shared_end = inodes_end;
        let mut references = Vec::with_capacity(shared.len());
        for attribute in shared {
            let reference = (shared_end - xattr_block * BLOCK) / XATTR_UNIT;
            references.push(to_u32(reference, "units of shared attributes")?);
            shared_end += attribute.padded_size();
        }

        let data = shared_end.next_multiple_of(BLOCK);
        let mut block = data / BLOCK;
        for (inode, place) in inodes.iter().zip(&mut places) {
            let count = data_blocks(inode, place);
            if count > 0 {
                place.union = to_u32(block, "blocks")?;
                block += count;
            }
        }
        let root = places.first().map_or(0, |root| root.offset / SLOT);
        Ok(Self {
            places,
            root_nid: u16::try_from(root).map_err(|_| too_many(root, "slots before the root"))?,
            build_time,
            inodes_end,
            xattr_block: to_u32(xattr_block, "blocks")?,
            references,
            data,
            blocks: to_u32(block, "blocks")?,
        })
    }

    /// Number of inode `index`.
    pub(super) fn nid(&self, index: usize) -> u64 {
        self.places[index].offset / SLOT
    }
}

/// The place of an inode at the first possible offset from `start` on; the number of a data block is filled in later.
fn place(inode: &ErofsInode<'_>, start: u64, build_time: u64) -> InodePlacement {
    let (mut layout, size, union) = match &inode.body {
        Body::Directory(directory) => {
            let layout = match directory.tail_size {
                0 => DataLayout::Plain,
                _ => DataLayout::Inline,
            };
            (layout, directory.block_count() * BLOCK + directory.tail_size, 0)
        }
        Body::Small(bytes) if bytes.is_empty() => (DataLayout::Plain, 0, 0),
        Body::Small(bytes) => (DataLayout::Inline, bytes.len() as u64, 0),
        Body::Object { size, .. } => (DataLayout::Chunks, *size, chunk_bits(*size) - u32::from(BLOCK_BITS)),
        Body::Symlink(target) => (DataLayout::Inline, target.len() as u64, 0),
        Body::CharDevice(number) | Body::BlockDevice(number) => (DataLayout::Plain, 0, *number),
        Body::Fifo | Body::Whiteout => (DataLayout::Plain, 0, 0),
    };
    let compact = inode.meta.mtime.seconds() == build_time
        && inode.nlink <= u32::from(u16::MAX)
        && inode.meta.uid <= u32::from(u16::MAX)
        && inode.meta.gid <= u32::from(u16::MAX)
        && size <= u64::from(u32::MAX);
    let head = header_size(compact) + inode.attributes.size();
    let mut offset = start;
    if let Body::Symlink(_) = inode.body {
        // Linux before 6.12 requires inode, attributes and target within one block.
        let whole = head + size;
        if offset % BLOCK + whole > BLOCK {
            offset = offset.next_multiple_of(BLOCK);
        }
        if whole >= BLOCK {
            layout = DataLayout::Plain;
        }
    } else {
        let room = (offset + head).next_multiple_of(BLOCK) - (offset + head);
        // No room left means the beginning of a block, with room for any tail.
        if room > 0 && room < tail_size(inode, layout) {
            offset += room.next_multiple_of(SLOT);
        }
    }
    InodePlacement {
        offset,
        compact,
        layout,
        size,
        union,
    }
}

/// Byte offset behind an inode and its tail: the first at which the next inode can begin.
fn end(inode: &ErofsInode<'_>, place: &InodePlacement) -> u64 {
    let head = header_size(place.compact) + inode.attributes.size();
    (place.offset + head + tail_size(inode, place.layout)).next_multiple_of(SLOT)
}

fn header_size(compact: bool) -> u64 {
    if compact { COMPACT_SIZE } else { EXTENDED_SIZE }
}

/// Bytes of data or chunk indexes behind an inode and its attributes.
fn tail_size(inode: &ErofsInode<'_>, layout: DataLayout) -> u64 {
    match &inode.body {
        Body::Directory(directory) => directory.tail_size,
        Body::Small(bytes) => bytes.len() as u64,
        Body::Symlink(target) if layout == DataLayout::Inline => target.len() as u64,
        Body::Object { size, .. } => chunks(*size) * CHUNK_INDEX_SIZE,
        _ => 0,
    }
}

/// Number of data blocks apart from the inode.
fn data_blocks(inode: &ErofsInode<'_>, place: &InodePlacement) -> u64 {
    match &inode.body {
        Body::Directory(directory) => directory.block_count(),
        Body::Symlink(_) if place.target_apart() => 1,
        _ => 0,
    }
}

/// log2 of the chunk size for a file of `size` bytes: the whole file, unless that is more than the largest chunk.
fn chunk_bits(size: u64) -> u32 {
    let whole = u64::BITS - size.saturating_sub(1).leading_zeros();
    whole.clamp(u32::from(BLOCK_BITS), u32::from(BLOCK_BITS) + CHUNK_BLOCK_BITS_MAX)
}

/// Number of chunks of a file of `size` bytes: one, or two for files above the largest chunk.
pub(super) fn chunks(size: u64) -> u64 {
    size.div_ceil(1 << chunk_bits(size))
}

fn to_u32(count: u64, what: &str) -> Result<u32, ImageError> {
    u32::try_from(count).map_err(|_| too_many(count, what))
}

fn too_many(count: u64, what: &str) -> ImageError {
    ImageError::Request {
        format: FORMAT,
        problem: format!("{count} {what} do not fit its 32-bit or 16-bit field"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_as_few_chunks_as_can_be() {
        for (size, bits, count) in [
            (65, 12, 1),
            (4096, 12, 1),
            (4097, 13, 1),
            (1 << 20, 20, 1),
            ((1 << 20) + 1, 21, 1),
            (1 << 43, 43, 1),
            ((1 << 43) + 1, 43, 2),
            ((1 << 44) - 4096, 43, 2),
        ] {
            assert_eq!((chunk_bits(size), chunks(size)), (bits, count), "{size}");
        }
    }

    #[test]
    fn a_count_above_its_field_is_refused() {
        assert_eq!(to_u32(u64::from(u32::MAX), "blocks").ok(), Some(u32::MAX));
        let text = to_u32(1 << 32, "blocks").expect_err("33 bits").to_string();
        assert_eq!(
            text,
            "make a composefs image: 4294967296 blocks do not fit its 32-bit or 16-bit field"
        );
    }
}
