//! The store's promises, each broken on purpose.

use super::*;
use crate::model::{Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn path(p: &str) -> RelPath {
    p.parse().expect("valid path")
}

fn one_file_tree(store: &Store, content: &str, mode: u32) -> (Tree, VerityDigest) {
    let (digest, size) = store
        .put_object(mode & 0o111 != 0, &mut content.as_bytes())
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
    let err = store.checkout(&dump).expect_err("the object changed").to_string();
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
    for (n, text) in ["old", "new"].into_iter().enumerate() {
        let (_, digest) = one_file_tree(&store, text, 0o644);
        let key = crate::model::StageKey::new([n as u8; 32]);
        let record = Record {
            stage: "demo".to_owned(),
            arch: crate::model::Arch::Amd64,
            canonical: String::new(),
            outputs: [("tree".to_owned(), Output::Tree { digest })].into(),
            policy: serde_json::Value::Null,
            measured: serde_json::Value::Null,
            weaker: Vec::new(),
            cpu_ms: 0,
            wall_ms: 0,
            peak_memory: 0,
        };
        store.put_record(&key, &record).expect("kept");
        keys.push(key);
    }
    drop(store);
    let store = Store::open_exclusive(dir.path()).expect("alone");
    let done = store.collect(&BTreeSet::new()).expect("collects");
    assert_eq!((done.kept, done.removed), (2, 3));
    assert!(store.record(&keys[0]).expect("reads").is_none());
    assert!(store.record(&keys[1]).expect("reads").is_some());
}
