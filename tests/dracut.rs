//! Runs the tests of 90powernode's shell library (`tests/dracut/*_test.sh`) under the two shells an initramfs may have:
//! dash with GNU's tools, and busybox sh with busybox's own tools. No virtual machine is involved.

#[path = "fixture/tools.rs"]
mod tools;

use std::path::Path;
use tools::check;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dracut");
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dracut/modules.d/90powernode");
const OVERLAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stages/root/overlay");
const STAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stages");
const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dracut/dracut.conf.d");

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
    "mkfifo",
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
    let files = [SCRIPTS, MODULE, OVERLAY, STAGES, SETTINGS].map(Path::new);
    let command = format!(
        "mkdir world\n{before}\nPATH={path} {shell} /inputs/0/{script} /inputs/1 /build/world /inputs/2 /inputs/3 /inputs/4 2>&1"
    );
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

#[test]
fn identities_are_claimed_under_dash() {
    run_under_dash("identity_test.sh");
}

#[test]
fn identities_are_claimed_under_busybox() {
    run_under_busybox("identity_test.sh");
}

#[test]
fn clouds_are_asked_under_dash() {
    run_under_dash("cloud_test.sh");
}

#[test]
fn clouds_are_asked_under_busybox() {
    run_under_busybox("cloud_test.sh");
}

#[test]
fn user_data_are_read_under_dash() {
    run_under_dash("user_data_test.sh");
}

#[test]
fn user_data_are_read_under_busybox() {
    run_under_busybox("user_data_test.sh");
}

#[test]
fn identities_are_handed_over_under_dash() {
    run_under_dash("handover_test.sh");
}

#[test]
fn identities_are_handed_over_under_busybox() {
    run_under_busybox("handover_test.sh");
}

#[test]
fn nodes_say_that_they_are_ready_under_dash() {
    run_under_dash("ready_test.sh");
}

#[test]
fn nodes_say_that_they_are_ready_under_busybox() {
    run_under_busybox("ready_test.sh");
}

