//! The key of a stage: a digest of everything that decides its outputs.
//!
//! The key is BLAKE3 of a text of one `name value` line each, in this order:
//!
//! | line | holds | why |
//! |---|---|---|
//! | `pnb-stage-key` | version of this table | a changed table changes every key |
//! | `code.sandbox` | digest of the source of the rooms that run a stage and take its outputs | they decide what the stage sees and what leaves it |
//! | `code.writers` | digest of the source of the writers, and of `Cargo.lock` | only for stages with a writer, or one that prepares |
//! | `stage`, `arch`, `build-arch` | name and architectures | they reach the stage as `PNB_*` |
//! | `epoch` | `SOURCE_DATE_EPOCH` | every time stamp |
//! | `workload` | command line or writer's name | |
//! | `prepare` | name of the writer that runs before the command | only if there is one |
//! | `root` | digest of the tree that is `/` | every program and library |
//! | `emulator` | digest of the tree that holds qemu-user | only where programs of another architecture are run |
//! | `input.<name>` | digest of the tree or file; for packages one line per file with its SHA-256 | |
//! | `env.<name>` | value | |
//! | `sandbox`, `limits`, `output.<name>` | their settings as canonical JSON | which input an output is (`from`) is one of them |
//!
//! Not in the key: the summary, the host, the store's place, users, times, the number of jobs. Inputs from other stages
//! enter by the digest of what those made, not by their keys: a stage that ran again and made the same stops the rebuild.

use super::{DeclaredOutput, GraphError, Sandbox, StageFile, StageLimits, StageWorkload};
use crate::model::{Arch, Epoch, NodeId, Sha256Digest, StageKey, VerityDigest};
use std::{collections::BTreeMap, fmt::Write};

/// Version of the table above.
const KEY_VERSION: u32 = 1;

/// Digest of one input's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InputDigest {
    /// A tree, by its dump's digest.
    Tree(VerityDigest),
    /// A file.
    File(VerityDigest),
    /// A pinned file of the lock.
    Pinned(Sha256Digest),
    /// A directory of packages: file name and SHA-256 of each, and the suite that an index beside them names, if there is one.
    Packages(Vec<(String, Sha256Digest)>, Option<String>),
}

/// The canonical form of a stage: what its key is the digest of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Canonical(String);

/// Digests of pnb's own code that decides what a stage makes.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// Of the rooms that run a stage.
    pub sandbox: &'a str,
    /// Of the writers.
    pub writers: &'a str,
}

/// Everything that enters a stage's key.
#[derive(Clone, Copy, Debug)]
pub struct KeyInputs<'a> {
    /// The node.
    pub id: &'a NodeId,
    /// Its `stage.toml`.
    pub file: &'a StageFile,
    /// Architecture of the tools.
    pub build_arch: Arch,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Epoch,
    /// Digests of pnb's own code.
    pub code: Code<'a>,
    /// The tree that is `/`.
    pub root: Option<&'a VerityDigest>,
    /// The tree that holds qemu-user.
    pub emulator: Option<&'a VerityDigest>,
    /// Every input by name, the stage's own directory included.
    pub inputs: &'a BTreeMap<String, InputDigest>,
}

impl Canonical {
    /// Writes the form of a node.
    pub fn new(stage: &KeyInputs<'_>) -> Result<Self, GraphError> {
        let KeyInputs { id, file, .. } = *stage;
        let json = |value: Result<String, serde_json::Error>| value.map_err(|e| file.error(0, e.to_string()));
        let mut lines = Lines(String::new());
        lines.add("pnb-stage-key", KEY_VERSION);
        lines.add("code.sandbox", stage.code.sandbox);
        if file.workload.writer().is_some() {
            lines.add("code.writers", stage.code.writers);
        }
        lines.add("stage", &id.stage);
        lines.add("arch", id.arch);
        lines.add("build-arch", stage.build_arch);
        lines.add("epoch", stage.epoch);
        match &file.workload {
            StageWorkload::Command { argv, before } => {
                lines.add("workload", format!("command {}", json(serde_json::to_string(argv))?));
                if let Some(writer) = before {
                    lines.add("prepare", format!("writer {}", writer.get_ref()));
                }
            }
            StageWorkload::Writer(name) => lines.add("workload", format!("writer {}", name.get_ref())),
        }
        if let Some(root) = stage.root {
            lines.add("root", root);
        }
        if let Some(emulator) = stage.emulator {
            lines.add("emulator", emulator);
        }
        for (name, digest) in stage.inputs {
            match digest {
                InputDigest::Tree(digest) => lines.add(&format!("input.{name}"), format!("tree {digest}")),
                InputDigest::File(digest) => lines.add(&format!("input.{name}"), format!("file {digest}")),
                InputDigest::Pinned(sha256) => lines.add(&format!("input.{name}"), format!("sha256 {sha256}")),
                InputDigest::Packages(files, index) => {
                    let index = index.as_deref().unwrap_or("-");
                    lines.add(&format!("input.{name}"), format!("packages index {index}"));
                    for (file, sha256) in files {
                        lines.add(&format!("input.{name}/{file}"), format!("sha256 {sha256}"));
                    }
                }
            }
        }
        for (name, value) in &file.env {
            lines.add(&format!("env.{name}"), json(serde_json::to_string(value))?);
        }
        lines.add("sandbox", json(serde_json::to_string::<Sandbox>(&file.sandbox))?);
        lines.add("limits", json(serde_json::to_string::<StageLimits>(&file.limits))?);
        for (name, output) in file.outputs_for(id.arch) {
            lines.add(
                &format!("output.{name}"),
                json(serde_json::to_string::<DeclaredOutput>(output))?,
            );
        }
        Ok(Self(lines.0))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its BLAKE3 digest.
    pub fn key(&self) -> StageKey {
        StageKey::new(*blake3::hash(self.0.as_bytes()).as_bytes())
    }
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }
}
