//! Tests of the store: each promise is broken on purpose.

use super::*;
use crate::{
    model::{Arch, Entry, Epoch, Hint, Meta, Node, RelPath, StageKey, Tree, VerityDigest},
    verity::{self, digest_bytes},
};
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

fn path(p: &str) -> RelPath {
    p.parse().expect("valid path")
}

fn one_file_tree(store: &Store, content: &str, mode: u32) -> (Tree, VerityDigest) {
    let (digest, size) = store
        .put_object(ObjectMode::of(mode), &mut content.as_bytes())
        .expect("stored");
    let mut tree = Tree::new(Meta::root(0o755, Epoch::new(9)));
    let meta = Meta::root(mode, Epoch::new(9));
    tree.insert(
        path("file"),
        Entry {
            meta,
            node: Node::File { size, digest },
        },
    )
    .expect("free");
    let dump = store.put_tree(&tree).expect("stored");
    (tree, dump)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[0] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("ours");
    fs::write(path, bytes).expect("writable");
}

#[test]
fn a_checkout_has_the_trees_files_read_only() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = Store::open(dir.path()).expect("opens");
    let (tree, dump) = one_file_tree(&store, "#!/bin/sh\n", 0o755);
    assert_eq!(store.tree(&dump).expect("reads back"), tree);
    let place = store.checkout(&dump).expect("laid out").join("file");
    let meta = fs::metadata(&place).expect("there");
    assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime()), (0o555, 1));
    assert_eq!(fs::read(&place).expect("readable"), b"#!/bin/sh\n");
    assert_eq!(
        fs::metadata(place.parent().expect("the tree")).expect("there").mtime(),
        1
    );
}

#[test]
fn a_flipped_bit_is_found_before_use_and_repaired_away() {
    let dir = tempfile::tempdir().expect("scratch");
    let dump = {
        let store = Store::open(dir.path()).expect("opens");
        let (tree, dump) = one_file_tree(&store, "content", 0o644);
        store.checkout(&dump).expect("laid out");
        let digest = *tree.objects().keys().next().expect("one");
        flip(&store.object_path(&digest).expect("there"));
        dump
    };
    let store = Store::open(dir.path()).expect("opens");
    let err = store.checkout(&dump).expect_err("the object changed");
    let hint = err.hint().expect("there is a way out").into_owned();
    assert!(hint.starts_with("`pnb store verify --repair`"), "{hint}");
    let err = err.to_string();
    assert!(!err.contains(&hint), "{err}");
    assert!(
        err.contains("its content changed\nexpected: ") && err.contains("\n  actual: "),
        "{err}"
    );
    let check = store.check(true, &mut |_| {}).expect("checks");
    assert_eq!(check.damage.len(), 1, "{check:?}");
    assert_eq!(store.check(false, &mut |_| {}).expect("checks").damage, []);
    assert!(matches!(store.checkout(&dump), Err(StoreError::Missing { .. })));
}

#[test]
fn a_file_added_to_or_replaced_in_a_checkout_is_found() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = Store::open(dir.path()).expect("opens");
    let (_, dump) = one_file_tree(&store, "content", 0o644);
    let place = store.checkout(&dump).expect("laid out");
    fs::write(place.join("extra"), "x").expect("writable");
    assert!(matches!(store.checkout(&dump), Err(StoreError::Checkout { .. })));
    fs::remove_file(place.join("extra")).expect("removable");
    store.checkout(&dump).expect("as it was");
    fs::remove_file(place.join("file")).expect("removable");
    fs::write(place.join("file"), "CONTENT").expect("writable");
    assert!(matches!(store.checkout(&dump), Err(StoreError::Checkout { .. })));
}

#[test]
fn the_links_of_a_trees_files_do_not_tell_of_other_trees() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = Store::open(dir.path()).expect("opens");
    let (_, dump) = one_file_tree(&store, "content", 0o644);
    let (_, other) = one_file_tree(&store, "content", 0o600);
    let links = |path: &Path| fs::metadata(path.join("file")).expect("there").nlink();
    let own = store.own_checkout(&dump).expect("laid out");
    assert_eq!(links(&own), 1);
    let linked = store.checkout(&dump).expect("laid out");
    let before = links(&linked);
    store.own_checkout(&other).expect("laid out");
    store.checkout(&other).expect("laid out");
    assert_eq!(links(&store.own_checkout(&dump).expect("known")), 1);
    assert_eq!(links(&linked), before + 1, "control: an object's links tell");
    let file = store.plain_object(
        &store
            .put_object(ObjectMode::Plain, &mut Once(&b"alone"[..]))
            .expect("stored")
            .0,
    );
    let again = store.link_again(&file.expect("there")).expect("linked");
    assert_eq!(fs::metadata(again).expect("there").nlink(), 2);
}

