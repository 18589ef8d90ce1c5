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

mod answer;
mod collect;
mod disk;
mod emulator;
mod error;
mod executor;
mod helper;
mod idmap;
mod init;
mod landlock;
mod lend;
mod limits;
mod measure;
mod outcome;
mod probe;
mod receive;
mod rootfs;
mod seccomp;
mod spec;
mod stage;
mod surroundings;
mod sys;
mod watch;
mod wire;

pub use error::SandboxError;
pub use executor::{Executor, PutOutput};
pub use helper::{BuiltinTable, BuiltinWriter, helper_main};
pub use outcome::{Collected, LogSink, Measured, StageOutcome};
pub use probe::{Layer, probe};
pub use spec::{
    Access, BuildDir, Capability, Console, Emulator, Ids, Limits, Mount, Network, OutputKind, OutputSpec, Preparation,
    RootFs, SandboxPolicy, Spec, Workload,
};
pub use surroundings::{Processors, Surroundings, VARIATION_DIR};
