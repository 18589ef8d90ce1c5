//! Building again under other circumstances, and saying why something came out differently.
//!
//! Plain values and comparisons; who builds is the pipeline. An [`Axis`] is one thing that must not matter. A [`Verdict`] is what
//! two builds showed, for people, machines and [`html()`].

mod axis;
mod compare;
mod html;
mod verdict;

pub use axis::{Axis, Lent, SEED, UnknownAxis, lend, standing_still, surroundings};
pub use compare::{CompareError, compare};
pub use html::html;
pub use verdict::{ArtifactResult, Cause, Finding, Inputs, OutputResult, StageResult, State, Tried, Verdict};
