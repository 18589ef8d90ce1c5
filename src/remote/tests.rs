//! Results of stages through a cache in memory, which can lie.

use super::*;
use crate::{
    model::{Arch, Entry, Epoch, Meta, Node, RelPath, StageKey, Tree, VerityDigest},
    store::{ObjectMode, Output, Record, Store},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::{Arc, Mutex},
};

/// A cache in memory.
#[derive(Debug, Default)]
struct MemoryCache {
    results: Mutex<BTreeMap<BlobDigest, CachedResult>>,
    blobs: Mutex<BTreeMap<BlobDigest, Vec<u8>>>,
    requests: Mutex<BTreeMap<&'static str, u32>>,
}

impl MemoryCache {
    fn count(&self, what: &'static str) {
        *self.requests.lock().expect("lock").entry(what).or_default() += 1;
    }

    fn blob(&self, blob: &BlobDigest) -> Result<Vec<u8>, RemoteError> {
        let found = self.blobs.lock().expect("lock").get(blob).cloned();
        found.ok_or_else(|| RemoteError::Lacks {
            server: "memory".to_owned(),
            blob: *blob,
        })
    }

    /// The only result, its files changed.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, BlobDigest>)) {
        let mut results = self.results.lock().expect("lock");
        change(&mut results.values_mut().next().expect("a result").files);
    }

    /// The blob of a file of the only result gets other content, and the result names the new blob.
    fn replace(&self, path: &str, content: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let old = self
            .results
            .lock()
            .expect("lock")
            .values()
            .next()
            .expect("a result")
            .files[path];
        let content = content(self.blob(&old).expect("there"));
        let blob = BlobDigest::of(&content);
        self.blobs.lock().expect("lock").insert(blob, content);
        self.change(|files| assert!(files.insert(path.to_owned(), blob).is_some()));
    }
}

impl RemoteCache for MemoryCache {
    fn name(&self) -> &str {
        "memory"
    }

    fn result(&self, action: &BlobDigest) -> Result<Option<CachedResult>, RemoteError> {
        self.count("result");
        Ok(self.results.lock().expect("lock").get(action).cloned())
    }

    fn put_result(&self, action: &BlobDigest, result: &CachedResult) -> Result<(), RemoteError> {
        self.count("put_result");
        let blobs = self.blobs.lock().expect("lock");
        assert!(
            result.files.values().all(|blob| blobs.contains_key(blob)),
            "a result comes after its blobs"
        );
        self.results.lock().expect("lock").insert(*action, result.clone());
        Ok(())
    }

    fn missing(&self, blobs: &[BlobDigest]) -> Result<BTreeSet<BlobDigest>, RemoteError> {
        self.count("missing");
        let there = self.blobs.lock().expect("lock");
        Ok(blobs.iter().filter(|blob| !there.contains_key(blob)).copied().collect())
    }

    fn read_small(&self, blobs: &[BlobDigest]) -> Result<Vec<Vec<u8>>, RemoteError> {
        self.count("read_small");
        blobs.iter().map(|blob| self.blob(blob)).collect()
    }

    fn read(&self, blob: &BlobDigest, sink: &mut dyn Write, seen: &dyn Fn(u64)) -> Result<(), RemoteError> {
        self.count("read");
        let content = self.blob(blob)?;
        let mut checked = Checked::new(*blob, sink);
        for piece in content.chunks(100_000) {
            checked.write_all(piece).map_err(|e| RemoteError::Gone {
                server: "memory".to_owned(),
                problem: e.to_string(),
            })?;
            seen(piece.len() as u64);
        }
        checked.finish("memory")
    }

    fn put_small(&self, blobs: &[(BlobDigest, &[u8])]) -> Result<(), RemoteError> {
        self.count("put_small");
        let mut there = self.blobs.lock().expect("lock");
        there.extend(blobs.iter().map(|(blob, content)| (*blob, content.to_vec())));
        Ok(())
    }

    fn put(&self, blob: &BlobDigest, open: OpenBlob<'_>) -> Result<(), RemoteError> {
        self.count("put");
        let mut content = Vec::new();
        open()
            .and_then(|mut reader| reader.read_to_end(&mut content))
            .expect("read");
        assert_eq!(BlobDigest::of(&content), *blob);
        self.blobs.lock().expect("lock").insert(*blob, content);
        Ok(())
    }
}

