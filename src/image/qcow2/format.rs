//! What the numbers of a qcow2 file mean. All are big-endian; sizes and offsets are in bytes.

/// Name of the format in messages.
pub(super) const FORMAT: &str = "a qcow2 image";

/// First bytes of the file.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Length of the header of version 2, and the least of version 3.
pub(super) const HEADER_V2: usize = 72;
pub(super) const HEADER_V3: usize = 104;
/// Length of a header that names a compression type.
pub(super) const HEADER_LEN: usize = 112;
/// `incompatible_features`.
pub(super) const INCOMPAT_DIRTY: u64 = 1 << 0;
pub(super) const INCOMPAT_CORRUPT: u64 = 1 << 1;
pub(super) const INCOMPAT_DATA_FILE: u64 = 1 << 2;
pub(super) const INCOMPAT_COMPRESSION: u64 = 1 << COMPRESSION_BIT;
pub(super) const INCOMPAT_EXTENDED_L2: u64 = 1 << 4;
const COMPRESSION_BIT: u8 = 3;
/// `compression_type`.
pub(super) const COMPRESSION_DEFLATE: u8 = 0;
pub(super) const COMPRESSION_ZSTD: u8 = 1;
/// `refcount_order` of counts with 16 bits, the only ones of version 2.
const REFCOUNT_ORDER: u32 = 4;
/// Header extension with the names of features, and the length of one name's entry.
const FEATURE_NAMES: u32 = 0x6803_f857;
const FEATURE_NAME_ENTRY: usize = 48;
/// Largest L1 table QEMU opens.
pub(super) const MAX_L1_BYTES: u64 = 32 << 20;
/// Clusters QEMU opens: 512 bytes to 2 MiB.
pub(super) const MIN_CLUSTER_BITS: u32 = 9;
pub(super) const MAX_CLUSTER_BITS: u32 = 21;

/// Length of an entry of the L1 table, an L2 table or the refcount table.
pub(super) const ENTRY: u64 = 8;
/// In entries of both tables: the cluster it points to is used once.
pub(super) const COPIED: u64 = 1 << 63;
/// In L2 entries: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// In L2 entries: the cluster reads as zeros, wherever it points.
pub(super) const ZERO: u64 = 1 << 0;
/// Bits of an entry that are an offset.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Compressed clusters are measured in sectors.
pub(super) const SECTOR: u64 = 512;

/// What is written: clusters of 64 KiB.
pub(super) const CLUSTER_BITS: u32 = 16;
pub(super) const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries in an L2 table.
pub(super) const L2_ENTRIES: u64 = CLUSTER / ENTRY;
/// Counts in a refcount block, of two bytes.
pub(super) const BLOCK_COUNTS: u64 = CLUSTER / 2;

/// The fields of a header that are not always the same.
pub(super) struct Qcow2Header {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Entries of the L1 table.
    pub(super) l1_entries: u32,
    /// Where the L1 table begins.
    pub(super) l1_offset: u64,
    /// Where the refcount table begins.
    pub(super) refcount_offset: u64,
    /// Clusters of the refcount table.
    pub(super) refcount_clusters: u32,
}

impl Qcow2Header {
    /// The header and its extensions. The name of the compression bit is what a QEMU that does not know it shows.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let be32 = |out: &mut Vec<u8>, value: u32| out.extend(value.to_be_bytes());
        let be64 = |out: &mut Vec<u8>, value: u64| out.extend(value.to_be_bytes());
        out.extend(MAGIC);
        be32(&mut out, 3); // version
        be64(&mut out, 0); // backing_file_offset
        be32(&mut out, 0); // backing_file_size
        be32(&mut out, CLUSTER_BITS);
        be64(&mut out, self.size);
        be32(&mut out, 0); // crypt_method
        be32(&mut out, self.l1_entries);
        be64(&mut out, self.l1_offset);
        be64(&mut out, self.refcount_offset);
        be32(&mut out, self.refcount_clusters);
        be32(&mut out, 0); // nb_snapshots
        be64(&mut out, 0); // snapshots_offset
        be64(&mut out, INCOMPAT_COMPRESSION);
        be64(&mut out, 0); // compatible_features
        be64(&mut out, 0); // autoclear_features
        be32(&mut out, REFCOUNT_ORDER);
        be32(&mut out, HEADER_LEN as u32);
        out.push(COMPRESSION_ZSTD);
        out.resize(HEADER_LEN, 0);
        be32(&mut out, FEATURE_NAMES);
        be32(&mut out, FEATURE_NAME_ENTRY as u32);
        let entry = out.len();
        out.extend([0, COMPRESSION_BIT]); // an incompatible feature
        out.extend(b"compression type");
        out.resize(entry + FEATURE_NAME_ENTRY, 0);
        out.extend([0; 8]); // end of the extensions
        out
    }
}

/// How many bits of a compressed cluster's entry are its offset; the rest below [`COMPRESSED`] count sectors.
fn offset_bits(cluster_bits: u32) -> u32 {
    62 - (cluster_bits - 8)
}

/// The L2 entry of `len` bytes at `offset`, `len` from 1 to one less than a cluster.
pub(super) fn compressed_entry(offset: u64, len: u64) -> u64 {
    let further_sectors = (offset + len - 1) / SECTOR - offset / SECTOR;
    COMPRESSED | further_sectors << offset_bits(CLUSTER_BITS) | offset
}

/// Offset and length of a compressed cluster; the length counts to the end of its last sector.
pub(super) fn compressed_place(entry: u64, cluster_bits: u32) -> (u64, u64) {
    let bits = offset_bits(cluster_bits);
    let offset = entry & ((1 << bits) - 1);
    let further_sectors = (entry & !(COPIED | COMPRESSED)) >> bits;
    (offset, (further_sectors + 1) * SECTOR - offset % SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_place_holds_its_bytes_and_less_than_a_sector_more() {
        for (offset, len) in [
            (1 << 16, 1),
            (70_000, 65_535),
            (66_047, 1),
            (66_047, 2),
            (66_048, 512),
            (1 << 50, 513),
        ] {
            let entry = compressed_entry(offset, len);
            assert_eq!(entry & COPIED, 0);
            let (found, found_len) = compressed_place(entry, CLUSTER_BITS);
            assert_eq!(found, offset);
            assert!((len..len + SECTOR).contains(&found_len), "{offset} {len}: {found_len}");
            assert!((found + found_len).is_multiple_of(SECTOR));
        }
    }
}
