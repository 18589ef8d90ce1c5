//! `sbom.cdx.json`: the packages behind an artifact, as CycloneDX 1.6.
//!
//! Packages whose files are in the artifact have the scope `required`; packages of tools have the scope `excluded`, which the
//! specification reserves for "component usage for test and other non-runtime purposes". The time stamp is the lock's
//! `source_date_epoch` and the serial number is derived from the rest of the file, so equal builds give equal bytes.
//!
//! A scanner looks for the distribution in a component of the type `operating-system`, and for advisories by the source of a package:
//! Debian's tracker knows `glibc`, not `libc6`. grype reads both from the qualifiers `distro` and `upstream` of package URLs, trivy the
//! source from properties `aquasecurity:trivy:Src…`.
//! Source: <https://cyclonedx.org/docs/1.6/json/>; package URLs: <https://github.com/package-url/purl-spec>, type `deb`; properties:
//! <https://github.com/aquasecurity/trivy/discussions/11139>.

use super::{
    ManifestError,
    canonical::{from_canonical, to_canonical},
    document::{ArchiveFact, BaseImageFact, FileFact, License, Manifest, OperatingSystem, PackageFact, SourcePackage},
    facts::Role,
};
use crate::{lock::Distribution, model::Sha256Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fmt::Write};

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
    /// The operating system, packages and pinned files.
    pub components: Vec<Component>,
    /// The components that each component needs.
    pub dependencies: Vec<Dependency>,
}

/// The components that a component needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// The component.
    #[serde(rename = "ref")]
    pub component: String,
    /// What it needs.
    #[serde(rename = "dependsOn", default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
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
    /// `library`, `file`, `container`, `application`, `operating-system` or, for the artifact, `platform`.
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
    /// The maintainer of the package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<Supplier>,
    /// Licences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<LicenseChoice>,
    /// Common Platform Enumeration, where the distribution defines one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpe: Option<String>,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
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
    /// Facts for which CycloneDX has no field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<Property>,
}

/// An organisation or a person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supplier {
    /// Name.
    pub name: String,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contact: Vec<Contact>,
}

/// An address of an organisation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Electronic mail.
    pub email: String,
}

/// An element of the list of licences: one expression, or one of several licences.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum LicenseChoice {
    /// An SPDX expression, which stands alone in the list.
    Expression(String),
    /// A licence.
    License(LicenseEntry),
}

/// A licence: an SPDX identifier or a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenseEntry {
    /// SPDX identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A name without an identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `declared`: the package states it.
    pub acknowledgement: String,
}

/// A named value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
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
            supplier: None,
            licenses: Vec::new(),
            cpe: None,
            description: None,
            scope: None,
            hashes: Vec::new(),
            purl: None,
            external_references: Vec::new(),
            properties: Vec::new(),
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

/// `pkg:deb/<distribution>/<name>@<version>?arch=<arch>&distro=<distribution>-<version>&upstream=<source>[@<version>]`; the version of
/// the source where it is not that of the package. A package of another distribution than the root's has its suite as `distro`.
pub fn package_url(package: &PackageFact, archive: Option<&ArchiveFact>, system: &OperatingSystem) -> String {
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
    let distro = match (&system.version, archive) {
        (Some(version), _) if system.id == distribution => Some(format!("{distribution}-{version}")),
        (_, Some(archive)) => Some(archive.suite.to_string()),
        (_, None) => None,
    };
    if let Some(distro) = distro {
        let _ = write!(purl, "&distro={}", percent_encode(&distro));
    }
    let source = &package.source;
    if source.version != package.version {
        let upstream = format!("{}@{}", source.name, source.version);
        let _ = write!(purl, "&upstream={}", percent_encode(&upstream));
    } else if source.name != package.name {
        let _ = write!(purl, "&upstream={}", percent_encode(&source.name));
    }
    purl
}

fn of_package(package: &PackageFact, purl: String) -> Component {
    let mut component = Component::new("library", &package.name);
    component.version = Some(package.version.clone());
    component.bom_ref = Some(purl.clone());
    component.purl = Some(purl);
    component.supplier = package.maintainer.as_deref().map(supplier);
    component.licenses = licenses(&package.licenses);
    component.properties = properties(&package.source);
    component.with_file(package.role, &package.sha256, Some(&package.url))
}

