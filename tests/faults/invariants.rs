//! What holds after any fault, checked with code of its own: every object is hashed and every record is followed here.

use crate::project::{Checkout, text};
use pnb::{model::VerityDigest, verity};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The build whose faults are tried.
pub(crate) const BUILD: [&str; 3] = ["build", "--stage", "agent"];

/// A project, its store, and the outputs of a build that nothing disturbed.
pub(crate) struct Subject {
    pub(crate) checkout: Checkout,
    reference: BTreeMap<String, String>,
}

impl Subject {
    pub(crate) fn new() -> Self {
        let subject = Self {
            reference: BTreeMap::new(),
            checkout: Checkout::files(),
        };
        subject.with_present_outputs()
    }

    /// The same with the outputs of the project as it is now.
    pub(crate) fn with_present_outputs(self) -> Self {
        let subject = self;
        let good = subject.build().output().expect("starts");
        assert!(good.status.success(), "{}", text(&good));
        let reference = subject.outputs();
        assert!(!reference.is_empty(), "the build keeps a record");
        subject.remove_store();
        Self { reference, ..subject }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.checkout.store()
    }

    pub(crate) fn remove_store(&self) {
        let _ = fs::remove_dir_all(self.store());
    }

    pub(crate) fn build(&self) -> Command {
        self.checkout.pnb(&BUILD)
    }

    /// Outputs of the newest record of each stage.
    fn outputs(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (name, bytes) in files(&self.store().join("records")) {
            if name.starts_with("latest-") {
                let key = String::from_utf8(bytes).expect("a key");
                if let Some(record) = record(&self.store(), key.trim()) {
                    found.insert(name, record["outputs"].to_string());
                }
            }
        }
        found
    }

    /// Checks the store after a fault, builds again without one, and checks that nothing is different from the undisturbed build.
    /// `valid` are the objects that were whole before the fault.
    pub(crate) fn holds(&self, what: &str, valid: &BTreeSet<String>) {
        let left = whole_objects(&self.store(), what);
        let lost: Vec<&String> = valid.difference(&left).collect();
        assert!(lost.is_empty(), "{what}: {lost:?} are lost");
        let again = self.build().output().expect("starts");
        assert!(again.status.success(), "{what}: the next build: {}", text(&again));
        assert_eq!(
            self.outputs(),
            self.reference,
            "{what}: the next build has other outputs"
        );
        whole_objects(&self.store(), what);
        let left = files(&self.store().join("tmp"));
        assert!(left.is_empty(), "{what}: left in the scratch: {:?}", left.keys());
        let verified = self.checkout.pnb(&["store", "verify"]).output().expect("starts");
        assert!(verified.status.success(), "{what}: {}", text(&verified));
    }
}

/// The error of a run that failed: it names the operation and, unless the cause concerns no file, the path, and the cause.
pub(crate) fn is_told(what: &str, output: &Output, causes: &[&str]) {
    let said = text(output);
    let words = said.split_once("error: failed to ").map(|(_, words)| words);
    assert!(words.is_some(), "{what}: no error in\n{said}");
    let is_verb = words.is_some_and(|words| words.starts_with(|c: char| c.is_ascii_lowercase()));
    assert!(is_verb, "{what}: no verb in\n{said}");
    assert!(
        causes.iter().any(|cause| said.contains(cause)),
        "{what}: none of {causes:?} is in\n{said}"
    );
    assert!(!said.contains("panicked"), "{what}: {said}");
}

/// The objects of the store, all of which have their digest; records name only objects that are there.
pub(crate) fn whole_objects(store: &Path, what: &str) -> BTreeSet<String> {
    let mut objects = BTreeSet::new();
    for (name, bytes) in files(&store.join("objects")) {
        let digits: String = name.chars().filter(char::is_ascii_hexdigit).take(64).collect();
        let digest: VerityDigest = digits.parse().expect("an object's name is a digest");
        assert_eq!(
            verity::digest_bytes(&bytes),
            digest,
            "{what}: the object {name} is not whole"
        );
        objects.insert(name);
    }
    for name in files(&store.join("records")).into_keys() {
        let key = name.strip_prefix("latest-").map_or(name.clone(), |_| {
            fs::read_to_string(store.join("records").join(&name))
                .expect("readable")
                .trim()
                .to_owned()
        });
        // A record that is not whole is none; the pointer to the newest one may be newer than the record that a killed run did not finish.
        let Some(record) = record(store, &key) else {
            assert!(name.starts_with("latest-"), "{what}: the record {name} is not whole");
            continue;
        };
        for output in record["outputs"].as_object().expect("outputs").values() {
            let digest = output["digest"].as_str().expect("a digest");
            let object = format!("{}/{}", &digest[..2], &digest[2..]);
            let there = objects.iter().any(|name| name.starts_with(&object));
            assert!(
                there,
                "{what}: the record {name} names the object {digest}, which is not there"
            );
        }
    }
    for (name, _) in files(&store.join("sha256")) {
        assert!(name.len() >= 64, "{what}: {name} is half a name");
    }
    objects
}

/// A record whose checksum is right.
fn record(store: &Path, key: &str) -> Option<serde_json::Value> {
    let text = fs::read_to_string(store.join("records").join(key)).ok()?;
    let (_, json) = text.split_once('\n')?;
    serde_json::from_str(json).ok()
}

/// Every file below a directory, by its path there; empty when there is none.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir) {
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_file() {
            let name = entry
                .path()
                .strip_prefix(dir)
                .expect("below it")
                .to_string_lossy()
                .into_owned();
            found.insert(name, fs::read(entry.path()).expect("readable"));
        }
    }
    found
}
