//! The host ids that the ids of a stage are mapped to (user_namespaces(7)).

use super::{
    Ids,
    subids::{Piece, SubordinateIds, pieces},
    wire::{Fault, Step},
};
use crate::model::visible_message;
use nix::unistd::{Gid, Uid};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    process::{self, Command, Stdio},
};

const LAYER: &str = "user namespace with a range of ids";
pub(super) const REMEDY: &str = "see that newuidmap and newgidmap (package uidmap) are set-user-id root on a file system without nosuid, \
                      and that /etc/subuid and /etc/subgid give the user 65535 ids; or run pnb as root";
const INSTALL: &str = "install the package uidmap, as root: apt-get install uidmap";
const CONTAINER_IDS: &str = "run the container with 65536 ids or more (podman: give its user more in /etc/subuid and /etc/subgid, then podman \
                      system migrate), or run pnb on the host";

/// First id of the ranges of host ids that root maps stages to, 65536 ids each. Container managers use lower ids.
const FIRST: u32 = 0x7000_0000;
/// Number of these ranges.
const RANGES: u32 = 4096;
/// Directories for [`CLAIMS`], of which the first that root can write to is used: the same one by all builders of a machine.
const PLACES: [&str; 2] = ["/run", "/dev/shm"];
/// Directory with a file for each range that was ever used. The lock on the file is the claim.
const CLAIMS: &str = "pnb-ids";

/// A range of host ids that no other run on this machine has. The claim ends with the last process that has the file open.
pub(super) struct IdRange {
    /// First id.
    pub base: u32,
    _lock: File,
}

/// Claims a range for a stage that root runs. Stages that run at the same time must not have the same ids: a process may change the
/// priority of others with its id, and uses up their limits.
pub(super) fn claim() -> io::Result<IdRange> {
    let mut refused = None;
    for place in PLACES {
        let claims = Path::new(place).join(CLAIMS);
        match open_claims(&claims) {
            Ok(()) => return claim_in(&claims, process::id()),
            Err(error) => refused = Some(io::Error::new(error.kind(), format!("{}: {error}", claims.display()))),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// Makes the directory of claims, or checks that it is the user's own.
fn open_claims(claims: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(claims) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let found = fs::symlink_metadata(claims)?;
    if found.is_dir() && found.uid() == Uid::effective().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(
        "it belongs to another user or can be written to by one",
    ))
}

/// Claims the first free range from the one of the process `start` on, in a circle.
fn claim_in(claims: &Path, start: u32) -> io::Result<IdRange> {
    for n in 0..RANGES {
        // Another start for each process: two builds of one stage should not have the same ids.
        let range = start.wrapping_mul(61).wrapping_add(n) % RANGES;
        let path = claims.join(range.to_string());
        let mut options = fs::OpenOptions::new();
        let lock = options
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match lock.try_lock() {
            Ok(()) => {
                return Ok(IdRange {
                    base: FIRST + range * Ids::Range.count(),
                    _lock: lock,
                });
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other(format!("all {RANGES} ranges are in use")))
}

/// Who runs pnb, as far as ids matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// Root with the ids from [`FIRST`] on: root of the machine, or of a container that has them.
    Root,
    /// Root of a user namespace with fewer ids: a rootless container. It runs stages as an ordinary user does, and writes the maps itself.
    InnerRoot,
    /// Anybody else.
    User,
}

impl Caller {
    /// The caller of this process.
    pub(super) fn here() -> Self {
        if !Uid::effective().is_root() {
            return Self::User;
        }
        let whole = |name: &str| {
            let last = FIRST + (RANGES - 1) * Ids::Range.count() + (Ids::Range.count() - 1);
            inner_ranges(name).is_ok_and(|ranges| {
                let has = |id: u64| ranges.iter().any(|(first, end)| (*first..=*end).contains(&id));
                has(FIRST.into()) && has(last.into())
            })
        };
        match whole("/proc/self/uid_map") && whole("/proc/self/gid_map") {
            true => Self::Root,
            false => Self::InnerRoot,
        }
    }
}

/// The ids of this process's user namespace, as first and last one of each line of its map.
fn inner_ranges(map: &str) -> io::Result<Vec<(u64, u64)>> {
    let text = fs::read_to_string(map)?;
    Ok(parse_map(&text))
}

/// The lines of a map as first and last id inside, sorted.
pub(super) fn parse_map(text: &str) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse::<u64>);
            let (first, _, count) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
            (count > 0).then(|| (first, first.saturating_add(count - 1)))
        })
        .collect();
    ranges.sort_unstable();
    ranges
}

