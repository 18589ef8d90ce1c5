//! `layer-image` and `apply-image`: a tree as an OCI image of one layer, and the tree that the layers of an image make.
//!
//! | writer | input | output |
//! |---|---|---|
//! | `layer-image` | the tree `tree` | `oci`, an image layout of one image of one layer |
//! | `apply-image` | `image`: an image layout, and the list of its packages beside it | the tree `tree` |
//!
//! `apply-image` checks every blob and every archive in it by its digest, and the packages of the image by the list: it is the one of the
//! lock, and decides which packages are installed on the image.

use super::{
    Context, TreeInput, WriterError, build, input, opener, owned::lay_out_owned, tree_input, workspace::read_text,
};
use crate::{
    debian::read_installed,
    image::oci::{
        self, BASE_PACKAGES, BLOBS, LayerCompression, LayerEntries, LayerLimits, LayoutReader, OciImage, apply_layers,
        blob_path, layer_documents, layout_file, layout_index, write_layer,
    },
    model::{RelPath, Tree, VerityDigest, ZstdLevel},
    verity,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// Name of the layer.
const LAYER: &str = "root";
/// The database of dpkg in an image.
const DATABASE: &str = "var/lib/dpkg/status";

pub(super) fn layer_image(context: &Context) -> Result<(), WriterError> {
    let TreeInput { tree, contents } = tree_input("tree")?;
    let layout = build(oci::LAYOUT_DIRECTORY);
    let blobs = layout.join(BLOBS);
    fs::create_dir_all(&blobs).map_err(WriterError::io("create", &blobs))?;
    let entries = LayerEntries {
        root: Some(tree.root()),
        entries: tree.iter().collect(),
    };
    let part = layout.join("part");
    let file = File::create_new(&part).map_err(WriterError::io("create", &part))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let workers = NonZeroU32::new(context.threads).unwrap_or(NonZeroU32::MIN);
    // Made once and fetched often.
    let level = context.compression_level.unwrap_or(ZstdLevel::HIGH);
    let layer = write_layer(
        &entries,
        &opener(&contents),
        LayerCompression::Zstd,
        level,
        workers,
        &mut out,
    )?;
    out.flush().map_err(WriterError::io("write", &part))?;
    let blob = layout.join(blob_path(&layer.digest));
    fs::rename(&part, &blob).map_err(WriterError::io("rename", &part))?;
    let (config, manifest) = layer_documents(context.arch, context.epoch, &[(LAYER.to_owned(), layer)])?;
    let put = |name: &str, bytes: &[u8]| {
        let path = layout.join(name);
        fs::write(&path, bytes).map_err(WriterError::io("write", &path))
    };
    for document in [&config, &manifest] {
        put(&blob_path(&document.digest()), &document.bytes)?;
    }
    put(oci::LAYOUT_FILE, &layout_file()?)?;
    put(oci::OCI_INDEX, &layout_index(&manifest.descriptor)?)?;
    let _ = writeln!(io::stdout(), "image sha256:{}", manifest.digest());
    Ok(())
}

pub(super) fn apply_image(context: &Context) -> Result<(), WriterError> {
    apply(context, &input("image"), &build("contents"), &build("tree"))
}

/// Applies the image in `layout` and lays its tree out in `target`; contents go to the new directory `spool` first.
fn apply(context: &Context, layout: &Path, spool: &Path, target: &Path) -> Result<(), WriterError> {
    fs::create_dir(spool).map_err(WriterError::io("create", spool))?;
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> { Ok(Box::new(File::open(layout.join(path.as_path()))?)) };
    let reader = LayoutReader::new(&open);
    let image = OciImage::find(&reader, context.arch)?;
    let mut contents: BTreeMap<VerityDigest, PathBuf> = BTreeMap::new();
    let mut count = 0u32;
    let mut put = |_: &RelPath, content: &mut dyn Read| {
        let path = spool.join(count.to_string());
        count += 1;
        let mut out = Spooled {
            file: BufWriter::new(File::create_new(&path)?),
            hasher: verity::Hasher::new(),
        };
        io::copy(content, &mut out)?;
        out.file.flush()?;
        let size = out.hasher.size();
        let digest = out.hasher.finish();
        match contents.contains_key(&digest) {
            true => fs::remove_file(&path)?,
            false => _ = contents.insert(digest, path),
        }
        Ok((digest, size))
    };
    let applied = apply_layers(&reader, &image, context.epoch, &LayerLimits::default(), &mut put)?;
    check_packages(&applied.tree, &contents, &layout.join(BASE_PACKAGES))?;
    lay_out_owned(&applied.tree, &contents, target)?;
    let _ = writeln!(
        io::stdout(),
        "image sha256:{}: {} layers, {} entries",
        image.manifest,
        image.layers.len(),
        applied.tree.len()
    );
    fs::remove_dir_all(spool).map_err(WriterError::io("remove", spool))
}

/// A file that is hashed while it is written.
struct Spooled {
    file: BufWriter<File>,
    hasher: verity::Hasher,
}

impl Write for Spooled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Checks that the database of dpkg in `tree` lists the packages of the file `list`.
fn check_packages(tree: &Tree, contents: &BTreeMap<VerityDigest, PathBuf>, list: &Path) -> Result<(), WriterError> {
    let locked = read_text(list)?;
    let locked: BTreeSet<&str> = locked.lines().collect();
    let path = RelPath::new(DATABASE).map_err(|e| WriterError::Missing(e.to_string()))?;
    let database = match tree.get(&path).map(|entry| &entry.node) {
        Some(crate::model::Node::File { digest, .. }) => contents.get(digest),
        _ => None,
    };
    let database = database.ok_or_else(|| WriterError::Missing(format!("find /{DATABASE} in the base image")))?;
    let file = File::open(database).map_err(WriterError::io("open", database))?;
    let installed = read_installed(BufReader::new(file), DATABASE)?.into_iter();
    let installed: BTreeSet<String> = installed
        .map(|p| format!("{}:{}={}", p.name, p.arch, p.version))
        .collect();
    if let Some(other) = installed.iter().find(|package| !locked.contains(package.as_str())) {
        let problem =
            format!("use the base image: it has the package {other}, which lockfile.toml does not list for it");
        return Err(WriterError::Missing(problem));
    }
    match locked.iter().find(|package| !installed.contains(**package)) {
        None => Ok(()),
        Some(other) => Err(WriterError::Missing(format!(
            "use the base image: it lacks the package {other}, which lockfile.toml lists for it"
        ))),
    }
}
