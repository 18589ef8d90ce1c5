//! The device nodes of a stage.
//!
//! Locks and watches belong to an inode: a stage that locks the host's `/dev/null` locks it for the host. Where pnb runs as root, the
//! helper makes nodes of the run's own. Only root of the host may make device nodes, so a stage of an ordinary user has the host's.

use super::sys::{self, attr};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknodat};
use std::{io, os::fd::OwnedFd};

/// A device node that every stage has: its name and its number, as in the kernel's admin-guide/devices.txt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DeviceNode {
    pub name: &'static str,
    major: u64,
    minor: u64,
}

const fn memory(name: &'static str, minor: u64) -> DeviceNode {
    DeviceNode { name, major: 1, minor }
}

/// The kernel's interface to the processor's virtualization; only where [`super::Spec::kvm`] asks for it.
pub(super) const KVM: DeviceNode = DeviceNode {
    name: "kvm",
    major: 10,
    minor: 232,
};

/// Those of every stage, by name.
pub(super) const DEVICES: [DeviceNode; 5] = [
    memory("full", 7),
    memory("null", 3),
    memory("random", 8),
    memory("urandom", 9),
    memory("zero", 5),
];

/// A detached tmpfs with nodes of its own, with [`KVM`] if `kvm`.
pub(super) fn own_nodes(kvm: bool) -> io::Result<OwnedFd> {
    let options = [(c"size", c"64k"), (c"nr_inodes", c"16"), (c"mode", c"0755")];
    let nodes = sys::new_filesystem(c"tmpfs", &options, attr::NOSUID | attr::NOEXEC)?;
    for DeviceNode { name, major, minor } in DEVICES.into_iter().chain(kvm.then_some(KVM)) {
        mknodat(&nodes, name, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))?;
        // The mode given to mknod(2) passes through the caller's umask.
        let mode = Mode::from_bits_truncate(0o666);
        fchmodat(&nodes, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(nodes)
}
