//! `pnb publish --to dir:PATH --layout platform`, as a program: names, refusals, repetition, and kills between any two steps.

use crate::{
    fixture::{artifact, facts, lock, path, root_image, tools::check_tools, write_all},
    strace::with_fault,
};
use pnb::manifest::Statements;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// The names of the platform's layout for amd64: the two files of a direct boot under four directories.
const NAMES: [&str; 8] = [
    "amd64/initramfs.cpio.zst",
    "amd64/kernel",
    "amd64/kernel-initrd/initramfs.cpio.zst",
    "amd64/kernel-initrd/kernel",
    "x86_64/initramfs.cpio.zst",
    "x86_64/kernel",
    "x86_64/kernel-initrd/initramfs.cpio.zst",
    "x86_64/kernel-initrd/kernel",
];

/// Artifacts in `images/`, a place to publish to, and a store.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().expect("scratch"),
        };
        site.build(b"first kernel");
        site
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("www")
    }

    /// Replaces the artifact by one with this kernel.
    fn build(&self, kernel: &[u8]) {
        let (image, root) = root_image();
        let mut files = artifact(image, format!("{root}\n").as_bytes());
        files.insert(path("kernel"), kernel.to_vec());
        let statements = Statements::describe(&facts(&lock(), *root, &files)).expect("whole facts");
        let dir = self.images().join("kernel-initrd/amd64");
        fs::create_dir_all(&dir).expect("made");
        write_all(&dir, &files, &statements);
    }

    /// `pnb publish` into the place.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
        command.arg("--store").arg(self.dir.path().join("store"));
        command.args(["publish", "--to"]);
        command.arg(format!("dir:{}", self.place().display()));
        command.args(["--layout", "platform"]);
        command.arg(self.images()).args(arguments);
        command.current_dir(self.dir.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().expect("starts");
        (output.status.code().expect("exits"), self.said(&output))
    }

    /// What was said, with the scratch directory's name replaced.
    fn said(&self, output: &Output) -> String {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let text = String::from_utf8(text).expect("UTF-8");
        text.replace(self.dir.path().to_str().expect("UTF-8"), "<site>")
    }

    /// Every file below the place with its content, the record left out.
    fn published(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in walkdir::WalkDir::new(self.place()).sort_by_file_name() {
            let entry = entry.expect("readable");
            let name = entry
                .path()
                .strip_prefix(self.place())
                .expect("below")
                .display()
                .to_string();
            if !entry.file_type().is_dir() && name != ".pnb-publication.json" {
                found.insert(name, fs::read(entry.path()).expect("readable"));
            }
        }
        found
    }

    /// Whether the published files are exactly those of the layout, with this kernel.
    fn is_published(&self, kernel: &[u8]) -> bool {
        let source = self.images().join("kernel-initrd/amd64/initramfs.cpio.zst");
        let initramfs = fs::read(source).expect("readable");
        let content = |name: &str| {
            if name.ends_with("kernel") {
                kernel.to_vec()
            } else {
                initramfs.clone()
            }
        };
        self.published() == NAMES.map(|name| (name.to_owned(), content(name))).into()
    }
}

