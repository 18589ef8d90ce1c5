//! Several builders of one artifact against each other: who agrees, and where those who do not begin to differ.
//!
//! Builders agree when they state the same files, byte for byte, and the same root. Agreement is counted of builders who agree on
//! everything together: two halves that agree with different partners are no majority. What went in is compared too, since
//! other inputs explain other outputs. Nothing here does I/O.

use super::{ChallengeError, Claim};
use crate::{
    manifest::{Artifact, Manifest, Stage},
    model::{Arch, NodeId, RelPath, StageKey, Variant, VerityDigest},
    store::Output,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A value, and the builders who state it, by their number from 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Seen<T> {
    /// The value; null where these builders have none.
    pub value: Option<T>,
    /// Who states it.
    pub builders: Vec<usize>,
}

/// Everything that is stated of one thing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row<T> {
    /// Of what.
    pub what: String,
    /// Each value once, in the order of the first builder who states it.
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

    /// Whether all state the same.
    pub fn equal(&self) -> bool {
        self.seen.len() <= 1
    }
}

/// A stage, as the builders ran it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StageRow {
    /// The stage.
    pub stage: NodeId,
    /// Its key: equal keys mean equal inputs and equal code.
    pub key: Vec<Seen<StageKey>>,
    /// What it made, by the output's name.
    pub outputs: Vec<Row<Output>>,
}

impl StageRow {
    /// Whether all state the same.
    pub fn equal(&self) -> bool {
        self.key.len() <= 1 && self.outputs.iter().all(Row::equal)
    }
}

/// The first stage that had the same key in two builds and made something else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OtherOutput {
    /// The stage.
    pub stage: NodeId,
    /// Which of its outputs differ.
    pub outputs: Vec<String>,
}

/// The first stage that had another key, before any that made something else of the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OtherKey {
    /// The stage.
    pub stage: NodeId,
    /// What of it differs in the manifests; empty when it is something of pnb itself or of the lock.
    pub inputs: Vec<String>,
}

/// Where a builder outside of the largest group begins to differ from the first one in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Divergence {
    /// The builder, by number from 1.
    pub builder: usize,
    /// The one it is compared with.
    pub against: usize,
    /// Where the same inputs gave something else.
    pub output: Option<OtherOutput>,
    /// Where the inputs were not the same.
    pub input: Option<OtherKey>,
}

/// What several builders say of one artifact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Challenge {
    /// The family all are about.
    pub variant: Variant,
    /// The architecture all are about.
    pub arch: Arch,
    /// The builders, as they were named; their numbers begin with 1.
    pub builders: Vec<String>,
    /// What went in, as far as it differs.
    pub inputs: Vec<Row<String>>,
    /// The root.
    pub root: Row<VerityDigest>,
    /// Every file that anyone states.
    pub artifacts: Vec<Row<Artifact>>,
    /// Every stage that anyone ran, in an order in which it ran.
    pub stages: Vec<StageRow>,
    /// Builders who agree on the root and on every file, the largest group first.
    pub groups: Vec<Vec<usize>>,
    /// Where each builder outside of the largest group begins to differ.
    pub divergences: Vec<Divergence>,
    /// How many must agree.
    pub threshold: usize,
    /// Whether that many do.
    pub met: bool,
}

/// Compares what `claims` state; `threshold` of them must agree, all when it is `None`.
///
/// # Errors
/// Fewer than two claims, one file twice, claims about different artifacts, a threshold outside of 2 to the number of claims.
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
        builders: claims.iter().map(|c| c.given().display().to_string()).collect(),
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

/// Who agrees on everything that leaves a build. Equality of the whole makes groups that do not overlap.
fn groups(manifests: &[&Manifest]) -> Vec<Vec<usize>> {
    let whole = manifests.iter().map(|m| Some((m.fsverity_root_hash, &m.artifacts)));
    let mut groups: Vec<Vec<usize>> = Row::new("", whole).seen.into_iter().map(|s| s.builders).collect();
    // Stable: of groups of one size that with the lowest number comes first.
    groups.sort_by_key(|g| std::cmp::Reverse(g.len()));
    groups
}

/// What went into the builds, where it differs.
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
            // Whatever has another key behind this stage may have it because of this stage.
            found.output = Some(OtherOutput {
                stage: stage.node(),
                outputs,
            });
            break;
        }
    }
    found
}

/// What of a stage differs between two builds, as far as a manifest tells.
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
