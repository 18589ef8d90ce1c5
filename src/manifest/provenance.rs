//! `provenance.slsa.json`: the provenance of an artifact, as an unsigned in-toto statement with a SLSA predicate.
//!
//! It holds no time, host or invocation, so equal builds give equal bytes. The signature that is added on publishing says who built
//! it and when. Sources: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>,
//! <https://slsa.dev/spec/v1.0/provenance>. [`BUILD_TYPE`] is described in `docs/build-manifest.md`.

use super::{
    ManifestError,
    canonical::{from_canonical, to_canonical},
    document::{MANIFEST_FILE, Manifest, ModuleTrustFact, PackageFact, PlatformFact},
    sbom::package_url,
};
use crate::model::{Arch, BuildOption, Epoch, Sha256Digest, Variant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the file.
pub const PROVENANCE_FILE: &str = "provenance.slsa.json";
/// Type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Type of the predicate.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// How to read `externalParameters` and `resolvedDependencies`.
pub const BUILD_TYPE: &str = "urn:powernode:pnb:build:v1";

/// Digests of a file or revision, by algorithm.
pub type DigestSet = BTreeMap<String, String>;

/// An in-toto statement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The artifact's files.
    pub subject: Vec<Resource>,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// The provenance of the files.
    pub predicate: Provenance,
}

/// A file or revision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Name.
    pub name: String,
    /// Address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests.
    pub digest: DigestSet,
}

impl Resource {
    fn new(name: impl Into<String>, sha256: &Sha256Digest) -> Self {
        Self {
            name: name.into(),
            uri: None,
            digest: DigestSet::from([("sha256".to_owned(), sha256.to_hex())]),
        }
    }
    fn at(mut self, uri: String) -> Self {
        self.uri = Some(uri);
        self
    }
}

/// SLSA provenance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provenance {
    /// The parameters and inputs of the build.
    pub build_definition: BuildDefinition,
    /// The program that built.
    pub run_details: RunDetails,
}

/// The parameters and inputs of the build.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuildDefinition {
    /// [`BUILD_TYPE`].
    pub build_type: String,
    /// The choices of the user.
    pub external_parameters: ExternalParameters,
    /// The values that follow from them.
    pub internal_parameters: InternalParameters,
    /// Every input by digest: the lock, the revision, packages and pinned files.
    pub resolved_dependencies: Vec<Resource>,
}

/// The choices of the user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExternalParameters {
    /// Architecture.
    pub arch: Arch,
    /// Families.
    pub variants: Vec<Variant>,
    /// The options of the build, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<BuildOption>,
    /// The platform; only for families that carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformFact>,
    /// Who vouches for modules, if somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<ModuleTrustFact>,
}

/// The values that follow from the choices of the user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InternalParameters {
    /// Whether every stage ran with every layer of its sandbox.
    pub hermetic: bool,
    /// Whether files the build read differ from the revision.
    pub dirty: bool,
    /// Modification time of every file.
    pub source_date_epoch: Epoch,
}

/// The program that built.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDetails {
    /// pnb.
    pub builder: BuilderId,
    /// The manifest.
    pub byproducts: Vec<Resource>,
}

/// A builder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuilderId {
    /// `urn:powernode:pnb:<version>:<digest of the sandbox code>:<digest of the writers>`.
    pub id: String,
    /// Versions of its parts.
    pub version: BTreeMap<String, String>,
}

impl Statement {
    /// The statement about the artifact that `manifest` describes; `manifest_sha256` is the digest of its file.
    pub fn describe(manifest: &Manifest, manifest_sha256: &Sha256Digest) -> Self {
        let builder = &manifest.builder;
        let subject = manifest
            .artifacts
            .iter()
            .map(|(path, a)| Resource::new(path.to_string(), &a.sha256));
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject: subject.collect(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Provenance {
                build_definition: BuildDefinition {
                    build_type: BUILD_TYPE.to_owned(),
                    external_parameters: ExternalParameters {
                        arch: manifest.arch,
                        variants: manifest.variants.clone(),
                        options: manifest.options(),
                        platform: manifest.platform.clone(),
                        modules: manifest.modules.clone(),
                    },
                    internal_parameters: InternalParameters {
                        hermetic: manifest.hermetic,
                        dirty: manifest.source.dirty,
                        source_date_epoch: manifest.source_date_epoch,
                    },
                    resolved_dependencies: dependencies(manifest),
                },
                run_details: RunDetails {
                    builder: BuilderId {
                        id: format!(
                            "urn:powernode:pnb:{}:{}:{}",
                            builder.version, builder.code.sandbox, builder.code.writers
                        ),
                        version: BTreeMap::from([
                            ("pnb".to_owned(), builder.version.clone()),
                            ("zstd".to_owned(), builder.zstd.clone()),
                        ]),
                    },
                    byproducts: vec![Resource::new(MANIFEST_FILE, manifest_sha256)],
                },
            },
        }
    }

    /// The file's content.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        to_canonical(self, "the provenance")
    }

    /// Reads the output of [`Statement::to_json`].
    pub fn read(bytes: &[u8], file: &str) -> Result<Self, ManifestError> {
        from_canonical(bytes, file)
    }
}

/// Every input of a build by digest.
fn dependencies(manifest: &Manifest) -> Vec<Resource> {
    let mut out = vec![Resource::new("lockfile.toml", &manifest.lockfile.sha256)];
    if let Some(sha) = &manifest.git_sha {
        out.push(Resource {
            name: "source".to_owned(),
            uri: None,
            digest: DigestSet::from([("gitCommit".to_owned(), sha.clone())]),
        });
    }
    if let Some(base) = &manifest.base_image {
        let digests = [(String::new(), &base.digest), (":manifest".to_owned(), &base.manifest)].into_iter();
        let layers = base
            .layers
            .iter()
            .enumerate()
            .map(|(n, layer)| (format!(":layer:{n}"), layer));
        for (part, digest) in digests.chain(layers) {
            let at = format!("oci:{}@{digest}", base.name);
            out.push(Resource::new(format!("base-image{part}"), &digest.0).at(at));
        }
    }
    let archive = |p: &PackageFact| manifest.archives.iter().find(|a| a.name == p.archive);
    for package in &manifest.packages {
        let name = package_url(package, archive(package), &manifest.operating_system);
        out.push(Resource::new(name, &package.sha256).at(package.url.clone()));
    }
    for file in &manifest.files {
        let resource = Resource::new(format!("file:{}", file.name), &file.sha256);
        out.push(match &file.url {
            Some(url) => resource.at(url.clone()),
            None => resource,
        });
    }
    out
}
