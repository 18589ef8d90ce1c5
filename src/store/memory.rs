//! A scratch directory in memory, for stores that exist only while a program runs.
//!
//! Linux keeps shared memory in a tmpfs that every user may write to. A store fits there if three limits allow it: the size of that
//! file system, the machine's memory, and the memory limits of this program's control groups. Sources: shm_overview(7),
//! proc_meminfo(5), the kernel's admin-guide/cgroup-v2.rst (`memory.*`) and cgroup-v1/memory.rst.

use super::{Scratch, error::StoreError, scratch::sweep};
use nix::sys::{
    statfs::{TMPFS_MAGIC, statfs},
    statvfs::{FsFlags, statvfs},
};
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Mount point of the tmpfs for shared memory.
const SHARED: &str = "/dev/shm";
/// Mount point of the control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// Names of a memory controller's files for the limit and the use, and the line of `memory.stat` for droppable page cache.
struct Names {
    limit: &'static str,
    used: &'static str,
    droppable: &'static str,
}

const VERSION_2: Names = Names {
    limit: "memory.max",
    used: "memory.current",
    droppable: "inactive_file",
};
const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    droppable: "total_inactive_file",
};

impl Scratch {
    /// A scratch directory in memory. `None` when `bytes` more do not fit there, or when programs cannot be executed from there.
    pub fn in_memory(bytes: u64) -> Option<Self> {
        let shared = Path::new(SHARED);
        if statfs(shared).ok()?.filesystem_type() != TMPFS_MAGIC {
            return None;
        }
        let volume = statvfs(shared).ok()?;
        if volume.flags().intersects(FsFlags::ST_NOEXEC | FsFlags::ST_RDONLY) {
            return None;
        }
        let free = volume.blocks_available().saturating_mul(volume.fragment_size());
        let machine = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let groups = left_to(&own, &|path| fs::read_to_string(path).ok()).unwrap_or(u64::MAX);
        if free.min(machine).min(groups) < bytes {
            return None;
        }
        let path = own_path(shared);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return None,
            _ => {}
        }
        if is_own(&path) { Self::new(&path).ok() } else { None }
    }
}

/// Frees the memory of scratch directories whose programs were killed.
pub(super) fn sweep_memory() -> Result<(), StoreError> {
    let path = own_path(Path::new(SHARED));
    if is_own(&path) { sweep(&path) } else { Ok(()) }
}

/// Parent of this user's scratch directories.
fn own_path(shared: &Path) -> PathBuf {
    shared.join(format!("pnb-{}", nix::unistd::geteuid()))
}

/// Whether `path` is a directory of this user that no other user can enter.
fn is_own(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| {
        found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 == 0
    })
}

/// Bytes of available memory, from the text of `/proc/meminfo`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes that the control groups in `own` (the text of `/proc/self/cgroup`) and their ancestors still allow; `None` without a limit.
fn left_to(own: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut least = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (top, names) = match controllers {
            "" => (PathBuf::from(GROUPS), VERSION_2),
            _ if controllers.split(',').any(|c| c == "memory") => (Path::new(GROUPS).join("memory"), VERSION_1),
            _ => continue,
        };
        let place = top.join(group.trim_start_matches('/'));
        let left = place.ancestors().take_while(|dir| dir.starts_with(&top));
        least = left.filter_map(|dir| left_in(dir, &names, read)).chain(least).min();
    }
    least
}

/// Bytes that one group still allows; droppable page cache counts as free.
fn left_in(dir: &Path, names: &Names, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let number = |name: &str| read(&dir.join(name))?.trim().parse::<u64>().ok();
    let limit = number(names.limit)?;
    let stat = read(&dir.join("memory.stat")).unwrap_or_default();
    let droppable = stat.lines().find_map(|line| {
        let value = line.strip_prefix(names.droppable)?.strip_prefix(' ')?;
        value.parse::<u64>().ok()
    });
    let used = number(names.used)?.saturating_sub(droppable.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeMap,
        fs::Permissions,
        os::unix::fs::{PermissionsExt, symlink},
    };

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let text = "MemTotal:       24684096 kB\nMemFree:         1000000 kB\nMemAvailable:   20971520 kB\n";
        assert_eq!(available(text), Some(20 << 30));
        for bad in [
            "",
            "MemTotal: 1 kB\n",
            "MemAvailable: many kB\n",
            "MemAvailable: 1 MB\n",
        ] {
            assert_eq!(available(bad), None, "{bad:?}");
        }
    }

    /// The bytes left under control groups with these files.
    fn left(own: &str, files: &[(&str, &str)]) -> Option<u64> {
        let files: BTreeMap<PathBuf, &str> = files.iter().map(|(p, t)| (Path::new(GROUPS).join(p), *t)).collect();
        left_to(own, &|path| files.get(path).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_narrowest_group_above_counts_and_what_can_be_dropped_is_free() {
        let files = [
            ("user/memory.max", "5000\n"),
            ("user/memory.current", "4500\n"),
            ("user/memory.stat", "anon 100\ninactive_file 3000\n"),
            ("user/job/memory.max", "max\n"),
            ("user/job/memory.current", "4000\n"),
            ("memory.max", "9000\n"),
            ("memory.current", "100\n"),
        ];
        assert_eq!(left("0::/user/job\n", &files), Some(3500));
        assert_eq!(left("0::/\n", &files), Some(8900));
        assert_eq!(left("0::/elsewhere\n", &files[..6]), None);
        // More used than allowed, as after a limit was lowered.
        let over = [("memory.max", "10\n"), ("memory.current", "11\n")];
        assert_eq!(left("0::/\n", &over), Some(0));
    }

    #[test]
    fn groups_of_version_1_count_by_their_own_files() {
        let files = [
            ("memory/job/memory.limit_in_bytes", "7000\n"),
            ("memory/job/memory.usage_in_bytes", "6000\n"),
            ("memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.usage_in_bytes", "1\n"),
            ("cpu/job/memory.limit_in_bytes", "1\n"),
            ("cpu/job/memory.usage_in_bytes", "1\n"),
        ];
        let own = "11:cpu,cpuacct:/job\n4:hugetlb,memory:/job\n0::/\nno fields\n";
        assert_eq!(left(own, &files), Some(1500));
        assert_eq!(left("4:memory:/\n", &files), Some(9_223_372_036_854_771_711));
    }

    #[test]
    fn a_directory_is_used_only_if_no_other_user_can_enter_it() {
        let shared = tempfile::tempdir().expect("a directory");
        let path = own_path(shared.path());
        assert!(!is_own(&path));
        DirBuilder::new().mode(0o700).create(&path).expect("made");
        assert!(is_own(&path));
        fs::set_permissions(&path, Permissions::from_mode(0o770)).expect("ours");
        assert!(!is_own(&path));
        fs::remove_dir(&path).expect("empty");
        let elsewhere = shared.path().join("elsewhere");
        DirBuilder::new().mode(0o700).create(&elsewhere).expect("made");
        symlink(&elsewhere, &path).expect("linked");
        assert!(!is_own(&path));
    }

    #[test]
    fn more_than_there_is_does_not_fit() {
        assert!(Scratch::in_memory(u64::MAX).is_none());
    }
}
