//! One image of a layout: its architecture, its labels, its layers.

use super::{
    LABEL_ROOT, LayerCompression, LayoutReader, OCI_INDEX,
    document::{ANNOTATION_TITLE, architecture},
    layout::{bad, check_kind, digest, hex, parse},
};
use crate::{
    image::ImageError,
    model::{Arch, Sha256Digest, VerityDigest},
};
use oci_spec::image::{self as spec, Descriptor, ImageConfiguration, ImageManifest, MediaType, Os};
use std::collections::BTreeMap;

/// Most layers of an image: what engines mount at once.
const MAX_LAYERS: usize = 127;
/// The type of a list of layers in a configuration.
const LAYERS: &str = "layers";

/// A layer of an image, as its manifest and its configuration describe it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageLayer {
    /// SHA-256 of the blob.
    pub digest: Sha256Digest,
    /// Number of bytes of the blob.
    pub size: u64,
    /// SHA-256 of the archive without compression.
    pub diff_id: Sha256Digest,
    /// The compression of the blob; `None` for an archive as it is.
    pub compression: Option<LayerCompression>,
    /// The name that its maker gave it, if any.
    pub title: Option<String>,
}

/// An image whose documents were compared with their digests. Its layers were not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OciImage {
    /// SHA-256 of the manifest.
    pub manifest: Sha256Digest,
    /// The architecture in the configuration.
    pub arch: Arch,
    /// The labels in the configuration.
    pub labels: BTreeMap<String, String>,
    /// The layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// Sizes of the manifest and the configuration, bytes, and the SHA-256 of the latter.
    pub documents: u64,
    /// SHA-256 of the configuration.
    pub config: Sha256Digest,
}

impl OciImage {
    /// Reads the image for `arch` of a layout. Images that the index lists for other architectures are not looked at.
    pub fn find(layout: &LayoutReader<'_>, arch: Arch) -> Result<Self, ImageError> {
        let mut found = Vec::new();
        for descriptor in layout.manifests()? {
            let stated = descriptor.platform().as_ref().map(|platform| platform.architecture());
            if stated.is_none_or(|stated| *stated == architecture(arch)) {
                found.push(Self::read(layout, &descriptor)?);
            }
        }
        found.retain(|image| image.arch == arch);
        let count = found.len();
        match found.pop() {
            Some(image) if count == 1 => Ok(image),
            _ => Err(bad(OCI_INDEX, format!("it lists {count} images for {arch}, not one"))),
        }
    }

    /// Reads the image whose manifest `descriptor` names.
    pub fn read(layout: &LayoutReader<'_>, descriptor: &Descriptor) -> Result<Self, ImageError> {
        let manifest_digest = digest("index", descriptor)?;
        let name = manifest_digest.to_hex();
        let bytes = layout.document(descriptor)?;
        check_kind(&name, &bytes, &MediaType::ImageManifest)?;
        let manifest: ImageManifest = parse(&name, &bytes)?;
        if *manifest.config().media_type() != MediaType::ImageConfig {
            let found = manifest.config().media_type();
            return Err(bad(
                &name,
                format!("its configuration has the type {found}, not that of an image"),
            ));
        }
        let config_digest = digest(&name, manifest.config())?;
        let config_bytes = layout.document(manifest.config())?;
        let config: ImageConfiguration = parse(&config_digest.to_hex(), &config_bytes)?;
        let arch = match config.architecture() {
            spec::Arch::Amd64 => Arch::Amd64,
            spec::Arch::ARM64 => Arch::Arm64,
            other => {
                return Err(bad(
                    &config_digest.to_hex(),
                    format!("the architecture {other} is unknown"),
                ));
            }
        };
        if *config.os() != Os::Linux {
            let problem = format!("it is for {}, not {}", config.os(), Os::Linux);
            return Err(bad(&config_digest.to_hex(), problem));
        }
        if let Some(stated) = descriptor.platform()
            && (stated.architecture() != config.architecture() || stated.os() != config.os())
        {
            let listed = format!("{} on {}", stated.os(), stated.architecture());
            let problem = format!("the index lists it for {listed}, and it is for {} on {arch}", Os::Linux);
            return Err(bad(&name, problem));
        }
        if config.rootfs().typ() != LAYERS {
            let problem = format!("its root is of the type {:?}, not {LAYERS:?}", config.rootfs().typ());
            return Err(bad(&config_digest.to_hex(), problem));
        }
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() || diff_ids.len() > MAX_LAYERS || diff_ids.is_empty() {
            let (layers, ids) = (manifest.layers().len(), diff_ids.len());
            let problem =
                format!("it has {layers} layers, and its configuration {ids}; 1 to {MAX_LAYERS} are possible");
            return Err(bad(&name, problem));
        }
        let layers = manifest.layers().iter().zip(diff_ids).map(|(layer, diff_id)| {
            let compression = match layer.media_type() {
                MediaType::ImageLayer => None,
                MediaType::ImageLayerZstd => Some(LayerCompression::Zstd),
                MediaType::ImageLayerGzip => Some(LayerCompression::Gzip),
                MediaType::Other(name) if name == DOCKER_LAYER => Some(LayerCompression::Gzip),
                other => return Err(bad(&name, format!("it has a layer of the unknown type {other}"))),
            };
            let title = layer.annotations().as_ref().and_then(|a| a.get(ANNOTATION_TITLE));
            Ok(ImageLayer {
                digest: digest(&name, layer)?,
                size: layer.size(),
                diff_id: hex(&config_digest.to_hex(), diff_id)?,
                compression,
                title: title.cloned(),
            })
        });
        let labels = config.config().as_ref().and_then(|config| config.labels().clone());
        Ok(Self {
            manifest: manifest_digest,
            arch,
            labels: labels.unwrap_or_default().into_iter().collect(),
            layers: layers.collect::<Result<_, _>>()?,
            documents: (bytes.len() + config_bytes.len()) as u64,
            config: config_digest,
        })
    }

    /// The root digest that the label states; the label is an unsigned claim.
    pub fn claimed_root(&self) -> Result<Option<VerityDigest>, ImageError> {
        let Some(text) = self.labels.get(LABEL_ROOT) else {
            return Ok(None);
        };
        let digest = text.parse();
        let no_digest = |_| {
            let problem = format!("its label {LABEL_ROOT} is {text:?}, which is no digest");
            bad(&self.config.to_hex(), problem)
        };
        digest.map(Some).map_err(no_digest)
    }
}

/// A layer in the older manifests of Docker, whose type the specification names beside its own.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
