//! `build-record.json`: the facts that differ from host to host and from run to run; the manifest has only those that do not.
//!
//! It is not listed in `SHA256SUMS`; it names the manifest it belongs to by digest.

use super::{
    ManifestError,
    canonical::{from_canonical, to_canonical},
};
use crate::{
    model::{Arch, Sha256Digest, StageKey},
    store::Record,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the file.
pub const RECORD_FILE: &str = "build-record.json";
/// Version of its schema.
pub const RECORD_VERSION: u32 = 1;

/// The record of one build.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    /// [`RECORD_VERSION`].
    pub schema_version: u32,
    /// SHA-256 of the `build-manifest.json` it belongs to.
    pub manifest_sha256: Sha256Digest,
    /// When the build began, seconds since 1970.
    pub started: u64,
    /// When it ended, seconds since 1970.
    pub finished: u64,
    /// The machine.
    pub host: Host,
    /// SHA-256 of the pnb program.
    pub pnb_sha256: Sha256Digest,
    /// Every stage of the manifest.
    pub stages: Vec<StageRun>,
    /// The result of building twice with varied surroundings, where that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproducibility: Option<Reproducibility>,
}

/// The result of building twice with varied surroundings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reproducibility {
    /// The axes that were varied in the second build, by name.
    pub varied: BTreeMap<String, Varied>,
    /// Axes that this host could not vary, each with the reason.
    pub not_varied: BTreeMap<String, String>,
    /// The machine that built twice.
    pub host: Host,
    /// When the comparison ended, seconds since 1970.
    pub finished: u64,
    /// Number of outputs of stages that were compared.
    pub outputs: u64,
    /// Whether all outputs, artifacts and statements were equal.
    pub equal: bool,
}

/// The values of one axis.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Varied {
    /// The value in the first build, which is that of every ordinary build.
    pub first: String,
    /// The value in the second build.
    pub second: String,
}

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its kernel, as `uname -srv` prints it.
    pub kernel: String,
    /// Its architecture.
    pub arch: Arch,
    /// Number of processors that pnb could use.
    pub cpus: u32,
}

/// The origin of the outputs of a stage in this build.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// The stage ran.
    Ran,
    /// The outputs were in the store or in a remote cache already; the other fields describe the earlier run.
    Cached,
}

/// One stage.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRun {
    /// Its name.
    pub stage: String,
    /// Architecture it was made for.
    pub arch: Arch,
    /// Its key.
    pub key: StageKey,
    /// Whether it ran in this build.
    pub run: RunState,
    /// The remote cache that gave the outputs, in this build or an earlier one; absent for a stage that ran on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Highest memory use, bytes.
    pub peak_memory: u64,
    /// The measurements that the sandbox made from inside.
    pub measured: serde_json::Value,
    /// Layers that were missing or weaker than the policy requires.
    pub weaker: Vec<String>,
}

impl StageRun {
    /// From the store's record of the stage.
    pub fn new(key: StageKey, run: RunState, source: Option<String>, record: &Record) -> Self {
        Self {
            stage: record.stage.clone(),
            arch: record.arch,
            key,
            run,
            source,
            cpu_ms: record.cpu_ms,
            wall_ms: record.wall_ms,
            peak_memory: record.peak_memory,
            measured: record.measured.clone(),
            weaker: record.weaker.clone(),
        }
    }
}

impl BuildRecord {
    /// The file's content.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        to_canonical(self, "the build record")
    }

    /// Reads the output of [`BuildRecord::to_json`].
    pub fn read(bytes: &[u8], file: &str) -> Result<Self, ManifestError> {
        let record: Self = from_canonical(bytes, file)?;
        if record.schema_version != RECORD_VERSION {
            return Err(ManifestError::SchemaVersion {
                file: file.to_owned(),
                found: record.schema_version.to_string(),
                known: RECORD_VERSION,
            });
        }
        Ok(record)
    }
}