/// The library with one thing taken out: a test script that accepts it checks nothing.
struct Mutant {
    script: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const fn mutant(script: &'static str, file: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { script, file, from, to }
}

/// The directory of the root's own programs in its overlay.
const PROGRAMS: &str = "usr/lib/powernode";
const READY: &str = "ready_test.sh";
const IDENTITY: &str = "identity_test.sh";
const HANDOVER: &str = "handover_test.sh";
const CLOUD: &str = "cloud_test.sh";
const USER_DATA: &str = "user_data_test.sh";
const CLOUD_FILE: &str = "powernode-cloud.sh";
const LISTS: &str = "modules_test.sh";
const STACK: &str = "stack_test.sh";
const LIBRARY: &str = "lib_test.sh";
const DISKS: &str = "disk_test.sh";

const MUTANTS: &[Mutant] = &[
    // The hand-over of the identity, and of the certificates.
    mutant(
        HANDOVER,
        "powernode-handover.sh",
        r#"} >"$PN_RUN/boot/identity.cfg""#,
        "} >/dev/null",
    ),
    mutant(
        HANDOVER,
        "powernode-handover.sh",
        r#">"$PN_RUN/boot/powernode-ca.pem" ||"#,
        ">/dev/null ||",
    ),
    mutant(HANDOVER, "powernode-handover.sh", "KEY=%s", "KEY=\"%s\""),
    // The medium that waits counts although another source was claimed.
    mutant(
        HANDOVER,
        "powernode-handover.sh",
        r#"if [ "$PN_SOURCE" = none ] && [ -n "$PN_UNCLAIMED" ]; then"#,
        r#"if [ -n "$PN_UNCLAIMED" ]; then"#,
    ),
    // The flags of /boot, and of the boot partition.
    mutant(HANDOVER, "powernode-handover.sh", ",nosymfollow", ""),
    mutant(
        HANDOVER,
        "powernode-handover.sh",
        "remount,bind,$PN_BOOT_FLAGS\" \"$PN_NEWROOT/boot",
        "bind\" \"$PN_NEWROOT/boot",
    ),
    mutant(HANDOVER, "powernode-handover.sh", ",umask=0077", ""),
    // The agent sees a source that was not claimed.
    mutant(
        HANDOVER,
        "powernode-handover.sh",
        r#"[ "$PN_SOURCE" != fw_cfg ] && "#,
        "false && ",
    ),
    mutant(
        HANDOVER,
        "powernode-handover.sh",
        "            pn_hidden=1",
        "            :",
    ),
    mutant(
        HANDOVER,
        "powernode-handover.sh",
        r#"    if [ -n "$pn_hidden" ]; then"#,
        "    if false; then",
    ),
    mutant(
        HANDOVER,
        "powernode-handover.sh",
        "identity.cfg | powernode-ca.pem | ",
        "",
    ),
    mutant(
        HANDOVER,
        "powernode-root.sh",
        "mode=0755,nodev,nosuid,size=16m",
        "mode=0755,nodev,nosuid,noexec,size=16m",
    ),
    // What the host shares, and every medium: each flag of the mount, its limit of time, and what is said when that is over.
    mutant(LIBRARY, "powernode-root.sh", "$pn_options,nodev,", "$pn_options,"),
    mutant(
        LIBRARY,
        "powernode-root.sh",
        ",nodev,nosuid,noexec,nosymfollow",
        ",nodev,noexec,nosymfollow",
    ),
    mutant(LIBRARY, "powernode-root.sh", ",noexec,nosymfollow", ",nosymfollow"),
    mutant(LIBRARY, "powernode-root.sh", ",noexec,nosymfollow", ",noexec"),
    mutant(
        LIBRARY,
        "powernode-root.sh",
        "for pn_kind in 9p,ro,",
        "for pn_kind in 9p,rw,",
    ),
    mutant(LIBRARY, "powernode-root.sh", " virtiofs,ro; do", " virtiofs,rw; do"),
    mutant(
        LIBRARY,
        "powernode-root.sh",
        "timeout -s KILL \"$PN_MOUNT_SECONDS\" mount",
        "mount",
    ),
    mutant(
        LIBRARY,
        "powernode-root.sh",
        "if [ $? -ge 124 ]; then",
        "if false; then",
    ),
    mutant(LIBRARY, "powernode-modules.sh", "    [ $? -le 1 ]", "    :"),
    // The order of the sources, and their mixing.
    mutant(
        IDENTITY,
        "powernode-identity.sh",
        "'cmdline cloud fw_cfg boot_file'",
        "'fw_cfg cmdline cloud boot_file'",
    ),
    mutant(
        IDENTITY,
        "powernode-identity.sh",
        "'root_file local_id'",
        "'local_id root_file'",
    ),
    mutant(
        IDENTITY,
        "powernode-identity.sh",
        "            1) powernode_forget ;;",
        "            1) ;;",
    ),
    mutant(
        IDENTITY,
        "powernode-identity.sh",
        r#"    [ -z "$PN_UNCLAIMED" ] || return 0"#,
        "    :",
    ),
    // What is refused.
    mutant(
        IDENTITY,
        "powernode-identity.sh",
        r#"    [ -n "$2" ] || return 1"#,
        "    return 1",
    ),
    mutant(
        IDENTITY,
        "powernode-identity.sh",
        r#"[ -n "$PN_F_KEY" ] || return 1"#,
        "return 1",
    ),
    mutant(
        IDENTITY,
        "powernode-trust.sh",
        r#"        https://*) return 0 ;;"#,
        "        *) return 0 ;;",
    ),
    mutant(
        IDENTITY,
        "powernode-trust.sh",
        r#"[ "$pn_der_length" -eq "$pn_der_size" ]"#,
        r#"[ "$pn_der_length" -gt 0 ]"#,
    ),
    mutant(
        IDENTITY,
        "powernode-trust.sh",
        r#"            [ -n "$PN_CA_SHA256" ] && return 0"#,
        "            return 0",
    ),
    // A cloud is asked without its firmware's word, in the older way, or more than once; its answers are taken as they come.
    mutant(
        CLOUD,
        CLOUD_FILE,
        "    [ -n \"$PN_CLOUD\" ]\n}",
        "    PN_CLOUD=${PN_CLOUD:-aws}\n}",
    ),
    mutant(
        CLOUD,
        CLOUD_FILE,
        "powernode_cloud_need PUT",
        "powernode_cloud_get PUT /x; :",
    ),
    mutant(CLOUD, CLOUD_FILE, "    powernode_network_down \"$pn_card\"", "    :"),
    mutant(USER_DATA, CLOUD_FILE, "1f8b*)", "xxxx*)"),
    mutant(USER_DATA, CLOUD_FILE, "fffe* | feff* | 00??* | ??00*)", "xxxx*)"),
    mutant(USER_DATA, CLOUD_FILE, "'content-type:'* | 'mime-version:'*)", "xxxx)"),
    mutant(CLOUD, CLOUD_FILE, "[ \"$pn_size\" -ge \"$pn_length\" ] ||", ": ||"),
    mutant(
        CLOUD,
        CLOUD_FILE,
        "        [ \"$1\" -eq 0 ] || [ \"$pn_size\"",
        "        : || [ \"$pn_size\"",
    ),
    mutant(
        CLOUD,
        CLOUD_FILE,
        "            [Tt]ransfer-[Ee]ncoding:*)",
        "            xxxx)",
    ),
    mutant(
        USER_DATA,
        CLOUD_FILE,
        "-le \"$PN_CLOUD_MAX\" ] || return 2",
        "-ge 0 ] || return 2",
    ),
    mutant(
        USER_DATA,
        CLOUD_FILE,
        "        powernode_lone \"$pn_where\" \"$pn_given\"",
        "        powernode_lone x ''",
    ),
    mutant(
        CLOUD,
        CLOUD_FILE,
        "            \"$PN_CLOUD_ADDRESS/32\")",
        "            xxxx)",
    ),
    mutant(CLOUD, CLOUD_FILE, "PN_SOURCES_EARLY=$pn_early", ":"),
    mutant(USER_DATA, "powernode-json.awk", "if (found) fail()", ""),
    // Whether the agent works: looked at once, or not for another process, or not for ten seconds.
    mutant(READY, "ready", "steady=10", "steady=-9"),
    mutant(
        READY,
        "ready",
        r#" && [ "$MainPID" = "$pid" ] && [ "$NRestarts" = "$restarts" ]"#,
        "",
    ),
    mutant(READY, "console.sh", "| sed 's/powernode: /powernode; /g' ", ""),
    // What /persist can do.
    mutant(READY, "ready", r#" && [ ! -h "$top/persist/boots" ]; then"#, "; then"),
    mutant(READY, "ready", "| 0?* |", "|"),
    // A partition for /persist with somebody else's data, with a copy of its superblock, and with nothing.
    mutant(
        DISKS,
        "powernode-persist.sh",
        "if ! powernode_has_superblock 0 1080; then",
        "if false; then",
    ),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "elif powernode_foreign \"$pn_device\"; then",
        "elif [ -z \"${1:-}\" ] && powernode_foreign \"$pn_device\"; then",
    ),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "elif powernode_foreign \"$pn_device\"; then",
        "elif false; then",
    ),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "elif powernode_has_superblock 32768 56; then",
        "elif false; then",
    ),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "elif powernode_has_superblock 32768 56; then",
        "elif :; then",
    ),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "&& [ -z \"$pn_instead\" ]; then",
        "&& false; then",
    ),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "&& [ -z \"$pn_instead\" ]; then",
        "; then",
    ),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "*:filesystem) pn_instead=1",
        "*:filesystem)",
    ),
    mutant(DISKS, "powernode-persist.sh", "*:crypto) pn_instead=1", "*:crypto)"),
    mutant(DISKS, "powernode-persist.sh", "= 83:239 ]", "!= 0:0 ]"),
    mutant(DISKS, "powernode-persist.sh", "        ext[234]:*) return 1 ;;\n", ""),
    mutant(DISKS, "powernode-persist.sh", "        8)\n", "        88)\n"),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "        2) return 1 ;;",
        "        *) return 1 ;;",
    ),
    mutant(
        DISKS,
        "powernode-persist.sh",
        "[ -n \"$pn_table\" ] || return 1",
        "return 1",
    ),
    mutant(DISKS, "powernode-persist.sh", "        *:crypto)", "        NEVER)"),
    mutant(DISKS, "powernode-persist.sh", "        *:raid)", "        NEVER)"),
    mutant(DISKS, "powernode-persist.sh", "        *:filesystem)", "        NEVER)"),
    // The kernel's reason, on a /persist that cannot be written to.
    mutant(
        DISKS,
        "powernode-persist.sh",
        "cannot be made: ${pn_said##*: }",
        "cannot be made",
    ),
    mutant(DISKS, "powernode-persist.sh", "${pn_said:+: ${pn_said##*: }}", ""),
    // What is fetched.
    mutant(READY, "fetch-ca", r#"[ "$actual" = "$digest" ] ||"#, ":"),
    mutant(READY, "fetch-ca", "        63) refuse", "        63) : refuse"),
    mutant(READY, "fetch-ca", "--proto-redir '=https' ", ""),
    mutant(
        READY,
        "fetch-ca",
        r#"        [ -n "$digest" ] || refuse"#,
        "        : refuse",
    ),
];