/// Maps the ids of the new user namespace of process `pid`, from outside of that namespace.
///
/// As root, ids are mapped to the unprivileged host ids from `base` on. As another user, id 0 is mapped to that user, and further ids to
/// the user's ranges in `/etc/subuid` and `/etc/subgid`, by the set-user-id programs newuidmap and newgidmap; in a container whose root is
/// not the machine's, to the other ids of the container.
pub(super) fn map(pid: i32, ids: Ids, base: u32, caller: Caller) -> Result<(), Fault> {
    let proc = format!("/proc/{pid}");
    let (uid, gid) = (Uid::effective(), Gid::effective());
    if caller == Caller::Root {
        let line = format!("0 {base} {}\n", ids.count());
        if ids == Ids::Single {
            write_file(&proc, "setgroups", "deny")?;
        }
        write_file(&proc, "gid_map", &line)?;
        return write_file(&proc, "uid_map", &line);
    }
    match (ids, caller) {
        (Ids::Single, _) => {
            write_file(&proc, "setgroups", "deny")?;
            write_file(&proc, "gid_map", &format!("0 {gid} 1\n"))?;
            write_file(&proc, "uid_map", &format!("0 {uid} 1\n"))
        }
        (Ids::Range, Caller::InnerRoot) => {
            let gids = inner_map("/proc/self/gid_map", gid.as_raw())?;
            let uids = inner_map("/proc/self/uid_map", uid.as_raw())?;
            write_file(&proc, "gid_map", &gids)?;
            write_file(&proc, "uid_map", &uids)
        }
        (Ids::Range, _) => {
            map_with("newuidmap", "/etc/subuid", pid, uid.as_raw())?;
            map_with("newgidmap", "/etc/subgid", pid, gid.as_raw())
        }
    }
}

/// The map of a stage with a range of ids in a namespace with the ids of `map`: id 0 is `own`, the others are what is there beside it.
fn inner_map(map: &str, own: u32) -> Result<String, Fault> {
    let ranges = inner_ranges(map).step(format!("read {map}"))?;
    match lines_within(&ranges, own) {
        Some(lines) => Ok(lines),
        None => {
            let have: u64 = ranges.iter().map(|(first, last)| last - first + 1).sum();
            let problem = format!(
                "this user namespace has {have} ids ({map}), {} are needed",
                Ids::Range.count()
            );
            Err(Fault::unavailable(LAYER, problem, CONTAINER_IDS))
        }
    }
}

fn lines_within(ranges: &[(u64, u64)], own: u32) -> Option<String> {
    let others: Vec<(u64, u64)> = ranges
        .iter()
        .flat_map(|(first, last)| {
            let own = u64::from(own);
            match (*first..=*last).contains(&own) {
                true => [(*first, own.wrapping_sub(1)), (own + 1, *last)]
                    .map(|(a, b)| (a <= b && b != u64::MAX).then_some((a, b))),
                false => [Some((*first, *last)), None],
            }
        })
        .flatten()
        .collect();
    let mut text = format!("0 {own} 1\n");
    for (inside, outside, count) in pieces(&others, Ids::Range.count() - 1)? {
        text.push_str(&format!("{inside} {outside} {count}\n"));
    }
    Some(text)
}

fn write_file(proc: &str, name: &str, text: &str) -> Result<(), Fault> {
    let path = Path::new(proc).join(name);
    let write = || {
        fs::OpenOptions::new()
            .write(true)
            .open(&path)?
            .write_all(text.as_bytes())
    };
    write().step(format!("map ids through {}", path.display()))
}

