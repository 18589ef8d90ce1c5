//! Reads and checks the boot sector of a volume.

use super::{
    FatKind,
    format::{
        BOOT_SIGNATURE, BOOT_SIGNATURE_AT, BOOT_SIZE, BPB_BK_BOOT_SEC, BPB_BYTS_PER_SEC, BPB_EXT_FLAGS, BPB_FAT_SZ16,
        BPB_FAT_SZ32, BPB_FS_INFO, BPB_FS_VER, BPB_HIDD_SEC, BPB_MEDIA, BPB_NUM_FATS, BPB_ROOT_CLUS, BPB_ROOT_ENT_CNT,
        BPB_RSVD_SEC_CNT, BPB_SEC_PER_CLUS, BPB_TOT_SEC16, BPB_TOT_SEC32, BS_BOOT_SIG, BS_RESERVED1, BS_VOL_ID,
        BS_VOL_LAB, ENTRY, EXTENDED_BOOT_SIGNATURE, EXTENDED_FAT16, EXTENDED_FAT32, FIRST_CLUSTER, MIN_FAT32,
        ONE_TABLE, SECTOR_SIZES, SHORT_SIZE, is_media, u16_at, u32_at,
    },
    names::Short,
    volume::corrupt,
};
use crate::image::ImageError;

/// The fields of a boot sector, checked against each other. Offsets are bytes in the volume.
#[derive(Clone, Debug)]
pub(super) struct BootSector {
    pub(super) kind: FatKind,
    /// Bytes of a sector.
    pub(super) sector: u64,
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
    /// The reserved byte with Linux's state of the volume.
    pub(super) state: u8,
    /// What is unusual and does not hinder reading, as fragments of sentences.
    pub(super) oddities: Vec<String>,
}

/// Sizes of the parts in front of the clusters, in sectors except for `root_entries`.
struct Front {
    reserved: u64,
    tables: u8,
    table: u64,
    root_entries: u64,
    sectors: u64,
    /// Whether the fields are those of FAT32.
    fat32: bool,
}

impl BootSector {
    /// Checks the boot sector `boot` of a volume, as Linux does: the field of the size of a table tells FAT32 from the others, the number
    /// of clusters tells FAT12 from FAT16, and a table that is too short counts fewer clusters. Source: `fat_read_bpb` and
    /// `fat_fill_super` in Linux's fs/fat/inode.c.
    pub(super) fn parse(boot: &[u8; BOOT_SIZE]) -> Result<Self, ImageError> {
        let sector = sector_size(boot)?;
        let cluster = cluster_size(boot, sector)?;
        let front = front(boot)?;
        let mut oddities = front.oddities(boot);
        let table_offset = front.reserved * sector;
        let root_offset = (front.reserved + u64::from(front.tables) * front.table) * sector;
        let root_size = (front.root_entries * ENTRY as u64).next_multiple_of(sector);
        let data_offset = root_offset + root_size;
        let size = front.sectors * sector;
        if data_offset > size {
            return bad(
                BPB_TOT_SEC16,
                format!("the volume has {size} bytes, but {data_offset} in front of the clusters"),
            );
        }
        let counted = (size - data_offset) / cluster;
        let kind = FatKind::of(counted, front.fat32);
        let numbers = front.table * sector * 8 / kind.bits();
        let clusters = counted.min(numbers.saturating_sub(FIRST_CLUSTER.into()));
        if clusters < counted {
            let table = front.table;
            oddities.push(format!(
                "a table of {table} sectors of {sector} bytes has numbers for {clusters} of the {counted} clusters"
            ));
        }
        let clusters = u32::try_from(clusters).ok().filter(|n| (1..=kind.most()).contains(n));
        let Some(clusters) = clusters else {
            return bad(
                BPB_TOT_SEC16,
                format!(
                    "the volume has {counted} clusters of {cluster} bytes, not 1 to {} as {kind:?} has",
                    kind.most()
                ),
            );
        };
        if front.fat32 && counted < MIN_FAT32.into() {
            oddities.push(format!(
                "it has the fields of FAT32 and {counted} clusters; some systems read FAT32 from {MIN_FAT32} clusters on only"
            ));
        }
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
            sector,
            cluster,
            clusters,
            tables: front.tables,
            table_offset,
            table_size: front.table * sector,
            fixed_root: (root_offset, root_size),
            data_offset,
            root: if front.fat32 { u32_at(boot, BPB_ROOT_CLUS) } else { 0 },
            serial,
            label,
            hidden: u32_at(boot, BPB_HIDD_SEC),
            size,
            fs_info: of_fat32(BPB_FS_INFO),
            backup: of_fat32(BPB_BK_BOOT_SEC),
            state: boot[extended + BS_RESERVED1],
            oddities,
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

fn sector_size(boot: &[u8]) -> Result<u64, ImageError> {
    let sector = u64::from(u16_at(boot, BPB_BYTS_PER_SEC));
    if !SECTOR_SIZES.contains(&sector) {
        return bad(
            BPB_BYTS_PER_SEC,
            format!("a sector has {sector} bytes, not 512, 1024, 2048 or 4096"),
        );
    }
    Ok(sector)
}

/// Bytes of a cluster.
fn cluster_size(boot: &[u8], sector: u64) -> Result<u64, ImageError> {
    let sectors = u64::from(boot[BPB_SEC_PER_CLUS]);
    if !sectors.is_power_of_two() {
        return bad(
            BPB_SEC_PER_CLUS,
            format!("a cluster has {sectors} sectors, which is not a power of two"),
        );
    }
    Ok(sectors * sector)
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
        ..
    } = front;
    if reserved == 0 || tables == 0 || table == 0 {
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

impl Front {
    /// What no program that makes volumes writes, and all that read them take.
    fn oddities(&self, boot: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        if boot[BOOT_SIGNATURE_AT..] != BOOT_SIGNATURE {
            found.push("the boot sector does not end with 55aa".to_owned());
        }
        let media = boot[BPB_MEDIA];
        if !is_media(media) {
            found.push(format!(
                "the media descriptor is {media:#04x}, with which Linux does not mount it"
            ));
        }
        let entries = self.root_entries;
        if self.fat32 && entries != 0 {
            found.push(format!(
                "it has the fields of FAT32 and a root directory of {entries} entries"
            ));
        }
        if !self.fat32 && entries == 0 {
            found.push("the root directory has room for no entry".to_owned());
        }
        let flags = u16_at(boot, BPB_EXT_FLAGS);
        if self.fat32 && flags & ONE_TABLE != 0 {
            let active = (flags & 0xf) + 1;
            found.push(format!(
                "only table {active} is in use, and table 1 is read here, as by Linux"
            ));
        }
        found
    }
}
