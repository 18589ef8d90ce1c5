//! What of a stage's variation can be made different from what every stage has.
//!
//! For building a second time: if an output depends on any of this, it comes out differently. A [`Spec`](super::Spec) of an
//! ordinary build has none of it, and none of it is in the policy: what a stage may do stays the same.

use crate::model::RelPath;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Where [`Variation::files`] is seen, below `/` and below every root with a small `/dev` of its own.
pub const VARIATION_DIR: &str = "dev/pnb";

/// What differs from the variation that every stage has. The default is that nothing does.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Variation {
    /// Environment that is added, or takes the place of what is there.
    pub env: BTreeMap<String, String>,
    /// A directory of the host, read-only, at [`VARIATION_DIR`]: what the environment names has to lie somewhere.
    pub files: Option<PathBuf>,
    /// Host name and domain name.
    pub names: Option<(String, String)>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// User and group id of a stage that has a single one and keeps no capability.
    pub id: Option<u32>,
    /// A second place of `/build`, below `/`, where the workload starts.
    pub work_dir: Option<RelPath>,
    /// Processors.
    pub processors: Option<Processors>,
    /// Whether programs are always laid out in memory alike, instead of differently each time.
    pub fixed_layout: bool,
    /// The release that the kernel calls itself.
    pub kernel: Option<String>,
    /// Limits on memory are multiplied by this, and processes see one on their data where there was none.
    pub memory_factor: Option<u64>,
    /// Directories are listed in an order made of this number.
    pub shuffle: Option<u64>,
}

/// Which processors a stage sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Processors {
    /// How many.
    pub count: u32,
    /// Whether they are the last of those there are, instead of the first.
    pub last: bool,
}
