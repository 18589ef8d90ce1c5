//! Runs the tests of 90powernode's shell library (`tests/dracut/*_test.sh`) under the two shells an initramfs may have:
//! dash with GNU's tools, and busybox sh with busybox's own tools. No virtual machine is involved.

#[path = "fixture/tools.rs"]
mod tools;

use std::path::Path;
use tools::check;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dracut");
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dracut/modules.d/90powernode");
const OVERLAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stages/root/overlay");

/// The tools the library and its tests call, which busybox must provide when its own are tested.
const TOOLS: &[&str] = &[
    "base64",
    "busybox",
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
    "timeout",
    "touch",
    "tr",
    "uniq",
    "wc",
];

/// Programs that no shell has.
const OTHERS: &[&str] = &["fsverity", "signify-openbsd"];

/// Runs a test script with `shell`, after `before`; `PATH` is the directories where it finds its tools.
fn run(script: &str, before: &str, shell: &str, path: &str) {
    let files = [SCRIPTS, MODULE, OVERLAY].map(Path::new);
    let command =
        format!("mkdir world\n{before}\nPATH={path} {shell} /inputs/0/{script} /inputs/1 /build/world /inputs/2 2>&1");
    let (text, _) = check(&files, &command);
    // A script that stopped half way would also fail nothing.
    assert!(
        text.ends_with(" checks, 0 failed\n"),
        "{shell:?} did not reach the end:\n{text}"
    );
}

fn run_under_dash(script: &str) {
    run(script, "", "/usr/bin/dash", "/usr/bin");
}

fn run_under_busybox(script: &str) {
    let tools = TOOLS.join(" ");
    let others = OTHERS.join(" ");
    let links = format!(
        "mkdir tools\nfor tool in {tools}; do ln -s /usr/bin/busybox tools/$tool; done\n\
         for tool in {others}; do ln -s /usr/bin/$tool tools/$tool; done"
    );
    run(script, &links, "/usr/bin/busybox sh", "/build/tools");
}

#[test]
fn library_works_under_dash() {
    run_under_dash("lib_test.sh");
}

#[test]
fn library_works_under_busybox() {
    run_under_busybox("lib_test.sh");
}

#[test]
fn disks_are_handled_under_dash() {
    run_under_dash("disk_test.sh");
}

#[test]
fn disks_are_handled_under_busybox() {
    run_under_busybox("disk_test.sh");
}

#[test]
fn lists_of_modules_are_judged_under_dash() {
    run_under_dash("modules_test.sh");
}

#[test]
fn lists_of_modules_are_judged_under_busybox() {
    run_under_busybox("modules_test.sh");
}

#[test]
fn modules_are_stacked_under_dash() {
    run_under_dash("stack_test.sh");
}

#[test]
fn modules_are_stacked_under_busybox() {
    run_under_busybox("stack_test.sh");
}

/// Hooks are sourced in process 1 or run by it: a syntax error there is a node that does not boot.
#[test]
fn every_script_parses() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = [
        "dracut/modules.d/90powernode/powernode-boot.sh",
        "dracut/modules.d/90powernode/powernode-cmdline.sh",
        "dracut/modules.d/90powernode/powernode-identity.sh",
        "dracut/modules.d/90powernode/powernode-install.sh",
        "dracut/modules.d/90powernode/powernode-lib.sh",
        "dracut/modules.d/90powernode/powernode-modules.sh",
        "dracut/modules.d/90powernode/powernode-mount.sh",
        "dracut/modules.d/90powernode/powernode-persist.sh",
        "dracut/modules.d/90powernode/powernode-root.sh",
        "dracut/modules.d/90powernode/powernode-stack.sh",
        "agent/diagnostic/powernode-agent",
        "stages/root/overlay/usr/lib/powernode/ready",
        "stages/initramfs/build.sh",
        "stages/initramfs/ldd",
        "stages/rootfs/build.sh",
    ];
    let files = scripts.map(|script| repository.join(script));
    let files: Vec<&Path> = files.iter().map(|file| file.as_path()).collect();
    let script = "for number in $(seq 0 $last); do dash -n /inputs/$number || { echo in $number; exit 1; }; done";
    check(&files, &format!("last={}\n{script}", files.len() - 1));
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
