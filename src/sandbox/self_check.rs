//! The stage's measurements of its own sandbox, taken just before it becomes the workload.

use super::{
    Network, Spec,
    capability::kernel_capability,
    outcome::Measured,
    sys::{self, NAMESPACES},
    wire::{Fault, Step},
};
use nix::{
    fcntl::{OFlag, openat},
    sys::{
        stat::Mode,
        statfs::{OVERLAYFS_SUPER_MAGIC, statfs},
    },
};
use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

fn open(proc: impl AsFd, name: &str) -> nix::Result<File> {
    openat(proc, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
}

fn read(proc: impl AsFd, name: &str) -> Result<String, Fault> {
    let mut text = String::new();
    let mut file = open(proc, name).step(format!("read /proc/{name}"))?;
    file.read_to_string(&mut text).step(format!("read /proc/{name}"))?;
    Ok(text)
}

/// The measurements that Landlock will forbid to take.
pub(super) fn before(proc: &OwnedFd) -> Result<Measured, Fault> {
    let interfaces = read(proc, "self/net/dev")?;
    let limits = read(proc, "self/limits")?;
    let mounts = read(proc, "self/mountinfo")?;
    Ok(Measured {
        uid_map: read(proc, "self/uid_map")?
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        network: interfaces
            .lines()
            .filter_map(|l| l.split_once(':'))
            .map(|(name, _)| name.trim().to_owned())
            .collect(),
        loopback_up: sys::loopback_is_up().step("read the flags of the loopback")?,
        resource_limits: limits
            .lines()
            .filter(|l| l.starts_with("Max "))
            .filter_map(|l| {
                Some((
                    l.get(..26)?.trim().to_owned(),
                    l.get(26..)?.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
                ))
            })
            .collect(),
        writable: mounts.lines().filter_map(writable_mount).collect(),
        ..Measured::default()
    })
}

/// Part of the message about inputs that are no overlays.
pub(super) const NO_OVERLAY: &str = "the kernel makes no overlay";

/// Those of the mount points that are no overlays.
pub(super) fn shared(inputs: impl Iterator<Item = PathBuf>) -> Result<Vec<String>, Fault> {
    let mut shared = Vec::new();
    for point in inputs {
        let found = statfs(&point).step(format!("look at {}", point.display()))?;
        if found.filesystem_type() != OVERLAYFS_SUPER_MAGIC {
            shared.push(point.display().to_string());
        }
    }
    Ok(shared)
}

/// Mount point of a `mountinfo` line whose mount can be written to.
fn writable_mount(line: &str) -> Option<String> {
    let mut fields = line.split(' ').skip(4);
    let (point, options) = (fields.next()?, fields.next()?);
    options.split(',').any(|o| o == "rw").then(|| point.to_owned())
}

/// An open `/proc/self/status`, read after Landlock forbids to open it.
pub(super) struct ProcStatus(File);

impl ProcStatus {
    pub(super) fn open(proc: &OwnedFd) -> Result<Self, Fault> {
        open(proc, "self/status").map(Self).step("open /proc/self/status")
    }

    pub(super) fn read_into(mut self, found: &mut Measured) -> Result<(), Fault> {
        let mut text = String::new();
        self.0.read_to_string(&mut text).step("read /proc/self/status")?;
        let field = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            line.map_or("", str::trim)
        };
        found.no_new_privs = field("NoNewPrivs") == "1";
        found.seccomp_mode = field("Seccomp").parse().unwrap_or(0);
        found.seccomp_filters = field("Seccomp_filters").parse().unwrap_or(0);
        found.capabilities_bounding = field("CapBnd").to_owned();
        found.capabilities_effective = field("CapEff").to_owned();
        Ok(())
    }
}

/// Whether a file that no Landlock rule allows can be opened.
pub(super) fn can_open_forbidden(proc: &OwnedFd) -> bool {
    open(proc, "self/status").is_ok()
}

/// The first difference between the measurements and the spec.
pub(super) fn judge(found: &Measured, spec: &Spec, landlock: bool, no_overlay: Option<&str>) -> Option<String> {
    let kept = spec
        .capabilities
        .iter()
        .fold(0u64, |mask, c| mask | kernel_capability(*c).bitmask());
    let missing = NAMESPACES.iter().find(|n| !found.namespaces.iter().any(|f| f == *n));
    let problem = |wrong: bool, text: String| wrong.then_some(text);
    missing
        .map(|n| format!("the stage shares its {n} namespace with the host"))
        .or(problem(
            !found.no_new_privs,
            "the stage can gain privileges (NoNewPrivs is not 1)".to_owned(),
        ))
        .or(problem(
            found.seccomp_mode != 2,
            format!("seccomp is in mode {}", found.seccomp_mode),
        ))
        .or(problem(
            landlock && found.landlock_leaks,
            "Landlock lets the stage open a file that no rule allows".to_owned(),
        ))
        .or(problem(
            u64::from_str_radix(&found.capabilities_bounding, 16) != Ok(kept),
            format!(
                "the bounding set of capabilities is {}, not {kept:016x}",
                found.capabilities_bounding
            ),
        ))
        .or(problem(
            found.network.iter().any(|n| n != "lo"),
            format!("the stage sees other network interfaces than lo: {:?}", found.network),
        ))
        .or(problem(
            !found.shared_inputs.is_empty(),
            format!(
                "inputs have inodes of the host ({}), because {NO_OVERLAY}: {}",
                found.shared_inputs.join(", "),
                no_overlay.unwrap_or("it did not say why")
            ),
        ))
        .or(problem(
            found.loopback_up != (spec.network == Network::Loopback),
            format!("the loopback is {}", if found.loopback_up { "up" } else { "down" }),
        ))
}
