//! Checks a whole volume, as `fsck.fat` does.

use super::{
    Fat, FatKind,
    format::{BPB_FS_INFO, FIRST_CLUSTER, FSI_FREE_COUNT, FSI_SIGNATURES, SECTOR, u32_at},
    volume::{corrupt, read},
};
use crate::image::{ImageError, ReadAt};

/// Bytes of two tables that are compared at a time.
const PIECE: usize = 1 << 16;

impl<R: ReadAt> Fat<R> {
    /// Checks that the tables agree, that every cluster is free or belongs to exactly one file or directory, and on FAT32 that
    /// the copy of the boot sector is equal and FSInfo counts the free clusters rightly.
    pub fn check(&self) -> Result<(), ImageError> {
        self.compare_tables()?;
        let used = self.used_clusters()?;
        let free = self.free_clusters()?;
        if used + free != self.boot.clusters {
            let lost = self.boot.clusters - free - used;
            let problem = format!("{lost} clusters are in use but belong to no file or directory");
            return Err(corrupt(self.boot.table_offset, problem));
        }
        if self.boot.kind == FatKind::Fat32 {
            self.check_fat32(free)?;
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

    fn check_fat32(&self, free: u32) -> Result<(), ImageError> {
        let sector = |number: u64| {
            let mut bytes = [0; SECTOR as usize];
            read(&self.source, &mut bytes, number * SECTOR).map(|()| bytes)
        };
        let (fs_info, backup) = (self.boot.fs_info, self.boot.backup);
        let reserved = self.boot.table_offset / SECTOR;
        for (what, number) in [("FSInfo", fs_info), ("the copy of the boot sector", backup)] {
            if !(1..reserved).contains(&number) {
                let problem =
                    format!("{what} is said to be in sector {number}, outside of the {reserved} reserved sectors");
                return Err(corrupt(BPB_FS_INFO as u64, problem));
            }
        }
        if sector(0)? != sector(backup)? {
            let problem = "the copy of the boot sector differs from the boot sector";
            return Err(corrupt(backup * SECTOR, problem));
        }
        let info = sector(fs_info)?;
        if FSI_SIGNATURES
            .iter()
            .any(|(at, signature)| u32_at(&info, *at) != *signature)
        {
            return Err(corrupt(fs_info * SECTOR, "FSInfo lacks its signatures"));
        }
        let stated = u32_at(&info, FSI_FREE_COUNT);
        if stated != free {
            let problem = format!("FSInfo counts {stated} free clusters, but there are {free}");
            return Err(corrupt(fs_info * SECTOR + FSI_FREE_COUNT as u64, problem));
        }
        Ok(())
    }
}
