//! What BuildGrid does that the tests of pnb rely on.

use crate::{
    buildgrid::{BuildGrid, BuildGridCache, Guard, SILENCE, WorkerOptions, token, token_until},
    client::{Job, Papers, RemoteClient, digest_of, output},
    ground::{Ground, STAGE_TWO},
    process::{is_there, wait_until, with_command_line},
    tls::Authority,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::ActionResult;
use std::{
    thread,
    time::{Duration, Instant},
};
use tonic::Code;

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: PostgreSQL, BuildGrid and two workers; cargo test -- --ignored nightly::"]
    fn an_action_runs_once_and_a_worker_that_dies_loses_nothing() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut farm = BuildGrid::start(dir.path(), &["one", "two"].map(WorkerOptions::named));
        let client = RemoteClient::connect(&farm.url()).expect("connected");
        let stated = client.capabilities().expect("stated");
        assert!(stated.execution_capabilities.expect("execution").exec_enabled);
        let hello = Job {
            arguments: &["/bin/sh", "-c", "echo hi > out; /usr/bin/env"],
            environment: &[("OWN", "1")],
            output_paths: &["out"],
            platform: &[("OSFamily", "linux"), ("pnb-sandbox", "full")],
            ..Job::default()
        };
        let first = client.run(&hello).expect("run");
        assert!(!first.cached_result);
        assert_eq!(output(&client, &first, "out"), b"hi\n");
        let result = first.result.as_ref().expect("a result");
        let worker = result.execution_metadata.as_ref().expect("stated").worker.clone();
        assert!(worker.contains("one") || worker.contains("two"), "{worker}");
        assert!(client.run(&hello).expect("run").cached_result);

        // Each worker has a name that an action may ask for.
        for name in ["one", "two"] {
            let platform = [("pnb-builder", name)];
            let job = Job {
                platform: &platform,
                ..hello.clone()
            };
            let ran = client.run(&job).expect("run").result.expect("a result");
            let worker = ran.execution_metadata.expect("stated").worker;
            assert!(worker.contains(name), "{worker}");
        }
        // A property that the scheduler does not know.
        let unknown = Job {
            platform: &[("colour", "green")],
            ..hello.clone()
        };
        let refused = client.run(&unknown).expect_err("refused");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

        // The worker dies in the middle of an action: the other one runs it from its beginning.
        let sleep = format!("sleep 4.5{}", std::process::id());
        let script = format!("{sleep}; echo done > out");
        let long = Job {
            arguments: &["/bin/sh", "-c", &script],
            ..hello.clone()
        };
        thread::scope(|scope| {
            let begin = Instant::now();
            let answer = scope.spawn(|| client.run(&long).expect("run"));
            let begun = wait_until(Duration::from_secs(30), || farm.running(&sleep).len() == 1);
            assert!(begun, "no worker runs the action");
            let victim = farm.running(&sleep)[0];
            farm.kill_worker(victim);
            // No process of the action is left behind.
            let gone = wait_until(Duration::from_secs(2), || with_command_line(&sleep).is_empty());
            assert!(gone, "{:?} still run", with_command_line(&sleep));
            let answer = answer.join().expect("an answer");
            assert_eq!(output(&client, &answer, "out"), b"done\n");
            assert!(begin.elapsed() > Duration::from_secs(SILENCE), "{:?}", begin.elapsed());
            let ran = answer
                .result
                .expect("a result")
                .execution_metadata
                .expect("stated")
                .worker;
            assert!(
                ran.contains(["two", "one"][victim]),
                "the dead worker {ran} has answered"
            );
            farm.start_worker(victim);
        });

        // The scheduler comes back with the workers, and without its action cache.
        farm.restart_scheduler();
        let after = RemoteClient::connect(&farm.url()).expect("connected");
        let again = after.run(&hello).expect("run");
        assert!(!again.cached_result);
        assert_eq!(output(&after, &again, "out"), b"hi\n");
    }

    #[test]
    #[ignore = "nightly: PostgreSQL, BuildGrid and two workers; cargo test -- --ignored nightly::"]
    fn a_stage_whose_worker_dies_runs_on_the_other_one() {
        let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
        let mut farm = BuildGrid::start(dir.path(), &["one", "two"].map(WorkerOptions::named));
        ground.word("wait 6");
        let url = farm.url();
        let far = thread::scope(|scope| {
            let far = scope.spawn(|| ground.build("far", &["--remote", &url]));
            let begun = wait_until(Duration::from_secs(60), || farm.running(STAGE_TWO).len() == 1);
            assert!(begun, "no worker runs the stage");
            let victim = farm.running(STAGE_TWO)[0];
            let stage = farm.processes(victim, STAGE_TWO);
            farm.kill_worker_alone(victim);
            let ended = wait_until(Duration::from_secs(10), || stage.iter().all(|pid| !is_there(*pid)));
            assert!(ended, "{stage:?} still run");
            let other = wait_until(Duration::from_secs(60), || farm.running(STAGE_TWO) == [1 - victim]);
            assert!(other, "the other worker does not run the stage");
            far.join().expect("an end")
        });
        assert_eq!(far.well().0.len(), 4, "{}", far.said);
        assert_eq!(far.warnings(), Vec::<String>::new());
        let near = ground.build("near", &[]);
        near.well();
        for output in ["out", "version"] {
            assert_eq!(
                ground.output("far", "three", output),
                ground.output("near", "three", output)
            );
        }
    }

    #[test]
    #[ignore = "nightly: PostgreSQL, BuildGrid and a worker; cargo test -- --ignored nightly::"]
    fn a_build_outlives_a_restart_of_the_scheduler() {
        let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
        let mut farm = BuildGrid::start(dir.path(), &["one"].map(WorkerOptions::named));
        ground.word("wait 8");
        let url = farm.url();
        let far = thread::scope(|scope| {
            let far = scope.spawn(|| ground.build("far", &["--remote", &url, "--remote-timeout", "60"]));
            let begun = wait_until(Duration::from_secs(60), || farm.running(STAGE_TWO).len() == 1);
            assert!(begun, "no worker runs the stage");
            farm.restart_scheduler();
            // A worker that was not heard of in time ends when it is told so, and its stage waits for another one.
            wait_until(Duration::from_secs(110), || {
                farm.keep_workers();
                far.is_finished()
            });
            far.join().expect("an end")
        });
        assert_eq!(far.well().0.len(), 4, "{}", far.said);
        assert_eq!(far.warnings(), Vec::<String>::new());
        let near = ground.build("near", &[]);
        near.well();
        assert_eq!(
            ground.output("far", "three", "out"),
            ground.output("near", "three", "out")
        );
    }

    #[test]
    #[ignore = "nightly: BuildGrid; cargo test -- --ignored nightly::"]
    fn a_reader_reads_and_does_not_write() {
        let dir = tempfile::tempdir().expect("scratch");
        let cache = BuildGridCache::start(dir.path(), &Guard::Tokens);
        let client = |token: Option<String>| {
            let papers = Papers {
                token,
                ..Papers::default()
            };
            RemoteClient::connect_with(&cache.url(), &papers).expect("connected")
        };
        let (writer, reader) = (client(Some(token("writer"))), client(Some(token("reader"))));
        let blob = writer.put(b"a blob").expect("taken");
        let action = digest_of(b"an action");
        let result = ActionResult {
            stdout_raw: b"said".to_vec(),
            ..Default::default()
        };
        writer.publish(&action, &result).expect("taken");

        assert_eq!(reader.get(&blob).expect("read"), b"a blob");
        assert_eq!(
            reader.cached(&action).expect("read").expect("there").stdout_raw,
            b"said"
        );
        let refused = reader.put(b"another blob").expect_err("refused");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        let refused = reader.publish(&digest_of(b"another"), &result).expect_err("refused");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        assert_eq!(writer.missing(&[digest_of(b"another blob")]).expect("read").len(), 1);

        // A build takes what is there, is refused once, and ends well.
        let (ground, papers) = (Ground::new(), dir.path().join("token"));
        let build = |store: &str, subject: &str| {
            std::fs::write(&papers, token(subject)).expect("written");
            let file = papers.to_str().expect("UTF-8");
            ground.build_with(store, &cache.url(), &["--remote-token-file", file])
        };
        let first = build("first", "writer");
        assert_eq!((first.well().0.len(), first.warnings()), (4, vec![]), "{}", first.said);
        ground.word("another");
        let second = build("second", "reader");
        assert_eq!(second.well().0, ["three", "two"], "{}", second.said);
        let said = second.warnings();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("failed to write to the remote cache ADDRESS: UNAUTHENTICATED")
                && said[0].ends_with("; nothing more is sent to it"),
            "{said:?}"
        );
        for token in [None, Some(token_until("writer", 1)), Some("no token".to_owned())] {
            let refused = client(token).get(&blob).expect_err("refused");
            assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        }
    }

    #[test]
    #[ignore = "nightly: BuildGrid, twice; cargo test -- --ignored nightly::"]
    fn a_client_without_a_certificate_is_refused_where_one_is_wanted() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let papers = |client: Option<&Authority>| Papers {
            authority: Some(authority.pem()),
            identity: client.map(|authority| authority.pair("client")),
            token: None,
        };
        let asked = |cache: &BuildGridCache, papers: &Papers| {
            let client = RemoteClient::connect_with(&cache.url(), papers)?;
            client.put(b"a blob").map_err(|status| status.to_string())
        };
        for mutual in [false, true] {
            let dir = tempfile::tempdir().expect("scratch");
            let guard = if mutual {
                Guard::MutualTls(&authority)
            } else {
                Guard::Tls(&authority)
            };
            let cache = BuildGridCache::start(dir.path(), &guard);
            asked(&cache, &papers(Some(&authority))).expect("taken");
            assert_eq!(asked(&cache, &papers(None)).is_err(), mutual);
            assert_eq!(asked(&cache, &papers(Some(&stranger))).is_err(), mutual);
            // The server's certificate is of another authority than the one that is trusted.
            let wrong = Papers {
                authority: Some(stranger.pem()),
                ..papers(Some(&authority))
            };
            asked(&cache, &wrong).expect_err("refused");
        }
    }
}
