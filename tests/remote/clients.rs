//! pnb's own clients, of a cache and of an engine, against BuildBox and BuildGrid.

use crate::{
    buildgrid::{BuildGrid, BuildGridCache, Guard, WorkerOptions, token, token_until},
    engine::{Casd, CasdOptions},
    tls::Authority,
};
use pnb::{
    http::{NetworkSettings, TrustPlaces},
    remote::{
        BlobDigest, CachedResult, Endpoint, EngineAction, EngineProgress, Executed, InputFile, Loss, RemoteCache,
        RemoteEngine, RemoteError, RemoteLimits, connect, connect_engine,
    },
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fs,
    io::Cursor,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        address: url.parse().expect("an address"),
        token_file: None,
        identity: None,
    }
}

fn cache(endpoint: &Endpoint, network: &NetworkSettings) -> Result<Arc<dyn RemoteCache>, RemoteError> {
    connect(endpoint, network, &RemoteLimits::default())
}

fn engine(url: &str) -> Arc<dyn RemoteEngine> {
    connect_engine(&endpoint(url), &NetworkSettings::default(), &RemoteLimits::default()).expect("connects")
}

/// Bytes that no piece boundary can hide in.
fn noise(size: usize, mut state: u32) -> Vec<u8> {
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(size)
    .collect()
}

fn put(cache: &dyn RemoteCache, bytes: &[u8]) -> Result<BlobDigest, RemoteError> {
    let blob = BlobDigest::of(bytes);
    cache.put(&blob, &mut || Ok(Box::new(Cursor::new(bytes.to_vec()))))?;
    Ok(blob)
}

fn read(cache: &dyn RemoteCache, blob: &BlobDigest) -> Result<Vec<u8>, RemoteError> {
    let mut bytes = Vec::new();
    cache.read(blob, &mut bytes, &|_| {})?;
    Ok(bytes)
}

/// A server that removes nothing while the disk of the test is nearly full.
fn options(runner: bool) -> CasdOptions {
    CasdOptions {
        runner,
        quota: Some("1G".to_owned()),
        arguments: vec!["--reserved=0".to_owned()],
        ..CasdOptions::default()
    }
}

/// Blobs of several sizes and a result travel to a cache and back.
fn round_trip(cache: &dyn RemoteCache) -> (BlobDigest, BlobDigest) {
    let small: Vec<Vec<u8>> = (0..40_u32).map(|n| noise(50 * n as usize * 40, n)).collect();
    let names: Vec<BlobDigest> = small.iter().map(|bytes| BlobDigest::of(bytes)).collect();
    let pairs: Vec<(BlobDigest, &[u8])> = names.iter().copied().zip(small.iter().map(Vec::as_slice)).collect();
    let large = noise(20_000_000, 99);
    let blob = BlobDigest::of(&large);
    let mut all = names.clone();
    all.push(blob);
    let missing = cache.missing(&all).expect("asked");
    assert!(missing.is_superset(&all.iter().copied().filter(|blob| blob.size > 0).collect()));
    cache.put_small(&pairs).expect("sent");
    put(cache, &large).expect("sent");
    assert_eq!(cache.missing(&all).expect("asked"), BTreeSet::new());
    // What is there already is taken again.
    put(cache, &large).expect("sent");
    assert!(cache.read_small(&names).expect("read") == small);
    assert!(read(cache, &blob).expect("read") == large);
    let gone = BlobDigest::of(b"nobody has this");
    let error = read(cache, &gone).expect_err("nobody has it");
    assert!(matches!(error, RemoteError::Lacks { .. }), "{error}");
    let error = cache.read_small(&[names[3], gone]).expect_err("nobody has it");
    assert!(matches!(error, RemoteError::Lacks { .. }), "{error}");
    let action = BlobDigest::of(b"the name of an action");
    assert_eq!(cache.result(&action).expect("asked"), None);
    let files = [("record", names[1]), ("o/large", blob), ("empty", names[0])];
    let result = CachedResult {
        files: files.map(|(path, blob)| (path.to_owned(), blob)).into(),
    };
    cache.put_result(&action, &result).expect("sent");
    assert_eq!(cache.result(&action).expect("asked"), Some(result));
    (action, blob)
}

