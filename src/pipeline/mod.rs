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
mod relock;
mod repeat;
mod resolve;
mod run;
mod scheduler;
mod vendor;

pub use error::PipelineError;
pub use event::{Event, Events};
pub use export::{Circumstances, Program, command_line, export, state};
pub use git::Revision;
pub use origins::Origins;
pub use platform::Platform;
pub use project::{AGENT, LOCKFILE, Project, STAGES, wanted_sets};
pub use relock::{LockWants, RelockError, RelockEvent, RelockProblem, RelockRequest, Relocked};
pub use repeat::{ReproResult, Twice, reproducibility};
pub use resolve::{OutputsByNode, ResolvedStage, resolve_stage};
pub use run::{Changed, RunOptions, shell_spec, stage_spec};
pub use scheduler::{BuildOutcome, Done, PlanEntry, build, plan};
pub use vendor::{VendorError, Vendored, fetch_pinned, needed_packages, sha256_of, vendor};

/// Digest of the source of the rooms that run stages.
pub const CODE_SANDBOX: &str = env!("PNB_CODE_SANDBOX");
/// Digest of the source of the writers and of the crates they use.
pub const CODE_WRITERS: &str = env!("PNB_CODE_WRITERS");
