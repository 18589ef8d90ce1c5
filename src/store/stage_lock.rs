//! Locks of stage runs: two builders do not run the same stage at the same time.

use super::{
    Store,
    error::{IoContext, Operation, StoreError},
};
use crate::model::StageKey;
use std::fs::{File, TryLockError};

/// Held while a stage runs; released when dropped, and by the kernel when the program is killed.
#[derive(Debug)]
pub struct StageLock {
    _file: File,
}

impl Store {
    /// Takes the lock of the stage run `key`. If another builder has it, calls `waits` and waits. That builder may have finished the run
    /// meanwhile, so look for its record next.
    pub fn lock_stage(&self, key: &StageKey, waits: &mut dyn FnMut()) -> Result<StageLock, StoreError> {
        let path = self.root.join("locks").join(key.to_string());
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .at(Operation::Open, &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waits();
                file.lock().at(Operation::Lock, &path)?;
            }
            Err(TryLockError::Error(error)) => Err(error).at(Operation::Lock, &path)?,
        }
        Ok(StageLock { _file: file })
    }
}