struct Place {
    _dir: tempfile::TempDir,
    store: Arc<Store>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("store")).expect("opens");
        Self { _dir: dir, store }
    }

    fn taking<'a>(&'a self, check: &'a dyn Fn(&Tree) -> Result<(), String>) -> Taking<'a> {
        Taking {
            store: &self.store,
            copies: 0,
            check,
            seen: &|_| {},
        }
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

/// A large object, which no pack takes.
fn large() -> Vec<u8> {
    (0..3_000_000_u32).map(|n| (n % 251) as u8).collect()
}

/// A tree with files of every size, an executable one, links, owners and an empty file.
fn tree(store: &Store) -> VerityDigest {
    let epoch = Epoch::new(1_793_491_200);
    let mut tree = Tree::new(Meta::root(0o755, epoch));
    let mut add = |name: &str, mode: u32, node: Node| {
        let mut meta = Meta::root(mode, epoch);
        meta.uid = 7;
        tree.insert(path(name), Entry { meta, node }).expect("inserted");
    };
    add("usr", 0o755, Node::Directory);
    add(
        "usr/link",
        0o777,
        Node::Symlink {
            target: b"../x".to_vec(),
        },
    );
    for (name, mode, content) in [
        ("usr/a", 0o644, b"a small file".to_vec()),
        ("usr/b", 0o755, b"a program".to_vec()),
        ("usr/c", 0o644, b"a program".to_vec()),
        ("usr/empty", 0o600, Vec::new()),
        ("usr/middle", 0o644, vec![3; 900_000]),
        ("usr/large", 0o755, large()),
    ] {
        let mode_of = ObjectMode::of_executable(mode & 0o111 != 0);
        let (digest, size) = store.put_object(mode_of, &mut content.as_slice()).expect("stored");
        add(name, mode, Node::File { size, digest });
    }
    store.put_tree(&tree).expect("stored")
}

/// A record with a tree, a large file and a small one.
fn record(store: &Store) -> (StageKey, Record) {
    let file = |content: &[u8]| {
        let (digest, size) = store.put_object(ObjectMode::Plain, &mut &content[..]).expect("stored");
        Output::File { digest, size }
    };
    let canonical = "pnb-stage-key 1\nstage sample\n".to_owned();
    let key = StageKey::new(*blake3::hash(canonical.as_bytes()).as_bytes());
    let outputs = BTreeMap::from([
        ("tree".to_owned(), Output::Tree { digest: tree(store) }),
        ("disk".to_owned(), file(&[large(), vec![0; 500_000]].concat())),
        ("version".to_owned(), file(b"6.12\n")),
    ]);
    let record = Record {
        stage: "sample".to_owned(),
        arch: Arch::Amd64,
        canonical,
        outputs,
        policy: serde_json::json!({ "network": "none" }),
        measured: serde_json::json!({}),
        weaker: Vec::new(),
        cpu_ms: 1500,
        wall_ms: 800,
        peak_memory: 1 << 20,
    };
    (key, record)
}

/// A cache with the result of [`record`], made from a store.
fn published() -> (Arc<MemoryCache>, StageKey, Record, Place) {
    let from = Place::new();
    let (key, record) = record(&from.store);
    let cache = Arc::new(MemoryCache::default());
    let log = from.store.root().join("log");
    std::fs::write(&log, "a line\n").expect("written");
    let results = StageResults::new(cache.clone());
    let sent = results
        .publish(&from.store, &key, &record, Some(&log), false, &|_| true)
        .expect("published");
    assert!(matches!(sent, Published::Sent(bytes) if bytes > 6_000_000), "{sent:?}");
    (cache, key, record, from)
}

fn take_all(results: &StageResults, found: &FoundResult, place: &Place) -> Result<(), RemoteError> {
    let taking = place.taking(&|_| Ok(()));
    found
        .record
        .outputs
        .values()
        .try_for_each(|output| results.take(&found.files, output, &taking))
}

/// Every file below a directory with its content, mode and target.
fn listing(dir: &std::path::Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.expect("listed");
        let meta = entry.path().symlink_metadata().expect("there");
        let content = match meta.file_type() {
            t if t.is_file() => std::fs::read(entry.path()).expect("read"),
            t if t.is_symlink() => std::fs::read_link(entry.path())
                .expect("read")
                .as_os_str()
                .as_bytes()
                .to_vec(),
            _ => Vec::new(),
        };
        let name = entry
            .path()
            .strip_prefix(dir)
            .expect("below")
            .to_string_lossy()
            .into_owned();
        found.insert(name, (meta.mode(), content));
    }
    found
}

