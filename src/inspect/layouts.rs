//! OCI image layouts in a directory of the host: the blobs of each image are its parts, named for what they are in it.
//!
//! ```text
//! oci-layout, index.json
//! image amd64            no bytes of its own
//!   manifest, configuration
//!   layer 1 "libraries"  a blob: a tar archive, compressed
//! blobs/sha256/…         blobs of no image
//! ```
//!
//! By their digests, blobs of two builds could not be matched; images are matched by their architecture, layers by their names.

use super::{
    budget::Budget,
    error::one_line,
    ext4::shown,
    part::{Part, PartKind},
};
use crate::{
    image::{
        ReadCursor,
        oci::{LAYOUT_FILE, LayoutReader, OCI_INDEX, OciImage, blob_path},
    },
    model::{RelPath, Sha256Digest},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

/// The parts of a directory, those of each layout in it gathered in images.
pub(super) fn gather(mut parts: Vec<Part>, budget: &Budget) -> Vec<Part> {
    let layouts = parts.iter().filter_map(|part| part.name.strip_suffix(LAYOUT_FILE));
    let layouts = layouts.filter(|prefix| prefix.is_empty() || prefix.ends_with('/'));
    for prefix in layouts.map(str::to_owned).collect::<Vec<_>>() {
        parts = gather_one(parts, &prefix, budget);
    }
    parts
}

/// The same for the layout whose files have names that begin with `prefix`.
fn gather_one(parts: Vec<Part>, prefix: &str, budget: &Budget) -> Vec<Part> {
    let below = parts.iter().filter(|part| part.kind == PartKind::File);
    let below = below.filter_map(|part| Some((part.name.strip_prefix(prefix)?, part)));
    let by_name: BTreeMap<&str, &Part> = below.collect();
    let found = images(&by_name, prefix, budget);
    let mut problems = found.problems.join("; ");
    let mut out = Vec::new();
    for part in parts.iter().filter(|part| !found.taken.contains(&part.name)) {
        let is_index = part.name.strip_prefix(prefix) == Some(OCI_INDEX);
        match is_index && !problems.is_empty() {
            true => out.push(part.clone().damaged(std::mem::take(&mut problems))),
            false => out.push(part.clone()),
        }
        if is_index {
            out.extend(found.images.iter().cloned());
        }
    }
    out
}

/// The images of a layout.
#[derive(Default)]
struct Images {
    images: Vec<Part>,
    /// Names of the files that are parts of an image.
    taken: BTreeSet<String>,
    problems: Vec<String>,
}

fn images(files: &BTreeMap<&str, &Part>, prefix: &str, budget: &Budget) -> Images {
    let mut out = Images::default();
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> {
        let part = files.get(path.to_string().as_str());
        let part = part.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such file"))?;
        Ok(Box::new(ReadCursor::new(part.source().clone())))
    };
    let layout = LayoutReader::new(&open);
    let descriptors = match layout.manifests() {
        Ok(descriptors) => descriptors,
        Err(error) => {
            out.problems
                .push(format!("its images are not listed: {}", one_line(&error)));
            return out;
        }
    };
    for descriptor in descriptors {
        let image = match OciImage::read(&layout, &descriptor) {
            Ok(image) => image,
            Err(error) => {
                out.problems
                    .push(format!("an image is not listed: {}", one_line(&error)));
                continue;
            }
        };
        let count = 2 + image.layers.len() as u64;
        if let Err(problem) = budget.parts.take(1 + count) {
            out.problems.push(format!("an image is not listed: {problem}"));
            return out;
        }
        let mut blob = |name: String, digest: &Sha256Digest| {
            let path = blob_path(digest);
            let Some(part) = files.get(path.as_str()) else {
                let part = Part::empty(name, PartKind::File);
                return part.damaged(format!("the layout has no {path}"));
            };
            out.taken.insert(part.name.clone());
            let mut part = (*part).clone().keyed(name.clone());
            part.name = name;
            part
        };
        let mut children = vec![
            blob("manifest".to_owned(), &image.manifest),
            blob("configuration".to_owned(), &image.config),
        ];
        for (number, layer) in (1..).zip(&image.layers) {
            let title = layer.title.as_ref().map(|title| shown(title.as_bytes()));
            let (name, key) = match title {
                Some(title) => (format!("layer {number} \"{title}\""), format!("layer {title}")),
                None => (format!("layer {number}"), format!("layer {number}")),
            };
            let mut part = blob(name, &layer.digest).keyed(key);
            if part.size != layer.size {
                let problem = format!("it has {} bytes, and its manifest states {}", part.size, layer.size);
                part = part.damaged(problem);
            }
            children.push(part);
        }
        super::streams::unique(&mut children);
        let image_part = Part::of_parts(format!("{prefix}image {}", image.arch), PartKind::Image, children);
        out.images.push(
            image_part
                .with("manifest", format!("sha256:{}", image.manifest))
                .with("layers", image.layers.len()),
        );
    }
    super::streams::unique(&mut out.images);
    out
}
