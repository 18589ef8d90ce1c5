//! Shows the disk in a qcow2 image that anybody may have made: nothing is trusted, and memory is that of two clusters.
//!
//! Versions 2 and 3, plain, zero and compressed clusters (deflate and zstd). What needs more than the file itself (a backing
//! file, a key, a data file), snapshots and extended L2 entries are refused.

use super::format::*;
use crate::image::{ImageError, ReadAt};
use std::{
    io::{self, Read},
    sync::{Mutex, PoisonError},
};

/// A zstd frame that wants more memory than 2^23 bytes is refused: what RFC 8878 says every decoder should take.
const MAX_WINDOW_LOG: u32 = 23;

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
    /// Entries have [`ZERO`].
    has_zero: bool,
    kept: Mutex<Kept>,
}

/// What was read last.
#[derive(Debug, Default)]
struct Kept {
    /// An L2 table by its index in the L1 table; empty when there is none.
    l2: Option<(u64, Vec<u8>)>,
    /// A cluster that was compressed, by its index on the disk.
    cluster: Option<(u64, Vec<u8>)>,
}

/// Where a cluster of the disk is.
enum ClusterLocation {
    Zeros,
    Plain(u64),
    Compressed { offset: u64, len: u64 },
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

impl<R: ReadAt> Qcow2<R> {
    /// Reads the header and checks that the L1 table is there.
    pub fn open(image: R) -> Result<Self, ImageError> {
        let input = |source| ImageError::Input {
            format: FORMAT,
            offset: 0,
            source,
        };
        let bad = |offset: usize, problem: String| ImageError::Corrupt {
            format: FORMAT,
            offset: offset as u64,
            problem,
        };
        let file_size = image.size().map_err(input)?;
        let mut header = [0; HEADER_LEN];
        let present = file_size.min(HEADER_LEN as u64) as usize;
        image.read_exact_at(&mut header[..present], 0).map_err(input)?;
        if !header.starts_with(&MAGIC) {
            return Err(bad(0, format!("magic is \"{}\"", header[..4].escape_ascii())));
        }
        let version = be32(&header, 4);
        let least = match version {
            2 => HEADER_V2,
            3 => HEADER_V3,
            _ => return Err(bad(4, format!("version {version} is not read here"))),
        };
        let header_len = if version == 2 {
            HEADER_V2
        } else {
            be32(&header, 100) as usize
        };
        if header_len < least || present < least {
            return Err(bad(
                100,
                format!("its header has {header_len} bytes, less than {least}"),
            ));
        }
        // Fields behind the header are not there: they count as zeros.
        header[header_len.min(HEADER_LEN)..].fill(0);

        let incompatible = be64(&header, 72);
        let refused = [
            (8, be64(&header, 8) != 0, "it has a backing file"),
            (32, be32(&header, 32) != 0, "it is encrypted"),
            (60, be32(&header, 60) != 0, "it has snapshots"),
            (72, incompatible & INCOMPAT_CORRUPT != 0, "it is marked corrupt"),
            (
                72,
                incompatible & INCOMPAT_DATA_FILE != 0,
                "it has an external data file",
            ),
            (
                72,
                incompatible & INCOMPAT_EXTENDED_L2 != 0,
                "it has extended L2 entries",
            ),
        ];
        if let Some((offset, _, what)) = refused.into_iter().find(|(_, is, _)| *is) {
            return Err(bad(offset, format!("{what}, which is not read here")));
        }
        // A dirty image may have wrong counts, which are not read.
        let unknown = incompatible & !(INCOMPAT_DIRTY | INCOMPAT_COMPRESSION);
        if unknown != 0 {
            return Err(bad(72, format!("features {unknown:#x} are not known")));
        }
        let zstd = match (incompatible & INCOMPAT_COMPRESSION != 0, header[104]) {
            (false, COMPRESSION_DEFLATE) => false,
            (true, COMPRESSION_ZSTD) => true,
            (_, other) => return Err(bad(104, format!("compression type {other} is not read here"))),
        };
        let cluster_bits = be32(&header, 20);
        if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
            return Err(bad(20, format!("clusters have 2^{cluster_bits} bytes")));
        }
        let size = be64(&header, 24);
        let (l1_entries, l1_offset) = (u64::from(be32(&header, 36)), be64(&header, 40));
        let needed = size.div_ceil(1 << (2 * cluster_bits - 3));
        let l1_bytes = l1_entries * ENTRY;
        if l1_entries < needed || l1_bytes > MAX_L1_BYTES {
            let problem = format!("its L1 table has {l1_entries} entries, a disk of {size} bytes needs {needed}");
            return Err(bad(36, problem));
        }
        let aligned = l1_offset.is_multiple_of(1 << cluster_bits);
        if !aligned || l1_offset.checked_add(l1_bytes).is_none_or(|end| end > file_size) {
            let problem = format!("its L1 table of {l1_bytes} bytes is at {l1_offset}, the file has {file_size} bytes");
            return Err(bad(40, problem));
        }
        Ok(Self {
            image,
            file_size,
            size,
            cluster_bits,
            l1_offset,
            zstd,
            has_zero: version > 2,
            kept: Mutex::default(),
        })
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Where cluster `index` of the disk is; its L2 table becomes the one that is kept.
    fn place(&self, index: u64, kept: &mut Kept) -> io::Result<ClusterLocation> {
        let entries = self.cluster_size() / ENTRY;
        let (table, row) = (index / entries, (index % entries * ENTRY) as usize);
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
            // The last sector need not be whole.
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
            () => Ok(ClusterLocation::Plain(offset)),
        }
    }

    /// Unpacks the compressed cluster `index`.
    fn unpack(&self, index: u64, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        // At most a cluster and a sector, however long the entry says it is.
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
        unpacked.map_err(|e| invalid(format!("cluster {index}, compressed at {offset}: {e}")))?;
        Ok(cluster)
    }

    /// Fills `buffer` with bytes of cluster `index` from `start` on.
    fn read_cluster(&self, index: u64, start: usize, buffer: &mut [u8]) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match self.place(index, &mut kept)? {
            ClusterLocation::Zeros => buffer.fill(0),
            ClusterLocation::Plain(offset) => {
                drop(kept);
                // A file may end within its last cluster; what is missing is zeros.
                let from = offset + start as u64;
                let present = self.file_size.saturating_sub(from).min(buffer.len() as u64) as usize;
                self.image.read_exact_at(&mut buffer[..present], from)?;
                buffer[present..].fill(0);
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
