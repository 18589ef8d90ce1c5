//! One OCI layout over the images of both architectures: `images/<variant>/oci/`.
//!
//! Its blobs are hard links to those of the two artifacts, where the file system has them. A link changes the time of the last change of
//! a file's inode, by which an export is recognised as unchanged, so the stamps of both artifacts are taken again.

use super::{
    BuildContext, Event, PipelineError,
    export::{note_of, stamps},
    output::{fresh_directory, replace},
};
use crate::{
    image::{
        ImageError,
        oci::{
            BLOBS, LAYOUT_DIRECTORY, LAYOUT_FILE, LayoutReader, OCI_INDEX, OciImage, blob_path, layout_file,
            layout_index, multi_index,
        },
    },
    manifest::{MANIFEST_FILE, MAX_SIZE, Manifest},
    model::{Arch, RelPath, Target, Variant, chain},
    store::{Store, open_foreign_below, read_foreign},
};
use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

/// An artifact that becomes part of the joint layout.
struct Part {
    dir: PathBuf,
    manifest: Manifest,
    images: Vec<(oci_spec::image::Descriptor, OciImage)>,
}

/// Writes the layout over both images of `variant` below `images`, if both are there and come from the same revision and lock; otherwise removes the
/// one that an earlier build left. Returns its directory.
pub fn join_images(
    context: &BuildContext<'_>,
    variant: Variant,
    images: &Path,
) -> Result<Option<PathBuf>, PipelineError> {
    let family = images.join(variant.as_str());
    let dir = family.join(LAYOUT_DIRECTORY);
    let mut parts = Vec::new();
    for arch in Arch::ALL {
        let target = Target { variant, arch };
        parts.extend(part(&images.join(target.path()))?);
    }
    let source = |part: &Part| (part.manifest.git_sha.clone(), part.manifest.lockfile.sha256);
    let complete = parts.len() == Arch::ALL.len() && parts.iter().all(|part| source(part) == source(&parts[0]));
    if !complete {
        if fs::symlink_metadata(&dir).is_ok() {
            fs::remove_dir_all(&dir).map_err(PipelineError::io("remove", &dir))?;
        }
        return Ok(None);
    }
    let all = parts.iter().flat_map(|part| part.images.clone()).collect();
    let failed = |e: crate::image::ImageError| PipelineError::describe(format!("the OCI index: {}", chain(&e)));
    let index = multi_index(all).map_err(failed)?;
    let listing = layout_index(&index.descriptor).map_err(failed)?;
    let exported = |unchanged: bool| {
        (context.events)(Event::Exported {
            dir: dir.clone(),
            unchanged,
        });
    };
    if read_foreign(&dir.join(OCI_INDEX), MAX_SIZE).is_ok_and(|old| old == listing) && linked(&dir, &parts)? {
        exported(true);
        return Ok(Some(dir));
    }
    let (fresh, held) = fresh_directory(&family, &format!(".{LAYOUT_DIRECTORY}."))?;
    let place = fresh.path();
    let blobs = place.join(BLOBS);
    fs::create_dir_all(&blobs).map_err(PipelineError::io("create", &blobs))?;
    for part in &parts {
        let before = stamps(&part.dir).map_err(PipelineError::io("look at", &part.dir))?;
        for name in part.blobs() {
            link(&part.dir.join(LAYOUT_DIRECTORY).join(&name), &place.join(&name))?;
        }
        stamp_again(context.store, &part.dir, &before)?;
    }
    let bytes = |name: &str, bytes: &[u8]| {
        let path = place.join(name);
        fs::write(&path, bytes).map_err(PipelineError::io("write", &path))
    };
    bytes(&blob_path(&index.digest()), &index.bytes)?;
    bytes(LAYOUT_FILE, &layout_file().map_err(failed)?)?;
    bytes(OCI_INDEX, &listing)?;
    replace(fresh, &dir)?;
    drop(held);
    exported(false);
    Ok(Some(dir))
}

/// The artifact in `dir`, if there is one.
fn part(dir: &Path) -> Result<Option<Part>, PipelineError> {
    let path = dir.join(MANIFEST_FILE);
    let bytes = match read_foreign(&path, MAX_SIZE) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(PipelineError::io("read", &path))?,
    };
    let manifest = Manifest::read(&bytes, MANIFEST_FILE).map_err(PipelineError::Manifest)?;
    let layout = dir.join(LAYOUT_DIRECTORY);
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> { Ok(Box::new(open_foreign_below(&layout, path)?)) };
    let layout_reader = LayoutReader::new(&open);
    let images = || -> Result<Vec<_>, ImageError> {
        let descriptors = layout_reader.manifests()?.into_iter();
        descriptors
            .map(|descriptor| {
                let image = OciImage::read(&layout_reader, &descriptor)?;
                Ok((descriptor, image))
            })
            .collect()
    };
    let images = images().map_err(|e| PipelineError::describe(format!("{layout:?}: {}", chain(&e))))?;
    Ok(Some(Part {
        dir: dir.to_owned(),
        manifest,
        images,
    }))
}

impl Part {
    /// The paths of the blobs in the layout.
    fn blobs(&self) -> Vec<PathBuf> {
        let layout = Path::new(LAYOUT_DIRECTORY);
        let files = self.manifest.artifacts.keys();
        let below = files.filter_map(|path| path.as_path().strip_prefix(layout).ok());
        below
            .filter(|path| path.starts_with(BLOBS))
            .map(Path::to_owned)
            .collect()
    }
}

/// Whether the layout in `dir` has every blob of the parts, with its size.
fn linked(dir: &Path, parts: &[Part]) -> Result<bool, PipelineError> {
    for part in parts {
        for name in part.blobs() {
            let from = part.dir.join(LAYOUT_DIRECTORY).join(&name);
            let size = fs::metadata(&from).map_err(PipelineError::io("look at", &from))?.len();
            if !fs::symlink_metadata(dir.join(&name)).is_ok_and(|found| found.is_file() && found.len() == size) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Links a file; copies it where the file system has no links.
fn link(from: &Path, to: &Path) -> Result<(), PipelineError> {
    match fs::hard_link(from, to) {
        // A layer that both images have.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Ok(()) => Ok(()),
        Err(_) => fs::copy(from, to).map(drop).map_err(PipelineError::io("copy", from)),
    }
}

/// Renews the note on the export to `dir`, whose files had the stamps `before`, if the note had them.
fn stamp_again(store: &Store, dir: &Path, before: &str) -> Result<(), PipelineError> {
    let note = note_of(dir);
    let old = store.note(&note).and_then(|old| String::from_utf8(old).ok());
    if let Some(fingerprint) = old.as_ref().and_then(|old| old.strip_suffix(before)) {
        let after = stamps(dir).map_err(PipelineError::io("look at", dir))?;
        store.put_note(&note, format!("{fingerprint}{after}").as_bytes())?;
    }
    Ok(())
}
