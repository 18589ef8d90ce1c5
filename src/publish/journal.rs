//! The journal of a publication: what was done, so that an interrupted publication goes on and signs nothing twice.
//!
//! ```text
//! {"format":"pnb publish journal 1","plan":"<64 hex>"}
//! {"did":"manifest","digest":"<64 hex>","repository":"registry.example/powernode/oci"}
//! {"did":"bundle","bundle":"{…}","kind":"https://sigstore.dev/cosign/sign/v1","subject":"<64 hex>"}
//! …
//! ```
//!
//! One JSON object a line. The first names the plan by its digest; a journal of another plan is refused. A line is written with one call
//! and flushed before the next step begins, so at most the last line is torn after a crash: it has no line feed, or zeros where the disk has
//! not got its bytes, and is cut off. The journal is a hint and no proof: a step that it lists is checked against the server again. It has no field for a secret.
//!
//! It lies in the store, not in `images/`: publishing must not change what it publishes, and the store outlives a checkout.

use super::JournalError;
use crate::{
    model::{GitSha, Sha256Digest},
    store::Store,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The first line's `format`.
const FORMAT: &str = "pnb publish journal 1";
/// Most bytes of a journal.
const MAX_JOURNAL: u64 = 64 << 20;
/// Most bytes of a line. A bundle has some 10 KiB.
const MAX_LINE: usize = 4 << 20;

/// A step that was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "kebab-case", deny_unknown_fields)]
pub enum JournalEntry {
    /// A manifest and all its blobs are in a repository.
    Manifest {
        /// The repository, with its registry.
        repository: String,
        /// Digest of the manifest.
        digest: Sha256Digest,
    },
    /// A signature was made. It is kept before it is sent anywhere.
    Bundle {
        /// The digest that is signed.
        subject: Sha256Digest,
        /// The predicate type of the statement, or `message` for a signature of the bytes.
        kind: String,
        /// The whole bundle.
        bundle: String,
    },
    /// A manifest that refers to another is in its repository.
    Attached {
        /// The repository, with its registry.
        repository: String,
        /// Digest of the manifest that is referred to.
        subject: Sha256Digest,
        /// Digest of the manifest that refers.
        digest: Sha256Digest,
    },
    /// A release, still a draft.
    Release {
        /// Its tag.
        tag: String,
        /// Its number on the server.
        id: u64,
    },
    /// A file of a release is on the server.
    Asset {
        /// Number of the release.
        release: u64,
        /// Number of the file.
        id: u64,
        /// Its name.
        name: String,
        /// SHA-256 of the bytes that were sent.
        sha256: Sha256Digest,
        /// Their number.
        size: u64,
    },
    /// A tag of a registry names a manifest.
    Tag {
        /// The repository, with its registry.
        repository: String,
        /// The tag.
        tag: String,
        /// Digest of the manifest.
        digest: Sha256Digest,
    },
    /// A release is visible.
    Shown {
        /// Number of the release.
        release: u64,
    },
    /// The platform has taken a message.
    Told {
        /// The platform's name of the image.
        platform_name: String,
        /// SHA-256 of the message.
        body: Sha256Digest,
    },
    /// All steps were done.
    Finished,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    plan: Sha256Digest,
}

/// An open journal. Nobody else can open it meanwhile.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Locked until it is closed; written at its end.
    file: File,
    entries: Vec<JournalEntry>,
    /// Whether a torn line was cut off.
    torn: bool,
}

impl Journal {
    /// Where the journal of a publication lies unless the caller says otherwise: of a commit, by this plan. A commit is published by several
    /// plans when, for example, it gets a release after its images.
    pub fn place(store: &Store, commit: &GitSha, plan: &Sha256Digest) -> PathBuf {
        let name = format!("{}-{}.jsonl", commit.as_str(), &plan.to_hex()[..16]);
        store.root().join("publish").join(name)
    }

    /// Reads the journal of the plan with this digest, and writes nothing: neither there nor, when steps are added, later.
    ///
    /// # Errors
    /// As [`Journal::open`], except that it may be in use.
    pub fn look(path: &Path, plan: &Sha256Digest) -> Result<Self, JournalError> {
        let at = |action: &'static str| JournalError::io(action, path);
        let mut text = Vec::new();
        match crate::store::open_foreign(path) {
            Ok(file) => {
                let read = file.take(MAX_JOURNAL + 1).read_to_end(&mut text);
                read.map_err(at("read"))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at("open")(e)),
        }
        let parsed = checked(path, &text, plan)?;
        Ok(Self {
            path: path.to_owned(),
            file: tempfile::tempfile().map_err(at("make a copy of"))?,
            entries: parsed.entries,
            torn: parsed.whole < text.len(),
        })
    }

