//! The documents of an image: configuration, manifest, indexes.

use super::{FORMAT, LayerCompression, OciImage, WrittenLayer};
use crate::{
    image::ImageError,
    model::{Arch, Epoch, Sha256Digest, VerityDigest},
};
use oci_spec::{
    OciSpecError,
    image::{
        self as spec, ConfigBuilder, Descriptor, HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
        ImageManifestBuilder, MediaType, Os, PlatformBuilder, RootFsBuilder,
    },
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Label by which bootc knows an image that it can install.
pub const LABEL_BOOTC: &str = "containers.bootc";
/// Label with the fs-verity digest of the root's composefs image, which the layers without kernel and initramfs have.
pub const LABEL_ROOT: &str = "com.powernode.root-digest";
/// Label with the version of the kernel.
pub const LABEL_KERNEL: &str = "com.powernode.kernel-version";
/// Name of the image in `index.json`.
pub const IMAGE_NAME: &str = "latest";
/// Annotation of a descriptor in `index.json` that names the image.
const ANNOTATION_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of a layer with its name.
pub(super) const ANNOTATION_TITLE: &str = "org.opencontainers.image.title";
/// The annotation of a manifest with the time of its contents.
const ANNOTATION_CREATED: &str = "org.opencontainers.image.created";
/// Annotation by which containers/image, the library of skopeo and podman, tells images with layers in zstd from others in an index. It
/// adds the annotation to an index without it, which then has another digest.
const ANNOTATION_ZSTD: &str = "io.github.containers.compression.zstd";
/// Version of the documents' schema.
const SCHEMA: u32 = 2;
/// The program that an engine starts, and the signal that ends it (systemd's own for a halt).
const COMMAND: &str = "/sbin/init";
const STOP_SIGNAL: &str = "SIGRTMIN+3";

/// A document and its descriptor.
#[derive(Clone, Debug)]
pub struct OciDocument {
    /// Media type, digest and size of the bytes.
    pub descriptor: Descriptor,
    /// The document as JSON.
    pub bytes: Vec<u8>,
}

impl OciDocument {
    /// Describes `value` as `media_type`.
    fn new(media_type: MediaType, value: &impl Serialize) -> Result<Self, ImageError> {
        let bytes = to_json(value)?;
        let digest = Sha256Digest::new(Sha256::digest(&bytes).into());
        Ok(Self {
            descriptor: descriptor(media_type, digest, bytes.len() as u64)?,
            bytes,
        })
    }

    /// The SHA-256 of the bytes.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::new(Sha256::digest(&self.bytes).into())
    }
}

/// Facts about an image, beside its layers.
#[derive(Clone, Copy, Debug)]
pub struct ImageFacts<'a> {
    /// Architecture of its programs.
    pub arch: Arch,
    /// Time of its contents.
    pub created: Epoch,
    /// Version of its kernel.
    pub kernel_version: &'a str,
    /// fs-verity digest of the root.
    pub root: VerityDigest,
}

/// The configuration and the manifest of an image with `layers`, lowest first, each with its name.
pub fn image_documents(
    facts: &ImageFacts<'_>,
    layers: &[(String, WrittenLayer)],
) -> Result<(OciDocument, OciDocument), ImageError> {
    let labels = BTreeMap::from([
        (LABEL_BOOTC, "1".to_owned()),
        (LABEL_KERNEL, facts.kernel_version.to_owned()),
        (LABEL_ROOT, facts.root.to_hex()),
    ]);
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value));
    let config = ConfigBuilder::default()
        .cmd(vec![COMMAND.to_owned()])
        .stop_signal(STOP_SIGNAL);
    let mut config = config.build().map_err(invalid)?;
    config.set_labels(Some(labels.collect()));
    documents(facts.arch, facts.created, config, layers)
}

/// The configuration and the manifest of an image without a command, of `layers`, lowest first, each with its name.
pub fn layer_documents(
    arch: Arch,
    created: Epoch,
    layers: &[(String, WrittenLayer)],
) -> Result<(OciDocument, OciDocument), ImageError> {
    let config = ConfigBuilder::default().build().map_err(invalid)?;
    documents(arch, created, config, layers)
}

