//! Measures and empties a directory that a hostile stage has filled: any depth, any mode, a bounded number of descriptors.
//!
//! The functions are not safe against concurrent changes. Measuring while the stage runs may give a wrong sum, which is corrected by the
//! next measurement; emptying is done when no process of the stage is left.

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    io,
    os::fd::OwnedFd,
};

/// The content of a directory, in numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Used {
    /// Bytes allocated on disk; a file with several hard links counts once.
    pub bytes: u64,
    /// Entries.
    pub inodes: u64,
    /// Whether there are directories deeper than [`DEEPEST`], which were not measured.
    pub too_deep: bool,
}

/// Most levels that [`measure`] visits: it holds one descriptor per level.
pub(super) const DEEPEST: usize = 256;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

fn open_dir(at: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
    openat(at, name, DIRECTORY, Mode::empty())
}

/// Names of `dir`'s entries, and whether each is a directory.
fn entries(dir: &OwnedFd) -> nix::Result<Vec<(CString, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::openat(dir, ".", DIRECTORY, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let directory = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode & libc::S_IFMT == libc::S_IFDIR,
        };
        names.push((name.to_owned(), directory));
    }
    Ok(names)
}

/// A level of a walk: the directory's name in its parent, and the subdirectories not visited yet.
struct Level {
    name: CString,
    pending: Vec<CString>,
}

/// Sums up everything below `path`. A directory that vanishes or cannot be read counts as an entry without content.
pub(super) fn measure(path: &str) -> Used {
    let mut used = Used::default();
    let mut links = BTreeSet::new();
    let mut too_deep = false;
    // Open directories from the root down.
    let mut open: Vec<(OwnedFd, Vec<CString>)> = Vec::new();
    let mut look = |dir: &OwnedFd| {
        let mut below = Vec::new();
        for (name, directory) in entries(dir).unwrap_or_default() {
            let Ok(stat) = fstatat(dir, &*name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            if stat.st_nlink < 2 || directory || links.insert((stat.st_dev, stat.st_ino)) {
                used.bytes += stat.st_blocks as u64 * 512;
            }
            used.inodes += 1;
            if directory {
                below.push(name);
            }
        }
        below
    };
    let Ok(root) = openat(nix::fcntl::AT_FDCWD, path, DIRECTORY, Mode::empty()) else {
        return used;
    };
    let below = look(&root);
    open.push((root, below));
    while let Some((dir, below)) = open.last_mut() {
        match below.pop() {
            None => drop(open.pop()),
            Some(name) => {
                if let Ok(child) = open_dir(dir, &name) {
                    let below = look(&child);
                    if open.len() < DEEPEST {
                        open.push((child, below));
                    } else {
                        too_deep = true;
                    }
                }
            }
        }
    }
    used.too_deep = too_deep;
    used
}

/// Deletes everything below `path`, but not `path` itself.
pub(super) fn empty(path: &str) -> io::Result<()> {
    let mut here = openat(nix::fcntl::AT_FDCWD, path, DIRECTORY, Mode::empty())?;
    let mut levels = vec![Level {
        name: CString::default(),
        pending: remove_files(&here)?,
    }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.pending.pop() {
            if unlinkat(&here, &*name, UnlinkatFlags::RemoveDir).is_ok() {
                continue;
            }
            here = enter(&here, &name)?;
            levels.push(Level {
                pending: remove_files(&here)?,
                name,
            });
            continue;
        }
        let Some(done) = levels.pop() else { break };
        if levels.is_empty() {
            break;
        }
        // No process is left that could move a directory, so ".." is the directory this one was entered from.
        here = open_dir(&here, c"..")?;
        unlinkat(&here, &*done.name, UnlinkatFlags::RemoveDir)?;
    }
    Ok(())
}

/// Opens a directory; where its mode forbids that, changes the mode first.
fn enter(at: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
    let opened = open_dir(at, name);
    if !matches!(opened, Err(Errno::EACCES)) {
        return opened;
    }
    fchmodat(at, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
    open_dir(at, name)
}

/// Deletes all entries that are not directories; returns the names of the directories.
fn remove_files(dir: &OwnedFd) -> nix::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for (name, directory) in entries(dir)? {
        if directory {
            directories.push(name);
        } else {
            unlinkat(dir, &*name, UnlinkatFlags::NoRemoveDir)?;
        }
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn deletes_trees_deeper_than_there_are_descriptors_and_without_any_mode() {
        let scratch = tempfile::tempdir().expect("scratch");
        let root = scratch.path().to_str().expect("text").to_owned();
        let mut here = openat(nix::fcntl::AT_FDCWD, root.as_str(), DIRECTORY, Mode::empty()).expect("open");
        for depth in 0..1500 {
            nix::sys::stat::mkdirat(&here, "d", Mode::S_IRWXU).expect("make");
            if depth % 100 == 0 {
                nix::sys::stat::mkdirat(&here, "e", Mode::empty()).expect("make");
                let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
                openat(&here, "f", flags, Mode::empty()).expect("make");
            }
            here = open_dir(&here, c"d").expect("enter");
        }
        let used = measure(&root);
        assert!(used.inodes > 200 && used.too_deep, "{used:?}");
        empty(&root).expect("deleted");
        assert!(fs::metadata(&root).expect("kept").is_dir());
        assert_eq!(measure(&root), Used::default());
    }
}
