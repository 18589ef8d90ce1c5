//! `Machine`: the emulated machine that boots an artifact.

use super::{Accelerator, Forward, NodeNetwork, Reach, Smbios};
use crate::model::{Arch, Hint, RelPath, SectorSize};
use std::borrow::Cow;

/// Prefix of the platform's fw_cfg keys.
const FW_CFG_PREFIX: &str = "opt/com.powernode/";

/// The firmware of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Firmware {
    /// QEMU loads kernel and initramfs itself.
    Direct,
    /// SeaBIOS.
    Bios,
    /// OVMF or, on arm64, AAVMF, without Secure Boot.
    Uefi,
    /// The same with Secure Boot, and with the keys that machines are sold with.
    #[value(name = "secureboot")]
    SecureBoot,
    /// The firmware of a Raspberry Pi 4, emulated by pnb because QEMU has none for its machine raspi4b.
    #[value(name = "rpi4")]
    RaspberryPi4,
}

/// The kind of drive that a medium is attached as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Attach {
    /// A virtio disk.
    Disk,
    /// An optical disc: in a SATA drive, or on arm64, whose machine and firmware have no SATA, in a SCSI drive.
    Cdrom,
    /// A USB stick.
    Usb,
    /// An SD card.
    Card,
    /// No medium: the machine boots from the network.
    Net,
}

/// The image format of a medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageFormat {
    /// The bytes of the medium.
    Raw,
    /// A qcow2 image.
    Qcow2,
}

/// A medium of the machine; the firmware tries the media in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Medium {
    /// The image file.
    pub file: String,
    /// Its format.
    pub format: ImageFormat,
    /// The kind of drive.
    pub attach: Attach,
    /// Its logical sectors, as a disk or a USB stick.
    pub sector_size: SectorSize,
    /// Whether the machine's writes change the file; otherwise they are dropped at the end.
    pub keep: bool,
}

/// The network that a machine boots from; its only other member is the machine's own host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkBoot {
    /// Directory served by TFTP.
    pub tftp: String,
    /// Boot file that DHCP names.
    pub bootfile: String,
}

/// A value that the firmware passes to the system (fw_cfg).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FwCfg {
    /// The whole key, e.g. `opt/com.powernode/instance_uuid`.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
}

/// Why a machine cannot be described; every message completes "failed to …".
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MachineError {
    /// A value of `--fw-cfg` is malformed.
    #[error("read --fw-cfg {value:?}: {problem}")]
    FwCfg {
        /// The value.
        value: String,
        /// The fault.
        problem: &'static str,
    },
    /// A value of `--reach` is malformed.
    #[error("read --reach {value:?}: {problem}")]
    Reach {
        /// The value.
        value: String,
        /// The fault.
        problem: String,
    },
    /// A value of `--forward` is malformed.
    #[error("read --forward {value:?}: {problem}")]
    Forward {
        /// The value.
        value: String,
        /// The fault.
        problem: String,
    },
    /// A value of `--smbios` is malformed.
    #[error("read --smbios {value:?}: {problem}")]
    Smbios {
        /// The value.
        value: String,
        /// The fault.
        problem: String,
    },
    /// A value of `--append` cannot be on the kernel command line.
    #[error("append {value:?} to the kernel command line: it is not one line of printable ASCII")]
    Append {
        /// The value.
        value: String,
    },
}

impl Hint for MachineError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            MachineError::Reach { .. } => {
                Some("--reach 10.0.2.100:443=127.0.0.1:8443 leads to a server on port 8443 of this host".into())
            }
            MachineError::Forward { .. } => {
                Some("--forward 2222:22 leads from port 2222 of this host to port 22 of the machine".into())
            }
            _ => None,
        }
    }
}

impl FwCfg {
    /// Parses `KEY=VALUE`; a key without a slash is one of the platform's.
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        let bad = |problem| MachineError::FwCfg {
            value: text.to_owned(),
            problem,
        };
        let (key, value) = text.split_once('=').ok_or_else(|| bad("it is not KEY=VALUE"))?;
        let key = if key.contains('/') {
            key.to_owned()
        } else {
            format!("{FW_CFG_PREFIX}{key}")
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if key.len() > 55 || !key.starts_with("opt/") || RelPath::new(&key).is_err() || !key.chars().all(plain) {
            return Err(bad(
                "the key must begin with opt/ and have at most 55 of the characters A-Z, a-z, 0-9, \"/._-\"",
            ));
        }
        Ok(Self {
            key,
            value: value.as_bytes().to_vec(),
        })
    }
}

/// A kernel that QEMU loads, instead of one from the media.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectKernel {
    /// The kernel image.
    pub image: String,
    /// The initramfs.
    pub initramfs: String,
    /// The device tree, for machines whose tree QEMU does not generate.
    pub device_tree: Option<String>,
    /// The kernel's command line.
    pub command_line: String,
}

/// A machine. All paths are inside the sandbox in which QEMU runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Its architecture.
    pub arch: Arch,
    /// Its firmware.
    pub firmware: Firmware,
    /// The executor of its instructions; KVM for machines of the host's own architecture only.
    pub accelerator: Accelerator,
    /// Memory in MiB.
    pub memory: u64,
    /// Number of processors. With more than one, an emulated machine whose host is busy can wait for a processor that does not run.
    pub processors: u32,
    /// The kernel, for [`Firmware::Direct`] and [`Firmware::RaspberryPi4`] only.
    pub kernel: Option<DirectKernel>,
    /// The media that it boots from, and further disks.
    pub media: Vec<Medium>,
    /// The network it boots from.
    pub network: Option<NetworkBoot>,
    /// The network of its card.
    pub card: NodeNetwork,
    /// The servers of this host that it reaches there.
    pub reach: Vec<Reach>,
    /// The ports of this host that lead to it.
    pub forward: Vec<Forward>,
    /// File for the packets that the card sends and receives. With one, the machine has a card also if it reaches nothing.
    pub capture: Option<String>,
    /// Values of its DMI tables, in place of QEMU's.
    pub smbios: Vec<Smbios>,
    /// fw_cfg keys, each with the file that holds its value.
    pub fw_cfg: Vec<(String, String)>,
    /// Directory shared over 9p, with the node's seed.
    pub share: Option<String>,
}

impl Machine {
    /// Joins the values of `--append` for the kernel command line; each must be one line of printable ASCII.
    pub fn checked_append(parts: &[String]) -> Result<String, MachineError> {
        for value in parts {
            if !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
                return Err(MachineError::Append { value: value.clone() });
            }
        }
        Ok(parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_slash_are_the_platforms() {
        let cfg = FwCfg::parse("instance_uuid=a=b").expect("valid");
        assert_eq!(
            (cfg.key.as_str(), cfg.value.as_slice()),
            ("opt/com.powernode/instance_uuid", &b"a=b"[..])
        );
        for bad in ["novalue", "opt/../etc=x", "/abs=x", "a,file=/etc/shadow=x", "etc/x=y"] {
            assert!(FwCfg::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn appended_text_stays_on_its_line() {
        assert!(Machine::checked_append(&["a=1\nb".to_owned()]).is_err());
        assert_eq!(
            Machine::checked_append(&["a=1".to_owned(), "b".to_owned()]),
            Ok("a=1 b".to_owned())
        );
    }
}
