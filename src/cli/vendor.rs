//! `pnb vendor`: every pinned input into a directory that serves as a mirror.

use super::{
    Exit,
    args::Common,
    context::{inputs, project, store},
    failure::Failure,
    fetch::fetch_all,
    report::Report,
};
use clap::Args;
use pnb::{
    fetch::{vendor_file_path, vendor_package_path},
    model::{RelPath, Sha256Digest},
    verity,
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Options of `pnb vendor`.
#[derive(Args, Debug)]
pub(super) struct VendorArgs {
    /// The directory; made if it is not there.
    pub(super) dir: PathBuf,
}

pub(super) fn vendor(common: &Common, args: &VendorArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let packages: Vec<_> = project.lock.packages.iter().collect();
    fetch_all(&project, &store, &inputs(common)?, &packages, report)?;
    let mut wanted: BTreeMap<RelPath, Sha256Digest> = BTreeMap::new();
    for package in packages {
        let archive = project.lock.archive(&package.archive);
        let archive =
            archive.ok_or_else(|| Failure::said(Exit::Lock, format!("find the archive {:?}", package.archive)))?;
        wanted.insert(vendor_package_path(package, archive), package.sha256);
    }
    for file in project.lock.files.iter().filter(|f| f.path.is_none()) {
        let path = vendor_file_path(&file.sha256).map_err(|e| Failure::said(Exit::Lock, e.to_string()))?;
        wanted.insert(path, file.sha256);
    }
    let mut written = 0u64;
    for (path, sha256) in &wanted {
        let missing = || Failure::said(Exit::Store, format!("find {path} in the store"));
        let digest = store.find_sha256(sha256).ok_or_else(missing)?;
        store.verify_object(&digest)?;
        let target = args.dir.join(path.as_path());
        let io = |e: io::Error| Failure::said(Exit::Failure, format!("write {target:?}: {e}"));
        if sha256_of(&target).is_ok_and(|d| d == *sha256) {
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let fresh = target.with_extension("part");
        if fresh.exists() {
            fs::remove_file(&fresh).map_err(io)?;
        }
        fs::copy(store.object_path(&digest)?, &fresh).map_err(io)?;
        if sha256_of(&fresh).map_err(io)? != *sha256 {
            return Err(Failure::said(
                Exit::Store,
                format!("vendor {path}: the store has other bytes under its SHA-256"),
            ));
        }
        fs::rename(&fresh, &target).map_err(io)?;
        written += 1;
    }
    let dir = args.dir.canonicalize().unwrap_or_else(|_| args.dir.clone());
    report.clear();
    let files = wanted.len();
    report.note(format_args!(
        "{files} files, {written} new; use them with PNB_MIRROR=file://{}",
        dir.display()
    ));
    Ok(Exit::Success)
}

/// SHA-256 of a file.
pub(super) fn sha256_of(path: &Path) -> io::Result<Sha256Digest> {
    let mut both = verity::Both::new();
    io::copy(&mut fs::File::open(path)?, &mut both)?;
    Ok(both.finish().sha256)
}
