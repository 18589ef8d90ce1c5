//! The sandbox a stage runs in: a plain [`Spec`], and the [`Executor`] that carries it out.
//!
//! ```text
//! executor            the caller, many threads: sends the spec, reads the log, checks and stores the outputs
//!   └ helper          pnb again, one thread: keyring, control groups, id maps, mounts that only root can reach
//!       └ pid 1       in new namespaces: builds the root, watches, kills, collects; hidden from the stage
//!           └ stage   in a nested user namespace: no capabilities, Landlock, seccomp; then the workload
//! ```
//!
//! Privileges shrink from each process to the next. A stage that runs cannot reach the processes that report on it.
//!
//! | subject | files |
//! |---|---|
//! | the value | `spec`, `limits`, `variation` (differences for a second build), `policy` (the part in the manifest), `error`, `outcome` |
//! | the four processes | `executor`, `helper`, `init` (pid 1), `workload` (the stage) |
//! | between processes | `wire` (frames), `descriptors`, `fd_passing` (large files), `job` (inherited by forks), `ending` (an early end) |
//! | set up by the helper | `idmap`, `subids` (user ids), `cgroup` (control groups), `plan` (mounts), `devices` (device nodes) |
//! | set up by pid 1 | `rootfs` (mounts), `overlay` (inputs), `nesting` (limits on namespaces), `emulator` (binfmt_misc) |
//! | set up by the stage | `capability`, `landlock`, `seccomp`, `notify` (system calls answered by pid 1), `refusal` (those refused), `self_check` (measurements) |
//! | while the stage runs | `watchdog` (limits), `socket_memory`, `build_dir` (sizes) |
//! | outputs | `collect` (pid 1 sends), `receive` (the executor checks) |
//! | the host | `probe` (for `pnb doctor`), `host_check` (why it runs no stage), `kvm` (for machines), `sys` (system calls, the only unsafe code) |
//! | tests | `ablation` (a run without a layer, which no release has) |

mod ablation;
mod build_dir;
mod capability;
mod cgroup;
mod collect;
mod descriptors;
mod devices;
mod emulator;
mod ending;
mod error;
mod executor;
mod fd_passing;
mod helper;
mod host_check;
mod idmap;
mod init;
mod job;
mod kvm;
mod landlock;
mod limits;
mod nesting;
mod notify;
mod outcome;
mod overlay;
mod plan;
mod policy;
mod probe;
mod receive;
mod refusal;
mod rootfs;
mod seccomp;
mod self_check;
mod socket_memory;
mod spec;
mod subids;
mod sys;
mod variation;
mod watchdog;
mod wire;
mod workload;

#[cfg(debug_assertions)]
pub use ablation::{SandboxLayer, helper_main_without};
pub use error::SandboxError;
pub use executor::Executor;
pub use helper::helper_main;
pub use host_check::check_host;
pub use job::{BuiltinTable, BuiltinWriter};
pub use kvm::{KVM_DEVICE, KvmProblem, probe_kvm};
pub use limits::Limits;
pub use outcome::{Collected, LogSink, Measured, PutOutput, StageOutcome};
pub use policy::{PolicyWorkload, SandboxPolicy};
pub use probe::{Layer, probe};
pub use receive::check_tree;
pub use refusal::{DeclaredRefusals, Refusals, RefusedCall};
pub use spec::{
    Access, BuildDir, BuiltinCall, Console, Emulator, Ids, Mount, Network, OutputKind, OutputSpec, RootFs, Spec,
    Workload,
};
pub use sys::{announce_interrupt, end_by, use_linked_name_services, watch_ends};
pub use variation::{Processors, SystemInfo, VARIATION_DIR, Variation};
