//! The base image of a lock: its pins for each architecture, and the rule that it has only packages of the lock.

use super::{LockError, Lockfile};
use crate::{
    debian::{Version, is_package_name},
    model::{Arch, NodeId, Sha256Digest, excerpt},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

/// Longest name of an image with its digest.
const LONGEST_IMAGE: usize = 512;
/// Largest manifest or configuration, bytes: what registries accept of a manifest.
const MAX_BASE_DOCUMENT: u64 = 4 << 20;
/// Largest layer, bytes.
const MAX_BASE_LAYER: u64 = 8 << 30;
/// The way from a name to a pin.
const PIN: &str = "pin it as NAME@sha256:… with the digest of its manifest or index";

/// A base image: the OCI image on whose files the root is installed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseImage {
    /// Its name, with the digest of its manifest or of an index over several: `host[:port]/name@sha256:…`.
    pub image: String,
    /// Size of the document of that digest, bytes; `None` until `pnb lock` has read the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The image for each architecture that it has.
    #[serde(default, rename = "platform", skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<BasePlatform>,
}

/// The base image for one architecture.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasePlatform {
    /// The architecture.
    pub arch: Arch,
    /// SHA-256 of its manifest.
    pub manifest: Sha256Digest,
    /// Size of the manifest, bytes.
    pub manifest_size: u64,
    /// SHA-256 of its configuration.
    pub config: Sha256Digest,
    /// Size of the configuration, bytes.
    pub config_size: u64,
    /// The packages in the database of dpkg in it, sorted.
    pub packages: Vec<BasePackage>,
    /// The layers, lowest first.
    #[serde(rename = "layer")]
    pub layers: Vec<BaseLayer>,
}

/// A layer of the base image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseLayer {
    /// SHA-256 of the blob.
    pub sha256: Sha256Digest,
    /// Size of the blob, bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// SHA-256 of the archive without compression.
    pub diff_id: Sha256Digest,
}

/// A package in the base image, written `name:arch=version`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BasePackage {
    /// Package name.
    pub name: String,
    /// Its architecture, or `all`.
    pub arch: String,
    /// Its version.
    pub version: String,
}

impl fmt::Display for BasePackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}={}", self.name, self.arch, self.version)
    }
}

impl FromStr for BasePackage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a package name:arch=version: {:?}", excerpt(text));
        let (package, version) = text.split_once('=').ok_or_else(bad)?;
        let (name, arch) = package.split_once(':').ok_or_else(bad)?;
        let known = matches!(arch, "amd64" | "arm64" | "all");
        if !known || !is_package_name(name) || version.parse::<Version>().is_err() {
            return Err(bad());
        }
        Ok(Self {
            name: name.to_owned(),
            arch: arch.to_owned(),
            version: version.to_owned(),
        })
    }
}

impl Serialize for BasePackage {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BasePackage {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl BaseImage {
    /// A base image that was not read yet.
    ///
    /// # Errors
    /// The name has no digest.
    pub fn named(image: &str) -> Result<Self, LockError> {
        let base = Self {
            image: image.to_owned(),
            size: None,
            platforms: Vec::new(),
        };
        match base.problem() {
            None => Ok(base),
            Some(problem) => Err(LockError::Request(format!("pin the base image: {problem}"))),
        }
    }

    /// The digest in the name; `None` if there is none.
    pub fn digest(&self) -> Option<Sha256Digest> {
        self.image.split_once("@sha256:")?.1.parse().ok()
    }

    /// The pins for `arch`.
    ///
    /// # Errors
    /// `pnb lock` has not read the image yet, or it has no image for `arch`.
    pub fn platform(&self, arch: Arch) -> Result<&BasePlatform, LockError> {
        if let Some(found) = self.platforms.iter().find(|platform| platform.arch == arch) {
            return Ok(found);
        }
        if self.platforms.is_empty() {
            return Err(LockError::BaseNotRead {
                image: self.image.clone(),
            });
        }
        let known: Vec<String> = self.platforms.iter().map(|p| p.arch.to_string()).collect();
        Err(LockError::BaseArch {
            image: self.image.clone(),
            arch,
            known: known.join(", "),
        })
    }

