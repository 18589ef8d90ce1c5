//! The files with their verity metadata, as a tar that `mke2fs -d` reads.
//!
//! Members have the old GNU form for sparse files: the header has `offset` and `length` of up to four pieces, which follow it one
//! after the other. Two pieces are needed: the data, and the metadata.
//! Source: <https://www.gnu.org/software/tar/manual/html_node/Standard.html> (`struct oldgnu_header`).

use super::{
    format::BLOCK,
    plan::{Ext4Layout, Extents, VerityFile},
    size::{Blocks, Ext4Size, size},
};
use crate::{
    image::{ImageError, Open},
    model::{Epoch, RelPath},
    verity::{DESCRIPTOR_SIZE, MerkleTree, VerityError},
};
use std::io::Write;

const TAR: &str = "a tar archive";
/// A tar ends with two records of zeros and is padded to a multiple of twenty records.
const RECORD: u64 = 512;
const TAR_ALIGN: u64 = 20 * RECORD;

/// A layout whose files are staged, with the size of the file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    pub(super) layout: Ext4Layout,
    pub(super) size: Ext4Size,
    pub(super) epoch: Epoch,
}

impl Staged {
    /// The layout.
    pub fn layout(&self) -> &Ext4Layout {
        &self.layout
    }

    /// Length of the file system in bytes.
    pub fn image_size(&self) -> u64 {
        self.size.blocks * BLOCK
    }
}

/// Writes the tar of `layout` to `writer`: directories with mode 0555 and files with mode 0444, all owned by root and with the time
/// `epoch`. Each content is read once and checked against its digest.
pub fn write_staging_tar(
    layout: Ext4Layout,
    epoch: Epoch,
    open: Open<'_>,
    writer: &mut dyn Write,
) -> Result<Staged, ImageError> {
    let mut out = TarOutput { writer, written: 0 };
    for path in &layout.directories {
        let mut header = header(path, 0o555, epoch)?;
        header.set_entry_type(tar::EntryType::Directory);
        header.set_cksum();
        out.put(header.as_bytes())?;
    }
    let mut blocks = 0;
    for item in &layout.items {
        blocks += write_file(item, epoch, open, &mut out)?.total();
    }
    out.zeros(2 * RECORD)?;
    out.zeros(out.written.next_multiple_of(TAR_ALIGN) - out.written)?;
    out.writer
        .flush()
        .map_err(|source| ImageError::Write { format: TAR, source })?;
    let size = size(&layout, blocks);
    Ok(Staged { layout, size, epoch })
}

struct TarOutput<'a> {
    writer: &'a mut dyn Write,
    written: u64,
}

impl TarOutput<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.written += bytes.len() as u64;
        self.writer
            .write_all(bytes)
            .map_err(|source| ImageError::Write { format: TAR, source })
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), ImageError> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        while count > 0 {
            let n = count.min(BLOCK);
            self.put(&ZEROS[..n as usize])?;
            count -= n;
        }
        Ok(())
    }
}

fn header(path: &RelPath, mode: u32, epoch: Epoch) -> Result<tar::Header, ImageError> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).map_err(|e| ImageError::Entry {
        format: TAR,
        path: path.to_string(),
        problem: e.to_string(),
    })?;
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mtime(epoch.seconds());
    Ok(header)
}

fn write_file(item: &VerityFile, epoch: Epoch, open: Open<'_>, out: &mut TarOutput<'_>) -> Result<Blocks, ImageError> {
    let extents = Extents::new(item.size);
    let pieces = [(0, extents.data_end), (extents.tree, extents.end - extents.tree)];
    let mut header = header(&item.path, 0o444, epoch)?;
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(pieces.iter().map(|p| p.1).sum());
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_real_size(extents.end);
        let used = pieces.iter().filter(|p| p.1 > 0);
        for (place, (offset, length)) in gnu.sparse.iter_mut().zip(used) {
            place.set_offset(*offset);
            place.set_length(*length);
        }
    }
    header.set_cksum();
    out.put(header.as_bytes())?;

    let path = || item.path.to_string();
    let content = open(&item.digest).map_err(|source| ImageError::Read { path: path(), source })?;
    let mut blocks = Blocks::default();
    let mut in_run = false;
    let baked = MerkleTree::build_tee(content, item.size, |piece| {
        for block in piece.chunks(BLOCK as usize) {
            // mke2fs stores a block of zeros as a hole.
            let used = block.iter().any(|b| *b != 0);
            blocks.count += u64::from(used);
            blocks.runs += u64::from(used && !in_run);
            in_run = used;
        }
        out.put(piece).map_err(StagingFailure::Output)
    })
    .map_err(|e| e.into_error(item))?;
    if baked.digest != item.digest {
        return Err(ImageError::Digest {
            path: path(),
            expected: item.digest,
            actual: baked.digest,
        });
    }
    out.zeros(extents.data_end - item.size)?;
    out.put(&baked.tree)?;
    out.put(&baked.descriptor)?;
    let pad = extents.end - extents.descriptor - DESCRIPTOR_SIZE as u64 - 4;
    out.zeros(pad)?;
    out.put(&(DESCRIPTOR_SIZE as u32).to_le_bytes())?;
    blocks.count += (extents.end - extents.tree) / BLOCK;
    blocks.runs += u64::from(!in_run || extents.tree > extents.data_end);
    Ok(blocks)
}

/// An error of reading the content or of writing the tar.
enum StagingFailure {
    Verity(VerityError),
    Output(ImageError),
}

impl From<VerityError> for StagingFailure {
    fn from(error: VerityError) -> Self {
        Self::Verity(error)
    }
}

impl StagingFailure {
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
