//! The client of the Remote Execution API against a server that does what each test plans.

use super::{
    BlobDigest, CachedResult, Loss, RemoteCache, RemoteError, RemoteLimits, connect, connect_engine,
    double::{Double, QUICK, Trouble, whole},
};
use crate::http::NetworkSettings;
use std::{
    collections::BTreeSet,
    io::Cursor,
    sync::{Arc, Mutex},
    time::Duration,
};
use tonic::Code;

/// Bytes without a pattern that a chunk boundary could hide in.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn put(cache: &Arc<dyn RemoteCache>, bytes: &[u8]) -> Result<BlobDigest, RemoteError> {
    let blob = BlobDigest::of(bytes);
    cache.put(&blob, &mut || Ok(Box::new(Cursor::new(bytes.to_vec()))))?;
    Ok(blob)
}

fn read(cache: &Arc<dyn RemoteCache>, blob: &BlobDigest) -> Result<Vec<u8>, RemoteError> {
    let mut bytes = Vec::new();
    let seen = Mutex::new(0);
    cache.read(blob, &mut bytes, &|size| *seen.lock().expect("whole") += size)?;
    assert_eq!(seen.into_inner().expect("whole"), blob.size);
    Ok(bytes)
}

fn text(result: Result<impl std::fmt::Debug, RemoteError>) -> (Loss, String) {
    let error = result.expect_err("an error");
    (error.loss(), error.to_string())
}

#[test]
fn results_and_blobs_come_back() {
    let server = Double::new();
    let cache = connect(&server.endpoint("main", None), &NetworkSettings::default(), &QUICK).expect("connects");
    assert_eq!(cache.name(), format!("grpc://{}/main", server.address));
    let large = noise(3_500_000);
    let blobs: Vec<Vec<u8>> = vec![b"small".to_vec(), b"".to_vec(), noise(70_000)];
    let names: Vec<BlobDigest> = blobs.iter().map(|bytes| BlobDigest::of(bytes)).collect();
    let all: Vec<BlobDigest> = [names.clone(), vec![BlobDigest::of(&large)]].concat();
    assert_eq!(cache.missing(&all).expect("asked"), all.iter().copied().collect());
    let pairs: Vec<(BlobDigest, &[u8])> = names.iter().copied().zip(blobs.iter().map(Vec::as_slice)).collect();
    cache.put_small(&pairs).expect("sent");
    put(&cache, &large).expect("sent");
    assert_eq!(cache.missing(&all).expect("asked"), BTreeSet::new());
    let order = [names[2], names[0], names[1], names[0]];
    let back = cache.read_small(&order).expect("read");
    assert_eq!(back, [2, 0, 1, 0].map(|at: usize| blobs[at].clone()));
    assert_eq!(read(&cache, &all[3]).expect("read"), large);
    assert_eq!(read(&cache, &BlobDigest::of(b"")).expect("read"), b"");
    let action = BlobDigest::of(b"action");
    assert_eq!(cache.result(&action).expect("asked"), None);
    let result = CachedResult {
        files: [("record".to_owned(), all[0]), ("o/large".to_owned(), all[3])].into(),
    };
    cache.put_result(&action, &result).expect("sent");
    assert_eq!(cache.result(&action).expect("asked"), Some(result));
    let state = server.state();
    let calls: Vec<(&str, &str)> = state.calls.iter().map(|c| (c.name, c.resource.as_str())).collect();
    assert_eq!(calls[0], ("GetCapabilities", "main"));
    let write = calls.iter().find(|(name, _)| *name == "Write").expect("a write").1;
    let parts: Vec<&str> = write.split('/').collect();
    let (hash, size) = (all[3].sha256.to_string(), all[3].size.to_string());
    assert_eq!(
        (&parts[..2], &parts[3..]),
        (&["main", "uploads"][..], &["blobs", &hash, &size][..])
    );
    assert_eq!((parts[2].len(), parts[2].as_bytes()[14]), (36, b'4'), "{write}");
    let reads = calls.iter().filter(|(name, _)| *name == "Read");
    assert_eq!(
        reads.map(|(_, r)| *r).collect::<Vec<_>>(),
        [format!("main/blobs/{}", all[3])]
    );
    for call in &state.calls {
        assert!(call.metadata.windows(3).any(|w| w == b"pnb"), "{call:?}");
        assert_eq!(call.token, None);
    }
}

