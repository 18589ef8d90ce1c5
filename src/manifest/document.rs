//! `build-manifest.json`: the inputs of an artifact and the stages that made it, equal on every machine.
//!
//! The first ten fields are the platform's own; `docs/build-manifest.md` gives the purpose of each field and
//! `docs/build-manifest.schema.json` is the schema. No field may differ between two hosts: no path, user or name of a host, and no
//! time except the lock's `source_date_epoch`.

use super::{
    ManifestError,
    canonical::{read_value, to_canonical},
    facts::{Agent, CodeDigests, Origin, Role},
    identity,
};
use crate::{
    lock::Distribution,
    model::{
        Arch, ArtifactForm, Epoch, ModelError, NodeId, RelPath, Sha256Digest, StageKey, Target, Variant, VerityDigest,
        excerpt,
    },
    store::Output,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Name of the file.
pub const MANIFEST_FILE: &str = "build-manifest.json";
/// Version of the schema this program reads and writes.
pub const SCHEMA_VERSION: u32 = 2;

/// A SHA-256 digest written as registries do: `sha256:<64 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PrefixedSha256(pub Sha256Digest);

impl fmt::Display for PrefixedSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}
impl FromStr for PrefixedSha256 {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| ModelError::Digest {
            kind: "sha256-prefixed",
            value: excerpt(text),
        })?;
        hex.parse().map(Self)
    }
}
impl Serialize for PrefixedSha256 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for PrefixedSha256 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The manifest of one artifact directory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Architecture of the artifact.
    pub arch: Arch,
    /// Digest of the base image; without one, that of the target packages, which take its place; see [`package_set_digest`].
    pub base_image_digest: PrefixedSha256,
    /// Moment of the newest snapshot that packages came from, `YYYYMMDDThhmmssZ`; `archives` has every snapshot.
    pub apt_snapshot: String,
    /// Kernel release.
    pub kernel_version: String,
    /// Revision of the repository; null outside a git repository.
    pub git_sha: Option<String>,
    /// The variants that this manifest describes: exactly one.
    pub variants: Vec<Variant>,
    /// The form of the variant: how a machine boots it, and where the root is.
    pub form: ArtifactForm,
    /// The file that is the image; absent in forms without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<RelPath>,
    /// The artifact's files by path below the manifest's directory.
    pub artifacts: BTreeMap<RelPath, Artifact>,
    /// Digest of the OCI manifest; null for forms without one.
    pub oci_digest: Option<PrefixedSha256>,
    /// fs-verity digest of the composefs image that is the root.
    pub fsverity_root_hash: VerityDigest,

    /// The agent in the root.
    pub agent: Agent,
    /// Every archive of the lock.
    pub archives: Vec<ArchiveFact>,
    /// The base image, if the packages of the root were installed on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image: Option<BaseImageFact>,
    /// The program that built.
    pub builder: Builder,
    /// Pinned files that are not packages.
    pub files: Vec<FileFact>,
    /// Whether every stage ran with every layer of its sandbox.
    pub hermetic: bool,
    /// Default kernel command line.
    pub kernel_command_line: String,
    /// The lock.
    pub lockfile: LockFact,
    /// The operating system of the root.
    pub operating_system: OperatingSystem,
    /// Packages whose files are in the artifact, and packages of the tools.
    pub packages: Vec<PackageFact>,
    /// Who vouches for modules, as the root states it; absent if nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<ModuleTrustFact>,
    /// The platform as boot partitions state it; only for families with a boot partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformFact>,
    /// Whether whoever has a console of a running node has a shell of root there.
    pub debug: bool,
    /// Whether the artifact has the drivers and firmware of graphics cards.
    pub graphics: bool,
    /// Whether whoever has the console of a node can get a shell on it.
    pub recovery: bool,
    /// How `fsverity_root_hash` is computed.
    pub root: RootFact,
    /// State of the repository.
    pub source: SourceFact,
    /// Modification time of every file of the artifact, seconds since 1970.
    pub source_date_epoch: Epoch,
    /// Whether a node takes lists of modules without a signature.
    pub unsigned_modules: bool,
    /// Every stage that the artifact needs, each after the stages it needs itself.
    pub stages: Vec<Stage>,
}

/// The platform that nodes enroll at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformFact {
    /// Its address, `SERVER` of identity.cfg; null when none was given.
    pub url: Option<String>,
    /// SHA-256 of powernode-ca.pem; null when none was given.
    pub ca_pem_sha256: Option<Sha256Digest>,
}

/// Who vouches for the modules of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleTrustFact {
    /// The keys with which a list may be signed.
    pub keys: Vec<ModuleKeyFact>,
}

/// A key with which a list of modules may be signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleKeyFact {
    /// Its name in the root, without `.pub`.
    pub name: String,
    /// SHA-256 of its file in the root.
    pub sha256: Sha256Digest,
}

