//! The fields of a qcow2 file and their values. All integers are big-endian; sizes and offsets are in bytes.
//!
//! The names are those of <https://www.qemu.org/docs/master/interop/qcow2.html>.

/// Name of the format in messages.
pub(super) const FORMAT: &str = "a qcow2 image";

/// First bytes of the file.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
// Offsets in the header.
pub(super) const VERSION_AT: usize = 4;
pub(super) const BACKING_FILE_OFFSET_AT: usize = 8;
/// Length of the backing file's name.
pub(super) const BACKING_FILE_SIZE_AT: usize = 16;
/// The longest name of a backing file.
pub(super) const MAX_NAME: u64 = 1023;
/// Type of the header extension with the name of an external data file, and of the one that ends the extensions.
pub(super) const DATA_FILE_NAME: u32 = 0x4441_5441;
pub(super) const NO_EXTENSION: u32 = 0;
pub(super) const CLUSTER_BITS_AT: usize = 20;
pub(super) const SIZE_AT: usize = 24;
pub(super) const CRYPT_METHOD_AT: usize = 32;
/// Number of entries of the L1 table.
pub(super) const L1_SIZE_AT: usize = 36;
pub(super) const L1_TABLE_OFFSET_AT: usize = 40;
pub(super) const NB_SNAPSHOTS_AT: usize = 60;
pub(super) const INCOMPATIBLE_FEATURES_AT: usize = 72;
pub(super) const HEADER_LENGTH_AT: usize = 100;
pub(super) const COMPRESSION_TYPE_AT: usize = 104;
/// Length of the header of version 2, and the least of version 3.
pub(super) const HEADER_V2: usize = 72;
pub(super) const HEADER_V3: usize = 104;
/// Length of a header that names a compression type.
pub(super) const HEADER_LEN: usize = 112;
/// Bits of `incompatible_features`.
pub(super) const INCOMPAT_DIRTY: u64 = 1 << 0;
pub(super) const INCOMPAT_CORRUPT: u64 = 1 << 1;
pub(super) const INCOMPAT_DATA_FILE: u64 = 1 << 2;
pub(super) const INCOMPAT_COMPRESSION: u64 = 1 << COMPRESSION_BIT;
pub(super) const INCOMPAT_EXTENDED_L2: u64 = 1 << 4;
const COMPRESSION_BIT: u8 = 3;
/// Values of `compression_type`.
pub(super) const COMPRESSION_DEFLATE: u8 = 0;
pub(super) const COMPRESSION_ZSTD: u8 = 1;
/// `refcount_order` of counts with 16 bits, which version 2 always has.
const REFCOUNT_ORDER: u32 = 4;
/// Type of the header extension with the names of features, and the length of one entry in it.
const FEATURE_NAMES: u32 = 0x6803_f857;
const FEATURE_NAME_ENTRY: usize = 48;
/// Largest L1 table that QEMU opens.
pub(super) const MAX_L1_BYTES: u64 = 32 << 20;
/// Cluster sizes that QEMU opens: 512 bytes to 2 MiB.
pub(super) const MIN_CLUSTER_BITS: u32 = 9;
pub(super) const MAX_CLUSTER_BITS: u32 = 21;

/// Length of an entry of the L1 table, an L2 table or the refcount table.
pub(super) const ENTRY: u64 = 8;
/// Bit of an entry in both tables: the refcount of its cluster is one.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit of an L2 entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bit of an L2 entry: the cluster reads as zeros, whatever its offset.
pub(super) const ZERO: u64 = 1 << 0;
/// Bits of an entry that form an offset.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Unit of the length of a compressed cluster.
pub(super) const SECTOR: u64 = 512;

/// Size of the clusters that are written: 64 KiB.
pub(super) const CLUSTER_BITS: u32 = 16;
pub(super) const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries in an L2 table.
pub(super) const L2_ENTRIES: u64 = CLUSTER / ENTRY;
/// Counts of two bytes in a refcount block.
pub(super) const BLOCK_COUNTS: u64 = CLUSTER / 2;

/// The fields of a header that differ between images.
pub(super) struct Qcow2Header {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Entries of the L1 table.
    pub(super) l1_entries: u32,
    /// Offset of the L1 table.
    pub(super) l1_offset: u64,
    /// Offset of the refcount table.
    pub(super) refcount_offset: u64,
    /// Clusters of the refcount table.
    pub(super) refcount_clusters: u32,
}

impl Qcow2Header {
    /// The header and its extensions. A QEMU that does not know the compression bit prints its name from the extension.
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

/// Number of bits of a compressed cluster's entry that form its offset; the other bits below [`COMPRESSED`] count sectors.
fn offset_bits(cluster_bits: u32) -> u32 {
    62 - (cluster_bits - 8)
}

/// The L2 entry of a compressed cluster of `len` bytes at `offset`; `len` is at least 1 and less than a cluster.
pub(super) fn compressed_entry(offset: u64, len: u64) -> u64 {
    let further_sectors = (offset + len - 1) / SECTOR - offset / SECTOR;
    COMPRESSED | further_sectors << offset_bits(CLUSTER_BITS) | offset
}

/// Offset and length of a compressed cluster, up to the end of its last sector.
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