#[test]
fn a_changed_copy_of_a_tree_is_found_by_the_next_program() {
    let content = "a content of some length";
    let prepared = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().expect("scratch");
        let (place, dump) = {
            let store = Store::open(dir.path()).expect("opens");
            let (_, dump) = one_file_tree(&store, content, 0o755);
            (store.own_checkout(&dump).expect("laid out"), dump)
        };
        let file = place.join("file");
        let meta = fs::metadata(&file).expect("there");
        assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime()), (0o555, 1));
        change(&file);
        let store = Store::open(dir.path()).expect("opens");
        let found = store.own_checkout(&dump).map(drop);
        // A second look in the same program hashes nothing again, and finds the same.
        assert_eq!(store.own_checkout(&dump).is_ok(), found.is_ok());
        found
    };
    prepared(&|_| {}).expect("control: unchanged");
    let set_mode = |file: &Path, mode| fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("ours");
    let changes: [&dyn Fn(&Path); 5] = [
        &|file| {
            flip(file);
            set_mode(file, 0o555);
        },
        &|file| set_mode(file, 0o444),
        &|file| fs::hard_link(file, file.with_file_name("../../downloads/link")).expect("linked"),
        &|file| fs::write(file.with_file_name("extra"), "x").expect("written"),
        &|file| fs::remove_file(file).expect("removed"),
    ];
    for change in changes {
        prepared(change).expect_err("found");
    }
}

#[test]
fn scratch_of_a_dead_program_is_swept_and_of_a_living_one_kept() {
    let dir = tempfile::tempdir().expect("scratch");
    let living = Store::open(dir.path()).expect("opens");
    let kept = living.scratch_path("x");
    fs::write(&kept, "half written").expect("writable");
    let dead = dir.path().join("tmp/run-dead");
    fs::create_dir(&dead).expect("made");
    fs::write(dead.join("lock"), "").expect("made");
    let _second = Store::open(dir.path()).expect("two builders at once");
    assert!(kept.exists() && !dead.exists());
}

#[test]
fn collection_runs_alone_and_keeps_what_the_newest_records_need() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = Store::open(dir.path()).expect("opens");
    assert!(matches!(
        Store::open_exclusive(dir.path()),
        Err(StoreError::Busy { .. })
    ));
    let mut keys = Vec::new();
    for text in ["old", "new"] {
        let (_, digest) = one_file_tree(&store, text, 0o644);
        let key = crate::model::StageKey::new(*blake3::hash(text.as_bytes()).as_bytes());
        let record = Record {
            stage: "demo".to_owned(),
            arch: crate::model::Arch::Amd64,
            canonical: text.to_owned(),
            outputs: [("tree".to_owned(), Output::Tree { digest })].into(),
            policy: serde_json::Value::Null,
            measured: serde_json::Value::Null,
            weaker: Vec::new(),
            cpu_ms: 0,
            wall_ms: 0,
            peak_memory: 0,
        };
        store.put_record(&key, &record, None).expect("kept");
        keys.push(key);
    }
    drop(store);
    let store = Store::open_exclusive(dir.path()).expect("alone");
    // The older one is that of the project at hand.
    let done = store
        .collect(&BTreeSet::new(), &BTreeSet::from([keys[0]]))
        .expect("collects");
    assert_eq!((done.kept, done.removed), (4, 0));
    assert!(store.record(&keys[0]).expect("reads").is_some());
    let done = store.collect(&BTreeSet::new(), &BTreeSet::new()).expect("collects");
    assert_eq!((done.kept, done.removed), (2, 3));
    assert!(store.record(&keys[0]).expect("reads").is_none());
    assert!(store.record(&keys[1]).expect("reads").is_some());
}