/// One file of the artifact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// SHA-256 of its bytes.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its fs-verity digest (SHA-256, 4 KiB blocks, no salt).
    pub fsverity: VerityDigest,
}

/// A suite of an archive at a moment, as the lock pins it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveFact {
    /// The name packages refer to.
    pub name: String,
    /// Debian or Ubuntu.
    pub distribution: Distribution,
    /// Suite as in `dists/<suite>/`.
    pub suite: RelPath,
    /// Components taken from it.
    pub components: Vec<String>,
    /// Moment of the snapshot.
    pub snapshot: String,
    /// Canonical address of the snapshot.
    pub snapshot_url: String,
    /// SHA-256 of the verified `InRelease`.
    pub inrelease_sha256: Sha256Digest,
    /// Fingerprints of the keys that signed it.
    pub keys: Vec<String>,
}

/// The image on which the packages of the root were installed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseImageFact {
    /// Its name without a digest, e.g. `registry.example/team/base`.
    pub name: String,
    /// The pinned digest, of the manifest or of an index over several.
    pub digest: PrefixedSha256,
    /// Digest of the manifest for the architecture of the artifact.
    pub manifest: PrefixedSha256,
    /// Digests of its layers, lowest first.
    pub layers: Vec<PrefixedSha256>,
}

/// The program that built.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// `pnb`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digests of its code that decides the outputs of a stage.
    pub code: CodeDigests,
    /// Version of the zstd library in it.
    pub zstd: String,
    /// Architecture of the build machine, which is that of the tools.
    pub build_arch: Arch,
}

/// A pinned file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFact {
    /// The name by which stages refer to it.
    pub name: String,
    /// Path in the repository, for a file that lies there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RelPath>,
    /// Address, for a file that is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
    /// Whether the file is in the artifact.
    pub role: Role,
}

/// The lock a build used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFact {
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
    /// Its format version.
    pub version: u32,
}

/// A package.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFact {
    /// Package name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Debian version.
    pub version: String,
    /// Its source package, which is what advisories name.
    pub source: SourcePackage,
    /// The maintainer, as the package states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintainer: Option<String>,
    /// `name:arch` of the packages that its dependencies are satisfied by, in the sets that both belong to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<String>,
    /// The licences that its machine-readable copyright file states; empty where it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<License>,
    /// The entry of `archives` that it comes from.
    pub archive: String,
    /// Address of the file: the archive's snapshot and the path in its pool.
    pub url: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
    /// The package sets of this build it belongs to.
    pub sets: Vec<String>,
    /// Whether its files are in the artifact.
    pub role: Role,
}

/// The source of a package.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePackage {
    /// Name of the source package.
    pub name: String,
    /// Its version, without the mark of a rebuild of the binary package.
    pub version: String,
}

/// A licence.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum License {
    /// An SPDX expression; only where the name in the package has one meaning.
    Spdx(String),
    /// A name that the package gives to a licence.
    Name(String),
}

/// The operating system of the root, as its `os-release` states it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatingSystem {
    /// `ID`, e.g. `debian`.
    pub id: String,
    /// `VERSION_ID`, e.g. `13`; of a suite without a number `VERSION_CODENAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `PRETTY_NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `CPE_NAME`, where the distribution defines one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpe: Option<String>,
}

/// How the root digest is computed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootFact {
    /// Format of the image: `composefs-v1`.
    pub format: String,
    /// Hash of the Merkle tree: `sha256`.
    pub hash: String,
    /// Block size of the Merkle tree in bytes: 4096.
    pub block_size: u32,
    /// Salt in hexadecimal: none.
    pub salt: String,
}

impl Default for RootFact {
    fn default() -> Self {
        Self {
            format: "composefs-v1".to_owned(),
            hash: "sha256".to_owned(),
            block_size: 4096,
            salt: String::new(),
        }
    }
}

/// State of the repository.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFact {
    /// Whether files the build read differ from `git_sha`.
    pub dirty: bool,
    /// Whether that was allowed by `--allow-dirty`.
    pub allow_dirty: bool,
}

/// One stage.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name.
    pub stage: String,
    /// Architecture it was made for.
    pub arch: Arch,
    /// BLAKE3 of everything that may change its outputs.
    pub key: StageKey,
    /// The command or writer.
    pub workload: RecordedWorkload,
    /// Environment variables beside the fixed ones.
    pub env: BTreeMap<String, String>,
    /// The policy of its sandbox.
    pub policy: serde_json::Value,
    /// The tree that was its root directory; null for an empty root.
    pub root: Option<StageInput>,
    /// The tree with its emulator; only for stages that ran programs of another architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulator: Option<StageInput>,
    /// Its inputs by name.
    pub inputs: BTreeMap<String, StageInput>,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, Output>,
}

impl Stage {
    /// The node of the graph.
    pub fn node(&self) -> NodeId {
        NodeId::new(&self.stage, self.arch)
    }
}

