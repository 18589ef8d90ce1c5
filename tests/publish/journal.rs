//! A journal whose program is killed: every step that was confirmed is in it, and nothing else.

use pnb::{
    model::Sha256Digest,
    publish::{Journal, JournalEntry},
};
use std::{
    env,
    ffi::OsString,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

const PLAN: Sha256Digest = Sha256Digest::new([1; 32]);
/// The variable that names the journal for the program that is killed.
const PLACE: &str = "PNB_TEST_JOURNAL";
/// The steps of a publication.
const STEPS: u8 = 40;

/// A step with a long line, which takes more than one page.
fn step(number: u8) -> JournalEntry {
    JournalEntry::Bundle {
        subject: Sha256Digest::new([number; 32]),
        kind: "message".to_owned(),
        bundle: "x".repeat(usize::from(number) * 400),
    }
}

fn add_all(path: &Path) {
    let mut journal = Journal::open(path, &PLAN).expect("opened");
    for number in 0..STEPS {
        journal.add(step(number)).expect("added");
        writeln!(io::stdout(), "added {number}").expect("printed");
    }
}

#[test]
#[ignore = "the next test runs it as a program and kills it; alone it adds all steps"]
fn add_steps() {
    #[expect(clippy::disallowed_methods, reason = "the test beside this one names the journal")]
    let given: Option<OsString> = env::var_os(PLACE);
    match given {
        Some(path) => add_all(Path::new(&path)),
        None => {
            let dir = tempfile::tempdir().expect("scratch");
            add_all(&dir.path().join("journal"));
        }
    }
}

#[test]
fn killed_after_any_step_the_journal_has_all_that_were_confirmed() {
    let dir = tempfile::tempdir().expect("scratch");
    let mut between = 0;
    for last in 0..STEPS {
        let path = dir.path().join(format!("{last}.jsonl"));
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "journal::add_steps", "--ignored", "--nocapture"])
            .env(PLACE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let wanted = format!("added {last}");
        let seen = lines.map_while(Result::ok).any(|line| line.ends_with(&wanted));
        child.kill().expect("killed");
        child.wait().expect("ends");
        assert!(seen, "the program did not say {wanted:?}");
        let mut journal = Journal::open(&path, &PLAN).expect("readable");
        let found = journal.entries().len();
        let all: Vec<JournalEntry> = (0..STEPS).map(step).collect();
        assert!(found > usize::from(last), "{found} steps after {wanted:?}");
        assert_eq!(journal.entries(), &all[..found]);
        between += usize::from(found < usize::from(STEPS));
        for entry in &all {
            journal.add(entry.clone()).expect("added");
        }
        assert_eq!(journal.entries(), all, "the same steps complete it");
    }
    assert!(
        between > usize::from(STEPS) / 2,
        "only {between} programs were killed before their end"
    );
}
