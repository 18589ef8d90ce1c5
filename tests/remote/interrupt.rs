//! A build that a signal ends while an engine has stages of it.

use crate::{
    double::{Executed, RemoteDouble},
    engine::Casd,
    ground::Ground,
    process::{READY, wait_until},
    project::text,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Output},
};

/// An engine whose workers never take anything.
fn queue() -> RemoteDouble {
    RemoteDouble::with_worker(|_, _| Executed::Queued)
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("sent");
}

/// Sends the signal, and returns what it said by its end.
fn end_by(child: Child, signal: Signal) -> Output {
    send(&child, signal);
    let done = child.wait_with_output().expect("ends");
    assert_eq!(done.status.signal(), Some(signal as i32), "{}", text(&done));
    done
}

#[test]
fn the_end_of_a_build_by_a_signal_cancels_what_the_engine_has() {
    let ground = Ground::new();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let double = queue();
        let url = double.url();
        let child = ground.spawn("far", &["build", "--stage", "agent", "--remote", &url]);
        assert!(wait_until(READY, || double.called("Execute") == 1), "it never asks");
        let said = text(&end_by(child, signal));
        assert_eq!(double.called("CancelOperation"), 1, "{said}");
        let begin = match signal {
            Signal::SIGINT => format!("interrupted: cancelling what runs on {url} (Ctrl-C again does not wait)\n"),
            _ => format!("interrupted: cancelling what runs on {url}\n"),
        };
        let end = format!("\ninterrupted; what is finished is kept\ncancelled on {url}: agent/amd64\n");
        assert!(said.contains(&begin) && said.ends_with(&end), "{said}");

        let child = ground.spawn("far", &["build", "--json", "--stage", "agent", "--remote", &url]);
        assert!(wait_until(READY, || double.called("Execute") == 2), "it never asks");
        let said = text(&end_by(child, signal));
        let last: serde_json::Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
        let expected = serde_json::json!({
            "event": "interrupted", "exit": code, "server": url, "cancelled": ["agent/amd64"], "left": []
        });
        assert_eq!(last, expected, "{said}");
        assert_eq!(double.called("CancelOperation"), 2, "{said}");
    }
}

#[test]
fn the_end_of_a_second_build_by_a_signal_cancels_it_too() {
    let (ground, double) = (Ground::new(), queue());
    let url = double.url();
    let line = ["verify-repro", "--stage", "agent", "--on", "workers", "--remote", &url];
    let child = ground.spawn("far", &line);
    assert!(wait_until(READY, || double.called("Execute") == 1), "it never asks");
    let said = text(&end_by(child, Signal::SIGTERM));
    assert_eq!(double.called("CancelOperation"), 1, "{said}");
    let begin = format!("interrupted: cancelling what runs on {url}\n");
    // Nothing of it is kept: both builds have stores of their own.
    let end = format!("\ninterrupted\ncancelled on {url}: agent/amd64\n");
    assert!(said.contains(&begin) && said.ends_with(&end), "{said}");
    let stores = said
        .lines()
        .find_map(|line| line.strip_prefix("both stores lie below "));
    let stores = Path::new(stores.expect("a directory"));
    assert!(wait_until(READY, || !stores.exists()), "{}", stores.display());
}

#[test]
fn an_engine_that_does_not_answer_is_named_and_not_waited_for() {
    let (ground, double) = (Ground::new(), queue());
    double.kept().faults.cancels_never = true;
    let url = double.url();
    // The server may be silent for longer than the test may take. One Ctrl-C may arrive twice.
    let line = [
        "build",
        "--stage",
        "agent",
        "--remote",
        &url,
        "--remote-timeout",
        "3600",
    ];
    let child = ground.spawn("far", &line);
    assert!(wait_until(READY, || double.called("Execute") == 1), "it never asks");
    send(&child, Signal::SIGINT);
    let said = text(&end_by(child, Signal::SIGINT));
    assert_eq!(double.called("CancelOperation"), 1, "{said}");
    let end = format!("warning: {url} did not say that it ends agent/amd64: a worker may go on with it\n");
    assert!(said.ends_with(&end), "{said}");
}

#[test]
fn a_build_that_has_nothing_on_the_engine_ends_as_without_one() {
    let (ground, double) = (Ground::new(), queue());
    double.kept().faults.results_never = true;
    let url = double.url();
    let line = [
        "build",
        "--stage",
        "agent",
        "--remote",
        &url,
        "--remote-timeout",
        "3600",
    ];
    let child = ground.spawn("far", &line);
    assert!(
        wait_until(READY, || double.called("GetActionResult") > 0),
        "it never asks"
    );
    let said = text(&end_by(child, Signal::SIGINT));
    assert!(said.ends_with("\ninterrupted; what is finished is kept\n"), "{said}");
    assert!(!said.contains("cancel"), "{said}");
}

#[test]
fn a_worker_ends_the_stage_of_a_build_that_was_interrupted() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    let url = casd.url();
    ground
        .built("far", &["build", "--stage", "one", "--remote", &url])
        .well();
    ground.word("wait");
    let child = ground.spawn("far", &["build", "--stage", "two", "--remote", &url]);
    // The stage's own program, in its sandbox.
    assert!(
        wait_until(READY, || casd.runs("powernode-agent")),
        "the stage never begins"
    );
    let said = text(&end_by(child, Signal::SIGINT));
    assert!(
        said.contains("cancelled on grpc://") && said.ends_with(": two/amd64\n"),
        "{said}"
    );
    assert!(wait_until(READY, || !casd.runs("__stage")), "the worker still runs it");
    assert!(!casd.runs("powernode-agent"), "the stage is left behind");
}
