//! One scratch directory per running program, removed with it or by the next one.

use super::error::{IoContext, Operation, StoreError};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// How the names of scratch directories begin.
const PREFIX: &str = "run-";

/// `FS_TOPDIR_FL` of linux/fs.h.
const TOPDIR: IFlags = IFlags::from_bits_retain(0x0002_0000);

/// Asks ext4 to put each new directory in `dir` somewhere else on the disk, as chattr(1) `+T` does. Where much was removed within the last
/// minutes, ext4 looks at every inode that was freed before it takes one: up to 12 of the 70 CPU seconds of two cold builds were
/// measured for that. A hint; other file systems refuse it.
pub fn spread(dir: &Path) {
    if let Ok(file) = File::open(dir)
        && let Ok(flags) = ioctl_getflags(&file)
        && !flags.contains(TOPDIR)
    {
        let _ = ioctl_setflags(&file, flags | TOPDIR);
    }
}

/// A directory below the store's `tmp/` that this program alone uses.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
    next: AtomicU64,
}

impl Scratch {
    /// Makes one, after removing those whose owner is gone.
    pub(super) fn new(tmp: &Path) -> Result<Self, StoreError> {
        sweep(tmp)?;
        spread(tmp);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(tmp)
            .at(Operation::Create, tmp)?;
        let path = dir.keep();
        // Locked before it has the name that the sweep looks for.
        let (fresh, lock) = (path.join("lock.new"), path.join("lock"));
        let file = File::create(&fresh).at(Operation::Create, &fresh)?;
        file.lock().at(Operation::Lock, &fresh)?;
        fs::rename(&fresh, &lock).at(Operation::Rename, &lock)?;
        Ok(Self {
            path,
            _lock: file,
            next: AtomicU64::new(0),
        })
    }

    /// A path that was not handed out before.
    pub(super) fn fresh(&self, name: &str) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("{n}-{name}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next program that opens the store.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes directories whose lock nobody holds. A directory without a lock file is being made: leave it.
fn sweep(tmp: &Path) -> Result<(), StoreError> {
    for name in super::objects::sorted_names(tmp)? {
        if !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let dir = tmp.join(&name);
        let Ok(lock) = File::open(dir.join("lock")) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(&dir);
        }
    }
    Ok(())
}
