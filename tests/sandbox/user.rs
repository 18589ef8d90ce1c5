//! All of this as an ordinary user with ranges of ids of its own.

use crate::host::*;
use pnb::{model::Capability, sandbox::Ids};
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

const USER: &str = "pnb-test";

fn as_root(argv: &[&str]) {
    let done = Command::new(argv[0]).args(&argv[1..]).output().expect("runs");
    assert!(
        done.status.success(),
        "{argv:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
#[ignore = "needs-host: root, and the set-user-id programs of the package uidmap; cargo test -- --include-ignored"]
fn everything_works_as_an_ordinary_user() {
    if !is_root() {
        // Then all other tests run as such a user; what is left to see is the range of ids.
        let mut spec = Host::new().shell("chown 7:9 /build && stat -c %u:%g /build");
        spec.ids = Ids::Range;
        spec.capabilities.insert(Capability::Chown);
        assert_eq!(printed(&spec), "7:9\n");
        return;
    }
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
    let program = dir.path().join("tests");
    fs::copy(std::env::current_exe().expect("own path"), &program).expect("copied");
    fs::copy(pnb(), dir.path().join("pnb-copied")).expect("copied");
    for name in ["tests", "pnb-copied"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).expect("mode");
    }
    let _alone = ALONE.lock();
    let done = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--init-groups", "--reset-env", "--"])
        .arg(&program)
        .args(["--test-threads", "2"])
        .current_dir("/")
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains(" passed"),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
