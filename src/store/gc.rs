//! Checks the whole store, and removes objects that no record and no lock needs.

use super::{
    Output, Record, Store,
    error::{IoContext, Operation, StoreError},
    objects::sorted_names,
    record::{ABSENT, LAST},
};
use crate::model::{Sha256Digest, StageKey, VerityDigest, chain};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A damaged object or record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its file.
    pub path: PathBuf,
    /// The damage.
    pub problem: String,
}

/// The result of a check of the whole store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreCheck {
    /// Objects hashed.
    pub objects: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// Records read.
    pub records: u64,
    /// All damage found.
    pub damage: Vec<Damage>,
}

/// The result of garbage collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcSummary {
    /// Files removed.
    pub removed: u64,
    /// Bytes they held.
    pub freed: u64,
    /// Objects kept.
    pub kept: u64,
}

/// A record's file, and the record if it parses.
type Kept = (PathBuf, io::Result<Option<(StageKey, Record)>>);

impl Store {
    fn object_files(&self) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let objects = self.content.join("objects");
        let mut files = Vec::new();
        for prefix in sorted_names(&objects)? {
            let dir = objects.join(&prefix);
            for name in sorted_names(&dir)? {
                let path = dir.join(&name);
                let hex = format!("{}{}", prefix.to_string_lossy(), name.to_string_lossy());
                files.push((hex.strip_suffix(".x").unwrap_or(&hex).to_owned(), path));
            }
        }
        Ok(files)
    }

    fn records(&self) -> Result<Vec<Kept>, StoreError> {
        let dir = self.root.join("records");
        let mut records = Vec::new();
        for name in sorted_names(&dir)? {
            let path = dir.join(&name);
            let Some(key) = name.to_str().and_then(|n| n.parse::<StageKey>().ok()) else {
                continue;
            };
            let record = fs::read(&path).map(|bytes| {
                let text = String::from_utf8(bytes).ok()?;
                Some((key, Record::from_text(&key, &text)?))
            });
            records.push((path, record));
        }
        Ok(records)
    }

    /// Hashes every object and reads every record. With `repair`, damaged objects and the records that need them are removed, so that the
    /// next build fetches or makes them again.
    pub fn check(&self, repair: bool, progress: &mut dyn FnMut(u64)) -> Result<StoreCheck, StoreError> {
        let mut check = StoreCheck::default();
        for (hex, path) in self.object_files()? {
            let problem = match File::open(&path).and_then(crate::verity::digest_reader) {
                // Not removed: the disk may be at fault, and the content may be whole.
                Err(e) => {
                    let problem = format!("cannot be read: {e}");
                    check.damage.push(Damage { path, problem });
                    continue;
                }
                Ok((actual, size)) => {
                    check.objects += 1;
                    check.bytes += size;
                    progress(check.bytes);
                    (actual.to_hex() != hex).then(|| format!("content hashes to {actual}"))
                }
            };
            check.note(path, problem, repair)?;
        }
        // After the objects, so that records of objects removed above are found.
        for (path, record) in self.records()? {
            check.records += 1;
            let problem = match record {
                // As above.
                Err(e) => {
                    let problem = format!("cannot be read: {e}");
                    check.damage.push(Damage { path, problem });
                    continue;
                }
                Ok(None) => Some("does not parse".to_owned()),
                Ok(Some((_, record))) => match self.reachable(&record) {
                    Ok(_) => None,
                    // The record may be whole: the disk may be at fault.
                    Err(error @ StoreError::Io { .. }) => {
                        let problem = format!("an object cannot be read: {}", chain(&error));
                        check.damage.push(Damage { path, problem });
                        continue;
                    }
                    Err(error) => Some(chain(&error)),
                },
            };
            check.note(path, problem, repair)?;
        }
        if repair && !check.damage.is_empty() {
            // Checkouts may have links to damaged inodes.
            self.remove_directories("checkouts")?;
        }
        Ok(check)
    }

    /// Every object a record needs; an error when the store does not have one of them.
    fn reachable(&self, record: &Record) -> Result<BTreeSet<VerityDigest>, StoreError> {
        let mut found = BTreeSet::new();
        for output in record.outputs.values() {
            found.insert(*output.digest());
            if let Output::Tree { digest } = output {
                let tree = self.tree(digest)?;
                found.extend(tree.objects().into_iter().filter(|(_, size)| *size > 0).map(|(d, _)| d));
            }
        }
        for digest in &found {
            self.object_path(digest)?;
        }
        Ok(found)
    }

    /// Removes everything except the latest record of each stage, the records of `present` (those of the project at hand), the objects that
    /// they need, and the inputs in `pinned` (the lock's files). Checkouts are all removed; the next build makes them again. The store must have been opened exclusively.
    pub fn collect(
        &self,
        pinned: &BTreeSet<Sha256Digest>,
        present: &BTreeSet<StageKey>,
    ) -> Result<GcSummary, StoreError> {
        let mut summary = GcSummary::default();
        let mut latest = self.latest_keys()?;
        latest.extend(present);
        let mut keep = BTreeSet::new();
        for sha256 in pinned {
            keep.extend(self.find_sha256(sha256)?);
        }
        for (path, record) in self.records()? {
            match record.at(Operation::Read, &path)? {
                Some((key, record)) if latest.contains(&key) => {
                    match self.reachable(&record) {
                        Ok(objects) => keep.extend(objects),
                        Err(error @ StoreError::Io { .. }) => return Err(error),
                        // Without its objects the record is of no use: its stage runs again.
                        Err(_) => summary.remove(&path)?,
                    }
                }
                _ => summary.remove(&path)?,
            }
        }
        for dir in ["logs", "locks"] {
            let dir = self.root.join(dir);
            for name in sorted_names(&dir)? {
                let text = name.to_string_lossy();
                let key = text.strip_suffix(".log").unwrap_or(&text).parse::<StageKey>();
                if !text.starts_with("latest-") && !key.is_ok_and(|k| latest.contains(&k)) {
                    summary.remove(&dir.join(&name))?;
                }
            }
        }
        let notes = self.root.join("notes");
        for name in sorted_names(&notes)? {
            let text = name.to_string_lossy();
            let key = text.strip_prefix(ABSENT).map(str::parse::<StageKey>);
            if text.starts_with(LAST) || key.is_some_and(|key| !key.is_ok_and(|key| latest.contains(&key))) {
                summary.remove(&notes.join(&name))?;
            }
        }
        for dir in ["checkouts", "trees", "failed"] {
            self.remove_directories(dir)?;
        }
        let downloads = self.downloads();
        for name in sorted_names(&downloads)? {
            summary.remove(&downloads.join(name))?;
        }
        self.collect_objects(&keep, &mut summary)?;
        Ok(summary)
    }

    /// Keys of the latest record of each stage.
    fn latest_keys(&self) -> Result<BTreeSet<StageKey>, StoreError> {
        let records = self.root.join("records");
        let mut latest = BTreeSet::new();
        for name in sorted_names(&records)? {
            if name.to_string_lossy().starts_with("latest-")
                && let Some(key) = self.latest_key(&records.join(&name))?
            {
                latest.insert(key);
            }
        }
        Ok(latest)
    }

    /// Removes all objects except those in `keep`, and the SHA-256 entries of removed objects.
    fn collect_objects(&self, keep: &BTreeSet<VerityDigest>, summary: &mut GcSummary) -> Result<(), StoreError> {
        for (hex, path) in self.object_files()? {
            if hex.parse().is_ok_and(|d| keep.contains(&d)) {
                summary.kept += 1;
            } else {
                summary.remove(&path)?;
            }
        }
        let index = self.content.join("sha256");
        for prefix in sorted_names(&index)? {
            for name in sorted_names(&index.join(&prefix))? {
                let path = index.join(&prefix).join(&name);
                let target = fs::read_to_string(&path).at(Operation::Read, &path)?;
                if !target.trim_end().parse().is_ok_and(|d| keep.contains(&d)) {
                    summary.remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Removes all directories below `name` of the store.
    fn remove_directories(&self, name: &str) -> Result<(), StoreError> {
        let dir = self.root.join(name);
        for name in sorted_names(&dir)? {
            let path = dir.join(name);
            fs::remove_dir_all(&path).at(Operation::Remove, &path)?;
        }
        Ok(())
    }
}

impl StoreCheck {
    /// Adds a problem of the file `path`, and removes the file if it is to be repaired.
    fn note(&mut self, path: PathBuf, problem: Option<String>, repair: bool) -> Result<(), StoreError> {
        let Some(problem) = problem else { return Ok(()) };
        if repair {
            fs::remove_file(&path).at(Operation::Remove, &path)?;
        }
        self.damage.push(Damage { path, problem });
        Ok(())
    }
}

impl GcSummary {
    /// Removes a file and counts it.
    fn remove(&mut self, path: &Path) -> Result<(), StoreError> {
        self.removed += 1;
        self.freed += fs::symlink_metadata(path).map_or(0, |m| m.len());
        fs::remove_file(path).at(Operation::Remove, path)
    }
}
