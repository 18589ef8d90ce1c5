//! The OCI image of an artifact, applied layer by layer and compared with the manifest.
//!
//! *The same root* means: the tree of all layers, without kernel and initramfs, has the composefs image whose fs-verity digest the
//! manifest states, the one that all variants of the architecture carry.

use super::{
    bootc::{self, LintedRoot},
    check::{Check, Class, Problems},
    installed,
    root::compare_options,
};
use crate::{
    image::{
        ImageError,
        composefs::{INLINE_MAX, write_image},
        oci::{
            LABEL_BOOTC, LABEL_KERNEL, LABEL_ROOT, LAYOUT_DIRECTORY, LAYOUT_FILE, LayerLimits, LayoutReader, OCI_INDEX,
            OciImage, apply_layers, blob_path, take_kernel,
        },
    },
    manifest::Manifest,
    model::{Node, RelPath, Sha256Digest, Tree, VerityDigest, chain},
    store::open_foreign_below,
    verity,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::Path,
};

/// Most bytes of contents that are kept in memory: those that the rules read, and dpkg's database.
const MAX_KEPT: usize = 64 << 20;

/// The tree of an image and the contents that the checks need.
struct Contents {
    tree: Tree,
    small: BTreeMap<VerityDigest, Vec<u8>>,
    texts: BTreeMap<RelPath, Vec<u8>>,
    database: Option<Vec<u8>>,
}

/// Checks the image in `dir`: its root, the packages installed there, and the image itself.
pub(super) fn check_layout(manifest: &Manifest, dir: &Path) -> Vec<Check> {
    let (mut root, mut image) = (Problems::default(), Problems::default());
    let (mut found_root, mut found_image) = (String::new(), String::new());
    let mut database = Err("the layers could not be read".to_owned());
    match check(manifest, &dir.join(LAYOUT_DIRECTORY), &mut root, &mut image) {
        Ok((text, about, bytes)) => {
            found_root = text;
            found_image = about;
            database = bytes.ok_or_else(|| "the root has no /var/lib/dpkg/status".to_owned());
        }
        Err(error) => root.add(chain(&error)),
    }
    vec![
        root.check("root", Class::Root, found_root),
        installed::check_packages(manifest, database),
        image.check("image", Class::Image, found_image),
    ]
}

/// The details of both checks, and dpkg's database.
type Found = (String, String, Option<Vec<u8>>);

fn check(manifest: &Manifest, dir: &Path, root: &mut Problems, problems: &mut Problems) -> Result<Found, ImageError> {
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> { Ok(Box::new(open_foreign_below(dir, path)?)) };
    let layout = LayoutReader::new(&open);
    let manifests = layout.manifests()?;
    let [descriptor] = &manifests[..] else {
        problems.add(format!("the layout has {} images, not one", manifests.len()));
        return Ok((String::new(), String::new(), None));
    };
    let image = OciImage::read(&layout, descriptor)?;
    documents(manifest, &image, problems);
    let mut contents = read(manifest, &layout, &image)?;

    let linted = LintedRoot {
        tree: &contents.tree,
        texts: &contents.texts,
        arch: manifest.arch,
        command_line: &manifest.kernel_command_line,
    };
    let rules = bootc::lint(&linted, problems);
    let kernel = take_kernel(&mut contents.tree)?;
    problems.equal("version of the kernel", &manifest.kernel_version, &kernel.version);
    let small = &contents.small;
    let inline = |digest: &VerityDigest| -> io::Result<Box<dyn Read>> {
        let bytes = small.get(digest).cloned();
        let bytes = bytes.ok_or_else(|| io::Error::other(format!("the content {digest} was not kept")))?;
        Ok(Box::new(io::Cursor::new(bytes)))
    };
    let (_, digest) = write_image(&contents.tree, &inline)?;
    root.equal("root digest of the layers", &manifest.fsverity_root_hash, &digest);
    let has = |path: &str| RelPath::new(path).is_ok_and(|path| contents.tree.get(&path).is_some());
    compare_options(manifest, &has, root);
    let found_root = format!(
        "{digest}: {} entries in {} layers",
        contents.tree.len(),
        image.layers.len()
    );
    let found_image = format!("sha256:{}, {rules} rules of bootc", image.manifest);
    Ok((found_root, found_image, contents.database))
}

