//! What two builds of the same showed.

use super::Axis;
use crate::{
    inspect::Difference,
    manifest::Host,
    model::{RelPath, Sha256Digest, VerityDigest},
};
use serde::Serialize;

/// Everything that was found out.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ReproVerdict {
    /// Whether everything came out the same.
    pub equal: bool,
    /// What was built.
    pub what: Vec<String>,
    /// With what it was compared, when that is not a first build on this host: where the manifest lies.
    pub against: Option<String>,
    /// The machine.
    pub host: Host,
    /// When it began and ended, seconds since 1970.
    pub started: u64,
    /// When it ended.
    pub finished: u64,
    /// What was varied.
    pub axes: Vec<Tried>,
    /// What could not be, and why.
    pub not_varied: Vec<(Axis, String)>,
    /// Every stage, each after those it needs.
    pub stages: Vec<StageResult>,
    /// Every file of every artifact, statements included.
    pub artifacts: Vec<ArtifactResult>,
    /// What differs first, and why.
    pub findings: Vec<Finding>,
    /// From what it was built.
    pub inputs: BuiltFrom,
}

/// An axis with both values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Tried {
    /// Which.
    pub axis: Axis,
    /// In the first build.
    pub first: String,
    /// In the second.
    pub second: String,
}

/// What the comparison of a stage says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The same outputs.
    Equal,
    /// Other outputs from the same inputs: it is here that the builds part.
    FirstDivergent,
    /// Other outputs, from other inputs.
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
    /// `<stage>/<arch>`.
    pub node: String,
    /// The stages it needs, likewise.
    pub needs: Vec<String>,
    /// What came of it.
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
    /// fs-verity digest of the first build's: of the file, or of the tree's dump.
    pub first: VerityDigest,
    /// Of the second build's.
    pub second: VerityDigest,
}

/// A file of an artifact in both builds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ArtifactResult {
    /// `<variant>/<arch>`.
    pub artifact: String,
    /// Below that.
    pub file: RelPath,
    /// SHA-256 in the first build; none when it is not there.
    pub first: Option<Sha256Digest>,
    /// SHA-256 in the second.
    pub second: Option<Sha256Digest>,
}

/// An output that is the first to differ.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// The stage.
    pub node: String,
    /// Its output; or a file of an artifact.
    pub output: String,
    /// Why, as far as single reruns of the stage tell.
    #[serde(flatten)]
    pub cause: Cause,
    /// Where, and what it looks like.
    pub differences: Vec<Difference>,
    /// How many there are in all.
    pub total: u64,
}

/// Why an output differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// Each of these alone makes it differ.
    Axes {
        /// At least one.
        axes: Vec<Axis>,
    },
    /// None of these does alone, but all together.
    Together {
        /// At least two.
        axes: Vec<Axis>,
    },
    /// It differs from run to run with nothing varied.
    ByItself {
        /// What has to stand still for it to come out the same, if that helps.
        still: Option<Axis>,
    },
    /// It came out the same in every rerun.
    NotRepeated,
    /// It was not looked for.
    NotSought,
}

impl Cause {
    /// The cause in words.
    pub fn sentence(&self) -> String {
        let list = |axes: &[Axis]| axes.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(", ");
        match self {
            Cause::Axes { axes } if axes.len() == 1 => format!("it depends on {}", list(axes)),
            Cause::Axes { axes } => format!("it depends on each of {}", list(axes)),
            Cause::Together { axes } => format!("it depends on several things together: {}", list(axes)),
            Cause::ByItself { still: Some(axis) } => {
                format!("it differs from run to run, and no more once {axis} stands still")
            }
            Cause::ByItself { still: None } => {
                "it differs from run to run, with nothing varied: random bytes, or a race".to_owned()
            }
            Cause::NotRepeated => "it came out the same each time it was tried again: a race, or the host".to_owned(),
            Cause::NotSought => "the cause was not looked for".to_owned(),
        }
    }
}

/// From what was built.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BuiltFrom {
    /// Version of pnb.
    pub pnb: String,
    /// Digest of its code that runs stages.
    pub code_sandbox: String,
    /// Digest of its code that writes formats.
    pub code_writers: String,
    /// SHA-256 of lockfile.toml.
    pub lock: Sha256Digest,
    /// Revision of the project, if it is one of git.
    pub revision: Option<String>,
    /// Uncommitted files that could matter.
    pub uncommitted: Vec<String>,
    /// `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: u64,
    /// Packages of the stages involved.
    pub packages: usize,
}

impl ReproVerdict {
    /// How many outputs were compared.
    pub fn outputs(&self) -> u64 {
        self.stages.iter().map(|stage| stage.outputs.len() as u64).sum()
    }
}
