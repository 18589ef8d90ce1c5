//! Where the fields of a volume's structures lie, and the values that have a meaning.
//!
//! The names are those of Microsoft's "FAT32 File System Specification" 1.03 (`fatgen103`), where a field is called e.g.
//! `BPB_BytsPerSec`. All integers are little-endian; offsets are bytes from the beginning of the structure.

/// Name of the format in messages.
pub(super) const FORMAT: &str = "a FAT volume";
/// Bytes of the boot sector and of FSInfo that have a meaning, in sectors of any size.
pub(super) const BOOT_SIZE: usize = 512;
/// `BPB_BytsPerSec`: the sizes of a sector that the specification allows.
pub(super) const SECTOR_SIZES: [u64; 4] = [512, 1024, 2048, 4096];
/// `BPB_Media`: the values that the specification allows.
pub(super) const fn is_media(value: u8) -> bool {
    value == 0xf0 || value >= 0xf8
}
/// Bit of `BPB_ExtFlags` of FAT32: only one table is in use, whose number the lowest four bits have.
pub(super) const ONE_TABLE: u16 = 0x80;
/// Bit of the reserved byte behind the drive number: Linux was writing to the volume when it was last used.
pub(super) const STATE_DIRTY: u8 = 0x01;
/// `BPB_NumFATs`: number of tables in a volume that is written here.
pub(super) const TABLES: u64 = 2;
/// Number of the first cluster; the first two numbers of a table belong to no cluster.
pub(super) const FIRST_CLUSTER: u32 = 2;
/// A volume with fewer clusters is FAT12.
pub(super) const MIN_FAT16: u32 = 4085;
/// A volume with fewer clusters is FAT12 or FAT16.
pub(super) const MIN_FAT32: u32 = 65_525;
/// Most clusters of FAT32: numbers from 0x0ffffff7 on have other meanings.
pub(super) const MAX_FAT32: u32 = 0x0fff_fff4;

// The boot sector, the part that all kinds share: section "Boot Sector and BPB".
/// A jump over the fields to the boot code, 3 bytes.
pub(super) const BS_JMP_BOOT: usize = 0;
/// Name of the program that made the volume, 8 bytes.
pub(super) const BS_OEM_NAME: usize = 3;
/// Bytes of a sector, 16 bits.
pub(super) const BPB_BYTS_PER_SEC: usize = 11;
/// Sectors of a cluster, 8 bits, a power of two.
pub(super) const BPB_SEC_PER_CLUS: usize = 13;
/// Sectors in front of the first table, 16 bits.
pub(super) const BPB_RSVD_SEC_CNT: usize = 14;
/// Number of tables, 8 bits.
pub(super) const BPB_NUM_FATS: usize = 16;
/// Entries of the root directory, 16 bits; 0 on FAT32, whose root is a chain of clusters.
pub(super) const BPB_ROOT_ENT_CNT: usize = 17;
/// Sectors of the volume, 16 bits; 0 where [`BPB_TOT_SEC32`] counts them.
pub(super) const BPB_TOT_SEC16: usize = 19;
/// The media descriptor, 8 bits; the first number of a table repeats it.
pub(super) const BPB_MEDIA: usize = 21;
/// Sectors of one table, 16 bits; 0 on FAT32, which has [`BPB_FAT_SZ32`].
pub(super) const BPB_FAT_SZ16: usize = 22;
/// Sectors of a track, 16 bits.
pub(super) const BPB_SEC_PER_TRK: usize = 24;
/// Number of heads, 16 bits.
pub(super) const BPB_NUM_HEADS: usize = 26;
/// Sectors in front of the volume on its disk, 32 bits.
pub(super) const BPB_HIDD_SEC: usize = 28;
/// Sectors of the volume, 32 bits.
pub(super) const BPB_TOT_SEC32: usize = 32;

// The boot sector of FAT32 only.
/// Sectors of one table, 32 bits.
pub(super) const BPB_FAT_SZ32: usize = 36;
/// Which tables are in use, 16 bits.
pub(super) const BPB_EXT_FLAGS: usize = 40;
/// Version of the format, 16 bits; 0 is the only one.
pub(super) const BPB_FS_VER: usize = 42;
/// First cluster of the root directory, 32 bits.
pub(super) const BPB_ROOT_CLUS: usize = 44;
/// Sector of the FSInfo structure, 16 bits.
pub(super) const BPB_FS_INFO: usize = 48;
/// Sector of the boot sector's copy, 16 bits.
pub(super) const BPB_BK_BOOT_SEC: usize = 50;

