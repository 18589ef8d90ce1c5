//! A scheduler that refuses more calls at once, as BuildGrid does when all its threads have one.

use crate::{
    buildgrid::{BuildGrid, WorkerOptions},
    client::{Job, RemoteClient},
    ground::Ground,
    process::{READY, wait_until},
    workplace::engine,
};
use std::{
    thread,
    time::{Duration, Instant},
};
use tonic::Code;

/// Calls that a build on an engine makes, and how often each is refused. Without a word of the server that it is busy, an upload would not be
/// tried again at all, and everything else four times.
const REFUSALS: [(&str, u32); 6] = [
    ("GetCapabilities", 1),
    ("GetActionResult", 1),
    ("FindMissingBlobs", 1),
    ("BatchUpdateBlobs", 1),
    ("Write", 1),
    ("Execute", 4),
];

#[test]
fn a_build_outlives_a_scheduler_that_refuses_for_a_while() {
    let (ground, (farm, seen)) = (Ground::new(), engine(Box::new(|_, _| {})));
    farm.kept().faults.busy = REFUSALS.into();
    let far = ground.build("far", &["--remote", &farm.url()]);
    assert_eq!(far.well().0.len(), 4, "{}", far.said);
    assert_eq!(far.said.matches(" on grpc://").count(), 4, "{}", far.said);
    assert_eq!(far.warnings(), Vec::<String>::new());
    let left: Vec<(&str, u32)> = farm.kept().faults.busy.clone().into_iter().collect();
    assert!(left.iter().all(|(_, left)| *left == 0), "{left:?}");
    let ran = seen.lock().expect("whole").len();
    assert_eq!(farm.called("Execute"), ran + 4);
    ground.build("here", &[]).well();
    assert_eq!(
        ground.output("far", "three", "out"),
        ground.output("here", "three", "out")
    );
}

#[test]
fn one_that_goes_on_to_refuse_is_an_error_with_its_words_and_a_way_out() {
    let (ground, (farm, seen)) = (Ground::new(), engine(Box::new(|_, _| {})));
    let url = farm.url();
    for call in ["GetCapabilities", "FindMissingBlobs", "Execute"] {
        farm.kept().faults.busy = [(call, u32::MAX)].into();
        let far = ground.build("far", &["--remote", &url, "--remote-queue-timeout", "2"]);
        // As an engine that is not there.
        assert_eq!(far.code, 4, "{call}: {}", far.said);
        let error = far
            .said
            .lines()
            .find(|line| line.starts_with("error: "))
            .expect("an error");
        let begin = format!("error: failed to get an answer from {url}: it refused the call ");
        let end = " s: RESOURCE_EXHAUSTED: Concurrent RPC limit exceeded!";
        assert!(
            error.starts_with(&begin) && error.ends_with(end),
            "{call}: {}",
            far.said
        );
        let hint = far
            .said
            .lines()
            .find(|line| line.starts_with("hint: "))
            .expect("a hint");
        assert!(
            hint.contains("--remote-jobs") && hint.contains("thread-pool-size"),
            "{hint}"
        );
    }
    assert!(seen.lock().expect("whole").is_empty(), "nothing ran");
}

#[test]
fn a_full_engine_is_no_busy_one() {
    let (ground, (farm, seen)) = (Ground::new(), engine(Box::new(|_, _| {})));
    farm.kept().faults.full = true;
    let far = ground.build("far", &["--remote", &farm.url()]);
    assert_eq!(far.code, 4, "{}", far.said);
    let said = format!(
        "error: failed to write to the remote cache {}: RESOURCE_EXHAUSTED: no space is left\n",
        farm.url()
    );
    assert!(far.said.contains(&said), "{}", far.said);
    assert!(seen.lock().expect("whole").is_empty(), "nothing ran");
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    /// Threads of the scheduler.
    const THREADS: u32 = 6;
    /// How long others have all of them.
    const OTHERS: Duration = Duration::from_secs(12);

    #[test]
    #[ignore = "nightly: PostgreSQL, BuildGrid and a worker; cargo test -- --ignored nightly::"]
    fn a_build_waits_until_buildgrid_has_a_thread_for_it() {
        let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
        let mut farm = BuildGrid::with_threads(dir.path(), &["one"].map(WorkerOptions::named), THREADS);
        let url = farm.url();
        let asking = RemoteClient::connect(&url).expect("connected");
        // Each action that waits has a thread, and no worker has the property.
        let waiting = asking.put_job(&Job {
            arguments: &["/bin/true"],
            platform: &[("kvm", "yes")],
            skip_cache: true,
            ..Job::default()
        });
        let waiting = waiting.expect("taken");
        let others: Vec<RemoteClient> = (0..2 * THREADS)
            .map(|_| RemoteClient::connect(&url).expect("connected"))
            .collect();
        let is_refused = || {
            let answer = asking.capabilities();
            answer.is_err_and(|status| status.code() == Code::ResourceExhausted)
        };
        let line = ["--remote", &url, "--remote-place", "workers"];
        let begin = Instant::now();
        let far = thread::scope(|scope| {
            for other in &others {
                let waiting = &waiting;
                scope.spawn(move || {
                    // Whoever is refused comes again.
                    while begin.elapsed() < OTHERS {
                        let left = OTHERS.saturating_sub(begin.elapsed());
                        if other.execute_for(waiting, left).is_err() {
                            thread::sleep(Duration::from_millis(200));
                        }
                    }
                });
            }
            assert!(wait_until(READY, is_refused), "there are threads for everybody");
            let build = scope.spawn(|| ground.build("far", &line));
            while !build.is_finished() {
                // A worker that is refused ends, and is started again as by systemd.
                farm.keep_workers();
                thread::sleep(Duration::from_millis(200));
            }
            build.join().expect("an end")
        });
        assert_eq!(far.well().0.len(), 4, "{}", far.said);
        assert_eq!(far.warnings(), Vec::<String>::new());
        ground.build("here", &[]).well();
        assert_eq!(
            ground.output("far", "three", "out"),
            ground.output("here", "three", "out")
        );
    }
}
