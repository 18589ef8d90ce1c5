//! The cache key of a stage: the digest of everything that determines its outputs.
//!
//! The key is BLAKE3 of the canonical form, a text of `name value` lines in this order:
//!
//! | line | value | why it is in the key |
//! |---|---|---|
//! | `pnb-stage-key` | version of this table | a changed table changes every key |
//! | `code.sandbox` | digest of the source of the rooms that run a stage and take its outputs, and of `Cargo.lock` | they determine the view of the stage and the form of its outputs |
//! | `code.writers` | digest of the source of the writers, and of `Cargo.lock` | they write the outputs; only for stages with a writer, alone or before a command |
//! | `stage`, `arch`, `build-arch` | name and architectures | the stage reads them as `PNB_*` |
//! | `epoch` | `SOURCE_DATE_EPOCH` | the time stamp of every file |
//! | `workload` | command line or name of the writer | it makes the outputs |
//! | `prepare` | name of the writer that runs before the command | it works in the same build directory; only if there is one |
//! | `root` | digest of the tree at `/` | it has every program and library |
//! | `emulator` | digest of the tree with qemu-user | it runs programs of another architecture; only if there are any |
//! | `input.<name>` | digest of the tree or file; for packages one line per file with its SHA-256 | the stage reads it |
//! | `sector-size` | bytes | the writer makes a disk of such sectors; only if it is not 512 |
//! | `compression-level` | a level of zstd | the writer compresses at this level; only if `stage.toml` has one |
//! | `env.<name>` | value | the stage reads it |
//! | `sandbox`, `limits`, `output.<name>` | their settings as canonical JSON | they limit the stage and select its outputs; `from` of an output that passes an input on is one of them |
//!
//! Not in the key: the summary, the host, the path of the store, users, times, the number of jobs. Outputs of other stages enter by
//! their content addresses, not by the keys of those stages. This gives early cutoff: a stage that runs again with the same
//! result does not rebuild the stages after it.

use super::{DeclaredOutput, GraphError, Sandbox, StageFile, StageLimits, StageWorkload};
use crate::model::{Arch, Epoch, NodeId, SectorSize, Sha256Digest, StageKey, VerityDigest};
use std::{collections::BTreeMap, fmt::Write};

/// Version of the table above.
const KEY_VERSION: u32 = 1;

/// The digest of an input's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InputDigest {
    /// A tree, by the digest of its dump.
    Tree(VerityDigest),
    /// A file.
    File(VerityDigest),
    /// A pinned file of the lock.
    Pinned(Sha256Digest),
    /// A directory of packages: the file name and SHA-256 of each, and the suite of the index beside them, if there is one.
    Packages(Vec<(String, Sha256Digest)>, Option<String>),
}

/// The canonical form of a stage: the text whose digest is the cache key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Canonical(String);

/// Digests of pnb's own code, as far as it determines the outputs of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// Digest of the rooms that run a stage.
    pub sandbox: &'a str,
    /// Digest of the writers.
    pub writers: &'a str,
}

/// The values that enter the key of a stage.
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
    /// The tree at `/`.
    pub root: Option<&'a VerityDigest>,
    /// The tree with qemu-user.
    pub emulator: Option<&'a VerityDigest>,
    /// Every input by name, with the stage's own directory.
    pub inputs: &'a BTreeMap<String, InputDigest>,
}

impl Canonical {
    /// Writes the canonical form of a node.
    pub fn new(stage: &KeyInputs<'_>) -> Result<Self, GraphError> {
        let KeyInputs { id, file, .. } = *stage;
        let json = |value: Result<String, serde_json::Error>| value.map_err(|e| file.error(0, e.to_string()));
        let mut lines = Lines(String::new());
        // The order is part of the format: another order changes every key.
        lines.add("pnb-stage-key", KEY_VERSION);
        lines.add("code.sandbox", stage.code.sandbox);
        // Without this condition, a change in any writer would run every command again.
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
                // One line per package, so that a rebuild can be explained by the packages that changed.
                InputDigest::Packages(files, index) => {
                    let index = index.as_deref().unwrap_or("-");
                    lines.add(&format!("input.{name}"), format!("packages index {index}"));
                    for (file, sha256) in files {
                        lines.add(&format!("input.{name}/{file}"), format!("sha256 {sha256}"));
                    }
                }
            }
        }
        if file.sector_size != SectorSize::default() {
            lines.add("sector-size", file.sector_size);
        }
        if let Some(level) = file.compression_level {
            lines.add("compression-level", level);
        }
        for (name, value) in &file.env {
            lines.add(&format!("env.{name}"), json(serde_json::to_string(value))?);
        }
        lines.add("sandbox", json(serde_json::to_string::<Sandbox>(&file.sandbox))?);
        lines.add("limits", json(serde_json::to_string::<StageLimits>(&file.limits))?);
        // Only the outputs of this architecture: an output for the other one must not change this key.
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