/// Where the extended boot record begins: behind the last field above.
pub(super) const EXTENDED_FAT16: usize = 36;
pub(super) const EXTENDED_FAT32: usize = 64;
// Offsets in the extended boot record.
/// Drive number for `int 13h`, 8 bits.
pub(super) const BS_DRV_NUM: usize = 0;
/// A reserved byte, which Linux uses for [`STATE_DIRTY`].
pub(super) const BS_RESERVED1: usize = 1;
/// [`EXTENDED_BOOT_SIGNATURE`] where the three fields behind it are set.
pub(super) const BS_BOOT_SIG: usize = 2;
/// Serial number of the volume, 32 bits.
pub(super) const BS_VOL_ID: usize = 3;
/// Label of the volume, 11 bytes, padded with spaces.
pub(super) const BS_VOL_LAB: usize = 7;
/// Kind of the volume as text, 8 bytes; a note that no reader may rely on.
pub(super) const BS_FIL_SYS_TYPE: usize = 18;
/// Boot code, up to [`BOOT_SIGNATURE_AT`].
pub(super) const BS_BOOT_CODE: usize = 26;
/// Value of [`BS_BOOT_SIG`].
pub(super) const EXTENDED_BOOT_SIGNATURE: u8 = 0x29;
/// Bytes of a label and of a short name.
pub(super) const SHORT_SIZE: usize = 11;

/// The last two bytes of a boot sector, and their value.
pub(super) const BOOT_SIGNATURE_AT: usize = 510;
pub(super) const BOOT_SIGNATURE: [u8; 2] = [0x55, 0xaa];

// FSInfo of FAT32: section "FAT32 FSInfo Sector Structure and Backup Boot Sector".
pub(super) const FSI_LEAD_SIG: usize = 0;
pub(super) const FSI_STRUC_SIG: usize = 484;
/// Number of free clusters, 32 bits.
pub(super) const FSI_FREE_COUNT: usize = 488;
/// The cluster from which a driver should look for a free one, 32 bits; all ones when it is not known.
pub(super) const FSI_NXT_FREE: usize = 492;
pub(super) const FSI_TRAIL_SIG: usize = 508;
/// The three signatures and their values.
pub(super) const FSI_SIGNATURES: [(usize, u32); 3] = [
    (FSI_LEAD_SIG, 0x4161_5252),
    (FSI_STRUC_SIG, 0x6141_7272),
    (FSI_TRAIL_SIG, 0xaa55_0000),
];

// A directory entry: section "FAT Directory Structure".
/// Bytes of an entry.
pub(super) const ENTRY: usize = 32;
/// Largest directory in bytes: its entries are counted with 16 bits.
pub(super) const MAX_DIRECTORY: u64 = 65_536 * ENTRY as u64;
/// The attributes, 8 bits; the short name lies in front of them, from byte 0 on.
pub(super) const DIR_ATTR: usize = 11;
/// Windows NT's bits about the case of the short name, 8 bits.
pub(super) const DIR_NT_RES: usize = 12;
/// First cluster, the upper 16 bits; FAT32 only.
pub(super) const DIR_FST_CLUS_HI: usize = 20;
/// Time and date of the last change, 16 bits each.
pub(super) const DIR_WRT_TIME: usize = 22;
pub(super) const DIR_WRT_DATE: usize = 24;
/// First cluster, the lower 16 bits; 0 for an empty file.
pub(super) const DIR_FST_CLUS_LO: usize = 26;
/// Bytes of a file, 32 bits; 0 for a directory.
pub(super) const DIR_FILE_SIZE: usize = 28;

/// `ATTR_VOLUME_ID`: the entry holds the volume's label.
pub(super) const ATTR_LABEL: u8 = 0x08;
pub(super) const ATTR_DIRECTORY: u8 = 0x10;
pub(super) const ATTR_ARCHIVE: u8 = 0x20;
/// `ATTR_LONG_NAME`: the entry holds a piece of a long name.
pub(super) const ATTR_LONG: u8 = 0x0f;
/// `ATTR_LONG_NAME_MASK`: the attribute bits to compare with [`ATTR_LONG`].
pub(super) const ATTR_LONG_MASK: u8 = 0x3f;

/// First byte of the entry that ends a directory.
pub(super) const ENTRY_END: u8 = 0;
/// First byte of an entry that was deleted.
pub(super) const ENTRY_DELETED: u8 = 0xe5;
/// First byte of a short name that stands for 0xe5.
pub(super) const ENTRY_KANJI: u8 = 0x05;
/// Bit of [`DIR_NT_RES`]: the base of the short name is in small letters.
pub(super) const NT_SMALL_BASE: u8 = 0x08;
/// Bit of [`DIR_NT_RES`]: the extension of the short name is in small letters.
pub(super) const NT_SMALL_EXTENSION: u8 = 0x10;

// An entry with a piece of a long name: section "FAT Long Directory Entries".
/// Number of the piece, from 1 on, 8 bits.
pub(super) const LDIR_ORD: usize = 0;
/// Bit of [`LDIR_ORD`] in the last piece of a name, which is stored first.
pub(super) const LAST_LONG_ENTRY: u8 = 0x40;
/// Checksum of the short name, 8 bits.
pub(super) const LDIR_CHKSUM: usize = 13;
/// UTF-16 units of a name in one entry.
pub(super) const LONG_UNITS: usize = 13;
/// Offsets of these units: `LDIR_Name1`, `LDIR_Name2` and `LDIR_Name3`.
pub(super) const UNIT_OFFSETS: [usize; LONG_UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// Most pieces of a name: 255 units.
pub(super) const MAX_LONG_ENTRIES: u8 = 20;

/// The 16-bit field at an offset of a structure that has it.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The 32-bit field at an offset of a structure that has it.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