#[test]
fn the_names_that_the_controllers_look_for_have_the_files_of_the_artifact() {
    let site = Site::new();
    let (exit, said) = site.run(&["--dry-run"]);
    assert_eq!(exit, 0, "{said}");
    assert_eq!(said.matches("would place ").count(), 8, "{said}");
    assert!(!site.place().exists(), "a dry run writes nothing");

    let (exit, said) = site.run(&[]);
    assert_eq!((exit, said.matches("placed ").count()), (0, 8), "{said}");
    assert!(site.is_published(b"first kernel"), "{:?}", site.published().keys());
    // One copy under four names, which is none of the artifact's own files, and readable for a web server.
    let meta = |path: PathBuf| fs::metadata(path).expect("there");
    let kernel = meta(site.place().join("amd64/kernel"));
    assert_eq!((kernel.nlink(), kernel.permissions().mode() & 0o7777), (4, 0o644));
    assert_eq!(meta(site.images().join("kernel-initrd/amd64/kernel")).nlink(), 1);
    assert_eq!(
        meta(site.place().join("x86_64/kernel-initrd")).permissions().mode() & 0o777,
        0o755
    );

    // Again: nothing changes, not even the record.
    let record = || {
        let meta = meta(site.place().join(".pnb-publication.json"));
        (meta.ino(), meta.mtime(), meta.mtime_nsec())
    };
    let before = record();
    let (exit, said) = site.run(&[]);
    assert_eq!((exit, said.matches("unchanged ").count()), (0, 8), "{said}");
    assert_eq!(record(), before);
    let (_, json) = site.run(&["--json"]);
    let events: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let (end, events) = events.split_last().expect("the end");
    assert_eq!(end["event"], "end");
    let names: Vec<&str> = events.iter().map(|e| e["name"].as_str().expect("a name")).collect();
    assert_eq!(names, NAMES);
    assert!(
        events
            .iter()
            .all(|e| e["event"] == "placed" && e["state"] == "unchanged"),
        "{json}"
    );
}

