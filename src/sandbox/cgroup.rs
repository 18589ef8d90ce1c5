//! Limits on memory and processes by control groups, where the host allows to make one.
//!
//! Version 2 is used where its `memory` and `pids` controllers are available, otherwise the version 1 hierarchies of the same names.
//! Where neither is available (an ordinary user without a delegated group), [`super::watchdog`] enforces the memory limit and
//! `RLIMIT_NPROC` of the stage's user namespace the process limit (it counts per user namespace since Linux 5.14).
//! Sources: the kernel's admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/{memory,pids}.rst.

use super::{
    Limits,
    wire::{Fault, Step, Usage},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process,
};

/// Groups are named `pnb-<process id>-<number>`; groups that nobody holds are removed.
const PREFIX: &str = "pnb-";
/// Names to try: a process of another pid namespace can have the same id.
const NAMES: u32 = 64;

/// A control group of this run: one of version 2, or one per controller of version 1.
struct GroupDirectory {
    path: PathBuf,
    /// Holds the group, by a lock that ends with the last process of the run.
    _held: File,
    /// `cgroup.procs`, open for writing with the rights of the helper.
    processes: File,
    version: u8,
    /// Whether it limits memory.
    memory: bool,
    /// Whether it limits processes.
    pids: bool,
    /// Files that count how often a limit was reached: that of memory, that of processes.
    events: [Option<File>; 2],
}

/// The control groups of this run; empty where the host allows none.
#[derive(Default)]
pub(super) struct ControlGroup {
    directories: Vec<GroupDirectory>,
    limits: Option<Limits>,
}

/// A directory in which a group can be made, and the controllers the group would have.
struct Hierarchy {
    parent: PathBuf,
    version: u8,
    memory: bool,
    pids: bool,
}

impl ControlGroup {
    /// Makes the groups and sets their limits. A refusal by the host is no error: the watchdog and resource limits take over.
    pub(super) fn create(limits: &Limits) -> Result<Self, Fault> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").step("read /proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut group = ControlGroup {
            directories: Vec::new(),
            limits: Some(limits.clone()),
        };
        for hierarchy in hierarchies(&mounts, &own) {
            let memory = hierarchy.memory && !group.limits_memory();
            let pids = hierarchy.pids && !group.counts_processes();
            if !memory && !pids {
                continue;
            }
            sweep(&hierarchy.parent);
            let Some((path, held)) = make(&hierarchy.parent) else {
                continue;
            };
            match set_up(&path, hierarchy.version, memory, pids, limits) {
                Ok(processes) => group.directories.push(GroupDirectory {
                    events: [
                        memory
                            .then(|| File::open(path.join(memory_events(hierarchy.version))).ok())
                            .flatten(),
                        pids.then(|| File::open(path.join("pids.events")).ok()).flatten(),
                    ],
                    path,
                    _held: held,
                    processes,
                    version: hierarchy.version,
                    memory,
                    pids,
                }),
                // A group without its limits would limit nothing.
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

    /// The mechanisms that enforce the limits.
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

    /// The limits that the kernel has enforced so far.
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

    /// Reads the resources used and the limits reached, then removes the groups. No process may be left in them.
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
            // Where this fails, a later run removes the group.
            let _ = fs::remove_dir(&directory.path);
        }
        usage
    }
}

/// The file that counts out-of-memory kills.
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

/// The number in the line `name number`; 0 where there is no such line.
fn counter(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
}

/// The directories in which groups can be made, the preferred one first. `mounts` is `mountinfo`, `own` is `/proc/self/cgroup`.
fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
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
            // The own group first: an ordinary user can make groups only below a group that was delegated to the user.
            let inside = own.lines().find_map(|l| l.strip_prefix("0::/"));
            for relative in [inside, Some("")].into_iter().flatten() {
                let parent = point.join(relative);
                let given = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
                let has = |name: &str| given.split_whitespace().any(|c| c == name);
                found.push(Hierarchy {
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
            found.push(Hierarchy {
                parent: point.join(inside.unwrap_or("")),
                version: 1,
                memory,
                pids,
            });
        }
    }
    found.sort_by_key(|h| std::cmp::Reverse(h.version));
    found
}

/// Writes the limits of a new group; returns its `cgroup.procs`.
fn set_up(path: &Path, version: u8, memory: bool, pids: bool, limits: &Limits) -> io::Result<File> {
    let write = |name: &str, value: u64| fs::write(path.join(name), value.to_string());
    if memory {
        if version == 2 {
            write("memory.max", limits.memory)?;
        } else {
            write("memory.limit_in_bytes", limits.memory)?;
        }
        // Kernels without swap accounting lack these files; there, swap is not counted.
        let (name, value) = match version {
            2 => ("memory.swap.max", 0),
            _ => ("memory.memsw.limit_in_bytes", limits.memory),
        };
        if path.join(name).try_exists()? {
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

/// Makes a group below `parent` and holds it. `None` where the host allows no group.
fn make(parent: &Path) -> Option<(PathBuf, File)> {
    for number in 0..NAMES {
        let path = parent.join(format!("{PREFIX}{}-{number}", process::id()));
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(_) => return None,
        }
        // Another program may remove the group before it is held; the lock is then one of a directory without a name.
        let Ok(held) = File::open(&path) else { continue };
        let same = |there: fs::Metadata| held.metadata().is_ok_and(|own| own.ino() == there.ino());
        if held.lock().is_ok() && fs::metadata(&path).is_ok_and(same) {
            return Some((path, held));
        }
    }
    None
}

/// Removes groups that nobody holds. The id in a name says nothing: a process of another pid namespace is not seen here.
fn sweep(parent: &Path) {
    #[expect(clippy::disallowed_methods, reason = "the order of removal does not matter")]
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            let rest = name.strip_prefix(PREFIX);
            rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
        });
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        if ours
            && is_dir
            && let Ok(held) = File::open(entry.path())
            && held.try_lock().is_ok()
        {
            // Fails while processes are left in it, or where another program was faster.
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
        let places = hierarchies(mounts, "8:pids:/\n4:memory:/a/b\n0::/x\n");
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
    fn a_group_is_removed_when_nobody_holds_it() {
        let parent = tempfile::tempdir().expect("scratch");
        let names = || {
            #[expect(clippy::disallowed_methods, reason = "the names go into a set")]
            let entries = fs::read_dir(parent.path()).expect("readable");
            let names = entries.map(|entry| entry.expect("readable").path());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        // A group of another pid namespace has an id that no process here has, and perhaps the id of this one.
        let (first, held) = make(parent.path()).expect("a group");
        let (second, also_held) = make(parent.path()).expect("a second group");
        let other = parent.path().join("pnb-4194305-0");
        fs::create_dir(&other).expect("made");
        let foreign = parent.path().join("pnb-of-somebody");
        fs::create_dir(&foreign).expect("made");
        assert_eq!(names().len(), 4);
        let holder = File::open(&other).expect("opens");
        holder.lock().expect("locked");
        sweep(parent.path());
        assert_eq!(names().len(), 4, "all groups are held");
        drop((held, holder));
        sweep(parent.path());
        assert_eq!(names(), [second, foreign].into());
        assert!(!first.exists() && !other.exists());
        drop(also_held);
    }

    #[test]
    fn reads_counters_by_whole_name() {
        assert_eq!(counter("oom_kill_disable 1\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
        assert_eq!(counter("", "max"), 0);
    }
}
