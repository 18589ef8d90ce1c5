//! `oci-image`: the root, the kernel and the initramfs as an OCI image in a layout.
//!
//! The tree is that of the common root (`root.dump`), with two files more, where bootc looks for them:
//! `usr/lib/modules/<version>/vmlinuz` and `initramfs.img`. Each file is in exactly one layer, so no layer replaces anything of another
//! and a change of one part leaves the other layers as they are. The initramfs is the one that does not know the root: otherwise a new
//! agent would change the largest layer but one. The root's digest is a label of the configuration.
//!
//! | layer | files |
//! |---|---|
//! | those of `layers.toml` | files of packages, by dpkg's lists, and named paths |
//! | `kernel` | `usr/lib/modules`, with the kernel |
//! | `initramfs` | the initramfs |
//! | `configuration` | everything else: what no package has, dpkg's database, empty directories |
//! | `agent` | the agent |

use super::{
    Context, TreeInput, WriterError, build, input, opener,
    root::OPTIONAL,
    tree_input,
    workspace::{is_there, read_text},
};
use crate::{
    image::oci::{
        self, IMAGE_INITRAMFS, IMAGE_KERNEL, ImageFacts, LayerCompression, LayerEntries, WrittenLayer, blob_path,
        image_documents, kernel_path, layout_file, layout_index, write_layer,
    },
    model::{Entry, Meta, Node, RelPath, Tree, VerityDigest, parse_dump},
    verity,
};
use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufWriter, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// The list of layers, in the stage's directory.
const LAYERS: &str = "/stage/layers.toml";
/// Directory of the kernels in the root.
const MODULES: &str = "usr/lib/modules";
/// Directory with the list of files of each package.
const PACKAGE_LISTS: &str = "usr/lib/sysimage/dpkg/info";
/// Ending of these lists.
const LIST: &str = ".list";
/// The layers that every image has.
const KERNEL_LAYER: &str = "kernel";
const INITRAMFS_LAYER: &str = "initramfs";
const CONFIGURATION_LAYER: &str = "configuration";
const AGENT_LAYER: &str = "agent";

/// `layers.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerList {
    /// How the layers are compressed.
    compression: LayerCompression,
    /// The layers of packages, lowest first.
    layer: Vec<PackageLayer>,
}

/// A layer of packages. A package belongs to the first layer with a pattern that its name matches.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackageLayer {
    name: String,
    packages: Vec<String>,
    /// Files that belong to the layer although no package has them.
    #[serde(default)]
    paths: Vec<String>,
}