/// Compares the documents of the image with the manifest, and the files of the layout with those that the documents name.
fn documents(manifest: &Manifest, image: &OciImage, problems: &mut Problems) {
    let stated = manifest.oci_digest.map(|digest| digest.0);
    match stated {
        None => problems.add("the manifest states no oci_digest"),
        Some(stated) => problems.equal("oci_digest", &stated, &image.manifest),
    }
    problems.equal("architecture of the image", &manifest.arch, &image.arch);
    for (label, expected) in [
        (LABEL_BOOTC, "1".to_owned()),
        (LABEL_KERNEL, manifest.kernel_version.clone()),
        (LABEL_ROOT, manifest.fsverity_root_hash.to_hex()),
    ] {
        let actual = image.labels.get(label).cloned().unwrap_or_default();
        problems.equal(&format!("label {label}"), &expected, &actual);
    }
    let blobs = image
        .layers
        .iter()
        .map(|layer| layer.digest)
        .chain([image.manifest, image.config]);
    let mut expected: BTreeSet<String> = blobs.map(|digest: Sha256Digest| blob_path(&digest)).collect();
    expected.extend([LAYOUT_FILE.to_owned(), OCI_INDEX.to_owned()]);
    let expected: BTreeSet<String> = expected
        .into_iter()
        .map(|path| format!("{LAYOUT_DIRECTORY}/{path}"))
        .collect();
    let actual: BTreeSet<String> = manifest.artifacts.keys().map(ToString::to_string).collect();
    for path in actual.difference(&expected) {
        problems.add(format!("{path} is no part of the image"));
    }
    for path in expected.difference(&actual) {
        problems.add(format!("{path} is not in the manifest"));
    }
}

/// Applies the layers and keeps the contents that the checks need. A file may be replaced or removed by a later layer, so the tree says
/// which of them count.
fn read(manifest: &Manifest, layout: &LayoutReader<'_>, image: &OciImage) -> Result<Contents, ImageError> {
    let (mut small, mut kept_files) = (BTreeMap::new(), BTreeMap::new());
    let mut left = MAX_KEPT;
    let mut put = |path: &RelPath, content: &mut dyn Read| {
        let mut hasher = verity::Hasher::new();
        let keep = installed::is_database(path) || bootc::is_read(path);
        let limit = if keep { left } else { INLINE_MAX as usize };
        let mut kept = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = content.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            if kept.len() <= limit {
                kept.extend_from_slice(&buffer[..n]);
            }
        }
        let size = hasher.size();
        let digest = hasher.finish();
        if kept.len() <= limit {
            if size <= INLINE_MAX {
                small.insert(digest, kept.clone());
            }
            if keep {
                left -= kept.len();
                kept_files.insert((path.clone(), digest), kept);
            }
        }
        Ok((digest, size))
    };
    let epoch = manifest.source_date_epoch;
    let applied = apply_layers(layout, image, epoch, &LayerLimits::default(), &mut put)?;
    let (mut texts, mut database) = (BTreeMap::new(), None);
    for ((path, digest), bytes) in kept_files {
        match applied.tree.get(&path).map(|entry| &entry.node) {
            Some(Node::File { digest: last, .. }) if *last == digest => {}
            _ => continue,
        }
        if installed::is_database(&path) {
            database = Some(bytes);
        } else {
            texts.insert(path, bytes);
        }
    }
    Ok(Contents {
        tree: applied.tree,
        small,
        texts,
        database,
    })
}
