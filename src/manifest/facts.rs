//! What a build hands over to be described. Plain values, gathered by the pipeline: nothing here looks anything up.

use super::{PlatformFact, RecordedWorkload};
use crate::{
    graph::InputDigest,
    lock::Lockfile,
    model::{Arch, NodeId, RelPath, Sha256Digest, StageKey, Variant, VerityDigest},
    store::Output,
    verity::Digests,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything the statements about one artifact directory are made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Architecture of the artifact.
    pub arch: Arch,
    /// Its family.
    pub variant: Variant,
    /// The lock it was built from.
    pub lock: &'a Lockfile,
    /// SHA-256 of the lock's file.
    pub lock_sha256: Sha256Digest,
    /// Revision of the repository: 40 or 64 hexadecimal digits; none outside a git repository.
    pub git_sha: Option<String>,
    /// Whether files of the repository that the build read differ from that revision.
    pub dirty: bool,
    /// Whether the user allowed that with `--allow-dirty`.
    pub allow_dirty: bool,
    /// Whether every stage ran with every layer of its sandbox, as `--hermetic` demands.
    pub hermetic: bool,
    /// Kernel release, as `uname -r` says it.
    pub kernel_version: String,
    /// Kernel command line the artifact boots with by default, one line.
    pub kernel_command_line: String,
    /// fs-verity digest of the composefs image that is the root.
    pub root: VerityDigest,
    /// What was said of the platform, if a stage saw it.
    pub platform: Option<PlatformFact>,
    /// The agent in the root.
    pub agent: Agent,
    /// Version of pnb.
    pub pnb_version: String,
    /// Digests of pnb's own code, as they enter stage keys.
    pub code: CodeDigests,
    /// Version of the zstd library that compressed.
    pub zstd_version: String,
    /// Architecture of the build machine.
    pub build_arch: Arch,
    /// Package sets of the lock (`<stage>/<arch>`) that this build took, and what became of their files.
    pub package_sets: BTreeMap<String, Role>,
    /// Names of the lock's pinned files that this build took.
    pub pinned_files: BTreeMap<String, Role>,
    /// Every stage behind the artifact, each after those it needs.
    pub stages: Vec<StageFact>,
    /// The artifact's files, without the statements about it.
    pub artifacts: BTreeMap<RelPath, Digests>,
}

/// What becomes of an input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its files are in the artifact.
    Target,
    /// It only made the artifact.
    Tool,
}

/// The program that runs on the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Whether it is the real one.
    pub kind: AgentKind,
    /// Its file's name in the lock or the repository.
    pub name: String,
    /// SHA-256 of the program.
    pub sha256: Sha256Digest,
}

/// Which agent an artifact carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// The one that comes with pnb and only says that the node came up.
    Diagnostic,
    /// The one the lock pins.
    Pinned,
}

/// Digests of pnb's own code that decides what a stage makes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeDigests {
    /// Of the rooms that run a stage and take its outputs.
    pub sandbox: String,
    /// Of the built-in writers and the versions of every library.
    pub writers: String,
}

/// One stage that ran, now or earlier.
#[derive(Clone, Debug)]
pub struct StageFact {
    /// Which.
    pub node: NodeId,
    /// Its key.
    pub key: StageKey,
    /// What ran.
    pub workload: RecordedWorkload,
    /// Environment variables beside the fixed ones.
    pub env: BTreeMap<String, String>,
    /// The sandbox policy it ran under: equal on every host.
    pub policy: serde_json::Value,
    /// The tree that was its root directory: the stage whose output `tree` it is, and its digest.
    pub root: Option<(NodeId, VerityDigest)>,
    /// The tree that its emulator came from, where programs of another architecture ran.
    pub emulator: Option<(NodeId, VerityDigest)>,
    /// Its inputs by name.
    pub inputs: BTreeMap<String, InputFact>,
    /// What it made, by name.
    pub outputs: BTreeMap<String, Output>,
}

/// One input of a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputFact {
    /// Where it came from.
    pub origin: Origin,
    /// Its content.
    pub digest: InputDigest,
}

/// Where an input of a stage comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Origin {
    /// An output of another stage.
    Stage {
        /// The stage's name.
        stage: String,
        /// The architecture it was made for.
        arch: Arch,
        /// Which of its outputs.
        output: String,
    },
    /// A file or directory of the repository, relative to its root.
    Repository(RelPath),
    /// A pinned file of the lock, by name.
    Lock(String),
    /// What the caller said of the platform.
    Platform,
    /// A package set of the lock, `<stage>/<arch>`.
    Packages(String),
}
