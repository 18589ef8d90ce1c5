//! What runs again when something changed, and what is said when something breaks.

use crate::project::*;
use std::{fs, path::Path, process::Command};

#[test]
fn nothing_changed_means_nothing_runs() {
    artifact();
    let images = scratch().join("images");
    let said = good(build(repository(), &store()).arg("--output").arg(&images));
    assert!(said.contains("unchanged") && !said.contains("done "), "{said}");
    let plan = good(pnb(repository(), &store()).args(["plan", "--variant", "kernel-initrd", "--arch", "amd64"]));
    let stages: Vec<&str> = plan.lines().take_while(|line| !line.starts_with("none of ")).collect();
    assert!(
        stages.len() >= 10 && stages.iter().all(|line| line.starts_with("cached ")),
        "{plan}"
    );
}

#[test]
fn another_agent_costs_only_the_stages_that_depend_on_it() {
    artifact();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let agent = dir.path().join("agent");
    // Different each time, so that an earlier run of this test has not made it already.
    let text = format!("#!/bin/sh\n# {}\nexec sleep 1000000\n", dir.path().display());
    fs::write(&agent, text).expect("written");
    let said = good(
        build(repository(), &store())
            .args(["--variant", "kernel-initrd"])
            .arg("--agent")
            .arg(&agent)
            .arg("--output")
            .arg(dir.path()),
    );
    let ran: Vec<&str> = said
        .lines()
        .filter_map(|l| l.trim().strip_prefix("done ")?.split(' ').next())
        .collect();
    assert_eq!(ran, ["agent/amd64", "root/amd64", "kernel-initrd/amd64"], "{said}");
    let manifest = fs::read_to_string(dir.path().join("kernel-initrd/amd64/build-manifest.json")).expect("there");
    assert!(manifest.contains("\"pinned\"") && !manifest.contains(dir.path().to_str().expect("UTF-8")));
    good(
        pnb(repository(), &store())
            .arg("audit")
            .arg(dir.path().join("kernel-initrd/amd64")),
    );
}

#[test]
fn a_variant_needs_nothing_but_a_stage_that_declares_it() {
    artifact();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    let declare = |name: &str, variant: &str, rest: &str| {
        let stage = dir.path().join("stages").join(name);
        fs::create_dir(&stage).expect("made");
        let text = format!("summary = \"A variant of this test\"\n{rest}\n[variant]\n{variant}\n");
        fs::write(stage.join("stage.toml"), text).expect("written");
        fs::write(stage.join("cmdline"), "declared=1\n").expect("written");
    };
    let own = "root = \"tools\"\ncommand = [\"/bin/sh\", \"-c\", \"cat /inputs/version > disk.vmdk\"]\n";
    let inputs = fs::read_to_string(repository().join("stages/kernel-initrd/stage.toml")).expect("readable");
    let inputs = &inputs[inputs.find("[inputs]").expect("inputs")..];
    declare(
        "direct",
        "form = \"kernel-initramfs\"",
        &format!("writer = \"kernel-initrd\"\n{inputs}"),
    );
    declare(
        "vmdk",
        "form = \"other\"",
        &format!(
            "{own}[inputs]\nversion = {{ stage = \"kernel\", output = \"version\" }}\n\
             root-digest = {{ stage = \"root\", output = \"root-digest\" }}\n\
             [outputs]\n\"disk.vmdk\" = {{ kind = \"file\" }}"
        ),
    );
    let images = dir.path().join("images");
    let variants = ["--arch", "amd64", "--variant", "direct,vmdk"];
    good(
        pnb(dir.path(), &store())
            .arg("build")
            .args(variants)
            .arg("--output")
            .arg(&images),
    );

    // The one is as good as a variant of this repository: its root is found, and its command line is its own.
    good(pnb(dir.path(), &store()).arg("audit").arg(images.join("direct/amd64")));
    let manifest = fs::read_to_string(images.join("direct/amd64/build-manifest.json")).expect("there");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["form"], "kernel-initramfs");
    let line = manifest["kernel_command_line"].as_str().expect("a text");
    assert!(line.ends_with(" declared=1"), "{line}");
    let kernel = |path: &str| fs::read(images.join(path)).expect("there");
    assert_eq!(
        kernel("direct/amd64/kernel"),
        fs::read(artifact().join("kernel")).expect("there")
    );

    // Nobody has seen the root of the other, and a policy can accept that.
    let written = String::from_utf8(kernel("vmdk/amd64/disk.vmdk")).expect("UTF-8");
    assert_eq!(written.trim(), manifest["kernel_version"]);
    let policy = dir.path().join("policy.toml");
    let audit = |rules: &str| {
        fs::write(&policy, format!("version = 1\n{rules}")).expect("written");
        let mut command = pnb(dir.path(), &store());
        command
            .arg("audit")
            .arg(images.join("vmdk/amd64"))
            .arg("--policy")
            .arg(&policy);
        command.output().expect("starts")
    };
    let refused = audit("");
    assert_eq!(refused.status.code(), Some(45), "{}", text(&refused));
    let said = text(&refused);
    assert!(said.contains("the form other has no root that pnb reads"), "{said}");
    let accepted = audit("unread-roots = [\"vmdk\"]\n");
    assert!(accepted.status.success(), "{}", text(&accepted));
    let other = audit("unread-roots = [\"direct\"]\n");
    assert_eq!(other.status.code(), Some(45), "{}", text(&other));

    let unknown = pnb(dir.path(), &store()).args(["plan", "--variant", "kernel"]).output();
    let unknown = unknown.expect("starts");
    assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
}

