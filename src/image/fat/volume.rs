//! Reads a volume of unknown origin: nothing is trusted, every loop ends, and memory does not grow with a field's claim.

use super::{
    FatEntry, FatKind,
    boot_sector::BootSector,
    format::{ATTR_LABEL, ATTR_LONG, BOOT_SIZE, DIR_ATTR, ENTRY, ENTRY_DELETED, ENTRY_END, FIRST_CLUSTER, SHORT_SIZE},
    names::decode,
    table::Table,
};
use crate::image::{ImageError, ReadAt};
use std::io;

/// Name of the format in messages of the reader.
const FORMAT: &str = "a FAT image";
/// The label of a volume that has none.
const NO_LABEL: &str = "NO NAME";

pub(super) fn corrupt(offset: u64, problem: impl Into<String>) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem: problem.into(),
    }
}

fn input(offset: u64, source: io::Error) -> ImageError {
    ImageError::Input {
        format: FORMAT,
        offset,
        source,
    }
}

/// Fills `buffer` from `offset` on.
pub(super) fn read(source: &impl ReadAt, buffer: &mut [u8], offset: u64) -> Result<(), ImageError> {
    source
        .read_exact_at(buffer, offset)
        .map_err(|source| input(offset, source))
}

/// A volume that is read.
#[derive(Clone, Debug)]
pub struct Fat<R> {
    pub(super) source: R,
    pub(super) boot: BootSector,
}

impl<R: ReadAt> Fat<R> {
    /// Checks the boot sector. Only volumes that the source holds whole are read.
    pub fn open(source: R) -> Result<Self, ImageError> {
        match Self::open_cut(source)? {
            (fs, None) => Ok(fs),
            (_, Some(error)) => Err(error),
        }
    }

    /// Like [`Fat::open`] for a source that may be cut off, which is the second value.
    pub fn open_cut(source: R) -> Result<(Self, Option<ImageError>), ImageError> {
        let mut boot = [0; BOOT_SIZE];
        read(&source, &mut boot, 0)?;
        let size = source.size().map_err(|source| input(0, source))?;
        let boot = BootSector::parse(&boot)?;
        let cut = boot.cut(size);
        Ok((Self { source, boot }, cut))
    }

    /// Kind of the volume, which its number of clusters decides.
    pub fn kind(&self) -> FatKind {
        self.boot.kind
    }

    /// Serial number; 0 where there is none.
    pub fn serial(&self) -> u32 {
        self.boot.serial
    }

    /// Length of the volume in bytes.
    pub fn size(&self) -> u64 {
        self.boot.size
    }

    /// Bytes of a sector: 512, 1024, 2048 or 4096.
    pub fn sector_size(&self) -> u64 {
        self.boot.sector
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        self.boot.cluster
    }

    /// Number of clusters.
    pub fn clusters(&self) -> u32 {
        self.boot.clusters
    }

    /// First sector of the volume's partition, as the boot sector states it.
    pub fn hidden_sectors(&self) -> u32 {
        self.boot.hidden
    }

    /// The label in the root directory, or else the one in the boot sector; `None` when there is neither.
    pub fn label(&self) -> Result<Option<String>, ImageError> {
        let (root, _) = self.directory_bytes(&self.root())?;
        let is_label = |entry: &&[u8]| {
            let attributes = entry[DIR_ATTR];
            entry[0] != ENTRY_DELETED && attributes & ATTR_LONG != ATTR_LONG && attributes & ATTR_LABEL != 0
        };
        let in_root = root
            .chunks_exact(ENTRY)
            .take_while(|entry| entry[0] != ENTRY_END)
            .find(is_label)
            .map(|entry| &entry[..SHORT_SIZE]);
        let stored = in_root.unwrap_or(&self.boot.label);
        let text = decode(stored.trim_ascii_end());
        Ok(Some(text).filter(|t| !t.is_empty() && (in_root.is_some() || t != NO_LABEL)))
    }

    /// The root directory.
    pub fn root(&self) -> FatEntry {
        FatEntry {
            name: String::new(),
            directory: true,
            size: 0,
            modified: None,
            first: self.boot.root,
            offset: 0,
        }
    }

    /// Number of free clusters.
    pub fn free_clusters(&self) -> Result<u32, ImageError> {
        let mut table = Table::new(self);
        let mut free = 0;
        for cluster in FIRST_CLUSTER..self.boot.clusters + FIRST_CLUSTER {
            free += u32::from(table.get(cluster)? == 0);
        }
        Ok(free)
    }

    /// Offset of a cluster that exists.
    pub(super) fn offset(&self, cluster: u32) -> u64 {
        self.boot.data_offset + u64::from(cluster - FIRST_CLUSTER) * self.boot.cluster
    }
}
