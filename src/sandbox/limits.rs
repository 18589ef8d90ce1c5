//! `Limits`: how much a workload may use.

use serde::{Deserialize, Serialize};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// How much a workload may use. A run that reaches a limit fails with an error that names the limit.
///
/// There is no `Default`: the limits of a stage are those of its stage file, whose defaults are `graph::StageLimits`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes: all processes, tmpfs and memfds together.
    pub memory: u64,
    /// Processes and threads at the same time.
    pub processes: u32,
    /// Elapsed time.
    pub wall: Duration,
    /// Bytes of standard output and standard error together.
    pub log_bytes: u64,
    /// Bytes below `/build`.
    pub build_bytes: u64,
    /// Files and directories below `/build`.
    pub build_inodes: u64,
    /// Bytes below `/tmp`.
    pub tmp_bytes: u64,
    /// Bytes of each output: the lengths of its files, holes counted.
    pub output_bytes: u64,
    /// Entries of each output.
    pub output_entries: u64,
    /// Depth of each output's tree.
    pub output_depth: u32,
    /// Processors the workload sees.
    pub cpus: u32,
}

impl Limits {
    /// Bytes below `/tmp` of every stage: stage files have no key for this limit.
    pub const TMP_BYTES: u64 = 256 * MIB;
    /// Depth of the outputs of every stage: stage files have no key for this limit.
    pub const OUTPUT_DEPTH: u32 = 64;

    /// Limits of a run that no stage file describes, such as a probe of the host or a test: 2 GiB of memory, 512 processes,
    /// 10 minutes, one processor.
    pub fn small() -> Self {
        Self {
            memory: 2048 * MIB,
            processes: 512,
            wall: Duration::from_secs(600),
            log_bytes: 64 * MIB,
            build_bytes: 1024 * MIB,
            build_inodes: 500_000,
            tmp_bytes: Self::TMP_BYTES,
            output_bytes: 4096 * MIB,
            output_entries: 500_000,
            output_depth: Self::OUTPUT_DEPTH,
            cpus: 1,
        }
    }

    /// Length that no file may exceed, holes counted.
    pub(super) fn largest_file(&self) -> u64 {
        self.build_bytes.max(self.tmp_bytes)
    }

    /// The name of the first limit that is zero; nothing can run under such limits.
    pub(super) fn first_zero(&self) -> Option<&'static str> {
        let limits = [
            ("memory", self.memory),
            ("processes", u64::from(self.processes)),
            ("wall time", u64::from(!self.wall.is_zero())),
            ("bytes below /build", self.build_bytes),
            ("inodes below /build", self.build_inodes),
            ("bytes below /tmp", self.tmp_bytes),
            ("processors", u64::from(self.cpus)),
        ];
        limits.iter().find(|(_, value)| *value == 0).map(|(name, _)| *name)
    }
}
