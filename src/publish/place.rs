//! Places the files of a layout in a directory that others read meanwhile.
//!
//! Each distinct content is copied once into a directory beside the names, hashed while it is copied, and flushed. Only then do files get
//! their names, each by a hard link that is renamed, so a name has the old content or the new one and never a part. Copies are made and not
//! links to the artifacts: a later change of an artifact's file must not change what was published.

use super::{LayoutError, LayoutFile, Obstacle, PUBLICATION_FILE, PlatformLayout, Publication, record::MAX_RECORD};
use crate::{
    model::{RelPath, Sha256Digest},
    store::{open_foreign, read_foreign},
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Beginning of the names of directories in which files are prepared.
const ASIDE: &str = ".pnb-publish-";

/// The answers of file systems that have no hard links, or no more of this file.
const NO_LINK: [Errno; 4] = [Errno::EPERM, Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::EMLINK];

/// How a directory may be changed.
#[derive(Clone, Copy, Default, Debug)]
pub struct PlaceOptions {
    /// Whether files of an older publication are replaced; files that pnb did not place never are.
    pub replace: bool,
    /// Whether to look only.
    pub dry_run: bool,
}

/// What publishing does with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceState {
    /// The name was free.
    New,
    /// The file of an older publication has this name.
    Replaced,
    /// The name has this content already.
    Unchanged,
}

/// A file under its name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PlacedFile {
    /// The name.
    pub name: RelPath,
    /// What publishing does with it.
    pub state: PlaceState,
    /// SHA-256 of its content.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// Places the files of `layout` in `root`, which is created if it is missing. Returns every name; those that were placed by an earlier run,
/// killed or not, are [`PlaceState::Unchanged`].
///
/// # Errors
/// [`LayoutError::Taken`] when a name has other content: nothing was written then. Other errors leave names with old or new content, and
/// the same call again completes them.
pub fn place(layout: &PlatformLayout, root: &Path, options: PlaceOptions) -> Result<Vec<PlacedFile>, LayoutError> {
    if !options.dry_run {
        fs::create_dir_all(root).map_err(LayoutError::io("create", root))?;
    }
    let directory = match File::open(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && options.dry_run => None,
        opened => Some(opened.map_err(LayoutError::io("open", root))?),
    };
    if let Some(directory) = &directory {
        // Held until the end of this function.
        directory.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LayoutError::Busy { path: root.to_owned() },
            TryLockError::Error(source) => LayoutError::io("lock", root)(source),
        })?;
    }
    let mut publication = read_publication(root)?;
    let (planned, obstacles) = look(layout, root, &publication, options.replace)?;
    if !obstacles.is_empty() {
        return Err(LayoutError::Taken {
            path: root.to_owned(),
            obstacles,
        });
    }
    if options.dry_run {
        return Ok(planned);
    }
    remove_abandoned(root)?;
    let changes = planned.iter().any(|placed| placed.state != PlaceState::Unchanged);
    if changes {
        let aside = tempfile::Builder::new().prefix(ASIDE).tempdir_in(root);
        let aside = aside.map_err(LayoutError::io("create a directory in", root))?;
        let copies = copy_contents(layout, &planned, aside.path())?;
        for placed in &planned {
            publication.add(&placed.name, placed.sha256);
        }
        write_publication(root, &aside, &publication)?;
        give_names(root, &aside, &planned, &copies)?;
    }
    let before = publication.clone();
    for placed in &planned {
        publication.settle(&placed.name, placed.sha256);
    }
    if changes || publication != before {
        let aside = tempfile::Builder::new().prefix(ASIDE).tempdir_in(root);
        let aside = aside.map_err(LayoutError::io("create a directory in", root))?;
        write_publication(root, &aside, &publication)?;
    }
    Ok(planned)
}

fn read_publication(root: &Path) -> Result<Publication, LayoutError> {
    let path = root.join(PUBLICATION_FILE);
    match read_foreign(&path, MAX_RECORD) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Publication::default()),
        Err(e) => Err(LayoutError::io("read", path)(e)),
        Ok(bytes) => Publication::read(&bytes).map_err(|source| LayoutError::Record { path, source }),
    }
}