/// The source of a package as trivy reads it: a Debian version in its three parts.
fn properties(source: &SourcePackage) -> Vec<Property> {
    let (epoch, rest) = match source.version.split_once(':') {
        Some((epoch, rest)) => (Some(epoch), rest),
        None => (None, source.version.as_str()),
    };
    let (upstream, revision) = match rest.rsplit_once('-') {
        Some((upstream, revision)) => (upstream, Some(revision)),
        None => (rest, None),
    };
    let values = [
        ("PkgType", Some("debian")),
        ("SrcEpoch", epoch.filter(|epoch| *epoch != "0")),
        ("SrcName", Some(source.name.as_str())),
        ("SrcRelease", revision),
        ("SrcVersion", Some(upstream)),
    ];
    let property = |(name, value): (&str, Option<&str>)| {
        value.map(|value| Property {
            name: format!("aquasecurity:trivy:{name}"),
            value: value.to_owned(),
        })
    };
    values.into_iter().filter_map(property).collect()
}

/// `Name <address>` as a name and an address.
fn supplier(maintainer: &str) -> Supplier {
    let (name, email) = match maintainer.split_once('<') {
        Some((name, email)) => (
            name.trim().trim_matches('"'),
            email.split('>').next().unwrap_or_default(),
        ),
        None => (maintainer, ""),
    };
    let contact = match email.contains('@') {
        true => vec![Contact {
            email: email.trim().to_owned(),
        }],
        false => Vec::new(),
    };
    let name = if name.is_empty() { maintainer } else { name };
    Supplier {
        name: name.to_owned(),
        contact,
    }
}

/// The licences of a package: one expression if each has one, otherwise a list.
fn licenses(all: &[License]) -> Vec<LicenseChoice> {
    let entry = |id: Option<String>, name: Option<String>| {
        LicenseChoice::License(LicenseEntry {
            id,
            name,
            acknowledgement: "declared".to_owned(),
        })
    };
    let single = |text: &str| !text.contains(' ');
    let expressions: Option<Vec<&str>> = all
        .iter()
        .map(|license| match license {
            License::Spdx(text) => Some(text.as_str()),
            License::Name(_) => None,
        })
        .collect();
    match expressions.as_deref() {
        Some([]) => Vec::new(),
        Some([only]) if single(only) => vec![entry(Some((*only).to_owned()), None)],
        Some([only]) => vec![LicenseChoice::Expression((*only).to_owned())],
        Some(several) => {
            let part = |text: &&str| match text.contains(" OR ") {
                true => format!("({text})"),
                false => (*text).to_owned(),
            };
            let parts: Vec<String> = several.iter().map(part).collect();
            vec![LicenseChoice::Expression(parts.join(" AND "))]
        }
        None => all
            .iter()
            .map(|license| match license {
                License::Spdx(text) if single(text) => entry(Some(text.clone()), None),
                License::Spdx(text) | License::Name(text) => entry(None, Some(text.clone())),
            })
            .collect(),
    }
}

/// The operating system: the component by which a scanner chooses the advisories.
fn of_system(system: &OperatingSystem) -> Component {
    let mut component = Component::new("operating-system", &system.id);
    component.bom_ref = Some("operating-system".to_owned());
    component.version.clone_from(&system.version);
    component.description.clone_from(&system.name);
    component.cpe.clone_from(&system.cpe);
    component.scope = Some("required".to_owned());
    component
}

