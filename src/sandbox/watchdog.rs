//! The watchdog of pid 1: sums up memory and processes where no control group does, and the bytes in a build directory on disk.

use super::{
    BuildDir, Limits, Spec,
    build_dir::{self, Used},
    cgroup::{ControlGroup, memory_limit, process_limit},
    socket_memory::SocketMemory,
};
use nix::{
    dir::Dir,
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::{Mode, fstat, fstatat},
        statvfs::statvfs,
    },
};
use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    os::{fd::OwnedFd, unix::fs::FileExt},
    time::{Duration, Instant},
};

/// Time between two sums of memory; a process can allocate about 100 MiB in it.
const TICK: Duration = Duration::from_millis(25);
/// Time between two looks at a control group.
const GROUP_TICK: Duration = Duration::from_millis(200);
/// Shortest time between two looks at the file system of a build directory on disk, and between two measurements of the directory.
const DISK_TICK: Duration = Duration::from_secs(1);
/// Longest time between two measurements of the directory: other programs may have freed as much on its file system as the stage wrote.
const DISK_REST: Duration = Duration::from_secs(15);
/// Measurements of the directory may take one part in this many of the time.
const DISK_SHARE: u32 = 20;
/// A stage without a control group is ended when the whole host has less available memory than this, bytes.
const HOST_RESERVE: u64 = 128 << 20;

/// Memory of an open descriptor: the structure of an open file, and of what it stands for, rounded up.
const DESCRIPTOR: u64 = 1 << 10;
/// Capacity of a pipe. seccomp forbids to change it.
const PIPE: u64 = 64 << 10;

/// Name and value of a limit that was reached.
pub(super) struct Reached(pub(super) String);

/// State of the watchdog.
pub(super) struct Watchdog {
    limits: Limits,
    /// Whether the watchdog enforces the memory limit.
    memory: bool,
    /// Whether it enforces the process limit.
    processes: bool,
    disk: Option<DiskWatch>,
    peak: u64,
    meminfo: Option<File>,
    /// Device number of the kernel's internal tmpfs, on which memfds lie.
    shared_memory: Option<u64>,
    sockets: Option<SocketMemory>,
}

impl Watchdog {
    pub(super) fn new(spec: &Spec, group: &ControlGroup, meminfo: Option<File>) -> Self {
        let memfd = memfd_create("", MFdFlags::MFD_CLOEXEC).ok();
        let memory = !group.limits_memory();
        Self {
            limits: spec.limits_in_force(),
            memory,
            processes: !group.counts_processes(),
            disk: matches!(spec.build_dir, BuildDir::Disk(_)).then(DiskWatch::new),
            peak: 0,
            meminfo,
            shared_memory: memfd.and_then(|fd| fstat(fd).ok()).map(|s| s.st_dev),
            sockets: memory.then(SocketMemory::new).flatten(),
        }
    }

    /// Time between two checks.
    pub(super) fn interval(&self) -> Duration {
        if self.memory || self.processes {
            TICK
        } else {
            GROUP_TICK
        }
    }

    /// Highest memory use seen, bytes.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// Checks all limits; returns the first one that is reached.
    pub(super) fn check(&mut self, proc: &OwnedFd, group: &ControlGroup) -> Option<Reached> {
        if let Some(limit) = group.reached().into_iter().next() {
            return Some(Reached(limit));
        }
        if self.memory || self.processes {
            let seen = self.look(proc);
            self.peak = self.peak.max(seen.memory);
            if self.processes && seen.processes > self.limits.processes {
                return Some(Reached(process_limit(&self.limits)));
            }
            if self.memory && seen.memory > self.limits.memory {
                return Some(Reached(memory_limit(&self.limits)));
            }
            if self.memory && self.host_is_short() {
                let limit = format!(
                    "memory of the host, which has less than {} MiB left",
                    HOST_RESERVE >> 20
                );
                return Some(Reached(limit));
            }
        }
        let used = self.disk.as_mut()?.look(&self.limits)?;
        self.judge_disk(&used)
    }

