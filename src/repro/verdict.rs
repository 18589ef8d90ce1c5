//! The verdict on two builds of the same nodes.

use super::Axis;
use crate::{
    inspect::Difference,
    manifest::Host,
    model::{NodeId, RelPath, Sha256Digest, Target, VerityDigest},
};
use serde::Serialize;
use std::fmt;

/// The verdict on two builds: how they were made, and the comparison of everything that they made.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ReproVerdict {
    /// Whether every output and every file of an artifact came out the same.
    pub equal: bool,
    /// How the two builds were made.
    #[serde(flatten)]
    pub setup: ReproSetup,
    /// Every stage, each after the stages it needs.
    pub stages: Vec<StageResult>,
    /// Every file of every artifact, statements included.
    pub artifacts: Vec<ArtifactResult>,
    /// The first differences, with their causes.
    pub findings: Vec<Finding>,
}

/// How two builds were made: of which nodes, where, when, from which inputs, and with which axes varied.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ReproSetup {
    /// The nodes that were built.
    pub what: Vec<NodeId>,
    /// Path of the manifest that the build was compared with; `None` when it was compared with a first build on this host.
    pub against: Option<String>,
    /// The engine on whose workers the second build ran its stages; `None` for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_on: Option<String>,
    /// The machine.
    pub host: Host,
    /// When the first build began, seconds since 1970.
    pub started: u64,
    /// When the comparison ended, seconds since 1970.
    pub finished: u64,
    /// The axes that were varied.
    pub axes: Vec<Tried>,
    /// The axes that could not be varied, each with the reason.
    pub not_varied: Vec<(Axis, String)>,
    /// The inputs of the build.
    pub inputs: BuiltFrom,
}

/// An axis with its values in both builds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Tried {
    /// The axis.
    pub axis: Axis,
    /// Its value in the first build.
    pub first: String,
    /// Its value in the second build.
    pub second: String,
}

impl From<Axis> for Tried {
    fn from(axis: Axis) -> Self {
        Self {
            axis,
            first: axis.first().to_owned(),
            second: axis.second().to_owned(),
        }
    }
}

/// The comparison of a stage's outputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Equal outputs.
    Equal,
    /// Different outputs from equal inputs: the builds part here.
    FirstDivergent,
    /// Different outputs from different inputs.
    Different,
}

impl State {
    /// The words in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Equal => "equal",
            State::FirstDivergent => "differs first",
            State::Different => "differs",
        }
    }
}

/// A stage in both builds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StageResult {
    /// The stage.
    pub node: NodeId,
    /// The stages it needs.
    pub needs: Vec<NodeId>,
    /// The comparison of its outputs.
    pub state: State,
    /// Every output.
    pub outputs: Vec<OutputResult>,
}

/// An output in both builds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OutputResult {
    /// Its name.
    pub name: String,
    /// `tree` or `file`.
    pub kind: &'static str,
    /// fs-verity digest in the first build: of the file, or of the tree's dump.
    pub first: VerityDigest,
    /// fs-verity digest in the second build.
    pub second: VerityDigest,
}

/// A file of an artifact in both builds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ArtifactResult {
    /// The artifact.
    pub artifact: Target,
    /// Path of the file below the artifact's directory.
    pub file: RelPath,
    /// SHA-256 in the first build; `None` when the file is missing there.
    pub first: Option<Sha256Digest>,
    /// SHA-256 in the second build.
    pub second: Option<Sha256Digest>,
}

/// A stage that is the first to differ, with the cause.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// The stage.
    pub node: NodeId,
    /// The output that differs, or the error of the stage.
    #[serde(flatten)]
    pub found: Divergent,
    /// The cause, as far as reruns of the stage alone tell.
    #[serde(flatten)]
    pub cause: Cause,
    /// The differences, up to a limit.
    pub differences: Vec<Difference>,
    /// The number of all differences.
    pub total: u64,
}

/// The event by which a stage is the first to differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divergent {
    /// The output with this name differs.
    Output(String),
    /// The stage failed in the second build, with this error.
    Failed(String),
}

