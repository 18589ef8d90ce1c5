//! Limits on memory and processes by control groups, where the host lets us make one.
//!
//! Version 2 where its `memory` and `pids` controllers can be used, else the version 1 hierarchies of the same names. Where
//! there is neither (an ordinary user without a delegated group), [`super::watch`] enforces memory and `RLIMIT_NPROC` of
//! the stage's user namespace enforces processes (it counts per user namespace since Linux 5.14).
//! Sources: the kernel's admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/{memory,pids}.rst.

use super::{
    Limits,
    wire::{Fault, Step, Usage},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process,
};

/// Groups are called `pnb-<process id>`; those of processes that are gone are swept.
const PREFIX: &str = "pnb-";

/// One control group of this run.
struct GroupDirectory {
    path: PathBuf,
    /// `cgroup.procs`, open for writing with the rights of the helper.
    processes: File,
    version: u8,
    memory: bool,
    pids: bool,
    /// Files that count how often a limit was reached: of memory, of processes.
    events: [Option<File>; 2],
}

/// The control groups of this run; none where the host has none to give.
#[derive(Default)]
pub(super) struct ControlGroup {
    directories: Vec<GroupDirectory>,
    limits: Option<Limits>,
}

/// A hierarchy in which a group may be made.
struct Hierarchy {
    parent: PathBuf,
    version: u8,
    memory: bool,
    pids: bool,
}

impl ControlGroup {
    /// Makes the groups and sets their limits. A host that refuses is no error: the other mechanism takes over.
    pub(super) fn create(limits: &Limits) -> Result<Self, Fault> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").step("read /proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut group = ControlGroup {
            directories: Vec::new(),
            limits: Some(limits.clone()),
        };
        for place in places(&mounts, &own) {
            let memory = place.memory && !group.limits_memory();
            let pids = place.pids && !group.counts_processes();
            if !memory && !pids {
                continue;
            }
            sweep(&place.parent);
            let path = place.parent.join(format!("{PREFIX}{}", process::id()));
            if fs::create_dir(&path).is_err() {
                continue;
            }
            match set_up(&path, place.version, memory, pids, limits) {
                Ok(processes) => group.directories.push(GroupDirectory {
                    events: [
                        memory
                            .then(|| File::open(path.join(memory_events(place.version))).ok())
                            .flatten(),
                        pids.then(|| File::open(path.join("pids.events")).ok()).flatten(),
                    ],
                    path,
                    processes,
                    version: place.version,
                    memory,
                    pids,
                }),
                // A group that cannot be set up is as good as none.
                Err(_) => drop(fs::remove_dir(&path)),
            }
        }
        Ok(group)
    }

    /// Whether a group limits memory.
    pub(super) fn limits_memory(&self) -> bool {
        self.directories.iter().any(|d| d.memory)
    }

    /// Whether a group counts processes.
    pub(super) fn counts_processes(&self) -> bool {
        self.directories.iter().any(|d| d.pids)
    }

    /// Moves the calling process into the groups.
    pub(super) fn enter(&self) -> Result<(), Fault> {
        for directory in &self.directories {
            (&directory.processes)
                .write_all(b"0")
                .step(format!("enter {}", directory.path.display()))?;
        }
        Ok(())
    }

    /// What enforces the limits.
    pub(super) fn mechanism(&self) -> String {
        let by = |wanted: fn(&GroupDirectory) -> bool, other: &str| {
            let found = self.directories.iter().find(|d| wanted(d));
            found.map_or_else(|| other.to_owned(), |d| format!("cgroup v{}", d.version))
        };
        format!(
            "memory: {}, processes: {}",
            by(|d| d.memory, "watchdog"),
            by(|d| d.pids, "rlimit")
        )
    }

    /// The limits that the kernel has had to enforce so far.
    pub(super) fn reached(&self) -> Vec<String> {
        let Some(limits) = &self.limits else { return Vec::new() };
        let names = [("oom_kill", memory_limit(limits)), ("max", process_limit(limits))];
        let mut reached = Vec::new();
        for directory in &self.directories {
            for (file, (name, limit)) in directory.events.iter().zip(&names) {
                let mut text = [0u8; 512];
                let length = file.as_ref().and_then(|f| f.read_at(&mut text, 0).ok()).unwrap_or(0);
                if counter(&String::from_utf8_lossy(&text[..length]), name) > 0 {
                    reached.push(limit.clone());
                }
            }
        }
        reached
    }

    /// Reads what was used and which limits were reached, then removes the groups. Nothing may be left in them.
    pub(super) fn finish(&mut self) -> Usage {
        let mut usage = Usage {
            reached: self.reached(),
            ..Usage::default()
        };
        for directory in self.directories.drain(..) {
            if directory.memory {
                let peak = match directory.version {
                    2 => "memory.peak",
                    _ => "memory.max_usage_in_bytes",
                };
                let text = fs::read_to_string(directory.path.join(peak)).unwrap_or_default();
                usage.peak_memory = text.trim().parse().ok();
            }
            // What is left is swept by a later run.
            let _ = fs::remove_dir(&directory.path);
        }
        usage
    }
}

