//! The layout of a volume: the place of every file and directory, decided before a byte is written.

use super::{
    FatKind,
    format::{ENTRY, FIRST_CLUSTER, FORMAT, MAX_DIRECTORY, MAX_FAT32, MIN_FAT16, MIN_FAT32, TABLES},
    names::{self, DosTime, Name, Short},
};
use crate::{
    image::{Guid, ImageError},
    model::{Epoch, RelPath, SectorSize, VerityDigest},
};
use std::collections::BTreeMap;

/// Least distance of the number of clusters from the number at which the kind changes, since readers differ in how they count.
const MARGIN: u32 = 16;
/// Reserved sectors of FAT32.
pub(super) const RESERVED_FAT32: u64 = 32;
/// Entries of the root of FAT16.
pub(super) const ROOT_ENTRIES: u64 = 512;

/// Length of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VolumeSize {
    /// As long as the content and `spare` free bytes need, but no shorter than the kind can be.
    Content {
        /// Bytes that stay free.
        spare: u64,
    },
    /// Exactly this number of sectors.
    Sectors(u64),
}

/// The properties of a volume except for its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FatVolume {
    /// FAT16 or FAT32.
    pub kind: FatKind,
    /// The sectors of the disk on which the volume lies. Linux mounts no volume whose sectors are smaller than the disk's.
    pub sector_size: SectorSize,
    /// 1 to 11 capital letters, digits, spaces and some marks; in the boot sector and the root.
    pub label: String,
    /// Serial number, by which GRUB and Linux find the volume as `XXXX-XXXX`.
    pub serial: u32,
    /// Time of every entry; not before 1980.
    pub epoch: Epoch,
    /// First sector of the partition; 0 for a volume outside of a partition.
    pub hidden_sectors: u32,
    /// Length of the volume.
    pub size: VolumeSize,
}

/// A file or a directory to store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FatItem {
    /// A directory. The parents of files need not be listed.
    Directory,
    /// A file.
    File {
        /// Its length in bytes.
        size: u32,
    },
}

/// Sizes of a volume's parts, in sectors except for `clusters`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    /// Bytes of a sector.
    pub(super) sector: u64,
    pub(super) cluster_sectors: u64,
    pub(super) reserved: u64,
    pub(super) table: u64,
    pub(super) root: u64,
    pub(super) clusters: u32,
    pub(super) sectors: u64,
}

impl Geometry {
    pub(super) fn cluster(&self) -> u64 {
        self.cluster_sectors * self.sector
    }
    /// First byte behind the tables: the root directory of FAT16, the clusters of FAT32.
    pub(super) fn root_offset(&self) -> u64 {
        (self.reserved + TABLES * self.table) * self.sector
    }
    /// First byte of a cluster.
    pub(super) fn offset(&self, cluster: u32) -> u64 {
        self.root_offset() + self.root * self.sector + u64::from(cluster - FIRST_CLUSTER) * self.cluster()
    }
}

/// A file or a directory with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PlacedItem {
    pub(super) item: FatItem,
    pub(super) name: Name,
    /// First cluster; 0 for an empty file.
    pub(super) first: u32,
    pub(super) clusters: u32,
    /// Bytes of a file or of a directory's entries.
    pub(super) bytes: u64,
}

/// A volume whose parts all have their place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FatLayout {
    pub(super) volume: FatVolume,
    pub(super) label: Short,
    pub(super) time: DosTime,
    pub(super) geometry: Geometry,
    /// Number of clusters of the root directory, which begins at the first one; 0 for FAT16.
    pub(super) root_clusters: u32,
    pub(super) nodes: BTreeMap<RelPath, PlacedItem>,
    /// First free cluster.
    pub(super) next: u32,
}

impl FatLayout {
    /// Length of the volume in bytes.
    pub fn size(&self) -> u64 {
        self.geometry.sectors * self.geometry.sector
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        self.geometry.cluster()
    }

    /// Offset in the volume and length of each file that is not empty.
    pub fn extents(&self) -> BTreeMap<RelPath, (u64, u64)> {
        let files = self
            .nodes
            .iter()
            .filter(|(_, n)| n.item != FatItem::Directory && n.bytes > 0);
        files
            .map(|(path, n)| (path.clone(), (self.geometry.offset(n.first), n.bytes)))
            .collect()
    }
}

/// A serial number derived from the purpose of a volume and the root digest alone, so that a rebuild has the same.
pub fn serial(purpose: &str, root: &VerityDigest) -> u32 {
    let [a, b, c, d, ..] = Guid::derived("fat", purpose, root).to_disk();
    u32::from_le_bytes([a, b, c, d])
}

