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
//! | `node.rs` | one node: its result from the store or a cache, or its run, here or on a worker |
//! | `plan.rs` | what a build would run, and why |
//! | `resolve.rs` | a node's inputs as digests, and its key |
//! | `changed_files.rs` | the files behind a changed input, as reasons to run a stage |
//! | `recipe.rs` | the workload, the inputs by digest and the outputs of a run: the same on every host |
//! | `placement.rs` | the paths of a run: inputs fetched and placed on this machine |
//! | `run.rs`, `recorder.rs` | one run in the sandbox, its log and its record |
//! | `shared.rs` | the cache that several machines share: asked before a stage runs, filled afterwards |
//! | `job.rs`, `elsewhere.rs`, `worker.rs` | stages that run on a worker of an engine: their description, the client's half, the worker's |
//! | `workers.rs`, `chain.rs`, `cost.rs` | an engine as a build uses it; the stages that share an action; the place that costs less |
//! | `stage_failure.rs` | why a stage failed on a worker: the worker's file, and the client's error |
//! | `worker_probe.rs` | the smallest action: what the sandbox of a worker is, and how long an action takes |
//! | `place.rs` | where a stage ran or its result came from, and where the time went there |
//! | `underway.rs` | the actions that an engine has, so that the end of the program cancels them |
//! | `origins.rs` | the sources of pinned files |
//! | `base.rs`, `registries.rs` | the base image: its blobs, its pins, its layout; clients of registries |
//! | `output.rs` | the directory of artifacts: what its file system can do |
//! | `export.rs`, `facts.rs`, `package_facts.rs` | artifacts in `images/`, and the facts for their statements |
//! | `joint.rs` | the OCI layout over both architectures |
//! | `verify_repro/` | building twice, comparing, and finding causes |

mod base;
mod chain;
mod changed_files;
mod code;
mod context;
mod cost;
mod elsewhere;
mod error;
mod event;
mod export;
mod facts;
mod job;
mod joint;
mod listed;
mod node;
mod origins;
mod output;
mod package_facts;
mod place;
mod placement;
mod plan;
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
mod stage_failure;
mod trust;
mod underway;
mod vendor;
mod verify_repro;
mod worker;
mod worker_probe;
mod workers;

pub use code::{CODE_SANDBOX, CODE_WRITERS};
pub use context::BuildContext;
pub use cost::StagePlace;
pub use error::PipelineError;
pub use event::{Event, Events};
pub use export::{Circumstances, Program, export, state};
pub use facts::command_line;
pub use joint::join_images;
pub use origins::Origins;
pub use output::{OutputProblem, examine_output};
pub use place::{RanAt, WorkerTimes};
pub use placement::{Placement, shell_spec};
pub use plan::{PlanEntry, plan, present, present_keys};
pub use platform::Platform;
pub use project::{AGENT, LOCKFILE, Project, STAGES, wanted_sets};
pub use registries::Registries;
pub use relock::{BaseRequest, LockWants, RelockError, RelockEvent, RelockProblem, RelockRequest, Relocked};
pub use resolve::{OutputsByNode, ResolvedInput, ResolvedStage, resolve_stage};
pub use run::{Changed, HostChecked, RunOptions};
pub use scheduler::{BuildOutcome, Done};
pub use shared::{SharedResults, Upload};
pub use stage_failure::WorkerFault;
pub use trust::ModuleTrust;
pub use underway::{CancelledWork, Underway};
pub use vendor::{VendorError, Vendored, fetch_pinned, needed_packages, sha256_of, vendor};
pub use verify_repro::{ReproRequest, ReproResult, SecondPlace, reproducibility};
pub use worker::{run_job, stage_line};
pub use worker_probe::{PROBE, ProbedWorker, WorkerLayer, write_layers};
pub use workers::{Elsewhere, WorkerOptions};
