//! The choice between KVM and software emulation.

use super::Firmware;
use crate::{
    model::{Arch, chain},
    sandbox::KvmProblem,
};
use serde::Serialize;

/// The accelerator that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum AskedAccelerator {
    /// KVM where it works, else emulation.
    Auto,
    /// KVM, or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

/// The executor of the machine's instructions: KVM or emulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor of the host.
    Kvm,
    /// QEMU's translator, in software.
    Tcg,
}

impl Accelerator {
    /// The name that QEMU has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// The accelerator of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AcceleratorChoice {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Why it is not KVM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl AcceleratorChoice {
    /// Emulation, for `reason`.
    pub fn emulated(reason: impl Into<String>) -> Self {
        Self {
            accelerator: Accelerator::Tcg,
            reason: Some(reason.into()),
        }
    }
}

/// KVM was asked for and cannot be had; the message completes "failed to …".
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("run the machine by KVM: {reason}")]
pub struct NoKvm {
    /// Why not.
    reason: String,
}

impl AskedAccelerator {
    /// Chooses for a machine of `arch` with `firmware` on a host of the architecture `host`. `probe` tries the host's KVM, and is called
    /// only if everything else allows KVM.
    ///
    /// # Errors
    /// [`NoKvm`] if KVM is asked for. A processor without `vmx` or `svm` is no such error: KVM can be tried there.
    pub fn choose(
        self,
        (arch, firmware): (Arch, Firmware),
        host: Arch,
        probe: impl FnOnce() -> Result<(), KvmProblem>,
    ) -> Result<AcceleratorChoice, NoKvm> {
        if self == AskedAccelerator::Tcg {
            return Ok(AcceleratorChoice::emulated("--accel tcg"));
        }
        let reason = if firmware == Firmware::RaspberryPi4 {
            "QEMU emulates the processors of its Raspberry Pi 4".to_owned()
        } else if arch != host {
            format!("a machine of {arch} on a host of {host}")
        } else {
            match probe() {
                Ok(()) => String::new(),
                Err(KvmProblem::Processor) if self == AskedAccelerator::Kvm => String::new(),
                Err(problem) => chain(&problem),
            }
        };
        match (self, reason.is_empty()) {
            (_, true) => Ok(AcceleratorChoice {
                accelerator: Accelerator::Kvm,
                reason: None,
            }),
            (AskedAccelerator::Kvm, false) => Err(NoKvm { reason }),
            (_, false) => Ok(AcceleratorChoice::emulated(reason)),
        }
    }
}

/// How QEMU begins its line when KVM cannot go on: it then stops the machine and waits.
const BROKEN: &str = "KVM internal error";
/// How QEMU begins its other messages.
const QEMU: &str = "qemu-system-";

/// Finds the line with which QEMU says that KVM cannot go on, and its first other message. Anything in the machine can print them, too, and
/// ends itself by that.
#[derive(Debug, Default)]
pub struct KvmWatch {
    line: Vec<u8>,
    broken: Option<String>,
    message: Option<String>,
}

/// Bytes of a line that are kept.
const MAX_LINE: usize = 200;