/// Modules with one check taken out: of the signature, of the list's rules, of the order, of digests, attributes and protected paths.
const MODULE_MUTANTS: &[Mutant] = &[
    mutant(
        LISTS,
        "powernode-modules.sh",
        r#"if signify-openbsd -V -q -e -p "$pn_key" -x "$PN_RUN/modules.signed" -m "$PN_MODULE_TEXT" >/dev/null 2>&1 \"#,
        r#"if sed 1,2d "$PN_RUN/modules.signed" >"$PN_MODULE_TEXT" \"#,
    ),
    mutant(
        LISTS,
        "powernode-modules.sh",
        r#"if [ ! -f "$PN_NEWROOT/$PN_MODULE_UNSIGNED" ]; then"#,
        "if false; then",
    ),
    mutant(
        LISTS,
        "powernode-modules.sh",
        r#"[ "$PN_LIST_INSTANCE" != "$PN_ID" ]"#,
        "false",
    ),
    mutant(
        LISTS,
        "powernode-modules.sh",
        r#"[ "$PN_MODULE_COUNTER" -lt "$PN_MODULE_KEPT_COUNTER" ]"#,
        "false",
    ),
    mutant(
        LISTS,
        "powernode-modules.sh",
        r#"if [ "$pn_now" -ge "$PN_VALUE" ]; then"#,
        "if false; then",
    ),
    mutant(
        LISTS,
        "powernode-modules.sh",
        r#"    [ -n "$pn_ended" ] && [ -z "$pn_line" ] || return 2"#,
        "    :",
    ),
    mutant(
        LISTS,
        "powernode-modules.sh",
        "sort -k1,1nr -k2,2r",
        "sort -k1,1n -k2,2",
    ),
    mutant(
        STACK,
        "powernode-stack.sh",
        r#"[ "$pn_measured" != "sha256:$2" ]"#,
        "false",
    ),
    mutant(
        STACK,
        "powernode-stack.sh",
        r#"if ($1 == "sha256:" hex) good++"#,
        "good++",
    ),
    mutant(STACK, "powernode-stack.sh", "redirect != want || ", ""),
    mutant(
        STACK,
        "powernode-stack.sh",
        ",verity=require\" powernode \"$PN_NEWROOT",
        "\" powernode \"$PN_NEWROOT",
    ),
    mutant(
        STACK,
        "powernode-stack.sh",
        r#"! mount --bind "$PN_RUN/root/$1" "$PN_NEWROOT/$1" 2>/dev/null"#,
        "false",
    ),
    mutant(
        STACK,
        "powernode-stack.sh",
        r#"|| ! busybox cmp -s "$PN_NEWROOT/$1" "$PN_RUN/root/$1"; then"#,
        "|| false; then",
    ),
    mutant(
        STACK,
        "powernode-stack.sh",
        r#"    powernode_same_way "$1" || return
    if [ -h"#,
        "    if [ -h",
    ),
];

/// Each of them turns its test script red. They are shared out among threads.
#[test]
fn the_tests_see_what_is_taken_out() {
    turn_red(MUTANTS);
}

#[test]
fn the_tests_see_what_is_taken_out_of_modules() {
    turn_red(MODULE_MUTANTS);
}

fn turn_red(mutants: &[Mutant]) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for share in mutants.chunks(mutants.len().div_ceil(threads)) {
            scope.spawn(|| share.iter().for_each(is_seen));
        }
    });
}