#[test]
fn a_level_of_compression_changes_sizes_and_nothing_else() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let (project, levelled) = (dir.path().join("project"), dir.path().join("images"));
    copy_of_project(&project);
    let kinds = [
        ("kernel-initrd", "initramfs.cpio.zst"),
        ("qcow2", "disk.qcow2"),
        ("oci", "oci/blobs/sha256"),
    ];
    for (variant, _) in kinds {
        let file = project.join(format!("stages/{variant}/stage.toml"));
        let text = fs::read_to_string(&file).expect("there");
        let asked = text.replacen("\nwriter = ", "\ncompression-level = 1\nwriter = ", 1);
        assert_ne!(asked, text);
        fs::write(&file, asked).expect("written");
    }
    let mut command = build(&project, &store());
    command.args(["--variant", "kernel-initrd,qcow2,oci", "--output"]);
    good(command.arg(&levelled));
    good(pnb(&project, &store()).arg("audit").arg(&levelled));
    for (variant, part) in kinds {
        let [ours, other] = [images(), &levelled].map(|images| images.join(variant).join("amd64"));
        let [usual, larger] = [&ours, &other].map(|artifact| size_of(&artifact.join(part)));
        assert!(usual + usual / 100 < larger, "{variant}: {usual} and {larger} bytes");
        let said = bad(pnb(&project, &store()).arg("diff").arg(&ours).arg(&other), 1);
        let differ: Vec<&str> = said.lines().filter(|line| line.contains("content differs")).collect();
        let stored = "    ~ (the same content, stored in another way)  content differs";
        assert!(
            !differ.is_empty() && differ.iter().all(|line| line.starts_with(stored)),
            "{said}"
        );
        assert!(
            !said.lines().any(|line| line.trim_start().starts_with(['+', '-'])),
            "{said}"
        );
    }
}

/// The bytes of a file, or of all files of a directory.
#[expect(clippy::disallowed_methods, reason = "only added up")]
fn size_of(path: &Path) -> u64 {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("readable");
        return entries.map(|entry| size_of(&entry.expect("readable").path())).sum();
    }
    fs::metadata(path).expect("there").len()
}