    /// Opens the journal of the plan with this digest, and begins one where there is none, or one that lists nothing.
    ///
    /// # Errors
    /// [`JournalError::Busy`] while another program has it open, [`JournalError::OtherPlan`] for one of other inputs,
    /// [`JournalError::Line`] for a line, except the last, that this program did not write.
    pub fn open(path: &Path, plan: &Sha256Digest) -> Result<Self, JournalError> {
        let at = |action: &'static str| JournalError::io(action, path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(at("create the directory of"))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(path);
        let mut file = file.map_err(at("open"))?;
        let meta = file.metadata().map_err(at("open"))?;
        if !meta.is_file() {
            return Err(at("open")(io::Error::other("it is not a regular file")));
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Busy { path: path.to_owned() },
            TryLockError::Error(source) => at("lock")(source),
        })?;
        let mut text = Vec::new();
        let read = (&mut file).take(MAX_JOURNAL + 1).read_to_end(&mut text);
        read.map_err(at("read"))?;
        let parsed = checked(path, &text, plan)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            entries: parsed.entries,
            // The first line of a plan that came to nothing goes as a torn one does.
            torn: parsed.whole < text.len(),
        };
        journal.cut(parsed.whole as u64)?;
        match parsed.plan {
            Some(_) => Ok(journal),
            None => {
                let head = Head {
                    format: FORMAT.to_owned(),
                    plan: *plan,
                };
                journal.write(&head)?;
                // The name must not be lost either.
                let parent = path
                    .parent()
                    .filter(|p| !p.as_os_str().is_empty())
                    .unwrap_or(Path::new("."));
                let synced = File::open(parent).and_then(|dir| dir.sync_all());
                synced.map_err(JournalError::io("flush the directory of", path))?;
                Ok(journal)
            }
        }
    }

    /// The steps that were done, in their order.
    pub fn entries(&self) -> &[JournalEntry] {
        &self.entries
    }

    /// Whether the end of the journal was torn by a crash and cut off.
    pub fn was_torn(&self) -> bool {
        self.torn
    }

    /// The signature of `subject` of this kind that was kept last.
    pub fn bundle(&self, subject: &Sha256Digest, kind: &str) -> Option<&str> {
        self.entries.iter().rev().find_map(|entry| match entry {
            JournalEntry::Bundle {
                subject: s,
                kind: k,
                bundle,
            } if s == subject && k == kind => Some(bundle.as_str()),
            _ => None,
        })
    }

    /// Adds a step that was done. It is on the disk when this returns. A step that is listed already is not added again.
    pub fn add(&mut self, entry: JournalEntry) -> Result<(), JournalError> {
        if !self.entries.contains(&entry) {
            self.write(&entry)?;
            self.entries.push(entry);
        }
        Ok(())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), JournalError> {
        let at = |source| JournalError::io("write", &self.path)(source);
        let mut text = serde_json::to_vec(line).map_err(|e| at(e.into()))?;
        text.push(b'\n');
        if text.len() > MAX_LINE {
            return Err(at(io::Error::other(format!("a line has more than {MAX_LINE} bytes"))));
        }
        let end = self.file.seek(SeekFrom::End(0)).map_err(at)?;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_all());
        if let Err(source) = written {
            // A half line must not come before the next one.
            let _ = self.file.set_len(end);
            return Err(at(source));
        }
        Ok(())
    }

    /// Removes everything from byte `whole` on.
    fn cut(&mut self, whole: u64) -> Result<(), JournalError> {
        if !self.torn {
            return Ok(());
        }
        let cut = self.file.set_len(whole).and_then(|()| self.file.sync_all());
        cut.map_err(JournalError::io("cut the torn end of", &self.path))
    }
}

/// The content of a journal, which must be of this plan. One of another plan that lists no step counts for nothing: that publication was
/// refused before it wrote anything.
fn checked(path: &Path, text: &[u8], plan: &Sha256Digest) -> Result<Parsed, JournalError> {
    if text.len() as u64 > MAX_JOURNAL {
        let long = io::Error::other(format!("it has more than {MAX_JOURNAL} bytes"));
        return Err(JournalError::io("read", path)(long));
    }
    let parsed = parse(text).map_err(|(line, problem)| JournalError::Line {
        path: path.to_owned(),
        line,
        problem,
    })?;
    match parsed.plan {
        Some(actual) if actual != *plan && parsed.entries.is_empty() => Ok(Parsed::default()),
        Some(actual) if actual != *plan => Err(JournalError::OtherPlan {
            path: path.to_owned(),
            expected: *plan,
            actual,
        }),
        _ => Ok(parsed),
    }
}