pub(super) fn oci_image(context: &Context) -> Result<(), WriterError> {
    let list = read_list()?;
    let version = read_text(&input("version"))?.trim_end().to_owned();
    let root = read_text(&input("root-digest"))?;
    let root: VerityDigest = root.trim_end().parse().map_err(|source| WriterError::Input {
        path: input("root-digest"),
        source: Box::new(source),
    })?;
    let (mut tree, mut contents) = root_tree()?;
    let agent: BTreeSet<RelPath> = files(&tree_input("agent")?.tree).cloned().collect();
    let kernel = added(
        &mut tree,
        &mut contents,
        &version,
        IMAGE_KERNEL,
        &input("vmlinuz"),
        context,
    )?;
    let initramfs_input = input("initramfs.cpio.zst");
    let initramfs = added(
        &mut tree,
        &mut contents,
        &version,
        IMAGE_INITRAMFS,
        &initramfs_input,
        context,
    )?;

    let owners = owners(&tree, &contents)?;
    let modules = rel(MODULES)?;
    let mut groups: BTreeMap<&str, BTreeSet<&RelPath>> = BTreeMap::new();
    let globs = list
        .layer
        .iter()
        .map(|layer| globs(&layer.packages))
        .collect::<Result<Vec<_>, _>>()?;
    for path in files(&tree) {
        let named = |layer: &&PackageLayer| layer.paths.iter().any(|named| named.as_bytes() == path.as_bytes());
        let of_package = || {
            let package = owners.get(path)?;
            let layer = list
                .layer
                .iter()
                .zip(&globs)
                .find(|(_, globs)| globs.is_match(package))?;
            Some(layer.0.name.as_str())
        };
        let group = if *path == initramfs {
            INITRAMFS_LAYER
        } else if path.is_within(&modules) || *path == kernel {
            KERNEL_LAYER
        } else if agent.contains(path) {
            AGENT_LAYER
        } else if let Some(layer) = list.layer.iter().find(named) {
            &layer.name
        } else {
            of_package().unwrap_or(CONFIGURATION_LAYER)
        };
        groups.entry(group).or_default().insert(path);
    }
    with_directories(&tree, &mut groups);

    if let (LayerCompression::Gzip, Some(level)) = (list.compression, context.compression_level) {
        return Err(WriterError::Missing(format!(
            "use compression-level {level}: {LAYERS} has the compression \"gzip\", and the level is one of zstd"
        )));
    }
    let level = context.compression_level.unwrap_or_default();
    let layout = build(oci::LAYOUT_DIRECTORY);
    make_directory(&layout.join(oci::BLOBS))?;
    let order = list.layer.iter().map(|layer| layer.name.as_str());
    let order = order.chain([KERNEL_LAYER, INITRAMFS_LAYER, CONFIGURATION_LAYER, AGENT_LAYER]);
    let open = opener(&contents);
    let mut layers: Vec<(String, WrittenLayer)> = Vec::new();
    for name in order {
        let Some(paths) = groups.get(name) else { continue };
        let entries = LayerEntries {
            root: layers.is_empty().then(|| tree.root()),
            entries: paths.iter().filter_map(|path| Some((*path, tree.get(path)?))).collect(),
        };
        let part = layout.join("part");
        let file = File::create_new(&part).map_err(WriterError::io("create", &part))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let workers = NonZeroU32::new(context.threads).unwrap_or(NonZeroU32::MIN);
        let layer = write_layer(&entries, &open, list.compression, level, workers, &mut out)?;
        out.flush().map_err(WriterError::io("write", &part))?;
        let blob = layout.join(blob_path(&layer.digest));
        fs::rename(&part, &blob).map_err(WriterError::io("rename", &part))?;
        let _ = writeln!(
            io::stdout(),
            "layer {name}: {} entries, {} bytes",
            paths.len(),
            layer.size
        );
        layers.push((name.to_owned(), layer));
    }
    let facts = ImageFacts {
        arch: context.arch,
        created: context.epoch,
        kernel_version: &version,
        root,
    };
    let (config, manifest) = image_documents(&facts, &layers)?;
    for document in [&config, &manifest] {
        put(&layout, &blob_path(&document.digest()), &document.bytes)?;
    }
    put(&layout, oci::LAYOUT_FILE, &layout_file()?)?;
    put(&layout, oci::OCI_INDEX, &layout_index(&manifest.descriptor)?)?;
    let _ = writeln!(io::stdout(), "image sha256:{}", manifest.digest());
    Ok(())
}

fn read_list() -> Result<LayerList, WriterError> {
    let path = Path::new(LAYERS);
    let list = toml::from_str(&read_text(path)?);
    let list: LayerList = list.map_err(|e| WriterError::Missing(format!("use {LAYERS}: {e}")))?;
    let mut names: BTreeSet<&str> = [KERNEL_LAYER, INITRAMFS_LAYER, CONFIGURATION_LAYER, AGENT_LAYER].into();
    for layer in &list.layer {
        if !names.insert(&layer.name) {
            return Err(WriterError::Missing(format!(
                "use {LAYERS}: two layers are called {:?}",
                layer.name
            )));
        }
    }
    Ok(list)
}

/// The tree of the common root, and the paths of its contents.
fn root_tree() -> Result<(Tree, BTreeMap<VerityDigest, PathBuf>), WriterError> {
    let dump = input("root.dump");
    let tree = parse_dump(&read_text(&dump)?).map_err(|source| WriterError::Input {
        path: dump,
        source: Box::new(source),
    })?;
    let mut contents = BTreeMap::new();
    let always = ["rootfs", "kernel", "indexes", "agent", "overlay"].into_iter();
    for name in always.chain(OPTIONAL) {
        if OPTIONAL.contains(&name) && !is_there(&input(&format!("{name}.tree")))? {
            continue;
        }
        let TreeInput { contents: these, .. } = tree_input(name)?;
        contents.extend(these);
    }
    // The one file of the root that its writer has made.
    let critical = input("critical-files");
    let file = File::open(&critical).map_err(WriterError::io("open", &critical))?;
    let (digest, _) = verity::digest_reader(file).map_err(WriterError::io("read", &critical))?;
    contents.insert(digest, critical);
    Ok((tree, contents))
}

/// Adds the file `from` as `name` of the kernel `version`; returns its path.
fn added(
    tree: &mut Tree,
    contents: &mut BTreeMap<VerityDigest, PathBuf>,
    version: &str,
    name: &str,
    from: &Path,
    context: &Context,
) -> Result<RelPath, WriterError> {
    let path = kernel_path(version, name)?;
    let file = File::open(from).map_err(WriterError::io("open", from))?;
    let (digest, size) = verity::digest_reader(file).map_err(WriterError::io("read", from))?;
    let entry = Entry {
        meta: Meta::root(0o444, context.epoch),
        node: Node::File { size, digest },
    };
    tree.insert(path.clone(), entry).map_err(|source| WriterError::Merge {
        what: format!("{name} of the image"),
        source,
    })?;
    contents.insert(digest, from.to_owned());
    Ok(path)
}

