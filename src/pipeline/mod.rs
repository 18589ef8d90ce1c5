//! The scheduler: the one place that joins the rooms.
//!
//! ```text
//! project ──► inputs ──► key ──► record in the store? ──► yes: done
//!                                       │ no
//!                                       ▼
//!                       fetch · lay out · sandbox · take outputs ──► record
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `project.rs`, `platform.rs`, `git.rs` | the project: lock, stages, revision, and facts about the platform from the caller |
//! | `code.rs` | digests of pnb's own source |
//! | `context.rs` | the values that all parts of a build share |
//! | `scheduler.rs` | which nodes run, in what order, and how many at once |
//! | `resolve.rs` | a node's inputs as digests, and its key |
//! | `recipe.rs` | *what* runs: everything by digest, the same on every host |
//! | `placement.rs` | *where* it runs: inputs fetched and put at paths of this machine |
//! | `run.rs`, `recorder.rs` | one run in the sandbox, its log and its record |
//! | `origins.rs` | where pinned files are fetched from |
//! | `export.rs`, `facts.rs` | artifacts in `images/`, and the facts for their statements |
//! | `verify_repro/` | building twice, comparing, and finding causes |

mod code;
mod context;
mod error;
mod event;
mod export;
mod facts;
mod git;
mod origins;
mod placement;
mod platform;
mod project;
mod recipe;
mod recorder;
mod relock;
mod resolve;
mod run;
mod scheduler;
mod vendor;
mod verify_repro;

pub use code::{CODE_SANDBOX, CODE_WRITERS};
pub use context::BuildContext;
pub use error::PipelineError;
pub use event::{Event, Events};
pub use export::{Circumstances, Program, export, state};
pub use facts::command_line;
pub use git::Revision;
pub use origins::Origins;
pub use placement::{Placement, shell_spec};
pub use platform::Platform;
pub use project::{AGENT, LOCKFILE, Project, STAGES, wanted_sets};
pub use relock::{LockWants, RelockError, RelockEvent, RelockProblem, RelockRequest, Relocked};
pub use resolve::{OutputsByNode, ResolvedInput, ResolvedStage, resolve_stage};
pub use run::{Changed, RunOptions};
pub use scheduler::{BuildOutcome, Done, PlanEntry, plan};
pub use vendor::{VendorError, Vendored, fetch_pinned, needed_packages, sha256_of, vendor};
pub use verify_repro::{ReproRequest, ReproResult, reproducibility};
