//! The host ids that the ids of a stage are mapped to (user_namespaces(7)).

use super::{
    Ids,
    wire::{Fault, Step},
};
use nix::unistd::{Gid, Uid};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    process::{self, Command, Stdio},
};

const LAYER: &str = "user namespace with a range of ids";
pub(super) const REMEDY: &str = "install the package uidmap (newuidmap, newgidmap) and give the user 65536 ids, as root: \
                      usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER; or run pnb as root";

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

/// Maps the ids of the new user namespace of process `pid`, from outside of that namespace.
///
/// As root, ids are mapped to the unprivileged host ids from `base` on. As another user, id 0 is mapped to that user, and further ids to
/// the user's range in `/etc/subuid` and `/etc/subgid`, by the set-user-id programs newuidmap and newgidmap.
pub(super) fn map(pid: i32, ids: Ids, base: u32) -> Result<(), Fault> {
    let proc = format!("/proc/{pid}");
    let (uid, gid) = (Uid::effective(), Gid::effective());
    if uid.is_root() {
        let line = format!("0 {base} {}\n", ids.count());
        if ids == Ids::Single {
            write_file(&proc, "setgroups", "deny")?;
        }
        write_file(&proc, "gid_map", &line)?;
        return write_file(&proc, "uid_map", &line);
    }
    match ids {
        Ids::Single => {
            write_file(&proc, "setgroups", "deny")?;
            write_file(&proc, "gid_map", &format!("0 {gid} 1\n"))?;
            write_file(&proc, "uid_map", &format!("0 {uid} 1\n"))
        }
        Ids::Range => {
            map_with("newuidmap", "/etc/subuid", pid, uid.as_raw())?;
            map_with("newgidmap", "/etc/subgid", pid, gid.as_raw())
        }
    }
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

/// First id of the first range of at least `need` ids that `text`, in the format of subuid(5), gives to the user `name` or `uid`.
pub(super) fn owned_range(text: &str, name: Option<&str>, uid: u32, need: u32) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let own = Some(owner) == name || owner.parse() == Ok(uid);
        let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
        (own && count >= need).then_some(first)
    })
}

/// First id of the user's range in `/etc/subuid` or `/etc/subgid`, or why there is none.
pub(super) fn subordinate_range(file: &str) -> Result<u32, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let uid = Uid::effective();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let need = Ids::Range.count() - 1;
    owned_range(&text, user.as_ref().map(|u| u.name.as_str()), uid.as_raw(), need)
        .ok_or_else(|| format!("{file} gives user {uid} no range of {need} ids"))
}

/// Maps ids with newuidmap or newgidmap.
fn map_with(program: &str, file: &str, pid: i32, own: u32) -> Result<(), Fault> {
    let unavailable = |problem: String| Fault::unavailable(LAYER, problem, REMEDY);
    let first = subordinate_range(file).map_err(unavailable)?;
    let rest = Ids::Range.count() - 1;
    let arguments = [
        pid.to_string(),
        "0".into(),
        own.to_string(),
        "1".into(),
        "1".into(),
        first.to_string(),
        rest.to_string(),
    ];
    let path = tool(program).ok_or_else(|| unavailable(format!("{program} is not installed")))?;
    let done = Command::new(path)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output();
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
    fn finds_a_range_by_name_or_number_that_is_long_enough() {
        let text = "other:1:99999\nme:5:10\n1000:100000:65536\nme:300000:65536\nbroken\n";
        assert_eq!(owned_range(text, Some("me"), 7, 65_535), Some(300_000));
        assert_eq!(owned_range(text, None, 1000, 65_535), Some(100_000));
        assert_eq!(owned_range(text, None, 1000, 65_537), None);
        assert_eq!(owned_range(text, Some("nobody"), 9, 1), None);
    }
}