/// A journal's content.
#[derive(Default, Debug)]
struct Parsed {
    /// None before the first line is complete.
    plan: Option<Sha256Digest>,
    entries: Vec<JournalEntry>,
    /// The length of the lines that are whole.
    whole: usize,
}

/// Reads the lines of a journal. Only the last one may be torn. An error is a line's number, counted from 1, and what is wrong with it.
fn parse(text: &[u8]) -> Result<Parsed, (usize, String)> {
    let mut parsed = Parsed::default();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for (index, line) in lines.iter().enumerate() {
        let last = index + 1 == lines.len();
        match parse_line(line, index == 0, &mut parsed) {
            Ok(()) => parsed.whole += line.len(),
            Err(_) if last && is_torn(line, index == 0) => break,
            Err(problem) => return Err((index + 1, problem)),
        }
    }
    Ok(parsed)
}

/// Whether a line can be what a crash left of one. A file of others that was named by mistake must not be taken for a torn first line.
fn is_torn(line: &[u8], first: bool) -> bool {
    let cut = !line.ends_with(b"\n") || line.contains(&0);
    let begin = format!("{{\"format\":\"{FORMAT}\"");
    let same = line
        .iter()
        .zip(begin.as_bytes())
        .all(|(byte, want)| byte == want || *byte == 0);
    cut && (!first || same)
}

