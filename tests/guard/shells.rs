//! The option `debug`: a shell of root on the consoles of a running node, and none on a node that was built without it.

use crate::{machine::*, project::text as text_of, project::*};
use sha2::{Digest, Sha256};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

/// The line that every node prints, and the one that only a node with shells prints.
const READY: &str = "powernode: ready ";
const SHELLS: &str = "powernode: debug: ";
/// Seconds within which a shell that is there has answered, on a machine that is alone.
const ANSWER: u64 = 30;

/// What is typed, and the answer that only a shell can give: the digest of a number that no other run has.
fn question() -> (String, String) {
    let number = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("readable");
    let number = number.trim();
    let answer = hex::encode(Sha256::digest(format!("{number}\n")));
    (format!("\necho {number} | sha256sum; id -un; tty\n"), answer)
}

mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: a boot into a shell, and one without; cargo test -- --ignored nightly::"]
    fn a_node_with_the_option_debug_has_a_shell_on_its_console_and_no_other_has() {
        let (question, answer) = question();
        let said = typed(
            &mut at_console(&with_debug(), &[]),
            &[(READY, ""), (SHELLS, ""), ("# ", &question), (&answer, "")],
            &["/dev/ttyS0"],
        );
        for want in [answer.as_str(), "\nroot\r", "\n/dev/ttyS0\r"] {
            assert!(said.contains(want), "{want:?} is not in:\n{said}");
        }

        // The same on a node without it, which has longer to answer.
        let wait = Duration::from_secs(patience(ANSWER).parse().expect("a number"));
        let said = typed_and_waited(&mut at_console(&direct(false), &[]), &[(READY, &question)], &[""], wait);
        assert!(said.contains(READY), "{said}");
        for never in [answer.as_str(), SHELLS, "root@powernode", "login:"] {
            assert!(!said.contains(never), "{never} is in:\n{said}");
        }
    }
}

#[test]
#[ignore = "long: a build with the option; cargo test -- --include-ignored"]
fn the_option_debug_stands_in_the_manifest_and_is_compared_with_the_root() {
    let policy = tempfile::NamedTempFile::new_in(scratch()).expect("scratch");
    fs::write(policy.path(), "version = 1\ndebug = false\n").expect("written");
    let roots = [(direct(false), false), (with_debug(), true)].map(|(artifact, debug)| {
        let file = artifact.join("build-manifest.json");
        let text = fs::read_to_string(&file).expect("there");
        let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(manifest["debug"], debug);
        assert_eq!(manifest["recovery"], false);
        let mut audit = pnb(repository(), &store());
        good(audit.arg("audit").arg(&artifact));
        let mut audit = pnb(repository(), &store());
        let done = one_at_a_time(audit.arg("audit").arg(&artifact).arg("--policy").arg(policy.path()));
        assert_eq!(done.status.success(), !debug, "{}", text_of(&done));
        assert_eq!(
            text_of(&done).contains("the consoles of its nodes have a shell of root"),
            debug,
            "{}",
            text_of(&done)
        );
        // A manifest that says the opposite.
        let copy = tempfile::tempdir_in(scratch()).expect("scratch");
        good(Command::new("cp").arg("-r").arg(artifact.join(".")).arg(copy.path()));
        let lie = text.replace(&format!("\"debug\": {debug}"), &format!("\"debug\": {}", !debug));
        assert_ne!(lie, text);
        fs::write(copy.path().join("build-manifest.json"), lie).expect("written");
        let mut audit = pnb(repository(), &store());
        let done = one_at_a_time(audit.arg("audit").arg(copy.path()));
        assert!(!done.status.success(), "{}", text_of(&done));
        assert!(text_of(&done).contains("debug"), "{}", text_of(&done));
        manifest["fsverity_root_hash"].clone()
    });
    assert_ne!(roots[0], roots[1]);
}

