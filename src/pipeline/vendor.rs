//! Pinned files before a build: into the store (`pnb fetch`), and from there into a mirror directory (`pnb vendor`).

use super::{Events, Origins, PipelineError, Project};
use crate::{
    fetch::{vendor_blob_path, vendor_file_path, vendor_package_path},
    graph::closure_of,
    lock::{BaseImage, Package},
    model::{Hint, ModelError, NodeId, RelPath, Sha256Digest},
    store::{Store, StoreError},
    verity,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// An error of writing the pinned files as a mirror; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum VendorError {
    /// A pinned file is missing in the store and could not be fetched.
    #[error(transparent)]
    Fetch(#[from] PipelineError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lock has a package, but not the archive of the package.
    #[error("place {package} in the mirror: lockfile.toml has no archive {archive:?}")]
    UnknownArchive {
        /// Name of the package.
        package: String,
        /// Name of its archive.
        archive: String,
    },
    /// The digest of a file does not give a path.
    #[error("place the file {name} in the mirror")]
    Path {
        /// Name of the file in the lock.
        name: String,
        /// The fault of the path.
        #[source]
        source: ModelError,
    },
    /// The store lacks a file that was fetched.
    #[error("find {path} in the store: no object has the SHA-256 {sha256}")]
    NotStored {
        /// Path of the file in the mirror.
        path: RelPath,
        /// Its digest in the lock.
        sha256: Sha256Digest,
    },
    /// The store has other bytes under the digest of a file.
    #[error(
        "copy {path} out of the store: the object is not the pinned file\nexpected: {expected}\n  actual: {actual}"
    )]
    OtherBytes {
        /// Path of the file in the mirror.
        path: RelPath,
        /// SHA-256 in the lock.
        expected: Sha256Digest,
        /// SHA-256 of the copy.
        actual: Sha256Digest,
    },
    /// A file of the mirror could not be written.
    #[error("write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Hint for VendorError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            VendorError::UnknownArchive { .. } => Some("`pnb lock --update` writes the lock anew".into()),
            VendorError::NotStored { .. } | VendorError::OtherBytes { .. } => {
                Some("`pnb store verify --repair` removes what is damaged; then run the command again".into())
            }
            VendorError::Fetch(error) => error.hint(),
            VendorError::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// The result of writing a mirror directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vendored {
    /// Number of pinned files in it.
    pub files: usize,
    /// Number of files that were written now; the others were there already.
    pub written: usize,
}

/// The locked packages of the closure of `nodes`.
///
/// # Errors
/// A node is not in the graph.
pub fn needed_packages<'a>(project: &'a Project, nodes: &[NodeId]) -> Result<Vec<&'a Package>, PipelineError> {
    let closure = closure_of(&project.graph, nodes)?;
    let sets: BTreeSet<NodeId> = closure.order.into_iter().collect();
    let packages = project.lock.packages.iter();
    Ok(packages.filter(|package| !package.sets.is_disjoint(&sets)).collect())
}

/// Puts `packages` and all pinned files that are not packages into the store.
///
/// # Errors
/// None of the addresses of a file has its locked bytes.
pub fn fetch_pinned(
    project: &Project,
    store: &Store,
    origins: &Origins,
    packages: &[&Package],
    events: Events<'_>,
) -> Result<(), PipelineError> {
    origins.ensure_packages(project, store, "all", packages, events)?;
    for file in &project.lock.files {
        origins.ensure_file(project, store, file, events)?;
    }
    if let Some(base) = &project.lock.base {
        origins.ensure_all_of_base(store, base, events)?;
    }
    Ok(())
}

/// Writes every pinned download into `dir`, in the layout of a mirror for [`fetch::Sources`](crate::fetch::Sources).
///
/// Files that `dir` has with their locked bytes stay; every other file gets its name only when it is complete and verified.
///
/// # Errors
/// A file cannot be fetched or written, or the store is damaged.
pub fn vendor(
    project: &Project,
    store: &Store,
    origins: &Origins,
    dir: &Path,
    events: Events<'_>,
) -> Result<Vendored, VendorError> {
    let packages: Vec<&Package> = project.lock.packages.iter().collect();
    fetch_pinned(project, store, origins, &packages, events)?;
    let layout = mirror_layout(project)?;
    let mut written = 0;
    for (path, sha256) in &layout {
        written += usize::from(copy_out(store, dir, path, sha256)?);
    }
    let files = layout.len();
    Ok(Vendored { files, written })
}

/// The path of each download in a mirror, relative to its directory. Files of the project are not downloads.
fn mirror_layout(project: &Project) -> Result<BTreeMap<RelPath, Sha256Digest>, VendorError> {
    let lock = &project.lock;
    let mut layout = BTreeMap::new();
    for package in &lock.packages {
        let archive = lock
            .archive(&package.archive)
            .ok_or_else(|| VendorError::UnknownArchive {
                package: package.name.clone(),
                archive: package.archive.clone(),
            })?;
        layout.insert(vendor_package_path(package, archive), package.sha256);
    }
    for file in lock.files.iter().filter(|file| file.path.is_none()) {
        let path = vendor_file_path(&file.sha256).map_err(|source| VendorError::Path {
            name: file.name.clone(),
            source,
        })?;
        layout.insert(path, file.sha256);
    }
    for (digest, name) in project.lock.base.iter().flat_map(BaseImage::blobs) {
        let path = vendor_blob_path(&digest).map_err(|source| VendorError::Path { name, source })?;
        layout.insert(path, digest);
    }
    Ok(layout)
}

/// Copies an object to `path` below `dir`; returns `false` if the file was there already.
fn copy_out(store: &Store, dir: &Path, path: &RelPath, sha256: &Sha256Digest) -> Result<bool, VendorError> {
    let digest = store.find_sha256(sha256)?.ok_or_else(|| VendorError::NotStored {
        path: path.clone(),
        sha256: *sha256,
    })?;
    store.verify_object(&digest)?;
    let target = dir.join(path.as_path());
    if sha256_of(&target).is_ok_and(|found| found == *sha256) {
        return Ok(false);
    }
    let failed = |source| VendorError::Write {
        path: target.clone(),
        source,
    };
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    // An interrupted copy must not be mistaken for the file, so it has another name until it is verified.
    let part = target.with_extension("part");
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    fs::copy(store.object_path(&digest)?, &part).map_err(failed)?;
    let actual = sha256_of(&part).map_err(failed)?;
    if actual != *sha256 {
        return Err(VendorError::OtherBytes {
            path: path.clone(),
            expected: *sha256,
            actual,
        });
    }
    fs::rename(&part, &target).map_err(failed)?;
    Ok(true)
}

/// SHA-256 of the file at `path`.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<Sha256Digest> {
    let mut both = verity::Both::new();
    io::copy(&mut fs::File::open(path)?, &mut both)?;
    Ok(both.finish().sha256)
}
