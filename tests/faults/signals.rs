//! Builds that are interrupted, lose their terminal or their reader, and builds beside others.

use crate::{
    invariants::{BUILD, Subject, whole_objects},
    project::{lock_with, text},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

/// A stage that runs until it is stopped.
const ENDLESS: &str = "summary = \"Endless\"\nroot = \"agent\"\ncommand = [\"/usr/sbin/powernode-agent\"]\n\n\
                       [outputs]\nout = { kind = \"file\" }\n";
/// Its program, which says when it has begun.
const PROGRAM: &str = "#include <unistd.h>\nint main(void) { write(1, \"begun\\n\", 6); for (;;) pause(); }\n";

/// Starts `pnb` without a limit of time and waits until it has printed `line` on standard error.
fn started(subject: &Subject, arguments: &[&str], line: &str) -> Child {
    let limited = subject.checkout.pnb(arguments);
    let arguments: Vec<_> = limited.get_args().skip(1).collect();
    // A program that was started in the background of a script ignores interrupts, and what it starts inherits that.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,HUP,TERM").arg(arguments[0]);
    command.args(&arguments[1..]).current_dir(subject.checkout.path());
    command
        .env("PNB_STORE", subject.store())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let said: Vec<String> = lines
        .by_ref()
        .map_while(Result::ok)
        .take_while(|said| !said.contains(line))
        .collect();
    assert!(
        child.try_wait().expect("asked").is_none(),
        "it ended: {}",
        said.join("\n")
    );
    // The rest is read, so that the pipe does not fill.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// Processes whose command line or working directory names the store or the project.
fn left_running(subject: &Subject) -> Vec<String> {
    let marks = [subject.store(), subject.checkout.path().to_owned()];
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new("/proc").max_depth(1).min_depth(1) {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if marks
            .iter()
            .any(|mark| line.contains(&*mark.to_string_lossy()) || cwd.starts_with(mark))
        {
            found.push(format!("{name}: {line}"));
        }
    }
    found
}

/// A subject with the endless stage. Its root is the agent, which is a program that waits.
fn endless() -> Subject {
    let subject = Subject::new();
    let root = subject.checkout.path();
    fs::write(root.join("wait.c"), PROGRAM).expect("written");
    subject.checkout.sh("cc -static -O1 -o waits wait.c");
    let program = fs::read(root.join("waits")).expect("compiled");
    fs::write(root.join("lockfile.toml"), lock_with("waits", &program)).expect("written");
    fs::write(
        root.join("stages/files.toml"),
        "[[file]]\nname = \"agent\"\npath = \"waits\"\n",
    )
    .expect("written");
    fs::create_dir_all(root.join("stages/endless")).expect("made");
    fs::write(root.join("stages/endless/stage.toml"), ENDLESS).expect("written");
    subject.with_present_outputs()
}

#[test]
fn an_interrupted_build_ends_its_stages_and_leaves_nothing() {
    let subject = endless();
    for (signals, by) in [
        (&[Signal::SIGINT][..], "once"),
        (&[Signal::SIGINT, Signal::SIGINT], "twice"),
        (&[Signal::SIGTERM], "by its manager"),
        (&[Signal::SIGHUP], "by its terminal"),
        (&[Signal::SIGKILL], "at once"),
    ] {
        let mut child = started(&subject, &["build", "--stage", "endless", "--verbose"], "begun");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        for signal in signals {
            kill(pid, *signal).expect("it runs");
        }
        let status = child.wait().expect("ends");
        assert!(!status.success(), "{by}: {status}");
        assert!(
            status.signal().is_some() || status.code().is_some_and(|code| code >= 1),
            "{by}: {status}"
        );
        // The kernel ends what is in the sandbox with pid 1; it may take a moment on a busy machine.
        let mut left = left_running(&subject);
        for _ in 0..600 {
            if left.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            left = left_running(&subject);
        }
        assert!(left.is_empty(), "{by}: {left:?}");
        subject.holds(&format!("interrupted {by}"), &BTreeSet::new());
        subject.remove_store();
    }
}

#[test]
fn a_reader_that_goes_away_does_not_break_the_store() {
    let subject = Subject::new();
    let mut command = subject.build();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    drop(child.stdout.take());
    drop(child.stderr.take());
    child.wait().expect("ends");
    subject.holds("a closed pipe", &BTreeSet::new());
    // A listing into a pipe that is closed after a line ends quietly.
    let output = Command::new("sh")
        .arg("-c")
        .arg("\"$PNB\" graph --stage agent --json | head -c 1; \"$PNB\" help | head -n 1")
        .env("PNB", env!("CARGO_BIN_EXE_pnb"))
        .current_dir(subject.checkout.path())
        .output()
        .expect("starts");
    assert!(
        !text(&output).contains("panicked") && !text(&output).contains("Broken pipe"),
        "{}",
        text(&output)
    );
}

#[test]
fn two_builders_and_a_collector_share_a_store() {
    let subject = Subject::new();
    for round in 0..5 {
        let builders: Vec<Child> = (0..2)
            .map(|_| {
                let mut command = subject.build();
                command.stdout(Stdio::null()).stderr(Stdio::piped());
                command.spawn().expect("starts")
            })
            .collect();
        let mut collector = subject.checkout.pnb(&["store", "gc"]);
        let collector = collector
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        for builder in builders {
            let output = builder.wait_with_output().expect("ends");
            let busy = text(&output).contains("another pnb uses it");
            assert!(output.status.success() || busy, "round {round}: {}", text(&output));
        }
        let output = collector.wait_with_output().expect("ends");
        let busy = text(&output).contains("another pnb uses it");
        assert!(output.status.success() || busy, "round {round}: {}", text(&output));
        whole_objects(&subject.store(), &format!("round {round}"));
        subject.holds(&format!("round {round}"), &BTreeSet::new());
        if round % 2 == 0 {
            subject.remove_store();
        }
    }
}

#[test]
fn a_clock_that_is_ten_years_wrong_changes_no_output_and_loses_nothing() {
    let subject = Subject::new();
    let good = subject.build().output().expect("starts");
    assert!(good.status.success(), "{}", text(&good));
    // The collector keeps what the newest build needs; that is what a clock may not make it lose.
    let collected = subject.checkout.pnb(&["store", "gc"]).output().expect("starts");
    assert!(collected.status.success(), "{}", text(&collected));
    let valid = whole_objects(&subject.store(), "before");
    assert!(!valid.is_empty());
    for when in ["2016-11-29", "2036-11-29"] {
        // The store looks ten years older or newer than the clock says, as it does after the clock was set.
        let touched = Command::new("find")
            .arg(subject.store())
            .args(["-exec", "touch", "-h", "-d", when, "{}", "+"])
            .status()
            .expect("find starts");
        assert!(touched.success());
        for arguments in [&BUILD[..], &["store", "verify"], &["store", "gc"]] {
            let output = subject.checkout.pnb(arguments).output().expect("starts");
            assert!(output.status.success(), "{when} {arguments:?}: {}", text(&output));
        }
        subject.holds(when, &valid);
    }
}
