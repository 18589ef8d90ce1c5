//! The same bytes elsewhere: another store, another path, another user.

use crate::project::*;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

const USER: &str = "pnb-test";
const BOTH: [&str; 6] = ["kernel-initrd", "raw", "iso", "ipxe", "qcow2", "oci"];
const ARM64: [&str; 2] = ["disk-image-rpi4", "disk-image-arm64-uefi"];

fn as_root(argv: &[&str]) {
    good(Command::new(argv[0]).args(&argv[1..]));
}

fn make_user() {
    assert!(Path::new("/usr/bin/newuidmap").exists(), "install the package uidmap");
    if nix::unistd::User::from_name(USER).expect("asked").is_none() {
        as_root(&["useradd", "--create-home", USER]);
    }
    for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        if !fs::read_to_string(file)
            .unwrap_or_default()
            .lines()
            .any(|l| l.starts_with(&format!("{USER}:")))
        {
            as_root(&["usermod", option, "300000-365535", USER]);
        }
    }
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: both architectures are built a second time, as another user: root, uidmap; cargo test -- --ignored nightly::"]
    fn another_user_at_another_path_builds_the_same_bytes() {
        artifact();
        crate::arm64::images();
        let dir = tempfile::Builder::new()
            .prefix("pnb-a-rather-longer-path-")
            .tempdir_in("/var/tmp")
            .expect("scratch");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let (program, clone, mirror_copy) = (
            dir.path().join("pnb"),
            dir.path().join("clone"),
            dir.path().join("mirror"),
        );
        fs::copy(env!("CARGO_BIN_EXE_pnb"), &program).expect("copied");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
        let from = mirror().strip_prefix("file://").expect("a directory");
        good(Command::new("cp").args(["-r", from]).arg(&mirror_copy));
        // The statements name the revision, so the clone must have the same one, with the same uncommitted changes.
        good(
            Command::new("cp")
                .arg("-r")
                .arg(repository().join(".git"))
                .arg(dir.path().join("git")),
        );
        fs::create_dir(&clone).expect("made");
        copy_of_project(&clone);
        fs::rename(dir.path().join("git"), clone.join(".git")).expect("renamed");
        let images = dir.path().join("images");
        let mut command = if nix::unistd::getuid().is_root() {
            make_user();
            as_root(&["chown", "-R", USER, dir.path().to_str().expect("UTF-8")]);
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", USER, "--regid", USER, "--init-groups", "--reset-env", "--"])
                .args(["env", "TZ=Pacific/Chatham", "LC_ALL=C"])
                .arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command.current_dir("/");
        command
            .arg("--project")
            .arg(&clone)
            .arg("--store")
            .arg(dir.path().join("store"));
        command
            .arg("--offline")
            .arg("--mirror")
            .arg(format!("file://{}", mirror_copy.display()));
        command.args(["build", "--hermetic", "--allow-dirty", "--arch", "all", "--jobs", "1"]);
        good(command.arg("--output").arg(&images));
        let same = |variant: &str, arch: &str, here: &Path| {
            let sums = |images: &Path| {
                let path = images.join(variant).join(arch).join("SHA256SUMS");
                fs::read_to_string(path).expect(variant)
            };
            assert_eq!(sums(&images), sums(here), "{variant}/{arch}");
        };
        for variant in BOTH {
            same(variant, "amd64", self::images());
        }
        for variant in BOTH.into_iter().chain(ARM64) {
            same(variant, "arm64", crate::arm64::images());
        }
        let index = |images: &Path| fs::read_to_string(images.join("oci/index.json")).expect("the joint layout");
        assert_eq!(index(&images.join("oci")), index(crate::oci::joint()));
    }
}
