//! The file allocation table: chains of clusters.

use super::{
    Fat,
    format::{FIRST_CLUSTER, MAX_DIRECTORY},
    volume::{corrupt, read},
};
use crate::image::{ImageError, ReadAt};

/// Bytes of a table that are read at a time.
const WINDOW: u64 = 4096;
/// A window begins at a multiple of this, bytes.
const BLOCK: u64 = 512;
/// A file in more pieces is refused: 4 MiB of memory.
const MAX_RUNS: usize = 1 << 19;
/// The highest eight numbers of each kind mark the last cluster of a chain.
const LAST_NUMBERS: u32 = 8;

/// The first table, with a window of it in memory.
pub(super) struct Table<'a, R> {
    fat: &'a Fat<R>,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, R: ReadAt> Table<'a, R> {
    pub(super) fn new(fat: &'a Fat<R>) -> Self {
        Self {
            fat,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The number of a cluster that exists.
    pub(super) fn get(&mut self, cluster: u32) -> Result<u32, ImageError> {
        let boot = &self.fat.boot;
        let bits = u64::from(cluster) * boot.kind.bits();
        let at = bits / 8;
        let width = boot.kind.bits().div_ceil(8);
        if at < self.start || at + width > self.start + self.bytes.len() as u64 {
            self.start = at / BLOCK * BLOCK;
            let length = WINDOW.min(boot.table_size - self.start);
            self.bytes.resize(length as usize, 0);
            read(&self.fat.source, &mut self.bytes, boot.table_offset + self.start)?;
        }
        let from = (at - self.start) as usize;
        let number = self.bytes[from..from + width as usize]
            .iter()
            .rev()
            .fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        // A number of FAT12 begins in the middle of a byte for every other cluster.
        Ok(number >> (bits % 8) & boot.kind.mask())
    }
}

impl<R: ReadAt> Fat<R> {
    /// The chain of clusters that begins at `first`, as runs of neighbours: first cluster and number. A file's chain must have
    /// exactly `wanted` clusters; a directory's (`None`) may have any number up to the largest directory.
    pub(super) fn runs(&self, first: u32, wanted: Option<u64>) -> Result<Vec<(u32, u32)>, ImageError> {
        let at = self.boot.table_offset;
        let most = MAX_DIRECTORY.div_ceil(self.boot.cluster).max(1);
        let end = self.boot.clusters + FIRST_CLUSTER;
        let mut table = Table::new(self);
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut cluster = first;
        let mut count = 0;
        loop {
            if !(FIRST_CLUSTER..end).contains(&cluster) {
                let problem = format!("a chain goes on at cluster {cluster:#x}, which does not exist");
                return Err(corrupt(at, problem));
            }
            match runs.last_mut() {
                Some((start, length)) if *start + *length == cluster => *length += 1,
                _ => runs.push((cluster, 1)),
            }
            if runs.len() > MAX_RUNS {
                return Err(corrupt(at, format!("a file has more than {MAX_RUNS} pieces")));
            }
            count += 1;
            let next = table.get(cluster)?;
            let last = next > self.boot.kind.mask() - LAST_NUMBERS;
            match wanted {
                // A circle ends here at the latest, since it never reaches a last cluster; so does the chain of an empty file.
                Some(wanted) if last != (count == wanted) || count > wanted => {
                    let problem = format!("the cluster chain and the file size disagree ({wanted} clusters expected)");
                    return Err(corrupt(at, problem));
                }
                None if count > most || (count == most && !last) => {
                    return Err(corrupt(at, "a directory has more than 65536 entries"));
                }
                _ if last => return Ok(runs),
                _ => cluster = next,
            }
        }
    }
}
