//! Checks a whole volume, as `fsck.fat` does.

use super::{
    Fat, FatEntry, FatKind,
    format::{
        BOOT_SIZE, BPB_FS_INFO, BS_RESERVED1, EXTENDED_FAT32, FIRST_CLUSTER, FSI_FREE_COUNT, FSI_SIGNATURES, MIN_FAT32,
        STATE_DIRTY, u32_at,
    },
    table::Table,
    volume::{corrupt, read},
};
use crate::{
    image::{ImageError, ReadAt},
    model::RelPath,
};
use std::collections::BTreeMap;

/// Bytes of two tables that are compared at a time.
const PIECE: usize = 1 << 16;

/// Numbers of FSInfo's sector, and of the copy's, that mean "none".
const NO_SECTOR: [u64; 2] = [0, 0xffff];
/// A number of free clusters that means "not known".
const UNKNOWN_COUNT: u32 = u32::MAX;
/// Problems above this number are not kept.
const MAX_PROBLEMS: usize = 16;
/// Numbers in a table that mark a cluster as unusable, of each kind: eight below the highest.
const BAD_FROM_TOP: u32 = 8;

impl<R: ReadAt> Fat<R> {
    /// What `fsck.fat` would mend in the volume, as errors: unusual fields of the boot sector, the mark of a volume that was not
    /// unmounted, tables that differ, FSInfo and the copy of the boot sector, clusters of two files and of none. `nodes` are the
    /// entries of the volume, and `whole` says that none is missing.
    pub fn findings(&self, nodes: &BTreeMap<RelPath, FatEntry>, whole: bool) -> Vec<ImageError> {
        let mut found: Vec<ImageError> = self.boot.oddities.iter().map(|oddity| corrupt(0, oddity)).collect();
        if self.is_dirty() {
            found.push(corrupt(
                self.boot.table_offset,
                "it was not unmounted, or has errors: its dirty bit is set",
            ));
        }
        found.extend(self.compare_tables().err());
        if self.boot.kind == FatKind::Fat32 {
            let free = self.free_clusters().ok();
            found.extend(free.and_then(|free| self.check_fat32(free, false).err()));
        }
        match self.clusters_of(nodes) {
            Ok((shared, lost)) => {
                found.extend(shared);
                if lost > 0 && whole {
                    let problem = format!("{lost} clusters are in use but belong to no file or directory");
                    found.push(corrupt(self.boot.table_offset, problem));
                }
            }
            Err(error) => found.push(error),
        }
        found.truncate(MAX_PROBLEMS);
        found
    }

    /// Whether a system was writing to the volume, or met errors, when it was last used: the two highest bits of the second number of
    /// FAT16 and FAT32, or Linux's own mark.
    fn is_dirty(&self) -> bool {
        let clean = match self.boot.kind {
            FatKind::Fat12 => return self.boot.state & STATE_DIRTY != 0,
            FatKind::Fat16 => 0xc000,
            FatKind::Fat32 => 0x0c00_0000,
        };
        let number = Table::new(self).get(1);
        self.boot.state & STATE_DIRTY != 0 || number.is_ok_and(|number| number & clean != clean)
    }

    /// The entries that share clusters with one before, and the number of clusters in use that belong to none. Entries with a broken
    /// chain have no clusters here, and then none is counted as lost.
    fn clusters_of(&self, nodes: &BTreeMap<RelPath, FatEntry>) -> Result<(Vec<ImageError>, u32), ImageError> {
        let mut taken = vec![0u64; (self.boot.clusters as usize).div_ceil(64)];
        let mut shared = Vec::new();
        let mut broken = false;
        let (mut used, mut seen) = (0, 0u64);
        let root = (self.boot.kind == FatKind::Fat32).then(|| self.root());
        for node in root.iter().chain(nodes.values()) {
            let wanted = (!node.directory).then(|| u64::from(node.size).div_ceil(self.boot.cluster));
            if wanted == Some(0) && node.first == 0 {
                continue;
            }
            let Ok(runs) = self.runs(node.first, wanted) else {
                broken = true;
                continue;
            };
            let mut first_shared = None;
            for (first, clusters) in runs {
                seen += u64::from(clusters);
                for cluster in first..first + clusters {
                    let index = (cluster - FIRST_CLUSTER) as usize;
                    let bit = 1 << (index % 64);
                    if taken[index / 64] & bit != 0 {
                        first_shared.get_or_insert(cluster);
                    } else {
                        taken[index / 64] |= bit;
                        used += 1;
                    }
                }
            }
            if let Some(cluster) = first_shared
                && shared.len() < MAX_PROBLEMS
            {
                let name = &node.name;
                shared.push(corrupt(
                    node.offset,
                    format!("{name:?} shares cluster {cluster} with another entry"),
                ));
            }
            // Each cluster could belong to every entry of a hostile volume.
            if seen > 4 * u64::from(self.boot.clusters) + u64::from(MIN_FAT32) {
                shared.truncate(MAX_PROBLEMS - 1);
                shared.push(corrupt(node.offset, "many more entries share clusters"));
                return Ok((shared, 0));
            }
        }
        let (free, bad) = self.count_clusters()?;
        let lost = self.boot.clusters.saturating_sub(free + bad).saturating_sub(used);
        Ok((shared, if broken { 0 } else { lost }))
    }

