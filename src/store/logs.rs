//! Logs of stage runs.

use super::{
    Store,
    error::{IoContext, Operation, StoreError},
};
use crate::model::{Arch, StageKey};
use std::{fs, path::PathBuf};

impl Store {
    /// Begins the log of the run `key` of a stage and makes it the stage's latest log; returns its path.
    pub fn start_log(&self, key: &StageKey, stage: &str, arch: Arch) -> Result<PathBuf, StoreError> {
        let name = format!("{key}.log");
        self.set_latest_log(&name, stage, arch)
    }

    fn set_latest_log(&self, name: &str, stage: &str, arch: Arch) -> Result<PathBuf, StoreError> {
        let logs = self.root.join("logs");
        self.write_atomic(&logs.join(format!("latest-{stage}-{arch}")), name.as_bytes())?;
        Ok(logs.join(name))
    }

    /// Stores the log of a run on another machine, and makes it the stage's latest log.
    pub fn put_log(&self, key: &StageKey, stage: &str, arch: Arch, text: &[u8]) -> Result<(), StoreError> {
        let path = self.start_log(key, stage, arch)?;
        self.write_atomic(&path, text)
    }

    /// The log of the run `key`, successful or not.
    pub fn log_of(&self, key: &StageKey) -> Option<PathBuf> {
        let path = self.root.join("logs").join(format!("{key}.log"));
        path.is_file().then_some(path)
    }

    /// The log of a stage's last run, successful or not.
    pub fn latest_log(&self, stage: &str, arch: Arch) -> Result<Option<PathBuf>, StoreError> {
        let logs = self.root.join("logs");
        let Ok(name) = fs::read_to_string(logs.join(format!("latest-{stage}-{arch}"))) else {
            return Ok(None);
        };
        let path = logs.join(name);
        Ok(path.is_file().then_some(path))
    }

    /// Copies a stage's latest log from the ephemeral store `from` and makes the copy the stage's latest log here; returns the paths of
    /// the log and the copy.
    pub fn take_log(&self, from: &Store, stage: &str, arch: Arch) -> Result<Option<(PathBuf, PathBuf)>, StoreError> {
        let Some(source) = from.latest_log(stage, arch)? else {
            return Ok(None);
        };
        let name = format!("repeated-{stage}-{arch}.log");
        let text = fs::read(&source).at(Operation::Read, &source)?;
        self.write_atomic(&self.root.join("logs").join(&name), &text)?;
        Ok(Some((source, self.set_latest_log(&name, stage, arch)?)))
    }
}
