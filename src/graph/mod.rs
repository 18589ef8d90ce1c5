//! Stages and how they depend on each other.
//!
//! `stage.toml` is read ([`StageFile`]), all of them are checked against each other ([`StageGraph`]), and each stage's key
//! is computed from a written-out canonical form ([`Canonical`]), so that a rebuild can be explained by the line that changed
//! ([`Reason`]).

mod check;
mod error;
mod key;
mod plan;
mod reason;
mod render;
mod stage_file;
mod units;

pub use check::{StageGraph, StageNode};
pub use error::GraphError;
pub use key::{Canonical, Code, InputDigest, KeyInputs};
pub use plan::{Closure, closure_of};
pub use reason::Reason;
pub use render::{Rendering, render};
pub use stage_file::{
    DeclaredOutput, Input, InputSource, Packages, Sandbox, StageArch, StageFile, StageIds, StageLimits,
    StageOutputKind, StageWorkload, parse_stage,
};
pub use units::parse_size;