#[test]
fn an_output_that_is_an_input_as_it_is_has_the_inputs_object_whatever_the_stage_leaves() {
    artifact();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    let stage = dir.path().join("stages/passes-on");
    fs::create_dir(&stage).expect("made");
    // Different each time, so that an earlier run of this test has not made it already.
    let text = format!(
        r#"
summary = "Passes an input on"
root = "tools"
command = ["/bin/sh", "-c", "cat /inputs/v > made; echo other > version # {}"]
[inputs]
v = {{ stage = "kernel", output = "version" }}
[outputs]
made = {{ kind = "file" }}
version = {{ kind = "file", from = "v" }}
"#,
        dir.path().display()
    );
    fs::write(stage.join("stage.toml"), &text).expect("written");
    let run = || good(pnb(dir.path(), &store()).args(["build", "--stage", "passes-on"]));
    assert!(run().contains("done passes-on/amd64"));
    assert!(run().contains("cached passes-on/amd64"));
    let path = |stage, output| good(pnb(dir.path(), &store()).args(["store", "path", stage, "--output", output]));
    assert_eq!(path("passes-on", "version"), path("kernel", "version"));
    assert_eq!(path("passes-on", "made"), path("kernel", "version"), "the same bytes");
    // Another input to pass on is another key.
    fs::write(
        stage.join("stage.toml"),
        text.replace("output = \"version\"", "output = \"vmlinuz\""),
    )
    .expect("written");
    assert!(run().contains("done passes-on/amd64"));
    assert_eq!(path("passes-on", "version"), path("kernel", "vmlinuz"));
}

#[test]
fn what_this_run_did_not_make_is_hashed_on_its_way_out() {
    artifact();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let (images, copy) = (dir.path().join("images"), dir.path().join("store"));
    // What is being written by another test lies elsewhere. Inodes are shared, but for the one that is to be damaged.
    fs::create_dir(&copy).expect("made");
    for name in ["format", "objects", "sha256", "records"] {
        good(Command::new("cp").arg("-al").arg(store().join(name)).arg(&copy));
    }
    let export = || {
        let mut command = build(repository(), &copy);
        command.args(["--variant", "ipxe"]).arg("--output").arg(&images);
        command
    };
    good(&mut export());
    let sums = fs::read(images.join("ipxe/amd64/SHA256SUMS")).expect("there");
    let expected = fs::read(scratch().join("images/ipxe/amd64/SHA256SUMS")).expect("there");
    assert!(sums == expected, "from the store as from the stages");
    let path = good(pnb(repository(), &copy).args(["store", "path", "ipxe", "--output", "initramfs.cpio.zst"]));
    let object = std::path::Path::new(path.trim());
    let own = dir.path().join("own");
    fs::copy(object, &own).expect("copied");
    fs::rename(&own, object).expect("ours");
    flip(object, 7_000_000);
    fs::remove_dir_all(&images).expect("ours");
    let said = bad(&mut export(), 5);
    assert!(said.contains("its content changed\nexpected: "), "{said}");
    assert!(!images.join("ipxe/amd64").exists());
}

#[test]
fn a_failed_stage_shows_its_last_lines_its_log_and_the_way_in() {
    artifact();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    let script = dir.path().join("stages/grub-bios/build.sh");
    fs::write(
        &script,
        "i=0; while [ $i -lt 50 ]; do i=$((i + 1)); echo line $i; done; exit 3\n",
    )
    .expect("written");
    let args = ["build", "--stage", "grub-bios", "--arch", "amd64"];
    let said = bad(pnb(dir.path(), &store()).args(args), 7);
    assert!(said.contains("grub-bios/amd64: it ended with exit code 3"), "{said}");
    assert!(
        said.contains("line 50") && said.contains("line 21") && !said.contains("line 20\n"),
        "{said}"
    );
    assert!(said.contains("hint: `pnb shell grub-bios --arch amd64`"), "{said}");
    let log = good(pnb(dir.path(), &store()).args(["log", "grub-bios"]));
    assert!(log.starts_with("line 1\nline 2\n"), "{log}");
    let inside = "test -d /inputs/loaders/usr && test ! -e /home/* && echo inside as $(id -u) with $PNB_STAGE";
    let shell = good(pnb(dir.path(), &store()).args(["shell", "grub-bios", "--command", inside]));
    assert!(shell.contains("inside as 0 with grub-bios"), "{shell}");
    // The writer that prepares for the command prepares for the shell too.
    let inside = "test -e /build/modules/*/modules.dep && echo prepared";
    let shell = good(pnb(repository(), &store()).args(["shell", "initramfs", "--command", inside]));
    assert!(shell.contains("prepared"), "{shell}");
}