fn is_seen(mutant: &Mutant) {
    let dir = tempfile::tempdir().expect("a directory");
    let programs = Path::new(OVERLAY).join(PROGRAMS);
    let (module, overlay) = (dir.path().join("module"), dir.path().join("overlay"));
    let mut found = false;
    for (from, to) in [(Path::new(MODULE), &module), (&programs, &overlay.join(PROGRAMS))] {
        std::fs::create_dir_all(to).expect("made");
        for entry in walkdir::WalkDir::new(from).min_depth(1) {
            let entry = entry.expect("an entry");
            let mut text = std::fs::read_to_string(entry.path()).expect("text");
            if entry.file_name() == mutant.file {
                found = text.contains(mutant.from);
                text = text.replacen(mutant.from, mutant.to, 1);
            }
            std::fs::write(to.join(entry.file_name()), text).expect("written");
        }
    }
    assert!(found, "{:?} is not in {}", mutant.from, mutant.file);
    let files = [
        Path::new(SCRIPTS),
        &module,
        &overlay,
        Path::new(STAGES),
        Path::new(SETTINGS),
    ];
    let command = format!(
        "mkdir world\nSTOP=1 timeout 60 dash /inputs/0/{} /inputs/1 /build/world /inputs/2 /inputs/3 /inputs/4 2>&1 || :",
        mutant.script
    );
    let (text, _) = check(&files, &command);
    let last = text.lines().last().unwrap_or_default();
    let failed = last.strip_suffix(" failed").and_then(|text| text.rsplit_once(' '));
    assert!(
        last.contains(" checks, ") && failed.is_some_and(|(_, count)| count != "0"),
        "without {:?} {} says: {last}",
        mutant.from,
        mutant.script
    );
}

