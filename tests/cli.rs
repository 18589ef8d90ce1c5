//! The command line where nothing needs to be built: wrong input, errors, output for machines.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `pnb` on the project at `project`, with a store of its own and no network.
fn pnb(project: &Path, arguments: &[&str]) -> Output {
    let store = tempfile::tempdir().expect("scratch");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command
        .arg("--project")
        .arg(project)
        .arg("--store")
        .arg(store.path())
        .arg("--offline")
        .args(arguments);
    command
        .env_remove("ARCH")
        .env_remove("VARIANT")
        .env_remove("PNB_MIRROR")
        .output()
        .expect("starts")
}

/// Exit code and what was said, the project's path replaced.
fn said(project: &Path, arguments: &[&str]) -> String {
    let output = pnb(project, arguments);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = text.replace(project.to_str().expect("UTF-8"), "<project>");
    format!("exit {}\n{}", output.status.code().expect("exits"), text.trim_end())
}

/// A copy of the project in which one file was changed.
fn changed(file: &str, change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("scratch");
    for name in ["stages", "dracut", "agent", "lockfile.toml"] {
        let done = Command::new("cp")
            .arg("-a")
            .arg(repository().join(name))
            .arg(dir.path())
            .status();
        assert!(done.expect("cp").success());
    }
    let path = dir.path().join(file);
    let text = fs::read_to_string(&path).expect("there");
    let new = change(text.clone());
    assert_ne!(new, text, "{file} was not changed");
    fs::write(&path, new).expect("written");
    dir
}

#[test]
fn a_directory_without_a_project_is_named() {
    let dir = tempfile::tempdir().expect("scratch");
    insta::assert_snapshot!(said(dir.path(), &["plan"]), @r#"
    exit 1
    error: failed to find lockfile.toml and stages/ in "<project>" or above it

    hint: run pnb in the project, or give --project DIR
    "#);
}

#[test]
fn wrong_words_on_the_command_line_are_usage_errors() {
    for arguments in [
        &["build", "--variant", "floppy"][..],
        &["build", "--arch", "vax"],
        &["frobnicate"],
        &["boot"],
    ] {
        let output = pnb(repository(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let text = said(repository(), &["build", "--variant", "floppy"]);
    assert!(text.contains("kernel-initrd, oci, qcow2, raw"), "{text}");
}

#[test]
fn a_lock_of_a_newer_version_says_what_to_do() {
    let dir = changed("lockfile.toml", |t| t.replace("version = 1\n", "version = 99\n"));
    let text = said(dir.path(), &["plan"]);
    assert!(
        text.starts_with("exit 3\n") && text.contains("99") && text.contains("hint: "),
        "{text}"
    );
}

#[test]
fn a_malformed_lock_is_named_by_line() {
    let dir = changed("lockfile.toml", |t| t.replacen("size = ", "size = \"many\" # ", 1));
    let text = said(dir.path(), &["plan"]);
    assert!(
        text.starts_with("exit 3\n") && text.contains("lockfile.toml") && text.contains("line "),
        "{text}"
    );
}

#[test]
fn a_malformed_stage_is_named_by_line() {
    let dir = changed("stages/kernel/stage.toml", |t| t.replace("[outputs]", "[output]"));
    insta::assert_snapshot!(said(dir.path(), &["plan"]), @"
    exit 6
    error: failed to read stages/kernel/stage.toml, line 9: unknown field `output`, expected one of `summary`, `arch`, `only`, `variant`, `command`, `writer`, `prepare`, `root`, `emulator`, `sector-size`, `env`, `packages`, `inputs`, `outputs`, `sandbox`, `limits`
    ");
    let dir = changed("stages/kernel/stage.toml", |t| {
        t.replace("stage = \"kernel-package\"", "stage = \"kernal\"")
    });
    insta::assert_snapshot!(said(dir.path(), &["graph"]), @r#"
    exit 6
    error: failed to read stages/kernel/stage.toml, line 5: no stage is called "kernal" (the stages are: agent, base, boot-loaders, boot-tools, boot-tools-arm64, bootstrap, bootstrap-image, browser, check-tools, disk-image-arm64-uefi, disk-image-rpi4, dracut-core, emulators, ext4-tools, graphics-firmware, grub-bios, image-tools, initramfs, initramfs-base, initramfs-media, initramfs-root, ipxe, iso, iso-efi, kernel, kernel-initrd, kernel-package, microcode, nginx, oci, pi-firmware, publish-tools, publish-tools-next, qcow2, raw, release-std, release-tools, root, rootfs, surroundings, surroundings-locale, tools)
    "#);
    let dir = changed("stages/ipxe/stage.toml", |t| {
        t.replace("from = \"kernel\"", "from = \"loaders\"")
    });
    insta::assert_snapshot!(said(dir.path(), &["plan"]), @r#"
    exit 6
    error: failed to read stages/ipxe/stage.toml, line 20: output "kernel" passes on output "tree" of stage "boot-loaders", which is a directory; only files can be passed on
    "#);
}

#[test]
fn a_want_that_is_not_locked_is_found_without_a_network() {
    let dir = changed("stages/rootfs/stage.toml", |t| {
        t.replace("\"procps\"", "\"procps\", \"htop\"")
    });
    insta::assert_snapshot!(said(dir.path(), &["lock", "--check"]), @r###"
    exit 3
    set rootfs/amd64 lacks htop
    set rootfs/arm64 lacks htop

    hint: run `pnb lock`: it adds what is missing, and moves no version of the other packages
    "###);
    insta::assert_snapshot!(said(repository(), &["lock", "--check"]), @r###"
    exit 0
    lockfile.toml has everything the stages want
    "###);
}

#[test]
fn a_package_that_is_nowhere_is_named_with_the_places_and_the_remedy() {
    let text = said(repository(), &["fetch", "--stage", "microcode"]);
    assert!(
        text.starts_with("exit 4\n") && text.contains("package intel-microcode"),
        "{text}"
    );
    assert!(
        text.contains("snapshot https://snapshot.debian.org/") && text.contains("hint: "),
        "{text}"
    );
}

#[test]
fn the_plan_and_the_graph_are_there_for_machines() {
    let output = pnb(repository(), &["plan", "--variant", "kernel-initrd", "--json"]);
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let first = lines.iter().find(|l| l["node"] == "microcode/amd64").expect("planned");
    assert_eq!(first["reasons"][0]["reason"], "never-built");
    let last = lines.last().expect("planned");
    assert_eq!(
        (&last["node"], &last["reasons"][0]["reason"]),
        (&"kernel-initrd/amd64".into(), &"waits".into())
    );
    let dot = String::from_utf8(pnb(repository(), &["graph", "--dot"]).stdout).expect("UTF-8");
    assert!(
        dot.starts_with("digraph pnb {") && dot.contains("\"rootfs/amd64\" -> \"root/amd64\""),
        "{dot}"
    );
    let svg = String::from_utf8(pnb(repository(), &["graph", "--svg"]).stdout).expect("UTF-8");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
}

#[test]
fn the_doctor_names_layers_suites_and_the_store() {
    let text = said(repository(), &["doctor"]);
    for part in ["Landlock", "seccomp", "trixie", "forky", "store"] {
        assert!(
            text.to_lowercase().contains(&part.to_lowercase()),
            "{part} is not in:\n{text}"
        );
    }
}

#[test]
fn errors_for_machines_are_objects_with_the_exit_code() {
    let dir = tempfile::tempdir().expect("scratch");
    let output = pnb(dir.path(), &["plan", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((&value["event"], &value["exit"]), (&"error".into(), &1.into()));
}