#[test]
fn the_build_directory_of_a_failed_stage_is_kept_when_asked_for() {
    artifact();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    let script = dir.path().join("stages/grub-bios/build.sh");
    fs::write(&script, "echo half done >/build/left\nexit 3\n").expect("written");
    let args = ["build", "--stage", "grub-bios", "--arch", "amd64"];
    let said = bad(pnb(dir.path(), &store()).args(args).arg("--keep-failed"), 7);
    let kept = said.split("build directory: ").nth(1).and_then(|s| s.lines().next());
    let kept = std::path::PathBuf::from(kept.unwrap_or_else(|| panic!("no directory is named:\n{said}")));
    assert_eq!(fs::read_to_string(kept.join("left")).expect("kept"), "half done\n");
    fs::remove_dir_all(&kept).expect("ours");
    let said = bad(pnb(dir.path(), &store()).args(args), 7);
    assert!(!said.contains("build directory: "), "{said}");
}

#[test]
fn a_boot_loader_package_without_its_file_is_named_and_nothing_is_left() {
    artifact();
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    let edit = |name: &str, change: &dyn Fn(String) -> String| {
        let path = dir.path().join(name);
        let text = change(fs::read_to_string(&path).expect("there"));
        fs::write(&path, text).expect("written");
    };
    edit("stages/boot-loaders/stage.toml", &|text| {
        text.replace("\"shim-helpers-{arch}-signed\", ", "")
    });
    edit("lockfile.toml", &|text| {
        // The wants of the sets, too.
        let text = ["amd64", "arm64"].iter().fold(text, |text, arch| {
            text.replace(&format!("\"shim-helpers-{arch}-signed\", "), "")
        });
        let blocks: Vec<&str> = text.split("\n[[package]]\n").collect();
        let without: Vec<&str> = blocks
            .iter()
            .copied()
            .filter(|b| !b.starts_with("name = \"shim-helpers-"))
            .collect();
        assert_eq!(without.len() + 2, blocks.len(), "one for each architecture");
        without.join("\n[[package]]\n")
    });
    let args = ["build", "--arch", "amd64", "--variant", "raw"];
    let said = bad(pnb(dir.path(), &store()).args(args), 7);
    let want = "find the boot loader: the package shim-helpers-*-signed has no /usr/lib/shim/mmx64.efi.signed";
    assert!(said.contains(want), "{said}");
    assert!(!dir.path().join("images/raw").exists());
}

#[test]
fn an_initramfs_that_cannot_work_is_refused_with_all_it_lacks() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    let script = dir.path().join("stages/initramfs/build.sh");
    let text = fs::read_to_string(&script).expect("there");
    // What dracut would leave out without a word, and a program of another machine.
    let change = r#"
