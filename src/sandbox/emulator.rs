//! Programs of another architecture: they run under qemu-user by a binfmt_misc of the sandbox' own.
//!
//! Since Linux 6.7 every user namespace can have a binfmt_misc of its own, and the kernel looks for one from the caller's
//! namespace outwards. Pid 1 makes it in the outer namespace, so the stage's namespace finds it, and nothing is registered on the
//! host. The file system is never attached to a path: a descriptor of pid 1 keeps it alive as long as the sandbox, and the stage
//! cannot change it.
//!
//! The emulator is opened when it is registered (flag `F`), so that it is found from inside a chroot too; programs keep the name
//! they were called by (flag `P`).
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

/// Where the emulator lies in the sandbox.
const PLACE: &str = "emulator";

/// What to do on a host whose kernel cannot.
pub(super) const FIX: &str = "run Linux 6.7 or newer with CONFIG_BINFMT_MISC (modprobe binfmt_misc); an older kernel can build for its own \
                   architecture only";

/// The first 20 bytes of an ELF file, as far as they say that it is a 64-bit little-endian program: class, byte order and version, an
/// ABI, type and machine.
const MASK: [u8; 20] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff,
    0xff,
];

/// Those bytes of a program for `arch`; type EXEC, which with the mask stands for DYN too.
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
pub(super) fn place() -> Result<RelPath, Fault> {
    RelPath::new(PLACE).step("name the emulator's mount point")
}

/// The line that registers programs for `arch`.
fn registration(arch: Arch) -> String {
    let escaped = |bytes: &[u8]| bytes.iter().map(|b| format!("\\x{b:02x}")).collect::<String>();
    format!(":{arch}:M::{}:{}:/{PLACE}:FP", escaped(&magic(arch)), escaped(&MASK))
}

/// Registers the emulator, which lies at its place, with a binfmt_misc of this user namespace. It holds as long as what is
/// returned is open.
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
