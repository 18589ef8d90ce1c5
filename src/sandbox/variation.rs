//! Surroundings of a stage that a second build changes on purpose: an output that depends on one of them comes out differently.
//!
//! The [`Spec`](super::Spec) of an ordinary build has no variation. A variation is not in the policy, because it changes what a stage
//! sees, not what it is allowed to do.

use crate::model::RelPath;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Mount point of [`Variation::files`], below `/` and below every root that has a small `/dev`.
pub const VARIATION_DIR: &str = "dev/pnb";

/// Differences from the ordinary surroundings of a stage. The default has none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Variation {
    /// Environment variables that are added, or replace those of the stage.
    pub env: BTreeMap<String, String>,
    /// A directory of the host with the files that the variables name, mounted read-only at [`VARIATION_DIR`].
    pub files: Option<PathBuf>,
    /// Host name and domain name.
    pub names: Option<(String, String)>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// User and group id of a stage that has a single one and keeps no capability.
    pub id: Option<u32>,
    /// A second mount point of `/build`, below `/`, which is the workload's working directory.
    pub work_dir: Option<RelPath>,
    /// Processors the stage sees.
    pub processors: Option<Processors>,
    /// Whether address space layout randomization is off.
    pub fixed_layout: bool,
    /// Kernel release that uname(2) returns.
    pub kernel: Option<String>,
    /// Factor of the memory limit; a stage with one also has a resource limit on its data (`RLIMIT_DATA`).
    pub memory_factor: Option<u64>,
    /// Seed of the order in which directories are listed.
    pub shuffle: Option<u64>,
    /// The machine that sysinfo(2) describes.
    pub machine: Option<SystemInfo>,
    /// Whether the overlays of inputs have another size, and other device and inode numbers.
    pub other_inputs: bool,
}

/// The machine that sysinfo(2) describes. Programs ask for it to choose a number of threads or a buffer's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SystemInfo {
    /// Seconds since it was started.
    pub uptime: u64,
    /// Load, in 65536ths of a processor.
    pub load: u64,
    /// Bytes of memory, all of it and the free part.
    pub memory: (u64, u64),
    /// Number of processes.
    pub processes: u16,
}

/// Processors a stage sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Processors {
    /// Their number.
    pub count: u32,
    /// Whether they are the host's last ones instead of the first ones.
    pub last: bool,
}
