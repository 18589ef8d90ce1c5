//! The menu of GRUB, at the serial line.

use crate::machine::*;

/// What GRUB shows below its menu.
const MENU: &str = "entry will be executed automatically";

mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: two firmwares up to the menu; cargo test -- --ignored nightly::"]
    fn the_editor_and_the_command_line_ask_for_a_user_that_nobody_is() {
        for (firmware, key) in [("uefi", "e"), ("bios", "c")] {
            let disk = images(false).join("raw/amd64");
            let said = typed(
                &mut at_console(&disk, &["--firmware", firmware]),
                &[(MENU, key), ("Enter username:", "nobody\n"), ("Enter password:", "\n")],
                &["error: ../../grub-core/normal/auth.c", "error: access denied", "denied"],
            );
            assert!(said.contains("denied"), "{firmware}:\n{said}");
            for open in ["grub>", "Minimum Emacs-like", "Powernode recovery"] {
                assert!(!said.contains(open), "{firmware}: {open}:\n{said}");
            }
        }
    }

    /// The keys that are refused above give root with recovery: the editor adds a word to the entry, and the command line starts a kernel.
    #[test]
    #[ignore = "nightly: two boots into shells; cargo test -- --ignored nightly::"]
    fn with_recovery_the_editor_and_the_command_line_are_open() {
        let disk = images(true).join("raw/amd64");
        let prompt = ("pre-mount:/# ", CANARY);
        // Ctrl-N goes down, from the first line over an empty one to that of the kernel; Ctrl-E to its end; Ctrl-X starts.
        let edit = "\x0e\x0e\x05 rd.break=pre-mount\x18";
        let editor = [(MENU, "e"), ("Minimum Emacs-like", edit), prompt];
        let load = "linux /powernode/vmlinuz powernode.boot=1 console=ttyS0,115200 rd.break=pre-mount\n\
                    initrd /powernode/initramfs.cpio.zst\nboot\n";
        let line = [(MENU, "c"), ("grub>", load), prompt];
        for (firmware, keys) in [("uefi", editor), ("bios", line)] {
            let said = typed(&mut at_console(&disk, &["--firmware", firmware]), &keys, &[SUNG]);
            assert!(said.contains(SUNG), "{firmware}:\n{said}");
        }
    }

    #[test]
    #[ignore = "nightly: a boot into a shell; cargo test -- --ignored nightly::"]
    fn a_menu_with_recovery_has_the_entry() {
        let disk = images(true).join("raw/amd64");
        // Ctrl-N goes to the second entry.
        let said = typed(
            &mut at_console(&disk, &["--firmware", "uefi"]),
            &[(MENU, "\x0e\r"), ("powernode# ", CANARY)],
            &[SUNG],
        );
        assert!(said.contains("powernode: recovery: ") && said.contains(SUNG), "{said}");
    }
}
