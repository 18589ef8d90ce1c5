//! Builders by name on BuildGrid: two workers that agree, and two of which one leaves another result than it has made.

use crate::{
    builders::change,
    buildgrid::{BuildGrid, WorkerOptions},
    client::RemoteClient,
    engine::hosttools,
    faults::Kept,
    ground::Ground,
    process::wait_until,
    workplace::tree_of,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::{ActionResult, Directory, Tree};
use prost::Message;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Changes the blobs of a result, by path.
type Forgery<'a> = &'a dyn Fn(&mut BTreeMap<String, Vec<u8>>);

/// A runner between a worker and its `buildbox-run-hosttools`: every result goes through [`Forger::work`] on its way to the worker.
struct Forger {
    /// The result that the runner has left, and the one that the worker is to get. A file is whole once it has its name.
    given: PathBuf,
    answer: PathBuf,
    client: RemoteClient,
}

impl Forger {
    /// Puts itself in front of the runner of the worker with this directory, which starts it for each action.
    fn in_front_of(worker: &Path, url: &str) -> Self {
        let runner = hosttools(worker);
        let own = runner.with_extension("own");
        fs::rename(&runner, &own).expect("renamed");
        let (given, answer) = (worker.join("given"), worker.join("answer"));
        let script = format!(
            "#!/bin/sh\n'{own}' \"$@\" || exit\nfor word; do\n  case $word in\n  --action-result=*)\n    result=${{word#*=}}\n    \
             cp \"$result\" '{given}.new' && mv '{given}.new' '{given}' || exit\n    \
             while [ ! -e '{answer}' ]; do sleep 0.05; done\n    cp '{answer}' \"$result\" && rm '{answer}' || exit\n    ;;\n  \
             esac\ndone\n",
            own = own.display(),
            given = given.display(),
            answer = answer.display(),
        );
        fs::write(&runner, script).expect("written");
        fs::set_permissions(&runner, fs::Permissions::from_mode(0o755)).expect("set");
        Self {
            given,
            answer,
            client: RemoteClient::connect(url).expect("connected"),
        }
    }

    /// Forges every result until the end of the build; returns their number.
    fn work(&self, ended: &AtomicBool, forge: Forgery<'_>) -> usize {
        let mut forged = 0;
        while !ended.load(Ordering::Relaxed) {
            if !wait_until(Duration::from_millis(200), || self.given.exists()) {
                continue;
            }
            let bytes = fs::read(&self.given).expect("a result");
            fs::remove_file(&self.given).expect("removed");
            let mut result = ActionResult::decode(bytes.as_slice()).expect("a message");
            for output in &mut result.output_directories {
                let tree = self.client.get(output.tree_digest.as_ref().expect("a digest"));
                let mut files = self.files(&Tree::decode(tree.expect("there").as_slice()).expect("a tree"));
                forge(&mut files);
                let mut kept = Kept::default();
                let tree = tree_of(&mut kept, &files);
                for blob in kept.blobs.values() {
                    self.client.put(blob).expect("taken");
                }
                output.tree_digest = Some(self.client.put(&tree.encode_to_vec()).expect("taken"));
                output.root_directory_digest = None;
            }
            let new = self.answer.with_extension("new");
            fs::write(&new, result.encode_to_vec()).expect("written");
            fs::rename(&new, &self.answer).expect("renamed");
            forged += 1;
        }
        forged
    }

    /// The files of a tree by their paths.
    fn files(&self, tree: &Tree) -> BTreeMap<String, Vec<u8>> {
        let children: BTreeMap<String, &Directory> = tree
            .children
            .iter()
            .map(|child| (crate::client::digest_of(&child.encode_to_vec()).hash, child))
            .collect();
        let mut files = BTreeMap::new();
        let mut left = vec![(String::new(), tree.root.as_ref().expect("a root"))];
        while let Some((prefix, directory)) = left.pop() {
            for file in &directory.files {
                let bytes = self.client.get(file.digest.as_ref().expect("a digest")).expect("there");
                files.insert(format!("{prefix}{}", file.name), bytes);
            }
            for inner in &directory.directories {
                let child = children[&inner.digest.as_ref().expect("a digest").hash];
                left.push((format!("{prefix}{}/", inner.name), child));
            }
        }
        files
    }
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: PostgreSQL, BuildGrid and two workers, twice; cargo test -- --ignored nightly::"]
    fn workers_that_agree_make_a_result_and_one_that_lies_ends_the_build() {
        let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
        let farm = BuildGrid::start(dir.path(), &["one", "two"].map(WorkerOptions::named));
        let url = farm.url();
        let line = [
            "--remote",
            &url,
            "--remote-place",
            "workers",
            "--challenge",
            "2",
            "--remote-builder",
            "one,two",
        ];
        let agreed = ground.build("agreed", &line);
        assert_eq!(agreed.well().0.len(), 4, "{}", agreed.said);
        assert_eq!(agreed.warnings(), Vec::<String>::new());
        ground.build("here", &[]).well();
        assert_eq!(
            ground.output("agreed", "three", "out"),
            ground.output("here", "three", "out")
        );
        // Everybody gets what they agreed about.
        let reader = ground.build_with("reader", &url, &["--remote-upload", "never"]);
        assert_eq!(reader.well().1.len(), 4, "{}", reader.said);

        // One worker leaves another disk than it has made, in a result that is whole. Another word, so that nothing is there already.
        ground.word("other");
        let forger = Forger::in_front_of(&farm.directory.join("worker-two"), &url);
        let ended = AtomicBool::new(false);
        let (split, forged) = thread::scope(|scope| {
            let build = scope.spawn(|| {
                let built = std::panic::catch_unwind(|| ground.build("split", &line));
                ended.store(true, Ordering::Relaxed);
                built.expect("an end")
            });
            let forged = forger.work(&ended, &|files| change(files, "two", "disk"));
            (build.join().expect("an end"), forged)
        });
        assert!(forged > 0, "no result went through: {}", split.said);
        assert_eq!(split.code, 12, "{}", split.said);
        let said = "error: failed to build two/amd64: the builders disagree about its output \"disk\"\n  ";
        assert!(split.said.contains(said), "{}", split.said);
        for (name, wrong) in [("one", false), ("two", true)] {
            let line = format!("  {name}: {}", pnb::verity::digest_bytes(b"another disk"));
            assert_eq!(split.said.contains(&line), wrong, "{}", split.said);
        }
        // The stage has no result, here or in the cache; those before it have theirs.
        for stage in ["two", "three"] {
            let none = ground.built("split", &["store", "path", stage]);
            assert_ne!(none.code, 0, "{stage}: {}", none.said);
        }
        let reader = ground.build_with("second-reader", &url, &["--remote-upload", "never"]);
        assert_eq!(reader.well().1, ["agent", "one"], "{}", reader.said);
    }
}
