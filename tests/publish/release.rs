//! Releases against the double of Gitea: what it has in the end, and what pnb refuses before anything is written.

use crate::{
    gitea::{COMMIT, Gitea, TOKEN},
    server::{Reply, ServerFault, WebServer},
    tls::Authority,
};
use pnb::{
    http::{ClientOptions, HttpClient, HttpClock},
    model::{Hint, Sha256Digest},
    publish::{
        FileState, GiteaClient, GiteaError, GiteaRepository, Journal, JournalEntry, LookOptions, PlannedAsset,
        PlannedRelease, ReleaseState, Secret, SeenRelease, fill_release, look_at_release, show_release,
    },
    registry::TransferStep,
};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

/// A clock on which nobody waits.
#[derive(Debug, Default)]
struct Clock(Mutex<Duration>);

impl HttpClock for Clock {
    fn elapsed(&self) -> Duration {
        *self.0.lock().expect("whole")
    }
    fn unix(&self) -> i64 {
        1_800_000_000
    }
    fn wait(&self, time: Duration) {
        *self.0.lock().expect("whole") += time;
    }
}

/// Files to publish, a journal, and a client.
struct Publisher {
    dir: TempDir,
    http: HttpClient,
    repository: GiteaRepository,
    plan: PlannedRelease,
    options: LookOptions,
}

const NAMES: [&str; 4] = [
    "SHA256SUMS",
    "kernel-initrd-amd64-kernel",
    "raw-amd64-disk.raw.zst",
    "raw-arm64-disk.raw.zst",
];

fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(3000 + name.len()).collect()
}

impl Publisher {
    fn new(gitea: &Gitea) -> Self {
        Self::with(gitea, TOKEN, None)
    }

    fn with(gitea: &Gitea, token: &str, ca: Option<Vec<u8>>) -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        fs::write(dir.path().join("token"), format!("{token}\n")).expect("written");
        let assets = NAMES.map(|name| {
            let source = dir.path().join(name);
            fs::write(&source, content(name)).expect("written");
            PlannedAsset {
                name: name.to_owned(),
                source,
                sha256: Sha256Digest::new(Sha256::digest(content(name)).into()),
                size: content(name).len() as u64,
            }
        });
        let options = ClientOptions {
            ca,
            silence: Duration::from_secs(5),
            tries: 3,
            ..ClientOptions::default()
        };
        Self {
            dir,
            http: HttpClient::with_clock(options, Arc::new(Clock::default())).expect("a client"),
            repository: GiteaRepository::parse(&gitea.url()).expect("an address"),
            plan: plan("v1.0", assets.to_vec()),
            options: LookOptions::default(),
        }
    }

    fn client(&self) -> GiteaClient<'_> {
        let token = Secret::load(&self.dir.path().join("token")).expect("a token");
        GiteaClient::new(&self.http, self.repository.clone(), token)
    }

    fn journal_file(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.journal_file(), &Sha256Digest::new([1; 32])).expect("opened")
    }

    fn look(&self) -> Result<SeenRelease, GiteaError> {
        look_at_release(&self.client(), &self.plan, self.options, &self.journal())
    }

    /// Everything: look, fill, show.
    fn publish(&self) -> Result<(), GiteaError> {
        let client = self.client();
        let mut journal = self.journal();
        let seen = look_at_release(&client, &self.plan, self.options, &journal)?;
        let release = fill_release(&client, &self.plan, &seen, self.options, &mut journal)?;
        show_release(&client, &self.plan, &release)
    }
}

fn plan(tag: &str, assets: Vec<PlannedAsset>) -> PlannedRelease {
    let commit = COMMIT.parse().expect("a commit");
    PlannedRelease::new(tag, commit, "Images", "Notes", assets).expect("good names")
}

/// The release on the server is exactly the planned one, and visible.
fn assert_published(gitea: &Gitea, why: &str) {
    let state = gitea.state();
    assert_eq!(state.releases.len(), 1, "{why}");
    let release = &state.releases[0];
    assert!(!release.draft, "{why}");
    assert_eq!(
        (release.tag.as_str(), release.commit.as_str()),
        ("v1.0", COMMIT),
        "{why}"
    );
    assert_eq!(state.tags, [("v1.0".to_owned(), COMMIT.to_owned())], "{why}");
    assert_eq!(state.names("v1.0"), NAMES, "{why}");
    for asset in &release.assets {
        assert!(asset.content == content(&asset.name), "{why}: {}", asset.name);
    }
}

