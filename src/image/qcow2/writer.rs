//! Writes a qcow2 image: clusters are compressed by several threads and placed by one, in the order of the disk.
//!
//! The place of a cluster depends only on the clusters before it, so the bytes are the same for any number of threads, and whether or
//! not the source knows its holes. Each of n threads takes every n-th run of clusters and returns one run after the other through a
//! short queue. Memory is a few MiB for each thread, and 8 bytes for each cluster.

use super::format::{
    BLOCK_COUNTS, CLUSTER, COPIED, ENTRY, FORMAT, L2_ENTRIES, MAX_L1_BYTES, Qcow2Header, SECTOR, compressed_entry,
};
use crate::{
    image::{ImageError, ReadAt},
    model::ZstdLevel,
};
use std::{
    collections::BTreeMap,
    io::{Seek, SeekFrom, Write},
    num::NonZeroU32,
    ops::Range,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

const SOURCE: &str = "a disk to convert";
/// Number of clusters that a thread compresses before it passes them on: 1 MiB.
const RUN: u64 = 16;
/// Number of finished runs that a thread may hold.
const AHEAD: usize = 2;
static ZEROS: [u8; CLUSTER as usize] = [0; CLUSTER as usize];

/// Sizes of a written image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Qcow2Summary {
    /// Bytes of the disk: the source, and zeros up to a multiple of 512.
    pub virtual_size: u64,
    /// Bytes of the image.
    pub file_size: u64,
    /// Number of 64-KiB clusters that are stored compressed.
    pub compressed: u64,
    /// Number of 64-KiB clusters that are stored uncompressed, because compression does not shrink them.
    pub plain: u64,
}

/// A cluster of the disk that does not consist of zeros.
struct Stored {
    /// Index on the disk.
    index: u64,
    /// One zstd frame, or the bytes of the cluster if there are as many as a cluster has.
    bytes: Vec<u8>,
}

type Batch = Result<Vec<Stored>, ImageError>;

/// Writes `source` to `out`, which must be empty, each cluster compressed at `level` by `workers` threads.
///
/// The header is written last. The bytes are the same for any number of workers.
pub fn write(
    source: &(dyn ReadAt + Sync),
    out: impl Write + Seek,
    level: ZstdLevel,
    workers: NonZeroU32,
) -> Result<Qcow2Summary, ImageError> {
    let refuse = |problem: String| ImageError::Request {
        format: FORMAT,
        problem,
    };
    let source_size = source.size().map_err(|e| input(0, e))?;
    let l1_entries = source_size.div_ceil(CLUSTER * L2_ENTRIES).max(1);
    if l1_entries > MAX_L1_BYTES / ENTRY {
        return Err(refuse(format!(
            "a disk of {source_size} bytes is too large for the format"
        )));
    }
    let runs = data_runs(source, source_size)?;
    let mut image = Image::new(out, l1_entries);
    thread::scope(|scope| {
        let count = runs.iter().map(|r| r.end - r.start).sum::<u64>();
        let workers = u64::from(workers.get()).min(count) as usize;
        let mut queues = Vec::new();
        for worker in 0..workers {
            let (sender, queue) = sync_channel(AHEAD);
            queues.push(queue);
            let own = runs.iter().cloned().flatten().skip(worker).step_by(workers);
            scope.spawn(move || compress_runs(source, source_size, level, own, &sender));
        }
        // The queues are dropped at the end of this closure, which ends the threads after an error too.
        for number in 0..count {
            let run = queues[(number % workers as u64) as usize].recv();
            let run = run.map_err(|_| refuse("a compressing thread ended early".to_owned()))?;
            for stored in run? {
                image.store(&stored)?;
            }
        }
        Ok(())
    })?;
    image.finish(source_size.next_multiple_of(SECTOR))
}

fn input(offset: u64, source: std::io::Error) -> ImageError {
    ImageError::Input {
        format: SOURCE,
        offset,
        source,
    }
}