#[test]
fn servers_that_cannot_be_a_cache_are_refused() {
    let server = Double::new();
    let refused = |change: &dyn Fn(&mut super::double::DoubleState)| {
        server.plan(&[]);
        server.state().capabilities = whole();
        change(&mut server.state());
        text(server.try_connect(&QUICK))
    };
    let cache = |state: &mut super::double::DoubleState, change: &dyn Fn(&mut super::double::Cache)| {
        change(state.capabilities.cache_capabilities.as_mut().expect("there"));
    };
    let (loss, said) = refused(&|s| cache(s, &|c| c.digest_functions = vec![9]));
    assert_eq!(loss, Loss::Server);
    assert!(said.ends_with("it has no digest function SHA256"), "{said}");
    let (_, said) = refused(&|s| s.capabilities.cache_capabilities = None);
    assert!(said.ends_with("it has no cache_capabilities"), "{said}");
    for (low, high) in [(3, 3), (1, 1)] {
        let (_, said) = refused(&|s| {
            s.capabilities.low_api_version.as_mut().expect("there").major = low;
            s.capabilities.high_api_version.as_mut().expect("there").major = high;
        });
        assert!(said.contains("does not speak version 2"), "{said}");
    }
    let unimplemented = Trouble::Refuse(Code::Unimplemented);
    let (_, said) = refused(&|s| s.plan = vec![("GetCapabilities", unimplemented.clone())]);
    assert!(
        said.contains("does not speak the Remote Execution API (UNIMPLEMENTED"),
        "{said}"
    );
    let (_, said) = refused(&|s| {
        cache(s, &|c| c.action_cache_update_capabilities = None);
        s.plan = vec![("GetActionResult", unimplemented.clone())];
    });
    assert!(said.contains("it has no action cache (UNIMPLEMENTED"), "{said}");
    // The same server with an action cache is used.
    server.plan(&[]);
    server.try_connect(&QUICK).expect("connects");
    assert_eq!(server.called(), ["GetCapabilities", "GetActionResult"]);
    // A server that names no version is taken at its other words.
    server.state().capabilities.low_api_version = None;
    server.state().capabilities.high_api_version = None;
    server.try_connect(&QUICK).expect("connects");
}

#[test]
fn the_limits_of_a_server_are_kept() {
    let server = Double::new();
    let blobs = [noise(1000), noise(900), noise(800), noise(2500)];
    let names = blobs.each_ref().map(|bytes| BlobDigest::of(bytes));
    let pairs: Vec<(BlobDigest, &[u8])> = names.iter().copied().zip(blobs.iter().map(Vec::as_slice)).collect();
    let change = |change: &dyn Fn(&mut super::double::Cache)| {
        change(server.state().capabilities.cache_capabilities.as_mut().expect("there"));
    };
    change(&|c| c.max_batch_total_size_bytes = 2200);
    let cache = server.connect();
    server.plan(&[]);
    cache.put_small(&pairs).expect("sent");
    cache.read_small(&names).expect("read");
    let mut called = server.called();
    called.sort_unstable();
    // 1000 and 900 with their frames are below 2200, 800 begins another batch, 2500 fits into none.
    let batches = [
        "BatchReadBlobs",
        "BatchReadBlobs",
        "BatchUpdateBlobs",
        "BatchUpdateBlobs",
        "Read",
        "Write",
    ];
    assert_eq!(called, batches);
    // No limit: pnb's own.
    change(&|c| c.max_batch_total_size_bytes = 0);
    let cache = server.connect();
    server.plan(&[]);
    cache.put_small(&pairs).expect("sent");
    assert_eq!(server.called(), ["BatchUpdateBlobs"]);
    change(&|c| c.max_cas_blob_size_bytes = 2499);
    let cache = server.connect();
    server.plan(&[]);
    put(&cache, &blobs[0]).expect("sent");
    let (loss, said) = text(put(&cache, &blobs[3]));
    assert_eq!(loss, Loss::Result);
    assert!(said.contains("it takes blobs of at most 2499 bytes"), "{said}");
    assert_eq!(server.called(), ["Write"]);
    // A server that takes no results gets no blobs either.
    change(&|c| {
        c.action_cache_update_capabilities
            .as_mut()
            .expect("there")
            .update_enabled = false
    });
    let cache = server.connect();
    server.plan(&[]);
    let result = cache.put_result(&names[0], &CachedResult::default());
    for refused in [result, put(&cache, &blobs[0]).map(|_| ()), cache.put_small(&pairs)] {
        let (loss, said) = text(refused);
        assert_eq!(loss, Loss::Writing);
        assert!(said.contains("update_enabled is false"), "{said}");
    }
    assert_eq!(server.called(), [""; 0]);
    read(&cache, &names[3]).expect("it is read");
}