/// The error, with no token in it, and the server's state as it was.
fn refused(gitea: &Gitea, publisher: &Publisher) -> String {
    let before = format!("{:?}", gitea.state());
    let error = publisher.look().expect_err("refused");
    assert_eq!(format!("{:?}", gitea.state()), before, "nothing was written");
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    let text = format!("{}{hint}", pnb::model::chain(&error)).replace(&gitea.url(), "<repository>");
    assert!(!format!("{text}{error:?}").contains(TOKEN), "{error:?}");
    text
}

#[test]
fn a_release_appears_whole_and_at_the_end() {
    for version in ["1.27.3", "1.21.11"] {
        let gitea = Gitea::start();
        gitea.state().version = version.to_owned();
        let publisher = Publisher::new(&gitea);
        let seen = publisher.look().expect("free");
        assert_eq!(seen.state, ReleaseState::Absent);
        assert!(seen.files.values().all(|state| *state == FileState::Absent) && seen.files.len() == 4);
        assert!(
            gitea.web.log().iter().all(|r| r.method == "GET"),
            "looking writes nothing"
        );

        let client = publisher.client();
        let mut journal = publisher.journal();
        let options = publisher.options;
        let release = fill_release(&client, &publisher.plan, &seen, options, &mut journal).expect("filled");
        assert!(
            gitea.state().releases[0].draft && gitea.state().tags.is_empty(),
            "nobody sees it yet"
        );
        show_release(&client, &publisher.plan, &release).expect("shown");
        assert_published(&gitea, version);
        let sent_as = gitea.state().releases[0].assets[0].sent_as.clone();
        let raw = version == "1.27.3";
        assert_eq!(
            sent_as,
            if raw {
                "application/octet-stream"
            } else {
                "multipart/form-data"
            }
        );
        let posts = gitea
            .web
            .log()
            .into_iter()
            .filter(|r| r.target.contains("/assets?name="));
        for (request, name) in posts.zip(NAMES) {
            let size: usize = request
                .field("content-length")
                .expect("a size")
                .parse()
                .expect("a number");
            assert!(size >= content(name).len() && (!raw || size == content(name).len()));
        }
        // The journal has each file with the server's number, and no token.
        let assets = journal
            .entries()
            .iter()
            .filter(|e| matches!(e, JournalEntry::Asset { .. }));
        assert_eq!(assets.count(), 4);
        drop(journal);
        let text = fs::read_to_string(publisher.journal_file()).expect("readable");
        assert!(!text.contains("token"), "{text}");

        // Again: only looks.
        let before = gitea.web.log().len();
        publisher.publish().expect("published already");
        assert!(gitea.web.log()[before..].iter().all(|r| r.method == "GET"));
        assert_published(&gitea, version);
    }
}

#[test]
fn a_lost_request_or_answer_at_any_point_changes_nothing_in_the_end() {
    let requests = {
        let gitea = Gitea::start();
        Publisher::new(&gitea).publish().expect("published");
        gitea.web.lines()
    };
    assert!(requests.len() > 25, "{requests:?}");
    let mut tried_again = 0;
    for number in 1..=requests.len() {
        for fault in [
            ServerFault::Lost,
            ServerFault::AnswerLost,
            ServerFault::Instead(Reply::text(503, "busy").with("Retry-After", 1)),
        ] {
            let why = format!("{fault:?} at request {number}, {}", requests[number - 1]);
            let gitea = Gitea::start();
            let publisher = Publisher::new(&gitea);
            gitea.web.fault(number, fault);
            // The same command completes what an error has interrupted.
            if let Err(error) = publisher.publish() {
                assert!(
                    error.is_temporary() || matches!(error, GiteaError::NotShown { .. }),
                    "{why}: {error}"
                );
                tried_again += 1;
                publisher.publish().unwrap_or_else(|error| panic!("{why}: {error}"));
            }
            assert_published(&gitea, &why);
        }
    }
    // The last step is sent once; everything else was tried again at once.
    assert_eq!(tried_again, 2, "runs with an error");
}

