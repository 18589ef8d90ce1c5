//! `composefs-root`: the one root that all variants of an architecture carry.
//!
//! Inputs: the trees `rootfs`, `kernel` (only its modules), `indexes`, `agent` and `overlay`, and optionally `module-trust`,
//! `unsigned-modules` and `debug`, merged in this order; only the overlay may replace files. The merged tree must be able to run on the
//! architecture ([`super::contents`]). The objects lie in the file system in the same order, so that the inputs that change most often are
//! behind those that rarely change. Outputs: `root.ext4` with the composefs image and its objects, `root-digest` with the image's
//! fs-verity digest in hexadecimal, `root.dump`, the merged tree as text, and `critical-files`, the one file of it that no input has.

use super::{
    Context, TreeInput, WriterError, build,
    contents::{CRITICAL, check_root, critical_files},
    input, kernel, opener, tree_input,
    workspace::is_there,
};
use crate::{
    image::{
        composefs::{external_objects, write_image},
        ext4,
        kmod::is_module,
    },
    model::{Arch, Epoch, Meta, Node, RelPath, Tree, VerityDigest, write_dump},
    verity::digest_bytes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The optional inputs: the keys that vouch for modules, the file that allows lists of them without a signature, and the units that open
/// a shell on every console.
const KEYS_OF_MODULES: &str = "module-trust";
const UNSIGNED_MODULES: &str = "unsigned-modules";
const DEBUG: &str = "debug";
pub(super) const OPTIONAL: [&str; 3] = [KEYS_OF_MODULES, UNSIGNED_MODULES, DEBUG];
/// Directory of the modules in the kernel package and in the root.
const MODULES: &str = "usr/lib/modules";

pub(super) fn composefs_root(context: &Context) -> Result<(), WriterError> {
    let TreeInput { mut tree, mut contents } = tree_input("rootfs")?;
    let mut order = digests(&tree);
    for (name, replace) in [
        ("kernel", false),
        ("indexes", false),
        ("agent", false),
        ("overlay", true),
        (KEYS_OF_MODULES, false),
        (UNSIGNED_MODULES, false),
        (DEBUG, false),
    ] {
        if OPTIONAL.contains(&name) && !is_there(&input(&format!("{name}.tree")))? {
            continue;
        }
        let mut other = tree_input(name)?;
        if name == "kernel" {
            other.tree = modules_of(&other.tree, &indexed_modules(&other.tree)?, context.epoch)?;
        }
        tree.merge(&other.tree, replace).map_err(|source| WriterError::Merge {
            what: format!("the input {name:?}"),
            source,
        })?;
        contents.extend(other.contents);
        order.extend(digests(&other.tree));
    }
    check_root(context.arch, &tree, &contents)?;
    close_critical(context.arch, &mut tree, &mut contents)?;
    tree.set_mtimes(context.epoch);
    write(&build("root.dump"), write_dump(&tree).as_bytes())?;

    let open = opener(&contents);
    let (image, digest) = write_image(&tree, &open)?;
    write(&build("root-digest"), format!("{digest}\n").as_bytes())?;
    let image_path = build("image.cfs");
    write(&image_path, &image)?;
    let _ = writeln!(
        io::stdout(),
        "root {digest}: {} entries, image of {} bytes",
        tree.len(),
        image.len()
    );
    drop(open);
    let objects = in_order(&tree, &order);
    file_system(
        context.epoch,
        &objects,
        contents,
        &image_path,
        image.len() as u64,
        digest,
    )?;
    fs::remove_file(&image_path).map_err(WriterError::io("remove", &image_path))
}

/// Paths of the modules that the input `indexes` knows; the others are left out of the root.
fn indexed_modules(kernel: &Tree) -> Result<BTreeSet<String>, WriterError> {
    let version = kernel::version_of(kernel)?;
    let place = format!("{MODULES}/{version}");
    let path = input("indexes").join(&place).join("modules.dep");
    let text = fs::read_to_string(&path).map_err(WriterError::io("read", &path))?;
    let modules = text.lines().filter_map(|line| line.split_once(':'));
    Ok(modules.map(|(module, _)| format!("{place}/{module}")).collect())
}

/// Replaces the list of critical files, which names where to begin, by everything that these files lead to. It is an output too.
fn close_critical(
    arch: Arch,
    tree: &mut Tree,
    contents: &mut BTreeMap<VerityDigest, PathBuf>,
) -> Result<(), WriterError> {
    let (text, bytes) = critical_files(arch, tree, contents)?;
    let _ = writeln!(io::stdout(), "{} critical files of {bytes} bytes", text.lines().count());
    let path = build("critical-files");
    write(&path, text.as_bytes())?;
    let place = RelPath::new(CRITICAL).map_err(|e| WriterError::Missing(e.to_string()))?;
    let digest = digest_bytes(text.as_bytes());
    let failed = |source| WriterError::Merge {
        what: "the list of critical files".to_owned(),
        source,
    };
    let mut entry = tree
        .get(&place)
        .cloned()
        .ok_or_else(|| WriterError::Missing(format!("find /{CRITICAL} in the overlay")))?;
    entry.node = Node::File {
        size: text.len() as u64,
        digest,
    };
    tree.remove(&place);
    tree.insert(place, entry).map_err(failed)?;
    contents.insert(digest, path);
    Ok(())
}

/// The modules of an unpacked kernel package that are in `known`, made read-only, with the lists beside them. The links `build` and `source`
/// are left out: they lead to header packages that are not in the root.
fn modules_of(kernel: &Tree, known: &BTreeSet<String>, epoch: Epoch) -> Result<Tree, WriterError> {
    let mut modules = Tree::new(Meta::root(0o755, epoch));
    let failed = |source| WriterError::Merge {
        what: "the modules".to_owned(),
        source,
    };
    let place = RelPath::new(MODULES).map_err(failed)?;
    for (path, entry) in kernel.iter().filter(|(path, _)| path.is_within(&place)) {
        let leads_away = path.depth() == place.depth() + 2 && [&b"build"[..], b"source"].contains(&path.name());
        if leads_away && matches!(entry.node, Node::Symlink { .. }) {
            continue;
        }
        let name = path.to_string();
        // A directory that holds modules comes with the first of them.
        if entry.node == Node::Directory || (is_module(&name) && !known.contains(&name)) {
            continue;
        }
        let mut entry = entry.clone();
        if matches!(entry.node, Node::File { .. }) {
            entry.meta.mode &= 0o555;
        }
        modules.make_parents(path, epoch).map_err(failed)?;
        modules.insert(path.clone(), entry).map_err(failed)?;
    }
    if modules.is_empty() {
        return Err(WriterError::Missing(format!("find {MODULES} in the kernel package")));
    }
    Ok(modules)
}

/// The contents of `tree`, by path.
fn digests(tree: &Tree) -> Vec<VerityDigest> {
    let digest = |entry: &Node| match entry {
        Node::File { digest, .. } => Some(*digest),
        _ => None,
    };
    tree.iter().filter_map(|(_, entry)| digest(&entry.node)).collect()
}

/// The objects of `tree` with their sizes in the order of `order`, each where it comes first; behind them those that it lacks, by path.
/// An input that changes then moves only the bytes of the inputs behind it.
pub(super) fn in_order(tree: &Tree, order: &[VerityDigest]) -> Vec<(VerityDigest, u64)> {
    let mut left = external_objects(tree);
    let all = order.iter().copied().chain(digests(tree));
    all.filter_map(|digest| left.remove_entry(&digest)).collect()
}

/// Writes `root.ext4` with `objects`, whose contents are at `contents`, in this order, and behind them the composefs image `image`.
pub(super) fn file_system(
    epoch: Epoch,
    objects: &[(VerityDigest, u64)],
    mut contents: BTreeMap<VerityDigest, PathBuf>,
    image: &Path,
    image_size: u64,
    digest: VerityDigest,
) -> Result<(), WriterError> {
    contents.insert(digest, image.to_owned());
    let layout = ext4::plan(ext4::root_items(digest, image_size, objects)?)?;
    let path = build("root.ext4");
    let file = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    let mut store = |bytes: &[u8], at: u64| file.write_all_at(bytes, at);
    let size = ext4::write(&layout, &digest, epoch, &opener(&contents), &mut store)?;
    file.set_len(size).map_err(WriterError::io("set the length of", &path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), WriterError> {
    fs::write(path, bytes).map_err(WriterError::io("write", path))
}