#[test]
fn the_guard_works_under_dash() {
    run_under_dash("guard_test.sh");
}

#[test]
fn the_guard_works_under_busybox() {
    run_under_busybox("guard_test.sh");
}

/// Each part of the guard is what its tests look at: with the part taken out, they fail.
#[test]
fn the_tests_of_the_guard_find_each_part_that_is_missing() {
    let mutants = [
        (
            "powernode-guard.sh",
            "        powernode_guard_word \"$pn_word\" || {",
            "        : || {",
        ),
        (
            "powernode-guard.sh",
            "        *\\\"* | *\\'* | *\\\\*)",
            "        NEVER)",
        ),
        (
            "powernode-guard.sh",
            "        powernode.debug | powernode.debug=*)",
            "        NEVER)",
        ),
        (
            "powernode-guard.sh",
            "    if [ \"$pn_odd\" -ne 0 ]; then",
            "    if false; then",
        ),
        (
            "powernode-guard.sh",
            "    [ $((${#pn_base} % 4)) -eq 0 ] || return 2",
            "    :",
        ),
        ("powernode-guard.sh", "        lsm=) return 2 ;;", ""),
        (
            "powernode-guard.sh",
            "    [ \"$pn_top\" = 'powernode overlay' ] || return 1",
            "    :",
        ),
        (
            "powernode-lib.sh",
            "            powernode_has_recovery || return 2",
            "            :",
        ),
        ("powernode-words", "powernode.*=*", "*.*=*"),
        ("powernode-words", "gpt", "*"),
        ("powernode-words", "lockdown=integrity", "lockdown=*"),
    ];
    for (file, from, to) in mutants {
        let dir = tempfile::tempdir().expect("scratch");
        for entry in walkdir::WalkDir::new(MODULE).min_depth(1).sort_by_file_name() {
            let entry = entry.expect("readable");
            let mut text = std::fs::read_to_string(entry.path()).expect("text");
            if entry.file_name() == file {
                assert!(text.contains(from), "{file} has no line {from}");
                text = text.replacen(from, to, 1);
            }
            std::fs::write(dir.path().join(entry.file_name()), text).expect("written");
        }
        let files = [
            Path::new(SCRIPTS),
            dir.path(),
            Path::new(OVERLAY),
            Path::new(STAGES),
            Path::new(SETTINGS),
        ];
        let script = "/inputs/0/guard_test.sh /inputs/1 /build/world /inputs/2 /inputs/3 /inputs/4";
        let (text, _) = check(&files, &format!("mkdir world\nPATH=/usr/bin dash {script} 2>&1 || :"));
        let failed = text.lines().last().and_then(|line| line.split(' ').nth(2));
        let failed: u32 = failed.and_then(|n| n.parse().ok()).expect(&text);
        assert!(failed > 0, "nothing fails with {to:?} in place of {from:?} in {file}");
    }
}

