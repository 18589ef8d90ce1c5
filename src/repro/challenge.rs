//! The claims of several builders of one artifact compared: the groups of builders that agree, and the stages where others diverge.
//!
//! Builders agree when they state the same files, byte for byte, and the same root. A group agrees on everything: builders that agree
//! with different partners on different files do not make a majority. The inputs are compared too, because different inputs explain
//! different outputs. Nothing here does I/O.

use super::{ChallengeError, Claim};
use crate::{
    manifest::{Artifact, Manifest, Stage},
    model::{Arch, NodeId, RelPath, StageKey, Variant, VerityDigest, visible_path},
    store::Output,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A value and the numbers of the builders that state it; numbers begin with 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Seen<T> {
    /// The value; null for builders that state none.
    pub value: Option<T>,
    /// The builders that state it.
    pub builders: Vec<usize>,
}

/// All values that builders state for one property.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row<T> {
    /// The property.
    pub what: String,
    /// Each value once, in the order of the first builder that states it.
    pub seen: Vec<Seen<T>>,
}

impl<T: PartialEq> Row<T> {
    fn new(what: impl Into<String>, values: impl IntoIterator<Item = Option<T>>) -> Self {
        let mut seen: Vec<Seen<T>> = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            match seen.iter_mut().find(|s| s.value == value) {
                Some(same) => same.builders.push(index + 1),
                None => seen.push(Seen {
                    value,
                    builders: vec![index + 1],
                }),
            }
        }
        Self {
            what: what.into(),
            seen,
        }
    }

    /// Whether all builders state the same.
    pub fn equal(&self) -> bool {
        self.seen.len() <= 1
    }
}

/// A stage, as the builders ran it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StageRow {
    /// The stage.
    pub stage: NodeId,
    /// Its keys: equal keys mean equal inputs and equal code.
    pub key: Vec<Seen<StageKey>>,
    /// Its outputs by name.
    pub outputs: Vec<Row<Output>>,
}

impl StageRow {
    /// Whether all builders state the same.
    pub fn equal(&self) -> bool {
        self.key.len() <= 1 && self.outputs.iter().all(Row::equal)
    }
}

/// The first stage that has the same key in two builds, but different outputs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OtherOutput {
    /// The stage.
    pub stage: NodeId,
    /// The names of the outputs that differ.
    pub outputs: Vec<String>,
}

/// The first stage with different keys, before every stage with the same key and different outputs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OtherKey {
    /// The stage.
    pub stage: NodeId,
    /// The parts of the stage that differ in the manifests; empty when the cause is pnb itself or the lock.
    pub inputs: Vec<String>,
}

/// The stages where a builder outside the largest group diverges from the first builder in that group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Divergence {
    /// The builder, by number from 1.
    pub builder: usize,
    /// The builder it is compared with.
    pub against: usize,
    /// The stage where equal inputs gave different outputs.
    pub output: Option<OtherOutput>,
    /// The stage where the inputs differed.
    pub input: Option<OtherKey>,
}

/// The comparison of the claims of several builders of one artifact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Challenge {
    /// The family of the artifact.
    pub variant: Variant,
    /// The architecture of the artifact.
    pub arch: Arch,
    /// The paths of the builders' manifests; the numbers of builders begin with 1.
    pub builders: Vec<String>,
    /// The inputs that differ.
    pub inputs: Vec<Row<String>>,
    /// The root.
    pub root: Row<VerityDigest>,
    /// Every file that a builder states.
    pub artifacts: Vec<Row<Artifact>>,
    /// Every stage that a builder ran, each after the stages it needs.
    pub stages: Vec<StageRow>,
    /// Groups of builders that agree on the root and on every file, the largest group first.
    pub groups: Vec<Vec<usize>>,
    /// The divergence of each builder outside the largest group.
    pub divergences: Vec<Divergence>,
    /// The number of builders that must agree.
    pub threshold: usize,
    /// Whether the largest group has that many builders.
    pub met: bool,
}

/// Compares `claims`; `threshold` of them must agree, or all when it is `None`.
///
/// # Errors
/// Fewer than two claims, one file twice, claims about different artifacts, or a threshold outside 2 to the number of claims.
pub fn challenge(claims: &[Claim], threshold: Option<usize>) -> Result<Challenge, ChallengeError> {
    let first = match claims {
        [first, _, ..] => first,
        _ => {
            return Err(ChallengeError::Few { builders: claims.len() });
        }
    };
    let mut files = BTreeMap::new();
    for claim in claims {
        if let Some(first) = files.insert(claim.file(), claim.given()) {
            return Err(ChallengeError::Twice {
                first: first.to_owned(),
                other: claim.given().to_owned(),
            });
        }
        if claim.target() != first.target() {
            return Err(ChallengeError::About {
                first: first.given().to_owned(),
                first_about: first.target(),
                other: claim.given().to_owned(),
                other_about: claim.target(),
            });
        }
    }
    let threshold = threshold.unwrap_or(claims.len());
    if !(2..=claims.len()).contains(&threshold) {
        return Err(ChallengeError::Threshold {
            threshold,
            builders: claims.len(),
        });
    }
    let manifests: Vec<&Manifest> = claims.iter().map(Claim::manifest).collect();
    let groups = groups(&manifests);
    Ok(Challenge {
        variant: first.variant(),
        arch: first.arch(),
        builders: claims.iter().map(|c| visible_path(c.given())).collect(),
        inputs: inputs(&manifests),
        root: Row::new("root", manifests.iter().map(|m| Some(m.fsverity_root_hash))),
        artifacts: artifacts(&manifests),
        stages: stages(&manifests),
        divergences: divergences(&manifests, &groups),
        met: groups.first().is_some_and(|g| g.len() >= threshold),
        groups,
        threshold,
    })
}