    /// The limit that a measured build directory has reached.
    fn judge_disk(&self, used: &Used) -> Option<Reached> {
        let limits = &self.limits;
        if used.bytes > limits.build_bytes {
            return Some(Reached(format!("{} bytes below /build", limits.build_bytes)));
        }
        if used.too_deep {
            return Some(Reached(format!("directories {} deep below /build", build_dir::DEEPEST)));
        }
        (used.inodes > limits.build_inodes).then(|| Reached(format!("{} inodes below /build", limits.build_inodes)))
    }

    fn host_is_short(&self) -> bool {
        let mut text = [0u8; 256];
        let Some(length) = self.meminfo.as_ref().and_then(|f| f.read_at(&mut text, 0).ok()) else {
            return false;
        };
        let available = field(&String::from_utf8_lossy(&text[..length]), "MemAvailable:");
        available.is_some_and(|bytes| bytes < HOST_RESERVE)
    }

    /// Sums up memory and processes of the stage.
    fn look(&self, proc: &OwnedFd) -> Seen {
        let mut seen = Seen::default();
        let mut exact = Seen::default();
        let pids = numbers(proc, ".");
        let mut counted = BTreeSet::new();
        for pid in pids.iter().filter(|pid| **pid != 1) {
            let threads = fstatat(proc, format!("{pid}/task").as_str(), AtFlags::empty());
            // The link count of a directory is 2 plus its number of subdirectories, which are the threads here.
            seen.processes += threads.map_or(0, |s| u32::try_from(s.st_nlink.saturating_sub(2)).unwrap_or(0));
            let status = read(proc, &format!("{pid}/status"));
            seen.memory += ["RssAnon:", "RssShmem:", "VmSwap:", "VmPTE:"]
                .iter()
                .filter_map(|n| field(&status, n))
                .sum::<u64>();
            seen.memory += self.shared(proc, *pid, &mut counted);
        }
        let sockets = self.sockets.as_ref().map_or(0, SocketMemory::sum);
        seen.memory += sockets;
        exact.memory += sockets;
        for point in ["/build", "/tmp"] {
            let used = statvfs(point).ok().filter(|_| point == "/tmp" || self.disk.is_none());
            let bytes = used.map_or(0, |s| {
                s.blocks()
                    .saturating_sub(s.blocks_free())
                    .saturating_mul(s.fragment_size())
            });
            seen.memory += bytes;
            exact.memory += bytes;
        }
        if seen.memory <= self.limits.memory {
            return seen;
        }
        // The sum counts pages that several processes share once for each of them. Over the limit, take the slower, exact sum.
        counted.clear();
        for pid in pids.iter().filter(|pid| **pid != 1) {
            let rollup = read(proc, &format!("{pid}/smaps_rollup"));
            exact.memory += ["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]
                .iter()
                .filter_map(|n| field(&rollup, n))
                .sum::<u64>();
            exact.memory += field(&read(proc, &format!("{pid}/status")), "VmPTE:").unwrap_or(0);
            exact.memory += self.shared(proc, *pid, &mut counted);
        }
        exact.processes = seen.processes;
        exact
    }

    /// Memory of the descriptors a process has open, and of the memfds and pipes behind them, each of which is counted once. A pipe
    /// counts as full: the kernel does not tell how many pages it holds.
    fn shared(&self, proc: &OwnedFd, pid: u32, counted: &mut BTreeSet<(u64, u64)>) -> u64 {
        let fds = numbers(proc, &format!("{pid}/fd"));
        let stats = fds
            .iter()
            .filter_map(|fd| fstatat(proc, format!("{pid}/fd/{fd}").as_str(), AtFlags::empty()).ok());
        let behind = stats.map(|s| {
            let pipe = s.st_mode & libc::S_IFMT == libc::S_IFIFO;
            let memfd = Some(s.st_dev) == self.shared_memory;
            match (pipe || memfd) && counted.insert((s.st_dev, s.st_ino)) {
                true if pipe => PIPE,
                true => s.st_blocks as u64 * 512,
                false => 0,
            }
        });
        behind.sum::<u64>() + fds.len() as u64 * DESCRIPTOR
    }
}

/// The last measurement of a build directory on disk.
struct DiskWatch {
    /// Earliest time of the next measurement.
    next: Instant,
    /// Time of the last measurement.
    seen: Instant,
    /// The directory's content at that time.
    used: Used,
    /// Bytes and inodes in use on its file system at that time.
    full: (u64, u64),
}

impl DiskWatch {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            next: now + DISK_TICK,
            seen: now,
            used: Used::default(),
            full: fullness(),
        }
    }

    /// Measures the directory, if it is time and its file system has grown by half of what the limits still allow.
    fn look(&mut self, limits: &Limits) -> Option<Used> {
        let begin = Instant::now();
        if begin < self.next {
            return None;
        }
        self.next = begin + DISK_TICK;
        let full = fullness();
        if !self.may_be_full(full, limits) && self.seen.elapsed() < DISK_REST {
            return None;
        }
        let used = build_dir::measure("/build");
        let end = Instant::now();
        *self = Self {
            next: end + DISK_TICK.max((end - begin) * DISK_SHARE),
            seen: end,
            used,
            full,
        };
        Some(used)
    }

    /// Whether the file system has grown by half of what the limits still allow, now that `full` of it is in use.
    fn may_be_full(&self, full: (u64, u64), limits: &Limits) -> bool {
        let bytes = limits.build_bytes.saturating_sub(self.used.bytes) / 2;
        let inodes = limits.build_inodes.saturating_sub(self.used.inodes) / 2;
        full.0.saturating_sub(self.full.0) >= bytes || full.1.saturating_sub(self.full.1) >= inodes
    }
}

