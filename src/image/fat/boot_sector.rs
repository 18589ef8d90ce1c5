//! Reads and checks the boot sector of a volume.

use super::{
    FatKind,
    format::{
        BOOT_SIGNATURE, BOOT_SIGNATURE_AT, BPB_BK_BOOT_SEC, BPB_BYTS_PER_SEC, BPB_FAT_SZ16, BPB_FAT_SZ32, BPB_FS_INFO,
        BPB_FS_VER, BPB_HIDD_SEC, BPB_NUM_FATS, BPB_ROOT_CLUS, BPB_ROOT_ENT_CNT, BPB_RSVD_SEC_CNT, BPB_SEC_PER_CLUS,
        BPB_TOT_SEC16, BPB_TOT_SEC32, BS_BOOT_SIG, BS_VOL_ID, BS_VOL_LAB, ENTRY, EXTENDED_BOOT_SIGNATURE,
        EXTENDED_FAT16, EXTENDED_FAT32, FIRST_CLUSTER, MAX_FAT32, SECTOR, SHORT_SIZE, u16_at, u32_at,
    },
    names::Short,
    volume::corrupt,
};
use crate::image::ImageError;

/// The fields of a boot sector, checked against each other. Offsets are bytes in the volume.
#[derive(Clone, Debug)]
pub(super) struct BootSector {
    pub(super) kind: FatKind,
    /// Bytes of a cluster.
    pub(super) cluster: u64,
    /// Number of clusters.
    pub(super) clusters: u32,
    /// Number of tables.
    pub(super) tables: u8,
    /// Offset of the first table.
    pub(super) table_offset: u64,
    /// Bytes of one table.
    pub(super) table_size: u64,
    /// Offset and bytes of the root directory of FAT12 and FAT16.
    pub(super) fixed_root: (u64, u64),
    /// Offset of the first cluster.
    pub(super) data_offset: u64,
    /// First cluster of the root directory of FAT32; 0 for the other kinds.
    pub(super) root: u32,
    /// Serial number; 0 where there is none.
    pub(super) serial: u32,
    /// Label; spaces where there is none.
    pub(super) label: Short,
    /// Sectors in front of the volume on its disk.
    pub(super) hidden: u32,
    /// Bytes of the volume.
    pub(super) size: u64,
    /// Sector of FSInfo; 0 except for FAT32.
    pub(super) fs_info: u64,
    /// Sector of the boot sector's copy; 0 except for FAT32.
    pub(super) backup: u64,
}

/// Sizes of the parts in front of the clusters, in sectors except for `root_entries`.
struct Front {
    reserved: u64,
    tables: u8,
    table: u64,
    root_entries: u64,
    sectors: u64,
    /// Whether the fields are those of FAT32. The number of clusters decides the kind; the two must agree.
    fat32: bool,
}

impl BootSector {
    /// Checks the boot sector `boot` of a volume. Sectors of other than 512 bytes are an error.
    pub(super) fn parse(boot: &[u8; SECTOR as usize]) -> Result<Self, ImageError> {
        if boot[BOOT_SIGNATURE_AT..] != BOOT_SIGNATURE {
            return bad(BOOT_SIGNATURE_AT, "the boot sector does not end with 55aa".to_owned());
        }
        let cluster = cluster_size(boot)?;
        let front = front(boot)?;
        let table_offset = front.reserved * SECTOR;
        let root_offset = (front.reserved + u64::from(front.tables) * front.table) * SECTOR;
        let root_size = (front.root_entries * ENTRY as u64).next_multiple_of(SECTOR);
        let data_offset = root_offset + root_size;
        let size = front.sectors * SECTOR;
        if data_offset > size {
            return bad(
                BPB_TOT_SEC16,
                format!("the volume has {size} bytes, but {data_offset} in front of the clusters"),
            );
        }
        let clusters = count_clusters(size - data_offset, cluster)?;
        let kind = kind(clusters, &front)?;
        // A byte of the extended boot record tells whether serial number and label are set.
        let extended = if front.fat32 { EXTENDED_FAT32 } else { EXTENDED_FAT16 };
        let (mut label, mut serial) = ([b' '; SHORT_SIZE], 0);
        if boot[extended + BS_BOOT_SIG] == EXTENDED_BOOT_SIGNATURE {
            label.copy_from_slice(&boot[extended + BS_VOL_LAB..][..SHORT_SIZE]);
            serial = u32_at(boot, extended + BS_VOL_ID);
        }
        let version = u16_at(boot, BPB_FS_VER);
        if front.fat32 && version != 0 {
            return bad(BPB_FS_VER, format!("the FAT32 version is {version:#x} instead of 0"));
        }
        let of_fat32 = |at: usize| if front.fat32 { u64::from(u16_at(boot, at)) } else { 0 };
        Ok(Self {
            kind,
            cluster,
            clusters,
            tables: front.tables,
            table_offset,
            table_size: front.table * SECTOR,
            fixed_root: (root_offset, root_size),
            data_offset,
            root: if front.fat32 { u32_at(boot, BPB_ROOT_CLUS) } else { 0 },
            serial,
            label,
            hidden: u32_at(boot, BPB_HIDD_SEC),
            size,
            fs_info: of_fat32(BPB_FS_INFO),
            backup: of_fat32(BPB_BK_BOOT_SEC),
        })
    }
}

