//! Reads the disk in a qcow2 image of unknown origin: nothing is trusted, and the memory is that of two clusters.
//!
//! Versions 2 and 3 are read, with plain, zero and compressed clusters (deflate and zstd) and with subclusters. Of an image with snapshots,
//! the present state of the disk is read. Images that need more than the file itself (a backing file, a key, a data file) are errors.

use super::format::{
    BACKING_FILE_OFFSET_AT, BACKING_FILE_SIZE_AT, CLUSTER_BITS_AT, COMPRESSED, COMPRESSION_DEFLATE,
    COMPRESSION_TYPE_AT, COMPRESSION_ZSTD, COPIED, CRYPT_METHOD_AT, DATA_FILE_NAME, ENTRY, FORMAT, HEADER_LEN,
    HEADER_LENGTH_AT, HEADER_V2, HEADER_V3, INCOMPAT_COMPRESSION, INCOMPAT_CORRUPT, INCOMPAT_DATA_FILE, INCOMPAT_DIRTY,
    INCOMPAT_EXTENDED_L2, INCOMPATIBLE_FEATURES_AT, L1_SIZE_AT, L1_TABLE_OFFSET_AT, MAGIC, MAX_CLUSTER_BITS,
    MAX_L1_BYTES, MAX_NAME, MIN_CLUSTER_BITS, NB_SNAPSHOTS_AT, NO_EXTENSION, OFFSET, SECTOR, SIZE_AT, VERSION_AT, ZERO,
    compressed_place,
};
use crate::{
    image::{ImageError, ReadAt},
    model::visible_bytes,
};
use std::{
    io::{self, Read},
    sync::{Mutex, PoisonError},
};

/// A zstd frame with a window above 2^23 bytes is refused: the size that RFC 8878 asks every decoder to support.
const MAX_WINDOW_LOG: u32 = 23;
/// Subclusters of a cluster, and the least size of a cluster that has them, as a power of two.
const SUBCLUSTERS: u32 = 32;
const MIN_EXTENDED_BITS: u32 = 14;

/// The disk in a qcow2 image. Reading past its end is an error of kind `UnexpectedEof`, a broken table or cluster one of kind
/// `InvalidData`.
#[derive(Debug)]
pub struct Qcow2<R> {
    image: R,
    /// Bytes of the image file.
    file_size: u64,
    /// Bytes of the disk.
    size: u64,
    cluster_bits: u32,
    l1_offset: u64,
    zstd: bool,
    /// Whether L2 entries may have the flag [`ZERO`].
    has_zero: bool,
    /// Bytes of an L2 entry: twice as many with subclusters, whose bits are in the second half.
    l2_entry: u64,
    snapshots: u32,
    dirty: bool,
    kept: Mutex<Kept>,
}

/// The table and the cluster that were read last.
#[derive(Debug, Default)]
struct Kept {
    /// An L2 table with its index in the L1 table; empty where the disk has no L2 table.
    l2: Option<(u64, Vec<u8>)>,
    /// The bytes of a compressed cluster with its index on the disk.
    cluster: Option<(u64, Vec<u8>)>,
}

/// Place of a cluster of the disk.
enum ClusterLocation {
    Zeros,
    Plain(u64),
    /// Plain, but only in the subclusters whose bits are set.
    Partly(u64, u32),
    Compressed {
        offset: u64,
        len: u64,
    },
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}
fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

fn input(source: io::Error) -> ImageError {
    ImageError::Input {
        format: FORMAT,
        offset: 0,
        source,
    }
}

fn bad(offset: usize, problem: String) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset: offset as u64,
        problem,
    }
}

/// The header, with zeros in place of fields that a shorter header lacks.
fn read_header(image: &impl ReadAt, file_size: u64) -> Result<[u8; HEADER_LEN], ImageError> {
    let mut header = [0; HEADER_LEN];
    let present = file_size.min(HEADER_LEN as u64) as usize;
    image.read_exact_at(&mut header[..present], 0).map_err(input)?;
    if !header.starts_with(&MAGIC) {
        let found = header[..MAGIC.len()].escape_ascii();
        return Err(bad(0, format!("the magic is \"{found}\"")));
    }
    let version = be32(&header, VERSION_AT);
    // Version 2 has no field for the length of its header.
    let (least, length) = match version {
        2 => (HEADER_V2, HEADER_V2),
        3 => (HEADER_V3, be32(&header, HEADER_LENGTH_AT) as usize),
        _ => return Err(bad(VERSION_AT, format!("version {version} is not supported"))),
    };
    if length < least || present < least {
        let problem = format!("its header has {length} bytes, less than {least}");
        return Err(bad(HEADER_LENGTH_AT, problem));
    }
    header[length.min(HEADER_LEN)..].fill(0);
    Ok(header)
}

