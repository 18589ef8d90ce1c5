//! The scheduler: the one place that joins the rooms.
//!
//! ```text
//! project ──► inputs ──► key ──► record in the store? ──► yes: done
//!                                       │ no
//!                                       ▼
//!                       fetch · lay out · sandbox · take outputs ──► record
//! ```

mod error;
mod event;
mod export;
mod git;
mod lab;
mod origins;
mod platform;
mod project;
mod repeat;
mod resolve;
mod run;
mod scheduler;

pub use error::PipelineError;
pub use event::{Event, Events};
pub use export::{Circumstances, Program, command_line, export, state};
pub use git::Revision;
pub use origins::Origins;
pub use platform::Platform;
pub use project::{AGENT, LOCKFILE, Project, STAGES, wanted_sets};
pub use repeat::{ReproResult, Twice, reproducibility};
pub use resolve::{OutputsByNode, ResolvedStage, resolve_stage};
pub use run::{Changed, RunOptions, shell_spec, stage_spec};
pub use scheduler::{BuildOutcome, Done, PlanEntry, build, plan};

/// Digest of the source of the rooms that run stages.
pub const CODE_SANDBOX: &str = env!("PNB_CODE_SANDBOX");
/// Digest of the source of the writers and of the crates they use.
pub const CODE_WRITERS: &str = env!("PNB_CODE_WRITERS");
