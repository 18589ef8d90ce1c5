//! Landlock rules of a stage, the second wall behind the mounts.
//!
//! Every right of the ABI is handled, so each access is forbidden unless a rule allows it. Rules allow to read and execute the mounts,
//! and to write below `/build`, `/tmp` and the writable mounts. No rule allows to open a file below `/proc` (its links still work),
//! because `mountinfo` would name paths of the host. TCP ports are forbidden unless the spec has a loopback: there the run's own network
//! namespace separates the ports from the host's, and rules by port would add nothing.
//! Source: <https://docs.kernel.org/userspace-api/landlock.html>.

use super::{
    ablation::{SandboxLayer, is_off},
    sys,
    wire::{Fault, FaultKind},
};
use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use std::path::PathBuf;

/// The ABI of which every right is handled: fixed, never taken from the running kernel.
const HANDLED: ABI = ABI::V7;

/// [`HANDLED`] as a number.
pub(super) const ABI_NUMBER: u32 = 7;

/// Paths of the stage, by the access that is allowed to them.
pub(super) struct Rules {
    /// May be listed, read and executed, with everything below.
    pub read: Vec<PathBuf>,
    /// May be changed in any way, except that no device nodes can be made.
    pub write: Vec<PathBuf>,
    /// Device nodes that may be read and written.
    pub devices: Vec<PathBuf>,
    /// The one of them that may be controlled by ioctl(2) too: that of KVM, for a machine.
    pub controlled: Option<PathBuf>,
    /// Whether TCP ports may be bound and connected to.
    pub tcp: bool,
}

#[derive(thiserror::Error, Debug)]
enum LandlockError {
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
    #[error(transparent)]
    Path(#[from] PathFdError),
}

/// The result of applying the rules.
pub(super) struct Applied {
    /// The kernel's ABI; 0 without Landlock.
    pub abi: i64,
    /// `fully enforced`, `partially enforced` or `not enforced`.
    pub status: String,
    /// Why the rules are not fully enforced.
    pub weaker: Option<String>,
}

/// Applies the rules to this thread, irrevocably.
pub(super) fn apply(rules: &Rules, strict: bool) -> Result<Applied, Fault> {
    let abi = match sys::landlock_abi() {
        _ if is_off(SandboxLayer::Landlock) => Err(Errno::ENOSYS.into()),
        asked => asked,
    };
    let abi = match abi {
        Ok(abi) => abi,
        Err(error) => {
            let problem = format!("Landlock is not available: {error}");
            if strict {
                return Err(Fault::new(FaultKind::Weaker, problem, ""));
            }
            return Ok(Applied {
                abi: 0,
                status: "not enforced".to_owned(),
                weaker: Some(problem),
            });
        }
    };
    let level = if strict {
        CompatLevel::HardRequirement
    } else {
        CompatLevel::BestEffort
    };
    let short = format!("this kernel has Landlock ABI {abi}, but ABI {ABI_NUMBER} is needed");
    let status = enforce(rules, level).map_err(|error| {
        let problem = format!("{short} ({error})");
        Fault::new(FaultKind::Weaker, problem, "")
    })?;
    let (name, full) = match status {
        RulesetStatus::FullyEnforced => ("fully enforced", true),
        RulesetStatus::PartiallyEnforced => ("partially enforced", false),
        RulesetStatus::NotEnforced => ("not enforced", false),
    };
    if strict && !full {
        return Err(Fault::new(FaultKind::Weaker, format!("{short}: {name}"), ""));
    }
    Ok(Applied {
        abi,
        status: name.to_owned(),
        weaker: (!full).then(|| format!("{short}: {name}")),
    })
}

fn enforce(rules: &Rules, level: CompatLevel) -> Result<RulesetStatus, LandlockError> {
    let read: BitFlags<AccessFs> = AccessFs::Execute | AccessFs::ReadFile;
    let write = AccessFs::from_all(HANDLED) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let device: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut ruleset = Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(HANDLED))?;
    if !rules.tcp {
        ruleset = ruleset.handle_access(AccessNet::from_all(HANDLED))?;
    }
    let mut ruleset = ruleset
        .scope(Scope::from_all(HANDLED))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::ReadDir))?;
    let files = AccessFs::from_file(HANDLED);
    if let Some(path) = &rules.controlled {
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, AccessFs::IoctlDev))?;
    }
    let grants = [(&rules.read, read), (&rules.write, write), (&rules.devices, device)];
    for (paths, access) in grants {
        for path in paths {
            // The kernel refuses a rule on a file that holds rights of directories.
            let access = if path.is_dir() { access } else { access & files };
            ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}