mkdir /build/changed
cd /build/changed
cpio -id --quiet <../dracut.cpio
rm -r usr/lib/*/libblkid.so.1 usr/lib/*/libkmod.so.2 usr/sbin/blockdev usr/lib/modules/*/kernel/fs/isofs
chmod u+w usr/bin/setsid
printf '\267' | dd of=usr/bin/setsid bs=1 seek=18 conv=notrunc status=none
find . -mindepth 1 | sed 's|^\./||' | LC_ALL=C sort | cpio -o --quiet -H newc -R 0:0 >../dracut.cpio
rm -r /build/changed
"#;
    fs::write(&script, format!("{text}{change}")).expect("written");
    // What this makes must not be the newest of its stage in the store of the other tests.
    let own = dir.path().join("store");
    let said = bad(pnb(dir.path(), &own).args(["build", "--stage", "initramfs-base"]), 7);
    for want in [
        "failed to accept the archive that dracut made for amd64:",
        "usr/bin/blockdev or usr/sbin/blockdev is not there",
        "the driver isofs is neither in usr/lib/modules/6",
        "/kernel/fs/isofs/isofs.ko.xz is listed in usr/lib/modules/6",
        "usr/bin/setsid is for arm64, the target is x86-64",
        "usr/sbin/blkid needs the library libblkid.so.1, which is not there (looked for in /usr/lib/x86_64-linux-gnu, /usr/lib)",
        "usr/bin/udevadm opens the library libkmod.so.2 at run time (it loads kernel modules with it), but the library is not there",
    ] {
        assert!(said.contains(want), "{want} is not in:\n{said}");
    }
}

#[test]
fn a_pinned_file_with_other_bytes_is_refused_with_both_digests() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    fs::write(dir.path().join("agent/diagnostic/powernode-agent"), "other").expect("written");
    let said = bad(pnb(dir.path(), &store()).args(["build", "--stage", "agent"]), 3);
    assert!(
        said.contains("expected: ") && said.contains("\n  actual: ") && said.contains("`pnb lock`"),
        "{said}"
    );
}

#[test]
fn a_damaged_object_is_found_before_a_stage_reads_it() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let (project, store) = (dir.path().join("project"), dir.path().join("store"));
    copy_of_project(&project);
    good(pnb(&project, &store).args(["build", "--stage", "microcode"]));
    let tree = good(pnb(&project, &store).args(["store", "path", "microcode"]));
    let file = std::path::Path::new(tree.trim()).join("usr/lib/firmware/amd-ucode/microcode_amd_fam19h.bin");
    flip(&file, 100);
    let said = bad(pnb(&project, &store).args(["store", "verify"]), 5);
    assert!(
        said.contains("damaged ") && said.contains("content hashes to "),
        "{said}"
    );
    let said = bad(pnb(&project, &store).args(["store", "path", "microcode"]), 5);
    assert!(said.contains("its content changed\nexpected: "), "{said}");
    good(pnb(&project, &store).args(["store", "verify", "--repair"]));
    let said = good(pnb(&project, &store).args(["build", "--stage", "microcode"]));
    assert!(said.contains("done microcode/amd64"), "{said}");
}

#[test]
fn hermetic_refuses_uncommitted_stage_files_and_names_them() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    copy_of_project(dir.path());
    let args = ["build", "--hermetic", "--variant", "kernel-initrd"];
    let said = bad(pnb(dir.path(), &store()).args(args), 8);
    assert!(
        said.contains("in no git commit") && said.contains("--allow-dirty"),
        "{said}"
    );
    fs::write(dir.path().join(".gitignore"), "*.ignored\n").expect("written");
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
        good(Command::new("git").arg("-C").arg(dir.path()).args(who).args(arguments));
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "test"]);
    for name in [
        "stages/grub-bios/build.sh",
        "stages/grub-bios/new",
        "stages/root/overlay/etc/x.ignored",
        "dracut/new",
    ] {
        fs::write(dir.path().join(name), "changed\n").expect("written");
    }
    let said = bad(pnb(dir.path(), &store()).args(args), 8);
    for name in [
        "stages/grub-bios/build.sh: other content",
        "stages/grub-bios/new: not committed",
        "stages/root/overlay/etc/x.ignored: not committed",
        "dracut/new: not committed",
    ] {
        assert!(said.contains(name), "{name} is not in:\n{said}");
    }
}
