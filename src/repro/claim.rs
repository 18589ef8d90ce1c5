//! The claim of a manifest, not yet confirmed by a build.
//!
//! A manifest can be read alone, as from a release page, or in the directory of its artifact. In a directory the files must be those
//! that the manifest lists: a manifest claims nothing about files that were changed since.

use super::ClaimError;
use crate::{
    manifest::{MANIFEST_FILE, MAX_SIZE, Manifest, ManifestError, SUMS_FILE, Sums},
    model::{Arch, RelPath, Sha256Digest, Target, Variant},
    store::open_foreign,
    verity::{Both, Digests},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A well-formed manifest of one artifact; read from a directory, the manifest of the files there.
#[derive(Clone, Debug)]
pub struct Claim {
    given: PathBuf,
    file: PathBuf,
    manifest: Manifest,
    sha256: Sha256Digest,
    target: Target,
}

impl Claim {
    /// Reads the manifest at `path`, or the manifest in the directory `path`.
    ///
    /// # Errors
    /// See [`ClaimError`]. For a manifest alone only that file is read. In a directory every file that the manifest lists is hashed, and
    /// `SHA256SUMS`, if it exists, must list these files and the manifest, and no missing file.
    pub fn load(path: &Path) -> Result<Self, ClaimError> {
        let dir = fs::metadata(path).map_err(read(path))?.is_dir().then_some(path);
        let file = dir.map_or_else(|| path.to_owned(), |d| d.join(MANIFEST_FILE));
        if let Some(dir) = dir
            && !file.try_exists().map_err(read(&file))?
        {
            return Err(ClaimError::NoManifest {
                dir: dir.to_owned(),
                file: MANIFEST_FILE,
            });
        }
        let bytes = small(&file)?;
        let manifest = Manifest::read(&bytes, MANIFEST_FILE).map_err(|source| refused(&file, source))?;
        let names = manifest.check_names(MANIFEST_FILE);
        names.map_err(|source| refused(&file, source))?;
        let target = manifest.target().ok_or_else(|| ClaimError::Variants {
            path: file.clone(),
            count: manifest.variants.len(),
        })?;
        let claim = Self {
            given: path.to_owned(),
            // The path of a pipe cannot be resolved.
            file: file.canonicalize().unwrap_or_else(|_| file.clone()),
            manifest,
            sha256: Sha256Digest::new(Sha256::digest(&bytes).into()),
            target,
        };
        if let Some(dir) = dir {
            claim.check_files(dir)?;
        }
        Ok(claim)
    }

    /// The path that was given.
    pub fn given(&self) -> &Path {
        &self.given
    }
    /// The path of the manifest's file, with every link resolved.
    pub fn file(&self) -> &Path {
        &self.file
    }
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// SHA-256 of the manifest's file.
    pub fn sha256(&self) -> &Sha256Digest {
        &self.sha256
    }
    /// The artifact that the manifest describes.
    pub fn target(&self) -> Target {
        self.target
    }
    /// The artifact's family.
    pub fn variant(&self) -> Variant {
        self.target.variant
    }
    /// The artifact's architecture.
    pub fn arch(&self) -> Arch {
        self.target.arch
    }

    /// Checks that the files in `dir` are those of the manifest and of the list beside it.
    fn check_files(&self, dir: &Path) -> Result<(), ClaimError> {
        let list = dir.join(SUMS_FILE);
        let mut found = BTreeMap::new();
        if list.try_exists().map_err(read(&list))? {
            let sums = Sums::parse(&small(&list)?).map_err(|source| ClaimError::Sums {
                path: list.clone(),
                source,
            })?;
            self.check_list(&list, &sums)?;
            for (path, sha256) in sums.files() {
                let digests = digests_of(dir, path, SUMS_FILE)?;
                same(&dir.join(path), "its sha256", SUMS_FILE, sha256, &digests.sha256)?;
                found.insert(path.clone(), digests);
            }
        }
        for (path, artifact) in &self.manifest.artifacts {
            let digests = match found.remove(path) {
                Some(digests) => digests,
                None => digests_of(dir, path, MANIFEST_FILE)?,
            };
            let file = dir.join(path);
            same(&file, "its sha256", MANIFEST_FILE, &artifact.sha256, &digests.sha256)?;
            same(
                &file,
                "its fs-verity digest",
                MANIFEST_FILE,
                &artifact.fsverity,
                &digests.verity,
            )?;
            same(
                &file,
                "its size in bytes",
                MANIFEST_FILE,
                &artifact.size_bytes,
                &digests.size,
            )?;
        }
        Ok(())
    }

    /// Checks that the list has the digests of the manifest and of its artifacts.
    fn check_list(&self, list: &Path, sums: &Sums) -> Result<(), ClaimError> {
        let missing = |file: String, why: &str| ClaimError::Missing {
            file,
            within: list.to_owned(),
            why: why.to_owned(),
        };
        let own = sums
            .files()
            .iter()
            .find(|(p, _)| p.as_bytes() == MANIFEST_FILE.as_bytes());
        let (_, listed) = own.ok_or_else(|| missing(MANIFEST_FILE.to_owned(), "the list must include the manifest"))?;
        let manifest = list.with_file_name(MANIFEST_FILE);
        same(&manifest, "its sha256", SUMS_FILE, listed, &self.sha256)?;
        for (path, artifact) in &self.manifest.artifacts {
            let listed = sums.files().get(path);
            let listed = listed.ok_or_else(|| missing(path.to_string(), "the manifest lists it"))?;
            let what = format!("the sha256 of \"{path}\"");
            same(list, &what, MANIFEST_FILE, &artifact.sha256, listed)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_owned();
    move |source| ClaimError::Read { path, source }
}

/// Reads a file of at most [`MAX_SIZE`] bytes; of a larger file one byte more, so that the parser refuses it as too large.
fn small(path: &Path) -> Result<Vec<u8>, ClaimError> {
    let file = open_foreign(path).map_err(read(path))?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(read(path))?;
    Ok(bytes)
}

fn refused(file: &Path, source: ManifestError) -> ClaimError {
    let path = file.to_owned();
    match source {
        ManifestError::SchemaVersion { found, known, .. } => ClaimError::SchemaVersion { path, found, known },
        source => ClaimError::Malformed { path, source },
    }
}

/// Hashes a file below `dir` that the statement `by` lists.
fn digests_of(dir: &Path, path: &RelPath, by: &'static str) -> Result<Digests, ClaimError> {
    let file = dir.join(path);
    let regular = match fs::symlink_metadata(&file) {
        Ok(meta) => meta.is_file(),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => false,
        Err(e) => return Err(read(&file)(e)),
    };
    if !regular {
        return Err(ClaimError::Missing {
            file: path.to_string(),
            within: dir.to_owned(),
            why: format!("{by:?} lists it"),
        });
    }
    let mut both = Both::new();
    io::copy(&mut open_foreign(&file).map_err(read(&file))?, &mut both).map_err(read(&file))?;
    Ok(both.finish())
}

fn same<T: PartialEq + ToString>(
    path: &Path,
    what: &str,
    by: &'static str,
    expected: &T,
    actual: &T,
) -> Result<(), ClaimError> {
    if expected == actual {
        return Ok(());
    }
    Err(ClaimError::Edited {
        path: path.to_owned(),
        what: what.to_owned(),
        by,
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}