/// Looks at every name of the layout: what is to be done with it, and what is in the way.
fn look(
    layout: &PlatformLayout,
    root: &Path,
    publication: &Publication,
    replace: bool,
) -> Result<(Vec<PlacedFile>, Vec<Obstacle>), LayoutError> {
    let (mut planned, mut obstacles) = (Vec::new(), Vec::new());
    let mut hashed = BTreeMap::new();
    // A directory that is in the way is named once and not for each file.
    let mut refused = BTreeSet::new();
    for (name, file) in layout.files() {
        if let Some(parent) = parent_in_the_way(root, name)? {
            if refused.insert(parent.clone()) {
                obstacles.push(Obstacle::Kind {
                    name: parent,
                    wanted: "directory",
                });
            }
            continue;
        }
        let path = root.join(name);
        let state = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => PlaceState::New,
            Err(e) => return Err(LayoutError::io("look at", path)(e)),
            Ok(meta) if !meta.is_file() => {
                obstacles.push(Obstacle::Kind {
                    name: name.clone(),
                    wanted: "regular file",
                });
                continue;
            }
            Ok(meta) => {
                // Several names are one inode after the first publication.
                let sha256 = match hashed.get(&(meta.dev(), meta.ino())) {
                    Some(known) => *known,
                    None => sha256_of(&path)?,
                };
                hashed.insert((meta.dev(), meta.ino()), sha256);
                match sha256 == file.sha256 {
                    true => PlaceState::Unchanged,
                    false if !publication.has(name, &sha256) => {
                        obstacles.push(Obstacle::Foreign {
                            name: name.clone(),
                            sha256,
                        });
                        continue;
                    }
                    false if !replace => {
                        obstacles.push(Obstacle::Older { name: name.clone() });
                        continue;
                    }
                    false => PlaceState::Replaced,
                }
            }
        };
        planned.push(PlacedFile {
            name: name.clone(),
            state,
            sha256: file.sha256,
            size_bytes: file.size,
        });
    }
    Ok((planned, obstacles))
}

/// The directory above `name` that exists and is not a directory. A symbolic link is not one: it could lead out of `root`.
fn parent_in_the_way(root: &Path, name: &RelPath) -> Result<Option<RelPath>, LayoutError> {
    let mut above = Vec::new();
    let mut next = name.parent();
    while let Some(parent) = next {
        next = parent.parent();
        above.push(parent);
    }
    for parent in above.into_iter().rev() {
        let path = root.join(&parent);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(Some(parent)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(LayoutError::io("look at", path)(e)),
        }
    }
    Ok(None)
}

fn sha256_of(path: &Path) -> Result<Sha256Digest, LayoutError> {
    let mut file = open_foreign(path).map_err(LayoutError::io("open", path))?;
    let (sha256, _) = copy_hashed(&mut file, &mut io::sink()).map_err(LayoutError::io("read", path))?;
    Ok(sha256)
}

/// Copies all bytes, and returns their SHA-256 and number.
fn copy_hashed(from: &mut impl Read, to: &mut impl Write) -> io::Result<(Sha256Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok((Sha256Digest::new(hasher.finalize().into()), size)),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        size += n as u64;
    }
}