/// The blocks of the page that are typed into a shell, as one script.
fn recipe() -> String {
    let page = fs::read_to_string(repository().join("docs/looking-around.md")).expect("readable");
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").expect("an end").0);
    blocks.collect()
}

#[test]
fn the_recipe_for_ssh_can_be_typed_as_it_stands() {
    let home = tempfile::tempdir().expect("scratch");
    let at = |path: &str| home.path().join(path);
    for dir in [".ssh", "bin", "stages/rootfs", "stages/root/overlay"] {
        fs::create_dir_all(at(dir)).expect("made");
    }
    fs::write(at(".ssh/id_ed25519.pub"), "ssh-ed25519 AAAA me\n").expect("written");
    let stub = format!("#!/bin/sh\necho \"$*\" >>{}\n", at("said").display());
    fs::write(at("bin/pnb"), stub).expect("written");
    fs::set_permissions(at("bin/pnb"), fs::Permissions::from_mode(0o755)).expect("set");
    for file in ["lockfile.toml", "stages/rootfs/stage.toml"] {
        fs::copy(repository().join(file), at(file)).expect("copied");
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", at("bin").display());
    let done = Command::new("/bin/sh")
        .args(["-eu", "-c", &recipe()])
        .current_dir(home.path())
        .env_clear()
        .envs([("HOME", home.path().as_os_str()), ("PATH", path.as_ref())])
        .output()
        .expect("starts");
    assert!(done.status.success(), "{}", text_of(&done));

    let said = fs::read_to_string(at("said")).expect("pnb was called");
    assert_eq!(said.lines().collect::<Vec<_>>(), ["lock", "build --variant raw"]);
    let stage: toml::Table = fs::read_to_string(at("stages/rootfs/stage.toml"))
        .expect("readable")
        .parse()
        .expect("TOML");
    let before: toml::Table = fs::read_to_string(repository().join("stages/rootfs/stage.toml"))
        .expect("readable")
        .parse()
        .expect("TOML");
    let want = |stage: &toml::Table| stage["packages"]["want"].as_array().expect("a list").clone();
    let mut wanted = want(&stage);
    wanted.retain(|package| package.as_str() != Some("openssh-server"));
    assert_eq!(wanted, want(&before));
    assert_eq!(want(&stage).len(), wanted.len() + 1);
    // The refused call is declared, in the table that is there.
    let sandbox = |stage: &toml::Table| stage["sandbox"].as_table().expect("a table").clone();
    let mut declared = sandbox(&stage);
    let refused = declared.remove("refused").expect("declared");
    assert_eq!(refused["sshd"].as_array().expect("a list").len(), 1, "{refused}");
    assert_eq!(declared, sandbox(&before));

    let overlay = |path: &str| at("stages/root/overlay").join(path);
    let link = overlay("usr/lib/systemd/system/ssh.service.requires/ssh-host-key.service");
    let unit = fs::read_to_string(&link).expect("the link leads to the unit");
    let program = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/"))
        .expect("a program");
    let mode = fs::metadata(overlay(program)).expect("there").permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{program}");
    let parsed = Command::new("/bin/sh").arg("-n").arg(overlay(program)).output();
    assert!(parsed.expect("starts").status.success(), "{program}");
    assert_eq!(
        fs::read_to_string(overlay("etc/ssh/authorized_keys.d/ops")).expect("there"),
        "ssh-ed25519 AAAA me\n"
    );
    for file in [
        "usr/lib/sysusers.d/ops.conf",
        "usr/lib/tmpfiles.d/ops.conf",
        "usr/lib/systemd/system/systemd-sysusers.service.d/10-ops.conf",
        "etc/ssh/sshd_config.d/10-node.conf",
    ] {
        let text = fs::read_to_string(overlay(file)).expect(file);
        assert!(
            text.lines().all(|line| line == line.trim()) && !text.is_empty(),
            "{file}:\n{text}"
        );
        assert!(!Path::new(&overlay(file)).is_symlink());
    }
}