impl fmt::Display for Divergent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Divergent::Output(name) => write!(f, "output {name}"),
            Divergent::Failed(error) => write!(f, "failed in the second build: {error}"),
        }
    }
}

/// The cause of a difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// Each of these axes alone makes the output differ.
    Axes {
        /// At least one axis.
        axes: Vec<Axis>,
    },
    /// No single axis makes the output differ, but these together do.
    Together {
        /// At least two axes.
        axes: Vec<Axis>,
    },
    /// The output differs from run to run with nothing varied.
    ByItself {
        /// The axis that must be held fixed for equal outputs; `None` when no axis helps.
        still: Option<Axis>,
    },
    /// Every rerun gave equal outputs.
    NotRepeated,
    /// No rerun was made.
    NotSought,
}

impl Cause {
    /// The two runs whose outputs the listed differences are between. Reruns explain the cause, so they need not be the two builds.
    pub const fn compared(&self) -> &'static str {
        match self {
            Cause::Axes { .. } | Cause::Together { .. } => {
                "first is a run with nothing varied, second one with only that varied"
            }
            Cause::ByItself { .. } => "first and second are two runs alike, with nothing varied",
            Cause::NotRepeated | Cause::NotSought => "first and second are the two builds",
        }
    }

    /// The cause in words.
    pub fn sentence(&self) -> String {
        let list = |axes: &[Axis]| axes.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(", ");
        match self {
            Cause::Axes { axes } if axes.len() == 1 => format!("it depends on {}", list(axes)),
            Cause::Axes { axes } => format!("it depends on each of {}", list(axes)),
            Cause::Together { axes } => format!("it depends on several axes together: {}", list(axes)),
            Cause::ByItself { still: Some(axis) } => {
                format!("it differs from run to run, but not while {axis} is held fixed")
            }
            Cause::ByItself { still: None } => {
                "it differs from run to run with nothing varied: random bytes or a race".to_owned()
            }
            Cause::NotRepeated => "every rerun gave equal outputs: a race, or a property of the host".to_owned(),
            Cause::NotSought => "the cause was not looked for".to_owned(),
        }
    }
}

/// The inputs of a build.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BuiltFrom {
    /// Version of pnb.
    pub pnb: String,
    /// Digest of pnb's code that runs stages.
    pub code_sandbox: String,
    /// Digest of pnb's code that writes formats.
    pub code_writers: String,
    /// SHA-256 of lockfile.toml.
    pub lock: Sha256Digest,
    /// Revision of the project; `None` outside a git repository.
    pub revision: Option<String>,
    /// Uncommitted files that the build may read.
    pub uncommitted: Vec<String>,
    /// `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: u64,
    /// Number of packages of the stages involved.
    pub packages: usize,
}

impl ReproVerdict {
    /// The verdict that follows from the comparison of two builds.
    pub fn new(
        setup: ReproSetup,
        stages: Vec<StageResult>,
        artifacts: Vec<ArtifactResult>,
        findings: Vec<Finding>,
    ) -> Self {
        let same_outputs = stages.iter().all(|stage| stage.state == State::Equal);
        let same_files = artifacts.iter().all(|file| file.first == file.second);
        Self {
            equal: same_outputs && same_files,
            setup,
            stages,
            artifacts,
            findings,
        }
    }

    /// Number of outputs that were compared.
    pub fn outputs(&self) -> u64 {
        self.stages.iter().map(|stage| stage.outputs.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arch;

    #[test]
    fn a_failed_stage_has_a_key_of_its_own_in_json() {
        let finding = |found| Finding {
            node: NodeId::new("root", Arch::Amd64),
            found,
            cause: Cause::NotSought,
            differences: Vec::new(),
            total: 0,
        };
        let json = |found| serde_json::json!(finding(found));
        let rest = serde_json::json!({"node": "root/amd64", "cause": "not-sought", "differences": [], "total": 0});
        let with = |key: &str, value: &str| {
            let mut all = rest.clone();
            all[key] = value.into();
            all
        };
        assert_eq!(json(Divergent::Output("tree".to_owned())), with("output", "tree"));
        assert_eq!(
            json(Divergent::Failed("exit code 9".to_owned())),
            with("failed", "exit code 9")
        );
    }
}
