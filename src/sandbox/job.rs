//! `Job`: everything pid 1 and the stage inherit from the helper, as forked copies of it.

use super::{cgroup::ControlGroup, plan::Plan, wire::HelperRequest};
use std::{
    collections::BTreeMap,
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

/// A built-in: code of pnb that runs in a sandbox. It takes its arguments and writes below `/build`, or returns why it failed.
pub type BuiltinWriter = fn(args: &[u8]) -> Result<(), String>;

/// The built-ins by name.
pub type BuiltinTable = BTreeMap<&'static str, BuiltinWriter>;

/// The built-in that every table has: it does nothing and succeeds.
pub(super) const NOTHING: &str = "nothing";

/// Everything pid 1 and the stage inherit from the helper.
pub(super) struct Job {
    pub request: HelperRequest,
    pub plan: Plan,
    /// To the executor: frames.
    pub control: UnixStream,
    /// To the executor: descriptors of large files.
    pub files: UnixStream,
    /// Standard input, output, error of the stage.
    pub console: Vec<OwnedFd>,
    /// To the helper.
    pub sync: UnixStream,
    /// Inode numbers of the helper's namespaces.
    pub host_namespaces: BTreeMap<String, u64>,
    pub group: ControlGroup,
    /// Device nodes of the run's own, where they could be made.
    pub devices: Option<OwnedFd>,
    /// Why inputs have the inodes of the host, where the kernel makes no overlays.
    pub no_overlay: Option<String>,
    /// The host's `/proc/meminfo`.
    pub meminfo: Option<File>,
    pub builtins: BuiltinTable,
}
