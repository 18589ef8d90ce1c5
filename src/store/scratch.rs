//! Scratch directories: one per running program, removed by it or, if it was killed, by the next program.

use super::error::{IoContext, Operation, StoreError};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// First part of the names of scratch directories.
const PREFIX: &str = "run-";

/// `FS_TOPDIR_FL` of linux/fs.h.
const TOPDIR: IFlags = IFlags::from_bits_retain(0x0002_0000);

/// Most directories that `quiet_directory` tries.
const CANDIDATES: usize = 8;
/// A directory in which a file is made in less time is accepted. Measured on ext4: 10 µs; 20 to 250 µs where much was removed.
const QUICK: Duration = Duration::from_micros(20);

/// Makes a directory in `base` whose name begins with `prefix`, in a part of the disk where files are made fast.
///
/// Where many files were removed within the last minutes, ext4 examines every freed inode before it takes one; this was up to 12 of the
/// 60 CPU seconds of two cold builds. ext4 puts each subdirectory of a directory marked `+T` (chattr(1)) into another part of the disk, so
/// several are tried and the fastest is kept. Other file systems refuse the mark; there, one directory is made.
fn quiet_directory(base: &Path, prefix: &str) -> io::Result<PathBuf> {
    let spread = spread(base);
    let fresh = || tempfile::Builder::new().prefix(prefix).tempdir_in(base);
    let mut best = fresh()?;
    if spread {
        let mut least = time_of_a_file(best.path())?;
        for _ in 1..CANDIDATES {
            if least < QUICK {
                break;
            }
            let other = fresh()?;
            let took = time_of_a_file(other.path())?;
            if took < least {
                // The assignment drops the directory before, which removes it.
                (least, best) = (took, other);
            }
        }
    }
    Ok(best.keep())
}

/// Name of a stage's build directory in the directory that [`build_directory`] makes for it.
const BUILD: &str = "build";

/// Makes a build directory for a stage, in a `quiet_directory` that only its owner can enter.
///
/// A stage may give its files and its own directory any mode, also the set-user-id bit, and where an ordinary user builds they belong to
/// that user. No other user reaches them through the directory above, which the stage does not see.
pub fn build_directory(base: &Path, prefix: &str) -> io::Result<PathBuf> {
    let closed = quiet_directory(base, prefix)?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    let path = closed.join(BUILD);
    fs::create_dir(&path)?;
    Ok(path)
}

/// Removes an empty directory that [`build_directory`] has made.
pub fn remove_build_directory(path: &Path) -> io::Result<()> {
    fs::remove_dir(path)?;
    path.parent().map_or(Ok(()), fs::remove_dir)
}

/// Marks a directory `+T` for `quiet_directory`; returns whether the file system supports the mark.
fn spread(dir: &Path) -> bool {
    let Ok(file) = File::open(dir) else { return false };
    let Ok(flags) = ioctl_getflags(&file) else { return false };
    flags.contains(TOPDIR) || ioctl_setflags(&file, flags | TOPDIR).is_ok()
}

/// Time to make a file in an empty directory: the shortest of three measurements.
fn time_of_a_file(dir: &Path) -> io::Result<Duration> {
    let mut least = Duration::MAX;
    for n in 0..3 {
        let path = dir.join(n.to_string());
        let start = Instant::now();
        File::create_new(&path)?;
        least = least.min(start.elapsed());
    }
    for n in 0..3 {
        fs::remove_file(dir.join(n.to_string()))?;
    }
    Ok(least)
}

/// A directory that only this program uses, below the store's `tmp/` or in memory.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
    next: AtomicU64,
}

impl Scratch {
    /// Makes a scratch directory below `tmp`, after removing those whose programs are gone.
    pub(super) fn new(tmp: &Path) -> Result<Self, StoreError> {
        let making = making(tmp)?;
        remove_abandoned(tmp)?;
        let path = quiet_directory(tmp, PREFIX).at(Operation::Create, tmp)?;
        let lock = path.join("lock");
        let file = File::create(&lock).at(Operation::Create, &lock)?;
        file.lock().at(Operation::Lock, &lock)?;
        drop(making);
        Ok(Self {
            path,
            _lock: file,
            next: AtomicU64::new(0),
        })
    }

    /// A path in the directory that was not returned before.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("{n}-{name}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where this fails, the next program that opens the store removes the directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what programs that are gone left in `tmp`.
pub(super) fn sweep(tmp: &Path) -> Result<(), StoreError> {
    let _making = making(tmp)?;
    remove_abandoned(tmp)
}

/// Waits until no other program makes anything in `tmp`, and keeps others from it while the value lives. So whatever is there without a lock
/// of its own was left by a program that was killed.
pub(super) fn making(tmp: &Path) -> Result<File, StoreError> {
    let dir = File::open(tmp).at(Operation::Open, tmp)?;
    dir.lock().at(Operation::Lock, tmp)?;
    Ok(dir)
}

/// Removes files, and scratch directories whose lock is free or missing; the caller holds the lock of [`making`].
fn remove_abandoned(tmp: &Path) -> Result<(), StoreError> {
    for name in super::objects::sorted_names(tmp)? {
        let path = tmp.join(&name);
        if !name.to_string_lossy().starts_with(PREFIX) {
            // A file that was to be renamed into the store. Directories of another kind are not ours.
            let _ = fs::remove_file(&path);
            continue;
        }
        let is_held = File::open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
        if !is_held {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::objects::sorted_names;

    #[test]
    fn one_of_the_tried_directories_is_left_and_it_is_empty() {
        let base = tempfile::tempdir().expect("a directory");
        for n in 1..=3 {
            let made = quiet_directory(base.path(), "build-").expect("made");
            assert_eq!(made.parent(), Some(base.path()));
            assert!(made.file_name().expect("named").to_string_lossy().starts_with("build-"));
            assert_eq!(sorted_names(&made).expect("listed"), Vec::<std::ffi::OsString>::new());
            assert_eq!(sorted_names(base.path()).expect("listed").len(), n);
        }
        quiet_directory(&base.path().join("none"), "build-").expect_err("there is no such directory");
    }

    #[test]
    fn a_build_directory_lies_below_one_that_is_closed_to_others_and_both_are_removed() {
        let base = tempfile::tempdir().expect("a directory");
        let made = build_directory(base.path(), "stage-").expect("made");
        let closed = made.parent().expect("below a directory of its own");
        assert_eq!(closed.parent(), Some(base.path()));
        assert_eq!(
            fs::metadata(closed).expect("there").permissions().mode() & 0o7777,
            0o700
        );
        fs::write(made.join("file"), "x").expect("written");
        remove_build_directory(&made).expect_err("it is not empty");
        fs::remove_file(made.join("file")).expect("removed");
        remove_build_directory(&made).expect("removed");
        assert_eq!(
            sorted_names(base.path()).expect("listed"),
            Vec::<std::ffi::OsString>::new()
        );
    }
}
