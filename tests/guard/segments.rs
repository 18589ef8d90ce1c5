//! Initramfs images that were changed: a damaged object of the root, and 90powernode with a part taken out. The second kind shows that the
//! part is what closes a way: without it the canary sings on an image without recovery.

use crate::{
    initramfs::{append, change_last},
    machine::*,
    project::*,
    ways::RUN,
};
use std::{fs, path::Path};

/// A copy of the artifact without recovery.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    for name in ["kernel", "initramfs.cpio.zst", "SHA256SUMS", "build-manifest.json"] {
        fs::copy(direct(false).join(name), dir.path().join(name)).expect(name);
    }
    dir
}

/// Adds files to the initramfs, in place of those of the same names.
fn override_with(dir: &Path, files: &[(&str, &str)]) {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    append(&dir.join("initramfs.cpio.zst"), &files);
}

mod nightly {
    use super::*;

    /// Libraries that process 1 and the ready script load, and that were in no list: a byte of them was a panic of the kernel.
    #[test]
    #[ignore = "nightly: three boots that are refused; cargo test -- --ignored nightly::"]
    fn a_damaged_file_that_the_start_reads_is_refused_by_name() {
        let root = tree_of("rootfs");
        for name in ["libpcre2-8.so.0", "libcap-ng.so.0", "libattr.so.1"] {
            let link = root.join("usr/lib/x86_64-linux-gnu").join(name);
            let file = link.canonicalize().expect("there");
            let bytes = fs::read(&file).expect("readable");
            let dir = copy();
            change_last(&dir.path().join("initramfs.cpio.zst"), |cpio| {
                let at = memchr::memmem::find(cpio, &bytes[..4096]).expect("an object of the root");
                cpio[at + 5000] ^= 1;
            });
            let said = bad(
                pnb(repository(), &store()).arg("boot").arg(dir.path()).args([
                    "--no-verify-sums",
                    "--timeout",
                    &patience(240),
                ]),
                9,
            );
            let name = file.file_name().and_then(|n| n.to_str()).expect("a name");
            let want = format!("{REFUSED}/usr/lib/x86_64-linux-gnu/{name} of the root is damaged or missing");
            assert!(said.contains(&want), "{want} is not in:\n{said}");
        }
    }

    #[test]
    #[ignore = "nightly: three boots; cargo test -- --ignored nightly::"]
    fn without_the_list_of_words_the_next_layer_refuses_and_without_it_there_is_a_shell() {
        let anything = ("usr/lib/powernode/words", "*\n");
        let silent = (
            "var/lib/dracut/hooks/emergency/00-powernode-emergency.sh",
            ": taken out\n",
        );
        let dir = copy();
        override_with(dir.path(), &[anything]);
        let words = ["--append", "rd.break=cmdline"];
        let prompt = [("cmdline:/# ", CANARY)];
        let said = typed(&mut at_console(dir.path(), &words), &prompt, &[SUNG]);
        assert!(
            said.contains("powernode: refused: dracut did not come to the root") && !said.contains(SUNG),
            "{said}"
        );
        override_with(dir.path(), &[silent]);
        let said = typed(&mut at_console(dir.path(), &words), &prompt, &[SUNG]);
        assert!(said.contains(SUNG), "{said}");
        // Systemd's own words, past the list: the root masks its shells.
        let words = ["--append", "systemd.debug_shell=ttyS0"];
        let said = typed(
            &mut at_console(dir.path(), &words),
            &[("powernode: ready ", CANARY)],
            &["agent=active"],
        );
        assert!(!said.contains(SUNG), "{said}");
    }

    /// A command that systemd is given runs only when the list of words, the refusal of quotes and the masks of the root are taken out.
    #[test]
    #[ignore = "nightly: two boots; cargo test -- --ignored nightly::"]
    fn without_the_list_of_words_a_command_for_systemd_is_masked_and_without_the_mask_it_runs() {
        let library = fs::read_to_string(repository().join("dracut/modules.d/90powernode/powernode-guard.sh"));
        let library = library.expect("readable");
        let without = |library: &str, part: &str, instead: &str| {
            assert!(library.contains(part), "{part}");
            library.replacen(part, instead, 1)
        };
        let no_list = without(&library, "        *\\\"* | *\\'* | *\\\\*)", "        NEVER)");
        let recovery = "powernode_open_root() {\n    if ! powernode_has_recovery; then";
        let no_mask = without(&no_list, recovery, "powernode_open_root() {\n    if false; then");
        for (library, sings) in [(no_list, false), (no_mask, true)] {
            let dir = copy();
            let guard = ("usr/lib/powernode/powernode-guard.sh", library.as_str());
            override_with(dir.path(), &[("usr/lib/powernode/words", "*\n"), guard]);
            let words = ["--append", RUN.words];
            // Without the command's target there is no default target, and process 1 gives up.
            let said = typed(
                &mut at_console(dir.path(), &words),
                &[],
                &[SUNG, "Freezing execution", "powernode: ready "],
            );
            assert!(!said.contains(REFUSED) && said.contains(SUNG) == sings, "{said}");
        }
    }

    #[test]
    #[ignore = "nightly: two boots that are refused; cargo test -- --ignored nightly::"]
    fn a_boot_that_was_cut_short_does_not_reach_the_root() {
        // The overlay is there, and the shell that mounted it ends before the other steps.
        let library = fs::read_to_string(repository().join("dracut/modules.d/90powernode/powernode-boot.sh"));
        let library = library.expect("readable");
        let (before, after) = library
            .split_once("        powernode_open_root || ")
            .expect("a step of the boot");
        let cut = format!("{before}        kill -9 $$\n        powernode_open_root || {after}");
        let dir = copy();
        override_with(dir.path(), &[("usr/lib/powernode/powernode-boot", &cut)]);
        let mut boot = pnb(repository(), &store());
        boot.arg("boot")
            .arg(dir.path())
            .args(["--no-verify-sums", "--timeout", &patience(240)]);
        let said = bad(&mut boot, 9);
        assert!(
            said.contains("powernode: refused: the boot did not come to its end"),
            "{said}"
        );
        // Nothing mounts a root: dracut tries twenty times and gives up.
        override_with(
            dir.path(),
            &[("var/lib/dracut/hooks/mount/50-powernode-mount.sh", ": taken out\n")],
        );
        let said = bad(&mut boot, 9);
        assert!(
            said.contains("powernode: refused: dracut did not come to the root"),
            "{said}"
        );
    }
}