/// Bytes and inodes in use on the file system of the build directory.
fn fullness() -> (u64, u64) {
    statvfs("/build").map_or((0, 0), |s| {
        let bytes = s.blocks().saturating_sub(s.blocks_free());
        let inodes = s.files().saturating_sub(s.files_free());
        (bytes.saturating_mul(s.fragment_size()), inodes)
    })
}

/// Memory in bytes, and the number of processes and threads.
#[derive(Default)]
struct Seen {
    memory: u64,
    processes: u32,
}

/// The value of the line `Name:   123 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|l| l.strip_prefix(name))?;
    value
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn read(proc: &OwnedFd, name: &str) -> String {
    let mut text = String::new();
    // The text stays empty where the process has just ended.
    if let Ok(fd) = openat(proc, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        let _ = File::from(fd).read_to_string(&mut text);
    }
    text
}

/// Names in a directory that are numbers.
fn numbers(proc: &OwnedFd, name: &str) -> Vec<u32> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut dir) = Dir::openat(proc, name, flags, Mode::empty()) else {
        return Vec::new();
    };
    dir.iter()
        .flatten()
        .filter_map(|e| e.file_name().to_str().ok()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Ids, probe::smallest};

    #[test]
    fn a_directory_is_measured_when_its_file_system_has_grown_by_half_of_what_is_allowed() {
        let limits = Limits {
            build_bytes: 1000,
            build_inodes: 100,
            ..smallest(Ids::Single).limits
        };
        let now = Instant::now();
        let disk = |bytes, inodes| DiskWatch {
            next: now,
            seen: now,
            used: Used {
                bytes,
                inodes,
                too_deep: false,
            },
            full: (7000, 700),
        };
        for (used, full, due) in [
            ((0, 0), (7000, 700), false),
            ((0, 0), (7499, 749), false),
            ((0, 0), (7500, 700), true),
            ((0, 0), (7000, 750), true),
            // Other programs have freed space.
            ((0, 0), (1000, 100), false),
            ((600, 0), (7200, 700), true),
            ((600, 60), (7199, 719), false),
            ((0, 60), (7000, 720), true),
            ((1000, 0), (7000, 700), true),
        ] {
            assert_eq!(
                disk(used.0, used.1).may_be_full(full, &limits),
                due,
                "{used:?} {full:?}"
            );
        }
    }
}
