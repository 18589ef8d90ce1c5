//! Runs the tests of 90powernode's shell library (`tests/dracut/*_test.sh`) under the two shells an initramfs may have:
//! dash with the tools of the host, and busybox sh with busybox's own tools. No virtual machine is involved.
//!
//! Both shells are needed: a missing one fails the test, because the library would otherwise go untested in silence.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dracut");
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dracut/modules.d/90powernode");
const OVERLAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stages/root/overlay");

/// The tools the library and its tests call, which busybox must provide when its own are tested.
const TOOLS: &[&str] = &[
    "base64",
    "cat",
    "chmod",
    "cp",
    "cut",
    "dd",
    "grep",
    "head",
    "ln",
    "ls",
    "mkdir",
    "mv",
    "od",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sha256sum",
    "sleep",
    "sort",
    "sync",
    "tail",
    "tr",
    "uniq",
    "wc",
];

fn run(script: &str, shell: &[&str], path: Option<&Path>) {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let mut command = Command::new(shell[0]);
    command
        .args(&shell[1..])
        .arg(format!("{SCRIPTS}/{script}"))
        .arg(MODULE)
        .arg(directory.path())
        .arg(OVERLAY);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output().expect("the shell runs; install dash and busybox");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{shell:?}:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // A script that stopped half way would also fail nothing.
    assert!(
        text.ends_with(" checks, 0 failed\n"),
        "{shell:?} did not reach the end:\n{text}"
    );
}

fn run_under_busybox(script: &str) {
    let which = Command::new("sh")
        .args(["-c", "command -v busybox"])
        .output()
        .expect("sh runs");
    let busybox = String::from_utf8(which.stdout).expect("a path in UTF-8");
    let busybox = busybox.trim_end();
    assert!(!busybox.is_empty(), "busybox is not installed; install it");
    let tools = tempfile::tempdir().expect("a scratch directory");
    for tool in TOOLS {
        symlink(busybox, tools.path().join(tool)).expect("a link to busybox");
    }
    run(script, &[busybox, "sh"], Some(tools.path()));
}

#[test]
fn library_works_under_dash() {
    run("lib_test.sh", &["dash"], None);
}

#[test]
fn library_works_under_busybox() {
    run_under_busybox("lib_test.sh");
}

#[test]
fn disks_are_handled_under_dash() {
    run("disk_test.sh", &["dash"], None);
}

#[test]
fn disks_are_handled_under_busybox() {
    run_under_busybox("disk_test.sh");
}

/// Hooks are sourced in process 1 or run by it: a syntax error there is a node that does not boot.
#[test]
fn every_script_parses() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for script in [
        "dracut/modules.d/90powernode/powernode-boot.sh",
        "dracut/modules.d/90powernode/powernode-cmdline.sh",
        "dracut/modules.d/90powernode/powernode-identity.sh",
        "dracut/modules.d/90powernode/powernode-install.sh",
        "dracut/modules.d/90powernode/powernode-lib.sh",
        "dracut/modules.d/90powernode/powernode-mount.sh",
        "dracut/modules.d/90powernode/powernode-persist.sh",
        "dracut/modules.d/90powernode/powernode-root.sh",
        "agent/diagnostic/powernode-agent",
        "stages/root/overlay/usr/lib/powernode/ready",
        "stages/initramfs/build.sh",
        "stages/initramfs/ldd",
        "stages/rootfs/build.sh",
    ] {
        let output = Command::new("dash")
            .arg("-n")
            .arg(repository.join(script))
            .output()
            .expect("dash runs; install it");
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A step that fails must stop the boot: each call in powernode-boot is followed by a refusal.
#[test]
fn every_step_of_the_boot_can_refuse() {
    let text = std::fs::read_to_string(format!("{MODULE}/powernode-boot.sh")).expect("the script");
    let steps: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("powernode_") && !line.starts_with("powernode_refuse"))
        .collect();
    assert!(steps.len() >= 15, "{steps:?}");
    for step in steps {
        assert!(
            step.ends_with(r#"|| powernode_refuse "$PN_REASON""#) || step == "powernode_load_drivers",
            "this step can fail unnoticed: {step}"
        );
    }
}
