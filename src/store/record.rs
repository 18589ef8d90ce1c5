//! Build records: what a stage made, keyed by everything that could have changed it.

use super::{
    Store,
    error::{IoContext, Operation, StoreError},
};
use crate::model::{Arch, StageKey, VerityDigest};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, io};

/// One declared output of a stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Output {
    /// A tree, by the digest of its dump.
    Tree {
        /// fs-verity digest of the dump text.
        digest: VerityDigest,
    },
    /// A regular file.
    File {
        /// fs-verity digest of the content.
        digest: VerityDigest,
        /// Length in bytes.
        size: u64,
    },
}

impl Output {
    /// The object that holds the file, or the dump of the tree.
    pub fn digest(&self) -> &VerityDigest {
        match self {
            Output::Tree { digest } | Output::File { digest, .. } => digest,
        }
    }
}

/// The record of one stage run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Stage name.
    pub stage: String,
    /// Architecture it was made for.
    pub arch: Arch,
    /// The canonical form whose BLAKE3 is the key, for explaining why a later run differs.
    pub canonical: String,
    /// Outputs by name.
    pub outputs: BTreeMap<String, Output>,
    /// The policy the stage ran under: equal on every host.
    pub policy: serde_json::Value,
    /// What the sandbox measured from inside: may differ between hosts.
    pub measured: serde_json::Value,
    /// Layers that were missing or weaker than the policy asks; empty for a hermetic run.
    pub weaker: Vec<String>,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Highest memory use seen, in bytes.
    pub peak_memory: u64,
}

impl Store {
    fn record_file(&self, key: &StageKey) -> std::path::PathBuf {
        self.root.join("records").join(key.to_string())
    }

    /// The record of `key`, if there is one and every object it names is there.
    pub fn record(&self, key: &StageKey) -> Result<Option<Record>, StoreError> {
        let record = self.record_text(key)?;
        Ok(record.filter(|r| r.outputs.values().all(|o| self.find_object(o.digest()).is_some())))
    }

    /// The record of `key`, whatever became of its outputs. One that is damaged, or of another version of pnb, is as good as
    /// none: the stage runs again.
    fn record_text(&self, key: &StageKey) -> Result<Option<Record>, StoreError> {
        let path = self.record_file(key);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(None),
            read => read.at(Operation::Read, &path)?,
        };
        Ok(parse_record(key, &text))
    }

    /// Keeps a record, and notes it as the newest of its stage and architecture.
    pub fn put_record(&self, key: &StageKey, record: &Record) -> Result<(), StoreError> {
        let path = self.record_file(key);
        let json = serde_json::to_string(record).map_err(|source| StoreError::Record {
            path: path.clone(),
            source,
        })?;
        let text = format!("{}\n{json}\n", blake3::hash(json.as_bytes()).to_hex());
        self.write_atomic(&path, text.as_bytes())?;
        let latest = self.latest_file(&record.stage, record.arch);
        self.write_atomic(&latest, key.to_string().as_bytes())
    }

    fn latest_file(&self, stage: &str, arch: Arch) -> std::path::PathBuf {
        self.root.join("records").join(format!("latest-{stage}-{arch}"))
    }

    /// Key and record of the newest run of a stage, whatever its inputs were and whether its outputs are still there.
    pub fn latest_record(&self, stage: &str, arch: Arch) -> Result<Option<(StageKey, Record)>, StoreError> {
        let Ok(text) = fs::read_to_string(self.latest_file(stage, arch)) else {
            return Ok(None);
        };
        let Ok(key) = text.trim_end().parse() else {
            return Ok(None);
        };
        Ok(self.record_text(&key)?.map(|record| (key, record)))
    }

    /// Forgets a record, so that its stage runs again.
    pub fn drop_record(&self, key: &StageKey) -> Result<(), StoreError> {
        let path = self.record_file(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at(Operation::Remove, &path),
            _ => Ok(()),
        }
    }
}

/// Reads a record's file: BLAKE3 of the second line, and the record as JSON; its canonical form must be the one of `key`.
pub(super) fn parse_record(key: &StageKey, text: &str) -> Option<Record> {
    let (digest, json) = text.trim_end().split_once('\n')?;
    if blake3::hash(json.as_bytes()).to_hex().as_str() != digest {
        return None;
    }
    let record: Record = serde_json::from_str(json).ok()?;
    (blake3::hash(record.canonical.as_bytes()).as_bytes() == key.as_bytes()).then_some(record)
}