/// The map of the user's ids from 1 on, by `/etc/subuid` or `/etc/subgid`.
pub(super) fn subordinate_map(file: &str, own: u32) -> Result<Vec<Piece>, Fault> {
    let uid = Uid::effective();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let Some(name) = user.as_ref().map(|user| user.name.as_str()) else {
        let problem = format!("user {uid} has no name in /etc/passwd, without which newuidmap maps nothing");
        return Err(Fault::unavailable(
            LAYER,
            problem,
            "add the user to /etc/passwd, or run pnb as root",
        ));
    };
    // A file that is not there gives nobody ids.
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => {
            let bytes = read.map_err(|e| Fault::unavailable(LAYER, format!("{file}: {e}"), REMEDY))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let found = SubordinateIds::read(&text, Some(name), uid.as_raw(), own);
    let need = Ids::Range.count() - 1;
    found.pieces(need).ok_or_else(|| {
        let (problem, fix) = found.shortage(file, &visible_message(name), need);
        Fault::unavailable(LAYER, problem, &fix)
    })
}

/// Whether ids of a range can be mapped, as far as files tell: asked before anything is fetched for a stage that needs them.
pub(super) fn check_range() -> Result<(), Fault> {
    match Caller::here() {
        Caller::Root => Ok(()),
        Caller::InnerRoot => {
            inner_map("/proc/self/uid_map", 0)?;
            inner_map("/proc/self/gid_map", 0).map(drop)
        }
        Caller::User => {
            for program in ["newuidmap", "newgidmap"] {
                tool(program).ok_or_else(|| not_installed(program))?;
            }
            subordinate_map("/etc/subuid", Uid::effective().as_raw())?;
            subordinate_map("/etc/subgid", Gid::effective().as_raw()).map(drop)
        }
    }
}

fn not_installed(program: &str) -> Fault {
    Fault::unavailable(LAYER, format!("{program} is not installed"), INSTALL)
}

/// Maps ids with newuidmap or newgidmap.
fn map_with(program: &str, file: &str, pid: i32, own: u32) -> Result<(), Fault> {
    let mut arguments = vec![pid.to_string(), "0".into(), own.to_string(), "1".into()];
    for (inside, outside, count) in subordinate_map(file, own)? {
        arguments.extend([inside, outside, count].map(|number| number.to_string()));
    }
    let path = tool(program).ok_or_else(|| not_installed(program))?;
    let done = Command::new(path)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output();
    let unavailable = |problem: String| Fault::unavailable(LAYER, problem, REMEDY);
    let done = done.map_err(|e: io::Error| unavailable(format!("{program}: {e}")))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(unavailable(said.trim().to_owned()))
}

/// Path of newuidmap or newgidmap.
pub(super) fn tool(program: &str) -> Option<String> {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin", "/run/wrappers/bin"];
    places
        .iter()
        .map(|dir| format!("{dir}/{program}"))
        .find(|path| Path::new(path).try_exists().unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_range_is_claimed_once_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let claims = dir.path().join(CLAIMS);
        open_claims(&claims).expect("made");
        open_claims(&claims).expect("known");
        // Two builders whose process ids lead to the same start.
        let first = claim_in(&claims, 7).expect("free");
        let second = claim_in(&claims, 7).expect("another one is free");
        assert_eq!(second.base, first.base + 65_536);
        drop(first);
        let again = claim_in(&claims, 7).expect("free again");
        assert_eq!(again.base + 65_536, second.base);
        let last = claim_in(&claims, u32::MAX).expect("free");
        assert!((FIRST..FIRST + RANGES * 65_536).contains(&last.base), "{:x}", last.base);
    }

    #[test]
    fn claims_of_somebody_else_are_not_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let claims = dir.path().join(CLAIMS);
        fs::create_dir(&claims).expect("made");
        fs::set_permissions(&claims, fs::Permissions::from_mode(0o777)).expect("open to all");
        open_claims(&claims).expect_err("others can write to it");
        fs::remove_dir(&claims).expect("removed");
        std::os::unix::fs::symlink(dir.path(), &claims).expect("a link");
        open_claims(&claims).expect_err("it is a link");
    }

    #[test]
    fn root_of_a_container_maps_what_the_container_has() {
        let lines = |text: &str| lines_within(&parse_map(text), 0);
        // A rootless container: its root is the user, its other ids are subordinate ones.
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(lines(rootless).as_deref(), Some("0 0 1\n1 1 65535\n"));
        assert_eq!(lines("0 100000 65536\n").as_deref(), Some("0 0 1\n1 1 65535\n"));
        // In pieces, and more than enough.
        let pieces = "0 1000 1\n1 100000 1000\n1001 300000 70000\n";
        assert_eq!(lines(pieces).as_deref(), Some("0 0 1\n1 1 1000\n1001 1001 64535\n"));
        assert_eq!(lines("0 0 4294967295\n").as_deref(), Some("0 0 1\n1 1 65535\n"));
        for few in ["0 1000 1\n", "0 100000 65535\n", "", "x\n0 1\n"] {
            assert_eq!(lines(few), None, "{few:?}");
        }
    }
}
