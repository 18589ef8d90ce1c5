//! Build records: the outputs of a stage run, under a key of everything that could have changed them.

use super::{
    Store,
    error::{IoContext, Operation, StoreError},
};
use crate::model::{Arch, StageKey, VerityDigest};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, io};

/// Begin of the line after a record that names the server that gave it.
const SOURCE: &str = "from ";

/// Begin of the name of a note that has a record whose outputs are in a remote cache.
pub(super) const ABSENT: &str = "absent-";
/// Begin of the name of a note that has the newest such record of a stage.
pub(super) const LAST: &str = "last-";

/// Name of the note with the newest record of a stage whose outputs are in a remote cache, after its key.
fn last_note(stage: &str, arch: Arch) -> String {
    format!("{LAST}{stage}-{arch}")
}

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
    /// Digest of the file's content, or of the tree's dump.
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
    /// Architecture of the outputs.
    pub arch: Arch,
    /// The canonical form whose BLAKE3 is the key; it explains why a later run has another key.
    pub canonical: String,
    /// Outputs by name.
    pub outputs: BTreeMap<String, Output>,
    /// The policy the stage ran under: equal on every host.
    pub policy: serde_json::Value,
    /// The sandbox' measurements of itself: they may differ between hosts.
    pub measured: serde_json::Value,
    /// Layers that were missing or weaker than the policy asks; empty for a hermetic run.
    pub weaker: Vec<String>,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Peak memory use in bytes.
    pub peak_memory: u64,
}

impl Record {
    /// The record as a text that tells damage: the BLAKE3 of the second line, and the record as JSON.
    ///
    /// # Errors
    ///
    /// If a value of the record has no form in JSON.
    pub fn to_text(&self) -> serde_json::Result<String> {
        let json = serde_json::to_string(self)?;
        Ok(format!("{}\n{json}\n", blake3::hash(json.as_bytes()).to_hex()))
    }

    /// Reads the first two lines of [`Record::to_text`]; `None` if they are damaged, of another version of pnb, or of a stage with another
    /// key.
    pub fn from_text(key: &StageKey, text: &str) -> Option<Self> {
        let (digest, json) = text.split_once('\n')?;
        let json = json.split('\n').next()?;
        if blake3::hash(json.as_bytes()).to_hex().as_str() != digest {
            return None;
        }
        let record: Self = serde_json::from_str(json).ok()?;
        (blake3::hash(record.canonical.as_bytes()).as_bytes() == key.as_bytes()).then_some(record)
    }
}

impl Store {
    fn record_file(&self, key: &StageKey) -> std::path::PathBuf {
        self.root.join("records").join(key.to_string())
    }

    /// The record of `key`, if there is one and the store has every object it names.
    pub fn record(&self, key: &StageKey) -> Result<Option<Record>, StoreError> {
        let Some(record) = self.record_text(key)? else {
            return Ok(None);
        };
        for output in record.outputs.values() {
            if self.find_object(output.digest())?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// The record of `key`, whether or not the store still has its outputs. A record that is damaged, or of another version of pnb, counts
    /// as missing, so its stage runs again.
    fn record_text(&self, key: &StageKey) -> Result<Option<Record>, StoreError> {
        let path = self.record_file(key);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(None),
            read => read.at(Operation::Read, &path)?,
        };
        Ok(Record::from_text(key, &text))
    }

    /// The server that gave the record of `key`; `None` for a stage that ran here.
    pub fn record_source(&self, key: &StageKey) -> Result<Option<String>, StoreError> {
        let path = self.record_file(key);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.at(Operation::Read, &path)?,
        };
        Ok(text
            .lines()
            .nth(2)
            .and_then(|line| line.strip_prefix(SOURCE))
            .map(str::to_owned))
    }

