//! The machine an artifact is booted in, as a QEMU command line.

use crate::model::{Arch, RelPath};

/// Prefix of the platform's fw_cfg keys.
const FW_CFG_PREFIX: &str = "opt/com.powernode/";

/// Mount tag of the seed share that 90powernode looks for.
const SEED_TAG: &str = "powernode-seed";

/// How the machine starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Firmware {
    /// The kernel and initramfs are handed to QEMU.
    Direct,
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
    /// Directory of the artifact.
    pub artifact: String,
    /// Kernel command line.
    pub command_line: String,
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

    /// QEMU and its arguments: software emulation, the serial console on standard output, no network, no display.
    pub fn command(&self, interactive: bool) -> Vec<String> {
        let (program, machine) = match self.arch {
            Arch::Amd64 => ("/usr/bin/qemu-system-x86_64", "q35"),
            Arch::Arm64 => ("/usr/bin/qemu-system-aarch64", "virt"),
        };
        let serial = if interactive { "mon:stdio" } else { "stdio" };
        let mut argv: Vec<String> = [
            program,
            "-nodefaults",
            "-no-user-config",
            "-L",
            "/usr/share/qemu",
            "-L",
            "/usr/share/seabios",
            "-machine",
            machine,
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
        ]
        .map(str::to_owned)
        .to_vec();
        argv.push(self.memory.to_string());
        argv.extend(["-display", "none", "-no-reboot", "-nic", "none", "-serial", serial].map(str::to_owned));
        match self.firmware {
            Firmware::Direct => {
                let file = |name: &str| format!("{}/{name}", self.artifact);
                argv.extend(["-kernel".to_owned(), file("kernel")]);
                argv.extend(["-initrd".to_owned(), file("initramfs.cpio.zst")]);
                argv.extend(["-append".to_owned(), self.command_line.clone()]);
            }
        }
        for (key, file) in &self.fw_cfg {
            argv.extend(["-fw_cfg".to_owned(), format!("name={key},file={file}")]);
        }
        if let Some(share) = &self.share {
            let share = format!("local,path={share},mount_tag={SEED_TAG},security_model=mapped-xattr,id=seed");
            argv.extend(["-virtfs".to_owned(), share]);
        }
        argv
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
