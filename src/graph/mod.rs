//! Stages and their dependencies.
//!
//! Every `stage.toml` is parsed ([`StageFile`]) and checked against the others ([`StageGraph`]). The cache key of a stage is
//! the digest of its canonical form ([`Canonical`]), a text of lines, so that a changed line explains a rebuild ([`Reason`]).

mod check;
mod declared_variant;
mod error;
mod key;
mod picture;
mod plan;
mod reason;
mod render;
mod stage_file;
mod stage_input;
mod stage_sandbox;
mod units;
mod writer_settings;

pub use check::{StageGraph, StageNode};
pub use declared_variant::DeclaredVariant;
pub use error::GraphError;
pub use key::{Canonical, Code, InputDigest, KeyInputs};
pub use plan::{Closure, closure_of};
pub use reason::Reason;
pub use render::{Rendering, render};
pub use stage_file::{
    DeclaredOutput, Packages, StageArch, StageFile, StageLimits, StageOutputKind, StageWorkload, parse_stage,
};
pub use stage_input::{Input, InputCondition, InputSource};
pub use stage_sandbox::{Sandbox, StageIds};
pub use units::parse_size;
pub use writer_settings::COMPRESSING;