#[test]
fn what_an_earlier_run_left_in_a_draft_is_used_or_repaired() {
    let gitea = Gitea::start();
    {
        let mut state = gitea.state();
        state.add_release("another", true);
        state.add_release("v1.0", true);
        // Whole; of a wrong size and then whole twice; of the right size and other bytes; the fourth is missing.
        state.add_asset("v1.0", NAMES[0], &content(NAMES[0]));
        state.add_asset("v1.0", NAMES[1], b"cut");
        state.add_asset("v1.0", NAMES[1], &content(NAMES[1]));
        state.add_asset("v1.0", NAMES[1], &content(NAMES[1]));
        let other = vec![b'x'; content(NAMES[2]).len()];
        state.add_asset("v1.0", NAMES[2], &other);
    }
    let publisher = Publisher::new(&gitea);
    let seen = publisher.look().expect("a draft");
    assert!(matches!(seen.state, ReleaseState::Draft(_)));
    assert_eq!(seen.files[NAMES[3]], FileState::Absent);
    assert_eq!(seen.files[NAMES[2]], FileState::Present);
    publisher.publish().expect("published");
    gitea.state().releases.retain(|r| r.tag != "another");
    assert_published(&gitea, "repaired");
    let requests = gitea.web.lines();
    let count = |word: &str| requests.iter().filter(|line| line.starts_with(word)).count();
    assert_eq!(count("DELETE "), 3, "{requests:?}");
    assert_eq!(
        requests.iter().filter(|line| line.contains("/assets?name=")).count(),
        2,
        "{requests:?}"
    );

    // Hidden drafts are found in the list, beyond its first page.
    let gitea = Gitea::start();
    gitea.state().hides_drafts = true;
    gitea.state().add_release("v1.0", true);
    for number in 0..7 {
        gitea.state().add_release(&format!("draft-{number}"), true);
    }
    assert!(matches!(
        Publisher::new(&gitea).look().expect("looked").state,
        ReleaseState::Draft(_)
    ));
}

#[test]
fn a_part_of_a_file_that_a_failed_upload_left_is_removed() {
    let gitea = Gitea::start();
    gitea.state().cut_uploads = 3;
    Publisher::new(&gitea).publish().expect("published");
    assert_published(&gitea, "after three cut uploads");
    // A server that never keeps a whole file: its words, after five tries.
    let gitea = Gitea::start();
    gitea.state().cut_uploads = 100;
    let publisher = Publisher::new(&gitea);
    let error = publisher.publish().expect_err("no upload succeeds");
    assert!(
        error.is_temporary() && error.to_string().ends_with("answered 500: unexpected EOF"),
        "{error}"
    );
    let uploads = gitea.web.lines().iter().filter(|l| l.contains("/assets?name=")).count();
    assert_eq!(uploads, 5);
    gitea.state().cut_uploads = 0;
    publisher.publish().expect("published");
    assert_published(&gitea, "after the server was repaired");
}

/// The steps of transfers that a publication reports, as the bytes of each file that went through.
fn reported(publisher: &Publisher) -> (Vec<(Sha256Digest, u64)>, u64) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let own = steps.clone();
    let client = publisher
        .client()
        .with_transfer(Arc::new(move |step| own.lock().expect("whole").push(step)));
    let mut journal = publisher.journal();
    let seen = look_at_release(&client, &publisher.plan, publisher.options, &journal).expect("looked");
    fill_release(&client, &publisher.plan, &seen, publisher.options, &mut journal).expect("filled");
    let (mut whole, mut there, mut bytes) = (Vec::new(), 0, 0);
    for step in steps.lock().expect("whole").iter() {
        match step {
            TransferStep::Begin(..) => bytes = 0,
            TransferStep::Bytes(more) => bytes += more,
            TransferStep::End(digest) => whole.push((*digest, bytes)),
            TransferStep::There(..) => there += 1,
        }
    }
    whole.sort();
    (whole, there)
}

