//! Whether this host's KVM can run machines, found by using it.
//!
//! The node exists on many hosts where it is of no use: in containers without the device, for users outside of the group `kvm`, where
//! virtualization is off in the firmware, and in virtual machines whose KVM does without the processor's help. Only a machine that is made
//! shows the first three; the last one makes machines, and runs their first instructions alone.

use super::sys;
use crate::model::Arch;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::{io, path::Path};

/// The device node of KVM.
pub const KVM_DEVICE: &str = "/dev/kvm";
/// The version of KVM's interface, which has been the same since Linux 2.6.22.
const VERSION: i64 = 12;
/// Flags of the processor in `/proc/cpuinfo` on x86: one of them stands for hardware that runs machines.
const VIRTUALIZATION: [&str; 2] = ["vmx", "svm"];

/// Why KVM does not run machines here; each message is the reason after a colon.
#[derive(Debug, thiserror::Error)]
pub enum KvmProblem {
    /// The device cannot be opened.
    #[error("{device} cannot be opened")]
    Open {
        /// The device node.
        device: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The device is not KVM's.
    #[error("{device} does not answer as KVM")]
    NotKvm {
        /// The device node.
        device: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Another interface.
    #[error("{device} has version {found} of KVM's interface, not {VERSION}")]
    Version {
        /// The device node.
        device: String,
        /// Its version.
        found: i64,
    },
    /// No machine can be made.
    #[error("{device} makes no machine")]
    NoMachine {
        /// The device node.
        device: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The processor has no virtualization.
    #[error("the processor has neither vmx nor svm, without which KVM runs no ordinary kernel")]
    Processor,
}

/// Tries `device` as KVM: opens it, asks for its version, makes a machine. `processor` is the text of `/proc/cpuinfo`, which says on x86
/// whether the processor helps; the hosts of arm64 have no such list.
pub fn probe_kvm(device: &Path, host: Arch, processor: &str) -> Result<(), KvmProblem> {
    let name = || device.display().to_string();
    // A FIFO or a terminal in the place of the node must not hold the caller.
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = open(device, flags, Mode::empty()).map_err(|errno| KvmProblem::Open {
        device: name(),
        source: errno.into(),
    })?;
    let version = sys::kvm_version(&opened).map_err(|source| KvmProblem::NotKvm { device: name(), source })?;
    if version != VERSION {
        return Err(KvmProblem::Version {
            device: name(),
            found: version,
        });
    }
    let helps = processor
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(field, _)| field.trim() == "flags")
        .any(|(_, flags)| flags.split_whitespace().any(|flag| VIRTUALIZATION.contains(&flag)));
    if host == Arch::Amd64 && !helps {
        return Err(KvmProblem::Processor);
    }
    sys::try_kvm_machine(&opened).map_err(|source| KvmProblem::NoMachine { device: name(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain;
    use nix::unistd::mkfifo;
    use std::fs;

    const HARDWARE: &str = "processor\t: 0\nflags\t\t: fpu vmx\n";

    fn said(device: &Path) -> String {
        probe_kvm(device, Arch::Amd64, HARDWARE).map_or_else(|problem| chain(&problem), |()| "usable".to_owned())
    }

    #[test]
    fn what_is_no_kvm_is_named() {
        let dir = tempfile::tempdir().expect("scratch");
        let place = dir.path().join("kvm");
        let name = place.display().to_string();
        assert_eq!(
            said(&place),
            format!("{name} cannot be opened: No such file or directory (os error 2)")
        );
        let no_answer = format!("{name} does not answer as KVM: Inappropriate ioctl for device (os error 25)");
        fs::write(&place, "").expect("written");
        assert_eq!(said(&place), no_answer);
        fs::remove_file(&place).expect("removed");
        std::os::unix::fs::symlink("/dev/null", &place).expect("linked");
        assert_eq!(said(&place), no_answer);
        fs::remove_file(&place).expect("removed");
        mkfifo(&place, Mode::S_IRWXU).expect("made");
        assert_eq!(said(&place), no_answer);
        fs::remove_file(&place).expect("removed");
        fs::create_dir(&place).expect("made");
        assert!(said(&place).contains("cannot be opened"), "{}", said(&place));
    }

    #[test]
    fn a_processor_without_virtualization_is_no_hardware_for_kvm() {
        // The node of this host, where it has one; the answer is the same for everybody who can open it.
        let device = Path::new(KVM_DEVICE);
        for flags in ["", "flags : fpu svme xvmx", "model name : AMD svm", "bugs : vmx"] {
            match probe_kvm(device, Arch::Amd64, flags) {
                Err(KvmProblem::Processor | KvmProblem::Open { .. } | KvmProblem::NotKvm { .. }) => {}
                other => unreachable!("{flags:?}: {other:?}"),
            }
        }
    }
}