    /// The numbers of free and of unusable clusters.
    fn count_clusters(&self) -> Result<(u32, u32), ImageError> {
        let mut table = Table::new(self);
        let (mut free, mut bad) = (0, 0);
        for cluster in FIRST_CLUSTER..self.boot.clusters + FIRST_CLUSTER {
            let number = table.get(cluster)?;
            free += u32::from(number == 0);
            bad += u32::from(number == self.boot.kind.mask() - BAD_FROM_TOP);
        }
        Ok((free, bad))
    }

    /// Checks that the tables agree, that every cluster is free or belongs to exactly one file or directory, and on FAT32 that
    /// the copy of the boot sector is equal and FSInfo counts the free clusters rightly.
    pub fn check(&self) -> Result<(), ImageError> {
        self.compare_tables()?;
        let used = self.used_clusters()?;
        let (free, bad) = self.count_clusters()?;
        let lost = self.boot.clusters.saturating_sub(free + bad).saturating_sub(used);
        if lost != 0 {
            let problem = format!("{lost} clusters are in use but belong to no file or directory");
            return Err(corrupt(self.boot.table_offset, problem));
        }
        if self.boot.kind == FatKind::Fat32 {
            self.check_fat32(free, true)?;
        }
        Ok(())
    }

    /// Number of clusters of all files and directories; a cluster of two of them is an error.
    fn used_clusters(&self) -> Result<u32, ImageError> {
        let nodes = self.walk()?;
        // One bit for each cluster.
        let mut taken = vec![0u64; (self.boot.clusters as usize).div_ceil(64)];
        let mut used = 0;
        // The root of FAT32 is a chain as well; that of FAT16 lies in front of the clusters.
        let root = (self.boot.kind == FatKind::Fat32).then(|| self.root());
        for node in root.iter().chain(nodes.values()) {
            let wanted = (!node.directory).then(|| u64::from(node.size).div_ceil(self.boot.cluster));
            if wanted == Some(0) && node.first == 0 {
                continue;
            }
            for (first, clusters) in self.runs(node.first, wanted)? {
                for cluster in first..first + clusters {
                    let index = (cluster - FIRST_CLUSTER) as usize;
                    if taken[index / 64] & 1 << (index % 64) != 0 {
                        let problem = format!("{:?} shares cluster {cluster} with another entry", node.name);
                        return Err(corrupt(node.offset, problem));
                    }
                    taken[index / 64] |= 1 << (index % 64);
                    used += 1;
                }
            }
        }
        Ok(used)
    }

    fn compare_tables(&self) -> Result<(), ImageError> {
        let (mut first, mut other) = ([0; PIECE], [0; PIECE]);
        let size = self.boot.table_size;
        for table in 1..u64::from(self.boot.tables) {
            let mut done = 0;
            while done < size {
                let n = (size - done).min(PIECE as u64);
                let at = self.boot.table_offset + done;
                let copy = at + table * size;
                read(&self.source, &mut first[..n as usize], at)?;
                read(&self.source, &mut other[..n as usize], copy)?;
                if first[..n as usize] != other[..n as usize] {
                    return Err(corrupt(copy, "a copy of the table differs from the first"));
                }
                done += n;
            }
        }
        Ok(())
    }

    /// Checks what only FAT32 has. A volume of another program may be without FSInfo, without a copy, and without a count.
    fn check_fat32(&self, free: u32, own: bool) -> Result<(), ImageError> {
        let bytes = self.boot.sector;
        let sector = |number: u64| {
            let mut sector = [0; BOOT_SIZE];
            read(&self.source, &mut sector, number * bytes).map(|()| sector)
        };
        let there = |number: u64| own || !NO_SECTOR.contains(&number);
        let (fs_info, backup) = (self.boot.fs_info, self.boot.backup);
        let reserved = self.boot.table_offset / bytes;
        for (what, number) in [("FSInfo", fs_info), ("the copy of the boot sector", backup)] {
            if there(number) && !(1..reserved).contains(&number) {
                let problem =
                    format!("{what} is said to be in sector {number}, outside of the {reserved} reserved sectors");
                return Err(corrupt(BPB_FS_INFO as u64, problem));
            }
        }
        if there(backup) {
            let (mut first, mut copy) = (sector(0)?, sector(backup)?);
            // Linux marks the boot sector alone.
            for boot in [&mut first, &mut copy] {
                boot[EXTENDED_FAT32 + BS_RESERVED1] &= !STATE_DIRTY;
            }
            if first != copy {
                let problem = "the copy of the boot sector differs from the boot sector";
                return Err(corrupt(backup * bytes, problem));
            }
        }
        if !there(fs_info) {
            return Ok(());
        }
        let info = sector(fs_info)?;
        if FSI_SIGNATURES
            .iter()
            .any(|(at, signature)| u32_at(&info, *at) != *signature)
        {
            return Err(corrupt(fs_info * bytes, "FSInfo lacks its signatures"));
        }
        let stated = u32_at(&info, FSI_FREE_COUNT);
        if stated != free && (own || stated != UNKNOWN_COUNT) {
            let problem = format!("FSInfo counts {stated} free clusters, but there are {free}");
            return Err(corrupt(fs_info * bytes + FSI_FREE_COUNT as u64, problem));
        }
        Ok(())
    }
}
