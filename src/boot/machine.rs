//! The machine an artifact is booted in, as a QEMU command line.

use crate::model::{Arch, RelPath};

/// Prefix of the platform's fw_cfg keys.
const FW_CFG_PREFIX: &str = "opt/com.powernode/";

/// Mount tag of the seed share that 90powernode looks for.
const SEED_TAG: &str = "powernode-seed";

const QEMU_AMD64: &str = "/usr/bin/qemu-system-x86_64";
const QEMU_ARM64: &str = "/usr/bin/qemu-system-aarch64";

/// How the machine starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Firmware {
    /// QEMU loads kernel and initramfs itself.
    Direct,
    /// SeaBIOS.
    Bios,
    /// OVMF without Secure Boot.
    Uefi,
    /// OVMF that enforces signatures, with the keys machines are sold with.
    #[value(name = "secureboot")]
    SecureBoot,
}

/// What a medium is to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Attach {
    /// A virtio disk.
    Disk,
    /// An optical disc in a SATA drive.
    Cdrom,
    /// A USB stick.
    Usb,
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
pub struct Network {
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

/// A machine. Paths are those inside the sandbox that QEMU runs in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Its architecture.
    pub arch: Arch,
    /// How it starts.
    pub firmware: Firmware,
    /// Memory in MiB.
    pub memory: u64,
    /// Kernel, initramfs and command line, for [`Firmware::Direct`] only.
    pub kernel: Option<(String, String, String)>,
    /// What it boots from, and further disks.
    pub media: Vec<Medium>,
    /// The network it boots from.
    pub network: Option<Network>,
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

    /// QEMU and its arguments: software emulation, the serial console on standard output, no display, and no network but the one
    /// it boots from.
    pub fn command(&self, interactive: bool) -> Vec<String> {
        let mut argv = Vec::new();
        let mut add = |words: &[&str]| argv.extend(words.iter().map(|w| (*w).to_owned()));
        let (program, machine) = match (self.arch, self.firmware) {
            (Arch::Amd64, Firmware::SecureBoot) => (QEMU_AMD64, "q35,smm=on"),
            (Arch::Amd64, _) => (QEMU_AMD64, "q35"),
            (Arch::Arm64, _) => (QEMU_ARM64, "virt"),
        };
        add(&[program, "-nodefaults", "-no-user-config"]);
        for directory in ["/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe/qemu"] {
            add(&["-L", directory]);
        }
        add(&[
            "-machine",
            machine,
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
        ]);
        add(&["-m", &self.memory.to_string(), "-display", "none", "-no-reboot"]);
        add(&["-serial", if interactive { "mon:stdio" } else { "stdio" }]);
        add(&["-device", "virtio-rng-pci"]);
        match self.firmware {
            Firmware::Direct => {}
            Firmware::Bios => add(&["-device", "VGA"]),
            Firmware::Uefi => add(&[
                "-device",
                "VGA",
                "-drive",
                &pflash(0, "CODE_4M"),
                "-drive",
                &pflash(1, "VARS_4M"),
            ]),
            Firmware::SecureBoot => add(&[
                "-device",
                "VGA",
                "-global",
                "driver=cfi.pflash01,property=secure,value=on",
                "-drive",
                &pflash(0, "CODE_4M.ms"),
                "-drive",
                &pflash(1, "VARS_4M.ms"),
            ]),
        }
        if let Some((kernel, initramfs, command_line)) = &self.kernel {
            add(&["-kernel", kernel, "-initrd", initramfs, "-append", command_line]);
        }
        if self.media.iter().any(|m| m.attach == Attach::Usb) {
            add(&["-device", "qemu-xhci"]);
        }
        for (n, medium) in self.media.iter().enumerate() {
            let (drive, device) = medium.arguments(n);
            add(&["-drive", &drive, "-device", &device]);
        }
        match &self.network {
            None => add(&["-nic", "none"]),
            Some(network) => {
                let user = format!("user,id=net,tftp={},bootfile={}", network.tftp, network.bootfile);
                // OVMF has a driver of its own for the card; with iPXE in its ROM it would be iPXE that boots.
                let rom = if self.firmware == Firmware::Bios {
                    ""
                } else {
                    ",romfile="
                };
                let card = format!("virtio-net-pci,netdev=net,bootindex=0{rom}");
                add(&["-netdev", &user, "-device", &card]);
            }
        }
        for (key, file) in &self.fw_cfg {
            add(&["-fw_cfg", &format!("name={key},file={file}")]);
        }
        if let Some(share) = &self.share {
            let share = format!("local,path={share},mount_tag={SEED_TAG},security_model=mapped-xattr,id=seed");
            add(&["-virtfs", &share]);
        }
        argv
    }
}

/// A flash chip of OVMF. What the firmware writes to it is forgotten.
fn pflash(unit: u8, name: &str) -> String {
    let access = if unit == 0 { "readonly=on" } else { "snapshot=on" };
    format!("if=pflash,unit={unit},format=raw,{access},file=/usr/share/OVMF/OVMF_{name}.fd")
}

impl Medium {
    /// Values of `-drive` and `-device` for the medium number `n`.
    fn arguments(&self, n: usize) -> (String, String) {
        let format = match self.format {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        };
        let (access, device) = match (self.attach, self.keep) {
            (Attach::Cdrom, _) => ("media=cdrom,readonly=on", "ide-cd"),
            (Attach::Usb, keep) => (
                if keep { "cache=writeback" } else { "snapshot=on" },
                "usb-storage,removable=on",
            ),
            (Attach::Disk | Attach::Net, keep) => {
                (if keep { "cache=writeback" } else { "snapshot=on" }, "virtio-blk-pci")
            }
        };
        let file = self.file.replace(',', ",,");
        (
            format!("if=none,id=medium{n},format={format},{access},file={file}"),
            format!("{device},drive=medium{n},bootindex={}", n + 1),
        )
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
