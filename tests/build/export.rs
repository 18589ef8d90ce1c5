//! Exports that are killed or refused in the middle: a directory of an artifact is whole, or it is not there.

use crate::{
    project::*,
    strace::{Traced, traced, with_fault_on},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Calls with which an artifact is written, with an error that a full disk gives for them.
const CALLS: &[(&str, &str)] = &[
    ("openat", "EMFILE"),
    ("mkdir", "ENOSPC"),
    ("write", "ENOSPC"),
    ("pwritev2", "ENOSPC"),
    ("copy_file_range", "ENOSPC"),
    ("sendfile", "ENOSPC"),
    ("ftruncate", "ENOSPC"),
    ("renameat2", "ENOSPC"),
    ("rename", "ENOSPC"),
    ("chmod", "EROFS"),
    ("unlinkat", "EIO"),
    ("flock", "ENOLCK"),
];

/// The files of an exported artifact but the record, which has the time of its build. A large file is represented by its line in
/// `SHA256SUMS`.
fn exported(dir: &Path) -> Option<BTreeMap<PathBuf, Vec<u8>>> {
    const LARGE: u64 = 1 << 20;
    if !dir.exists() {
        return None;
    }
    // The sums are compared with the files by the program that users have for it.
    good(
        Command::new("sha256sum")
            .args(["--check", "--quiet", "SHA256SUMS"])
            .current_dir(dir),
    );
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.expect("readable");
        if entry.file_name() == "build-record.json" {
            continue;
        }
        let bytes = match entry.metadata().expect("readable").len() {
            0..LARGE => fs::read(entry.path()).expect("readable"),
            _ => Vec::new(),
        };
        files.insert(entry.path().strip_prefix(dir).expect("below").to_owned(), bytes);
    }
    Some(files)
}

/// An export into a directory of its own.
struct Subject {
    dir: tempfile::TempDir,
    tools: PathBuf,
    whole: BTreeMap<PathBuf, Vec<u8>>,
}

/// The place of a fault: call number `at` of a thread, or the first one with a path.
struct Place {
    call: String,
    at: usize,
    path: Option<String>,
    /// The kind of call.
    class: String,
    /// Whether the directory of the artifacts was open or changed before this call.
    late: bool,
}

impl Subject {
    fn new() -> Self {
        let whole = exported(artifact()).expect("built");
        assert!(
            whole.keys().any(|file| file.ends_with("SHA256SUMS")),
            "{:?}",
            whole.keys()
        );
        Self {
            dir: tempfile::tempdir_in(scratch()).expect("scratch"),
            tools: tree_of("check-tools"),
            whole,
        }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("kernel-initrd/amd64")
    }