/// The numbers of the runs that may hold data, sorted.
fn data_runs(source: &dyn ReadAt, size: u64) -> Result<Vec<Range<u64>>, ImageError> {
    const BYTES: u64 = RUN * CLUSTER;
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let Some(data) = source.next_data(at).map_err(|e| input(at, e))? else {
            break;
        };
        let runs = data.start.max(at) / BYTES..data.end.min(size).div_ceil(BYTES);
        // At least one run of progress, whatever the source returns.
        at = (runs.end * BYTES).max((at / BYTES + 1) * BYTES);
        match found.last_mut() {
            Some(last) if last.end >= runs.start => last.end = last.end.max(runs.end),
            _ if runs.is_empty() => {}
            _ => found.push(runs),
        }
    }
    Ok(found)
}

/// Compresses the runs `own` and sends each to `queue`, until one fails or the receiver is gone.
fn compress_runs(
    source: &dyn ReadAt,
    size: u64,
    level: ZstdLevel,
    own: impl Iterator<Item = u64>,
    queue: &SyncSender<Batch>,
) {
    let mut buffer = vec![0; (RUN * CLUSTER) as usize];
    for number in own {
        let start = number * RUN * CLUSTER;
        let len = (size - start).min(RUN * CLUSTER) as usize;
        let read = source.read_exact_at(&mut buffer[..len], start);
        buffer[len..].fill(0);
        let run = read
            .map_err(|e| input(start, e))
            .and_then(|()| compress_run(number * RUN, &buffer, level));
        let last = run.is_err();
        if queue.send(run).is_err() || last {
            return;
        }
    }
}

/// Compresses the clusters in `bytes`, of which the first is cluster `first` of the disk.
///
/// Each run has a new compressor, so that no state of one run can influence another.
fn compress_run(first: u64, bytes: &[u8], level: ZstdLevel) -> Batch {
    let failed = |source| ImageError::Write { format: FORMAT, source };
    let mut compressor = zstd::bulk::Compressor::new(level.number()).map_err(failed)?;
    let mut packed = vec![0; zstd::zstd_safe::compress_bound(CLUSTER as usize)];
    let mut run = Vec::new();
    for (index, cluster) in (first..).zip(bytes.chunks(CLUSTER as usize)) {
        if cluster == ZEROS {
            continue;
        }
        let len = compressor
            .compress_to_buffer(cluster, &mut packed[..])
            .map_err(failed)?;
        let shrinks = len < cluster.len();
        let stored = if shrinks { &packed[..len] } else { cluster };
        run.push(Stored {
            index,
            bytes: stored.to_vec(),
        });
    }
    Ok(run)
}

/// The image that is being written.
struct Image<W> {
    out: W,
    /// Position of `out`.
    position: u64,
    l1_entries: u64,
    /// L2 tables by their index in the L1 table.
    l2: BTreeMap<u64, Vec<u64>>,
    /// Number of uses of each cluster of the file, up to `next`.
    refcounts: Vec<u16>,
    /// Offset of the first unused cluster.
    next: u64,
    /// The unused rest of the last cluster with compressed clusters in it.
    open: Range<u64>,
    compressed: u64,
    plain: u64,
}

impl<W: Write + Seek> Image<W> {
    fn new(out: W, l1_entries: u64) -> Self {
        // The header, and the L1 table.
        let used = 1 + (l1_entries * ENTRY).div_ceil(CLUSTER);
        Self {
            out,
            // Unknown, so that the first write seeks.
            position: u64::MAX,
            l1_entries,
            l2: BTreeMap::new(),
            refcounts: vec![1; used as usize],
            next: used * CLUSTER,
            open: used * CLUSTER..used * CLUSTER,
            compressed: 0,
            plain: 0,
        }
    }