/// Hooks are sourced in process 1 or run by it: a syntax error there is a node that does not boot.
#[test]
fn every_script_parses() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = [
        "dracut/modules.d/90powernode/powernode-boot.sh",
        "dracut/modules.d/90powernode/powernode-cloud.sh",
        "dracut/modules.d/90powernode/powernode-cmdline.sh",
        "dracut/modules.d/90powernode/powernode-handover.sh",
        "dracut/modules.d/90powernode/powernode-emergency.sh",
        "dracut/modules.d/90powernode/powernode-guard.sh",
        "dracut/modules.d/90powernode/powernode-identity.sh",
        "dracut/modules.d/90powernode/powernode-init.sh",
        "dracut/modules.d/90powernode/powernode-install.sh",
        "dracut/modules.d/90powernode/powernode-lease.sh",
        "dracut/modules.d/90powernode/powernode-lib.sh",
        "dracut/modules.d/90powernode/powernode-modules.sh",
        "dracut/modules.d/90powernode/powernode-mount.sh",
        "dracut/modules.d/90powernode/powernode-persist.sh",
        "dracut/modules.d/90powernode/powernode-pivot.sh",
        "dracut/modules.d/90powernode/powernode-root.sh",
        "dracut/modules.d/90powernode/powernode-stack.sh",
        "dracut/modules.d/90powernode/powernode-trust.sh",
        "agent/diagnostic/powernode-agent",
        "stages/root/overlay/usr/lib/powernode/console.sh",
        "stages/root/overlay/usr/lib/powernode/fetch-ca",
        "stages/root/overlay/usr/lib/powernode/has-network",
        "stages/root/overlay/usr/lib/powernode/ready",
        "stages/root/debug/usr/lib/powernode/debug",
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
