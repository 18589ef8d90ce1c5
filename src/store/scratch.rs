//! One scratch directory per running program, removed with it or by the next one.

use super::error::{IoContext, Operation, StoreError};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// How the names of scratch directories begin.
const PREFIX: &str = "run-";

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