impl BootSector {
    /// The problem of an image of `image_size` bytes that is shorter than the volume.
    pub(super) fn cut(&self, image_size: u64) -> Option<ImageError> {
        let (size, data) = (self.size, self.data_offset);
        let problem = format!(
            "the volume has {size} bytes, of which {data} lie in front of the clusters, in an image of {image_size}"
        );
        (size > image_size).then(|| corrupt(BPB_TOT_SEC16 as u64, problem))
    }
}

fn bad<T>(at: usize, problem: String) -> Result<T, ImageError> {
    Err(corrupt(at as u64, problem))
}

/// Bytes of a cluster.
fn cluster_size(boot: &[u8]) -> Result<u64, ImageError> {
    let sector = u64::from(u16_at(boot, BPB_BYTS_PER_SEC));
    if sector != SECTOR {
        return bad(
            BPB_BYTS_PER_SEC,
            format!("a sector has {sector} bytes instead of {SECTOR}"),
        );
    }
    let sectors = u64::from(boot[BPB_SEC_PER_CLUS]);
    if !sectors.is_power_of_two() {
        return bad(
            BPB_SEC_PER_CLUS,
            format!("a cluster has {sectors} sectors, which is not a power of two"),
        );
    }
    Ok(sectors * SECTOR)
}

fn front(boot: &[u8]) -> Result<Front, ImageError> {
    // Two sizes have a field of 16 bits and one of 32, which counts where the short one is 0. The 32-bit size of a table lies
    // where FAT12 and FAT16 have their extended boot record, so the 16-bit one also tells the two forms apart.
    let either = |short: usize, long: usize| match u16_at(boot, short) {
        0 => u64::from(u32_at(boot, long)),
        value => u64::from(value),
    };
    let front = Front {
        reserved: u64::from(u16_at(boot, BPB_RSVD_SEC_CNT)),
        tables: boot[BPB_NUM_FATS],
        table: either(BPB_FAT_SZ16, BPB_FAT_SZ32),
        root_entries: u64::from(u16_at(boot, BPB_ROOT_ENT_CNT)),
        sectors: either(BPB_TOT_SEC16, BPB_TOT_SEC32),
        fat32: u16_at(boot, BPB_FAT_SZ16) == 0,
    };
    let Front {
        reserved,
        tables,
        table,
        root_entries,
        fat32,
        ..
    } = front;
    if reserved == 0 || tables == 0 || table == 0 || fat32 == (root_entries != 0) {
        return bad(
            BPB_RSVD_SEC_CNT,
            format!(
                "{reserved} reserved sectors, {tables} tables of {table} sectors and a root directory of {root_entries} \
                 entries do not make a FAT volume"
            ),
        );
    }
    Ok(front)
}

fn count_clusters(data: u64, cluster: u64) -> Result<u32, ImageError> {
    let clusters = u32::try_from(data / cluster).ok();
    match clusters.filter(|n| (1..=MAX_FAT32).contains(n)) {
        Some(clusters) => Ok(clusters),
        None => bad(
            BPB_TOT_SEC16,
            format!(
                "{data} bytes hold {} clusters of {cluster} bytes, not 1 to {MAX_FAT32}",
                data / cluster
            ),
        ),
    }
}

/// The kind that the number of clusters decides, which the fields and the size of a table must fit.
fn kind(clusters: u32, front: &Front) -> Result<FatKind, ImageError> {
    let kind = FatKind::of(clusters);
    if (kind == FatKind::Fat32) != front.fat32 {
        return bad(
            BPB_FAT_SZ16,
            format!(
                "{clusters} clusters make a {kind:?} volume, but the size of the table is in the field of another kind"
            ),
        );
    }
    let numbers = u64::from(clusters) + u64::from(FIRST_CLUSTER);
    if (numbers * kind.bits()).div_ceil(8) > front.table * SECTOR {
        let table = front.table;
        return bad(
            BPB_FAT_SZ16,
            format!("a table of {table} sectors is too short for {clusters} clusters"),
        );
    }
    Ok(kind)
}
