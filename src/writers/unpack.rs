//! `unpack`: packages extracted into one tree, as dpkg unpacks them into an empty root. No maintainer script runs.
//!
//! Inputs: `packages`, and optionally the tree `overlay`, whose files replace those of packages. Output: `tree`.

use super::{Context, WriterError, build, input, tree_input, workspace::is_there};
use crate::{
    debian::{PackageNames, PackedEntry, TarLimits, UnpackedRoot, deb_entries, read_names},
    model::{Meta, Node, Tree, VerityDigest},
    verity,
};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Files unpacked so far, by content.
type UnpackedFiles = Mutex<BTreeMap<VerityDigest, PathBuf>>;

pub(super) fn unpack(context: &Context) -> Result<(), WriterError> {
    let debs = packages(&input("packages"))?;
    let spool = build("contents");
    fs::create_dir(&spool).map_err(WriterError::io("create", &spool))?;
    let contents = UnpackedFiles::default();
    let unpacked = in_parallel(&debs, context.threads, |index| {
        unpack_one(&debs[index], &spool.join(index.to_string()), &contents)
    })?;
    // In the order of the names, in which `dpkg --unpack *.deb` takes them.
    let mut root = UnpackedRoot::new(Meta::root(0o755, context.epoch));
    for (path, (names, entries)) in debs.iter().zip(unpacked) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        root.unpack(&name, names, entries)?;
    }
    let mut merged = root.into_tree();
    let mut contents = contents.into_inner().unwrap_or_else(PoisonError::into_inner);
    if is_there(&input("overlay.tree"))? {
        let overlay = tree_input("overlay")?;
        merged.merge(&overlay.tree, true).map_err(|source| WriterError::Merge {
            what: "the overlay".to_owned(),
            source,
        })?;
        contents.extend(overlay.contents);
    }
    let _ = writeln!(io::stdout(), "{} packages, {} files", debs.len(), merged.len());
    lay_out(&merged, &contents, &build("tree"))
}

/// The packages of an input directory, by name.
pub(super) fn packages(dir: &Path) -> Result<Vec<PathBuf>, WriterError> {
    #[expect(clippy::disallowed_methods, reason = "the names are sorted below")]
    let entries = fs::read_dir(dir).map_err(WriterError::io("list", dir))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(WriterError::io("list", dir))?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs `work` for the index of every file on several threads, largest file first. The results have the order of the files.
pub(super) fn in_parallel<T: Send>(
    files: &[PathBuf],
    threads: u32,
    work: impl Fn(usize) -> Result<T, WriterError> + Sync,
) -> Result<Vec<T>, WriterError> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_cached_key(|i| std::cmp::Reverse(fs::metadata(&files[*i]).map_or(0, |m| m.len())));
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, Result<T, WriterError>>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(index);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(index, result);
                }
            });
        }
    });
    done.into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_values()
        .collect()
}

/// What a package declares, and its entries.
type UnpackedPackage = (PackageNames, Vec<PackedEntry>);

fn unpack_one(deb: &Path, spool: &Path, contents: &UnpackedFiles) -> Result<UnpackedPackage, WriterError> {
    let name = deb.file_name().unwrap_or_default().to_string_lossy();
    let open = || File::open(deb).map_err(WriterError::io("open", deb));
    let names = read_names(open()?, &name)?;
    let file = open()?;
    let mut count = 0u32;
    let mut buffer = vec![0; 128 * 1024];
    let mut put = |content: &mut dyn Read| -> io::Result<(VerityDigest, u64)> {
        let path = spool.with_extension(count.to_string());
        count += 1;
        let mut hasher = verity::Hasher::new();
        let mut out = File::create_new(&path)?;
        loop {
            let n = content.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            out.write_all(&buffer[..n])?;
        }
        let size = hasher.size();
        let digest = hasher.finish();
        let mut contents = contents.lock().unwrap_or_else(PoisonError::into_inner);
        match contents.entry(digest) {
            Entry::Occupied(_) => fs::remove_file(&path)?,
            Entry::Vacant(slot) => {
                slot.insert(path);
            }
        }
        Ok((digest, size))
    };
    Ok((names, deb_entries(file, &name, &TarLimits::default(), &mut put)?))
}

/// Writes the tree as files. Set-id bits are dropped: no program of the tree runs as another user here.
fn lay_out(tree: &Tree, contents: &BTreeMap<VerityDigest, PathBuf>, target: &Path) -> Result<(), WriterError> {
    fs::create_dir(target).map_err(WriterError::io("create", target))?;
    let mut placed: BTreeMap<VerityDigest, Vec<(u32, PathBuf)>> = BTreeMap::new();
    for (rel, entry) in tree.iter() {
        let path = target.join(rel.as_path());
        match &entry.node {
            Node::Directory => fs::create_dir(&path).map_err(WriterError::io("create", &path))?,
            Node::Symlink { target } => {
                symlink(OsStr::from_bytes(target), &path).map_err(WriterError::io("create", &path))?;
            }
            Node::File { digest, .. } => {
                let mode = entry.meta.mode & 0o777;
                let twins = placed.entry(*digest).or_default();
                if let Some((_, first)) = twins.iter().find(|(m, _)| *m == mode) {
                    fs::hard_link(first, &path).map_err(WriterError::io("link", &path))?;
                    continue;
                }
                let spooled = contents.get(digest);
                let spooled = spooled.ok_or_else(|| WriterError::Missing(format!("find the content of {rel}")))?;
                match twins.first() {
                    Some((_, twin)) => fs::copy(twin, &path).map(drop),
                    None if spooled.starts_with("/inputs") => fs::copy(spooled, &path).map(drop),
                    None => fs::rename(spooled, &path),
                }
                .map_err(WriterError::io("write", &path))?;
                fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(WriterError::io("write", &path))?;
                twins.push((mode, path));
            }
            _ => return Err(WriterError::Missing(format!("unpack {rel}: it is a device"))),
        }
    }
    Ok(())
}
