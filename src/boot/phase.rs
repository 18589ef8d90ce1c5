//! How far a boot is, as its console shows, and how long such a boot takes.

use super::{Attach, Firmware};
use crate::model::Arch;
use serde::Serialize;
use std::fmt;

/// A stage of a boot, in the order of all boots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootPhase {
    /// Nothing else has shown itself yet.
    #[default]
    Firmware,
    /// GRUB, iPXE, or the kernel's own loader for UEFI.
    Loader,
    /// The kernel, before its first program.
    Kernel,
    /// dracut and 90powernode.
    Initramfs,
    /// From the initramfs to the verified root.
    Pivot,
    /// The units of systemd.
    Units,
    /// The agent, which has to run for ten seconds before the ready line.
    Agent,
}

/// What a line of the console begins with, behind the kernel's time, or holds, when a stage begins.
const SIGNS: [(BootPhase, Sign, &str); 12] = [
    (BootPhase::Loader, Sign::Holds, "GRUB"),
    (BootPhase::Loader, Sign::Holds, "Booting `"),
    (BootPhase::Loader, Sign::Holds, "iPXE"),
    (BootPhase::Loader, Sign::Begins, "EFI stub:"),
    (BootPhase::Kernel, Sign::Begins, "Linux version "),
    (BootPhase::Initramfs, Sign::Begins, "Run /init as init process"),
    (BootPhase::Initramfs, Sign::Begins, "dracut: dracut-"),
    (BootPhase::Pivot, Sign::Begins, "dracut: Switching root"),
    (BootPhase::Units, Sign::Begins, "systemd[1]: "),
    (BootPhase::Agent, Sign::Holds, "Started powernode-agent.service"),
    (BootPhase::Agent, Sign::Holds, "Reached target multi-user.target"),
    (BootPhase::Agent, Sign::Begins, "powernode: state "),
];

/// Where in a line the words of a sign are.
#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Begins,
    Holds,
}

impl BootPhase {
    /// Name of the stage.
    pub const fn as_str(self) -> &'static str {
        match self {
            BootPhase::Firmware => "firmware",
            BootPhase::Loader => "loader",
            BootPhase::Kernel => "kernel",
            BootPhase::Initramfs => "initramfs",
            BootPhase::Pivot => "pivot",
            BootPhase::Units => "units",
            BootPhase::Agent => "agent",
        }
    }

    /// The stage after a line of the console. A boot goes forward, and it does not skip the kernel: what a loader prints about a later stage
    /// is text.
    #[must_use]
    pub fn after(self, line: &str) -> Self {
        let logged = without_time(line);
        let shown = SIGNS.iter().filter(|(_, sign, words)| match sign {
            Sign::Begins => logged.starts_with(words),
            Sign::Holds => line.contains(words),
        });
        let next = shown.map(|(phase, ..)| *phase).filter(|next| *next > self);
        let reachable = |next: &BootPhase| *next <= BootPhase::Kernel || self >= BootPhase::Kernel;
        next.filter(reachable).min().unwrap_or(self)
    }
}

impl fmt::Display for BootPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The line without the kernel's time, `[    1.234567] `.
fn without_time(line: &str) -> &str {
    let time = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match time {
        Some((time, rest)) if time.trim_start().chars().all(|c| c.is_ascii_digit() || c == '.') => rest,
        _ => line,
    }
}

/// Seconds from the start of an emulated machine to its ready line: the median of twenty boots on a host of two processors with other work
/// (docs/boot-chain.md). `None` for machines that were not measured.
pub const fn about(arch: Arch, firmware: Firmware, attach: Attach) -> Option<u64> {
    match (arch, firmware, attach) {
        (Arch::Amd64, Firmware::Direct, Attach::Disk) => Some(75),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(lines: &[&str]) -> Vec<&'static str> {
        let mut phase = BootPhase::default();
        let after = lines.iter().map(|line| {
            phase = phase.after(line);
            phase.as_str()
        });
        after.collect()
    }

    #[test]
    fn each_stage_shows_itself() {
        let lines = [
            "BdsDxe: loading Boot0001 \"UEFI Misc Device\"",
            "Welcome to GRUB!",
            "  Booting `Powernode'",
            "EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path",
            "[    0.000000] Linux version 6.12.117+deb13-amd64",
            "[    9.449487] Run /init as init process",
            "[   11.333516] dracut: dracut-106-6",
            "[   27.329218] dracut: Switching root",
            "[   27.763887] systemd[1]: Inserted module 'autofs4'",
            "[  OK  ] Reached target paths.target - Path Units.",
            "[  OK  ] Started powernode-agent.service - Powernode agent.",
            "[  OK  ] Reached target multi-user.target - Multi-User System.",
        ];
        let want = [
            "firmware",
            "loader",
            "loader",
            "loader",
            "kernel",
            "initramfs",
            "initramfs",
            "pivot",
            "units",
            "units",
            "agent",
            "agent",
        ];
        assert_eq!(phases(&lines), want);
    }

    #[test]
    fn words_of_a_later_stage_before_the_kernel_are_text() {
        let lines = [
            "powernode: state lockdown=none",
            "systemd[1]: x",
            "iPXE 1.21 -- Run /init as init process",
            "Reached target multi-user.target",
            "Linux version 6.12",
            "Welcome to GRUB!",
        ];
        assert_eq!(
            phases(&lines),
            ["firmware", "firmware", "loader", "loader", "kernel", "kernel"]
        );
        assert_eq!(
            phases(&["Linux version 6", "usb 1-1: Product: dracut: Switching root"]),
            ["kernel", "kernel"]
        );
    }
}
