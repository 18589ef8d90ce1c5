//! Reproducibility: two builds in varied surroundings compared, the claim of a manifest, and the claims of several builders compared.
//!
//! This room has only values and comparisons; the pipeline builds. An [`Axis`] is one property of the surroundings that must not
//! influence an output. A [`ReproVerdict`] is the result of comparing two builds, for people, for machines and for the page of
//! [`html()`]. `docs/reproducibility.md` describes the comparison and the conclusions from it.

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
pub use html::{changes_html, html};
pub use verdict::{
    ArtifactResult, BuiltFrom, Cause, Divergent, Finding, OutputResult, ReproSetup, ReproVerdict, StageResult, State,
    Tried,
};
