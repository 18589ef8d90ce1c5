//! What each stage runs in: a plain spec, and the executor that obeys it.
//!
//! ```text
//! executor            the caller, many threads: sends the spec, reads the log, checks and stores the outputs
//!   └ helper          pnb again, one thread: keyring, control groups, id maps, mounts that only root can reach
//!       └ pid 1       in new namespaces: builds the root, watches, kills, collects; hidden from the stage
//!           └ stage   in a user namespace further in: no capabilities, Landlock, seccomp; then the workload
//! ```
//!
//! Each arrow goes down in privilege. Nothing the stage does after it has started reaches what reports about it.

mod build_dir;
mod cgroup;
mod collect;
mod emulator;
mod error;
mod executor;
mod fd_passing;
mod helper;
mod idmap;
mod init;
mod landlock;
mod notify;
mod outcome;
mod probe;
mod receive;
mod rootfs;
mod seccomp;
mod self_check;
mod spec;
mod sys;
mod variation;
mod watchdog;
mod wire;
mod workload;

pub use error::SandboxError;
pub use executor::{Executor, PutOutput};
pub use helper::{BuiltinTable, BuiltinWriter, helper_main};
pub use outcome::{Collected, LogSink, Measured, StageOutcome};
pub use probe::{Layer, probe};
pub use spec::{
    Access, BuildDir, Capability, Console, Emulator, Ids, Limits, Mount, Network, OutputKind, OutputSpec, Preparation,
    RootFs, SandboxPolicy, Spec, Workload,
};
pub use variation::{Processors, VARIATION_DIR, Variation};