impl KvmWatch {
    /// Takes the next bytes of QEMU's output.
    pub fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    let place = match &self.line {
                        line if line.starts_with(BROKEN.as_bytes()) => Some(&mut self.broken),
                        line if line.starts_with(QEMU.as_bytes()) => Some(&mut self.message),
                        _ => None,
                    };
                    if let Some(place) = place {
                        place.get_or_insert_with(|| String::from_utf8_lossy(&self.line).trim().to_owned());
                    }
                    self.line.clear();
                }
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    /// The line, once there was one.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// The first message of QEMU.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io, path::Path};

    fn chosen(
        asked: AskedAccelerator,
        machine: (Arch, Firmware),
        probe: Result<(), KvmProblem>,
    ) -> Result<AcceleratorChoice, NoKvm> {
        asked.choose(machine, Arch::Amd64, || probe)
    }

    fn closed() -> Result<(), KvmProblem> {
        Err(KvmProblem::Open {
            device: "/dev/kvm".to_owned(),
            source: io::ErrorKind::PermissionDenied.into(),
        })
    }

    #[test]
    fn kvm_runs_machines_of_the_hosts_own_architecture_where_it_works() {
        use AskedAccelerator::{Auto, Kvm, Tcg};
        let own = (Arch::Amd64, Firmware::SecureBoot);
        let kvm = AcceleratorChoice {
            accelerator: Accelerator::Kvm,
            reason: None,
        };
        assert_eq!(chosen(Auto, own, Ok(())), Ok(kvm.clone()));
        assert_eq!(chosen(Kvm, own, Ok(())), Ok(kvm.clone()));
        assert_eq!(chosen(Tcg, own, Ok(())), Ok(AcceleratorChoice::emulated("--accel tcg")));
        for (machine, probe, reason) in [
            (
                (Arch::Arm64, Firmware::Uefi),
                Ok(()),
                "a machine of arm64 on a host of amd64",
            ),
            (
                (Arch::Arm64, Firmware::RaspberryPi4),
                Ok(()),
                "QEMU emulates the processors of its Raspberry Pi 4",
            ),
            (own, closed(), "/dev/kvm cannot be opened: permission denied"),
        ] {
            let again = || match &probe {
                Ok(()) => Ok(()),
                Err(_) => closed(),
            };
            assert_eq!(chosen(Auto, machine, again()), Ok(AcceleratorChoice::emulated(reason)),);
            let reason = reason.to_owned();
            assert_eq!(chosen(Kvm, machine, again()), Err(NoKvm { reason }));
        }
        let reason = chain(&KvmProblem::Processor);
        let emulated = AcceleratorChoice::emulated(reason);
        assert_eq!(chosen(Auto, own, Err(KvmProblem::Processor)), Ok(emulated));
        assert_eq!(chosen(Kvm, own, Err(KvmProblem::Processor)), Ok(kvm));
    }

    #[test]
    fn a_node_of_another_kind_in_the_place_of_kvm_means_emulation() {
        let dir = tempfile::tempdir().expect("scratch");
        let fake = dir.path().join("kvm");
        std::fs::write(&fake, "").expect("written");
        let machine = (Arch::host(), Firmware::Direct);
        let probe = |device: &Path| crate::sandbox::probe_kvm(device, Arch::host(), "flags: vmx svm\n");
        let choice = AskedAccelerator::Auto.choose(machine, Arch::host(), || probe(&fake));
        let choice = choice.expect("emulation is always there");
        assert_eq!(choice.accelerator, Accelerator::Tcg);
        let reason = choice.reason.expect("a reason");
        assert!(reason.contains("does not answer as KVM"), "{reason}");
        let refused = AskedAccelerator::Kvm.choose(machine, Arch::host(), || probe(&fake));
        assert_eq!(refused, Err(NoKvm { reason }));
    }

    #[test]
    fn the_lines_of_qemu_count_at_their_beginning() {
        let broken = "KVM internal error. Suberror: 1";
        let message = "qemu-system-x86_64: error: failed to set MSR 0x10a to 0xc000069";
        for (text, want) in [
            (
                format!("{broken}\nKVM internal error. Suberror: 3\n"),
                (Some(broken), None),
            ),
            (format!("[ 1.0] x\r\n{broken}\r\nRAX=0"), (Some(broken), None)),
            (
                format!("{message}\nqemu-system-x86_64: Assertion\nbuilt-in: y\n"),
                (None, Some(message)),
            ),
            (format!("usb: {broken}\nsaid: {message}\n"), (None, None)),
            (broken.to_owned(), (None, None)),
        ] {
            let mut watch = KvmWatch::default();
            for byte in text.bytes() {
                watch.take(&[byte]);
            }
            assert_eq!((watch.broken(), watch.message()), want, "{text:?}");
        }
    }
}