#[test]
fn the_bytes_of_each_upload_are_reported_as_they_go() {
    let wanted: Vec<(Sha256Digest, u64)> = {
        let digests = NAMES.map(|name| {
            let content = content(name);
            (Sha256Digest::new(Sha256::digest(&content).into()), content.len() as u64)
        });
        let mut digests = digests.to_vec();
        digests.sort();
        digests
    };
    // As bytes and as a form; and three tries in vain, whose bytes are sent again.
    for (version, cut) in [("1.27.3", 0), ("1.21.11", 0), ("1.27.3", 3)] {
        let gitea = Gitea::start();
        gitea.state().version = version.to_owned();
        gitea.state().cut_uploads = cut;
        let publisher = Publisher::new(&gitea);
        assert_eq!(reported(&publisher), (wanted.clone(), 0), "{version} {cut}");
        assert_eq!(reported(&publisher), (Vec::new(), 4), "{version}: all are there");
    }
}

#[test]
fn a_release_that_another_makes_meanwhile_is_found_and_not_made_twice() {
    for draft in [true, false] {
        let gitea = Gitea::start();
        let publisher = Publisher::new(&gitea);
        let client = publisher.client();
        let mut journal = publisher.journal();
        let seen = publisher_look(&client, &publisher, &journal);
        gitea.state().add_release("v1.0", draft);
        let filled = fill_release(&client, &publisher.plan, &seen, publisher.options, &mut journal);
        if draft {
            show_release(&client, &publisher.plan, &filled.expect("filled")).expect("shown");
            assert_published(&gitea, "a draft of another");
        } else {
            let error = filled.expect_err("a visible release without files");
            assert!(matches!(error, GiteaError::OtherContent { .. }), "{error}");
            assert!(gitea.state().names("v1.0").is_empty());
        }
    }
}

#[test]
fn a_large_file_is_not_downloaded_again_if_the_journal_has_it() {
    let gitea = Gitea::start();
    let mut publisher = Publisher::new(&gitea);
    publisher.options.compare_up_to = 100;
    publisher.publish().expect("published");
    let downloads = || gitea.web.lines().iter().filter(|l| l.contains("/attachments/")).count();
    assert_eq!(downloads(), 0);
    publisher.publish().expect("known");
    assert_eq!(downloads(), 0);
    // Without the journal every content is compared.
    fs::remove_file(publisher.journal_file()).expect("removed");
    publisher.publish().expect("compared");
    assert_eq!(downloads(), 4);
}