/// The package of each file that a package has. dpkg's lists name some files by the links of a merged `/usr`.
fn owners(tree: &Tree, contents: &BTreeMap<VerityDigest, PathBuf>) -> Result<BTreeMap<RelPath, String>, WriterError> {
    let directory = rel(PACKAGE_LISTS)?;
    let mut owners = BTreeMap::new();
    for path in tree.children(Some(&directory)) {
        let name = String::from_utf8_lossy(path.name()).into_owned();
        let Some(package) = name.strip_suffix(LIST) else {
            continue;
        };
        let package = package.split(':').next().unwrap_or(package);
        let Some(Node::File { digest, .. }) = tree.get(&path).map(|entry| &entry.node) else {
            continue;
        };
        let from = contents.get(digest);
        let from = from.ok_or_else(|| WriterError::Missing(format!("find the content of {path}")))?;
        for line in read_text(from)?.lines() {
            let line = line.trim_start_matches('/');
            if line.is_empty() || line == "." {
                continue;
            }
            owners.insert(in_usr(tree, rel(line)?)?, package.to_owned());
        }
    }
    if owners.is_empty() {
        return Err(WriterError::Missing(format!(
            "find the lists of the packages in {directory}"
        )));
    }
    Ok(owners)
}

/// The path behind a link of the root directory: `bin/sh` is `usr/bin/sh`.
fn in_usr(tree: &Tree, path: RelPath) -> Result<RelPath, WriterError> {
    let first = path.components().next().map(<[u8]>::to_vec).unwrap_or_default();
    let top = rel(&String::from_utf8_lossy(&first))?;
    match tree.get(&top).map(|entry| &entry.node) {
        Some(Node::Symlink { target }) => {
            let Some(tail) = path.strip_prefix(&top) else {
                return Ok(path);
            };
            let target = target.strip_prefix(b"/").unwrap_or(target);
            Ok(rel(&String::from_utf8_lossy(target))?.join(&tail))
        }
        _ => Ok(path),
    }
}

/// Adds to each group the directories above its files, and to [`CONFIGURATION_LAYER`] those that are above no file.
fn with_directories<'t>(tree: &'t Tree, groups: &mut BTreeMap<&str, BTreeSet<&'t RelPath>>) {
    let directories: BTreeMap<&RelPath, &'t RelPath> = tree
        .iter()
        .filter(|(_, entry)| entry.node == Node::Directory)
        .map(|(path, _)| (path, path))
        .collect();
    let above = |path: &RelPath| {
        let parents: Vec<RelPath> = std::iter::successors(path.parent(), RelPath::parent).collect();
        parents
            .into_iter()
            .filter_map(|parent| directories.get(&parent).copied())
            .collect::<Vec<_>>()
    };
    let mut used: BTreeSet<&RelPath> = BTreeSet::new();
    for paths in groups.values_mut() {
        let parents: BTreeSet<&RelPath> = paths.iter().flat_map(|path| above(path)).collect();
        used.extend(&parents);
        paths.extend(parents);
    }
    let unused: BTreeSet<&RelPath> = directories
        .keys()
        .copied()
        .filter(|path| !used.contains(path))
        .collect();
    let parents: BTreeSet<&RelPath> = unused.iter().flat_map(|path| above(path)).collect();
    let rest = groups.entry(CONFIGURATION_LAYER).or_default();
    rest.extend(unused);
    rest.extend(parents);
}

/// Every path of a tree that is no directory.
fn files(tree: &Tree) -> impl Iterator<Item = &RelPath> {
    let entries = tree.iter().filter(|(_, entry)| entry.node != Node::Directory);
    entries.map(|(path, _)| path)
}

fn globs(patterns: &[String]) -> Result<GlobSet, WriterError> {
    let failed = |e: globset::Error| WriterError::Missing(format!("use {LAYERS}: {e}"));
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(failed)?);
    }
    set.build().map_err(failed)
}

fn rel(path: &str) -> Result<RelPath, WriterError> {
    RelPath::new(path).map_err(|e| WriterError::Missing(e.to_string()))
}

fn make_directory(path: &Path) -> Result<(), WriterError> {
    fs::create_dir_all(path).map_err(WriterError::io("create", path))
}

fn put(layout: &Path, name: &str, bytes: &[u8]) -> Result<(), WriterError> {
    let path = layout.join(name);
    fs::write(&path, bytes).map_err(WriterError::io("write", &path))
}
