//! `build-record.json`: what differs from host to host and from run to run, beside the manifest, which does not.
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
    /// What rebuilding under other circumstances showed, when it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproducibility: Option<Reproducibility>,
}

/// What building the same again under other circumstances showed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reproducibility {
    /// What was different in the second build, by the axis' name.
    pub varied: BTreeMap<String, Varied>,
    /// Axes that this host could not vary, and why.
    pub not_varied: BTreeMap<String, String>,
    /// The machine that built twice.
    pub host: Host,
    /// When the second build had ended, seconds since 1970.
    pub finished: u64,
    /// How many outputs of stages were compared.
    pub outputs: u64,
    /// Whether all of them, the artifacts and the statements came out the same.
    pub equal: bool,
}

/// The values of one axis.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Varied {
    /// In the first build, as every build has it.
    pub first: String,
    /// In the second.
    pub second: String,
}

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its kernel, as `uname -srv` says it.
    pub kernel: String,
    /// Its architecture.
    pub arch: Arch,
    /// Processors pnb could use.
    pub cpus: u32,
}

/// How a stage came by its outputs this time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It ran.
    Ran,
    /// They were in the store from an earlier run; what follows tells of that run.
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
    /// Whether it ran this time.
    pub run: RunState,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Highest memory use seen, in bytes.
    pub peak_memory: u64,
    /// What the sandbox measured from inside.
    pub measured: serde_json::Value,
    /// Layers that were missing or weaker than the policy asks.
    pub weaker: Vec<String>,
}

impl StageRun {
    /// From the store's record of the stage.
    pub fn new(key: StageKey, run: RunState, record: &Record) -> Self {
        Self {
            stage: record.stage.clone(),
            arch: record.arch,
            key,
            run,
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

    /// Reads what [`BuildRecord::to_json`] writes.
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
