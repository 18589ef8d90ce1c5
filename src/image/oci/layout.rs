//! An image layout on disk.

use super::{FORMAT, document::to_json};
use crate::{
    image::ImageError,
    model::{RelPath, Sha256Digest},
};
use oci_spec::image::{Descriptor, ImageIndex, MediaType, OciLayoutBuilder};
use sha2::{Digest as _, Sha256};
use std::io::Read;

/// The file that says that a directory is an image layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// The file that lists the contents of a layout.
pub const OCI_INDEX: &str = "index.json";
/// The directory of the blobs.
pub const BLOBS: &str = "blobs/sha256";
/// The version of the layout.
const LAYOUT_VERSION: &str = "1.0.0";
/// Largest document, bytes: what registries accept of a manifest.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
/// Most manifests of a layout.
const MAX_MANIFESTS: usize = 64;
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
        let mut found = Vec::new();
        self.walk(OCI_INDEX, &self.read(OCI_INDEX)?, 1, &mut found)?;
        Ok(found)
    }

    fn walk(&self, name: &str, bytes: &[u8], depth: usize, found: &mut Vec<Descriptor>) -> Result<(), ImageError> {
        let index: ImageIndex = parse(name, bytes)?;
        for descriptor in index.manifests() {
            match descriptor.media_type() {
                MediaType::ImageIndex if depth < MAX_DEPTH => {
                    let name = digest(name, descriptor)?.to_hex();
                    self.walk(&name, &self.document(descriptor)?, depth + 1, found)?;
                }
                MediaType::ImageManifest => found.push(descriptor.clone()),
                other => return Err(bad(name, format!("it lists a {other}, not an image"))),
            }
            if found.len() > MAX_MANIFESTS {
                return Err(bad(name, format!("it lists more than {MAX_MANIFESTS} images")));
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
    serde_json::from_slice(bytes).map_err(|e| bad(name, e.to_string()))
}

pub(super) fn bad(document: &str, problem: String) -> ImageError {
    ImageError::Entry {
        format: FORMAT,
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
