//! Programs of another architecture run under qemu-user, through a binfmt_misc of the sandbox' own.
//!
//! Since Linux 6.7 every user namespace can have its own binfmt_misc, and the kernel searches from the caller's namespace outwards. Pid 1
//! makes one in the outer namespace, where the stage's namespace finds it, so nothing is registered on the host. The file system is not
//! attached to a path: a descriptor of pid 1 keeps it alive until the end of the sandbox, and the stage cannot change it.
//!
//! The kernel opens the emulator at registration (flag `F`), so it works inside a chroot too. Programs keep their `argv[0]` (flag `P`).
//! Source: Documentation/admin-guide/binfmt-misc.rst and fs/binfmt_misc.c of the kernel; magic and mask as in QEMU's
//! scripts/qemu-binfmt-conf.sh.

use super::{
    Emulator, sys,
    wire::{Fault, Step},
};
use crate::model::{Arch, RelPath};
use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

/// Mount point of the emulator in the sandbox, below `/`.
const MOUNT_POINT: &str = "emulator";

/// The way out on a host whose kernel has no binfmt_misc per user namespace.
pub(super) const FIX: &str = "run Linux 6.7 or newer with CONFIG_BINFMT_MISC (modprobe binfmt_misc); an older kernel can build for its own \
                   architecture only";

/// Mask of the first 20 bytes of an ELF file: the OS ABI (byte 7) and the lowest bit of the type (byte 16) do not count, all other bits
/// do.
const MASK: [u8; 20] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff,
    0xff,
];

/// The first 20 bytes of a program for `arch`, of type EXEC (2); DYN (3) differs from it in the lowest bit only.
fn magic(arch: Arch) -> [u8; 20] {
    let machine = match arch {
        Arch::Amd64 => 62,
        Arch::Arm64 => 183,
    };
    [
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0,
    ]
}

/// Mount point of the emulator.
pub(super) fn mount_point() -> Result<RelPath, Fault> {
    RelPath::new(MOUNT_POINT).step("name the emulator's mount point")
}

/// The line that registers programs for `arch`.
fn registration(arch: Arch) -> String {
    let escaped = |bytes: &[u8]| bytes.iter().map(|b| format!("\\x{b:02x}")).collect::<String>();
    format!(
        ":{arch}:M::{}:{}:/{MOUNT_POINT}:FP",
        escaped(&magic(arch)),
        escaped(&MASK)
    )
}

/// Registers the emulator, which is mounted at [`MOUNT_POINT`], with a binfmt_misc of this user namespace. The registration ends when
/// the returned descriptor is closed.
pub(super) fn register(emulator: &Emulator) -> Result<OwnedFd, Fault> {
    let made = (|| -> io::Result<OwnedFd> {
        let mount = sys::new_filesystem(c"binfmt_misc", &[], 0)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let register = openat(&mount, "register", flags, Mode::empty())?;
        File::from(register).write_all(registration(emulator.arch).as_bytes())?;
        Ok(mount)
    })();
    made.map_err(|error| {
        let problem = format!("programs for {} cannot be run: {error}", emulator.arch);
        Fault::unavailable("binfmt_misc in a user namespace", problem, FIX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_fits_what_the_kernel_takes() {
        let line = registration(Arch::Arm64);
        assert!(
            line.starts_with(r":arm64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00"),
            "{line}"
        );
        assert!(line.ends_with(r"\xfe\xff\xff\xff:/emulator:FP"), "{line}");
        assert_eq!(line.split(':').count(), 8);
        assert!(line.len() < 1920, "fs/binfmt_misc.c: MAX_REGISTER_LENGTH");
    }

    #[test]
    fn the_mask_tells_architectures_apart() {
        let masked = |arch| -> Vec<u8> { magic(arch).iter().zip(MASK).map(|(a, b)| a & b).collect() };
        assert_ne!(masked(Arch::Amd64), masked(Arch::Arm64));
    }
}