#[test]
fn a_result_comes_back_into_an_empty_store_equal_to_the_byte() {
    let (cache, key, record, from) = published();
    let results = StageResults::new(cache.clone());
    let found = results.lookup(&key).expect("answers").expect("there");
    assert_eq!(found.record, record);
    assert_eq!(found.files.log(), Some(b"a line\n".as_slice()));
    let to = Place::new();
    take_all(&results, &found, &to).expect("taken");
    to.store.put_record(&key, &found.record, Some("memory")).expect("kept");
    assert_eq!(to.store.record(&key).expect("read"), Some(record.clone()));
    assert_eq!(to.store.record_source(&key).expect("read").as_deref(), Some("memory"));
    for output in record.outputs.values() {
        let digest = output.digest();
        match output {
            Output::Tree { .. } => {
                let [a, b] = [&from, &to].map(|place| listing(&place.store.checkout(digest).expect("laid out")));
                assert_eq!(a.len(), 9);
                assert!(a == b, "the trees differ");
            }
            Output::File { .. } => {
                let [a, b] = [&from, &to]
                    .map(|place| std::fs::read(place.store.object_path(digest).expect("there")).expect("read"));
                assert!(a == b, "the files differ");
            }
        }
    }
    let requests = cache.requests.lock().expect("lock").clone();
    // One for the result, one for the record and small files; dump (small), pack, large object of the tree, disk.
    assert_eq!((requests["read_small"], requests["read"]), (1, 3), "{requests:?}");
}

#[test]
fn what_the_store_has_is_not_asked_for_and_what_the_cache_has_is_not_sent() {
    let (cache, key, record, from) = published();
    let results = StageResults::new(cache.clone());
    let again = results
        .publish(&from.store, &key, &record, None, false, &|_| true)
        .expect("published");
    assert_eq!(again, Published::Present);
    let found = results.lookup(&key).expect("answers").expect("there");
    cache.requests.lock().expect("lock").clear();
    // The objects are there, but not the dump.
    let to = Place::new();
    tree(&to.store);
    let Output::Tree { digest } = &record.outputs["tree"] else {
        panic!("a tree")
    };
    results
        .take(&found.files, &record.outputs["tree"], &to.taking(&|_| Ok(())))
        .expect("taken");
    assert!(to.store.find_object(digest).expect("looked").is_some());
    assert!(cache.requests.lock().expect("lock").is_empty(), "everything was there");
    // Another key with the same outputs sends its record alone.
    let mut other = record.clone();
    other.canonical.push_str("x y\n");
    let key = StageKey::new(*blake3::hash(other.canonical.as_bytes()).as_bytes());
    let sent = results
        .publish(&from.store, &key, &other, None, false, &|_| true)
        .expect("published");
    assert!(matches!(sent, Published::Sent(1..2_000)), "{sent:?}");
    // A result that is not worth its transfer is not sent.
    other.canonical.push_str("z z\n");
    let key = StageKey::new(*blake3::hash(other.canonical.as_bytes()).as_bytes());
    let sent = results
        .publish(&from.store, &key, &other, None, false, &|bytes| bytes > 10_000)
        .expect("answers");
    assert_eq!(sent, Published::NotWorth);
    assert!(results.lookup(&key).expect("answers").is_none());
}

#[test]
fn other_outputs_under_the_same_key_are_reported_and_kept() {
    let (cache, key, record, from) = published();
    let results = StageResults::new(cache);
    let mut other = record.clone();
    let (digest, size) = from
        .store
        .put_object(ObjectMode::Plain, &mut b"6.13\n".as_slice())
        .expect("stored");
    other
        .outputs
        .insert("version".to_owned(), Output::File { digest, size });
    let published = results
        .publish(&from.store, &key, &other, None, false, &|_| true)
        .expect("answers");
    assert_eq!(published, Published::Differs(record.outputs.clone()));
    assert_eq!(results.lookup(&key).expect("answers").expect("there").record, record);
}

/// The refusal of a changed result, on the way from the lookup to the last output.
fn refusal(change: impl FnOnce(&MemoryCache, &Record)) -> String {
    let (cache, key, record, _from) = published();
    change(&cache, &record);
    let results = StageResults::new(cache);
    let to = Place::new();
    let error = match results.lookup(&key) {
        Err(error) => error,
        Ok(found) => take_all(&results, &found.expect("there"), &to).expect_err("refused"),
    };
    assert_eq!(error.loss(), Loss::Result, "{error}");
    if let Output::Tree { digest } = &record.outputs["tree"]
        && error.to_string().contains("t/")
    {
        let there = to.store.find_object(digest).expect("looked");
        assert!(there.is_none(), "the tree counts as complete after: {error}");
    }
    error.to_string()
}

