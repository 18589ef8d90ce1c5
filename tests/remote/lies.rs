//! The doubles themselves: without a fault they are a cache, and each fault is the one that its name says.

use crate::{
    client::{Job, Papers, RemoteClient, digest_of},
    double::{Executed, RemoteDouble},
    faults::Kept,
    http_cache::HttpCache,
    tls::Authority,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::{ActionResult, Digest, ExecuteResponse};
use prost::Message;
use std::{
    sync::{
        MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::Code;

/// The answer to a request over HTTP: the status and the body, or that the connection ended too early.
fn http(method: &str, url: &str, token: Option<&str>, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let request = request.body(body).expect("a request");
    let mut response = agent.run(request).map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let bytes = response.body_mut().read_to_vec().map_err(|error| error.to_string())?;
    Ok((status, bytes))
}

/// Either double.
enum Side {
    Http(HttpCache),
    Grpc(RemoteDouble, Box<RemoteClient>),
}

impl Side {
    fn name(&self) -> &'static str {
        match self {
            Side::Http(_) => "HTTP",
            Side::Grpc(..) => "gRPC",
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        match self {
            Side::Http(cache) => cache.kept(),
            Side::Grpc(double, _) => double.kept(),
        }
    }

    /// The bytes that come for a blob, or the status of the refusal.
    fn get(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        match self {
            Side::Http(cache) => match http("GET", &format!("{}/cas/{}", cache.url(), digest.hash), None, b"")? {
                (200, bytes) => Ok(bytes),
                (status, _) => Err(status.to_string()),
            },
            Side::Grpc(_, client) => client.get(digest).map_err(|status| format!("{:?}", status.code())),
        }
    }

    fn put(&self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Side::Http(cache) => {
                let url = format!("{}/any/prefix/cas/{}", cache.url(), digest_of(bytes).hash);
                match http("PUT", &url, None, bytes)? {
                    (200, _) => Ok(()),
                    (status, _) => Err(status.to_string()),
                }
            }
            Side::Grpc(_, client) => client
                .put(bytes)
                .map(drop)
                .map_err(|status| format!("{:?}", status.code())),
        }
    }
}

#[test]
fn each_fault_is_the_one_that_its_name_says() {
    let bytes: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let digest = digest_of(&bytes);
    let hash = || digest.hash.clone();
    let double = RemoteDouble::start();
    let client = Box::new(RemoteClient::connect(&double.url()).expect("connected"));
    for side in [Side::Http(HttpCache::start()), Side::Grpc(double, client)] {
        let name = side.name();
        let get = || side.get(&digest);
        let (none, full, forbidden, busy) = match name {
            "HTTP" => ("404", "507", "403", "503"),
            _ => ("NotFound", "ResourceExhausted", "PermissionDenied", "Unavailable"),
        };
        assert_eq!(get(), Err(none.to_owned()), "{name}");

        side.kept().faults.full = true;
        assert_eq!(side.put(&bytes), Err(full.to_owned()), "{name}");
        side.kept().faults.full = false;
        side.kept().faults.reader_only = true;
        assert_eq!(side.put(&bytes), Err(forbidden.to_owned()), "{name}");
        side.kept().faults.reader_only = false;
        side.put(&bytes).expect("taken");
        assert!(get() == Ok(bytes.clone()), "{name}");

        side.kept().faults.wrong_bytes.insert(hash());
        let wrong = get().expect("answered");
        assert!(wrong.len() == bytes.len() && wrong != bytes, "{name}");
        side.kept().faults.wrong_bytes.clear();

        side.kept().faults.short.insert(hash());
        assert!(get().expect("answered") == bytes[..100_000], "{name}");
        side.kept().faults.short.clear();

        side.kept().faults.closes_in_the_middle.insert(hash());
        assert!(get().is_err(), "{name}");
        side.kept().faults.closes_in_the_middle.clear();

        side.kept().faults.missing.insert(hash());
        assert_eq!(get(), Err(none.to_owned()), "{name}");
        side.kept().faults.missing.clear();

        side.kept().faults.unavailable = 2;
        assert_eq!([get(), get()], [Err(busy.to_owned()), Err(busy.to_owned())], "{name}");
        assert!(get() == Ok(bytes.clone()), "{name}");

        let begin = Instant::now();
        side.kept().faults.slow_first_byte = Some(Duration::from_millis(300));
        assert!(get() == Ok(bytes.clone()), "{name}");
        assert!(begin.elapsed() >= Duration::from_millis(300), "{name}");
        side.kept().faults.slow_first_byte = None;

        let (few, begin) = (b"twelve bytes".to_vec(), Instant::now());
        side.put(&few).expect("taken");
        side.kept().faults.trickle = Some(Duration::from_millis(50));
        assert_eq!(side.get(&digest_of(&few)), Ok(few), "{name}");
        assert!(begin.elapsed() >= Duration::from_millis(600), "{name}");

        // Every call was noted, those that were refused too.
        let calls = side.kept().calls.len();
        assert!(calls >= 14, "{name}: {calls}");
    }
}

#[test]
fn a_cache_over_http_has_results_and_a_token() {
    let cache = HttpCache::start();
    let result = ActionResult {
        exit_code: 7,
        ..Default::default()
    };
    let action = digest_of(b"an action").hash;
    let url = format!("{}/ac/{action}", cache.url());
    assert_eq!(http("GET", &url, None, b"").expect("answered").0, 404);
    assert_eq!(
        http("PUT", &url, None, &result.encode_to_vec()).expect("answered").0,
        200
    );
    assert_eq!(http("GET", &url, None, b""), Ok((200, result.encode_to_vec())));
    assert_eq!(http("HEAD", &url, None, b"").expect("answered").0, 200);
    // A blob under a name that is not its own, and what is neither.
    let blob = format!("{}/cas/{action}", cache.url());
    assert_eq!(http("PUT", &blob, None, b"other bytes").expect("answered").0, 400);
    assert_eq!(http("GET", &cache.url(), None, b"").expect("answered").0, 404);
    assert_eq!(http("POST", &blob, None, b"").expect("answered").0, 405);

    cache.kept().poison(
        &action,
        &ActionResult {
            exit_code: 8,
            ..Default::default()
        },
    );
    assert_ne!(http("GET", &url, None, b""), Ok((200, result.encode_to_vec())));

    cache.kept().token = Some("s3cret".to_owned());
    assert_eq!(http("GET", &url, None, b"").expect("answered").0, 401);
    assert_eq!(http("GET", &url, Some("other"), b"").expect("answered").0, 401);
    assert_eq!(http("GET", &url, Some("s3cret"), b"").expect("answered").0, 200);
}

#[test]
fn a_server_in_this_process_answers_as_it_is_told() {
    let cache = RemoteDouble::start();
    let client = RemoteClient::connect(&cache.url()).expect("connected");
    let stated = client.capabilities().expect("stated");
    assert_eq!(stated.execution_capabilities, None);
    let job = Job {
        arguments: &["/bin/true"],
        ..Job::default()
    };
    assert_eq!(client.run(&job).expect_err("no Execution").code(), Code::Unimplemented);

    let action = digest_of(b"an action");
    let result = |exit_code| ActionResult {
        exit_code,
        ..Default::default()
    };
    assert_eq!(client.cached(&action).expect("asked"), None);
    client.publish(&action, &result(0)).expect("taken");
    cache.kept().poison(&action.hash, &result(9));
    assert_eq!(client.cached(&action).expect("asked"), Some(result(9)));
    let blob = cache.kept().add_blob(b"a blob that was here before");
    assert_eq!(
        client
            .missing(&[digest_of(b"a blob that was here before")])
            .expect("asked"),
        []
    );
    // What is not there when it is read is still said to be there.
    cache.kept().faults.missing.insert(blob);
    assert_eq!(
        client
            .missing(&[digest_of(b"a blob that was here before")])
            .expect("asked"),
        []
    );
    let wrong = client
        .put_as(&digest_of(b"one thing"), b"otherones")
        .expect_err("refused");
    assert_eq!(wrong.code(), Code::InvalidArgument);

    cache.kept().token = Some("s3cret".to_owned());
    assert_eq!(
        client.capabilities().expect_err("refused").code(),
        Code::Unauthenticated
    );
    let papers = Papers {
        token: Some("s3cret".to_owned()),
        ..Papers::default()
    };
    let with_token = RemoteClient::connect_with(&cache.url(), &papers).expect("connected");
    with_token.capabilities().expect("stated");

    let farm = RemoteDouble::with_worker(move |action, kept| {
        assert!(kept.has(action), "the action was not uploaded");
        ExecuteResponse {
            result: Some(result(5)),
            ..Default::default()
        }
    });
    let client = RemoteClient::connect(&farm.url()).expect("connected");
    assert!(client.capabilities().expect("stated").execution_capabilities.is_some());
    let answer = client.run(&job).expect("run");
    assert_eq!(answer.result, Some(result(5)));
    let action = client.put_job(&job).expect("taken");
    assert_eq!(client.wait(&action.hash).expect("known").result, Some(result(5)));
    assert!(farm.kept().calls.iter().any(|call| call.starts_with("Execute ")));
    let address = farm.url();
    drop(farm);
    assert!(RemoteClient::connect(&address).is_err(), "the double is still there");
}

#[test]
fn an_operation_may_wait_or_get_lost() {
    let job = Job {
        arguments: &["/bin/true"],
        ..Job::default()
    };
    let asks = |times: &'static [Executed]| {
        let turn = AtomicUsize::new(0);
        let farm = RemoteDouble::with_worker(move |_, _| times[turn.fetch_add(1, Ordering::SeqCst)].clone());
        let client = RemoteClient::connect(&farm.url()).expect("connected");
        let action = client.put_job(&job).expect("taken");
        (farm, client, action)
    };
    let (_farm, client, action) = asks(&[Executed::Lost, Executed::Queued]);
    assert_eq!(
        client.execute(&action, false).expect_err("lost").code(),
        Code::Unavailable
    );
    // Nothing comes until the client is tired of waiting.
    let begin = Instant::now();
    assert_eq!(
        client.wait(&action.hash).expect_err("silence").code(),
        Code::DeadlineExceeded
    );
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());

    let (_farm, client, action) = asks(&[Executed::Refused(Code::ResourceExhausted, "no memory")]);
    let refused = client.execute(&action, false).expect_err("refused");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "no memory")
    );
}

#[test]
fn a_server_over_tls_shows_its_certificate_and_may_want_one() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let asked = |double: &RemoteDouble, trusted: &Authority, own: Option<&Authority>| {
        let papers = Papers {
            authority: Some(trusted.pem()),
            identity: own.map(|authority| authority.pair("client")),
            token: None,
        };
        let client = RemoteClient::connect_with(&double.url(), &papers)?;
        client.capabilities().map(drop).map_err(|status| status.to_string())
    };
    for mutual in [false, true] {
        let double = RemoteDouble::with_tls(&authority, mutual);
        asked(&double, &authority, Some(&authority)).expect("answered");
        assert_eq!(asked(&double, &authority, None).is_err(), mutual);
        assert_eq!(asked(&double, &authority, Some(&stranger)).is_err(), mutual);
        asked(&double, &stranger, Some(&authority)).expect_err("refused");
        let plain = double.url().replace("grpcs", "grpc");
        let answer = RemoteClient::connect(&plain).and_then(|c| c.capabilities().map_err(|s| s.to_string()));
        answer.expect_err("refused");
    }
}
