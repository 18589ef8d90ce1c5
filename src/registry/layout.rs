//! An OCI layout directory, and the structure of manifests and indexes.
//!
//! ```text
//! oci-layout              {"imageLayoutVersion": "1.0.0"}
//! index.json              an index of the images
//! blobs/sha256/<hex>      manifests, configurations, layers
//! ```
//!
//! Source: OCI image specification 1.1, "Image Layout".

use super::RegistryError;
use crate::model::{Sha256Digest, excerpt, visible, visible_path};
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Most bytes of a manifest or index; the limit that registries have too.
pub(super) const LARGEST_MANIFEST: u64 = 4 << 20;
/// The media types of docker's manifests and lists, which have the same structure.
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest or an index, well-formed, with SHA-256 digests only.
#[derive(Clone, PartialEq, Debug)]
pub enum ManifestContent {
    /// The manifest of one image or artifact.
    Image(Box<ImageManifest>),
    /// An index of manifests.
    Index(Box<ImageIndex>),
}

impl ManifestContent {
    /// The descriptors that must be in the registry before this one: for an index its manifests, else configuration and layers.
    pub fn needs(&self) -> Vec<&Descriptor> {
        match self {
            Self::Image(image) => std::iter::once(image.config()).chain(image.layers()).collect(),
            Self::Index(index) => index.manifests().iter().collect(),
        }
    }

    /// What it refers to.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Image(image) => image.subject().as_ref(),
            Self::Index(index) => index.subject().as_ref(),
        }
    }
}

/// The fields that tell a manifest from an index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Whether the media type is that of a manifest or an index.
pub(super) fn is_manifest_type(media_type: &str) -> bool {
    let known = [MediaType::ImageManifest, MediaType::ImageIndex];
    known.iter().any(|known| known.as_ref() == media_type) || [DOCKER_MANIFEST, DOCKER_LIST].contains(&media_type)
}

/// Parses a manifest or index of the media type by which it was sent or named.
///
/// # Errors
///
/// The fault in words: too long, not JSON, another version, another media type in it, fields of a manifest and of an index together (which
/// two programs could read as two images), or a digest that is no SHA-256.
pub fn parse_manifest(media_type: &str, bytes: &[u8]) -> Result<ManifestContent, String> {
    if bytes.len() as u64 > LARGEST_MANIFEST {
        return Err(format!("it has more than {LARGEST_MANIFEST} bytes"));
    }
    let unreadable =
        |e: serde_json::Error| format!("it does not parse: {}", crate::model::visible_message(&e.to_string()));
    let kind: Kind = serde_json::from_slice(bytes).map_err(unreadable)?;
    if kind.schema_version != 2 {
        return Err(format!("it has the schema version {}, not 2", kind.schema_version));
    }
    if let Some(inner) = kind.media_type.filter(|inner| inner != media_type) {
        let (inner, outer) = (visible(&excerpt(&inner)), visible(&excerpt(media_type)));
        return Err(format!("it says that it is {inner}, and it was sent as {outer}"));
    }
    let content = if media_type == MediaType::ImageIndex.as_ref() || media_type == DOCKER_LIST {
        if kind.config.is_some() || kind.layers.is_some() {
            return Err("it is an index with fields of a manifest".to_owned());
        }
        ManifestContent::Index(Box::new(serde_json::from_slice(bytes).map_err(unreadable)?))
    } else if media_type == MediaType::ImageManifest.as_ref() || media_type == DOCKER_MANIFEST {
        if kind.manifests.is_some() {
            return Err("it is a manifest with fields of an index".to_owned());
        }
        ManifestContent::Image(Box::new(serde_json::from_slice(bytes).map_err(unreadable)?))
    } else {
        return Err(format!(
            "it has the media type {}, which is no image's",
            visible(&excerpt(media_type))
        ));
    };
    for descriptor in content.needs().into_iter().chain(content.subject()) {
        sha256(descriptor)?;
    }
    Ok(content)
}