#[test]
fn every_other_result_is_refused_by_name() {
    let dump = |record: &Record| format!("t/{}.dump", record.outputs["tree"].digest());
    let pack = |record: &Record| format!("t/{}.pack", record.outputs["tree"].digest());
    let disk = |record: &Record| format!("o/{}", record.outputs["disk"].digest());
    let version = |record: &Record| format!("o/{}", record.outputs["version"].digest());
    let cases: Vec<(&str, String)> = vec![
        (
            "it has no record",
            refusal(|cache, _| cache.change(|files| assert!(files.remove("record").is_some()))),
        ),
        (
            "its record is damaged",
            refusal(|cache, _| {
                cache.replace("record", |mut text| {
                    let at = text.len() - 20;
                    text[at] ^= 1;
                    text
                })
            }),
        ),
        (
            "of another key",
            refusal(|cache, record| {
                let mut other = record.clone();
                other.canonical = "pnb-stage-key 1\nstage another\n".to_owned();
                cache.replace("record", |_| other.to_text().expect("JSON").into_bytes());
            }),
        ),
        (
            "its record has",
            refusal(|cache, _| cache.replace("record", |_| vec![b'x'; 2 << 20])),
        ),
        (
            "it has no file o/",
            refusal(|cache, record| cache.change(|files| assert!(files.remove(&disk(record)).is_some()))),
        ),
        (
            "another number in the record",
            refusal(|cache, record| {
                cache.replace(&disk(record), |mut disk| {
                    disk.push(0);
                    disk
                })
            }),
        ),
        (
            "has the content of object",
            refusal(|cache, record| {
                cache.replace(&disk(record), |mut disk| {
                    disk[70_000] ^= 1;
                    disk
                })
            }),
        ),
        (
            "has the content of object",
            refusal(|cache, record| cache.replace(&version(record), |_| b"6.66\n".to_vec())),
        ),
        (
            "it has no file t/",
            refusal(|cache, record| cache.change(|files| assert!(files.remove(&dump(record)).is_some()))),
        ),
        (
            "is the dump of the tree",
            refusal(|cache, record| {
                cache.replace(&dump(record), |mut dump| {
                    dump.extend(b"x");
                    dump
                })
            }),
        ),
        (
            "it has no file t/",
            refusal(|cache, record| cache.change(|files| assert!(files.remove(&pack(record)).is_some()))),
        ),
        (
            "no pack of this version",
            refusal(|cache, record| cache.replace(&pack(record), |_| b"foreign".to_vec())),
        ),
        (
            "cut or damaged",
            refusal(|cache, record| cache.replace(&pack(record), |pack| pack[..pack.len() - 9].to_vec())),
        ),
        (
            "it is gone",
            refusal(|cache, record| {
                let blob = cache.results.lock().expect("lock").values().next().expect("one").files[&pack(record)];
                cache.blobs.lock().expect("lock").remove(&blob);
            }),
        ),
        (
            "expected: ",
            refusal(|cache, record| {
                let blob = cache.results.lock().expect("lock").values().next().expect("one").files[&disk(record)];
                cache.blobs.lock().expect("lock").get_mut(&blob).expect("there")[9] ^= 1;
            }),
        ),
        (
            "it is gone",
            refusal(|cache, record| {
                let blob = cache.results.lock().expect("lock").values().next().expect("one").files[&disk(record)];
                cache.blobs.lock().expect("lock").remove(&blob);
            }),
        ),
    ];
    for (expected, error) in cases {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_tree_that_the_caller_refuses_stays_out_of_the_store() {
    let (cache, key, record, _from) = published();
    let results = StageResults::new(cache.clone());
    let found = results.lookup(&key).expect("answers").expect("there");
    let to = Place::new();
    cache.requests.lock().expect("lock").clear();
    let check = |_: &Tree| Err("it has a device".to_owned());
    let error = results
        .take(&found.files, &record.outputs["tree"], &to.taking(&check))
        .expect_err("refused");
    assert!(error.to_string().contains("it has a device"), "{error}");
    assert!(
        cache.requests.lock().expect("lock").is_empty(),
        "no object was asked for"
    );
}

#[test]
fn facts_come_back_and_are_no_record() {
    let cache = Arc::new(MemoryCache::default());
    let results = StageResults::new(cache);
    assert_eq!(results.facts("ab").expect("answers"), None);
    results.put_facts("ab", b"{}".to_vec()).expect("stored");
    assert_eq!(results.facts("ab").expect("answers").as_deref(), Some(b"{}".as_slice()));
    assert_eq!(results.facts("ac").expect("answers"), None);
}
