//! Compares the files of an artifact with its `SHA256SUMS` before they boot.

use crate::{
    manifest::{ManifestError, SUMS_FILE, Sums},
    model::{Hint, RelPath, Sha256Digest},
    store::{open_foreign, read_foreign},
};
use sha2::{Digest, Sha256};
use std::{borrow::Cow, io, path::Path};

/// Largest list that is read, bytes.
const MAX_SUMS: u64 = 1 << 20;

/// Why the files of an artifact are not the listed ones; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum SumsError {
    /// A file cannot be read.
    #[error("read {path:?}")]
    Io {
        /// The file.
        path: String,
        /// The reason that the system gave.
        #[source]
        source: io::Error,
    },
    /// The list is malformed.
    #[error(transparent)]
    List(#[from] ManifestError),
    /// A file that boots is not in the list.
    #[error("find {path:?} in {SUMS_FILE}")]
    Unlisted {
        /// The file.
        path: String,
    },
    /// A file is not the one that is listed.
    #[error("compare {path:?} with {SUMS_FILE}\nexpected: {expected}\n  actual: {actual}")]
    Differs {
        /// The file.
        path: String,
        /// The listed digest.
        expected: Sha256Digest,
        /// The digest of the file.
        actual: Sha256Digest,
    },
}

impl Hint for SumsError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some("--no-verify-sums boots the files as they are".into())
    }
}

/// Checks every listed file of the artifact in `dir`; the files `needed` must be listed.
///
/// # Errors
///
/// A file differs, is missing, or is needed and not listed; the list cannot be read.
pub fn verify_sums(dir: &Path, needed: &[&str]) -> Result<(), SumsError> {
    let io = |name: &str| {
        let path = dir.join(name).to_string_lossy().into_owned();
        move |source| SumsError::Io { path, source }
    };
    let text = read_foreign(&dir.join(SUMS_FILE), MAX_SUMS).map_err(io(SUMS_FILE))?;
    let sums = Sums::parse(&text)?;
    for name in needed {
        let listed = RelPath::new(name).is_ok_and(|path| sums.files().contains_key(&path));
        if !listed {
            let path = (*name).to_owned();
            return Err(SumsError::Unlisted { path });
        }
    }
    for (path, expected) in sums.files() {
        let name = path.to_string();
        let mut file = open_foreign(&dir.join(&name)).map_err(io(&name))?;
        let mut hasher = Sha256::new();
        io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(io(&name))?;
        let actual = Sha256Digest::new(hasher.finalize().into());
        if actual != *expected {
            return Err(SumsError::Differs {
                path: name,
                expected: *expected,
                actual,
            });
        }
    }
    Ok(())
}

/// A hash as a writer.
struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_changed_missing_or_unlisted_file_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("written");
        write("kernel", b"abc");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        write(SUMS_FILE, format!("{abc}  kernel\n").as_bytes());
        let verify = |needed: &[&str]| verify_sums(dir.path(), needed).map_err(|error| error.to_string());
        assert_eq!(verify(&["kernel"]), Ok(()));
        assert_eq!(verify(&["disk.raw"]), Err("find \"disk.raw\" in SHA256SUMS".to_owned()));
        write("kernel", b"abd");
        let said = verify(&["kernel"]).expect_err("it differs");
        assert!(
            said.starts_with("compare \"kernel\" with SHA256SUMS\nexpected: ba7816bf") && said.contains("  actual: "),
            "{said}"
        );
        fs::remove_file(dir.path().join("kernel")).expect("there");
        assert!(verify(&[]).expect_err("it is missing").starts_with("read "));
        fs::remove_file(dir.path().join(SUMS_FILE)).expect("there");
        assert!(verify(&[]).expect_err("no list").ends_with("SHA256SUMS\""));
    }
}