    /// The blobs of all its platforms, each with a name for messages.
    pub fn blobs(&self) -> BTreeMap<Sha256Digest, String> {
        let index = self.digest().map(|digest| (digest, "index".to_owned()));
        let mut blobs: BTreeMap<Sha256Digest, String> = index.into_iter().filter(|_| self.size.is_some()).collect();
        for platform in &self.platforms {
            let arch = platform.arch;
            blobs.insert(platform.manifest, format!("manifest for {arch}"));
            blobs.insert(platform.config, format!("configuration for {arch}"));
            blobs.extend(
                platform
                    .layers
                    .iter()
                    .map(|layer| (layer.sha256, format!("layer for {arch}"))),
            );
        }
        blobs
    }

    /// The fault of the pins, if they have one.
    pub(super) fn problem(&self) -> Option<String> {
        let shown = excerpt(&self.image);
        if self.image.len() > LONGEST_IMAGE || self.image.chars().any(|c| !c.is_ascii_graphic()) {
            return Some(format!("not the name of an image: {shown:?}"));
        }
        if !self.image.contains('@') {
            return Some(format!(
                "{shown:?} has no digest, and what a tag names can change: {PIN}"
            ));
        }
        if self.digest().is_none() {
            return Some(format!(
                "{shown:?} does not end in @sha256: and 64 hexadecimal digits: {PIN}"
            ));
        }
        if self.size.is_none() != self.platforms.is_empty() {
            return Some(format!(
                "{shown:?} has a size without platforms, or platforms without a size; remove both, and `pnb lock` writes them"
            ));
        }
        if self.size.is_some_and(|size| size > MAX_BASE_DOCUMENT) {
            return Some(format!("{shown:?} has a size of more than {MAX_BASE_DOCUMENT}"));
        }
        let mut arches = BTreeSet::new();
        self.platforms.iter().find_map(|platform| {
            let arch = platform.arch;
            let problem = platform.problem(arches.insert(arch))?;
            Some(format!("the platform {arch} of {shown:?}: {problem}"))
        })
    }
}

impl BasePlatform {
    fn problem(&self, first: bool) -> Option<String> {
        if !first {
            return Some("is there twice".to_owned());
        }
        if self.manifest_size > MAX_BASE_DOCUMENT || self.config_size > MAX_BASE_DOCUMENT {
            return Some(format!("a document has more than {MAX_BASE_DOCUMENT} bytes"));
        }
        if self.layers.is_empty() {
            return Some("has no layers".to_owned());
        }
        if let Some(layer) = self.layers.iter().find(|layer| layer.size > MAX_BASE_LAYER) {
            return Some(format!(
                "the layer {} has more than {MAX_BASE_LAYER} bytes",
                layer.sha256
            ));
        }
        let sorted = self.packages.windows(2).all(|pair| pair[0] < pair[1]);
        if !sorted {
            return Some("the packages are not sorted, or one is there twice".to_owned());
        }
        let other = self
            .packages
            .iter()
            .find(|p| p.arch != "all" && p.arch != self.arch.as_str());
        other.map(|package| format!("has the package {package}, which is for another architecture"))
    }
}

/// Checks that a base image has only packages of the package sets `sets`, which are installed on it, in the same versions.
///
/// # Errors
/// [`LockError::BasePackage`] with the first package that a set lacks or has in another version.
pub fn check_base(lock: &Lockfile, sets: &[NodeId]) -> Result<(), LockError> {
    let Some(base) = &lock.base else { return Ok(()) };
    for platform in &base.platforms {
        for set in sets.iter().filter(|set| set.arch == platform.arch) {
            for package in &platform.packages {
                let locked: Vec<_> = lock.packages_of(set).filter(|p| p.name == package.name).collect();
                let same = |p: &super::Package| p.version == package.version && p.arch == package.arch;
                if locked.iter().any(|p| same(p)) {
                    continue;
                }
                let found = match locked.first() {
                    Some(other) if other.version == package.version => format!("of architecture {}", other.arch),
                    Some(other) => format!("in version {}", other.version),
                    None => "not at all".to_owned(),
                };
                return Err(LockError::BasePackage {
                    image: base.image.clone(),
                    package: package.to_string(),
                    set: set.clone(),
                    found,
                });
            }
        }
    }
    Ok(())
}
