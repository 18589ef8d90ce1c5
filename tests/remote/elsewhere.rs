//! Stages on workers of an engine.

use crate::{
    double::RemoteDouble,
    engine::Casd,
    ground::{Ground, STAGE_TWO},
    process::{is_there, wait_until},
    workplace::engine,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::{ActionResult, ExecuteResponse, ExecutedActionMetadata};
use std::{fs, process::Command, thread, time::Duration};

fn names(stages: &[&str]) -> Vec<String> {
    stages.iter().map(|stage| (*stage).to_owned()).collect()
}

#[test]
fn stages_on_a_worker_give_what_they_give_here() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    let far = ground.build("far", &["--remote", &casd.url()]);
    let (ran, shared) = far.well();
    assert_eq!((ran.len(), shared.len()), (4, 0), "{}", far.said);
    assert_eq!(far.said.matches(" on grpc://127.0.0.1:").count(), 4, "{}", far.said);
    ground.build("here", &[]).well();
    assert_eq!(
        ground.output("far", "three", "out"),
        ground.output("here", "three", "out")
    );
    // An output that passes an input on is there, too, and a second build finds everything.
    assert_eq!(ground.output("far", "three", "version"), b"1.0\n");
    let again = ground.build("far", &["--remote", &casd.url()]);
    assert_eq!(again.well().0, Vec::<String>::new(), "{}", again.said);
    assert_eq!(ground.output("far", "three", "version"), b"1.0\n");
    // Only what was asked for came back.
    let ((few, bytes), (many, _)) = (far.objects(), ground.built("here", &["store", "path"]).objects());
    assert!(
        few < 20 && many > 300 && bytes < 1_000_000,
        "{few} objects of {bytes} bytes, {many}"
    );
    // The results are in the cache of the engine for everybody, and their content is right.
    let reader = ground.build_with("reader", &casd.url(), &["--remote-upload", "never"]);
    assert_eq!(reader.well().1.len(), 4, "{}", reader.said);
    for (stage, output) in [("two", "disk"), ("one", "version")] {
        let built = ground.built("reader", &["build", "--stage", stage, "--remote-cache", &casd.url()]);
        assert_eq!(built.well().0, Vec::<String>::new(), "{}", built.said);
        assert_eq!(
            ground.output("reader", stage, output),
            ground.output("here", stage, output)
        );
    }
}

#[test]
fn a_stage_that_fails_on_a_worker_is_told_with_its_log() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    ground.word("fail");
    let far = ground.build("far", &["--remote", &casd.url(), "--verbose"]);
    // Each line has the stage that printed it.
    for line in ["\none/amd64> the log of one\n", "\ntwo/amd64> the word is not good\n"] {
        assert_eq!(far.said.matches(line).count(), 1, "{line:?}: {}", far.said);
    }
    assert_eq!(far.code, 7, "{}", far.said);
    assert!(
        far.said
            .contains("error: failed to build two/amd64: it ended with exit code 3 on grpc://127.0.0.1:"),
        "{}",
        far.said
    );
    assert!(far.said.contains("  the word is not good"), "{}", far.said);
}

#[test]
fn the_times_of_a_build_say_where_each_stage_ran() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    let url = casd.url();
    let page = dir.path().join("times.html");
    let page = page.to_str().expect("UTF-8");
    let read = || fs::read_to_string(page).expect("written");
    let to_page = format!("--timings={page}");
    let row = |said: &str, stage: &str| -> Vec<String> {
        let mut lines = said
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect());
        let row = lines.find(|words: &Vec<String>| words.first().is_some_and(|word| *word == format!("{stage}/amd64")));
        row.expect("a row")
    };
    // One stage at home, the others on a worker.
    ground.built("far", &["build", "--stage", "one", "--timings"]).well();
    let far = ground.build("far", &["--remote", &url, "--timings"]);
    far.well();
    assert_eq!(row(&far.said, "one")[1..], ["store", "cached"], "{}", far.said);
    assert_eq!(row(&far.said, "two")[1], "worker", "{}", far.said);
    let split = far
        .said
        .lines()
        .find(|line| line.starts_with(&format!("  on {url}: queued ")));
    let split = split.unwrap_or_else(|| panic!("{}", far.said));
    assert!(
        [" s, inputs ", " s, ran ", " s, outputs "]
            .iter()
            .all(|part| split.contains(part)),
        "{split}"
    );
    ground.word("second");
    let told = ground.build(
        "far",
        &["--remote", &url, "--remote-place", "workers", "--json", "--timings"],
    );
    let timing = told
        .said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut timing = timing.filter(|value| value["event"] == "timing" && value["node"] == "two/amd64");
    let at = timing.next().expect("a line")["at"].clone();
    assert_eq!(
        (&at["place"], &at["name"]),
        (&"worker".into(), &url.as_str().into()),
        "{at}"
    );
    assert!(
        at["ran_ms"].as_u64().is_some_and(|ms| ms > 0) && at["inputs_ms"].is_u64(),
        "{at}"
    );
    ground.word("third");
    ground
        .build("far", &["--remote", &url, "--remote-place", "workers", &to_page])
        .well();
    let shown = read();
    assert!(
        shown.contains(&format!("<div class=\"place\">on {url}: queued ")),
        "{shown}"
    );
    assert!(shown.contains("that were in the store: 2."), "{shown}");
    // Another store has them from the cache, and one that has nothing at all runs them here.
    let near = ground.build("near", &["--remote-cache", &url, &to_page]);
    near.well();
    let from_cache = read();
    assert!(
        from_cache.contains("<summary>From a cache: 2</summary>")
            && from_cache.contains(&format!("<li>two/amd64, {url}")),
        "{from_cache}"
    );
    let near = ground.build("near", &["--remote-cache", &url, "--timings"]);
    assert_eq!(row(&near.said, "two")[1..], ["cache", "cached"], "{}", near.said);
    let here = ground.build("here", &["--timings"]);
    assert_eq!(row(&here.said, "two")[1], "here", "{}", here.said);
}

