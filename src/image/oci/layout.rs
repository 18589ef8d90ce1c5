//! An image layout on disk.

use super::document::to_json;
use crate::{
    image::ImageError,
    model::{ArtifactForm, RelPath, Sha256Digest},
};
use oci_spec::image::{Descriptor, ImageIndex, MediaType, OciLayoutBuilder};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};
use std::io::Read;

/// The directory of the layout in an artifact, and that of the layout over both architectures beside them.
pub const LAYOUT_DIRECTORY: &str = ArtifactForm::LAYOUT_DIRECTORY;
/// The file that says that a directory is an image layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// The file that lists the contents of a layout.
pub const OCI_INDEX: &str = "index.json";
/// The directory of the blobs.
pub const BLOBS: &str = "blobs/sha256";
/// The list of the packages of a base image, `name:arch=version` one on each line, beside its layout in a stage.
pub const BASE_PACKAGES: &str = "packages";
/// The version of the layout.
const LAYOUT_VERSION: &str = "1.0.0";
/// Largest document, bytes: what registries accept of a manifest.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
/// Most manifests and nested indexes of a layout.
const MAX_MANIFESTS: usize = 64;
/// The version of the schema of all documents.
const SCHEMA: u32 = 2;
/// Deepest nesting of indexes: `index.json`, and one more.
const MAX_DEPTH: usize = 2;

/// The path of a blob in a layout.
pub fn blob_path(digest: &Sha256Digest) -> String {
    format!("{BLOBS}/{digest}")
}

/// The contents of `oci-layout`.
pub fn layout_file() -> Result<Vec<u8>, ImageError> {
    let layout = OciLayoutBuilder::default().image_layout_version(LAYOUT_VERSION).build();
    to_json(&layout.map_err(|e| bad(LAYOUT_FILE, e.to_string()))?)
}

/// Opens a file of a layout by its path below the layout's directory.
type OpenFile<'a> = &'a dyn Fn(&RelPath) -> std::io::Result<Box<dyn Read>>;

/// Reads a layout, whose files come from anyone: each document is compared with the digest and the size by which it is called.
pub struct LayoutReader<'a> {
    open: OpenFile<'a>,
}

impl<'a> LayoutReader<'a> {
    /// Reads the layout whose files `open` opens.
    pub fn new(open: OpenFile<'a>) -> Self {
        Self { open }
    }

    /// The descriptors of all image manifests, those in nested indexes too, in the order of the indexes.
    pub fn manifests(&self) -> Result<Vec<Descriptor>, ImageError> {
        let version: oci_spec::image::OciLayout = parse(LAYOUT_FILE, &self.read(LAYOUT_FILE)?)?;
        if version.image_layout_version() != LAYOUT_VERSION {
            let stated = version.image_layout_version();
            return Err(bad(
                LAYOUT_FILE,
                format!("it states version {stated:?}, not {LAYOUT_VERSION:?}"),
            ));
        }
        let (mut found, mut seen) = (Vec::new(), 0);
        self.walk(OCI_INDEX, &self.read(OCI_INDEX)?, 1, &mut found, &mut seen)?;
        Ok(found)
    }

    /// Adds the manifests of an index at this depth; `seen` counts all descriptors.
    fn walk(
        &self,
        name: &str,
        bytes: &[u8],
        depth: usize,
        found: &mut Vec<Descriptor>,
        seen: &mut usize,
    ) -> Result<(), ImageError> {
        check_kind(name, bytes, &MediaType::ImageIndex)?;
        let index: ImageIndex = parse(name, bytes)?;
        for descriptor in index.manifests() {
            *seen += 1;
            if *seen > MAX_MANIFESTS {
                return Err(bad(
                    name,
                    format!("the layout lists more than {MAX_MANIFESTS} images and indexes"),
                ));
            }
            match descriptor.media_type() {
                MediaType::ImageIndex if depth < MAX_DEPTH => {
                    let name = digest(name, descriptor)?.to_hex();
                    self.walk(&name, &self.document(descriptor)?, depth + 1, found, seen)?;
                }
                MediaType::ImageIndex => {
                    return Err(bad(
                        name,
                        format!("it lists an index, and indexes are nested {MAX_DEPTH} deep at most"),
                    ));
                }
                MediaType::ImageManifest => found.push(descriptor.clone()),
                other => return Err(bad(name, format!("it lists the type {other}, which is no image"))),
            }
        }
        Ok(())
    }