/// The SHA-256 of a descriptor, or its fault.
pub(super) fn sha256(descriptor: &Descriptor) -> Result<Sha256Digest, String> {
    let text = descriptor.digest().as_ref();
    let hex = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    hex.ok_or_else(|| format!("it has the digest {:?}; pnb knows sha256", excerpt(text)))
}

/// An OCI layout directory.
#[derive(Clone, Debug)]
pub struct LayoutDirectory {
    path: PathBuf,
    index: ImageIndex,
}

impl LayoutDirectory {
    /// Opens a layout and reads its `oci-layout` and `index.json`.
    ///
    /// # Errors
    ///
    /// If one of the two is missing or malformed.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let bad = |problem: String| RegistryError::Malformed {
            what: format!("open the OCI layout {}", visible_path(path)),
            problem,
        };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let marker: Marker = serde_json::from_slice(&read_small(&path.join("oci-layout"))?)
            .map_err(|_| bad("its file oci-layout does not parse".into()))?;
        if marker.image_layout_version != "1.0.0" {
            let version = excerpt(&marker.image_layout_version);
            return Err(bad(format!("it has the version {version:?}, and pnb knows 1.0.0")));
        }
        let bytes = read_small(&path.join("index.json"))?;
        let content = parse_manifest(MediaType::ImageIndex.as_ref(), &bytes);
        match content.map_err(|problem| bad(format!("index.json: {problem}")))? {
            ManifestContent::Index(index) => Ok(Self {
                path: path.to_owned(),
                index: *index,
            }),
            ManifestContent::Image(_) => Err(bad("index.json is no index".into())),
        }
    }

    /// The image of this name (`org.opencontainers.image.ref.name`), or the only one.
    ///
    /// # Errors
    ///
    /// If there is none, or more than one.
    pub fn image(&self, name: Option<&str>) -> Result<&Descriptor, RegistryError> {
        let bad = |problem: String| RegistryError::Malformed {
            what: format!("choose an image of the OCI layout {}", visible_path(&self.path)),
            problem,
        };
        let own = |d: &Descriptor| {
            d.annotations()
                .as_ref()
                .and_then(|a| a.get(ANNOTATION_REF_NAME).cloned())
        };
        let all = self.index.manifests();
        let mut found = all.iter().filter(|d| name.is_none() || own(d).as_deref() == name);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) if all.is_empty() => Err(bad("it has none".into())),
            (None, _) => Err(bad(format!(
                "none has the name {:?}",
                excerpt(name.unwrap_or_default())
            ))),
            (Some(_), Some(_)) => {
                let names: Vec<String> = all.iter().filter_map(own).map(|n| visible(&excerpt(&n))).collect();
                Err(bad(format!(
                    "it has {}, give one of their names: {}",
                    all.len(),
                    names.join(", ")
                )))
            }
        }
    }

    /// The file of a blob.
    pub fn blob(&self, digest: &Sha256Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.to_hex())
    }

    /// Opens a blob, which must be a file of this size. Its content is not looked at.
    ///
    /// # Errors
    ///
    /// If it is missing or has another size.
    pub fn open_blob(&self, digest: &Sha256Digest, size: u64) -> Result<File, RegistryError> {
        let path = self.blob(digest);
        let unreadable = |source| RegistryError::File {
            action: "open the blob",
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() || found.len() != size {
            return Err(RegistryError::Malformed {
                what: format!("open the blob {}", visible_path(&path)),
                problem: format!("it is no file of {size} bytes"),
            });
        }
        Ok(file)
    }

    /// Reads and parses a manifest or index, and compares it with its descriptor.
    ///
    /// # Errors
    ///
    /// If it is missing, has another digest, or is malformed.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<(Vec<u8>, ManifestContent), RegistryError> {
        let what = || {
            format!(
                "read {} of the OCI layout {}",
                descriptor.digest(),
                visible_path(&self.path)
            )
        };
        let bad = |problem| RegistryError::Malformed { what: what(), problem };
        let digest = sha256(descriptor).map_err(bad)?;
        if descriptor.size() > LARGEST_MANIFEST {
            return Err(bad(format!("it has more than {LARGEST_MANIFEST} bytes")));
        }
        drop(self.open_blob(&digest, descriptor.size())?);
        let bytes = read_small(&self.blob(&digest))?;
        let actual = digest_of(&bytes);
        if actual != digest {
            return Err(RegistryError::Lie {
                what: what(),
                who: "the file has".to_owned(),
                expected: digest,
                actual: format!("sha256:{actual}"),
            });
        }
        let content = parse_manifest(descriptor.media_type().as_ref(), &bytes).map_err(bad)?;
        Ok((bytes, content))
    }
}