/// The line of a log that says where it is is another for each store.
fn without_log(said: &str) -> String {
    let from = said.find("error: ").expect("an error");
    let lines = said[from..].lines().map(|line| match line.strip_prefix("log: ") {
        Some(path) => {
            let log = fs::read_to_string(path).expect("the log is kept here");
            format!("log: {log}\n")
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn a_stage_that_fails_is_told_as_at_home_but_for_the_place() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    let url = casd.url();
    for (word, problem) in [
        ("fail", "it ended with exit code 3"),
        ("nothing", "output \"disk\": "),
        (
            "refuse",
            "it ended well although the sandbox refused system calls:\n  mknodat(",
        ),
    ] {
        ground.word(word);
        let (here, far) = (ground.build("here", &[]), ground.build("far", &["--remote", &url]));
        assert_eq!((here.code, far.code), (7, 7), "{}", far.said);
        let told = without_log(&far.said);
        assert!(told.contains(&format!(" on {url}")), "{told}");
        assert_eq!(told.replace(&format!(" on {url}"), ""), without_log(&here.said));
        let expected = format!("error: failed to build two/amd64: {problem}");
        assert!(without_log(&here.said).starts_with(&expected), "{}", here.said);
    }
    assert!(
        ground
            .build("far", &["--remote", &url])
            .said
            .contains("hint: on a machine these calls work")
    );
}

#[test]
fn a_worker_that_leaves_no_reason_has_the_exit_code_of_its_pnb() {
    let ground = Ground::new();
    for (code, expected, line) in [
        // The worker's disk, and its sandbox.
        (
            5,
            5,
            "error: failed to build agent/amd64 on rack-1: pnb ended with exit code 5\n",
        ),
        (
            8,
            8,
            "error: failed to build agent/amd64 on rack-1: pnb ended with exit code 8\n",
        ),
        // Everything else is the stage's: on this machine no lock is missing, and nothing was fetched.
        (
            3,
            7,
            "error: failed to build agent/amd64: pnb ended with exit code 3 on rack-1\n",
        ),
        (
            4,
            7,
            "error: failed to build agent/amd64: pnb ended with exit code 4 on rack-1\n",
        ),
        (
            -5,
            7,
            "error: failed to build agent/amd64: pnb ended with exit code -5 on rack-1\n",
        ),
        (
            261,
            7,
            "error: failed to build agent/amd64: pnb ended with exit code 261 on rack-1\n",
        ),
    ] {
        let farm = RemoteDouble::with_worker(move |_, _| ExecuteResponse {
            result: Some(ActionResult {
                exit_code: code,
                stderr_raw: b"error: failed to make the store\n\x1b[1mhint: \n".to_vec(),
                execution_metadata: Some(ExecutedActionMetadata {
                    worker: "rack-1".to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        });
        let far = ground.built("far", &["build", "--stage", "agent", "--remote", &farm.url()]);
        assert_eq!(far.code, expected, "{}", far.said);
        assert!(far.said.contains(line), "{line:?}: {}", far.said);
        // What it printed is shown, and draws nothing.
        assert!(
            far.said.contains("\n  error: failed to make the store\n") && !far.said.contains('\u{1b}'),
            "{}",
            far.said
        );
    }
}

#[test]
fn inputs_that_the_engine_lost_are_made_here_and_sent() {
    let ground = Ground::new();
    let (farm, _) = engine(Box::new(|_, _| {}));
    let url = farm.url();
    // The first two stages have results on the engine alone, and the second one loses a file.
    ground.word("fail");
    assert_eq!(ground.build("far", &["--remote", &url]).code, 7);
    farm.kept().blobs.retain(|_, bytes| bytes.len() < 100_000);
    // It is short, and runs here; the next one has no record, and goes to a worker with what was made here.
    ground.word("good");
    let again = ground.build("far", &["--remote", &url, "--remote-upload", "never"]);
    let (ran, _) = again.well();
    assert_eq!(ran, ["one", "three", "two"], "{}", again.said);
    assert!(
        again.said.contains("build one/amd64 (") && again.said.contains("build two/amd64 on grpc://"),
        "{}",
        again.said
    );
    ground.build("here", &[]).well();
    assert_eq!(
        ground.output("far", "three", "out"),
        ground.output("here", "three", "out")
    );
}

#[test]
fn a_chain_of_stages_is_one_action_and_keeps_what_ended_well() {
    let ground = Ground::new();
    let (farm, seen) = engine(Box::new(|_, _| {}));
    let url = farm.url();
    let actions = || seen.lock().expect("whole").len();
    ground.word("fail");
    let failed = ground.build("far", &["--remote", &url]);
    assert_eq!((failed.code, actions()), (7, 1), "{}", failed.said);
    // The failure is that of the stage that failed, and each line has the stage that printed it.
    for line in [
        "error: failed to build two/amd64: it ended with exit code 3 on grpc://127.0.0.1:",
        "\n  the log of two\n  the word is not good\n",
    ] {
        assert!(failed.said.contains(line), "{line:?}: {}", failed.said);
    }
    assert!(!failed.said.contains("\n  the log of one"), "{}", failed.said);
    // The stages before it ended well, and run no more.
    ground.word("good");
    let again = ground.build("far", &["--remote", &url, "--remote-place", "workers"]);
    let (ran, shared) = again.well();
    assert_eq!(
        (ran.concat(), shared.concat()),
        ("threetwo".to_owned(), "agentone".to_owned())
    );
    assert_eq!(actions(), 2);
    ground.build("here", &[]).well();
    assert_eq!(
        ground.output("far", "three", "out"),
        ground.output("here", "three", "out")
    );
    // A stage that takes less time than an action runs here, with the inputs that it takes from the cache.
    ground.word("other");
    let cheap = ground.build("far", &["--remote", &url]);
    assert_eq!(cheap.well().0, ["three", "two"], "{}", cheap.said);
    assert_eq!(
        (actions(), cheap.said.matches(" on grpc://").count()),
        (2, 0),
        "{}",
        cheap.said
    );
}

#[test]
fn an_engine_that_dies_in_a_stage_is_named_at_once() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let mut casd = Casd::with_runner(dir.path());
    // Far longer than the build may take.
    ground.word("wait 100");
    let url = casd.url();
    // An action of its own, which ends well.
    ground
        .built("far", &["build", "--stage", "one", "--remote", &url])
        .well();
    let far = thread::scope(|scope| {
        let far = scope.spawn(|| ground.build("far", &["--remote", &url, "--remote-timeout", "3"]));
        let begun = wait_until(Duration::from_secs(60), || !casd.running(STAGE_TWO).is_empty());
        assert!(begun, "no stage runs");
        let stage = casd.running(STAGE_TWO);
        casd.kill_with_runners();
        // The stage does not go on for nobody.
        let ended = wait_until(Duration::from_secs(10), || stage.iter().all(|pid| !is_there(*pid)));
        assert!(ended, "{stage:?} still run");
        far.join().expect("an end")
    });
    assert_eq!(far.code, 4, "{}", far.said);
    let error = far.said.lines().find(|line| line.starts_with("error: "));
    let reached = format!("error: failed to reach the remote cache {url}");
    assert!(error.expect("an error").starts_with(&reached), "{}", far.said);
    assert!(!far.said.contains("the build goes on without it"), "{}", far.said);
    // What was finished by then is in the cache of the engine, which is on its disk.
    casd.restart();
    ground.word("first");
    let again = ground.build("again", &["--remote", &url]);
    let (ran, shared) = again.well();
    assert_eq!(
        (ran, shared),
        (names(&["three", "two"]), names(&["agent", "one"])),
        "{}",
        again.said
    );
}

#[test]
fn an_engine_that_comes_back_runs_the_stage_again() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let mut casd = Casd::with_runner(dir.path());
    ground.word("wait 4");
    let url = casd.url();
    let far = thread::scope(|scope| {
        let far = scope.spawn(|| ground.build("far", &["--remote", &url, "--remote-timeout", "12"]));
        let begun = wait_until(Duration::from_secs(60), || !casd.running(STAGE_TWO).is_empty());
        assert!(begun, "no stage runs");
        casd.kill();
        // Longer than the four tries of a cache take.
        thread::sleep(Duration::from_secs(3));
        casd.restart();
        let again = wait_until(Duration::from_secs(60), || {
            far.is_finished() || !casd.running(STAGE_TWO).is_empty()
        });
        assert!(again, "the stage does not run again");
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
fn a_job_that_is_changed_on_the_way_is_not_run() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    ground.build("far", &["--remote", &casd.url()]).well();
    let blobs = walkdir::WalkDir::new(dir.path().join("cache/cas/objects"))
        .into_iter()
        .filter_map(Result::ok);
    for blob in blobs.filter(|entry| entry.file_type().is_file()) {
        let bytes = fs::read(blob.path()).expect("read");
        if bytes.starts_with(b"{\"version\":2,\"stages\"") {
            let text = String::from_utf8(bytes).expect("JSON");
            // A new file in its place: the blob may have other names.
            fs::remove_file(blob.path()).expect("removed");
            fs::write(blob.path(), text.replacen("pnb-stage-key 1", "pnb-stage-key 2", 1)).expect("written");
        }
    }
    let far = ground.build("anew", &["--remote", &casd.url(), "--remote-no-accept"]);
    // BuildBox holds the job against its digest; what `pnb __stage` does with one that has another digest, too, is below.
    assert_eq!(far.code, 4, "{}", far.said);
    let error = far
        .said
        .lines()
        .find(|line| line.starts_with("error: "))
        .expect("an error");
    let failed = format!("error: failed to run on {}: INTERNAL: ", casd.url());
    assert!(
        error.starts_with(&failed) && error.contains("Expected blob with dig"),
        "{}",
        far.said
    );
}

#[test]
fn a_job_that_was_edited_or_is_for_another_pnb_is_refused() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    ground.build("far", &["--remote", &casd.url()]).well();
    // A job as the client has sent it.
    let blobs = walkdir::WalkDir::new(dir.path()).into_iter().filter_map(Result::ok);
    let mut jobs = blobs.filter(|entry| entry.file_type().is_file()).filter_map(|entry| {
        let bytes = fs::read(entry.path()).ok()?;
        bytes
            .starts_with(b"{\"version\":2,\"stages\"")
            .then(|| String::from_utf8(bytes).expect("JSON"))
    });
    let job = jobs.next().expect("a job");
    let said = |job: &str| {
        let place = tempfile::tempdir().expect("scratch");
        fs::write(place.path().join("job.json"), job).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
        let done = command
            .args(["__stage", "job.json"])
            .current_dir(place.path())
            .output()
            .expect("starts");
        assert!(!done.status.success());
        let left = walkdir::WalkDir::new(place.path().join("out"))
            .into_iter()
            .filter_map(Result::ok);
        assert_eq!(
            left.filter(|entry| entry.file_name() == "record").count(),
            0,
            "no result is left"
        );
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let edited = said(&job.replacen("pnb-stage-key 1", "pnb-stage-key 1 ", 1));
    assert!(
        edited.contains("failed to run the job: its canonical form has the key "),
        "{edited}"
    );
    let newer = said(&job.replacen("{\"version\":2", "{\"version\":3", 1));
    assert!(newer.contains("it has version 3, and this pnb reads 2"), "{newer}");
    // Another pnb: the digest of its code, and the key that follows from it.
    let mut value: serde_json::Value = serde_json::from_str(&job).expect("JSON");
    let stage = &mut value["stages"][0];
    let canonical = stage["canonical"].as_str().expect("a text");
    let lines = canonical.lines().map(|line| match line.strip_prefix("code.sandbox ") {
        Some(_) => format!("code.sandbox {}\n", "0".repeat(64)),
        None => format!("{line}\n"),
    });
    let canonical: String = lines.collect();
    stage["key"] = blake3::hash(canonical.as_bytes()).to_hex().to_string().into();
    stage["canonical"] = canonical.into();
    let other = said(&value.to_string());
    assert!(other.contains("it is for a pnb whose code.sandbox is 000"), "{other}");
    // Whole, but without its inputs.
    let bare = said(&job);
    assert!(bare.contains("it is gone") || bare.contains("failed to open"), "{bare}");
}