fn parse_line(line: &[u8], first: bool, parsed: &mut Parsed) -> Result<(), String> {
    let Some(json) = line.strip_suffix(b"\n") else {
        return Err("it does not end with a line feed".to_owned());
    };
    if line.len() > MAX_LINE {
        return Err(format!("it has more than {MAX_LINE} bytes"));
    }
    if first {
        let head: Head = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        if head.format != FORMAT {
            return Err(format!("the format is {:?}, this pnb reads {FORMAT:?}", head.format));
        }
        parsed.plan = Some(head.plan);
    } else {
        parsed
            .entries
            .push(serde_json::from_slice(json).map_err(|e| e.to_string())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAN: Sha256Digest = Sha256Digest::new([7; 32]);

    fn digest(byte: u8) -> Sha256Digest {
        Sha256Digest::new([byte; 32])
    }

    fn entries() -> Vec<JournalEntry> {
        vec![
            JournalEntry::Manifest {
                repository: "registry.example/powernode/oci".to_owned(),
                digest: digest(1),
            },
            JournalEntry::Bundle {
                subject: digest(1),
                kind: "message".to_owned(),
                bundle: "{\"line\":\n1}".to_owned(),
            },
            JournalEntry::Release {
                tag: "v1".to_owned(),
                id: 3,
            },
            JournalEntry::Told {
                platform_name: "ubuntu-24.04-rpi4".to_owned(),
                body: digest(2),
            },
        ]
    }

    fn written(path: &Path) -> Vec<u8> {
        let mut journal = Journal::open(path, &PLAN).expect("opened");
        for entry in entries() {
            journal.add(entry).expect("added");
        }
        drop(journal);
        fs::read(path).expect("readable")
    }

    #[test]
    fn what_was_done_is_read_again_and_not_added_twice() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("publish/abc.jsonl");
        let bytes = written(&path);
        insta::assert_snapshot!(String::from_utf8_lossy(&bytes), @r#"
        {"format":"pnb publish journal 1","plan":"0707070707070707070707070707070707070707070707070707070707070707"}
        {"did":"manifest","repository":"registry.example/powernode/oci","digest":"0101010101010101010101010101010101010101010101010101010101010101"}
        {"did":"bundle","subject":"0101010101010101010101010101010101010101010101010101010101010101","kind":"message","bundle":"{\"line\":\n1}"}
        {"did":"release","tag":"v1","id":3}
        {"did":"told","platform_name":"ubuntu-24.04-rpi4","body":"0202020202020202020202020202020202020202020202020202020202020202"}
        "#);
        let mut journal = Journal::open(&path, &PLAN).expect("opened");
        assert_eq!(journal.entries(), entries());
        assert!(!journal.was_torn());
        assert_eq!(journal.bundle(&digest(1), "message"), Some("{\"line\":\n1}"));
        assert_eq!(journal.bundle(&digest(1), "other"), None);
        for entry in entries() {
            journal.add(entry).expect("known");
        }
        assert_eq!(fs::read(&path).expect("readable"), bytes);
    }

    #[test]
    fn a_journal_that_is_cut_anywhere_loses_its_torn_line_only() {
        let dir = tempfile::tempdir().expect("scratch");
        let bytes = written(&dir.path().join("whole"));
        for length in 0..=bytes.len() {
            let path = dir.path().join(length.to_string());
            fs::write(&path, &bytes[..length]).expect("written");
            let mut journal = Journal::open(&path, &PLAN).expect("opened");
            let whole = bytes[..length].iter().filter(|b| **b == b'\n').count();
            assert_eq!(
                journal.entries(),
                &entries()[..whole.saturating_sub(1)],
                "{length} bytes"
            );
            let at_end = length == 0 || bytes[length - 1] == b'\n';
            assert_eq!(journal.was_torn(), !at_end, "{length} bytes");
            for entry in entries() {
                journal.add(entry).expect("added");
            }
            drop(journal);
            assert_eq!(fs::read(&path).expect("readable"), bytes, "{length} bytes");
        }
        // A crash can also leave zeros where the line was to be.
        let path = dir.path().join("zeros");
        fs::write(&path, [&bytes[..], &[0; 300]].concat()).expect("written");
        assert_eq!(Journal::open(&path, &PLAN).expect("opened").entries(), entries());
        assert_eq!(fs::read(&path).expect("readable"), bytes);
    }

    #[test]
    fn a_journal_of_other_inputs_and_a_damaged_one_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("journal");
        let bytes = written(&path);
        let error = Journal::open(&path, &digest(8)).expect_err("another plan");
        let expected = format!("\n  expected: {}\n  actual:   {PLAN}", digest(8));
        assert!(error.to_string().ends_with(&expected), "{error}");
        assert!(fs::read(&path).expect("readable") == bytes);
        let damaged = String::from_utf8(bytes)
            .expect("UTF-8")
            .replace("\"did\":\"release\"", "\"did\":\"sleep\"");
        fs::write(&path, &damaged).expect("written");
        let error = Journal::open(&path, &PLAN).expect_err("damaged");
        assert!(error.to_string().contains("line 4: unknown variant `sleep`"), "{error}");
        let other = damaged.replace("journal 1", "journal 2");
        fs::write(&path, other).expect("written");
        let error = Journal::open(&path, &PLAN).expect_err("a later format");
        assert!(
            error
                .to_string()
                .contains("line 1: the format is \"pnb publish journal 2\""),
            "{error}"
        );
        // A file of others, named by mistake.
        for foreign in ["{\"format\":\"x\"}\n", "a line", "a line\n", "{\"form\"x"] {
            fs::write(&path, foreign).expect("written");
            assert!(Journal::open(&path, &PLAN).is_err(), "{foreign:?}");
            assert_eq!(fs::read_to_string(&path).expect("readable"), foreign);
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("made");
        assert!(Journal::open(&link, &PLAN).is_err());
        assert!(Journal::open(dir.path(), &PLAN).is_err());
    }

    #[test]
    fn a_journal_that_lists_no_step_binds_nobody() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("journal");
        drop(Journal::open(&path, &digest(8)).expect("opened"));
        drop(Journal::open(&path, &PLAN).expect("another plan, and nothing was done for the first"));
        let begun = fs::read(&path).expect("readable");
        assert!(String::from_utf8_lossy(&begun).ends_with(&format!("\"plan\":\"{PLAN}\"}}\n")));
        let bytes = written(&path);
        assert!(bytes.starts_with(&begun));
        assert!(Journal::open(&path, &digest(8)).is_err());
    }

    #[test]
    fn a_look_at_a_journal_changes_nothing() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("publish/journal");
        let mut journal = Journal::look(&path, &PLAN).expect("none");
        assert_eq!(journal.entries(), []);
        journal.add(entries().remove(0)).expect("kept in memory");
        assert!(!path.parent().expect("a directory").exists());
        // One that is torn stays so, and one of another plan is refused.
        let bytes = written(&path);
        let torn = &bytes[..bytes.len() - 5];
        fs::write(&path, torn).expect("written");
        let mut journal = Journal::look(&path, &PLAN).expect("readable");
        assert_eq!(journal.entries(), &entries()[..3]);
        journal.add(entries().remove(3)).expect("kept in memory");
        assert_eq!(fs::read(&path).expect("readable"), torn);
        assert!(Journal::look(&path, &digest(8)).is_err());
    }

    #[test]
    fn two_publications_cannot_share_a_journal() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("journal");
        let first = Journal::open(&path, &PLAN).expect("opened");
        let error = Journal::open(&path, &PLAN).expect_err("in use");
        assert!(matches!(error, JournalError::Busy { .. }), "{error}");
        drop(first);
        Journal::open(&path, &PLAN).expect("free again");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..400usize) {
            let dir = tempfile::tempdir().expect("scratch");
            let good = written(&dir.path().join("whole"));
            let mixed = [&good[..cut.min(good.len())], &bytes].concat();
            if let Ok(parsed) = parse(&mixed) {
                prop_assert!(parsed.whole <= mixed.len());
            }
        }
    }
}