    /// Stores a record and makes it the latest one of its stage and architecture. `source` is the server that gave it, or `None` for a
    /// stage that ran here.
    pub fn put_record(&self, key: &StageKey, record: &Record, source: Option<&str>) -> Result<(), StoreError> {
        let path = self.record_file(key);
        let mut text = record.to_text().map_err(|source| StoreError::Record {
            path: path.clone(),
            source,
        })?;
        if let Some(source) = source {
            text.push_str(&format!("{SOURCE}{source}\n"));
        }
        self.write_atomic(&path, text.as_bytes())?;
        self.set_latest_record(key, record)
    }

    /// Notes a record whose outputs are in a remote cache, so that the keys of the stages behind it are known without the cache.
    pub fn put_absent_record(&self, key: &StageKey, record: &Record) -> Result<(), StoreError> {
        let path = self.record_file(key);
        let text = record.to_text().map_err(|source| StoreError::Record { path, source })?;
        self.put_note(&format!("{ABSENT}{key}"), text.as_bytes())?;
        self.put_note(
            &last_note(&record.stage, record.arch),
            format!("{key}\n{text}").as_bytes(),
        )
    }

    /// Key and record of a stage in the newest build, wherever its outputs are: [`Store::latest_record`], or one that came after it and whose
    /// outputs are in a remote cache.
    pub fn last_known_record(&self, stage: &str, arch: Arch) -> Result<Option<(StageKey, Record)>, StoreError> {
        let note = self.note(&last_note(stage, arch));
        let noted = note.and_then(|bytes| {
            let text = String::from_utf8(bytes).ok()?;
            let (key, text) = text.split_once('\n')?;
            let key: StageKey = key.parse().ok()?;
            Some((key, Record::from_text(&key, text)?))
        });
        match noted {
            Some(noted) => Ok(Some(noted)),
            None => self.latest_record(stage, arch),
        }
    }

    /// The outputs of the record of `key`, whether they are in the store or in a remote cache.
    pub fn known_outputs(&self, key: &StageKey) -> Result<Option<BTreeMap<String, Output>>, StoreError> {
        if let Some(record) = self.record(key)? {
            return Ok(Some(record.outputs));
        }
        let note = self.note(&format!("{ABSENT}{key}"));
        let text = note.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text
            .and_then(|text| Record::from_text(key, &text))
            .map(|record| record.outputs))
    }

    /// Makes a record, which the store has, the latest one of its stage and architecture. A build calls this for a record that it takes
    /// instead of running the stage, so that garbage collection keeps what the newest build needs.
    pub fn set_latest_record(&self, key: &StageKey, record: &Record) -> Result<(), StoreError> {
        let note = self.root.join("notes").join(last_note(&record.stage, record.arch));
        match fs::remove_file(&note) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).at(Operation::Remove, &note),
            _ => {}
        }
        let latest = self.latest_file(&record.stage, record.arch);
        let text = key.to_string();
        if fs::read(&latest).is_ok_and(|present| present == text.as_bytes()) {
            return Ok(());
        }
        self.write_atomic(&latest, text.as_bytes())
    }

    fn latest_file(&self, stage: &str, arch: Arch) -> std::path::PathBuf {
        self.root.join("records").join(format!("latest-{stage}-{arch}"))
    }

    /// Key and record of a stage in the newest build, with any inputs, whether or not the store still has its outputs.
    pub fn latest_record(&self, stage: &str, arch: Arch) -> Result<Option<(StageKey, Record)>, StoreError> {
        let Some(key) = self.latest_key(&self.latest_file(stage, arch))? else {
            return Ok(None);
        };
        Ok(self.record_text(&key)?.map(|record| (key, record)))
    }

    /// The key in a file `latest-…`; `None` when there is none, or when the file is damaged.
    pub(super) fn latest_key(&self, path: &std::path::Path) -> Result<Option<StageKey>, StoreError> {
        let text = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.at(Operation::Read, path)?,
        };
        Ok(std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim_end().parse().ok()))
    }

    /// Removes a record, so that its stage runs again.
    pub fn drop_record(&self, key: &StageKey) -> Result<(), StoreError> {
        let path = self.record_file(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at(Operation::Remove, &path),
            _ => Ok(()),
        }
    }
}
