//! A disk image as the platform pulls it from a registry: an OCI manifest with three files.
//!
//! ```text
//! artifactType   application/vnd.powernode.disk-image.v1
//! config         application/vnd.oci.empty.v1+json                 {}
//! layers[0]      application/octet-stream                          <name>.img
//! layers[1]      application/vnd.dev.cosign.bundle.v1+json         <name>.cosign-bundle
//! layers[2]      application/vnd.dev.cosign.attestation.v1+json    <name>.attestation-bundle
//! ```
//!
//! The platform finds the files by the ends of their titles and demands all three. The repository is `<prefix>/<platform name>`, the tag
//! is the commit. The manifest has no time and is canonical JSON, so the same files make the same bytes.
//!
//! Source: OCI image specification 1.1, "Guidelines for Artifact Usage". This file does no I/O.

use super::DiskArtifactError;
use crate::{
    manifest::to_canonical,
    model::{GitSha, Sha256Digest, visible_message},
};
use oci_spec::image::{
    ANNOTATION_TITLE, Descriptor, DescriptorBuilder, ImageManifestBuilder, MediaType, SCHEMA_VERSION,
    Sha256Digest as OciSha256,
};
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

/// The type of the artifact.
pub const DISK_IMAGE_TYPE: &str = "application/vnd.powernode.disk-image.v1";
const IMAGE_TYPE: &str = "application/octet-stream";
const BUNDLE_TYPE: &str = "application/vnd.dev.cosign.bundle.v1+json";
const ATTESTATION_TYPE: &str = "application/vnd.dev.cosign.attestation.v1+json";
/// The config of an artifact without one.
pub const EMPTY_CONFIG: &[u8] = b"{}";

/// The platform's name of an image, such as `ubuntu-24.04-rpi4`: one for each architecture.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlatformName(String);

impl FromStr for PlatformName {
    type Err = DiskArtifactError;
    /// A name is the last part of a repository, so it has lower-case letters and digits, with `.`, `_` or `-` between them.
    fn from_str(text: &str) -> Result<Self, DiskArtifactError> {
        let words = || text.split(['.', '_', '-']);
        let plain = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        match text.len() <= 128 && words().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(DiskArtifactError::Name {
                value: visible_message(text),
            }),
        }
    }
}

impl fmt::Display for PlatformName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for PlatformName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A blob by digest and length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArtifactBlob {
    /// SHA-256 of its bytes.
    pub sha256: Sha256Digest,
    /// Their number.
    pub size: u64,
}

impl ArtifactBlob {
    /// The blob of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            sha256: Sha256Digest::new(Sha256::digest(bytes).into()),
            size: bytes.len() as u64,
        }
    }
}

/// The files of a disk image in a registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskImageArtifact {
    /// The platform's name.
    pub platform_name: PlatformName,
    /// The commit that the image was built from.
    pub commit: GitSha,
    /// The image itself.
    pub image: ArtifactBlob,
    /// The bundle of the signature of the image.
    pub signature: ArtifactBlob,
    /// The bundle of the attestation of the image.
    pub attestation: ArtifactBlob,
}

impl DiskImageArtifact {
    /// The repository below `prefix`, such as `registry.example/powernode/disk-images`.
    pub fn repository(&self, prefix: &str) -> String {
        format!("{}/{}", prefix.trim_end_matches('/'), self.platform_name)
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        self.commit.as_str()
    }

    /// The reference that the platform is told: repository and tag.
    pub fn reference(&self, prefix: &str) -> String {
        format!("{}:{}", self.repository(prefix), self.tag())
    }

    /// The manifest's bytes.
    ///
    /// # Errors
    /// [`DiskArtifactError::Build`] if the library refuses a part; the parts have the forms that it demands.
    pub fn manifest(&self) -> Result<Vec<u8>, DiskArtifactError> {
        let name = &self.platform_name;
        let layers = vec![
            descriptor(IMAGE_TYPE, &self.image, Some(format!("{name}.img")))?,
            descriptor(BUNDLE_TYPE, &self.signature, Some(format!("{name}.cosign-bundle")))?,
            descriptor(
                ATTESTATION_TYPE,
                &self.attestation,
                Some(format!("{name}.attestation-bundle")),
            )?,
        ];
        let config = descriptor(MediaType::EmptyJSON.as_ref(), &ArtifactBlob::of(EMPTY_CONFIG), None)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .artifact_type(MediaType::from(DISK_IMAGE_TYPE))
            .config(config)
            .layers(layers)
            .build();
        let manifest = manifest.map_err(build)?;
        let text = to_canonical(&manifest, "the manifest of the disk image");
        Ok(text.map_err(|source| DiskArtifactError::Write { source })?.into_bytes())
    }
}