/// Removes what killed runs prepared. The caller holds the lock of `root`, so nobody else prepares anything.
fn remove_abandoned(root: &Path) -> Result<(), LayoutError> {
    #[expect(clippy::disallowed_methods, reason = "the order of removal does not matter")]
    let entries = fs::read_dir(root).map_err(LayoutError::io("read", root))?;
    for entry in entries {
        let entry = entry.map_err(LayoutError::io("read", root))?;
        if entry.file_name().as_encoded_bytes().starts_with(ASIDE.as_bytes()) {
            fs::remove_dir_all(entry.path()).map_err(LayoutError::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Copies each content that a name needs into `aside` once, and flushes it to the disk.
fn copy_contents(
    layout: &PlatformLayout,
    planned: &[PlacedFile],
    aside: &Path,
) -> Result<BTreeMap<Sha256Digest, PathBuf>, LayoutError> {
    let mut copies = BTreeMap::new();
    let needed = planned.iter().filter(|placed| placed.state != PlaceState::Unchanged);
    for placed in needed {
        let Some(file) = layout.files().get(&placed.name) else {
            continue;
        };
        if copies.contains_key(&file.sha256) {
            continue;
        }
        let copy = aside.join(file.sha256.to_hex());
        copy_content(file, &copy)?;
        copies.insert(file.sha256, copy);
    }
    Ok(copies)
}

fn copy_content(file: &LayoutFile, copy: &Path) -> Result<(), LayoutError> {
    let mut from = open_foreign(&file.source).map_err(LayoutError::io("open", &file.source))?;
    let mut to = File::create_new(copy).map_err(LayoutError::io("create", copy))?;
    let (actual, _) = copy_hashed(&mut from, &mut to).map_err(LayoutError::io("copy", &file.source))?;
    if actual != file.sha256 {
        return Err(LayoutError::Changed {
            path: file.source.clone(),
            expected: file.sha256,
            actual,
        });
    }
    // A web server runs as another user.
    let mode = fs::Permissions::from_mode(0o644);
    to.set_permissions(mode).map_err(LayoutError::io("write", copy))?;
    to.sync_all().map_err(LayoutError::io("write", copy))
}

/// Writes the record of what pnb placed, in one step.
fn write_publication(root: &Path, aside: &TempDir, publication: &Publication) -> Result<(), LayoutError> {
    let path = root.join(PUBLICATION_FILE);
    let text = publication.to_json().map_err(|source| LayoutError::Record {
        path: path.clone(),
        source,
    })?;
    let fresh = aside.path().join("publication");
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()
    });
    written.map_err(LayoutError::io("write", &fresh))?;
    fs::rename(&fresh, &path).map_err(LayoutError::io("write", &path))?;
    sync_directory(root)
}

fn sync_directory(path: &Path) -> Result<(), LayoutError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(LayoutError::io("write", path))
}

/// Gives each file its name.
fn give_names(
    root: &Path,
    aside: &TempDir,
    planned: &[PlacedFile],
    copies: &BTreeMap<Sha256Digest, PathBuf>,
) -> Result<(), LayoutError> {
    let mut touched = BTreeSet::from([root.to_owned()]);
    for placed in planned {
        let Some(copy) = copies
            .get(&placed.sha256)
            .filter(|_| placed.state != PlaceState::Unchanged)
        else {
            continue;
        };
        let path = root.join(&placed.name);
        if let Some(parent) = placed.name.parent() {
            let parent = root.join(&parent);
            make_directories(&parent)?;
            touched.insert(parent);
        }
        let link = aside.path().join("link");
        match fs::hard_link(copy, &link) {
            Ok(()) => {}
            Err(e)
                if e.raw_os_error()
                    .is_some_and(|code| NO_LINK.contains(&Errno::from_raw(code))) =>
            {
                fs::copy(copy, &link).map_err(LayoutError::io("write", &link))?;
                let synced = File::open(&link).and_then(|file| file.sync_all());
                synced.map_err(LayoutError::io("write", &link))?;
            }
            Err(e) => return Err(LayoutError::io("link", link)(e)),
        }
        let flags = match placed.state {
            // A file that got this name since the look belongs to somebody else.
            PlaceState::New => RenameFlags::RENAME_NOREPLACE,
            _ => RenameFlags::empty(),
        };
        let renamed = match renameat2(AT_FDCWD, &link, AT_FDCWD, &path, flags) {
            // A file system that cannot keep a name: the look of a moment ago must do.
            Err(Errno::EINVAL) => renameat2(AT_FDCWD, &link, AT_FDCWD, &path, RenameFlags::empty()),
            renamed => renamed,
        };
        renamed.map_err(|errno| LayoutError::io("rename a file to", &path)(errno.into()))?;
    }
    touched.iter().try_for_each(|directory| sync_directory(directory))
}

/// Makes a directory and those above it, readable for everybody.
fn make_directories(path: &Path) -> Result<(), LayoutError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_directories(above)?;
    }
    fs::create_dir(path).map_err(LayoutError::io("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(LayoutError::io("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_changed_after_the_audit_gets_no_name() {
        let dir = tempfile::tempdir().expect("scratch");
        let source = dir.path().join("kernel");
        fs::write(&source, "changed").expect("written");
        let name: RelPath = "amd64/kernel".parse().expect("a path");
        let file = LayoutFile {
            source: source.clone(),
            sha256: Sha256Digest::new(Sha256::digest(b"audited").into()),
            size: 7,
        };
        let layout = PlatformLayout {
            files: BTreeMap::from([(name.clone(), file)]),
        };
        let root = dir.path().join("www");
        let error = place(&layout, &root, PlaceOptions::default()).expect_err("changed");
        assert!(
            matches!(error, LayoutError::Changed { .. }) && !error.is_refusal(),
            "{error}"
        );
        assert!(!root.join(&name).exists() && !root.join(PUBLICATION_FILE).exists());
        // The control: with the audited bytes it does.
        fs::write(&source, "audited").expect("written");
        let placed = place(&layout, &root, PlaceOptions::default()).expect("placed");
        assert_eq!(placed[0].state, PlaceState::New);
        assert_eq!(fs::read(root.join(&name)).expect("readable"), b"audited");
    }
}
