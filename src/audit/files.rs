//! The files of a directory and their digests.

use super::{
    AuditError,
    check::{Check, Class, Problems},
};
use crate::{
    manifest::{RECORD_FILE, SIGNATURE_ENDING, SUMS_FILE, Sums},
    model::RelPath,
    store::open_foreign,
    verity::{Both, Digests},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Most entries of an artifact directory.
const MAX_ENTRIES: usize = 100_000;

fn at(path: &Path) -> impl FnOnce(io::Error) -> AuditError {
    let path = path.to_owned();
    move |source| AuditError::Io { path, source }
}

/// Reads a small file whole; `None` when it does not exist, is not a regular file or is larger than `limit` bytes.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, AuditError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() <= limit => {}
        Ok(_) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(path)(e)),
    }
    let mut bytes = Vec::new();
    let file = open_foreign(path).map_err(at(path))?;
    file.take(limit).read_to_end(&mut bytes).map_err(at(path))?;
    Ok(Some(bytes))
}

/// Hashes every regular file below `dir`. An entry that is neither a file nor a directory is a problem.
pub(super) fn hash_all(dir: &Path, problems: &mut Problems) -> Result<BTreeMap<RelPath, Digests>, AuditError> {
    let mut found = BTreeMap::new();
    let mut waiting: Vec<Option<RelPath>> = vec![None];
    let mut entries = 0;
    while let Some(below) = waiting.pop() {
        let path = join(dir, below.as_ref());
        #[expect(clippy::disallowed_methods, reason = "the files go into a sorted map")]
        let listing = fs::read_dir(&path).map_err(at(&path))?;
        for entry in listing {
            let entry = entry.map_err(at(&path))?;
            entries += 1;
            if entries > MAX_ENTRIES {
                problems.add(format!("there are more than {MAX_ENTRIES} files"));
                return Ok(found);
            }
            let name = RelPath::new(entry.file_name().as_bytes()).map(|n| match &below {
                Some(below) => below.join(&n),
                None => n,
            });
            let name = match name {
                Ok(name) => name,
                Err(e) => {
                    problems.add(e.to_string());
                    continue;
                }
            };
            let kind = entry.file_type().map_err(at(&entry.path()))?;
            if kind.is_dir() {
                waiting.push(Some(name));
            } else if kind.is_file() {
                let digests = hash_file(&entry.path())?;
                found.insert(name, digests);
            } else {
                problems.add(format!("\"{name}\" is neither a file nor a directory"));
            }
        }
    }
    Ok(found)
}

fn join(dir: &Path, below: Option<&RelPath>) -> std::path::PathBuf {
    below.map_or_else(|| dir.to_owned(), |b| dir.join(b))
}

fn hash_file(path: &Path) -> Result<Digests, AuditError> {
    let mut file = open_foreign(path).map_err(at(path))?;
    let mut both = Both::new();
    io::copy(&mut file, &mut both).map_err(at(path))?;
    Ok(both.finish())
}

/// Checks the form of `SHA256SUMS`, and its digests against the files.
pub(super) fn check_sums(
    text: Option<&[u8]>,
    found: &BTreeMap<RelPath, Digests>,
    mut problems: Problems,
    checks: &mut Vec<Check>,
) -> Option<Sums> {
    let mut shape = Problems::default();
    let sums = match text.map(Sums::parse) {
        None => {
            shape.add(format!("\"{SUMS_FILE}\" is not there"));
            None
        }
        Some(Err(e)) => {
            shape.add(e.to_string());
            None
        }
        Some(Ok(sums)) => Some(sums),
    };
    let count = sums.as_ref().map_or(0, |s| s.files().len());
    checks.push(shape.check("checksum list", Class::Sums, format!("{count} files listed")));
    let sums = sums?;
    for (path, sha256) in sums.files() {
        match found.get(path) {
            None => problems.add(format!("\"{path}\" is listed in {SUMS_FILE} but missing")),
            Some(digests) => problems.equal(&format!("sha256 of \"{path}\""), sha256, &digests.sha256),
        }
    }
    for path in found
        .keys()
        .filter(|p| !sums.files().contains_key(*p) && !unlisted(p, &sums))
    {
        problems.add(format!("\"{path}\" is not listed in {SUMS_FILE}"));
    }
    let bytes: u64 = found.values().map(|d| d.size).sum();
    checks.push(problems.check("files", Class::Files, format!("{bytes} bytes match")));
    Some(sums)
}

/// Whether a file need not be listed: the list itself, the build record, and the signature of a listed file.
fn unlisted(path: &RelPath, sums: &Sums) -> bool {
    let bytes = path.as_bytes();
    if bytes == SUMS_FILE.as_bytes() || bytes == RECORD_FILE.as_bytes() {
        return true;
    }
    // Signatures differ from run to run, so they are not listed.
    let signed = bytes
        .strip_suffix(SIGNATURE_ENDING.as_bytes())
        .and_then(|b| RelPath::new(b).ok());
    signed.is_some_and(|p| sums.files().contains_key(&p) || p.as_bytes() == SUMS_FILE.as_bytes())
}