/// The SHA-256 of bytes.
pub(super) fn digest_of(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::new(Sha256::digest(bytes).into())
}

/// Reads a file of at most the size of a manifest.
fn read_small(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let unreadable = |source| RegistryError::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST_MANIFEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    match bytes.len() as u64 > LARGEST_MANIFEST {
        true => Err(unreadable(io::Error::other(format!(
            "it has more than {LARGEST_MANIFEST} bytes"
        )))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_a_manifest_or_an_index() {
        let (manifest, index) = (MediaType::ImageManifest.to_string(), MediaType::ImageIndex.to_string());
        let digest = format!("sha256:{}", "0".repeat(64));
        let blob = json!({"mediaType": "x/y", "digest": digest, "size": 2});
        let image = json!({"schemaVersion": 2, "config": blob, "layers": [blob]});
        let list = json!({"schemaVersion": 2, "manifests": [blob], "subject": blob});
        let parsed =
            |media_type: &str, value: &serde_json::Value| parse_manifest(media_type, value.to_string().as_bytes());
        assert_eq!(parsed(&manifest, &image).map(|c| c.needs().len()), Ok(2));
        assert_eq!(
            parsed(DOCKER_MANIFEST, &image).map(|c| c.subject().is_some()),
            Ok(false)
        );
        assert_eq!(
            parsed(&index, &list).map(|c| (c.needs().len(), c.subject().is_some())),
            Ok((1, true))
        );
        let with = |value: &serde_json::Value, name: &str, inner: serde_json::Value| {
            let mut value = value.clone();
            value[name] = inner;
            value
        };
        let other = json!({"mediaType": "x/y", "digest": format!("sha512:{}", "0".repeat(128)), "size": 2});
        for (media_type, value, problem) in [
            (
                &manifest,
                with(&image, "schemaVersion", json!(1)),
                "it has the schema version 1, not 2",
            ),
            (
                &manifest,
                with(&image, "manifests", json!([])),
                "it is a manifest with fields of an index",
            ),
            (
                &index,
                with(&list, "config", blob.clone()),
                "it is an index with fields of a manifest",
            ),
            (
                &index,
                with(&list, "layers", json!([])),
                "it is an index with fields of a manifest",
            ),
            (
                &index,
                with(&list, "mediaType", json!(manifest)),
                "it says that it is application/vnd.oci.image.manifest.v1+json",
            ),
            (&manifest, with(&image, "config", other.clone()), "pnb knows sha256"),
            (&index, with(&list, "subject", other), "pnb knows sha256"),
            (&manifest, list.clone(), "it is a manifest with fields of an index"),
            (&manifest, json!({"schemaVersion": 2}), "it does not parse"),
            (
                &"text/html".to_owned(),
                image.clone(),
                "it has the media type text/html, which is no image's",
            ),
        ] {
            let error = parsed(media_type, &value).expect_err(problem);
            assert!(error.contains(problem), "{problem}: {error}");
        }
        assert!(parse_manifest(&manifest, &vec![b' '; (4 << 20) + 1]).is_err_and(|e| e.contains("has more than")));
        // Two values of one field are no text that two programs read alike.
        let twice = format!("{{\"schemaVersion\":2,\"config\":{blob},\"layers\":[],\"layers\":[{blob}]}}");
        assert!(parse_manifest(&manifest, twice.as_bytes()).is_err_and(|e| e.contains("duplicate field")));
    }
}