fn request(problem: String) -> ImageError {
    ImageError::Request {
        format: FORMAT,
        problem,
    }
}

/// Lays out a volume with the files and directories `items`. Clusters have 512 to 4096 bytes, but not less than a sector (more only where
/// the kind could not count them otherwise); files and directories follow each other in the order of their paths. Names keep their case, but two
/// names of a directory must differ in more than case.
pub fn plan(volume: &FatVolume, items: &BTreeMap<RelPath, FatItem>) -> Result<FatLayout, ImageError> {
    let label = names::label(&volume.label).map_err(request)?;
    let time = DosTime::new(volume.epoch).map_err(request)?;
    let (root_bytes, mut nodes) = tree(items)?;
    if volume.kind != FatKind::Fat32 && root_bytes > ROOT_ENTRIES * ENTRY as u64 {
        return Err(request(
            "the root directory holds more than the 512 entries of FAT16".to_owned(),
        ));
    }
    let root_chain = if volume.kind == FatKind::Fat32 { root_bytes } else { 0 };
    let geometry = geometry(volume, |cluster| {
        let chains = nodes.values().map(|n| n.bytes.div_ceil(cluster));
        chains.sum::<u64>() + root_chain.div_ceil(cluster)
    })?;
    // No number overflows: the geometry has room for every cluster.
    let mut next = FIRST_CLUSTER;
    let mut place = |bytes: u64| {
        let clusters = bytes.div_ceil(geometry.cluster()) as u32;
        let first = if clusters == 0 { 0 } else { next };
        next += clusters;
        (first, clusters)
    };
    let (_, root_clusters) = place(root_chain);
    for node in nodes.values_mut() {
        (node.first, node.clusters) = place(node.bytes);
    }
    Ok(FatLayout {
        volume: volume.clone(),
        label,
        time,
        geometry,
        root_clusters,
        nodes,
        next,
    })
}

/// Bytes of the root's entries, and every item below it, still without a place.
fn tree(items: &BTreeMap<RelPath, FatItem>) -> Result<(u64, BTreeMap<RelPath, PlacedItem>), ImageError> {
    let bad = |path: &RelPath, problem: String| ImageError::Entry {
        format: FORMAT,
        path: path.to_string(),
        problem,
    };
    let mut all = items.clone();
    for path in items.keys() {
        let mut below = path.clone();
        while let Some(parent) = below.parent() {
            match all.entry(parent.clone()).or_insert(FatItem::Directory) {
                FatItem::Directory => below = parent,
                FatItem::File { .. } => return Err(bad(path, format!("its parent {parent} is a file"))),
            }
        }
    }
    let mut children: BTreeMap<Option<RelPath>, Vec<&RelPath>> = BTreeMap::from([(None, Vec::new())]);
    for path in all.keys() {
        children.entry(path.parent()).or_default().push(path);
    }
    let mut named = BTreeMap::new();
    let mut sizes = BTreeMap::new();
    for (parent, paths) in &children {
        let plain: Vec<_> = paths.iter().map(|p| p.name()).collect();
        let names = names::assign(&plain).map_err(|(index, problem)| bad(paths[index], problem))?;
        // The root has an entry for the label; other directories have "." and "..".
        let own = if parent.is_none() { 1 } else { 2 };
        let bytes = (own + names.iter().map(Name::entries).sum::<u64>()) * ENTRY as u64;
        if bytes > MAX_DIRECTORY {
            let shown = parent.as_ref().map_or("the root".to_owned(), ToString::to_string);
            return Err(request(format!("the directory {shown} holds more than 65536 entries")));
        }
        sizes.insert(parent.clone(), bytes);
        named.extend(paths.iter().copied().zip(names));
    }
    let nodes = named.into_iter().map(|(path, name)| {
        let item = all.get(path).copied().unwrap_or(FatItem::Directory);
        let bytes = match item {
            FatItem::File { size } => u64::from(size),
            FatItem::Directory => sizes.get(&Some(path.clone())).copied().unwrap_or(2 * ENTRY as u64),
        };
        let node = PlacedItem {
            item,
            name,
            first: 0,
            clusters: 0,
            bytes,
        };
        (path.clone(), node)
    });
    Ok((sizes.get(&None).copied().unwrap_or_default(), nodes.collect()))
}

