//! The pipeline: the room that connects the others to a build.
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
//! | `project.rs`, `listed.rs`, `platform.rs`, `trust.rs` | the project: lock, stages, list of pinned files; the platform and the keys of modules from the caller |
//! | `code.rs` | digests of pnb's own source |
//! | `context.rs` | the values that all parts of a build share |
//! | `scheduler.rs` | the choice of the nodes that run, their order, and their number at once |
//! | `resolve.rs` | a node's inputs as digests, and its key |
//! | `changed_files.rs` | the files behind a changed input, as reasons to run a stage |
//! | `recipe.rs` | the workload, the inputs by digest and the outputs of a run: the same on every host |
//! | `placement.rs` | the paths of a run: inputs fetched and placed on this machine |
//! | `run.rs`, `recorder.rs` | one run in the sandbox, its log and its record |
//! | `shared.rs` | the cache that several machines share: asked before a stage runs, filled afterwards |
//! | `job.rs`, `elsewhere.rs`, `worker.rs` | a stage that runs on a worker of an engine: its description, the client's half, the worker's |
//! | `origins.rs` | the sources of pinned files |
//! | `base.rs`, `registries.rs` | the base image: its blobs, its pins, its layout; clients of registries |
//! | `output.rs` | the directory of artifacts: what its file system can do |
//! | `export.rs`, `facts.rs`, `package_facts.rs` | artifacts in `images/`, and the facts for their statements |
//! | `joint.rs` | the OCI layout over both architectures |
//! | `verify_repro/` | building twice, comparing, and finding causes |

mod base;
mod changed_files;
mod code;
mod context;
mod elsewhere;
mod error;
mod event;
mod export;
mod facts;
mod job;
mod joint;
mod listed;
mod origins;
mod output;
mod package_facts;
mod placement;
mod platform;
mod project;
mod recipe;
mod recorder;
mod registries;
mod relock;
mod resolve;
mod run;
mod scheduler;
mod shared;
mod trust;
mod vendor;
mod verify_repro;
mod worker;

pub use code::{CODE_SANDBOX, CODE_WRITERS};
pub use context::BuildContext;
pub use elsewhere::Elsewhere;
pub use error::PipelineError;
pub use event::{Event, Events};
pub use export::{Circumstances, Program, export, state};
pub use facts::command_line;
pub use joint::join_images;
pub use origins::Origins;
pub use output::{OutputProblem, examine_output};
pub use placement::{Placement, shell_spec};
pub use platform::Platform;
pub use project::{AGENT, LOCKFILE, Project, STAGES, wanted_sets};
pub use registries::Registries;
pub use relock::{BaseRequest, LockWants, RelockError, RelockEvent, RelockProblem, RelockRequest, Relocked};
pub use resolve::{OutputsByNode, ResolvedInput, ResolvedStage, resolve_stage};
pub use run::{Changed, HostChecked, RunOptions};
pub use scheduler::{BuildOutcome, Done, PlanEntry, plan, present, present_keys};
pub use shared::{SharedResults, Upload};
pub use trust::ModuleTrust;
pub use vendor::{VendorError, Vendored, fetch_pinned, needed_packages, sha256_of, vendor};
pub use verify_repro::{ReproRequest, ReproResult, reproducibility};
pub use worker::run_job;