    /// The bytes of the document that `descriptor` names, which have its size and digest.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let expected = digest("a descriptor", descriptor)?;
        let path = blob_path(&expected);
        let bytes = self.read(&path)?;
        if bytes.len() as u64 != descriptor.size() {
            return Err(ImageError::Length {
                path,
                expected: descriptor.size(),
                actual: bytes.len() as u64,
                more: false,
            });
        }
        let actual = Sha256Digest::new(Sha256::digest(&bytes).into());
        if actual != expected {
            return Err(wrong_digest(&path, &expected, &actual));
        }
        Ok(bytes)
    }

    /// Opens the blob `digest`, unchecked.
    pub(super) fn blob(&self, digest: &Sha256Digest) -> Result<Box<dyn Read>, ImageError> {
        let path = blob_path(digest);
        let opened = (self.open)(&rel(&path)?);
        opened.map_err(|source| ImageError::Read { path, source })
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        let failed = |source| ImageError::Read {
            path: path.to_owned(),
            source,
        };
        let file = (self.open)(&rel(path)?).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(bad(path, format!("it has more than {MAX_DOCUMENT} bytes")));
        }
        Ok(bytes)
    }
}

/// The SHA-256 by which `descriptor` names its content; another algorithm is an error.
pub(super) fn digest(document: &str, descriptor: &Descriptor) -> Result<Sha256Digest, ImageError> {
    hex(document, descriptor.digest().as_ref())
}

/// The digest `sha256:…`.
pub(super) fn hex(document: &str, text: &str) -> Result<Sha256Digest, ImageError> {
    let parsed = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    parsed.ok_or_else(|| bad(document, format!("it names {text:?}, which is no SHA-256 digest")))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ImageError> {
    // Serde takes an array for the members of a structure, in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(bad(name, "it is no JSON object".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|e| bad(name, e.to_string()))
}

/// Refuses a document of another kind than the descriptor says, and one that could be read as either kind.
pub(super) fn check_kind(name: &str, bytes: &[u8], expected: &MediaType) -> Result<(), ImageError> {
    /// The members by which the kinds differ.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        schema_version: u32,
        media_type: Option<MediaType>,
        manifests: Option<IgnoredAny>,
        config: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
    }
    let kind: Kind = parse(name, bytes)?;
    if kind.schema_version != SCHEMA {
        let stated = kind.schema_version;
        return Err(bad(
            name,
            format!("it states version {stated} of the schema, not {SCHEMA}"),
        ));
    }
    if let Some(stated) = kind.media_type.filter(|stated| stated != expected) {
        return Err(bad(
            name,
            format!("it states the type {stated}, and is listed as {expected}"),
        ));
    }
    if kind.manifests.is_some() && (kind.config.is_some() || kind.layers.is_some()) {
        return Err(bad(name, "it is a manifest and an index at once".to_owned()));
    }
    Ok(())
}

pub(super) fn bad(document: &str, problem: String) -> ImageError {
    ImageError::OciImage {
        path: document.to_owned(),
        problem,
    }
}

pub(super) fn wrong_digest(path: &str, expected: &Sha256Digest, actual: &Sha256Digest) -> ImageError {
    ImageError::BlobDigest {
        path: path.to_owned(),
        expected: *expected,
        actual: *actual,
    }
}

fn rel(path: &str) -> Result<RelPath, ImageError> {
    RelPath::new(path).map_err(|e| bad(path, e.to_string()))
}