#[test]
fn the_client_of_a_cache_speaks_with_buildbox() {
    let dir = tempfile::tempdir().expect("scratch");
    let mut casd = Casd::start(dir.path(), &options(false));
    let client = cache(&endpoint(&casd.url()), &NetworkSettings::default()).expect("connects");
    let (action, large) = round_trip(client.as_ref());
    // The client connects again by itself.
    casd.restart();
    assert_eq!(client.result(&action).expect("asked").expect("kept").files.len(), 3);
    // A result without one of its blobs is none, and a damaged blob is not taken.
    let stored = casd.stored(&large.sha256.to_string());
    let mut bytes = fs::read(&stored).expect("stored");
    bytes[1_000_000] ^= 1;
    fs::remove_file(&stored).expect("removed");
    fs::write(&stored, &bytes).expect("written");
    let error = read(client.as_ref(), &large).expect_err("damaged");
    assert_eq!(error.loss(), Loss::Result, "{error}");
    fs::remove_file(&stored).expect("removed");
    casd.restart();
    assert_eq!(client.result(&action).expect("asked"), None);
    // A server that is gone.
    casd.kill();
    let begin = Instant::now();
    let error = client.result(&action).expect_err("gone");
    assert!(matches!(error, RemoteError::Gone { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// A shell script as an action, with its inputs stored.
fn script(cache: &dyn RemoteCache, text: &str) -> EngineAction {
    let file = |bytes: &[u8], executable| InputFile {
        blob: put(cache, bytes).expect("sent"),
        executable,
    };
    EngineAction {
        arguments: ["./run", "an argument"].map(str::to_owned).to_vec(),
        environment: [("OWN".to_owned(), "1".to_owned())].into(),
        files: [
            (
                "run".to_owned(),
                file(format!("#!/bin/sh\nset -eu\n{text}\n").as_bytes(), true),
            ),
            ("in/deep/word".to_owned(), file(b"a word", false)),
        ]
        .into(),
        output: "out".to_owned(),
        platform: [("OSFamily".to_owned(), "linux".to_owned())].into(),
        timeout: Duration::from_secs(60),
        queue_timeout: Duration::from_secs(60),
        accept_cached: true,
        keep: true,
        salt: Vec::new(),
    }
}

const HELLO: &str =
    "/bin/mkdir -p out/deep; /bin/cat in/deep/word > out/deep/word; echo \"$1 $OWN\" > out/said; echo bad >&2; exit 3";

/// The files of a run of [`HELLO`] are what it wrote.
fn hello(engine: &dyn RemoteEngine, executed: &Executed) {
    assert_eq!(executed.exit_code, 3, "{executed:?}");
    let names: Vec<&str> = executed.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["deep/word", "said"]);
    let cache = engine.cache();
    assert_eq!(
        read(cache.as_ref(), &executed.files["deep/word"]).expect("read"),
        b"a word"
    );
    assert_eq!(
        read(cache.as_ref(), &executed.files["said"]).expect("read"),
        b"an argument 1\n"
    );
    assert_eq!(executed.stderr, b"bad\n");
}

#[test]
fn the_client_of_an_engine_speaks_with_buildbox() {
    let dir = tempfile::tempdir().expect("scratch");
    let casd = Casd::start(dir.path(), &options(true));
    let engine = engine(&casd.url());
    let action = script(engine.cache().as_ref(), HELLO);
    let executed = engine.execute(&action, &|_| {}, &|| false).expect("runs");
    hello(engine.as_ref(), &executed);
    // A run that ends well is taken again, unless that is not wanted.
    let well = script(engine.cache().as_ref(), "/bin/mkdir out; echo $$ > out/file");
    let first = engine.execute(&well, &|_| {}, &|| false).expect("runs");
    let again = engine.execute(&well, &|_| {}, &|| false).expect("runs");
    assert_eq!((first.cached, again.cached, &again.files), (false, true, &first.files));
    let anew = EngineAction {
        accept_cached: false,
        ..well
    };
    assert!(!engine.execute(&anew, &|_| {}, &|| false).expect("runs").cached);
    // An input that nobody has sent.
    let mut lacking = script(engine.cache().as_ref(), "exit 0");
    let blob = BlobDigest::of(b"never sent");
    lacking.files.insert(
        "lost".to_owned(),
        InputFile {
            blob,
            executable: false,
        },
    );
    let error = engine
        .execute(&lacking, &|_| {}, &|| false)
        .expect_err("an input is not there");
    assert!(
        matches!(error, RemoteError::Lacks { .. } | RemoteError::Execution { .. }),
        "{error}"
    );
    // It is interrupted.
    let long = script(engine.cache().as_ref(), "/bin/sleep 50");
    let (begin, polls) = (Instant::now(), Cell::new(0));
    let soon = || {
        polls.set(polls.get() + 1);
        polls.get() > 5
    };
    let error = engine.execute(&long, &|_| {}, &soon).expect_err("cancelled");
    assert!(matches!(error, RemoteError::Cancelled { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    // A cache is no engine.
    let other = tempfile::tempdir().expect("scratch");
    let alone = Casd::start(other.path(), &CasdOptions::default());
    let error = connect_engine(
        &endpoint(&alone.url()),
        &NetworkSettings::default(),
        &RemoteLimits::default(),
    );
    let error = error.expect_err("it runs nothing");
    assert!(matches!(error, RemoteError::Unsupported { .. }), "{error}");
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: PostgreSQL, BuildGrid and a worker; cargo test -- --ignored nightly::"]
    fn the_client_of_an_engine_speaks_with_buildgrid() {
        let dir = tempfile::tempdir().expect("scratch");
        let farm = BuildGrid::start(dir.path(), &[WorkerOptions::named("one")]);
        let engine = engine(&farm.url());
        round_trip(engine.cache().as_ref());
        let action = script(engine.cache().as_ref(), HELLO);
        let steps = RefCell::new(Vec::new());
        let executed = engine.execute(&action, &|step| steps.borrow_mut().push(step), &|| false);
        let executed = executed.expect("runs");
        hello(engine.as_ref(), &executed);
        assert!(executed.worker.contains("one"), "{executed:?}");
        let steps = steps.into_inner();
        assert_eq!(steps.first(), Some(&EngineProgress::Queued), "{steps:?}");
        assert!(steps.contains(&EngineProgress::Running), "{steps:?}");
        // A property of which the scheduler has not heard, and one that no worker has.
        let mut other = script(engine.cache().as_ref(), "exit 0");
        other.platform = [("colour".to_owned(), "green".to_owned())].into();
        let error = engine.execute(&other, &|_| {}, &|| false).expect_err("refused");
        assert!(matches!(error, RemoteError::Execution { .. }), "{error}");
        assert!(
            error.to_string().contains("pnb-sandbox"),
            "it lists the known ones: {error}"
        );
        other.platform = [("ISA".to_owned(), "none".to_owned())].into();
        other.queue_timeout = Duration::from_secs(4);
        let error = engine.execute(&other, &|_| {}, &|| false).expect_err("nobody takes it");
        assert!(
            matches!(&error, RemoteError::NoWorker { properties, .. } if properties == "ISA=none"),
            "{error}"
        );
        // A run that is interrupted leaves the worker free.
        let long = script(engine.cache().as_ref(), "/bin/sleep 51.0713");
        let cancelled = || !farm.running("sleep 51.0713").is_empty();
        let error = engine.execute(&long, &|_| {}, &cancelled).expect_err("cancelled");
        assert!(matches!(error, RemoteError::Cancelled { .. }), "{error}");
        let freed = crate::process::wait_until(Duration::from_secs(30), || farm.running("sleep 51.0713").is_empty());
        assert!(freed, "the worker still runs it");
    }

    #[test]
    #[ignore = "nightly: BuildGrid, three times; cargo test -- --ignored nightly::"]
    fn the_client_of_a_cache_speaks_with_buildgrid() {
        let dir = tempfile::tempdir().expect("scratch");
        let file = |name: &str, content: &[u8]| -> PathBuf {
            let path = dir.path().join(name);
            fs::write(&path, content).expect("written");
            path
        };
        // Tokens: a reader's, and one that ends meanwhile.
        let place = tempfile::tempdir().expect("scratch");
        let server = BuildGridCache::start(place.path(), &Guard::Tokens);
        let with = |text: &str, name: &str| {
            let endpoint = Endpoint {
                token_file: Some(file(name, text.as_bytes())),
                ..endpoint(&server.url())
            };
            cache(&endpoint, &NetworkSettings::default())
        };
        let writer = with(&token("writer"), "writer").expect("connects");
        let (action, _) = round_trip(writer.as_ref());
        let reader = with(&token("reader"), "reader").expect("connects");
        assert!(reader.result(&action).expect("asked").is_some());
        let error = put(reader.as_ref(), b"another").expect_err("refused");
        assert_eq!(error.loss(), Loss::Writing, "{error}");
        let error = with(&token_until("writer", 1), "expired").expect_err("refused");
        assert!(matches!(error, RemoteError::Denied { .. }), "{error}");
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("after 1970")
            .as_secs();
        let short = with(&token_until("writer", now + 4), "short").expect("connects");
        std::thread::sleep(Duration::from_secs(6));
        file("short", token("writer").as_bytes());
        put(short.as_ref(), b"a third").expect("sent with the next token");
        // TLS, and TLS with a certificate of the client.
        let (authority, stranger) = (Authority::new(), Authority::new());
        let network = |authority: &Authority| NetworkSettings {
            trust: TrustPlaces {
                ca_file: Some(file("ca.pem", &authority.pem())),
                ..TrustPlaces::default()
            },
            ..NetworkSettings::default()
        };
        for mutual in [false, true] {
            let place = tempfile::tempdir().expect("scratch");
            let guard = if mutual {
                Guard::MutualTls(&authority)
            } else {
                Guard::Tls(&authority)
            };
            let server = BuildGridCache::start(place.path(), &guard);
            let with = |own: Option<&Authority>, trusted: &Authority| {
                let identity = own.map(|own| {
                    let (certificate, key) = own.pair("client");
                    (file("client.pem", &certificate), file("client.key", &key))
                });
                let endpoint = Endpoint {
                    identity,
                    ..endpoint(&server.url())
                };
                cache(&endpoint, &network(trusted))
            };
            round_trip(with(Some(&authority), &authority).expect("connects").as_ref());
            assert_eq!(with(None, &authority).is_err(), mutual);
            assert_eq!(with(Some(&stranger), &authority).is_err(), mutual);
            let error = with(Some(&authority), &stranger).expect_err("another authority");
            assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        }
    }
}