    fn command(&self) -> Command {
        let mut command = build(repository(), &store());
        command
            .args(["--variant", "kernel-initrd", "--output"])
            .arg(self.dir.path());
        // The loader would look for libraries where cargo has its own.
        command.current_dir(repository()).env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Before an export there is no artifact, or an older one: it has another record.
    fn prepare(&self, replaced: bool) {
        let target = self.target();
        let parent = target.parent().expect("a directory");
        let _ = fs::remove_dir_all(parent);
        if replaced {
            fs::create_dir(parent).expect("made");
            good(
                Command::new("cp")
                    .args(["-r", "--sparse=always"])
                    .arg(artifact())
                    .arg(&target),
            );
            fs::write(target.join("build-record.json"), "{}").expect("ours");
        }
    }

    /// The calls of an export.
    fn trace(&self, calls: &[&str], replaced: bool) -> Vec<Traced> {
        self.prepare(replaced);
        let (output, found) = traced(&self.tools, &self.command(), calls);
        assert!(output.status.success(), "{}", text(&output));
        assert!(exported(&self.target()).as_ref() == Some(&self.whole));
        found
    }

    /// The kind of a call: its name, and its paths without anything that differs between runs or files of a kind.
    fn class(&self, found: &Traced) -> String {
        let mut paths: Vec<&str> = Vec::new();
        let of_descriptors = ["write", "pwritev2", "copy_file_range", "sendfile", "ftruncate", "flock"];
        // What a call writes may look like a path, so only the descriptors before it are read.
        let marks: &[(char, char)] = match of_descriptors.contains(&found.call.as_str()) {
            true => &[('<', '>')],
            false => &[('"', '"')],
        };
        for (open, close) in marks {
            let mut rest = match *open {
                '<' => found.arguments.split(['"', '[']).next().unwrap_or_default(),
                _ => found.arguments.as_str(),
            };
            while let Some((_, tail)) = rest.split_once(*open) {
                let Some((path, tail)) = tail.split_once(*close) else {
                    break;
                };
                paths.push(path);
                rest = tail;
            }
        }
        let places = [
            (self.dir.path().to_owned(), "output"),
            (store(), "store"),
            (repository().join("stages"), "stages"),
            (repository().to_owned(), "project"),
        ];
        let shown = paths.iter().map(|path| {
            if path.contains("/.git") {
                return "git".to_owned();
            }
            let place = places.iter().find_map(|(dir, name)| {
                let below = Path::new(path).strip_prefix(dir).ok()?;
                Some((below.to_str().expect("UTF-8"), *name))
            });
            let (below, name) = place.unwrap_or((path, ""));
            if name == "stages" {
                return name.to_owned();
            }
            let parts = below.split('/').map(general);
            format!("{name}/{}", parts.collect::<Vec<_>>().join("/"))
        });
        format!("{} {}", found.call, shown.collect::<Vec<_>>().join(" "))
    }

    /// The first, the middle and the last call of each kind.
    fn places(&self, calls: &[&str], replaced: bool) -> Vec<Place> {
        let found = self.trace(calls, replaced);
        let mut classes: BTreeMap<String, Vec<(bool, &Traced)>> = BTreeMap::new();
        let mut late = false;
        for call in &found {
            // Progress is told by any thread; that it cannot be told is no matter of the artifact.
            if call.call == "write" && (call.arguments.starts_with("1<") || call.arguments.starts_with("2<")) {
                continue;
            }
            let class = self.class(call);
            late |= class.contains(" output/");
            classes.entry(class).or_default().push((late, call));
        }
        let mut places = Vec::new();
        for (class, all) in classes {
            let chosen = BTreeSet::from([0, all.len() / 2, all.len() - 1]);
            for (late, call) in chosen.into_iter().map(|n| all[n]) {
                // strace counts the calls of each thread, so a call of another thread is found by its path.
                let path = (!call.first_thread).then(|| {
                    let path = call.arguments.split('"').nth(1).expect("the path of a call");
                    path.to_owned()
                });
                places.push(Place {
                    call: call.call.clone(),
                    at: if path.is_some() { 1 } else { call.number },
                    path,
                    class: class.clone(),
                    late,
                });
            }
        }
        places
    }

    /// Exports with a fault, and checks the directory after it and after the next export; before the directory was reached, the next
    /// export follows only the last fault of a kind. Returns whether the fault happened.
    fn break_at(&self, place: &Place, fault: &str, replaced: bool, last: bool) -> bool {
        let what = format!("{fault} at {} number {} ({})", place.call, place.at, place.class);
        let target = self.target();
        self.prepare(replaced);
        let fault = (place.call.as_str(), fault, place.at);
        let (output, injected) = with_fault_on(&self.tools, &self.command(), place.path.as_deref(), fault);
        if injected.is_none() {
            assert!(output.status.success(), "{what}: {}", text(&output));
            return false;
        }
        match exported(&target) {
            None => assert!(!replaced, "{what}: the old artifact is gone"),
            Some(files) => assert!(files == self.whole, "{what}: {:?}", files.keys()),
        }
        if !place.late && !last {
            // The next program that uses the store removes what this one has left there.
            good(build(repository(), &store()).args(["--stage", "agent"]));
            return true;
        }
        good(&mut self.command());
        assert!(
            exported(&target).as_ref() == Some(&self.whole),
            "{what}: the next export differs"
        );
        let parent = target.parent().expect("a directory");
        let left = walkdir::WalkDir::new(parent).max_depth(1).min_depth(1).into_iter();
        let left: Vec<PathBuf> = left.map(|entry| entry.expect("readable").into_path()).collect();
        assert_eq!(left, std::slice::from_ref(&target), "{what}: directories are left");
        true
    }
}

/// A component of a path without numbers, digests and random parts.
fn general(part: &str) -> String {
    for (begin, shown) in [
        ("run-", "run-*"),
        (".amd64.", ".amd64.*"),
        ("latest-", "latest-*"),
        ("export-", "export-*"),
    ] {
        if part.starts_with(begin) {
            return shown.to_owned();
        }
    }
    if part.len() >= 2 && part.bytes().all(|b| b.is_ascii_hexdigit()) {
        return "#".to_owned();
    }
    let mut shown = String::new();
    for letter in part.chars() {
        match letter.is_ascii_digit() {
            true if shown.ends_with('#') => {}
            true => shown.push('#'),
            false => shown.push(letter),
        }
    }
    shown
}

/// Tries faults at the first, the middle and the last call of each kind, with no artifact before and with an older one. Returns the
/// numbers of faults and of kinds.
fn break_exports(calls: &[(&str, &str)]) -> (usize, usize) {
    let subject = Subject::new();
    let names: Vec<&str> = calls.iter().map(|(name, _)| *name).collect();
    let (mut faults, mut known) = (0, BTreeSet::new());
    for replaced in [false, true] {
        let places = subject.places(&names, replaced);
        for (number, place) in places.iter().enumerate() {
            let last = places.get(number + 1).is_none_or(|next| next.class != place.class);
            // Up to where the directory is opened, an older artifact changes nothing.
            if replaced && !place.late && known.contains(&place.class) {
                continue;
            }
            let error = calls.iter().find(|(name, _)| *name == place.call).expect("listed").1;
            for fault in ["signal=SIGKILL".to_owned(), format!("error={error}")] {
                let happened = subject.break_at(place, &fault, replaced, last && !fault.starts_with("signal"));
                assert!(
                    happened,
                    "no {fault} at {} number {} ({})",
                    place.call, place.at, place.class
                );
                faults += 1;
            }
            known.insert(place.class.clone());
        }
    }
    (faults, known.len())
}

#[test]
fn an_export_that_is_killed_or_refused_where_it_gets_its_name_leaves_the_old_artifact_or_the_new_one() {
    let (faults, _) = break_exports(&[("renameat2", "ENOSPC")]);
    assert!(faults >= 4, "only {faults} faults");
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: some two hundred exports; cargo test -- --ignored nightly::"]
    fn an_export_that_is_killed_or_refused_at_a_call_of_any_kind_leaves_the_old_artifact_or_the_new_one() {
        let (faults, kinds) = break_exports(CALLS);
        assert!(
            faults > 150 && kinds > 60,
            "only {faults} faults at {kinds} kinds of calls"
        );
    }
}