/// The groups of builders that agree on the root and on every file. Builders are compared by all of them together, so groups never
/// overlap.
fn groups(manifests: &[&Manifest]) -> Vec<Vec<usize>> {
    let whole = manifests.iter().map(|m| Some((m.fsverity_root_hash, &m.artifacts)));
    let mut groups: Vec<Vec<usize>> = Row::new("", whole).seen.into_iter().map(|s| s.builders).collect();
    // The sort is stable: of two groups of one size, the group with the lowest number comes first.
    groups.sort_by_key(|g| std::cmp::Reverse(g.len()));
    groups
}

/// The inputs of the builds that differ.
fn inputs(manifests: &[&Manifest]) -> Vec<Row<String>> {
    type Fact = fn(&Manifest) -> Option<String>;
    let facts: [(&str, Fact); 12] = [
        ("lock", |m| Some(m.lockfile.sha256.to_string())),
        ("revision", |m| m.git_sha.clone()),
        ("uncommitted files", |m| Some(m.source.dirty.to_string())),
        ("source_date_epoch", |m| Some(m.source_date_epoch.to_string())),
        ("pnb", |m| Some(m.builder.version.clone())),
        ("pnb's code: sandbox", |m| Some(m.builder.code.sandbox.clone())),
        ("pnb's code: writers", |m| Some(m.builder.code.writers.clone())),
        ("zstd", |m| Some(m.builder.zstd.clone())),
        ("build machine", |m| Some(m.builder.build_arch.to_string())),
        ("agent", |m| Some(m.agent.sha256.to_string())),
        ("platform", |m| m.platform.as_ref()?.url.clone()),
        ("platform's certificates", |m| {
            Some(m.platform.as_ref()?.ca_pem_sha256?.to_string())
        }),
    ];
    let rows = facts.map(|(what, fact)| Row::new(what, manifests.iter().map(|m| fact(m))));
    rows.into_iter().filter(|r| !r.equal()).collect()
}

fn artifacts(manifests: &[&Manifest]) -> Vec<Row<Artifact>> {
    let paths: BTreeSet<&RelPath> = manifests.iter().flat_map(|m| m.artifacts.keys()).collect();
    let row = |path: &RelPath| {
        let values = manifests.iter().map(|m| m.artifacts.get(path).cloned());
        Row::new(path.to_string(), values)
    };
    paths.into_iter().map(row).collect()
}

fn stages(manifests: &[&Manifest]) -> Vec<StageRow> {
    let mut nodes: Vec<NodeId> = Vec::new();
    for stage in manifests.iter().flat_map(|m| &m.stages) {
        if !nodes.contains(&stage.node()) {
            nodes.push(stage.node());
        }
    }
    let row = |node: NodeId| {
        let of: Vec<Option<&Stage>> = manifests.iter().map(|m| find(m, &node)).collect();
        let names: BTreeSet<&String> = of.iter().flatten().flat_map(|s| s.outputs.keys()).collect();
        let output = |name: &String| Row::new(name, of.iter().map(|s| s.and_then(|s| s.outputs.get(name)).cloned()));
        StageRow {
            key: Row::new("", of.iter().map(|s| s.map(|s| s.key))).seen,
            outputs: names.into_iter().map(output).collect(),
            stage: node,
        }
    };
    nodes.into_iter().map(row).collect()
}

fn find<'a>(manifest: &'a Manifest, node: &NodeId) -> Option<&'a Stage> {
    manifest.stages.iter().find(|s| s.node() == *node)
}

fn divergences(manifests: &[&Manifest], groups: &[Vec<usize>]) -> Vec<Divergence> {
    let Some((largest, others)) = groups.split_first() else {
        return Vec::new();
    };
    let against = largest[0];
    let mut outside: Vec<usize> = others.concat();
    outside.sort_unstable();
    outside
        .into_iter()
        .map(|builder| diverge(manifests, builder, against))
        .collect()
}

fn diverge(manifests: &[&Manifest], builder: usize, against: usize) -> Divergence {
    let (ours, theirs) = (manifests[against - 1], manifests[builder - 1]);
    let mut found = Divergence {
        builder,
        against,
        output: None,
        input: None,
    };
    for stage in &ours.stages {
        let Some(other) = find(theirs, &stage.node()) else {
            continue;
        };
        if stage.key != other.key {
            found.input.get_or_insert_with(|| OtherKey {
                stage: stage.node(),
                inputs: differing(stage, other),
            });
            continue;
        }
        let names: BTreeSet<&String> = stage.outputs.keys().chain(other.outputs.keys()).collect();
        let outputs: Vec<String> = names
            .into_iter()
            .filter(|n| stage.outputs.get(*n) != other.outputs.get(*n))
            .cloned()
            .collect();
        if !outputs.is_empty() {
            // Later stages may have different keys only because of these outputs.
            found.output = Some(OtherOutput {
                stage: stage.node(),
                outputs,
            });
            break;
        }
    }
    found
}

/// The parts of a stage that differ between two builds, as far as the manifests state them.
fn differing(a: &Stage, b: &Stage) -> Vec<String> {
    let mut out: Vec<String> = [
        ("workload", a.workload != b.workload),
        ("environment", a.env != b.env),
        ("policy", a.policy != b.policy),
        ("root", a.root != b.root),
        ("emulator", a.emulator != b.emulator),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(what, _)| what.to_owned())
    .collect();
    let names: BTreeSet<&String> = a.inputs.keys().chain(b.inputs.keys()).collect();
    let differs = names.into_iter().filter(|n| a.inputs.get(*n) != b.inputs.get(*n));
    out.extend(differs.map(|name| format!("input {name:?}")));
    out
}
