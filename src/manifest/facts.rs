//! The facts of a build that its statements are made from: plain values that the pipeline gathers.

use super::{BaseImageFact, License, ModuleTrustFact, OperatingSystem, PlatformFact, RecordedWorkload};
use crate::{
    graph::InputDigest,
    lock::Lockfile,
    model::{Arch, ArtifactForm, BuildOption, NodeId, RelPath, Sha256Digest, StageKey, Variant, VerityDigest},
    store::Output,
    verity::Digests,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything the statements about one artifact directory are made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Architecture of the artifact.
    pub arch: Arch,
    /// Its variant.
    pub variant: Variant,
    /// The form of the variant.
    pub form: ArtifactForm,
    /// The file that is the image, in forms that consist of one.
    pub image: Option<RelPath>,
    /// The lock it was built from.
    pub lock: &'a Lockfile,
    /// SHA-256 of the lock's file.
    pub lock_sha256: Sha256Digest,
    /// Revision of the repository: 40 or 64 hexadecimal digits; `None` outside a git repository.
    pub git_sha: Option<String>,
    /// Whether files of the repository that the build read differ from that revision.
    pub dirty: bool,
    /// Whether the user allowed that with `--allow-dirty`.
    pub allow_dirty: bool,
    /// Whether every stage ran with every layer of its sandbox, as `--hermetic` demands.
    pub hermetic: bool,
    /// Kernel release, as `uname -r` prints it.
    pub kernel_version: String,
    /// Kernel command line the artifact boots with by default, one line.
    pub kernel_command_line: String,
    /// fs-verity digest of the composefs image that is the root.
    pub root: VerityDigest,
    /// SHA-256 of the manifest of the OCI image; `None` for forms without one.
    pub oci_digest: Option<Sha256Digest>,
    /// The base image, if it is an input of a stage.
    pub base_image: Option<BaseImageFact>,
    /// The platform, if it is an input of a stage.
    pub platform: Option<PlatformFact>,
    /// Who vouches for modules, if somebody does.
    pub modules: Option<ModuleTrustFact>,
    /// The options of the build that an input of a stage depends on.
    pub options: BTreeSet<BuildOption>,
    /// The operating system of the root.
    pub operating_system: OperatingSystem,
    /// What the packages say about themselves, by the SHA-256 of their files.
    pub packages: BTreeMap<Sha256Digest, PackageDetails>,
    /// The agent in the root.
    pub agent: Agent,
    /// Version of pnb.
    pub pnb_version: String,
    /// Digests of pnb's own code, as they enter stage keys.
    pub code: CodeDigests,
    /// Version of the zstd library.
    pub zstd_version: String,
    /// Architecture of the build machine.
    pub build_arch: Arch,
    /// Package sets of the lock (`<stage>/<arch>`) that this build used, with their roles.
    pub package_sets: BTreeMap<String, Role>,
    /// Names of the lock's pinned files that this build used, with their roles.
    pub pinned_files: BTreeMap<String, Role>,
    /// Every stage that the artifact needs, each after the stages it needs itself.
    pub stages: Vec<StageFact>,
    /// The artifact's files, without the statements about it.
    pub artifacts: BTreeMap<RelPath, Digests>,
}

/// What a package says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageDetails {
    /// Its maintainer.
    pub maintainer: Option<String>,
    /// `name:arch` of the packages that its dependencies are satisfied by, in any of its sets; sorted.
    pub depends: BTreeSet<String>,
    /// Its licences; sorted.
    pub licenses: Vec<License>,
}

/// The role of an input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its files are in the artifact.
    Target,
    /// It is a tool that made the artifact.
    Tool,
}

/// The program that runs on the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Whether it is the diagnostic agent or a pinned one.
    pub kind: AgentKind,
    /// Its file's name in the lock or the repository.
    pub name: String,
    /// SHA-256 of the program.
    pub sha256: Sha256Digest,
}

/// The kind of agent that an artifact carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// The agent that comes with pnb, which only reports that the node has booted.
    Diagnostic,
    /// An agent from elsewhere, which the lock pins.
    Pinned,
}

/// Digests of pnb's own code that decides the outputs of a stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeDigests {
    /// Digest of the rooms that run a stage and take its outputs.
    pub sandbox: String,
    /// Digest of the built-in writers and of the versions of every library.
    pub writers: String,
}

/// A stage that ran, in this build or an earlier one.
#[derive(Clone, Debug)]
pub struct StageFact {
    /// The node of the graph.
    pub node: NodeId,
    /// Its key.
    pub key: StageKey,
    /// The command or writer.
    pub workload: RecordedWorkload,
    /// Environment variables beside the fixed ones.
    pub env: BTreeMap<String, String>,
    /// The policy of its sandbox, which is equal on every host.
    pub policy: serde_json::Value,
    /// The tree that was its root directory: the stage that has it as output `tree`, and its digest.
    pub root: Option<(NodeId, VerityDigest)>,
    /// The tree with its emulator, for stages that ran programs of another architecture.
    pub emulator: Option<(NodeId, VerityDigest)>,
    /// Its inputs by name.
    pub inputs: BTreeMap<String, InputFact>,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, Output>,
}

/// One input of a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputFact {
    /// Its origin.
    pub origin: Origin,
    /// Its content.
    pub digest: InputDigest,
}

/// The origin of an input of a stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Origin {
    /// An output of another stage.
    Stage {
        /// The stage's name.
        stage: String,
        /// The architecture it was made for.
        arch: Arch,
        /// The name of the output.
        output: String,
    },
    /// A file or directory of the repository, relative to its root.
    Repository(RelPath),
    /// A pinned file of the lock, by name.
    Lock(String),
    /// The platform, as the caller of pnb describes it.
    Platform,
    /// Who vouches for modules, as the caller of pnb says.
    #[serde(rename = "module-trust")]
    ModuleTrust,
    /// The base image of the lock.
    Base,
    /// A package set of the lock, `<stage>/<arch>`.
    Packages(String),
}