/// Picks the size of a cluster; `needed` is the number of clusters of a given size that the content takes.
fn geometry(volume: &FatVolume, needed: impl Fn(u64) -> u64) -> Result<Geometry, ImageError> {
    // Sectors of a cluster, the preferred number first. FAT32: large clusters mean a small table, which is quick to read. FAT16:
    // the smallest clusters that can be counted waste the least space.
    let (sizes, least, most): (&[u64], _, _) = match volume.kind {
        FatKind::Fat12 => return Err(request("FAT12 volumes are only read, not written".to_owned())),
        FatKind::Fat16 => (&[1, 2, 4, 8, 16, 32], MIN_FAT16 + MARGIN, MIN_FAT32 - 1 - MARGIN),
        FatKind::Fat32 => (&[8, 4, 2, 1, 16], MIN_FAT32 + MARGIN, MAX_FAT32),
    };
    let (least, most) = (u64::from(least), u64::from(most));
    let sector = volume.sector_size.bytes();
    let mut room = None;
    // The sizes are in units of 512 bytes.
    for cluster in sizes
        .iter()
        .map(|units| units * 512)
        .filter(|cluster| *cluster >= sector)
    {
        let cluster_sectors = cluster / sector;
        let needed = needed(cluster);
        let Some(parts) = parts(volume, cluster_sectors, needed, least) else {
            continue;
        };
        if !(least..=most).contains(&parts.clusters) || parts.sectors > u64::from(u32::MAX) {
            continue;
        }
        if needed > parts.clusters {
            room = Some((needed, parts.clusters, cluster));
            continue;
        }
        return Ok(Geometry {
            sector,
            cluster_sectors,
            reserved: parts.reserved,
            table: parts.table,
            root: parts.root,
            clusters: parts.clusters as u32,
            sectors: parts.sectors,
        });
    }
    Err(request(match (room, volume.size) {
        (Some((needed, clusters, cluster)), _) => {
            format!("the content takes {needed} clusters of {cluster} bytes, but there are {clusters}")
        }
        (None, VolumeSize::Sectors(sectors)) => format!("a volume of {sectors} sectors cannot be {:?}", volume.kind),
        (None, VolumeSize::Content { .. }) => format!("the content is too large for {:?}", volume.kind),
    }))
}

/// Sizes of the parts, in sectors except for `clusters`, before the kind's limits are applied.
struct Parts {
    reserved: u64,
    table: u64,
    root: u64,
    clusters: u64,
    sectors: u64,
}

/// The parts of a volume with clusters of `cluster_sectors`, of which the content takes `needed`; `None` where smaller clusters
/// are to be tried first. `least` is the smallest number of clusters of the kind.
fn parts(volume: &FatVolume, cluster_sectors: u64, needed: u64, least: u64) -> Option<Parts> {
    let sector = volume.sector_size.bytes();
    let (reserved, root) = match volume.kind {
        FatKind::Fat32 => (RESERVED_FAT32, 0),
        _ => (cluster_sectors, ROOT_ENTRIES * ENTRY as u64 / sector),
    };
    // The table is a multiple of a cluster, so that clusters begin at multiples of their size.
    let table = |clusters: u64| {
        let bits = clusters.saturating_add(2).saturating_mul(volume.kind.bits());
        bits.div_ceil(8 * sector).next_multiple_of(cluster_sectors)
    };
    let (clusters, table, sectors) = match volume.size {
        VolumeSize::Content { spare } => {
            let clusters = needed.saturating_add(spare.div_ceil(cluster_sectors * sector));
            // FAT32 needs a least number of clusters: the next smaller size is tried, and the volume is padded with clusters of
            // the smallest.
            let smaller = (2 * 512..=8 * 512).contains(&(cluster_sectors * sector)) && cluster_sectors > 1;
            if volume.kind == FatKind::Fat32 && smaller && clusters < least {
                return None;
            }
            let clusters = clusters.max(least);
            let table = table(clusters);
            let front = table.saturating_mul(TABLES).saturating_add(reserved + root);
            let data = clusters.saturating_mul(cluster_sectors);
            (clusters, table, front.saturating_add(data))
        }
        VolumeSize::Sectors(sectors) => {
            // The table has a few numbers too many: it is sized for the clusters in whose sectors the tables themselves lie, too.
            let rest = sectors.saturating_sub(reserved + root);
            let table = table(rest / cluster_sectors);
            let rest = rest.saturating_sub(table.saturating_mul(TABLES));
            (rest / cluster_sectors, table, sectors)
        }
    };
    Some(Parts {
        reserved,
        table,
        root,
        clusters,
        sectors,
    })
}