#[test]
fn the_missing_blobs_are_asked_for_in_pages() {
    let server = Double::new();
    let cache = server.connect();
    let blobs: Vec<BlobDigest> = (0..10_000_u32).map(|n| BlobDigest::of(&n.to_le_bytes())).collect();
    server.has(&7_u32.to_le_bytes());
    server.has(&9_999_u32.to_le_bytes());
    server.plan(&[("FindMissingBlobs", Trouble::Foreign)]);
    let missing = cache.missing(&blobs).expect("asked");
    let expected: BTreeSet<BlobDigest> = blobs
        .iter()
        .copied()
        .filter(|b| *b != blobs[7] && *b != blobs[9999])
        .collect();
    assert_eq!(missing, expected);
    let numbers: Vec<i64> = server.state().calls.iter().map(|call| call.number).collect();
    assert_eq!(numbers, [8192, 1808]);
    server.plan(&[]);
    assert_eq!(cache.missing(&[]).expect("asked"), BTreeSet::new());
    assert_eq!(server.called(), [""; 0]);
}

#[test]
fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let server = Double::new();
    let cache = server.connect();
    let large = noise(300_000);
    let blob = server.has(&large);
    let away = |call, times| vec![(call, Trouble::Refuse(Code::Unavailable)); times];
    server.plan(&away("Read", 2));
    assert_eq!(read(&cache, &blob).expect("read"), large);
    assert_eq!(server.called(), ["Read"; 3]);
    server.plan(&away("Write", 2));
    put(&cache, &noise(2_000_000)).expect("sent");
    assert_eq!(server.called(), ["Write"; 3]);
    for code in [Code::DeadlineExceeded, Code::ResourceExhausted, Code::Internal] {
        server.plan(&[("GetActionResult", Trouble::Refuse(code))]);
        assert_eq!(cache.result(&blob).expect("asked"), None);
        assert_eq!(server.called(), ["GetActionResult"; 2]);
    }
    server.plan(&away("FindMissingBlobs", 4));
    let (loss, said) = text(cache.missing(&[blob]));
    assert_eq!(loss, Loss::Server);
    assert!(said.ends_with("UNAVAILABLE: as planned"), "{said}");
    assert_eq!(server.called(), ["FindMissingBlobs"; 4]);
}

/// What BuildGrid says when all its threads have a call.
const TOO_MANY: Trouble = Trouble::Exhausted("Concurrent RPC limit exceeded!");