/// The command or writer of a stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedWorkload {
    /// A program and its arguments.
    Command(Vec<String>),
    /// A writer built into pnb.
    Writer(String),
}

/// One input of a stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageInput {
    /// Its origin.
    pub origin: Origin,
    /// Its content.
    pub content: InputContent,
}

/// Content of an input.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum InputContent {
    /// A tree.
    Tree {
        /// fs-verity digest of its dump.
        digest: VerityDigest,
    },
    /// A file.
    File {
        /// fs-verity digest of its bytes.
        digest: VerityDigest,
    },
    /// A pinned file of the lock.
    Pinned {
        /// SHA-256 of its bytes.
        sha256: Sha256Digest,
    },
    /// A directory of packages.
    Packages {
        /// Number of packages.
        count: u64,
        /// Whether an index for apt lies beside them.
        index: bool,
        /// Their [`package_set_digest`].
        sha256: Sha256Digest,
    },
}

/// Digest of a set of packages: SHA-256 of one line `<sha256>  <name>_<version>_<arch>.deb` for each, as `sha256sum` writes it,
/// sorted by their bytes. A colon in a version is written `%3a`, as in a pool.
pub fn package_set_digest<'a>(packages: impl IntoIterator<Item = (&'a str, &'a Sha256Digest)>) -> Sha256Digest {
    use sha2::{Digest as _, Sha256};
    let mut lines: Vec<String> = packages
        .into_iter()
        .map(|(file, sha256)| format!("{sha256}  {file}\n"))
        .collect();
    lines.sort();
    lines.dedup();
    Sha256Digest::new(Sha256::digest(lines.concat().as_bytes()).into())
}

/// The number of packages that `wanted` accepts, and their [`package_set_digest`].
pub(super) fn set_digest(packages: &[PackageFact], wanted: impl Fn(&PackageFact) -> bool) -> (u64, Sha256Digest) {
    let files: Vec<(String, &Sha256Digest)> = packages
        .iter()
        .filter(|p| wanted(p))
        .map(|p| (p.file_name(), &p.sha256))
        .collect();
    let digest = package_set_digest(files.iter().map(|(name, sha256)| (name.as_str(), *sha256)));
    (files.len() as u64, digest)
}

impl PackageFact {
    /// `<name>_<version>_<arch>.deb`.
    pub fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.arch)
    }
}

impl Manifest {
    /// Reads a manifest. It must follow this schema, have no unknown field, and be in canonical form, byte for byte.
    pub fn read(bytes: &[u8], file: &str) -> Result<Self, ManifestError> {
        let value = read_value(bytes, file)?;
        let version = &value["schema_version"];
        if !version.is_null() && *version != SCHEMA_VERSION {
            return Err(ManifestError::SchemaVersion {
                file: file.to_owned(),
                found: version.to_string(),
                known: SCHEMA_VERSION,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|source| ManifestError::Json {
            file: file.to_owned(),
            source,
        })?;
        manifest.check_image().map_err(|problem| ManifestError::Field {
            file: file.to_owned(),
            place: "/image".to_owned(),
            problem,
        })?;
        Ok(manifest)
    }

    /// Checks that there is an image exactly in the forms that have one, and that it is one of the files.
    fn check_image(&self) -> Result<(), String> {
        match &self.image {
            Some(image) if !self.form.has_image() => {
                Err(format!("is {image}, but the form {} has no image", self.form))
            }
            Some(image) if !self.artifacts.contains_key(image) => {
                Err(format!("is {image}, which is no file of the artifact"))
            }
            None if self.form.has_image() => Err(format!("is not there, but the form {} has an image", self.form)),
            _ => Ok(()),
        }
    }

    /// Checks that each name, version, address and moment has the form of its field; `file` names the manifest in errors.
    ///
    /// # Errors
    /// [`ManifestError::Field`] with the first that has another.
    pub fn check_names(&self, file: &str) -> Result<(), ManifestError> {
        identity::check(self).map_err(|(place, problem)| ManifestError::Field {
            file: file.to_owned(),
            place,
            problem,
        })
    }

    /// The file's content.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        to_canonical(self, "the manifest")
    }

    /// The variant this manifest is about.
    pub fn variant(&self) -> Option<Variant> {
        match self.variants[..] {
            [variant] => Some(variant),
            _ => None,
        }
    }

    /// The artifact this manifest describes; `None` when it names no variant or several.
    pub fn target(&self) -> Option<Target> {
        let arch = self.arch;
        self.variant().map(|variant| Target { variant, arch })
    }

    /// The number of packages that `wanted` accepts, and their [`package_set_digest`].
    pub fn set_digest(&self, wanted: impl Fn(&PackageFact) -> bool) -> (u64, Sha256Digest) {
        set_digest(&self.packages, wanted)
    }
}