/// Whether clusters are compressed with zstd instead of deflate. Features without which the disk cannot be read are errors.
fn compression(header: &[u8; HEADER_LEN]) -> Result<bool, ImageError> {
    let incompatible = be64(header, INCOMPATIBLE_FEATURES_AT);
    if incompatible & INCOMPAT_CORRUPT != 0 {
        let problem = "it is marked corrupt, and is not read before `qemu-img check -r` mends it";
        return Err(bad(INCOMPATIBLE_FEATURES_AT, problem.to_owned()));
    }
    // The dirty bit means that the refcounts may be wrong, which are not read here.
    let unknown = incompatible & !(INCOMPAT_DIRTY | INCOMPAT_COMPRESSION | INCOMPAT_DATA_FILE | INCOMPAT_EXTENDED_L2);
    if unknown != 0 {
        let problem = format!("the incompatible features {unknown:#x} are unknown");
        return Err(bad(INCOMPATIBLE_FEATURES_AT, problem));
    }
    // The type of compression must be deflate unless the feature bit announces another.
    match (incompatible & INCOMPAT_COMPRESSION != 0, header[COMPRESSION_TYPE_AT]) {
        (false, COMPRESSION_DEFLATE) => Ok(false),
        (true, COMPRESSION_ZSTD) => Ok(true),
        (_, other) => Err(bad(
            COMPRESSION_TYPE_AT,
            format!("compression type {other} is not supported"),
        )),
    }
}

/// What the disk in a qcow2 image needs beside the image, as a fragment that names it; `None` when the image is enough.
///
/// # Errors
/// It has no header of a qcow2 image.
pub fn needs(image: &impl ReadAt) -> Result<Option<String>, ImageError> {
    let file_size = image.size().map_err(input)?;
    let header = read_header(image, file_size)?;
    Ok(needed(image, &header).map(|(_, problem)| problem))
}

/// The same with the offset of the field that says so.
fn needed(image: &impl ReadAt, header: &[u8; HEADER_LEN]) -> Option<(usize, String)> {
    let backing = be64(header, BACKING_FILE_OFFSET_AT);
    if backing != 0 {
        let name = name_at(image, backing, be32(header, BACKING_FILE_SIZE_AT).into());
        let problem = format!("it has a backing file{name}, which is not opened");
        return Some((BACKING_FILE_OFFSET_AT, problem));
    }
    if be64(header, INCOMPATIBLE_FEATURES_AT) & INCOMPAT_DATA_FILE != 0 {
        let name = data_file(image, header);
        let problem = format!("it has an external data file{name}, which is not opened");
        return Some((INCOMPATIBLE_FEATURES_AT, problem));
    }
    let method = match be32(header, CRYPT_METHOD_AT) {
        0 => return None,
        1 => "AES".to_owned(),
        2 => "LUKS".to_owned(),
        other => format!("the unknown method {other}"),
    };
    Some((
        CRYPT_METHOD_AT,
        format!("it is encrypted with {method}, and no key is given"),
    ))
}

/// A name in the header as it is shown behind what it names; nothing where it cannot be read.
fn name_at(image: &impl ReadAt, offset: u64, len: u64) -> String {
    let mut name = vec![0; len.min(MAX_NAME) as usize];
    match image.read_exact_at(&mut name, offset) {
        Ok(()) if !name.is_empty() => format!(" \"{}\"", visible_bytes(&name)),
        _ => String::new(),
    }
}

/// The name of the external data file, from the extensions behind the header.
fn data_file(image: &impl ReadAt, header: &[u8; HEADER_LEN]) -> String {
    let mut at = u64::from(be32(header, HEADER_LENGTH_AT));
    // The extensions lie in the first cluster; a header has a few.
    for _ in 0..16 {
        let mut extension = [0; 8];
        if image.read_exact_at(&mut extension, at).is_err() {
            break;
        }
        let (kind, len) = (be32(&extension, 0), u64::from(be32(&extension, 4)));
        match kind {
            NO_EXTENSION => break,
            DATA_FILE_NAME => return name_at(image, at + 8, len),
            _ => at += 8 + len.next_multiple_of(8),
        }
    }
    String::new()
}

