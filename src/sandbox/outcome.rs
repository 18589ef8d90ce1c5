//! What a run gives back: the outputs, and what the sandbox measured about itself.

use crate::model::{Blake3Digest, Tree, VerityDigest};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    ops::ControlFlow,
    time::Duration,
};

/// A stage that ended well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageOutcome {
    /// Every declared output, by name.
    pub outputs: BTreeMap<String, Collected>,
    /// What the sandbox found about itself, from inside.
    pub measured: Measured,
    /// Layers weaker than a current kernel offers, each with its reason; always empty when strict.
    pub weaker: Vec<String>,
    /// Processor time of the stage and its sandbox, user and system.
    pub cpu: Duration,
    /// Time on the clock from the start of the workload to its end.
    pub wall: Duration,
    /// Most memory in use at one time in bytes, as far as the limits' mechanism saw it.
    pub peak_memory: u64,
    /// Whether the [`LogSink`] ended the stage.
    pub stopped: bool,
}

/// One output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Collected {
    /// A directory, every modification time set to the spec's epoch.
    Tree(Tree),
    /// A regular file.
    File {
        /// Name of its content in the store.
        digest: VerityDigest,
        /// Bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
    },
}

/// What was found from inside the sandbox just before the workload started. Belongs into the build record, never into the
/// manifest: it differs between hosts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Namespaces whose identity differs from the caller's.
    pub namespaces: Vec<String>,
    /// Lines of `/proc/self/uid_map`: the stage's own, innermost namespace.
    pub uid_map: String,
    /// `NoNewPrivs` of `/proc/self/status`.
    pub no_new_privs: bool,
    /// `Seccomp` of `/proc/self/status`; 2 is filtering.
    pub seccomp_mode: u32,
    /// How many filters are in force.
    pub seccomp_filters: u32,
    /// BLAKE3 of the filter programs.
    pub seccomp_programs: Option<Blake3Digest>,
    /// Landlock ABI of the kernel.
    pub landlock_abi: i64,
    /// What Landlock said when it was applied.
    pub landlock: String,
    /// Whether a file that the rules leave out could still be opened.
    pub landlock_leaks: bool,
    /// `CapBnd` of `/proc/self/status`.
    pub capabilities_bounding: String,
    /// `CapEff` of `/proc/self/status`.
    pub capabilities_effective: String,
    /// Network interfaces in sight.
    pub network: Vec<String>,
    /// Whether the loopback is up.
    #[serde(default)]
    pub loopback_up: bool,
    /// Resource limits in force: `Max ...` lines of `/proc/self/limits`.
    pub resource_limits: BTreeMap<String, String>,
    /// What enforces limits on memory and processes.
    pub limits: String,
    /// Processors the stage may use.
    pub cpus: u32,
    /// Mount points that can be written to.
    pub writable: Vec<String>,
    /// Open descriptors besides 0, 1, 2 when everything else was closed.
    pub leaked_descriptors: Vec<u32>,
}

/// Receives what a stage prints.
pub trait LogSink {
    /// Takes the next bytes. [`ControlFlow::Break`] ends the stage as if it had exited well.
    ///
    /// # Errors
    ///
    /// Ends the stage, and the run with [`super::SandboxError::Log`].
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>>;
}

impl<W: Write + ?Sized> LogSink for W {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        self.write_all(bytes)?;
        Ok(ControlFlow::Continue(()))
    }
}