    fn store(&mut self, stored: &Stored) -> Result<(), ImageError> {
        let len = stored.bytes.len() as u64;
        let (offset, entry) = if len < CLUSTER {
            let offset = self.place_compressed(len);
            self.compressed += 1;
            (offset, compressed_entry(offset, len))
        } else {
            let offset = self.place_clusters(1);
            self.plain += 1;
            (offset, offset | COPIED)
        };
        self.put(offset, &stored.bytes)?;
        let table = self.l2.entry(stored.index / L2_ENTRIES);
        let table = table.or_insert_with(|| vec![0; L2_ENTRIES as usize]);
        table[(stored.index % L2_ENTRIES) as usize] = entry;
        Ok(())
    }

    /// Reserves `count` clusters at the end, each used once.
    fn place_clusters(&mut self, count: u64) -> u64 {
        let offset = self.next;
        self.next += count * CLUSTER;
        self.refcounts.resize((self.next / CLUSTER) as usize, 1);
        offset
    }

    /// Reserves `len` bytes, less than a cluster, behind the last compressed cluster. They may cross into a fresh cluster if that is
    /// adjacent. No refcount overflows: a cluster holds less than 65,536 frames, since no zstd frame has only one byte.
    fn place_compressed(&mut self, len: u64) -> u64 {
        if len > self.open.end - self.open.start {
            let goes_on = self.open.end == self.next;
            let fresh = self.place_clusters(1);
            self.refcounts[(fresh / CLUSTER) as usize] = 0;
            let start = if goes_on { self.open.start } else { fresh };
            self.open = start..self.next;
        }
        let offset = self.open.start;
        self.open.start += len;
        for cluster in offset / CLUSTER..=(self.open.start - 1) / CLUSTER {
            self.refcounts[cluster as usize] += 1;
        }
        offset
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ImageError> {
        let failed = |source| ImageError::Write { format: FORMAT, source };
        if self.position != offset {
            self.out.seek(SeekFrom::Start(offset)).map_err(failed)?;
        }
        self.out.write_all(bytes).map_err(failed)?;
        self.position = offset + bytes.len() as u64;
        Ok(())
    }

    /// Writes the L2 and refcount tables behind the clusters, then the L1 table and the header.
    fn finish(mut self, virtual_size: u64) -> Result<Qcow2Summary, ImageError> {
        let mut l1 = vec![0; self.l1_entries as usize];
        for (index, table) in std::mem::take(&mut self.l2) {
            let offset = self.place_clusters(1);
            l1[index as usize] = offset | COPIED;
            self.put(offset, &be_bytes(&table))?;
        }
        // The refcount blocks count their own clusters too, so their number is searched until it fits.
        let data = self.next / CLUSTER;
        let (mut blocks, mut table) = (0, 0);
        while blocks * BLOCK_COUNTS < data + blocks + table || table * L2_ENTRIES < blocks {
            blocks = (data + blocks + table).div_ceil(BLOCK_COUNTS);
            table = blocks.div_ceil(L2_ENTRIES);
        }
        let first_block = self.place_clusters(blocks);
        let refcount_offset = self.place_clusters(table);
        let mut counts: Vec<u8> = self.refcounts.iter().flat_map(|c| c.to_be_bytes()).collect();
        counts.resize((blocks * CLUSTER) as usize, 0);
        self.put(first_block, &counts)?;
        let mut offsets: Vec<u64> = (0..blocks).map(|n| first_block + n * CLUSTER).collect();
        offsets.resize((table * L2_ENTRIES) as usize, 0);
        self.put(refcount_offset, &be_bytes(&offsets))?;
        let header = Qcow2Header {
            size: virtual_size,
            l1_entries: self.l1_entries as u32,
            l1_offset: CLUSTER,
            refcount_offset,
            refcount_clusters: table as u32,
        };
        self.put(CLUSTER, &be_bytes(&l1))?;
        self.put(0, &header.to_bytes())?;
        self.out
            .flush()
            .map_err(|source| ImageError::Write { format: FORMAT, source })?;
        Ok(Qcow2Summary {
            virtual_size,
            file_size: self.next,
            compressed: self.compressed,
            plain: self.plain,
        })
    }
}

fn be_bytes(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|e| e.to_be_bytes()).collect()
}