fn build(error: oci_spec::OciSpecError) -> DiskArtifactError {
    DiskArtifactError::Build {
        problem: error.to_string(),
    }
}

fn descriptor(media_type: &str, blob: &ArtifactBlob, title: Option<String>) -> Result<Descriptor, DiskArtifactError> {
    let digest: OciSha256 = blob.sha256.to_hex().parse().map_err(build)?;
    let mut builder = DescriptorBuilder::default()
        .media_type(MediaType::from(media_type))
        .digest(digest)
        .size(blob.size);
    if let Some(title) = title {
        builder = builder.annotations([(ANNOTATION_TITLE.to_owned(), title)]);
    }
    builder.build().map_err(build)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::ImageManifest;

    fn artifact() -> DiskImageArtifact {
        DiskImageArtifact {
            platform_name: "ubuntu-24.04-rpi4".parse().expect("a name"),
            commit: "0123456789abcdef0123456789abcdef01234567".parse().expect("a commit"),
            image: ArtifactBlob {
                sha256: Sha256Digest::new([1; 32]),
                size: 3 << 30,
            },
            signature: ArtifactBlob::of(b"signature"),
            attestation: ArtifactBlob::of(b"attestation"),
        }
    }

    #[test]
    fn the_manifest_is_the_one_of_the_contract() {
        let bytes = artifact().manifest().expect("built");
        insta::assert_snapshot!(String::from_utf8(bytes.clone()).expect("UTF-8"), @r#"
        {
          "artifactType": "application/vnd.powernode.disk-image.v1",
          "config": {
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "mediaType": "application/vnd.oci.empty.v1+json",
            "size": 2
          },
          "layers": [
            {
              "annotations": {
                "org.opencontainers.image.title": "ubuntu-24.04-rpi4.img"
              },
              "digest": "sha256:0101010101010101010101010101010101010101010101010101010101010101",
              "mediaType": "application/octet-stream",
              "size": 3221225472
            },
            {
              "annotations": {
                "org.opencontainers.image.title": "ubuntu-24.04-rpi4.cosign-bundle"
              },
              "digest": "sha256:1a2fc26dc7ea5a2a4748b7cb2b1ef193d96ab2c99f93092f69e63075b28d1278",
              "mediaType": "application/vnd.dev.cosign.bundle.v1+json",
              "size": 9
            },
            {
              "annotations": {
                "org.opencontainers.image.title": "ubuntu-24.04-rpi4.attestation-bundle"
              },
              "digest": "sha256:813a89a296973e35545cfa74fe3efd172a7d19443c97c625d699e9737229b0a2",
              "mediaType": "application/vnd.dev.cosign.attestation.v1+json",
              "size": 11
            }
          ],
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "schemaVersion": 2
        }
        "#);
        assert_eq!(artifact().manifest().expect("built"), bytes);
        let read = ImageManifest::from_reader(&bytes[..]).expect("read by the library");
        assert_eq!(read.layers().len(), 3);
        assert_eq!(
            artifact().reference("registry.example/powernode/disk-images/"),
            "registry.example/powernode/disk-images/ubuntu-24.04-rpi4:0123456789abcdef0123456789abcdef01234567"
        );
    }

    #[test]
    fn the_name_of_a_platform_is_a_part_of_a_repository() {
        for good in ["ubuntu-24.04-rpi4", "ubuntu-24.04-arm64-uefi", "a", "0_1"] {
            assert_eq!(good.parse::<PlatformName>().expect(good).to_string(), good);
        }
        for bad in ["", "A", "a/b", "-a", "a-", "a..b", "a b", "ä", "a:b", &"a".repeat(129)] {
            assert!(bad.parse::<PlatformName>().is_err(), "{bad:?}");
        }
    }
}
