//! Checking the whole store, and removing what nothing refers to.

use super::{
    Output, Record, Store,
    error::{IoContext, Operation, StoreError},
    objects::sorted_names,
    record::parse_record,
};
use crate::model::{Sha256Digest, StageKey, VerityDigest};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::PathBuf,
};

/// One object or record that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

/// What a check of the whole store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreCheck {
    /// Objects hashed.
    pub objects: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// Records read.
    pub records: u64,
    /// Everything found wrong.
    pub damage: Vec<Damage>,
}

/// What garbage collection did.
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
type Kept = (PathBuf, Option<(StageKey, Record)>);

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
            let text = fs::read_to_string(&path).unwrap_or_default();
            let record = parse_record(&key, &text);
            records.push((path, record.map(|record| (key, record))));
        }
        Ok(records)
    }

    /// Hashes every object and reads every record. With `repair`, damaged objects and the records that need them are
    /// removed, so that the next build fetches or makes them again.
    pub fn check(&self, repair: bool, progress: &mut dyn FnMut(u64)) -> Result<StoreCheck, StoreError> {
        let mut check = StoreCheck::default();
        for (hex, path) in self.object_files()? {
            let hashed = File::open(&path).and_then(crate::verity::digest_reader);
            let (actual, size) = match hashed {
                Ok(hashed) => hashed,
                Err(e) => {
                    check.damage.push(Damage {
                        path,
                        problem: format!("cannot be read: {e}"),
                    });
                    continue;
                }
            };
            check.objects += 1;
            check.bytes += size;
            progress(check.bytes);
            if actual.to_hex() != hex {
                if repair {
                    fs::remove_file(&path).at(Operation::Remove, &path)?;
                }
                check.damage.push(Damage {
                    path,
                    problem: format!("content hashes to {actual}"),
                });
            }
        }
        for (path, record) in self.records()? {
            check.records += 1;
            let problem = match record {
                None => Some("does not parse".to_owned()),
                Some((_, record)) => self.reachable(&record).err().map(|e| e.to_string()),
            };
            if let Some(problem) = problem {
                if repair {
                    fs::remove_file(&path).at(Operation::Remove, &path)?;
                }
                check.damage.push(Damage { path, problem });
            }
        }
        if repair && !check.damage.is_empty() {
            let checkouts = self.root.join("checkouts");
            for name in sorted_names(&checkouts)? {
                let path = checkouts.join(name);
                fs::remove_dir_all(&path).at(Operation::Remove, &path)?;
            }
        }
        Ok(check)
    }

    /// Every object a record needs; an error when one is not there.
    fn reachable(&self, record: &Record) -> Result<BTreeSet<VerityDigest>, StoreError> {
        let mut found = BTreeSet::new();
        for output in record.outputs.values() {
            found.insert(*output.digest());
            if let Output::Tree { digest } = output {
                let tree = self.tree(digest)?;
                found.extend(tree.objects().into_iter().filter(|(_, size)| *size > 0).map(|(d, _)| d));
            }
        }
        match found.iter().find(|d| self.find_object(d).is_none()) {
            Some(digest) => Err(StoreError::Missing { digest: *digest }),
            None => Ok(found),
        }
    }

    /// Removes everything but: the newest record of each stage and what it needs, and the inputs in `pinned` (the lock's
    /// files). Checkouts are removed whole; they are made again when needed. Call it on a store opened exclusively.
    pub fn collect(&self, pinned: &BTreeSet<Sha256Digest>) -> Result<GcSummary, StoreError> {
        let mut result = GcSummary::default();
        let mut keep: BTreeSet<VerityDigest> = pinned.iter().filter_map(|s| self.find_sha256(s)).collect();
        let mut newest = BTreeSet::new();
        for name in sorted_names(&self.root.join("records"))? {
            if name.to_string_lossy().starts_with("latest-")
                && let Ok(text) = fs::read_to_string(self.root.join("records").join(&name))
                && let Ok(key) = text.trim_end().parse::<StageKey>()
            {
                newest.insert(key);
            }
        }
        for (path, record) in self.records()? {
            match record {
                Some((key, record)) if newest.contains(&key) => {
                    match self.reachable(&record) {
                        Ok(objects) => keep.extend(objects),
                        // It is worth nothing without them, and its stage runs again.
                        Err(_) => remove(&path, &mut result)?,
                    }
                }
                _ => remove(&path, &mut result)?,
            }
        }
        for dir in ["logs", "locks"] {
            let dir = self.root.join(dir);
            for name in sorted_names(&dir)? {
                let text = name.to_string_lossy();
                let key = text.strip_suffix(".log").unwrap_or(&text).parse::<StageKey>();
                if !text.starts_with("latest-") && !key.is_ok_and(|k| newest.contains(&k)) {
                    remove(&dir.join(&name), &mut result)?;
                }
            }
        }
        for dir in ["checkouts", "failed"] {
            let dir = self.root.join(dir);
            for name in sorted_names(&dir)? {
                let path = dir.join(name);
                fs::remove_dir_all(&path).at(Operation::Remove, &path)?;
            }
        }
        let downloads = self.root.join("downloads");
        for name in sorted_names(&downloads)? {
            remove(&downloads.join(name), &mut result)?;
        }
        for (hex, path) in self.object_files()? {
            if hex.parse().is_ok_and(|d| keep.contains(&d)) {
                result.kept += 1;
            } else {
                remove(&path, &mut result)?;
            }
        }
        let index = self.content.join("sha256");
        for prefix in sorted_names(&index)? {
            for name in sorted_names(&index.join(&prefix))? {
                let path = index.join(&prefix).join(&name);
                let target = fs::read_to_string(&path).at(Operation::Read, &path)?;
                if !target.trim_end().parse().is_ok_and(|d| keep.contains(&d)) {
                    remove(&path, &mut result)?;
                }
            }
        }
        Ok(result)
    }
}

fn remove(path: &std::path::Path, result: &mut GcSummary) -> Result<(), StoreError> {
    result.removed += 1;
    result.freed += fs::symlink_metadata(path).map_or(0, |m| m.len());
    fs::remove_file(path).at(Operation::Remove, path)
}