#[test]
fn outputs_that_are_elsewhere_are_known_while_the_project_needs_them() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = Store::open(dir.path()).expect("opens");
    let key = StageKey::new(*blake3::hash(b"canonical").as_bytes());
    let size = 5;
    let digest = crate::verity::digest_bytes(b"bytes");
    let record = Record {
        stage: "demo".to_owned(),
        arch: Arch::Amd64,
        canonical: "canonical".to_owned(),
        outputs: [("file".to_owned(), Output::File { digest, size })].into(),
        policy: serde_json::Value::Null,
        measured: serde_json::Value::Null,
        weaker: Vec::new(),
        cpu_ms: 7,
        wall_ms: 0,
        peak_memory: 0,
    };
    store.put_absent_record(&key, &record).expect("noted");
    assert_eq!(store.record(&key).expect("reads"), None, "its outputs are not here");
    assert_eq!(store.known_outputs(&key).expect("reads"), Some(record.outputs.clone()));
    drop(store);
    let store = Store::open_exclusive(dir.path()).expect("alone");
    let none = BTreeSet::new();
    store.collect(&none, &BTreeSet::from([key])).expect("collects");
    assert_eq!(store.known_outputs(&key).expect("reads"), Some(record.outputs));
    store.collect(&none, &BTreeSet::new()).expect("collects");
    assert_eq!(store.known_outputs(&key).expect("reads"), None);
}

#[test]
fn a_damaged_record_counts_as_missing() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = Store::open(dir.path()).expect("opens");
    let key = StageKey::new(*blake3::hash(b"canonical").as_bytes());
    let record = Record {
        stage: "demo".to_owned(),
        arch: Arch::Amd64,
        canonical: "canonical".to_owned(),
        outputs: std::collections::BTreeMap::new(),
        policy: serde_json::Value::Null,
        measured: serde_json::Value::Null,
        weaker: Vec::new(),
        cpu_ms: 7,
        wall_ms: 0,
        peak_memory: 0,
    };
    store.put_record(&key, &record, None).expect("kept");
    assert_eq!(store.record(&key).expect("reads"), Some(record));
    let path = dir.path().join("records").join(key.to_string());
    let text = fs::read_to_string(&path)
        .expect("there")
        .replace("\"cpu_ms\":7", "\"cpu_ms\":8");
    fs::write(&path, text).expect("writable");
    assert_eq!(store.record(&key).expect("reads"), None);
    assert_eq!(store.latest_record("demo", Arch::Amd64).expect("reads"), None);
}

#[test]
fn a_directory_with_other_files_is_not_a_store() {
    let dir = tempfile::tempdir().expect("scratch");
    fs::create_dir_all(dir.path().join("tmp/mine")).expect("made");
    fs::write(dir.path().join("tmp/mine/lock"), "").expect("made");
    fs::write(dir.path().join("letter"), "").expect("made");
    assert!(matches!(Store::open(dir.path()), Err(StoreError::NotAStore { .. })));
    fs::remove_file(dir.path().join("letter")).expect("removable");
    let _store = Store::open(dir.path()).expect("an unfinished store has only these");
    assert!(
        dir.path().join("tmp/mine").exists(),
        "only scratch directories are swept"
    );
}

#[test]
fn stored_content_makes_no_second_file_and_large_content_leaves_no_scratch() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = Store::open(dir.path()).expect("opens");
    let large: Vec<u8> = (0..9_000_001u32).map(|i| (i % 251) as u8).collect();
    for content in [&b"small"[..], &large, b""] {
        let mut inodes = BTreeSet::new();
        for _ in 0..2 {
            let (digest, size) = store.put_object(ObjectMode::Plain, &mut &*content).expect("stored");
            assert_eq!(
                (digest, size),
                (crate::verity::digest_bytes(content), content.len() as u64)
            );
            let path = store.object_path(&digest).expect("there");
            let meta = fs::metadata(&path).expect("there");
            assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime()), (0o444, 1));
            assert_eq!(fs::read(&path).expect("readable"), content);
            inodes.insert(meta.ino());
        }
        assert_eq!(inodes.len(), 1);
    }
    let left = objects::sorted_names(store.scratch_path("x").parent().expect("scratch")).expect("listed");
    assert_eq!(left, ["lock"]);
}

#[test]
fn an_object_that_changes_after_it_was_written_is_hashed_again() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = Store::open(dir.path()).expect("opens");
    let (digest, _) = store
        .put_object(ObjectMode::Plain, &mut &b"content"[..])
        .expect("stored");
    store.verify_object(&digest).expect("whole");
    flip(&store.object_path(&digest).expect("there"));
    assert!(matches!(store.verify_object(&digest), Err(StoreError::Corrupt { .. })));
    // Another inode with the same length and time takes the place of the hashed one.
    let (digest, _) = store
        .put_object(ObjectMode::Executable, &mut &b"program"[..])
        .expect("stored");
    let path = store.object_path(&digest).expect("there");
    let other = store.scratch_path("other");
    fs::write(&other, "PROGRAM").expect("writable");
    objects::set_mtime(&other).expect("ours");
    fs::rename(&other, &path).expect("ours");
    assert!(matches!(store.verify_object(&digest), Err(StoreError::Corrupt { .. })));
}

