//! `sbom.cdx.json`: the packages behind an artifact, as CycloneDX 1.6.
//!
//! Packages whose files are in the artifact have the scope `required`; packages of tools have the scope `excluded`, which the
//! specification reserves for "component usage for test and other non-runtime purposes". The time stamp is the lock's
//! `source_date_epoch` and the serial number is derived from the rest of the file, so equal builds give equal bytes.
//! Source: <https://cyclonedx.org/docs/1.6/json/>; package URLs: <https://github.com/package-url/purl-spec>, type `deb`.

use super::{
    ManifestError,
    canonical::{from_canonical, to_canonical},
    document::{ArchiveFact, BaseImageFact, FileFact, Manifest, PackageFact},
    facts::Role,
};
use crate::{lock::Distribution, model::Sha256Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt::Write;

/// Name of the file.
pub const SBOM_FILE: &str = "sbom.cdx.json";

/// A CycloneDX document, with the parts that pnb writes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bom {
    /// `CycloneDX`.
    pub bom_format: String,
    /// `1.6`.
    pub spec_version: String,
    /// `urn:uuid:` and a version 8 UUID derived from the rest of the document.
    pub serial_number: String,
    /// Revision of the document: 1.
    pub version: u32,
    /// The artifact it describes, and the program that wrote it.
    pub metadata: Metadata,
    /// Packages and pinned files.
    pub components: Vec<Component>,
}

/// The artifact that a document describes, and the program that wrote it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// `source_date_epoch`, RFC 3339.
    pub timestamp: String,
    /// The program that wrote it.
    pub tools: SbomTools,
    /// The artifact.
    pub component: Component,
}

/// Programs that wrote a document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SbomTools {
    /// pnb.
    pub components: Vec<Component>,
}

/// A package, a file, a program or the artifact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// `library`, `file`, `container`, `application` or `operating-system`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name for references within the document; unique.
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    pub bom_ref: Option<String>,
    /// Name.
    pub name: String,
    /// Version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `required` or `excluded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Digests of the package file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<Hash>,
    /// Package URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purl: Option<String>,
    /// Addresses of the file.
    #[serde(rename = "externalReferences", default, skip_serializing_if = "Vec::is_empty")]
    pub external_references: Vec<ExternalReference>,
}

/// A digest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hash {
    /// `SHA-256`.
    pub alg: String,
    /// 64 lower-case hexadecimal digits.
    pub content: String,
}

/// An address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalReference {
    /// `distribution`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub url: String,
}

impl Component {
    fn new(kind: &str, name: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            bom_ref: None,
            name: name.into(),
            version: None,
            scope: None,
            hashes: Vec::new(),
            purl: None,
            external_references: Vec::new(),
        }
    }

    fn with_file(mut self, role: Role, sha256: &Sha256Digest, url: Option<&str>) -> Self {
        let scope = match role {
            Role::Target => "required",
            Role::Tool => "excluded",
        };
        self.scope = Some(scope.to_owned());
        self.hashes = vec![Hash {
            alg: "SHA-256".to_owned(),
            content: sha256.to_hex(),
        }];
        if let Some(url) = url {
            self.external_references = vec![ExternalReference {
                kind: "distribution".to_owned(),
                url: url.to_owned(),
            }];
        }
        self
    }
}

/// Percent-encodes every byte except those that a package URL holds unescaped: letters, digits, `.`, `-`, `_`, `~` and `:`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// `pkg:deb/<distribution>/<name>@<version>?arch=<arch>&distro=<suite>`.
pub fn package_url(package: &PackageFact, archive: Option<&ArchiveFact>) -> String {
    let distribution = match archive.map(|a| a.distribution) {
        Some(Distribution::Ubuntu) => "ubuntu",
        Some(Distribution::Debian) | None => "debian",
    };
    let mut purl = format!(
        "pkg:deb/{distribution}/{}@{}?arch={}",
        percent_encode(&package.name),
        percent_encode(&package.version),
        percent_encode(&package.arch)
    );
    if let Some(archive) = archive {
        let _ = write!(purl, "&distro={}", percent_encode(&archive.suite.to_string()));
    }
    purl
}

fn of_package(package: &PackageFact, archive: Option<&ArchiveFact>) -> Component {
    let purl = package_url(package, archive);
    let mut component = Component::new("library", &package.name);
    component.version = Some(package.version.clone());
    component.bom_ref = Some(purl.clone());
    component.purl = Some(purl);
    component.with_file(package.role, &package.sha256, Some(&package.url))
}