#[test]
fn only_an_older_publication_is_replaced_and_only_when_asked() {
    let site = Site::new();
    assert_eq!(site.run(&[]).0, 0);
    site.build(b"second kernel");
    insta::assert_snapshot!(site.run(&["--quiet"]).1, @r"
    error: failed to publish into <site>/www:
      amd64/kernel is of an older publication
      amd64/kernel-initrd/kernel is of an older publication
      x86_64/kernel is of an older publication
      x86_64/kernel-initrd/kernel is of an older publication

    hint: give --replace to replace the older publication
    ");
    let (exit, said) = site.run(&["--quiet"]);
    assert_eq!(exit, 60, "{said}");
    assert!(site.published()["amd64/kernel"] == b"first kernel");
    let (exit, said) = site.run(&["--replace", "--dry-run"]);
    assert_eq!((exit, said.matches("would replace ").count()), (0, 4), "{said}");
    assert!(site.published()["amd64/kernel"] == b"first kernel");
    let (exit, said) = site.run(&["--replace"]);
    assert_eq!((exit, said.matches("replaced ").count()), (0, 4), "{said}");
    assert!(site.is_published(b"second kernel"));

    // A file of somebody else, in one of the eight names.
    let foreign = site.place().join("x86_64/kernel-initrd/kernel");
    fs::remove_file(&foreign).expect("removed");
    fs::write(&foreign, "not pnb's").expect("written");
    fs::remove_file(site.place().join("amd64/kernel")).expect("removed");
    let before = site.published();
    insta::assert_snapshot!(site.run(&["--quiet", "--replace"]).1, @r"
    error: failed to publish into <site>/www:
      x86_64/kernel-initrd/kernel has other content, which pnb did not place there (sha256 8fe3d470e6f22ab21dc4b2f713c1cd3a31d485ce9aa190c483229df134748d92)

    hint: move away what pnb did not place there, or publish into another directory
    ");
    assert_eq!(site.published(), before, "nothing was written");
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_written() {
    let site = Site::new();
    let elsewhere = site.dir.path().join("elsewhere");
    fs::create_dir_all(&elsewhere).expect("made");
    fs::create_dir_all(site.place().join("amd64/kernel")).expect("made");
    symlink(&elsewhere, site.place().join("x86_64")).expect("made");
    insta::assert_snapshot!(site.run(&["--quiet", "--replace"]).1, @r"
    error: failed to publish into <site>/www:
      amd64/kernel is not a regular file
      x86_64 is not a directory

    hint: move away what pnb did not place there, or publish into another directory
    ");
    assert_eq!(walkdir::WalkDir::new(&elsewhere).into_iter().count(), 1, "it is empty");

    // A record that is not one.
    let site = Site::new();
    assert_eq!(site.run(&[]).0, 0);
    fs::write(site.place().join(".pnb-publication.json"), "{}").expect("written");
    let (exit, said) = site.run(&[]);
    assert!(
        exit == 60 && said.contains("failed to read <site>/www/.pnb-publication.json"),
        "{said}"
    );

    // Another pnb holds the directory.
    let site = Site::new();
    fs::create_dir(site.place()).expect("made");
    let held = fs::File::open(site.place()).expect("opened");
    held.lock().expect("locked");
    let (exit, said) = site.run(&[]);
    assert!(exit == 60 && said.contains("another pnb publishes into it"), "{said}");
    drop(held);
    assert_eq!(site.run(&[]).0, 0);
}

#[test]
fn an_artifact_that_does_not_pass_its_audit_is_not_published() {
    let site = Site::new();
    fs::write(site.images().join("kernel-initrd/amd64/kernel"), "changed").expect("written");
    let (exit, said) = site.run(&[]);
    assert!(exit == 41 && said.contains("\"kernel\""), "exit {exit}\n{said}");
    assert!(!site.place().exists());
    let site = Site::new();
    let lock = site.dir.path().join("lockfile.toml");
    fs::write(&lock, "another lock").expect("written");
    let (exit, said) = site.run(&["--lock", lock.to_str().expect("UTF-8")]);
    assert_eq!(exit, 44, "{said}");
    assert!(!site.place().exists());
    fs::remove_dir_all(site.images()).expect("removed");
    let (exit, said) = site.run(&[]);
    assert!(
        exit == 2 && said.contains("there is no such file"),
        "exit {exit}\n{said}"
    );
    fs::create_dir(site.images()).expect("made");
    let (exit, said) = site.run(&[]);
    assert!(
        exit == 60 && said.contains("kernel-initrd/amd64 and kernel-initrd/arm64"),
        "{said}"
    );
}

/// A `kill -9` at each call that makes a name, a link or a directory, or that flushes: no name ever has a part of a file, and the same
/// command completes the work.
#[test]
fn killed_at_any_step_the_same_command_completes_the_publication() {
    let site = Site::new();
    let whole = |content: &[u8]| -> bool {
        let initramfs = fs::read(site.images().join("kernel-initrd/amd64/initramfs.cpio.zst")).expect("readable");
        content == b"first kernel" || content == b"second kernel" || content == initramfs
    };
    let mut kills = 0;
    for call in ["mkdir", "rename", "renameat2", "linkat", "fsync", "fchmod"] {
        for at in 1.. {
            let _ = fs::remove_dir_all(site.place());
            site.build(b"first kernel");
            assert_eq!(site.run(&[]).0, 0);
            // Half of the names are free, the others are of the older publication.
            fs::remove_dir_all(site.place().join("x86_64")).expect("removed");
            site.build(b"second kernel");
            let command = site.command(&["--replace"]);
            let (output, killed) = with_fault(check_tools(), &command, call, "signal=SIGKILL", at);
            if killed.is_none() {
                assert!(output.status.success(), "{call} {at}: {}", site.said(&output));
                break;
            }
            kills += 1;
            for (name, content) in site.published() {
                let aside = Path::new(&name).starts_with(aside_of(&site));
                assert!(aside || whole(&content), "{call} {at}: a part of a file under {name}");
            }
            // The same command, or the next publication: both know the files of the killed one as pnb's.
            let kernel: &[u8] = if at % 2 == 0 { b"second kernel" } else { b"third kernel" };
            site.build(kernel);
            let (exit, said) = site.run(&["--replace"]);
            assert_eq!(exit, 0, "{call} {at}: {said}");
            assert!(site.is_published(kernel), "{call} {at}: {:?}", site.published().keys());
        }
    }
    assert!(kills > 25, "only {kills} kills");
}

/// The directory that a killed run has left, or a name that nothing has.
fn aside_of(site: &Site) -> String {
    let entries = walkdir::WalkDir::new(site.place()).max_depth(1).into_iter();
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    names
        .find(|name| name.starts_with(".pnb-publish-"))
        .unwrap_or_else(|| "none".to_owned())
}