fn with_objects_of(first: &Arc<Store>, root: &Path) -> Arc<Store> {
    let shared = SharedStores {
        objects: Some(Arc::clone(first)),
        ..SharedStores::default()
    };
    Store::open_ephemeral(root, shared).expect("opens")
}

#[test]
fn a_store_beside_another_has_its_objects_but_not_its_records_and_writes_nothing_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Store::open_ephemeral(&dir.path().join("first"), SharedStores::default()).expect("opens");
    let large = vec![7u8; 2 * buffer::BUFFER];
    let contents: [&[u8]; 2] = [b"small", &large];
    let key = StageKey::new([3; 32]);
    let inode = |path: PathBuf| fs::metadata(path).expect("there").ino();
    let mut inodes = Vec::new();
    for content in contents {
        let (digest, _) = first.put_object(ObjectMode::Plain, &mut &*content).expect("stored");
        inodes.push(inode(first.object_path(&digest).expect("there")));
    }
    first.lock_stage(&key, &mut || {}).expect("a lock");
    let second = with_objects_of(&first, &dir.path().join("second"));
    drop(first);
    for (content, expected) in contents.into_iter().zip(inodes) {
        let (digest, _) = second.put_object(ObjectMode::Plain, &mut &*content).expect("stored");
        assert_eq!(inode(second.object_path(&digest).expect("there")), expected);
        second.verify_object(&digest).expect("whole");
    }
    let (other, _) = second
        .put_object(ObjectMode::Plain, &mut &b"of the second"[..])
        .expect("stored");
    let place = second.object_path(&other).expect("there");
    assert!(
        place.starts_with(dir.path().canonicalize().expect("there").join("first")),
        "{place:?}"
    );
    assert!(!second.root().join("locks").join(key.to_string()).exists());
}

#[test]
fn a_tree_is_copied_once_for_all_callers() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    let (tree, dump) = one_file_tree(&store, "content", 0o644);
    let digest = *tree.objects().keys().next().expect("one");
    let copies: Vec<PathBuf> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| store.copied_checkout(&dump).expect("copied")))
            .collect();
        asking.into_iter().map(|a| a.join().expect("ends")).collect()
    });
    assert!(copies.iter().all(|copy| *copy == copies[0]), "{copies:?}");
    let inode = |path: &Path| fs::metadata(path).expect("there").ino();
    let copy = copies[0].join("file");
    assert_eq!(fs::read(&copy).expect("readable"), b"content");
    assert_ne!(inode(&copy), inode(&store.object_path(&digest).expect("there")));
    store.remove_copied_checkout(&dump);
    assert!(!copies[0].exists());
    let again = store.copied_checkout(&dump).expect("copied again");
    assert_eq!(fs::read(again.join("file")).expect("readable"), b"content");
}

/// Content that can restart, as a file that a stage passes.
struct Again<'a> {
    bytes: &'a [u8],
    /// Bytes after the second restart, if they differ.
    then: Option<&'a [u8]>,
    at: usize,
    restarts: usize,
}

impl<'a> Again<'a> {
    fn new(bytes: &'a [u8], then: Option<&'a [u8]>) -> Self {
        let (at, restarts) = (0, 0);
        Self {
            bytes,
            then,
            at,
            restarts,
        }
    }
}

impl io::Read for Again<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (&self.bytes[self.at..]).read(buffer)?;
        self.at += n;
        Ok(n)
    }
}

impl Content for Again<'_> {
    fn restart(&mut self) -> io::Result<bool> {
        self.at = 0;
        self.restarts += 1;
        if self.restarts == 2 {
            self.bytes = self.then.take().unwrap_or(self.bytes);
        }
        Ok(true)
    }
}

