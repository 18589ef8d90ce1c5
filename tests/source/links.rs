//! Files that lead elsewhere: symbolic links, FIFOs, projects of other users, and a list of files that the lock does not have.

use super::project::{Checkout, lock_with, write_project};
use std::{fs, path::Path, process::Command};

/// The stage of the project, the file that `script` makes lead outside, and the link that the error names.
const LEADING_OUT: &[(&str, &str, &str)] = &[
    (
        "a directory on the way to an input",
        "mv overlay OUT/o; mkdir l; rmdir l; ln -s OUT/o overlay",
        "",
    ),
    (
        "a directory above an input",
        "mv overlay OUT/o; ln -s OUT dir; sed -i 's|\"overlay\"|\"dir/o\"|' stages/agent/stage.toml",
        "dir",
    ),
    (
        "a stage",
        "mv stages/agent OUT/s; ln -s OUT/s stages/agent",
        "stages/agent",
    ),
    (
        "a stage file",
        "mv stages/agent/stage.toml OUT/t; ln -s OUT/t stages/agent/stage.toml",
        "stages/agent/stage.toml",
    ),
    ("all stages", "mv stages OUT/all; ln -s OUT/all stages", "stages"),
    (
        "the lock",
        "mv lockfile.toml OUT/l; ln -s OUT/l lockfile.toml",
        "lockfile.toml",
    ),
    (
        "the list of files",
        "mv stages/files.toml OUT/f; ln -s OUT/f stages/files.toml",
        "stages/files.toml",
    ),
    (
        "a pinned file",
        "mv agent/agent OUT/a; ln -s OUT/a agent/agent",
        "agent/agent",
    ),
    (
        "the directory of a pinned file",
        "mv agent OUT/d; ln -s OUT/d agent",
        "agent",
    ),
];

#[test]
fn no_file_of_a_project_is_read_through_a_link() {
    for (name, script, link) in LEADING_OUT {
        let checkout = Checkout::committed();
        let outside = tempfile::tempdir().expect("scratch");
        let out = outside.path().to_str().expect("UTF-8");
        checkout.sh(&format!(
            "{}; git add -A; git commit -qm link",
            script.replace("OUT", out)
        ));
        for hermetic in [true, false] {
            let mut arguments = vec!["build", "--stage", "agent"];
            arguments.extend(hermetic.then_some("--hermetic"));
            let (code, said) = checkout.said(&arguments);
            if link.is_empty() {
                // An input that is itself a link is taken as a link: the stage gets no file of the host.
                assert_eq!(code, 0, "{name}: {said}");
                continue;
            }
            assert!(
                code != 0 && said.contains(&format!("{link} is a symbolic link")),
                "{name}: {code} {said}"
            );
            assert!(said.contains("read without following links"), "{name}: {said}");
        }
    }
    // `pnb lock` reads the list of archives and its keyrings too, and takes the digests of the files.
    for (script, link) in [
        (
            "mv stages/files.toml OUT/f; ln -s OUT/f stages/files.toml",
            "stages/files.toml",
        ),
        ("mv agent/agent OUT/a; ln -s OUT/a agent/agent", "agent/agent"),
        (
            "echo > OUT/x; ln -s OUT/x stages/archives.toml; rm lockfile.toml",
            "stages/archives.toml",
        ),
    ] {
        let checkout = Checkout::committed();
        let outside = tempfile::tempdir().expect("scratch");
        checkout.sh(&script.replace("OUT", outside.path().to_str().expect("UTF-8")));
        let (code, said) = checkout.said(&["lock"]);
        assert!(
            code != 0 && said.contains(&format!("{link} is a symbolic link")),
            "{link}: {said}"
        );
    }
}

