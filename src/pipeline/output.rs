//! The directory of artifacts on any file system: what is asked of it, and asked before a build begins.
//!
//! An artifact appears by one exchange of two directories where the file system has that (`renameat2`). NFS, CIFS, 9p, many FUSE file
//! systems and old ZFS do not: there the old directory is renamed away and the new one to its place, and for a moment there is none. Some of
//! them have no locks of directories either; two builders that export there at the same time still do not mix their files, but what a killed
//! one left stays.

use super::PipelineError;
use crate::{
    graph::{StageGraph, StageOutputKind},
    model::{Node, NodeId, Target, VerityDigest},
    store::Store,
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    sys::statvfs::statvfs,
    unistd::{Whence, lseek},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Mode of the directory of an artifact.
const MODE: u32 = 0o755;

/// Why a directory cannot hold artifacts.
#[derive(Debug, thiserror::Error)]
pub enum OutputProblem {
    /// It, or the directory in which it would be made, is none.
    #[error("it is not a directory")]
    NoDirectory,
    /// It is a symbolic link to nothing.
    #[error("it is a symbolic link whose target is not there")]
    Dangling,
    /// An operation that an export needs failed.
    #[error("{action} there")]
    Fails {
        /// The operation, as a verb that completes "failed to …".
        action: &'static str,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// There is less space than the artifacts had when they were built last.
    #[error("it has {free} bytes free, and the artifacts need about {need}")]
    Space {
        /// Free bytes.
        free: u64,
        /// Bytes of the artifacts that are not there yet.
        need: u64,
    },
    /// The file system takes no file of the size of one of the artifacts, as FAT from 4 GiB on.
    #[error("its file system takes no file of {size} bytes, which {name} has")]
    Size {
        /// The file.
        name: String,
        /// Its size when it was built last.
        size: u64,
    },
}

/// Tries in the directory `images` what an export needs, before anything is built. Artifacts that were exported there before are not tried
/// again, so that a build with nothing to do writes nothing.
///
/// # Errors
///
/// [`PipelineError::Output`] with the reason.
pub fn examine_output(
    store: &Store,
    graph: &StageGraph,
    images: &Path,
    targets: &[Target],
) -> Result<(), PipelineError> {
    let mut need = 0;
    let mut largest: Option<(String, u64)> = None;
    let mut fresh = false;
    for target in targets {
        let dir = images.join(target.path());
        if dir.is_dir() && store.note(&super::export::note_of(&dir)).is_some() {
            continue;
        }
        fresh = true;
        let node = graph.node(target.variant.as_str(), target.arch)?;
        for (name, size, blocks) in expected(store, graph, &node)? {
            need += blocks;
            if largest.as_ref().is_none_or(|(_, most)| size > *most) {
                largest = Some((name, size));
            }
        }
    }
    if !fresh {
        return Ok(());
    }
    let base = existing(images).map_err(|problem| PipelineError::output(images, problem))?;
    probe(&base, need, largest).map_err(|problem| PipelineError::output(images, problem))
}

/// The files of an artifact when it was built last: name, size, and bytes on disk without holes.
fn expected(store: &Store, graph: &StageGraph, node: &NodeId) -> Result<Vec<(String, u64, u64)>, PipelineError> {
    use std::os::unix::fs::MetadataExt;
    let Some((_, record)) = store.latest_record(node.stage.as_str(), node.arch)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let mut add = |name: String, digest: &VerityDigest| {
        let object = store.object_path(digest).map(|path| fs::metadata(path).ok());
        if let Ok(Some(object)) = object {
            found.push((name, object.len(), (object.blocks() * 512).min(object.len())));
        }
    };
    for (name, output) in &graph.file(node).outputs {
        let Some(kept) = record.outputs.get(name).filter(|_| output.is_exported()) else {
            continue;
        };
        match store.tree(kept.digest()) {
            Ok(tree) if output.kind == StageOutputKind::Tree => {
                for (below, entry) in tree.iter() {
                    if let Node::File { digest, .. } = &entry.node {
                        add(format!("{name}/{below}"), digest);
                    }
                }
            }
            _ => add(name.clone(), kept.digest()),
        }
    }
    Ok(found)
}

/// The directory itself, or the nearest one above it that is there.
fn existing(images: &Path) -> Result<PathBuf, OutputProblem> {
    let fails = |source| OutputProblem::Fails { action: "look", source };
    let path = std::path::absolute(images).map_err(fails)?;
    for place in path.ancestors() {
        match fs::metadata(place) {
            Ok(found) if found.is_dir() => return Ok(place.to_owned()),
            Ok(_) => return Err(OutputProblem::NoDirectory),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if place.symlink_metadata().is_ok() {
                    return Err(OutputProblem::Dangling);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(OutputProblem::NoDirectory),
            Err(e) => return Err(fails(e)),
        }
    }
    Err(OutputProblem::NoDirectory)
}

/// Tries everything in a directory of its own below `base`.
fn probe(base: &Path, need: u64, largest: Option<(String, u64)>) -> Result<(), OutputProblem> {
    let fails = |action| move |source: io::Error| OutputProblem::Fails { action, source };
    let place = tempfile::Builder::new().prefix(".pnb-probe.").tempdir_in(base);
    let place = place.map_err(fails("make a directory"))?;
    let one = |name: &str| -> Result<TempDir, OutputProblem> {
        let made = tempfile::Builder::new().prefix(name).tempdir_in(place.path());
        let made = made.map_err(fails("make a directory"))?;
        set_mode(made.path()).map_err(fails("change the mode of a directory"))?;
        let mut file = File::create_new(made.path().join("file")).map_err(fails("make a file"))?;
        file.write_all(&[1; 4096]).map_err(fails("write a file"))?;
        Ok(made)
    };
    if let Ok(space) = statvfs(base) {
        // Some file systems do not know their size.
        let free = space.blocks_available().saturating_mul(space.fragment_size());
        if space.blocks() > 0 && free < need {
            return Err(OutputProblem::Space { free, need });
        }
    }
    let target = place.path().join("artifact");
    for round in ["first", "second"] {
        let fresh = one(".probe.")?;
        if let Some((name, size)) = largest.as_ref().filter(|_| round == "first") {
            let file = File::options().write(true).open(fresh.path().join("file"));
            let file = file.map_err(fails("open a file"))?;
            // An offset is an i64, so that a larger file is nowhere.
            let end = i64::try_from(*size).map_err(|_| Errno::EFBIG);
            if let Err(Errno::EINVAL | Errno::EFBIG | Errno::EOVERFLOW) =
                end.and_then(|end| lseek(&file, end, Whence::SeekSet))
            {
                let (name, size) = (name.clone(), *size);
                return Err(OutputProblem::Size { name, size });
            }
        }
        put(fresh, &target, &mut rename).map_err(fails("rename a directory"))?;
    }
    place.close().map_err(fails("remove a directory"))
}

/// Makes a directory in `parent` whose name begins with `prefix`, and holds its lock while the returned file is open. Directories of that
/// prefix whose lock is free were left by programs that were killed, and are removed; where directories have no locks, they stay.
pub(super) fn fresh_directory(parent: &Path, prefix: &str) -> Result<(TempDir, File), PipelineError> {
    let open = |path: &Path| File::open(path).map_err(PipelineError::io("open", path));
    // Nobody else makes such a directory meanwhile, so one without a lock is abandoned and not new.
    let making = open(parent)?;
    if hold(&making).map_err(PipelineError::io("lock", parent))? {
        #[expect(clippy::disallowed_methods, reason = "the order of removal does not matter")]
        let entries = fs::read_dir(parent).map_err(PipelineError::io("read", parent))?;
        for entry in entries {
            let entry = entry.map_err(PipelineError::io("read", parent))?;
            let is_fresh = entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
            if is_fresh && File::open(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
    let fresh = made.map_err(PipelineError::io("create a directory in", parent))?;
    let held = open(fresh.path())?;
    hold(&held).map_err(PipelineError::io("lock", fresh.path()))?;
    set_mode(fresh.path()).map_err(PipelineError::io("change the mode of", fresh.path()))?;
    Ok((fresh, held))
}

/// Waits for the lock of a directory; `false` where directories have none.
fn hold(dir: &File) -> io::Result<bool> {
    match dir.lock() {
        Ok(()) => Ok(true),
        // NFS locks by the protocol for files, which wants one that is open for writing.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBADF)) || is_not_supported(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Gives a directory its mode; a file system without modes shows the same one for all.
fn set_mode(dir: &Path) -> io::Result<()> {
    match fs::set_permissions(dir, fs::Permissions::from_mode(MODE)) {
        Err(e) if is_not_supported(&e) || e.raw_os_error() == Some(libc::EPERM) => {
            let mode = fs::metadata(dir)?.permissions().mode();
            if mode & 0o700 == 0o700 { Ok(()) } else { Err(e) }
        }
        other => other,
    }
}

/// Whether a file system says that it does not have an operation. FUSE and 9p pass on the words of a server.
fn is_not_supported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::ENOLCK | libc::ENOTTY)
    )
}

/// Replaces the directory `dir` by `fresh`, in one step where the file system can, and removes the old one.
pub(super) fn replace(fresh: TempDir, dir: &Path) -> Result<(), PipelineError> {
    put(fresh, dir, &mut rename).map_err(PipelineError::io("rename into place", dir))
}

/// A rename with flags.
type Rename<'a> = &'a mut dyn FnMut(&Path, &Path, RenameFlags) -> io::Result<()>;

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    match flags.is_empty() {
        // Not every kernel and file system has the newer call.
        true => fs::rename(from, to),
        false => Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, flags)?),
    }
}

fn put(fresh: TempDir, dir: &Path, rename: Rename<'_>) -> io::Result<()> {
    let placed = |fresh: TempDir| {
        // The directory has been renamed, so nothing is left to remove.
        let _ = fresh.keep();
        Ok(())
    };
    match rename(fresh.path(), dir, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => return placed(fresh),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            match rename(fresh.path(), dir, RenameFlags::RENAME_EXCHANGE) {
                Ok(()) => return fresh.close(),
                Err(e) if is_not_supported(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Err(e) if is_not_supported(&e) => {}
        Err(e) => return Err(e),
    }
    if dir.symlink_metadata().is_err() {
        rename(fresh.path(), dir, RenameFlags::empty())?;
        return placed(fresh);
    }
    // The name begins as that of the new directory, so that the next builder removes what a killed one left.
    let mut aside: OsString = fresh.path().as_os_str().to_owned();
    aside.push(".old");
    let aside = PathBuf::from(aside);
    rename(dir, &aside, RenameFlags::empty())?;
    if let Err(error) = rename(fresh.path(), dir, RenameFlags::empty()) {
        // The old one comes back, unless another builder's is there by now.
        let _ = rename(&aside, dir, RenameFlags::empty());
        return Err(error);
    }
    let _ = fresh.keep();
    fs::remove_dir_all(&aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        #[expect(clippy::disallowed_methods, reason = "sorted")]
        let listing = fs::read_dir(dir).expect("listed");
        let mut names: Vec<String> = listing
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn fresh(parent: &Path, text: &str) -> TempDir {
        let (dir, _held) = fresh_directory(parent, ".amd64.").expect("made");
        fs::write(dir.path().join("file"), text).expect("written");
        dir
    }

    /// Renames without flags only, as on NFS (`EINVAL`), old kernels (`ENOSYS`) or a FUSE server that says `EOPNOTSUPP`.
    fn without_flags(errno: Errno) -> impl FnMut(&Path, &Path, RenameFlags) -> io::Result<()> {
        move |from, to, flags| match flags.is_empty() {
            true => rename(from, to, flags),
            false => Err(errno.into()),
        }
    }

    #[test]
    fn a_directory_is_replaced_with_and_without_the_flags_of_rename() {
        for errno in [None, Some(Errno::EINVAL), Some(Errno::ENOSYS), Some(Errno::EOPNOTSUPP)] {
            let parent = tempfile::tempdir().expect("a directory");
            let dir = parent.path().join("amd64");
            for text in ["first", "second"] {
                let fresh = fresh(parent.path(), text);
                match errno {
                    None => put(fresh, &dir, &mut rename),
                    Some(errno) => put(fresh, &dir, &mut without_flags(errno)),
                }
                .expect("placed");
                assert_eq!(fs::read_to_string(dir.join("file")).expect("there"), text, "{errno:?}");
                assert_eq!(names(parent.path()), ["amd64"], "{errno:?}");
                let mode = fs::metadata(&dir).expect("there").permissions().mode();
                assert_eq!(mode & 0o777, MODE);
            }
        }
    }

    #[test]
    fn another_error_is_none_of_a_missing_operation() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("amd64");
        fs::create_dir(&dir).expect("made");
        for errno in [Errno::EACCES, Errno::ENOSPC, Errno::EROFS, Errno::EIO] {
            let error = put(fresh(parent.path(), "new"), &dir, &mut without_flags(errno)).expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(errno as i32));
            assert_eq!(names(parent.path()), ["amd64"], "nothing is left");
        }
    }

    #[test]
    fn a_failure_in_the_middle_brings_the_old_directory_back() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("amd64");
        put(fresh(parent.path(), "old"), &dir, &mut rename).expect("placed");
        let mut calls = 0;
        let mut failing = |from: &Path, to: &Path, flags: RenameFlags| {
            calls += 1;
            match (flags.is_empty(), calls) {
                (false, _) => Err(Errno::EINVAL.into()),
                // The old one aside, the new one to its place, the old one back. The first call had a flag.
                (true, 3) => Err(Errno::EIO.into()),
                (true, _) => rename(from, to, flags),
            }
        };
        put(fresh(parent.path(), "new"), &dir, &mut failing).expect_err("broken");
        assert_eq!(fs::read_to_string(dir.join("file")).expect("there"), "old");
        assert_eq!(names(parent.path()), ["amd64"]);
    }

    #[test]
    fn a_directory_is_examined_where_it_is_or_would_be() {
        let parent = tempfile::tempdir().expect("a directory");
        let at = |name: &str| parent.path().join(name);
        fs::write(at("file"), "").expect("written");
        std::os::unix::fs::symlink("nowhere", at("dangling")).expect("linked");
        fs::create_dir(at("there")).expect("made");
        std::os::unix::fs::symlink("there", at("link")).expect("linked");
        let found = |name: &str| existing(&at(name)).map_err(|e| e.to_string());
        assert_eq!(found("there"), Ok(at("there")));
        assert_eq!(found("link/more/still"), Ok(at("link")));
        assert_eq!(found("new/images"), Ok(parent.path().to_owned()));
        assert_eq!(found("file/images"), Err("it is not a directory".to_owned()));
        let dangling = "it is a symbolic link whose target is not there".to_owned();
        assert_eq!(found("dangling"), Err(dangling.clone()));
        assert_eq!(found("dangling/images"), Err(dangling));
        probe(&at("there"), 4096, Some(("disk.raw".to_owned(), 1 << 33))).expect("a good directory");
        assert_eq!(names(&at("there")), Vec::<String>::new(), "nothing is left");
        let error = probe(&at("there"), u64::MAX, None).expect_err("too small").to_string();
        assert!(error.ends_with(&format!("need about {}", u64::MAX)), "{error}");
        // Some file systems have no files of the first size (ext4), some do (tmpfs); none has files of the second.
        let file = fs::File::create(at("file-of-the-file-system")).expect("made");
        let refused = lseek(&file, i64::MAX, Whence::SeekSet).is_err();
        for (size, refused) in [(i64::MAX as u64, refused), (u64::MAX, true)] {
            let error = probe(&at("there"), 0, Some(("disk.raw".to_owned(), size))).err();
            let error = error.map(|error| error.to_string());
            let said = format!("its file system takes no file of {size} bytes, which disk.raw has");
            assert_eq!(error, refused.then_some(said));
        }
        assert_eq!(names(&at("there")), Vec::<String>::new(), "nothing is left");
        let error = probe(&at("gone"), 0, None).expect_err("not there").to_string();
        assert_eq!(error, "make a directory there");
    }
}