#[test]
fn content_that_the_other_store_has_is_hashed_and_not_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Store::open_ephemeral(&dir.path().join("first"), SharedStores::default()).expect("opens");
    let [known, plain, new] = [7u8, 8, 9].map(|n| vec![n; 2 * buffer::BUFFER + 5]);
    let (artifact, _) = first
        .put_artifact(ObjectMode::Plain, &mut Once(&known[..]), 1)
        .expect("stored");
    first.put_object(ObjectMode::Plain, &mut &plain[..]).expect("stored");
    // A store without another one reads content once, because it is usually new.
    let mut content = Again::new(&known, None);
    first.put_artifact(ObjectMode::Plain, &mut content, 1).expect("stored");
    assert_eq!(content.restarts, 0);

    let second = with_objects_of(&first, &dir.path().join("second"));
    // Bytes, number of copies, and number of restarts: one to hash the bytes, two to store them as well.
    for (bytes, copies, restarts) in [
        (&known, 1, 1),
        (&known, 0, 1),
        (&plain, 0, 1),
        (&plain, 1, 2),
        (&new, 1, 2),
        (&new, 0, 1),
    ] {
        let mut content = Again::new(bytes, None);
        let put = second
            .put_artifact(ObjectMode::Plain, &mut content, copies)
            .expect("stored");
        assert_eq!(
            put,
            (digest_bytes(bytes), bytes.len() as u64),
            "{copies} copies of {}",
            bytes[0]
        );
        assert_eq!(content.restarts, restarts, "{copies} copies of {}", bytes[0]);
    }
    let out = second.copy_out(&artifact, &dir.path().join("out")).expect("given");
    let mut both = verity::Both::new();
    both.update(&known);
    assert_eq!(out, both.finish());
}

#[test]
fn content_that_changes_between_readings_is_stored_as_it_was_read_last() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Store::open_ephemeral(&dir.path().join("first"), SharedStores::default()).expect("opens");
    let second = with_objects_of(&first, &dir.path().join("second"));
    let [before, after] = [1u8, 2].map(|n| vec![n; 2 * buffer::BUFFER]);
    for then in [&after[..], &after[..100], &after[..buffer::BUFFER]] {
        let put = second
            .put_artifact(ObjectMode::Plain, &mut Again::new(&before, Some(then)), 0)
            .expect("stored");
        assert_eq!(put, (digest_bytes(then), then.len() as u64));
        assert_eq!(
            fs::read(second.object_path(&put.0).expect("there")).expect("readable"),
            then
        );
    }
    assert_eq!(second.find_object(&digest_bytes(&before)).expect("readable"), None);
}

#[test]
fn a_file_with_other_links_is_copied_and_one_without_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("store")).expect("opens");
    let (digest, _) = store
        .put_object(ObjectMode::Plain, &mut &b"content"[..])
        .expect("stored");
    let object = store.plain_object(&digest).expect("there");
    assert_eq!(store.copy_if_linked(&object).expect("given"), object);
    fs::hard_link(&object, dir.path().join("other")).expect("linked");
    let copy = store.copy_if_linked(&object).expect("copied");
    let found = fs::metadata(&copy).expect("there");
    assert_eq!((found.nlink(), found.mode() & 0o7777), (1, 0o444));
    assert_ne!(found.ino(), fs::metadata(&object).expect("there").ino());
    assert_eq!(fs::read(&copy).expect("readable"), b"content");
}

#[test]
fn an_artifact_that_is_only_hashed_has_digests_and_no_object() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Store::open_ephemeral(&dir.path().join("first"), SharedStores::default()).expect("opens");
    let large = vec![3; buffer::BUFFER + 70_001];
    let (digest, size) = first
        .hash_artifact(ObjectMode::Plain, &mut Once(&large[..]))
        .expect("hashed");
    assert_eq!((digest, size), (digest_bytes(&large), large.len() as u64));
    assert_eq!(first.find_object(&digest).expect("readable"), None);
    let (small, _) = first
        .hash_artifact(ObjectMode::Plain, &mut Once(&b"small"[..]))
        .expect("stored");
    assert!(first.find_object(&small).expect("readable").is_some());
    let mut both = verity::Both::new();
    both.update(&large);
    let digests = both.finish();
    let second = with_objects_of(&first, &dir.path().join("second"));
    for store in [&first, &second] {
        let target = dir.path().join("out");
        assert_eq!(store.copy_out(&digest, &target).expect("known"), digests);
        assert!(!target.exists());
    }
    // For an artifact, its digests are enough; for anything else it is stored.
    second
        .put_artifact(ObjectMode::Plain, &mut Again::new(&large, None), 1)
        .expect("known");
    assert_eq!(second.find_object(&digest).expect("readable"), None);
    second
        .put_artifact(ObjectMode::Plain, &mut Again::new(&large, None), 0)
        .expect("stored");
    assert!(second.find_object(&digest).expect("readable").is_some());
    let target = dir.path().join("out");
    assert_eq!(second.copy_out(&digest, &target).expect("linked"), digests);
    assert_eq!(fs::read(target).expect("readable"), large);
}
