//! The result of a run: its outputs, and the sandbox' measurements of itself.

use super::{OutputSpec, Refusals};
use crate::{
    model::{Blake3Digest, Tree, VerityDigest},
    store::Content,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    ops::ControlFlow,
    time::Duration,
};

/// Stores the content of a collected file. It is given the output the file belongs to, whether the file is executable, and the
/// content; it returns the content's digest and the number of bytes read, which must be all.
pub type PutOutput<'a> = dyn FnMut(&OutputSpec, bool, &mut dyn Content) -> io::Result<(VerityDigest, u64)> + 'a;

/// The result of a stage that succeeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageOutcome {
    /// Every declared output, by name.
    pub outputs: BTreeMap<String, Collected>,
    /// The sandbox' measurements of itself, from inside.
    pub measured: Measured,
    /// Layers that are weaker than on a current kernel, each with its reason; always empty when the executor is strict.
    pub weaker: Vec<String>,
    /// Processor time of the stage and its sandbox, user and system.
    pub cpu: Duration,
    /// Elapsed time from the start of the workload to its end.
    pub wall: Duration,
    /// Peak memory use in bytes, as seen by the mechanism that enforces the memory limit.
    pub peak_memory: u64,
    /// Whether the [`LogSink`] ended the stage.
    pub stopped: bool,
}

/// A collected output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Collected {
    /// A directory, every modification time set to the spec's epoch.
    Tree(Tree),
    /// A regular file.
    File {
        /// Digest of its content, which is its name in the store.
        digest: VerityDigest,
        /// Length in bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
    },
}

/// Measurements from inside the sandbox, taken just before the workload starts. They are kept in the build record and never in the
/// manifest, because they differ between hosts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Namespaces that are not the caller's.
    pub namespaces: Vec<String>,
    /// Lines of `/proc/self/uid_map`, of the stage's own user namespace.
    pub uid_map: String,
    /// `NoNewPrivs` of `/proc/self/status`.
    pub no_new_privs: bool,
    /// `Seccomp` of `/proc/self/status`; 2 is filtering.
    pub seccomp_mode: u32,
    /// Number of seccomp filters in force.
    pub seccomp_filters: u32,
    /// BLAKE3 of the seccomp filter programs.
    pub seccomp_programs: Option<Blake3Digest>,
    /// Landlock ABI of the kernel.
    pub landlock_abi: i64,
    /// Status that Landlock reported when its rules were applied, e.g. `fully enforced`.
    pub landlock: String,
    /// Whether a file that no Landlock rule allows could still be opened.
    pub landlock_leaks: bool,
    /// `CapBnd` of `/proc/self/status`.
    pub capabilities_bounding: String,
    /// `CapEff` of `/proc/self/status`.
    pub capabilities_effective: String,
    /// Visible network interfaces.
    pub network: Vec<String>,
    /// Whether the loopback is up.
    #[serde(default)]
    pub loopback_up: bool,
    /// Mount points of inputs whose inodes are the host's, so that locks on them meet those of others.
    #[serde(default)]
    pub shared_inputs: Vec<String>,
    /// Resource limits in force: `Max ...` lines of `/proc/self/limits`.
    pub resource_limits: BTreeMap<String, String>,
    /// Mechanisms that enforce the limits on memory and processes.
    pub limits: String,
    /// Processors the stage sees.
    pub cpus: u32,
    /// Mount points that can be written to.
    pub writable: Vec<String>,
    /// Descriptors besides 0, 1, 2 that are still open after all others were closed.
    pub leaked_descriptors: Vec<u32>,
    /// System calls that were refused to the workload, which are known at its end only.
    #[serde(default, skip_serializing_if = "Refusals::is_empty")]
    pub refused: Refusals,
}

/// Receives the standard output and error of a stage.
pub trait LogSink {
    /// Takes the next bytes. [`ControlFlow::Break`] ends the stage as if it had exited with code 0.
    ///
    /// # Errors
    ///
    /// An error ends the stage, and the run with [`super::SandboxError::Log`].
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>>;
}

impl<W: Write + ?Sized> LogSink for W {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        self.write_all(bytes)?;
        Ok(ControlFlow::Continue(()))
    }
}
