//! A maintainer script to which the sandbox refuses what a machine allows.

use crate::{
    project::*,
    raw_package::{deb_of, dir as entry_dir, fields, tarball, text as entry_text},
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The package with the script, and its place on a mirror.
const NAME: &str = "careless";
const PLACE: &str = "pool/main/c/careless/careless_1_all.deb";

/// What people write into maintainer scripts: each line goes on whatever comes of it.
const SCRIPT: &str = "#!/bin/sh\nset -e\nmknod /dev/careless c 1 3 || true\nmount -t tmpfs none /mnt || :\nchattr +i /etc/fstab || true\n\
                      date -s 2020-01-01 || true\nchown 70000 /etc/fstab || true\nexit 0\n";

/// The project with one more package in the root, whose postinst is `script`, and the mirror that has it.
fn with_script(dir: &Path, script: &str, refused: &str) -> (PathBuf, String) {
    let project = dir.join("project");
    copy_of_project(&project);
    let control = tarball(&[
        entry_dir("./"),
        entry_text("./control", &fields(NAME, "")),
        entry_text("./postinst", script).mode(0o755),
    ]);
    let copyright = "./usr/share/doc/careless/copyright";
    let data = tarball(&[
        entry_dir("./usr/"),
        entry_dir("./usr/share/"),
        entry_dir("./usr/share/doc/"),
        entry_dir("./usr/share/doc/careless/"),
        entry_text(copyright, "public domain\n"),
    ]);
    let deb = deb_of(&control, &data);
    let place = dir.join("mirror/debian").join(PLACE);
    fs::create_dir_all(place.parent().expect("below the mirror")).expect("made");
    fs::write(&place, &deb).expect("written");

    let change = |file: &str, change: &dyn Fn(&str) -> String| {
        let path = project.join(file);
        let text = fs::read_to_string(&path).expect("readable");
        let changed = change(&text);
        assert_ne!(changed, text, "{file}");
        fs::write(&path, changed).expect("written");
    };
    change("stages/rootfs/stage.toml", &|text| {
        text.replace(
            "essential = true",
            &format!("want-amd64 = [\"{NAME}\"]\nessential = true"),
        )
        .replace("[sandbox]\n", &format!("[sandbox]\n{refused}\n"))
    });
    change("lockfile.toml", &|text| {
        let (before, set) = text
            .split_once("name = \"rootfs/amd64\"\nwant = [\"ca-certificates\", ")
            .expect("the set");
        let set = format!("name = \"rootfs/amd64\"\nwant = [\"ca-certificates\", \"{NAME}\", {set}");
        let sha256 = hex::encode(Sha256::digest(&deb));
        let package = format!(
            "[[package]]\nname = \"{NAME}\"\narch = \"all\"\nversion = \"1\"\narchive = \"trixie\"\npath = \"{PLACE}\"\nsize = {}\n\
             sha256 = \"{sha256}\"\nsets = [\"rootfs/amd64\"]\n\n",
            deb.len()
        );
        let first = set.find("[[package]]").expect("packages");
        format!("{before}{}{package}{}", &set[..first], &set[first..])
    });
    (project, format!("file://{}", dir.join("mirror").display()))
}

fn rootfs(project: &Path, mirror: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("--project").arg(project).arg("--store").arg(store());
    command.args(["--offline", "--mirror", mirror, "build", "--stage", "rootfs/amd64"]);
    command
}

#[test]
fn a_maintainer_script_that_ignores_a_refusal_is_an_error_that_names_it() {
    // The other packages are in the store from then on, and so the mirror needs to have one package only.
    let plain = tree_of("rootfs");
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let (project, mirror) = with_script(dir.path(), SCRIPT, "");
    let said = bad(&mut rootfs(&project, &mirror), 7);
    let script = "for /var/lib/dpkg/info/careless.postinst configure";
    for line in [
        "failed to build rootfs/amd64: it ended well although the sandbox refused system calls:",
        &format!("mknodat(\"/dev/careless\", 0o20666) to mknod: mknod /dev/careless c 1 3, {script}"),
        &format!("to mount: mount -t tmpfs none /mnt, {script}"),
        &format!("ioctl(0x80086601) to chattr: chattr +i /etc/fstab, {script}"),
        &format!("clock_settime() to date: date -s 2020-01-01, {script}"),
        &format!("fchownat(\"/etc/fstab\", 70000, -1) to chown: chown 70000 /etc/fstab, {script}"),
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    // The line of the hint is what makes the stage pass.
    let from = said.find("refused = { ").expect("a way out");
    let end = from + said[from..].find('}').expect("its end") + 1;
    let declaration = said[from..end].split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "chattr = [\"file-flag\"]",
        "chown = [\"owner\"]",
        "mknod = [\"device\"]",
        "date = [\"clock\"]",
    ] {
        assert!(declaration.contains(part), "{declaration}");
    }
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let (project, mirror) = with_script(dir.path(), SCRIPT, &declaration);
    good(&mut rootfs(&project, &mirror));
    let with = good(pnb(&project, &store()).args(["store", "path", "rootfs"]));
    let differences = Command::new("diff")
        .args(["-rq", "--no-dereference"])
        .arg(&plain)
        .arg(with.trim())
        .output()
        .expect("runs");
    let differences = String::from_utf8_lossy(&differences.stdout);
    assert!(
        differences.contains("careless") && !differences.contains("fstab"),
        "{differences}"
    );
    // The store's record of the stage has what was declared, and what happened.
    let log = good(pnb(&project, &store()).args(["log", "rootfs"]));
    assert!(log.contains("mknod: /dev/careless: Operation not permitted"), "{log}");
}

/// The kernel's file systems are empty directories here, in which a script can leave files.
#[test]
fn a_maintainer_script_that_writes_to_sys_does_not_put_a_file_into_the_root() {
    tree_of("rootfs");
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let (project, mirror) = with_script(dir.path(), "#!/bin/sh\necho 1 >/sys/switch || true\n", "");
    let said = bad(&mut rootfs(&project, &mirror), 7);
    let problem = "rootfs: a package's script wrote to /proc or /sys: /build/root/sys/switch";
    assert!(said.contains(problem), "{said}");
}
