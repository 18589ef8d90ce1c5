//! Whether a claim about a build holds elsewhere: building again under other circumstances and saying why something came out
//! differently, what a manifest claims, and what several builders say of the same artifact.
//!
//! Plain values and comparisons; who builds is the pipeline. An [`Axis`] is one thing that must not matter. A [`ReproVerdict`] is what
//! two builds showed, for people, machines and [`html()`]. `docs/reproducibility.md` says what is compared and what follows from it.

mod axis;
mod challenge;
mod claim;
mod compare;
mod error;
mod html;
mod table;
mod verdict;

pub use axis::{Axis, SEED, UnknownAxis, VARIATION_LOCALE, clock_library, standing_still, variation};
pub use challenge::{Challenge, Divergence, OtherKey, OtherOutput, Row, Seen, StageRow, challenge};
pub use claim::Claim;
pub(crate) use compare::kind;
pub use compare::{CompareError, compare};
pub use error::{ChallengeError, ClaimError};
pub use html::html;
pub use verdict::{
    ArtifactResult, BuiltFrom, Cause, Divergent, Finding, OutputResult, ReproSetup, ReproVerdict, StageResult, State,
    Tried,
};
