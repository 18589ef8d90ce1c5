//! The machine an artifact is booted in, as a QEMU command line.

use crate::model::{Arch, RelPath};

/// Prefix of the platform's fw_cfg keys.
const FW_CFG_PREFIX: &str = "opt/com.powernode/";

/// How the machine starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Firmware {
    /// QEMU loads kernel and initramfs itself.
    Direct,
    /// SeaBIOS.
    Bios,
    /// OVMF or, on arm64, AAVMF, without Secure Boot.
    Uefi,
    /// The same, enforcing signatures, with the keys machines are sold with.
    #[value(name = "secureboot")]
    SecureBoot,
    /// The firmware of a Raspberry Pi 4, emulated by pnb because QEMU has none for its machine raspi4b.
    #[value(name = "rpi4")]
    RaspberryPi4,
}

/// What a medium is to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Attach {
    /// A virtio disk.
    Disk,
    /// An optical disc in a SATA drive; on arm64, whose machine and firmware have none, in a SCSI drive.
    Cdrom,
    /// A USB stick.
    Usb,
    /// An SD card.
    Card,
    /// No medium: the machine boots from the network.
    Net,
}

/// How the bytes of a medium are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageFormat {
    /// As they are.
    Raw,
    /// As qcow2.
    Qcow2,
}

/// A medium of the machine; the firmware tries them in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Medium {
    /// The file.
    pub file: String,
    /// How to read it.
    pub format: ImageFormat,
    /// As what it is attached.
    pub attach: Attach,
    /// Whether what the machine writes stays; otherwise it is forgotten at the end.
    pub keep: bool,
}

/// The network a machine boots from. It has nothing but its own host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkBoot {
    /// Directory served by TFTP.
    pub tftp: String,
    /// What DHCP names as boot file.
    pub bootfile: String,
}

/// One value handed over by the firmware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FwCfg {
    /// Whole key, e.g. `opt/com.powernode/instance_uuid`.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// Why a machine cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MachineError {
    /// An argument of `--fw-cfg`.
    #[error("read --fw-cfg {value:?}: {problem}")]
    FwCfg {
        /// What was given.
        value: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Text for the kernel command line.
    #[error("append {value:?} to the kernel command line: it is not one line of printable ASCII")]
    Append {
        /// What was given.
        value: String,
    },
}

impl FwCfg {
    /// Reads `KEY=VALUE`; a key without a slash is one of the platform's.
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
            return Err(bad("the key is not at most 55 of A-Z, a-z, 0-9, \"/._-\" below opt/"));
        }
        Ok(Self {
            key,
            value: value.as_bytes().to_vec(),
        })
    }
}

/// What a machine is started with, instead of what is on its media.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectKernel {
    /// The kernel's image.
    pub image: String,
    /// The initramfs.
    pub initramfs: String,
    /// The device tree, for machines that QEMU makes none for.
    pub device_tree: Option<String>,
    /// The kernel's command line.
    pub command_line: String,
}

/// A machine. Paths are those inside the sandbox that QEMU runs in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Its architecture.
    pub arch: Arch,
    /// How it starts.
    pub firmware: Firmware,
    /// Memory in MiB.
    pub memory: u64,
    /// What it is started with, for [`Firmware::Direct`] and [`Firmware::RaspberryPi4`] only.
    pub kernel: Option<DirectKernel>,
    /// What it boots from, and further disks.
    pub media: Vec<Medium>,
    /// The network it boots from.
    pub network: Option<NetworkBoot>,
    /// Keys handed over by the firmware, each with the file that holds its value.
    pub fw_cfg: Vec<(String, String)>,
    /// Directory shared over 9p, where the node looks for its seed.
    pub share: Option<String>,
}

impl Machine {
    /// Checks text from outside that goes on the kernel command line.
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