fn of_file(file: &FileFact) -> Component {
    let mut component = Component::new("file", &file.name);
    component.bom_ref = Some(format!("file:{}", percent_encode(&file.name)));
    component.with_file(file.role, &file.sha256, file.url.as_deref())
}

/// `pkg:oci/<last part of the name>@sha256:<hex>?repository_url=<name>`.
fn of_base_image(base: &BaseImageFact) -> Component {
    let last = base.name.rsplit('/').next().unwrap_or(&base.name);
    let digest = percent_encode(&base.digest.to_string());
    let purl = format!(
        "pkg:oci/{}@{digest}?repository_url={}",
        percent_encode(last),
        percent_encode(&base.name)
    );
    let mut component = Component::new("container", &base.name);
    component.version = Some(base.digest.to_string());
    component.bom_ref = Some(purl.clone());
    component.purl = Some(purl);
    component.with_file(Role::Target, &base.digest.0, None)
}

/// The serial number of a document: `urn:uuid:` and a version 8 UUID (RFC 9562) from the SHA-256 of the document without the number.
pub fn serial_number(document: &str) -> String {
    let hash = Sha256::digest(document.as_bytes());
    let mut id = [0u8; 16];
    id.copy_from_slice(&hash[..16]);
    // Version 8 (made by the application), variant 10.
    id[6] = 0x80 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    let hex = hex::encode(id);
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("urn:uuid:{a}-{b}-{c}-{d}-{e}")
}

impl Bom {
    /// The document about the artifact that `manifest` describes.
    pub fn describe(manifest: &Manifest) -> Result<Self, ManifestError> {
        let mut pnb = Component::new("application", &manifest.builder.name);
        pnb.version = Some(manifest.builder.version.clone());
        let variants: Vec<&str> = manifest.variants.iter().map(|v| v.as_str()).collect();
        let mut artifact = Component::new(
            "operating-system",
            format!("powernode-{}-{}", variants.join("-"), manifest.arch),
        );
        artifact.bom_ref = Some("artifact".to_owned());
        artifact.version = Some(manifest.fsverity_root_hash.to_hex());
        let archive = |p: &PackageFact| manifest.archives.iter().find(|a| a.name == p.archive);
        let packages = manifest.packages.iter().map(|p| of_package(p, archive(p)));
        let files = manifest.files.iter().map(of_file);
        let base = manifest.base_image.iter().map(of_base_image);
        let mut components: Vec<Component> = packages.chain(files).chain(base).collect();
        components.sort_by(|a, b| a.bom_ref.cmp(&b.bom_ref));
        let unnumbered = Bom {
            bom_format: "CycloneDX".to_owned(),
            spec_version: "1.6".to_owned(),
            serial_number: String::new(),
            version: 1,
            metadata: Metadata {
                timestamp: manifest.source_date_epoch.to_rfc3339(),
                tools: SbomTools { components: vec![pnb] },
                component: artifact,
            },
            components,
        };
        // The serial number is a digest of the document without it.
        let serial_number = unnumbered.derived_serial()?;
        Ok(Bom {
            serial_number,
            ..unnumbered
        })
    }

    /// The serial number that belongs to the rest of the document.
    pub fn derived_serial(&self) -> Result<String, ManifestError> {
        let mut plain = self.clone();
        plain.serial_number.clear();
        Ok(serial_number(&plain.to_json()?))
    }

    /// The file's content.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        to_canonical(self, "the SBOM")
    }

    /// Reads the output of [`Bom::to_json`].
    pub fn read(bytes: &[u8], file: &str) -> Result<Self, ManifestError> {
        from_canonical(bytes, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_encoded() {
        let package = PackageFact {
            name: "libstdc++6".to_owned(),
            arch: "amd64".to_owned(),
            version: "1:14.2.0-19~bpo+1".to_owned(),
            source: None,
            archive: "trixie".to_owned(),
            url: "https://x/y".to_owned(),
            size: 1,
            sha256: Sha256Digest::new([1; 32]),
            sets: vec![],
            role: Role::Target,
        };
        assert_eq!(
            package_url(&package, None),
            "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19~bpo%2B1?arch=amd64"
        );
    }
}