/// What each component needs. The artifact consists of the operating system, the pinned files and the base image; the operating system
/// of the packages in the artifact; a package needs those that its dependencies are satisfied by.
fn dependencies(manifest: &Manifest, packages: &[Component], rest: &[Component]) -> Vec<Dependency> {
    let name = |component: &Component| component.bom_ref.clone().unwrap_or_default();
    let required = |component: &&Component| component.scope.as_deref() == Some("required");
    let depends = |component: String, mut depends_on: Vec<String>| {
        depends_on.sort();
        depends_on.dedup();
        Dependency { component, depends_on }
    };
    let mut out = vec![
        depends("artifact".to_owned(), rest.iter().filter(required).map(name).collect()),
        depends(
            "operating-system".to_owned(),
            packages.iter().filter(required).map(name).collect(),
        ),
    ];
    let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, package) in manifest.packages.iter().enumerate() {
        by_name
            .entry(format!("{}:{}", package.name, package.arch))
            .or_default()
            .push(at);
    }
    for (package, component) in manifest.packages.iter().zip(packages) {
        let shares = |at: &&usize| {
            let other = &manifest.packages[**at];
            other.sets.iter().any(|set| package.sets.contains(set))
        };
        let needed = package
            .depends
            .iter()
            .filter_map(|needed| by_name.get(needed))
            .flatten();
        let needed = needed.filter(shares).map(|at| name(&packages[*at])).collect();
        out.push(depends(name(component), needed));
    }
    out.sort_by(|a, b| a.component.cmp(&b.component));
    out
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
            "platform",
            format!("powernode-{}-{}", variants.join("-"), manifest.arch),
        );
        artifact.bom_ref = Some("artifact".to_owned());
        artifact.version = Some(manifest.fsverity_root_hash.to_hex());
        let archive = |p: &PackageFact| manifest.archives.iter().find(|a| a.name == p.archive);
        let system = &manifest.operating_system;
        let packages: Vec<Component> = manifest
            .packages
            .iter()
            .map(|p| of_package(p, package_url(p, archive(p), system)))
            .collect();
        let files = manifest.files.iter().map(of_file);
        let base = manifest.base_image.iter().map(of_base_image);
        let rest: Vec<Component> = [of_system(system)].into_iter().chain(files).chain(base).collect();
        let dependencies = dependencies(manifest, &packages, &rest);
        let mut components: Vec<Component> = packages.into_iter().chain(rest).collect();
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
            dependencies,
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

    fn package(name: &str, version: &str, source: (&str, &str)) -> PackageFact {
        PackageFact {
            name: name.to_owned(),
            arch: "amd64".to_owned(),
            version: version.to_owned(),
            source: SourcePackage {
                name: source.0.to_owned(),
                version: source.1.to_owned(),
            },
            maintainer: None,
            depends: vec![],
            licenses: vec![],
            archive: "trixie".to_owned(),
            url: "https://x/y".to_owned(),
            size: 1,
            sha256: Sha256Digest::new([1; 32]),
            sets: vec![],
            role: Role::Target,
        }
    }

    #[test]
    fn package_urls_are_encoded_and_name_distribution_and_source() {
        let debian = OperatingSystem {
            id: "debian".to_owned(),
            version: Some("13".to_owned()),
            ..OperatingSystem::default()
        };
        let none = OperatingSystem::default();
        let version = "1:14.2.0-19~bpo+1";
        let own = package("libstdc++6", version, ("libstdc++6", version));
        let of = |package: &PackageFact, system| package_url(package, None, system);
        let begin = "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19~bpo%2B1?arch=amd64";
        assert_eq!(of(&own, &none), begin);
        assert_eq!(of(&own, &debian), format!("{begin}&distro=debian-13"));
        let other = package("libstdc++6", version, ("gcc-14", version));
        assert_eq!(of(&other, &debian), format!("{begin}&distro=debian-13&upstream=gcc-14"));
        let rebuilt = package("bash", "5.2.37-2+b8", ("bash", "5.2.37-2"));
        assert_eq!(
            of(&rebuilt, &debian),
            "pkg:deb/debian/bash@5.2.37-2%2Bb8?arch=amd64&distro=debian-13&upstream=bash%405.2.37-2"
        );
    }

    #[test]
    fn versions_of_sources_are_taken_apart_as_dpkg_does() {
        let values = |version: &str| -> Vec<String> {
            let source = SourcePackage {
                name: "x".to_owned(),
                version: version.to_owned(),
            };
            let all = properties(&source).into_iter();
            all.map(|p| format!("{}={}", p.name.trim_start_matches("aquasecurity:trivy:"), p.value))
                .collect()
        };
        assert_eq!(
            values("1:2.3-4-5"),
            [
                "PkgType=debian",
                "SrcEpoch=1",
                "SrcName=x",
                "SrcRelease=5",
                "SrcVersion=2.3-4"
            ]
        );
        assert_eq!(values("2.3+git"), ["PkgType=debian", "SrcName=x", "SrcVersion=2.3+git"]);
        assert_eq!(
            values("0:1-1"),
            ["PkgType=debian", "SrcName=x", "SrcRelease=1", "SrcVersion=1"]
        );
    }

    #[test]
    fn an_expression_stands_alone_and_a_name_makes_a_list() {
        let spdx = |text: &str| License::Spdx(text.to_owned());
        let json = |all: &[License]| serde_json::to_string(&licenses(all)).expect("JSON");
        assert_eq!(json(&[]), "[]");
        assert_eq!(
            json(&[spdx("MIT")]),
            r#"[{"license":{"id":"MIT","acknowledgement":"declared"}}]"#
        );
        assert_eq!(
            json(&[spdx("ISC"), spdx("MIT OR Zlib")]),
            r#"[{"expression":"ISC AND (MIT OR Zlib)"}]"#
        );
        assert_eq!(
            json(&[
                spdx("MIT"),
                spdx("ISC OR MIT"),
                License::Name("public-domain".to_owned())
            ]),
            concat!(
                r#"[{"license":{"id":"MIT","acknowledgement":"declared"}},"#,
                r#"{"license":{"name":"ISC OR MIT","acknowledgement":"declared"}},"#,
                r#"{"license":{"name":"public-domain","acknowledgement":"declared"}}]"#
            )
        );
        let found = supplier("Debian X Team <x@lists.debian.org>");
        assert_eq!(
            (found.name.as_str(), found.contact[0].email.as_str()),
            ("Debian X Team", "x@lists.debian.org")
        );
        assert_eq!(supplier("nobody").name, "nobody");
    }
}