#[test]
fn links_inside_an_input_stay_links() {
    let checkout = Checkout::committed();
    checkout.sh("ln -s /etc/shadow overlay/etc/out; git add -A; git commit -qm link");
    let (code, said) = checkout.said(&["build", "--hermetic", "--stage", "agent"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn what_is_no_file_is_refused_and_never_waited_for() {
    for file in [
        "lockfile.toml",
        "stages/files.toml",
        "stages/agent/stage.toml",
        "agent/agent",
        "overlay/etc/motd",
    ] {
        for (make, kind) in [("mkfifo", "a FIFO"), ("mkdir", "a directory")] {
            if (file, kind) == ("overlay/etc/motd", "a directory") {
                continue;
            }
            let checkout = Checkout::files();
            checkout.sh(&format!("rm {file}; {make} {file}"));
            let (code, said) = checkout.said(&["plan", "--stage", "agent"]);
            assert!(code != 0 && code != 124 && said.contains(kind), "{file}: {code} {said}");
        }
    }
}

#[test]
fn a_project_of_somebody_else_that_was_found_is_refused_and_one_that_was_named_is_used() {
    let checkout = Checkout::files();
    checkout.sh("mkdir -p inner/deep; chmod 755 .");
    let inner = checkout.path().join("inner/deep");
    let run = |dir: &Path, arguments: &[&str]| {
        let mut command = checkout.pnb(arguments);
        let output = command.current_dir(dir).output().expect("starts");
        (output.status.code().unwrap_or(-1), super::project::text(&output))
    };
    let plan = ["plan", "--stage", "agent"];
    let (code, said) = run(&inner, &plan);
    assert_eq!(code, 0, "the own project is found: {said}");
    // Each file counts, not only the directory: in a shared directory, such as /tmp, others can put files beside one's own.
    for theirs in [
        "lockfile.toml",
        "stages",
        "stages/agent/stage.toml",
        "overlay/etc/motd",
        "agent/agent",
        ".",
    ] {
        give(&checkout.path().join(theirs), true);
        let (code, said) = run(&inner, &plan);
        assert!(code == 1 || code == 5 || code == 6, "{theirs}: {code} {said}");
        assert!(
            said.contains("belongs to user ") && said.contains("--project"),
            "{theirs}: {said}"
        );
        let named = [
            "plan",
            "--stage",
            "agent",
            "--project",
            checkout.path().to_str().expect("UTF-8"),
        ];
        let (code, said) = run(&inner, &named);
        assert_eq!(code, 0, "{theirs}: {said}");
        give(&checkout.path().join(theirs), false);
    }
    checkout.sh("git init -q .; git add -A; git commit -qm x");
    give(&checkout.path().join(".git"), true);
    let (code, said) = run(&inner, &plan);
    assert!(code == 1 && said.contains("belongs to user "), "{said}");
    give(&checkout.path().join(".git"), false);
}

/// Gives a file to another user, or takes it back. An ordinary user has subordinate ids, in a user namespace where those are 1 and more.
fn give(path: &Path, to_another: bool) {
    let mut command = if nix::unistd::getuid().is_root() {
        let mut command = Command::new("chown");
        command.arg(if to_another { "65534" } else { "0" });
        command
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--map-auto", "chown"]);
        command.arg(if to_another { "1" } else { "0" });
        command
    };
    let done = command.arg(path).status().expect("chown starts");
    assert!(done.success(), "chown of {path:?}");
}

#[test]
fn the_list_of_files_and_the_lock_agree_in_every_command_that_reads_both() {
    let other = "[[file]]\nname = \"agent\"\npath = \"agent/other\"\n";
    let zeros = "0".repeat(64);
    let download =
        format!("[[file]]\nname = \"agent\"\nurl = \"https://example.org/a\"\nsize = 1\nsha256 = \"{zeros}\"\n");
    let second = "[[file]]\nname = \"agent\"\npath = \"agent/agent\"\n[[file]]\nname = \"second\"\npath = \"README\"\n";
    for (list, want) in [
        (
            other,
            "stages/files.toml names agent/other for \"agent\", the lock has agent/agent",
        ),
        (
            download.as_str(),
            "stages/files.toml names https://example.org/a for \"agent\", the lock has agent/agent",
        ),
        (
            second,
            "stages/files.toml names README for \"second\", the lock has no such file",
        ),
        (
            "",
            "the lock has the file \"agent\", and stages/files.toml does not name it",
        ),
    ] {
        let checkout = Checkout::files();
        fs::copy(checkout.path().join("agent/agent"), checkout.path().join("agent/other")).expect("copied");
        fs::write(checkout.path().join("stages/files.toml"), list).expect("written");
        for arguments in [
            &["plan", "--stage", "agent"][..],
            &["build", "--stage", "agent"],
            &["graph", "--stage", "agent"],
            &["fetch", "--stage", "agent"],
            &["doctor"],
        ] {
            let (code, said) = checkout.said(arguments);
            assert!(
                code == 3 && said.contains(want) && said.contains("`pnb lock`"),
                "{arguments:?}: {code} {said}"
            );
        }
        // `pnb lock --check` lists the difference itself.
        let (code, said) = checkout.said(&["lock", "--check"]);
        assert_eq!(code, 3, "{said}");
    }
    let checkout = Checkout::empty();
    write_project(checkout.path());
    fs::write(
        checkout.path().join("lockfile.toml"),
        lock_with("agent/agent", b"other"),
    )
    .expect("written");
    let (code, said) = checkout.said(&["plan", "--stage", "agent"]);
    assert!(code == 3 && said.contains("it is not the locked one"), "{said}");
}
