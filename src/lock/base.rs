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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{LockChange, diff, parse_lock, write_lock};

    const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn lock() -> String {
        format!(
            "version = 1\nsource_date_epoch = 1795252544\n\n[base]\nimage = \"r.example/base@sha256:{HEX}\"\nsize = 400\n\n\
             [[base.platform]]\narch = \"amd64\"\nmanifest = \"{HEX}\"\nmanifest_size = 400\nconfig = \"{HEX}\"\n\
             config_size = 200\npackages = [\"bash:amd64=5.2-1\", \"debconf:all=1.5\"]\n\n[[base.platform.layer]]\n\
             sha256 = \"{HEX}\"\nsize = 7\nmedia_type = \"application/x\"\ndiff_id = \"{HEX}\"\n"
        )
    }

    #[test]
    fn a_lock_with_a_base_image_round_trips() {
        let parsed = parse_lock(&lock(), "lockfile.toml").expect("valid");
        let text = write_lock(&parsed).expect("writable");
        assert!(text.ends_with(&lock()), "{text}");
        let base = parsed.base.as_ref().expect("there");
        assert_eq!(base.digest(), HEX.parse().ok());
        assert_eq!(base.blobs().len(), 1, "one digest, for everything in this lock");
        assert!(base.platform(Arch::Amd64).is_ok());
        let error = base.platform(Arch::Arm64).expect_err("not there").to_string();
        assert_eq!(
            error,
            format!("use the base image r.example/base@sha256:{HEX}: it has no image for arm64 (it has: amd64)")
        );
        let mut without = parsed.clone();
        without.base = None;
        let image = Some(base.image.clone());
        assert_eq!(
            diff(&parsed, &without),
            [LockChange::Base {
                from: image.clone(),
                to: None
            }]
        );
        assert_eq!(
            diff(&without, &parsed)[0].to_string(),
            format!("+ base image {}", base.image)
        );
        let mut other = parsed.clone();
        other.base = BaseImage::named(&format!("r.example/other@sha256:{HEX}")).ok();
        assert_eq!(
            diff(&parsed, &other)[0].to_string(),
            format!("~ base image {} -> r.example/other@sha256:{HEX}", base.image)
        );
    }

    #[test]
    fn pins_with_a_fault_are_named() {
        for (from, to, problem) in [
            (
                format!("base@sha256:{HEX}"),
                "base:13".to_owned(),
                "line 4: base: \"r.example/base:13\" has no digest",
            ),
            (
                format!("base@sha256:{HEX}"),
                "base@sha256:12".to_owned(),
                "does not end in @sha256: and 64",
            ),
            (
                format!("r.example/base@sha256:{HEX}"),
                format!("a b@sha256:{HEX}"),
                "not the name of an image",
            ),
            ("\nsize = 400".to_owned(), String::new(), "platforms without a size"),
            (
                "\nsize = 400".to_owned(),
                "\nsize = 5000000".to_owned(),
                "has a size of more than 4194304",
            ),
            (
                "config_size = 200".to_owned(),
                "config_size = 5000000".to_owned(),
                "a document has more than",
            ),
            (
                "size = 7".to_owned(),
                "size = 9000000000".to_owned(),
                "has more than 8589934592 bytes",
            ),
            (
                "debconf:all=1.5".to_owned(),
                "a:all=1".to_owned(),
                "the packages are not sorted",
            ),
            (
                "debconf:all=1.5".to_owned(),
                "debconf:arm64=1.5".to_owned(),
                "is for another architecture",
            ),
            (
                "debconf:all=1.5".to_owned(),
                "debconf=1.5".to_owned(),
                "not a package name:arch=version: \"debconf=1.5\"",
            ),
            (
                "debconf:all=1.5".to_owned(),
                "debconf:all=".to_owned(),
                "not a package name:arch=version",
            ),
            (
                "debconf:all=1.5".to_owned(),
                "d!:all=1".to_owned(),
                "not a package name:arch=version",
            ),
            (
                "config_size".to_owned(),
                "config_sise".to_owned(),
                "unknown field `config_sise`",
            ),
        ] {
            let text = lock();
            assert!(text.contains(&from), "{from}");
            let error = parse_lock(&text.replacen(&from, &to, 1), "lockfile.toml").expect_err(problem);
            assert!(error.to_string().contains(problem), "{problem}: {error}");
        }
        let twice = lock();
        let platform = twice.find("[[base.platform]]").expect("there");
        let error = parse_lock(&format!("{twice}\n{}", &twice[platform..]), "lockfile.toml").expect_err("twice");
        assert!(error.to_string().contains("the platform amd64 of"), "{error}");
        assert!(error.to_string().contains("is there twice"), "{error}");
        let layer = twice.find("[[base.platform.layer]]").expect("there");
        let error = parse_lock(&twice[..layer], "lockfile.toml").expect_err("no layer");
        assert!(error.to_string().contains("missing field `layer`"), "{error}");
    }
}