/// Offset of the L1 table, which must cover a disk of `size` bytes and lie within the file.
fn l1_offset(
    header: &[u8; HEADER_LEN],
    size: u64,
    (cluster_bits, l2_entry): (u32, u64),
    file_size: u64,
) -> Result<u64, ImageError> {
    let (entries, offset) = (u64::from(be32(header, L1_SIZE_AT)), be64(header, L1_TABLE_OFFSET_AT));
    // An entry of L1 is an L2 table of one cluster, whose entries are of one cluster each.
    let needed = size.div_ceil((1 << (2 * cluster_bits)) / l2_entry);
    let bytes = entries * ENTRY;
    if entries < needed || bytes > MAX_L1_BYTES {
        let problem = format!("its L1 table has {entries} entries, but a disk of {size} bytes needs {needed}");
        return Err(bad(L1_SIZE_AT, problem));
    }
    let aligned = offset.is_multiple_of(1 << cluster_bits);
    if !aligned || offset.checked_add(bytes).is_none_or(|end| end > file_size) {
        let problem = format!("its L1 table of {bytes} bytes is at {offset}, but the file has {file_size} bytes");
        return Err(bad(L1_TABLE_OFFSET_AT, problem));
    }
    Ok(offset)
}

impl<R: ReadAt> Qcow2<R> {
    /// Checks the header and the place of the L1 table.
    pub fn open(image: R) -> Result<Self, ImageError> {
        let file_size = image.size().map_err(input)?;
        let header = read_header(&image, file_size)?;
        if let Some((offset, problem)) = needed(&image, &header) {
            return Err(bad(offset, problem));
        }
        let zstd = compression(&header)?;
        let cluster_bits = be32(&header, CLUSTER_BITS_AT);
        if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
            return Err(bad(CLUSTER_BITS_AT, format!("a cluster has 2^{cluster_bits} bytes")));
        }
        let size = be64(&header, SIZE_AT);
        let features = be64(&header, INCOMPATIBLE_FEATURES_AT);
        let extended = features & INCOMPAT_EXTENDED_L2 != 0;
        if extended && cluster_bits < MIN_EXTENDED_BITS {
            let problem = format!("a cluster of 2^{cluster_bits} bytes has no subclusters");
            return Err(bad(CLUSTER_BITS_AT, problem));
        }
        let l2_entry = if extended { 2 * ENTRY } else { ENTRY };
        let l1_offset = l1_offset(&header, size, (cluster_bits, l2_entry), file_size)?;
        Ok(Self {
            image,
            file_size,
            size,
            cluster_bits,
            l1_offset,
            zstd,
            has_zero: be32(&header, VERSION_AT) > 2 && !extended,
            l2_entry,
            snapshots: be32(&header, NB_SNAPSHOTS_AT),
            dirty: features & INCOMPAT_DIRTY != 0,
            kept: Mutex::default(),
        })
    }

    /// Bytes of a cluster, the unit of compression.
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The number of snapshots, whose disks are not read.
    pub fn snapshots(&self) -> u32 {
        self.snapshots
    }

    /// Whether the image was not closed, so that its reference counts may be wrong.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The place of cluster `index` of the disk. The L2 table that names it is kept for the next call.
    fn place(&self, index: u64, kept: &mut Kept) -> io::Result<ClusterLocation> {
        let entries = self.cluster_size() / self.l2_entry;
        let (table, row) = (index / entries, (index % entries * self.l2_entry) as usize);
        if kept.l2.as_ref().is_none_or(|(held, _)| *held != table) {
            let mut entry = [0; ENTRY as usize];
            self.image.read_exact_at(&mut entry, self.l1_offset + table * ENTRY)?;
            let entry = u64::from_be_bytes(entry);
            let offset = entry & OFFSET;
            let mut bytes = Vec::new();
            if entry & !COPIED != 0 {
                let fits = offset.is_multiple_of(self.cluster_size()) && offset + self.cluster_size() <= self.file_size;
                if entry & !(COPIED | OFFSET) != 0 || offset == 0 || !fits {
                    return Err(invalid(format!("entry {table} of the L1 table is {entry:#x}")));
                }
                bytes.resize(self.cluster_size() as usize, 0);
                self.image.read_exact_at(&mut bytes, offset)?;
            }
            kept.l2 = Some((table, bytes));
        }
        let held = kept.l2.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let entry = be64(held, row);
        let bad = || invalid(format!("the L2 entry of cluster {index} is {entry:#x}"));
        if entry & COMPRESSED != 0 {
            let (offset, len) = compressed_place(entry, self.cluster_bits);
            if entry & COPIED != 0 || offset >= self.file_size {
                return Err(bad());
            }
            // The last sector may be incomplete.
            let len = len.min(self.file_size - offset);
            return Ok(ClusterLocation::Compressed { offset, len });
        }
        let offset = entry & OFFSET;
        let zero = self.has_zero && entry & ZERO != 0;
        let known = COPIED | OFFSET | if self.has_zero { ZERO } else { 0 };
        let misplaced = !offset.is_multiple_of(self.cluster_size()) || offset >= self.file_size;
        match () {
            () if entry & !known != 0 || misplaced => Err(bad()),
            () if zero || offset == 0 => Ok(ClusterLocation::Zeros),
            () if self.l2_entry > ENTRY => {
                let bits = be64(held, row + ENTRY as usize);
                let (allocated, zeros) = (bits as u32, (bits >> SUBCLUSTERS) as u32);
                // A subcluster that is neither is taken from the backing file, and there is none.
                if allocated & zeros != 0 {
                    return Err(invalid(format!("the subclusters of cluster {index} are {bits:#x}")));
                }
                Ok(ClusterLocation::Partly(offset, allocated))
            }
            () => Ok(ClusterLocation::Plain(offset)),
        }
    }

    /// Unpacks the compressed cluster `index`.
    fn unpack(&self, index: u64, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        // At most a cluster and a sector, whatever length the entry states.
        let len = len.min(self.cluster_size() + SECTOR) as usize;
        let mut packed = vec![0; len];
        self.image.read_exact_at(&mut packed, offset)?;
        let mut cluster = vec![0; self.cluster_size() as usize];
        let unpacked = if self.zstd {
            zstd::stream::read::Decoder::with_buffer(&packed[..]).and_then(|mut decoder| {
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                decoder.single_frame().read_exact(&mut cluster)
            })
        } else {
            flate2::bufread::DeflateDecoder::new(&packed[..]).read_exact(&mut cluster)
        };
        unpacked.map_err(|e| {
            invalid(format!(
                "the compressed cluster {index} at byte {offset} cannot be unpacked: {e}"
            ))
        })?;
        Ok(cluster)
    }

    /// Fills `buffer` from byte `from` of the file on. The file may end within its last cluster; missing bytes are zeros.
    fn read_plain(&self, from: u64, buffer: &mut [u8]) -> io::Result<()> {
        let present = self.file_size.saturating_sub(from).min(buffer.len() as u64) as usize;
        self.image.read_exact_at(&mut buffer[..present], from)?;
        buffer[present..].fill(0);
        Ok(())
    }

    /// Fills `buffer` with bytes of cluster `index` from `start` on.
    fn read_cluster(&self, index: u64, start: usize, buffer: &mut [u8]) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match self.place(index, &mut kept)? {
            ClusterLocation::Zeros => buffer.fill(0),
            ClusterLocation::Plain(offset) => {
                drop(kept);
                self.read_plain(offset + start as u64, buffer)?;
            }
            ClusterLocation::Partly(offset, allocated) => {
                drop(kept);
                let size = (self.cluster_size() / u64::from(SUBCLUSTERS)) as usize;
                let (mut at, mut rest) = (start, buffer);
                while !rest.is_empty() {
                    let n = (size - at % size).min(rest.len());
                    let (now, after) = rest.split_at_mut(n);
                    if allocated & 1 << (at / size) != 0 {
                        self.read_plain(offset + at as u64, now)?;
                    } else {
                        now.fill(0);
                    }
                    (at, rest) = (at + n, after);
                }
            }
            ClusterLocation::Compressed { offset, len } => {
                if kept.cluster.as_ref().is_none_or(|(held, _)| *held != index) {
                    kept.cluster = Some((index, self.unpack(index, offset, len)?));
                }
                let held = kept.cluster.as_ref().map_or(&[][..], |(_, bytes)| bytes);
                buffer.copy_from_slice(&held[start..start + buffer.len()]);
            }
        }
        Ok(())
    }
}

impl<R: ReadAt> ReadAt for Qcow2<R> {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !buffer.is_empty() {
            let start = offset % self.cluster_size();
            let n = (self.cluster_size() - start).min(buffer.len() as u64);
            let (part, rest) = buffer.split_at_mut(n as usize);
            self.read_cluster(offset >> self.cluster_bits, start as usize, part)?;
            (buffer, offset) = (rest, offset + n);
        }
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}
