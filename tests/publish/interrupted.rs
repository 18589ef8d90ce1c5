//! Publications that fail or are killed, and what `--resume` makes of them.

use crate::{
    fault_proxy::Fault,
    gitea::COMMIT,
    platform::failure,
    server::{Reply, ServerFault},
    sigstore::services,
    site::{Site, TAG, WHOLE},
};
use serde_json::json;
use std::{
    fs,
    time::{Duration, Instant},
};

/// Fails unless nothing has a final name: no tag, no visible release, no message.
#[track_caller]
fn assert_hidden(site: &Site) {
    assert_eq!(site.final_tags(), [""; 0]);
    let state = site.gitea.state().clone();
    assert!(state.releases.iter().all(|release| release.draft));
    assert!(state.tags.is_empty());
    assert!(site.platform.publications().is_empty());
}

/// Goes on, and fails unless the publication is whole and nothing was signed a second time.
#[track_caller]
fn assert_completed(site: &Site) {
    site.whole(&["--resume"]).expect(0, &[]);
    site.assert_whole();
    let (_, entries) = site.signatures();
    assert_eq!(entries, SIGNATURES, "each thing is signed once");
}

/// Every file with the checksums; of the index, of two manifests and of the disk's manifest two; three provenances.
const SIGNATURES: usize = 14 + 2 * 4 + 3;

#[test]
fn each_step_has_its_code_and_the_next_run_completes_it() {
    let mut site = Site::new();
    // Blobs: the registry has no room. That is no fault that passes.
    site.proxy.on(|asked| {
        asked
            .is("PUT", "/blobs/uploads/")
            .then(|| Fault::Answer(507, String::new(), "no room".to_owned()))
    });
    site.whole(&[]).expect(61, &["507", "--resume goes on with this step"]);
    assert_hidden(&site);
    site.proxy.on(|_| None);
    // Signing: the authority refuses. Nothing is in the journal yet, so that there is nothing to go on with.
    let right = site.places.clone();
    site.places.authority = services().url("/refuse");
    site.whole(&[]).expect(
        62,
        &["get a certificate", "answered 400", "--resume goes on with this step"],
    );
    assert_hidden(&site);
    site.whole(&[]).expect(
        60,
        &[
            "an earlier publication of this plan was interrupted",
            "--resume goes on with it",
        ],
    );
    site.places = right;
    // Attaching: the registry does not take the list of referrers.
    site.proxy.on(|asked| {
        asked
            .is("PUT", "/manifests/sha256-")
            .then(|| Fault::Answer(403, String::new(), "{}".to_owned()))
    });
    site.whole(&["--resume"]).expect(61, &["denies it"]);
    assert_hidden(&site);
    site.proxy.on(|_| None);
    // The release: the server refuses a kind of file.
    site.gitea.state().forbidden = Some("raw");
    site.whole(&["--resume"]).expect(63, &["raw-amd64-disk.raw"]);
    assert_hidden(&site);
    site.gitea.state().forbidden = None;
    // Showing: a tag of the registry.
    site.proxy.on(|asked| {
        asked
            .is("PUT", COMMIT)
            .then(|| Fault::Answer(403, String::new(), "{}".to_owned()))
    });
    site.whole(&["--resume"]).expect(61, &["denies it"]);
    assert_hidden(&site);
    site.proxy.on(|_| None);
    // The platform: everything else is whole.
    for reply in [
        ServerFault::Instead(failure("processing_error", &json!({}))),
        ServerFault::Instead(Reply::text(307, "").with("Location", "https://elsewhere.example/")),
    ] {
        site.platform.web.fault(1, reply);
        site.whole(&["--resume"]).expect(
            64,
            &[
                "tell the platform about ubuntu-24.04-amd64",
                "--resume goes on with this step",
            ],
        );
        assert!(site.platform.publications().is_empty());
        assert!(!site.gitea.state().releases[0].draft, "the release is visible");
    }
    assert_completed(&site);
}

#[test]
fn a_lost_journal_signs_no_file_and_no_disk_again() {
    let site = Site::new();
    site.whole(&[]).expect(0, &[]);
    let (_, before) = site.signatures();
    fs::remove_file(site.journal()).expect("there");
    site.whole(&[]).expect(0, &["no blob was sent"]);
    let (_, after) = site.signatures();
    // The image's own signatures and provenances are made anew and stand beside the old ones; so are two of the disk's manifest.
    assert_eq!(after - before, 2 * 4 + 2);
    let state = site.gitea.state().clone();
    assert_eq!(state.names(TAG), site.wanted_assets());
    assert_eq!(site.final_tags().len(), 3);
    assert_eq!(site.platform.publications().len(), 1);
    for name in [
        format!("{}:{TAG}", site.image_repository()),
        format!("{}:{COMMIT}", site.disk_repository()),
    ] {
        site.verify(&name, &[]).expect(0, &[]);
    }
    // Signatures of somebody else beside the files are not taken, and the disk's tag is not theirs.
    fs::remove_file(site.journal()).expect("there");
    let file = site.images().join("raw/amd64/disk.raw.sigstore.json");
    let other = site.images().join("raw/amd64/SHA256SUMS.sigstore.json");
    fs::copy(other, file).expect("copied");
    site.whole(&[]).expect(0, &[]);
    assert_eq!(site.gitea.state().names(TAG), site.wanted_assets());
}

mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: waits as long as the client does between tries"]
    fn faults_that_pass_are_waited_for() {
        type Start = fn(&Site);
        let faults: [(&str, Start); 8] = [
            ("429", |site| {
                let fields = "Retry-After: 2\r\n".to_owned();
                site.proxy
                    .once("PUT", "/blobs/uploads/", Fault::Answer(429, fields, String::new()));
            }),
            ("500 of the registry", |site| {
                site.proxy
                    .once("PUT", "/manifests/", Fault::Answer(500, String::new(), String::new()));
            }),
            ("a reset in a blob", |site| {
                site.proxy.once("PUT", "/blobs/uploads/", Fault::CutRequest(100))
            }),
            ("a lost answer to a tag", |site| {
                site.proxy.once("PUT", COMMIT, Fault::LoseAnswer)
            }),
            ("half an asset", |site| site.gitea.state().cut_uploads = 2),
            ("a lost answer of the platform", |site| {
                site.platform.web.fault(1, ServerFault::AnswerLost);
            }),
            ("a slow platform", |site| {
                site.platform.web.fault(1, ServerFault::Late(Duration::from_secs(3)));
            }),
            ("a lost answer of Gitea", |site| {
                site.gitea.web.fault(30, ServerFault::AnswerLost)
            }),
        ];
        for (name, start) in faults {
            let site = Site::new();
            start(&site);
            let ended = site.whole(&[]);
            assert_eq!(ended.code, 0, "{name}: {}", ended.err);
            site.assert_whole();
            assert_eq!(site.signatures(), (1, SIGNATURES), "{name}");
        }
    }

    #[test]
    #[ignore = "nightly: waits as long as the client does between tries"]
    fn faults_that_stay_have_their_codes() {
        type Start = fn(&mut Site);
        let faults: [(&str, i32, Start); 6] = [
            ("500 of the registry", 61, |site| {
                site.proxy.on(|asked| {
                    asked
                        .is("PUT", "/manifests/")
                        .then(|| Fault::Answer(500, String::new(), String::new()))
                });
            }),
            ("a lying digest", 61, |site| {
                site.proxy.on(|asked| {
                    let rewrite = Fault::Rewrite(
                        "Docker-Content-Digest: sha256:".into(),
                        "Docker-Content-Digest: sha256:0".into(),
                    );
                    asked.is("PUT", "/manifests/sha256:").then_some(rewrite)
                });
            }),
            ("signing down", 62, |site| {
                site.places.log = "http://127.0.0.1:9".to_owned()
            }),
            ("a release that lacks the bundles", 63, |site| {
                site.gitea.state().forbidden = Some("json")
            }),
            ("two assets of a name by somebody else", 60, |site| {
                site.gitea.state().add_release(TAG, false);
                for _ in 0..2 {
                    site.gitea.state().add_asset(TAG, "SHA256SUMS", b"x");
                }
            }),
            ("a platform that is down", 64, |site| site.platform.web.down(true)),
        ];
        for (name, code, start) in faults {
            let mut site = Site::new();
            let right = site.places.clone();
            start(&mut site);
            let ended = site.whole(&[]);
            assert_eq!(ended.code, code, "{name}: {}", ended.err);
            if code == 60 {
                assert_eq!(site.final_tags(), [""; 0], "{name}");
                continue;
            }
            if code != 64 {
                assert_hidden(&site);
            }
            site.proxy.on(|_| None);
            site.places = right;
            site.gitea.state().forbidden = None;
            site.platform.web.down(false);
            assert_completed(&site);
        }
    }

    #[test]
    #[ignore = "nightly: a publication for each line of the journal"]
    fn a_kill_after_any_line_of_the_journal_is_completed() {
        let whole = {
            let site = Site::new();
            site.whole(&[]).expect(0, &[]);
            site.journal_lines()
        };
        assert!(whole > 40, "{whole}");
        for lines in 1..whole {
            let site = Site::new();
            let mut child = site.publish(WHOLE, &[]).spawn().expect("starts");
            let begin = Instant::now();
            while site.journal_lines() < lines && child.try_wait().expect("a state").is_none() {
                assert!(begin.elapsed() < Duration::from_secs(120), "line {lines} does not come");
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().expect("ours");
            child.wait().expect("ours");
            let release = site.gitea.state().releases.first().cloned();
            if let Some(release) = release.filter(|release| !release.draft) {
                assert_eq!(site.gitea.state().names(&release.tag), site.wanted_assets());
            }
            assert_killed_completed(&site, lines);
        }
    }

    /// A kill can come between a signature and its line, so at most one thing is signed twice.
    #[track_caller]
    fn assert_killed_completed(site: &Site, lines: usize) {
        let ended = site.whole(&["--resume"]);
        assert_eq!(ended.code, 0, "after line {lines}: {}", ended.err);
        site.assert_whole();
        let (_, entries) = site.signatures();
        assert!(
            (SIGNATURES..=SIGNATURES + 1).contains(&entries),
            "after line {lines}: {entries}"
        );
    }
}
