//! The attacks as an ordinary user with ranges of ids.

use crate::ground::{own_program, pnb, scratch};
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

/// The user that `tests/sandbox/user.rs` makes, too.
const USER: &str = "pnb-test";

fn as_root(argv: &[&str]) {
    let done = Command::new(argv[0]).args(&argv[1..]).output().expect("runs");
    assert!(
        done.status.success(),
        "{argv:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

pub(crate) fn every_attack_is_stopped_for_an_ordinary_user() {
    assert!(
        fs::exists("/usr/bin/newuidmap").expect("asked"),
        "install the package uidmap"
    );
    if nix::unistd::User::from_name(USER).expect("asked").is_none() {
        as_root(&["useradd", "--create-home", USER]);
    }
    for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let given = fs::read_to_string(file).unwrap_or_default();
        if !given.lines().any(|l| l.starts_with(&format!("{USER}:"))) {
            as_root(&["usermod", option, "300000-365535", USER]);
        }
    }
    let dir = scratch();
    let program = dir.path().join("hostile");
    for (from, to) in [(own_program(), &program), (pnb(), &dir.path().join("pnb-copied"))] {
        fs::copy(from, to).expect("copied");
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("mode");
    }
    let done = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--init-groups", "--reset-env", "--"])
        .arg(&program)
        .current_dir("/")
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&done.stdout);
    let all = said.contains("test quick::every_attack_is_stopped ... ok")
        && said.contains("every_bomb_meets_its_limit ... ok");
    assert!(
        done.status.success() && all,
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