#[test]
fn files_of_others_in_a_draft_and_visible_releases_with_other_files_are_left_alone() {
    let gitea = Gitea::start();
    gitea.state().add_release("v1.0", true);
    gitea.state().add_asset("v1.0", "notes\u{1b}.txt", b"mine");
    insta::assert_snapshot!(refused(&gitea, &Publisher::new(&gitea)), @r"
    fill the draft of v1.0: it has files that are not of this publication: notes\u{1b}.txt
    hint: delete them from the draft if they should not be there, and publish again
    ");
    gitea.state().releases[0].assets.clear();
    gitea.state().releases[0].commit = "main".to_owned();
    insta::assert_snapshot!(refused(&gitea, &Publisher::new(&gitea)), @r"
    fill the draft of v1.0: it is of another commit
      expected: 0123456789abcdef0123456789abcdef01234567
      actual:   main
    hint: delete the draft if nobody needs it, and publish again
    ");

    let gitea = Gitea::start();
    gitea.state().add_release("V1.0", false);
    gitea.state().add_asset("V1.0", NAMES[0], b"another");
    gitea.state().add_asset("V1.0", "more", b"more");
    insta::assert_snapshot!(refused(&gitea, &Publisher::new(&gitea)), @r"
    publish v1.0: the release has other files:
      SHA256SUMS has 7 bytes instead of 3010
      more is not of this publication
      kernel-initrd-amd64-kernel is missing
      raw-amd64-disk.raw.zst is missing
      raw-arm64-disk.raw.zst is missing
    hint: a release that is visible is never changed: publish under another tag
    ");
    // Of equal names and sizes, but other bytes.
    let gitea = Gitea::start();
    gitea.state().add_release("v1.0", false);
    for name in NAMES {
        let mut bytes = content(name);
        bytes[7] ^= u8::from(name == NAMES[2]);
        gitea.state().add_asset("v1.0", name, &bytes);
    }
    let text = refused(&gitea, &Publisher::new(&gitea));
    assert!(text.contains("raw-amd64-disk.raw.zst has other content\n"), "{text}");
}

#[test]
fn what_can_be_refused_is_refused_before_anything_is_written() {
    let changed = |change: &dyn Fn(&Gitea)| {
        let gitea = Gitea::start();
        change(&gitea);
        refused(&gitea, &Publisher::new(&gitea))
    };
    let mut all = Vec::new();
    all.push(changed(&|gitea| gitea.state().empty = true));
    all.push(changed(&|gitea| gitea.state().may_push = false));
    all.push(changed(&|gitea| {
        let other = "f".repeat(40);
        gitea.state().tags.push(("v1.0".to_owned(), other));
    }));
    all.push(changed(&|gitea| gitea.state().protected.push("v*".to_owned())));
    insta::assert_snapshot!(all.join("\n\n"), @r#"
    publish to <repository>: the repository is empty

    publish to <repository>: it is archived, or the token cannot write to it
    hint: the token needs the scope write:repository, and its user the right to write to the repository

    release the tag v1.0: it names another commit
      expected: 0123456789abcdef0123456789abcdef01234567
      actual:   ffffffffffffffffffffffffffffffffffffffff
    hint: choose another tag: a tag that is published is never moved

    release the tag v1.0: the rule "v*" for tags does not let the token's user make it
    hint: publish with the token of a user whom the rule names, or let the owner add the user to the rule
    "#);
}

#[test]
fn a_file_that_is_too_large_is_refused_with_the_number() {
    let gitea = Gitea::start();
    gitea.state().stated_mib = 1;
    gitea.state().most = 1 << 20;
    let mut publisher = Publisher::new(&gitea);
    let large = publisher.dir.path().join("disk.raw");
    let bytes = vec![0; (1 << 20) + 1];
    fs::write(&large, &bytes).expect("written");
    let asset = PlannedAsset {
        name: "raw-amd64-disk.raw".to_owned(),
        source: large,
        sha256: Sha256Digest::new(Sha256::digest(&bytes).into()),
        size: bytes.len() as u64,
    };
    publisher.plan = plan("v1.0", vec![asset.clone()]);
    insta::assert_snapshot!(refused(&gitea, &publisher), @r"
    upload raw-amd64-disk.raw: its 1048577 bytes are more than the 1048576 that the server takes
    hint: publish the compressed disk, or raise FILE_MAX_SIZE on the server and give the new limit with --max-asset-size
    ");
    // Versions before 1.25 state a limit that they do not apply.
    gitea.state().version = "1.24.6".to_owned();
    publisher.look().expect("no limit there");
    gitea.state().version = "1.27.3".to_owned();
    // The caller knows better, and is wrong: the server's words.
    publisher.options.max_asset_size = Some(4 << 20);
    let error = publisher.publish().expect_err("refused");
    assert_eq!(
        error.to_string(),
        "upload raw-amd64-disk.raw: its 1048577 bytes are more than the server, or a proxy before it, takes (413): \
         content is too large: the limit is 1048576 bytes"
    );
    assert!(gitea.state().releases[0].draft && gitea.state().names("v1.0").is_empty());
    publisher.options.max_asset_size = Some(100);
    publisher.plan = plan("v1.0", vec![PlannedAsset { size: 101, ..asset }]);
    assert!(
        publisher
            .look()
            .expect_err("too large")
            .to_string()
            .contains("its 101 bytes are more than the 100")
    );

    let gitea = Gitea::start();
    gitea.state().forbidden = Some(".zst");
    let error = Publisher::new(&gitea).publish().expect_err("refused");
    let want = "upload raw-amd64-disk.raw.zst: the server refuses it: This file cannot be uploaded or modified";
    assert!(error.to_string().starts_with(want), "{error}");
}

#[test]
fn a_protected_tag_that_the_look_cannot_judge_is_named_at_the_last_step() {
    let gitea = Gitea::start();
    let publisher = Publisher::new(&gitea);
    let client = publisher.client();
    let mut journal = publisher.journal();
    let seen = publisher_look(&client, &publisher, &journal);
    let release = fill_release(&client, &publisher.plan, &seen, publisher.options, &mut journal).expect("filled");
    gitea.state().protected.push("v*".to_owned());
    let error = show_release(&client, &publisher.plan, &release).expect_err("not shown");
    assert_eq!(error.to_string(), "show the release v1.0: the server answered 500");
    assert!(error.hint().expect("a hint").contains("protected tags"));
    assert!(gitea.state().releases[0].draft && gitea.state().tags.is_empty());
    gitea.state().protected.clear();
    show_release(&client, &publisher.plan, &release).expect("shown");
    assert_published(&gitea, "after the rule went");

    // An expression is not evaluated, and said to be in doubt.
    let gitea = Gitea::start();
    gitea.state().protected.push("/^v[0-9]/".to_owned());
    assert_eq!(Publisher::new(&gitea).look().expect("in doubt").doubts, ["/^v[0-9]/"]);
}

fn publisher_look(client: &GiteaClient<'_>, publisher: &Publisher, journal: &Journal) -> SeenRelease {
    look_at_release(client, &publisher.plan, publisher.options, journal).expect("free")
}

#[test]
fn a_wrong_token_is_told_apart_from_a_missing_right() {
    let gitea = Gitea::start();
    let publisher = Publisher::with(&gitea, "wrong", None);
    // Without a right token the repository can be read, and says that it cannot be written.
    let error = publisher.look().expect_err("refused");
    assert!(matches!(error, GiteaError::ReadOnly { .. }), "{error}");
    let seen = Publisher::new(&gitea).look().expect("free");
    let error = fill_release(
        &publisher.client(),
        &publisher.plan,
        &seen,
        publisher.options,
        &mut publisher.journal(),
    );
    let error = error.expect_err("refused");
    assert!(matches!(error, GiteaError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().ends_with("(401): token is required"), "{error}");
}

#[test]
fn a_server_that_has_other_bytes_than_it_got_is_not_trusted() {
    let gitea = Gitea::start();
    let publisher = Publisher::new(&gitea);
    // The first download after the first upload.
    let at = {
        let other = Gitea::start();
        Publisher::new(&other).publish().expect("published");
        let lines = other.web.lines();
        1 + lines
            .iter()
            .position(|l| l.contains("/attachments/"))
            .expect("compared")
    };
    gitea
        .web
        .fault(at, ServerFault::Instead(Reply::text(200, "something else")));
    let error = publisher.publish().expect_err("other bytes");
    assert!(matches!(error, GiteaError::Lying { .. }), "{error}");
    assert!(gitea.state().releases[0].draft);
    publisher.publish().expect("compared again");
    assert_published(&gitea, "after the lie");
}

#[test]
fn the_token_does_not_follow_a_redirect_to_the_storage() {
    let gitea = Gitea::start();
    let storage = WebServer::start(None, |_| Reply::text(200, ""));
    let publisher = Publisher::new(&gitea);
    publisher.publish().expect("published");
    gitea.state().storage = Some(storage.url(""));
    let error = publisher.look().expect_err("the storage has nothing");
    assert!(matches!(error, GiteaError::OtherContent { .. }), "{error}");
    let asked = storage.log();
    assert_eq!(asked.len(), 4, "one for each file");
    assert!(
        asked
            .iter()
            .all(|r| r.field("authorization").is_none() && r.target.ends_with("?signature=x"))
    );
    assert!(gitea.web.log().iter().all(|r| r.field("authorization").is_some()));
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let authority = Authority::new();
    let gitea = Gitea::start_with(Some(authority.server()));
    Publisher::with(&gitea, TOKEN, Some(authority.pem()))
        .publish()
        .expect("published");
    assert_published(&gitea, "over TLS");
    let requests = gitea.web.log().len();
    let error = Publisher::new(&gitea).look().expect_err("not trusted");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert_eq!(gitea.web.log().len(), requests);
}