/// The file that counts kills for want of memory.
fn memory_events(version: u8) -> &'static str {
    match version {
        2 => "memory.events",
        _ => "memory.oom_control",
    }
}

/// The memory limit, for a message.
pub(super) fn memory_limit(limits: &Limits) -> String {
    format!("memory of {} bytes", limits.memory)
}

/// The limit on processes, for a message.
pub(super) fn process_limit(limits: &Limits) -> String {
    format!("{} processes", limits.processes)
}

/// Value of a `name value` line.
fn counter(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
}

/// Where groups may be made, best first.
fn places(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut places = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let Some(point) = left.split(' ').nth(4).map(Path::new) else {
            continue;
        };
        if kind == "cgroup2" {
            let inside = own.lines().find_map(|l| l.strip_prefix("0::/"));
            for relative in [inside, Some("")].into_iter().flatten() {
                let parent = point.join(relative);
                let given = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
                let has = |name: &str| given.split_whitespace().any(|c| c == name);
                places.push(Hierarchy {
                    parent,
                    version: 2,
                    memory: has("memory"),
                    pids: has("pids"),
                });
            }
        } else if kind == "cgroup" {
            let has = |name: &str| options.split(',').any(|o| o == name);
            let (memory, pids) = (has("memory"), has("pids"));
            let inside = own.lines().find_map(|l| {
                let mut fields = l.splitn(3, ':').skip(1);
                let names = fields.next()?;
                let path = fields.next()?;
                let here = names
                    .split(',')
                    .any(|n| (memory && n == "memory") || (pids && n == "pids"));
                here.then(|| path.trim_start_matches('/'))
            });
            places.push(Hierarchy {
                parent: point.join(inside.unwrap_or("")),
                version: 1,
                memory,
                pids,
            });
        }
    }
    places.sort_by_key(|p| std::cmp::Reverse(p.version));
    places
}

fn set_up(path: &Path, version: u8, memory: bool, pids: bool, limits: &Limits) -> io::Result<File> {
    let write = |name: &str, value: u64| fs::write(path.join(name), value.to_string());
    if memory {
        if version == 2 {
            write("memory.max", limits.memory)?;
        } else {
            write("memory.limit_in_bytes", limits.memory)?;
        }
        // Kernels without swap accounting do not have these files, and then swap does not count.
        let (name, value) = match version {
            2 => ("memory.swap.max", 0),
            _ => ("memory.memsw.limit_in_bytes", limits.memory),
        };
        if path.join(name).exists() {
            write(name, value)?;
        }
        if version == 2 {
            write("memory.oom.group", 1)?;
        }
    }
    if pids {
        write("pids.max", u64::from(limits.processes))?;
    }
    OpenOptions::new().write(true).open(path.join("cgroup.procs"))
}

/// Removes groups that builders which are gone left behind.
fn sweep(parent: &Path) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the order in which leftovers go does not matter"
    )]
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX))
            .and_then(|n| n.parse::<u32>().ok());
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        if let Some(owner) = owner
            && is_dir
            && !Path::new(&format!("/proc/{owner}")).exists()
        {
            // Still busy, or somebody else was faster.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchies_and_their_own_groups() {
        let mounts = "30 2 0:9 / /cg/memory rw - cgroup cgroup rw,memory\n\
                      31 2 0:8 / /cg/pids rw - cgroup cgroup rw,pids\n\
                      32 2 0:7 / /cg/unified rw - cgroup2 cgroup2 rw\n";
        let places = places(mounts, "8:pids:/\n4:memory:/a/b\n0::/x\n");
        let found: Vec<_> = places
            .iter()
            .map(|p| (p.parent.to_str(), p.version, p.memory, p.pids))
            .collect();
        assert_eq!(
            found,
            [
                (Some("/cg/unified/x"), 2, false, false),
                (Some("/cg/unified/"), 2, false, false),
                (Some("/cg/memory/a/b"), 1, true, false),
                (Some("/cg/pids/"), 1, false, true),
            ]
        );
    }

    #[test]
    fn reads_counters_by_whole_name() {
        assert_eq!(counter("oom_kill_disable 1\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
        assert_eq!(counter("", "max"), 0);
    }
}