fn documents(
    arch: Arch,
    created: Epoch,
    config: spec::Config,
    layers: &[(String, WrittenLayer)],
) -> Result<(OciDocument, OciDocument), ImageError> {
    let created = created.to_rfc3339();
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|(_, layer)| format!("sha256:{}", layer.diff_id))
        .collect();
    let history = layers.iter().map(|(name, _)| {
        let entry = HistoryBuilder::default()
            .created(created.clone())
            .created_by(format!("pnb: {name}"));
        entry.build().map_err(invalid)
    });
    let builder = ImageConfigurationBuilder::default()
        .created(created.clone())
        .architecture(architecture(arch))
        .os(Os::Linux)
        .config(config)
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids(diff_ids)
                .build()
                .map_err(invalid)?,
        )
        .history(history.collect::<Result<Vec<_>, _>>()?);
    let config = OciDocument::new(MediaType::ImageConfig, &builder.build().map_err(invalid)?)?;

    let descriptors = layers.iter().map(|(name, layer)| {
        let media_type = match layer.compression {
            LayerCompression::Zstd => MediaType::ImageLayerZstd,
            LayerCompression::Gzip => MediaType::ImageLayerGzip,
        };
        let mut described = descriptor(media_type, layer.digest, layer.size)?;
        described.set_annotations(Some([(ANNOTATION_TITLE.to_owned(), name.clone())].into()));
        Ok(described)
    });
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor.clone())
        .layers(descriptors.collect::<Result<Vec<_>, ImageError>>()?)
        .annotations([(ANNOTATION_CREATED.to_owned(), created)]);
    let mut manifest = OciDocument::new(MediaType::ImageManifest, &manifest.build().map_err(invalid)?)?;
    manifest.descriptor.set_platform(Some(platform(arch)?));
    Ok((config, manifest))
}

/// The index over the manifests of one image for several architectures, each with its image.
pub fn multi_index(manifests: Vec<(Descriptor, OciImage)>) -> Result<OciDocument, ImageError> {
    // An index names each manifest by digest and platform; names belong to `index.json`.
    let manifests = manifests.into_iter().map(|(mut manifest, image)| {
        let mut layers = image.layers.iter();
        let zstd = layers.any(|layer| layer.compression == Some(LayerCompression::Zstd));
        manifest.set_annotations(zstd.then(|| [(ANNOTATION_ZSTD.to_owned(), "true".to_owned())].into()));
        manifest
    });
    let manifests: Vec<Descriptor> = manifests.collect();
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests);
    OciDocument::new(MediaType::ImageIndex, &index.build().map_err(invalid)?)
}

/// The file `index.json` of a layout with one image, or one index over images, called [`IMAGE_NAME`].
pub fn layout_index(content: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let mut named = content.clone();
    named.set_annotations(Some([(ANNOTATION_NAME.to_owned(), IMAGE_NAME.to_owned())].into()));
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA)
        .media_type(MediaType::ImageIndex)
        .manifests([named]);
    to_json(&index.build().map_err(invalid)?)
}

/// The specification's name of an architecture.
pub(super) fn architecture(arch: Arch) -> spec::Arch {
    match arch {
        Arch::Amd64 => spec::Arch::Amd64,
        Arch::Arm64 => spec::Arch::ARM64,
    }
}

fn platform(arch: Arch) -> Result<spec::Platform, ImageError> {
    let platform = PlatformBuilder::default()
        .architecture(architecture(arch))
        .os(Os::Linux);
    platform.build().map_err(invalid)
}

fn descriptor(media_type: MediaType, digest: Sha256Digest, size: u64) -> Result<Descriptor, ImageError> {
    let digest: spec::Digest = format!("sha256:{digest}").parse().map_err(invalid)?;
    Ok(Descriptor::new(media_type, size, digest))
}

/// JSON without spaces, its keys sorted: the structures hold hash maps, and a JSON value holds a sorted one.
pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    let value = serde_json::to_value(value).map_err(|e| request(e.to_string()))?;
    serde_json::to_vec(&value).map_err(|e| request(e.to_string()))
}

/// The descriptor of a document that is called by its media type.
pub fn describe(media_type: &str, digest: Sha256Digest, size: u64) -> Result<Descriptor, ImageError> {
    descriptor(MediaType::from(media_type), digest, size)
}

fn invalid(error: OciSpecError) -> ImageError {
    request(error.to_string())
}

fn request(problem: String) -> ImageError {
    ImageError::Request {
        format: FORMAT,
        problem,
    }
}
