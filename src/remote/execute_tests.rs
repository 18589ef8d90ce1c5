//! The client of an engine against a server whose operations are planned.

use super::{
    BlobDigest, EngineAction, EngineProgress, Executed, InputFile, Loss, RemoteEngine, RemoteError, RemoteLimits,
    connect_engine,
    double::{Double, DoubleCall, QUICK, Trouble},
    outputs::{PreconditionFailure, Violation, action_messages},
    proto,
};
use crate::{http::NetworkSettings, model::Hint};
use bazel_remote_apis::{
    build::bazel::remote::execution::v2::{
        Action, ActionResult, Command, Directory, DirectoryNode, ExecuteResponse, ExecutedActionMetadata, FileNode,
        OutputDirectory, OutputFile, SymlinkNode, Tree, execution_stage::Value as Stage,
    },
    google::{
        protobuf::{Any, Timestamp},
        rpc,
    },
};
use prost::Message;
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};
use tonic::Code;

fn action() -> EngineAction {
    let file = |bytes: &[u8], executable| InputFile {
        blob: BlobDigest::of(bytes),
        executable,
    };
    EngineAction {
        arguments: vec!["./pnb".to_owned(), "__stage".to_owned()],
        environment: [("B", "2"), ("A", "1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        files: [
            ("pnb".to_owned(), file(b"program", true)),
            ("t/a.dump".to_owned(), file(b"dump", false)),
            ("t/deep/b".to_owned(), file(b"b", false)),
            ("job.json".to_owned(), file(b"{}", false)),
        ]
        .into(),
        output: "out".to_owned(),
        platform: [("OSFamily", "linux"), ("ISA", "x86-64")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        timeout: Duration::from_millis(90_500),
        queue_timeout: Duration::from_secs(20),
        accept_cached: true,
        keep: true,
        salt: b"salt".to_vec(),
    }
}

fn engine_with(server: &Double, limits: &RemoteLimits) -> Arc<dyn RemoteEngine> {
    let endpoint = server.endpoint("", None);
    connect_engine(&endpoint, &NetworkSettings::default(), limits).expect("connects")
}

/// An operation that ends with this result.
fn done(result: ActionResult) -> DoubleCall {
    DoubleCall::Done(Box::new(ExecuteResponse {
        result: Some(result),
        ..ExecuteResponse::default()
    }))
}

/// An operation that ends with this error.
fn failed(code: Code, details: Vec<Any>) -> DoubleCall {
    DoubleCall::Done(Box::new(ExecuteResponse {
        status: Some(rpc::Status {
            code: code as i32,
            message: "as planned".to_owned(),
            details,
        }),
        ..ExecuteResponse::default()
    }))
}

fn run(engine: &Arc<dyn RemoteEngine>) -> Result<Executed, RemoteError> {
    engine.execute(&action(), &|_| {}, &|| false)
}

#[test]
fn an_action_is_described_in_canonical_messages() {
    let (name, messages) = action_messages(&action()).expect("described");
    let find = |digest: Option<&bazel_remote_apis::build::bazel::remote::execution::v2::Digest>| {
        let wanted = proto::blob(digest).expect("a name");
        let (blob, bytes) = messages.iter().find(|(blob, _)| *blob == wanted).expect("among them");
        assert_eq!(*blob, BlobDigest::of(bytes));
        bytes.as_slice()
    };
    let message = Action::decode(find(Some(&proto::digest(&name)))).expect("an action");
    assert_eq!(messages.len(), 5, "three directories, the command, the action");
    let command = Command::decode(find(message.command_digest.as_ref())).expect("a command");
    let properties = |platform: Option<bazel_remote_apis::build::bazel::remote::execution::v2::Platform>| {
        let list = platform.expect("a platform").properties;
        list.into_iter()
            .map(|p| format!("{}={}", p.name, p.value))
            .collect::<Vec<_>>()
    };
    #[expect(deprecated, reason = "old servers look here alone")]
    let of_command = command.platform.clone();
    assert_eq!(properties(of_command), ["ISA=x86-64", "OSFamily=linux"]);
    assert_eq!(properties(message.platform.clone()), ["ISA=x86-64", "OSFamily=linux"]);
    let variables: Vec<&str> = command.environment_variables.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(
        (variables, &command.output_paths[..]),
        (vec!["A", "B"], &["out".to_owned()][..])
    );
    assert!(!message.do_not_cache);
    let timeout = message.timeout.expect("a time");
    assert_eq!((timeout.seconds, timeout.nanos), (90, 500_000_000));
    let root = Directory::decode(find(message.input_root_digest.as_ref())).expect("a directory");
    let files: Vec<(&str, bool)> = root.files.iter().map(|f| (f.name.as_str(), f.is_executable)).collect();
    assert_eq!(files, [("job.json", false), ("pnb", true)]);
    let inner = Directory::decode(find(root.directories[0].digest.as_ref())).expect("a directory");
    assert_eq!(
        (root.directories[0].name.as_str(), inner.files[0].name.as_str()),
        ("t", "a.dump")
    );
    assert_eq!(inner.directories[0].name, "deep");
    for path in ["/x", "../x", "", "pnb/x", "t"] {
        let mut bad = action();
        bad.files.insert(path.to_owned(), bad.files["pnb"]);
        assert!(action_messages(&bad).is_err(), "{path:?}");
    }
}

#[test]
fn an_action_runs_to_its_end() {
    let server = Double::new();
    let engine = engine_with(&server, &QUICK);
    let (record, object) = (server.has(b"record"), server.has(b"object"));
    let inner = Directory {
        files: vec![FileNode {
            name: "object".to_owned(),
            digest: Some(proto::digest(&object)),
            ..FileNode::default()
        }],
        ..Directory::default()
    };
    let root = Directory {
        files: vec![FileNode {
            name: "record".to_owned(),
            digest: Some(proto::digest(&record)),
            ..FileNode::default()
        }],
        directories: vec![DirectoryNode {
            name: "o".to_owned(),
            digest: Some(proto::digest(&BlobDigest::of(&inner.encode_to_vec()))),
        }],
        ..Directory::default()
    };
    let tree = Tree {
        root: Some(root),
        children: vec![inner],
    };
    let tree = server.has(&tree.encode_to_vec());
    let stderr = server.has(&[vec![b'a'; 100_000], vec![b'z'; 10]].concat());
    let moment = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let result = ActionResult {
        exit_code: 3,
        output_directories: vec![OutputDirectory {
            path: "out".to_owned(),
            tree_digest: Some(proto::digest(&tree)),
            ..OutputDirectory::default()
        }],
        stderr_digest: Some(proto::digest(&stderr)),
        execution_metadata: Some(ExecutedActionMetadata {
            worker: "w1".to_owned(),
            queued_timestamp: moment(10),
            worker_start_timestamp: moment(12),
            execution_start_timestamp: moment(13),
            execution_completed_timestamp: moment(20),
            ..ExecutedActionMetadata::default()
        }),
        ..ActionResult::default()
    };
    server.plan(&[]);
    server.state().operations = vec![
        vec![
            DoubleCall::Stage(Stage::Queued),
            DoubleCall::Prints("printed/hello"),
            DoubleCall::Prints("printed/hello"),
            DoubleCall::Pause(Duration::from_millis(800)),
            DoubleCall::Break(Code::Unavailable, Vec::new()),
        ],
        vec![done(result)],
    ];
    let seen = RefCell::new(Vec::new());
    let executed = engine.execute(&action(), &|step| seen.borrow_mut().push(step), &|| false);
    let executed = executed.expect("runs");
    let seen = seen.into_inner();
    assert_eq!(
        seen,
        [
            EngineProgress::Queued,
            EngineProgress::Running,
            EngineProgress::Printed(b"hello".to_vec())
        ]
    );
    let files = [("o/object".to_owned(), object), ("record".to_owned(), record)].into();
    assert_eq!((executed.exit_code, executed.files), (3, files));
    assert_eq!((executed.worker.as_str(), executed.cached), ("w1", false));
    assert_eq!((executed.queued.as_secs(), executed.ran.as_secs()), (2, 7));
    assert_eq!(executed.stderr.len(), 64 << 10);
    assert!(executed.stderr.ends_with(b"azzzzzzzzzz"));
    let calls = server.called();
    let expected = [
        "FindMissingBlobs",
        "BatchUpdateBlobs",
        "Execute",
        "Read",
        "WaitExecution",
        "Read",
        "Read",
    ];
    assert_eq!(calls, expected);
    // The messages are there now; an earlier result does not count.
    server.plan(&[]);
    server.state().operations = vec![vec![done(ActionResult {
        output_files: vec![OutputFile {
            path: "out/record".to_owned(),
            digest: Some(proto::digest(&record)),
            ..OutputFile::default()
        }],
        ..ActionResult::default()
    })]];
    let anew = EngineAction {
        accept_cached: false,
        ..action()
    };
    let executed = engine.execute(&anew, &|_| {}, &|| false).expect("runs");
    assert_eq!(executed.files, [("record".to_owned(), record)].into());
    assert_eq!(server.called(), ["FindMissingBlobs", "Execute"]);
    assert_eq!(server.state().calls[1].number, 1, "skip_cache_lookup");
}

#[test]
fn a_broken_stream_is_gone_on_with() {
    let server = Double::new();
    let engine = engine_with(&server, &QUICK);
    let break_off = |code| DoubleCall::Break(code, Vec::new());
    let queued = || DoubleCall::Stage(Stage::Queued);
    let end = || done(ActionResult::default());
    // The operation is asked for by its name; a server that was restarted has forgotten it.
    for (operations, calls) in [
        (
            vec![
                vec![queued(), break_off(Code::Unavailable)],
                vec![queued()],
                vec![end()],
            ],
            vec!["Execute", "WaitExecution", "WaitExecution"],
        ),
        (
            vec![
                vec![queued(), break_off(Code::Unavailable)],
                vec![break_off(Code::NotFound)],
                vec![end()],
            ],
            vec!["Execute", "WaitExecution", "Execute"],
        ),
        (
            vec![
                vec![break_off(Code::Unavailable)],
                vec![failed(Code::Unavailable, Vec::new())],
                vec![end()],
            ],
            vec!["Execute", "Execute", "Execute"],
        ),
    ] {
        server.plan(&[]);
        server.state().operations = operations;
        run(&engine).expect("runs");
        let called = server.called();
        let called: Vec<&str> = called.into_iter().filter(|call| call.contains("Exec")).collect();
        assert_eq!(called, calls);
    }
    // A restart takes longer than the tries of a cache, and no longer than the longest silence.
    server.plan(&[]);
    server.state().operations = vec![vec![break_off(Code::Unavailable)]; 6];
    server.state().operations.push(vec![end()]);
    run(&engine).expect("runs");
    server.plan(&[]);
    server.state().operations = vec![vec![break_off(Code::Unavailable)]; 1000];
    let hasty = RemoteLimits {
        silence: Duration::from_millis(500),
        ..QUICK
    };
    let error = run(&engine_with(&server, &hasty)).expect_err("gone");
    assert!(matches!(error, RemoteError::Gone { .. }), "{error}");
}

/// What BuildGrid says when all its threads have a call.
const TOO_MANY: Trouble = Trouble::Exhausted("Concurrent RPC limit exceeded!");

/// An operation that ends with `RESOURCE_EXHAUSTED` and these words.
fn exhausted(words: &str) -> Vec<DoubleCall> {
    vec![DoubleCall::Done(Box::new(ExecuteResponse {
        status: Some(rpc::Status {
            code: Code::ResourceExhausted as i32,
            message: words.to_owned(),
            details: Vec::new(),
        }),
        ..ExecuteResponse::default()
    }))]
}

#[test]
fn a_scheduler_with_too_many_calls_is_asked_again() {
    let server = Double::new();
    let engine = engine_with(&server, &QUICK);
    let end = || vec![done(ActionResult::default())];
    let lost = vec![
        DoubleCall::Stage(Stage::Queued),
        DoubleCall::Break(Code::Unavailable, Vec::new()),
    ];
    let executions = || {
        let called = server.called();
        called
            .into_iter()
            .filter(|call| call.contains("Exec"))
            .collect::<Vec<_>>()
    };
    // More often than the four times after other faults; the operation that it has keeps its name.
    let refused = [vec![("Execute", TOO_MANY); 5], vec![("WaitExecution", TOO_MANY); 5]].concat();
    server.plan(&refused);
    server.state().operations = vec![lost, end()];
    run(&engine).expect("runs");
    assert_eq!(executions(), [vec!["Execute"; 6], vec!["WaitExecution"; 6]].concat());
    // The same once it had the action; but an action that is too much for a worker stays so.
    server.plan(&[]);
    server.state().operations = [vec![exhausted("Concurrent RPC limit exceeded!"); 5], vec![end()]].concat();
    run(&engine).expect("runs");
    assert_eq!(executions(), ["Execute"; 6]);
    server.plan(&[]);
    server.state().operations = vec![exhausted("no memory"), end()];
    let error = run(&engine).expect_err("refused");
    assert!(matches!(error, RemoteError::Execution { .. }), "{error}");
    assert_eq!(executions(), ["Execute"]);
}

#[test]
fn a_scheduler_that_goes_on_to_refuse_is_named_with_its_words() {
    let server = Double::new();
    let limits = RemoteLimits {
        busy: Duration::from_millis(1200),
        ..QUICK
    };
    let engine = engine_with(&server, &limits);
    // The wait for the server is none for a worker.
    let soon = EngineAction {
        queue_timeout: Duration::from_millis(300),
        ..action()
    };
    server.plan(&vec![("Execute", TOO_MANY); 1000]);
    let error = engine.execute(&soon, &|_| {}, &|| false).expect_err("busy");
    assert_eq!(error.loss(), Loss::Server);
    let (said, hint) = (error.to_string(), error.hint().expect("a way out").into_owned());
    let begin = format!("get an answer from grpc://{}: it refused the call ", server.address);
    let end = " times within 2 s: RESOURCE_EXHAUSTED: Concurrent RPC limit exceeded!";
    assert!(said.starts_with(&begin) && said.ends_with(end), "{said}");
    assert!(
        hint.contains("--remote-jobs") && hint.contains("thread-pool-size"),
        "{hint}"
    );
    // Neither does an action begin anew without end that is refused whenever it has run.
    server.plan(&[]);
    let mut ran = vec![DoubleCall::Stage(Stage::Queued), DoubleCall::Stage(Stage::Executing)];
    ran.extend(exhausted("Storage cleanup in progress, try again later"));
    server.state().operations = vec![ran; 1000];
    let error = engine.execute(&soon, &|_| {}, &|| false).expect_err("busy");
    assert!(matches!(error, RemoteError::Busy { .. }), "{error}");
    // What is too long will be so again.
    let too_long = Trouble::Exhausted("Received message larger than max (5 vs. 4)");
    server.plan(&vec![("Execute", too_long); 1000]);
    let error = engine.execute(&soon, &|_| {}, &|| false).expect_err("too long");
    assert!(matches!(error, RemoteError::Gone { .. }), "{error}");
    assert_eq!(server.called().iter().filter(|call| **call == "Execute").count(), 1);
    // Nothing is on the server that could go on, and nobody waits for the end of the pause.
    let patient = engine_with(
        &server,
        &RemoteLimits {
            wait: Duration::from_secs(20),
            ..QUICK
        },
    );
    server.plan(&vec![("Execute", TOO_MANY); 1000]);
    let begin = std::time::Instant::now();
    let later = || begin.elapsed() > Duration::from_millis(500);
    let error = patient.execute(&action(), &|_| {}, &later).expect_err("cancelled");
    assert!(matches!(error, RemoteError::Cancelled { told: true, .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(!server.called().contains(&"CancelOperation"), "{:?}", server.called());
}

#[test]
fn refusals_have_their_meaning() {
    let server = Double::new();
    let engine = engine_with(&server, &QUICK);
    let blob = BlobDigest::of(b"lost");
    let detail = Any {
        type_url: "type.googleapis.com/google.rpc.PreconditionFailure".to_owned(),
        value: PreconditionFailure {
            violations: vec![Violation {
                kind: "MISSING".to_owned(),
                subject: format!("blobs/{blob}"),
            }],
        }
        .encode_to_vec(),
    };
    let status = rpc::Status {
        code: Code::FailedPrecondition as i32,
        message: "as planned".to_owned(),
        details: vec![detail.clone()],
    };
    let refused = |op: DoubleCall| {
        server.plan(&[]);
        server.state().operations = vec![vec![op]];
        run(&engine).expect_err("refused")
    };
    for op in [
        failed(Code::FailedPrecondition, vec![detail]),
        DoubleCall::Break(Code::FailedPrecondition, status.encode_to_vec()),
    ] {
        let error = refused(op);
        assert!(
            matches!(&error, RemoteError::Lacks { blob: lost, .. } if *lost == blob),
            "{error}"
        );
    }
    for op in [
        failed(Code::FailedPrecondition, Vec::new()),
        DoubleCall::Break(Code::FailedPrecondition, Vec::new()),
        failed(Code::DeadlineExceeded, Vec::new()),
        DoubleCall::Done(Box::default()),
    ] {
        let error = refused(op);
        assert!(matches!(error, RemoteError::Execution { .. }), "{error}");
    }
    // Trees that no worker of pnb makes.
    let link = Directory {
        symlinks: vec![SymlinkNode::default()],
        ..Directory::default()
    };
    let up = Directory {
        files: vec![FileNode {
            name: "..".to_owned(),
            digest: Some(proto::digest(&blob)),
            ..FileNode::default()
        }],
        ..Directory::default()
    };
    let lacks = Directory {
        directories: vec![DirectoryNode {
            name: "o".to_owned(),
            digest: Some(proto::digest(&blob)),
        }],
        ..Directory::default()
    };
    for (root, problem) in [
        (link, "symbolic links"),
        (up, "the name \"..\""),
        (lacks, "lacks the directory \"o\""),
    ] {
        let tree = Tree {
            root: Some(root),
            children: Vec::new(),
        };
        let tree = server.has(&tree.encode_to_vec());
        let error = refused(done(ActionResult {
            output_directories: vec![OutputDirectory {
                path: "out".to_owned(),
                tree_digest: Some(proto::digest(&tree)),
                ..OutputDirectory::default()
            }],
            ..ActionResult::default()
        }));
        assert_eq!(error.loss(), Loss::Result);
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn an_action_that_nobody_takes_or_wants_is_cancelled() {
    let server = Double::new();
    let engine = engine_with(&server, &QUICK);
    let hanging = |stage| vec![vec![DoubleCall::Stage(stage), DoubleCall::Hang]];
    server.plan(&[]);
    server.state().operations = hanging(Stage::Queued);
    let soon = EngineAction {
        queue_timeout: Duration::from_millis(500),
        ..action()
    };
    let error = engine.execute(&soon, &|_| {}, &|| false).expect_err("nobody took it");
    let RemoteError::NoWorker { properties, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(properties, "ISA=x86-64, OSFamily=linux");
    assert_eq!(server.called().last(), Some(&"CancelOperation"));
    // One that runs is not in the queue.
    server.plan(&[]);
    server.state().operations = hanging(Stage::Executing);
    let polls = Cell::new(0);
    let later = || {
        polls.set(polls.get() + 1);
        polls.get() > 8
    };
    let error = engine.execute(&soon, &|_| {}, &later).expect_err("cancelled");
    assert!(matches!(error, RemoteError::Cancelled { .. }), "{error}");
    assert_eq!(server.called().last(), Some(&"CancelOperation"));
    assert_eq!(server.state().calls.last().expect("a call").resource, "operations/1");
}

#[test]
fn a_silent_engine_is_asked_whether_it_is_there() {
    let server = Double::new();
    let limits = RemoteLimits {
        silence: Duration::from_millis(300),
        ..QUICK
    };
    let engine = engine_with(&server, &limits);
    server.plan(&[]);
    server.state().operations = vec![vec![DoubleCall::Stage(Stage::Executing), DoubleCall::Hang]];
    let polls = Cell::new(0);
    let soon = || {
        polls.set(polls.get() + 1);
        // The third question is not answered.
        if server
            .called()
            .iter()
            .filter(|call| **call == "GetCapabilities")
            .count()
            == 2
        {
            server.state().plan = vec![("GetCapabilities", Trouble::Silence)];
        }
        polls.get() > 100
    };
    let error = engine.execute(&action(), &|_| {}, &soon).expect_err("gone");
    assert!(matches!(error, RemoteError::Gone { .. }), "{error}");
    assert_eq!(
        server
            .called()
            .iter()
            .filter(|call| **call == "GetCapabilities")
            .count(),
        3
    );
}

#[test]
fn an_engine_that_has_too_many_calls_is_there() {
    let server = Double::new();
    let limits = RemoteLimits {
        silence: Duration::from_millis(300),
        ..QUICK
    };
    let engine = engine_with(&server, &limits);
    server.plan(&vec![("GetCapabilities", TOO_MANY); 1000]);
    server.state().operations = vec![vec![
        DoubleCall::Stage(Stage::Executing),
        DoubleCall::Pause(Duration::from_millis(1500)),
        done(ActionResult::default()),
    ]];
    let begin = std::time::Instant::now();
    run(&engine).expect("runs");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let asked = server
        .called()
        .into_iter()
        .filter(|call| *call == "GetCapabilities")
        .count();
    assert!((1..6).contains(&asked), "{asked}");
}

#[test]
fn a_cache_is_no_engine() {
    let server = Double::new();
    let network = NetworkSettings::default();
    server.state().capabilities.execution_capabilities = None;
    let error = connect_engine(&server.endpoint("", None), &network, &QUICK).expect_err("no engine");
    assert!(matches!(error, RemoteError::Unsupported { .. }), "{error}");
    let mut endpoint = server.endpoint("", None);
    endpoint.address = "http://127.0.0.1:1/x".parse().expect("an address");
    let error = connect_engine(&endpoint, &network, &QUICK).expect_err("no engine");
    assert_eq!(error.loss(), Loss::Here);
}