#[test]
fn a_server_with_too_many_calls_is_asked_again_and_a_full_one_is_not() {
    let server = Double::new();
    let network = NetworkSettings::default();
    let limits = RemoteLimits {
        wait: Duration::from_millis(20),
        ..QUICK
    };
    let refusals = |call, trouble: &Trouble, times| vec![(call, trouble.clone()); times];
    // An engine is asked more often than the four times of a cache, also for what it offers, with pauses that grow.
    server.plan(&refusals("GetCapabilities", &TOO_MANY, 6));
    let begin = std::time::Instant::now();
    let engine = connect_engine(&server.endpoint("", None), &network, &limits).expect("connects");
    assert!(begin.elapsed() > Duration::from_millis(600), "{:?}", begin.elapsed());
    assert_eq!(server.called(), ["GetCapabilities"; 7]);
    let cache = engine.cache();
    let (blob, large) = (server.has(b"blob"), noise(2_000_000));
    type Ask<'a> = &'a dyn Fn() -> Result<(), RemoteError>;
    let calls: [(&str, Ask<'_>); 6] = [
        ("Write", &|| put(&cache, &large).map(|_| ())),
        ("BatchUpdateBlobs", &|| cache.put_small(&[(blob, b"blob")])),
        ("UpdateActionResult", &|| {
            cache.put_result(&blob, &CachedResult::default())
        }),
        ("Read", &|| read(&cache, &blob).map(|_| ())),
        ("BatchReadBlobs", &|| cache.read_small(&[blob]).map(|_| ())),
        ("FindMissingBlobs", &|| cache.missing(&[blob]).map(|_| ())),
    ];
    for (call, ask) in calls {
        server.plan(&refusals(call, &TOO_MANY, 5));
        ask().expect(call);
        assert_eq!(server.called(), [call; 6]);
        // What says that there is no space is the answer to an upload, and a refusal of what does not write is for the moment.
        server.plan(&refusals(call, &Trouble::Exhausted("Insufficient storage quota"), 5));
        if call.starts_with("Write") || call.contains("Update") {
            let error = ask().expect_err("full");
            assert!(matches!(error, RemoteError::Full { .. }), "{error}");
            assert_eq!((error.loss(), server.called()), (Loss::Writing, vec![call]));
        } else {
            ask().expect(call);
            assert_eq!(server.called(), [call; 6]);
        }
    }
    // A cache that goes on to refuse is left alone as one that is away.
    let cache = server.connect();
    for (call, loss, ask) in [
        ("Write", Loss::Writing, &(|| put(&cache, &large).map(|_| ())) as Ask<'_>),
        ("FindMissingBlobs", Loss::Server, &|| cache.missing(&[blob]).map(|_| ())),
    ] {
        server.plan(&refusals(call, &TOO_MANY, 5));
        let (lost, said) = text(ask());
        assert_eq!((lost, server.called()), (loss, vec![call; 4]), "{said}");
        let expected = format!(
            "get an answer from grpc://{}: it refused the call 4 times within 1 s: RESOURCE_EXHAUSTED: Concurrent RPC limit exceeded!",
            server.address
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn a_read_that_breaks_off_goes_on_where_it_was() {
    let server = Double::new();
    let cache = server.connect();
    let large = noise(500_000);
    let blob = server.has(&large);
    let cut = |size| ("Read", Trouble::Cut(size, Code::Unavailable));
    server.plan(&[cut(150_000), cut(100_000)]);
    assert_eq!(read(&cache, &blob).expect("read"), large);
    let offsets: Vec<i64> = server.state().calls.iter().map(|call| call.number).collect();
    assert_eq!(offsets, [0, 150_000, 250_000]);
    server.plan(&[cut(150_000), cut(100_000), cut(1)]);
    let (loss, said) = text(read(&cache, &blob));
    assert_eq!(loss, Loss::Server);
    assert!(said.contains("broke off 3 times"), "{said}");
    // A stream that ends well and early is no break.
    server.plan(&[("Read", Trouble::Cut(150_000, Code::Ok))]);
    let (loss, said) = text(read(&cache, &blob));
    assert_eq!(loss, Loss::Result);
    assert!(said.contains("/150000"), "{said}");
}

#[test]
fn other_bytes_than_those_of_the_name_are_refused() {
    let server = Double::new();
    let cache = server.connect();
    let blob = server.has(&noise(1000));
    for trouble in [Trouble::Wrong, Trouble::More] {
        server.plan(&[("Read", trouble)]);
        let (loss, said) = text(read(&cache, &blob));
        assert_eq!(loss, Loss::Result, "{said}");
    }
    server.plan(&[("BatchReadBlobs", Trouble::Wrong)]);
    let wrong = cache.read_small(&[blob]).expect_err("wrong");
    assert!(
        matches!(wrong, RemoteError::Wrong { expected, .. } if expected == blob),
        "{wrong}"
    );
    // Messages without an end.
    server.plan(&[("Read", Trouble::Empty)]);
    let (loss, said) = text(read(&cache, &blob));
    assert_eq!(loss, Loss::Result);
    assert!(said.contains("more than the 1000 bytes"), "{said}");
}

#[test]
fn a_blob_that_is_not_there_is_named() {
    let server = Double::new();
    let cache = server.connect();
    let (here, gone) = (server.has(b"here"), BlobDigest::of(b"gone"));
    for result in [
        read(&cache, &gone).map(|_| ()),
        cache.read_small(&[here, gone]).map(|_| ()),
    ] {
        let error = result.expect_err("gone");
        assert!(
            matches!(&error, RemoteError::Lacks { blob, .. } if *blob == gone),
            "{error}"
        );
        assert_eq!(error.loss(), Loss::Result);
    }
}

#[test]
fn what_a_batch_leaves_out_is_moved_alone() {
    let server = Double::new();
    let cache = server.connect();
    let blobs = [noise(1000), noise(900)];
    let names = blobs.each_ref().map(|bytes| BlobDigest::of(bytes));
    let pairs: Vec<(BlobDigest, &[u8])> = names.iter().copied().zip(blobs.iter().map(Vec::as_slice)).collect();
    let troubles = [
        Trouble::OneForgotten,
        Trouble::OneRefused(Code::ResourceExhausted),
        Trouble::OneRefused(Code::Internal),
        Trouble::Refuse(Code::InvalidArgument),
    ];
    for trouble in troubles {
        let alone = if matches!(trouble, Trouble::Refuse(_)) { 2 } else { 1 };
        server.state().blobs.clear();
        server.plan(&[("BatchUpdateBlobs", trouble.clone())]);
        cache.put_small(&pairs).expect("sent");
        assert_eq!(
            server.called(),
            [vec!["BatchUpdateBlobs"], vec!["Write"; alone]].concat(),
            "{trouble:?}"
        );
        assert_eq!(server.state().blobs.len(), 2);
        server.plan(&[("BatchReadBlobs", trouble.clone())]);
        assert_eq!(cache.read_small(&names).expect("read"), blobs);
        assert_eq!(
            server.called(),
            [vec!["BatchReadBlobs"], vec!["Read"; alone]].concat(),
            "{trouble:?}"
        );
    }
    // A server without batches is asked for one once.
    server.plan(&[("BatchReadBlobs", Trouble::Refuse(Code::Unimplemented))]);
    assert_eq!(cache.read_small(&names).expect("read"), blobs);
    cache.put_small(&pairs).expect("sent");
    assert_eq!(server.called(), ["BatchReadBlobs", "Read", "Read", "Write", "Write"]);
}

#[test]
fn an_upload_may_be_answered_early() {
    let server = Double::new();
    let cache = server.connect();
    server.plan(&[("Write", Trouble::Early)]);
    put(&cache, &noise(20_000_000)).expect("it is there already");
    assert_eq!(server.called(), ["Write"]);
    server.plan(&[("Write", Trouble::Refuse(Code::AlreadyExists))]);
    put(&cache, &noise(3_000_000)).expect("it is there already");
    assert_eq!(server.called(), ["Write"]);
    server.plan(&[("Write", Trouble::Fewer)]);
    let (loss, said) = text(put(&cache, &noise(1000)));
    assert_eq!(loss, Loss::Server);
    assert!(said.contains("it took 999 of the bytes"), "{said}");
}

#[test]
fn a_file_that_shrank_is_a_fault_of_this_machine() {
    let server = Double::new();
    let cache = server.connect();
    let blob = BlobDigest::of(&noise(3_000_000));
    let error = cache.put(&blob, &mut || Ok(Box::new(Cursor::new(noise(2_999_999)))));
    let (loss, said) = text(error);
    assert_eq!(loss, Loss::Here);
    assert!(said.starts_with("read blob "), "{said}");
    let gone = cache.put(&blob, &mut || Err(std::io::Error::other("gone")));
    assert_eq!(text(gone).0, Loss::Here);
}

#[test]
fn refusals_have_their_meaning() {
    let server = Double::new();
    let cache = server.connect();
    let (blob, empty) = (server.has(b"blob"), CachedResult::default());
    let refuse = |call, code| server.plan(&[(call, Trouble::Refuse(code))]);
    refuse("Write", Code::ResourceExhausted);
    let (loss, said) = text(put(&cache, b"x"));
    assert_eq!((loss, server.called().len()), (Loss::Writing, 1), "{said}");
    for (call, loss) in [("UpdateActionResult", Loss::Writing), ("GetActionResult", Loss::Server)] {
        refuse(call, Code::PermissionDenied);
        let refused = match call {
            "GetActionResult" => cache.result(&blob).map(|_| ()),
            _ => cache.put_result(&blob, &empty),
        };
        let error = refused.expect_err("denied");
        assert!(matches!(error, RemoteError::Denied { .. }), "{error}");
        assert_eq!(error.loss(), loss);
    }
    for code in [Code::InvalidArgument, Code::FailedPrecondition] {
        refuse("UpdateActionResult", code);
        let (loss, said) = text(cache.put_result(&blob, &empty));
        assert_eq!(loss, Loss::Result, "{said}");
    }
    refuse("GetActionResult", Code::Unimplemented);
    let error = cache.result(&blob).expect_err("no action cache");
    assert!(matches!(error, RemoteError::Unsupported { .. }), "{error}");
    let foreign = bazel_remote_apis::build::bazel::remote::execution::v2::ActionResult {
        exit_code: 1,
        ..Default::default()
    };
    server.state().results.insert(blob.sha256.to_hex(), foreign);
    assert_eq!(text(cache.result(&blob)).0, Loss::Result);
}

#[test]
fn a_silent_server_and_a_trickle_are_left() {
    let limits = RemoteLimits {
        silence: Duration::from_millis(300),
        commit: Duration::from_millis(600),
        window: Duration::from_millis(900),
        ..QUICK
    };
    let server = Double::new();
    let cache = server.try_connect(&limits).expect("connects");
    let blob = server.has(&noise(100_000));
    for (call, time) in [("Read", "300ms"), ("GetActionResult", "300ms"), ("Write", "600ms")] {
        server.plan(&[(call, Trouble::Silence)]);
        let (loss, said) = text(match call {
            "Read" => read(&cache, &blob).map(|_| ()),
            "Write" => put(&cache, b"x").map(|_| ()),
            _ => cache.result(&blob).map(|_| ()),
        });
        assert_eq!(loss, Loss::Server);
        assert!(said.ends_with(&format!("it is silent for {time}")), "{said}");
        assert_eq!(server.called(), [call], "silence is not asked again");
    }
    server.plan(&[("Read", Trouble::Trickle)]);
    let (loss, said) = text(read(&cache, &blob));
    assert_eq!(loss, Loss::Server);
    assert!(said.contains("bytes of a request moved in"), "{said}");
}

#[test]
fn a_token_is_sent_and_renewed_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "first-secret\n").expect("written");
    let server = Double::new();
    let blob = server.has(b"blob");
    server.state().token = Some("Bearer first-secret".to_owned());
    let endpoint = server.endpoint("", Some(path.clone()));
    let cache = connect(&endpoint, &NetworkSettings::default(), &QUICK).expect("connects");
    cache.result(&blob).expect("asked");
    // The token expires; the file has the next one.
    std::fs::write(&path, "second-secret\n").expect("written");
    server.plan(&[]);
    server.state().token = Some("Bearer second-secret".to_owned());
    read(&cache, &blob).expect("read");
    put(&cache, &noise(2_000_000)).expect("sent");
    let tokens: Vec<String> = server
        .state()
        .calls
        .iter()
        .filter_map(|call| call.token.clone())
        .collect();
    assert_eq!(
        tokens,
        ["Bearer first-secret", "Bearer second-secret", "Bearer second-secret"]
    );
    // There is no other token: one try.
    server.plan(&[]);
    server.state().token = Some("Bearer third-secret".to_owned());
    let error = put(&cache, b"x").expect_err("denied");
    assert_eq!(server.called(), ["Write"]);
    assert!(
        matches!(error, RemoteError::Denied { doing: "write to", .. }),
        "{error}"
    );
    // Another one that does not count either: two tries.
    std::fs::write(&path, "fourth-secret\n").expect("written");
    server.plan(&[]);
    let error = cache.result(&blob).expect_err("denied");
    assert_eq!(server.called(), ["GetActionResult"; 2]);
    let shown = format!("{error} {error:?} {cache:?} {endpoint:?}");
    assert!(!shown.contains("secret"), "{shown}");
}
