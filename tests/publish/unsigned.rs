//! What is refused or left out before anything is written: dry runs, publications without signatures, plans that contradict.

use crate::{
    artifacts::write_other_image,
    fault_proxy::{Demand, Fault},
    gitea::COMMIT,
    site::{Site, WHOLE},
};
use serde_json::Value;
use std::fs;

/// Fails unless no server and no directory has anything of a publication.
#[track_caller]
fn assert_untouched(site: &Site) {
    let log = site.proxy.take();
    // To learn whether a login may write, an upload is begun; it is given up without a byte.
    let writes = Site::writes(&log);
    assert!(
        writes
            .iter()
            .all(|line| line.starts_with("POST") && line.ends_with("/blobs/uploads/")),
        "{}",
        writes.join("\n")
    );
    let begun = log
        .iter()
        .filter(|asked| asked.method == "POST" && asked.status == 202)
        .count();
    let given_up = log
        .iter()
        .filter(|asked| asked.method == "DELETE" && asked.status == 204)
        .count();
    assert_eq!(begun, given_up);
    assert!(log.iter().all(|asked| asked.body == 0));
    assert!(site.gitea.web.lines().iter().all(|line| line.starts_with("GET")));
    assert!(site.platform.web.log().is_empty());
    assert_eq!(site.signatures(), (0, 0));
    for entry in walkdir::WalkDir::new(site.images()).sort_by_file_name() {
        let name = entry.expect("readable").path().display().to_string();
        assert!(!name.ends_with(".sigstore.json"), "{name}");
    }
}

#[test]
fn a_dry_run_writes_nothing_and_shows_the_plan() {
    let site = Site::new();
    let ended = site.whole(&["--dry-run"]);
    let size = fs::metadata(site.images().join("raw/amd64/disk.raw"))
        .expect("there")
        .len();
    ended.expect(
        0,
        &[
            &format!("commit {COMMIT}"),
            &format!("disk   {}:{COMMIT} raw-amd64-disk.raw (", site.disk_repository()),
            "release v1 with 13 files",
            "MiB are sent; signed",
        ],
    );
    assert_untouched(&site);
    assert!(!site.journal().exists());
    let [publish] = &ended.next()[..] else {
        panic!("{}", ended.err);
    };
    let ended = site.whole(&["--json", "--dry-run"]);
    let events: Vec<Value> = ended
        .expect(0, &[])
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let plan = events.iter().find(|event| event["event"] == "plan").expect("a plan");
    assert_eq!(plan["plan"]["commit"], COMMIT);
    assert!(plan["bytes"].as_u64().expect("a number") > 2 * size, "{plan}");
    assert_eq!(plan["plan"]["files"].as_array().map(Vec::len), Some(13));
    let last = events.last().expect("a last one");
    assert_eq!(
        (&last["event"], &last["bytes"]),
        (&"end".into(), &plan["bytes"]),
        "{last}"
    );
    assert_untouched(&site);
    assert!(!site.journal().exists());
    // The command that it names publishes.
    site.typed(publish).expect(0, &["published and signed"]);
    site.assert_whole();
}

#[test]
fn without_signatures_there_are_digests_only() {
    let site = Site::new();
    site.run(&mut site.unsigned(&[], &["--sign", "none"])).expect(
        0,
        &[
            "published by digest only: without a signature nothing gets a tag",
            &format!("published the image for amd64 and arm64 of commit {COMMIT} by digest, "),
        ],
    );
    assert_eq!(site.final_tags(), [""; 0]);
    let line = site.run(&mut site.unsigned(&[], &["--sign", "none"]));
    line.expect(0, &["no blob was sent"]);
    let digest = line.out.trim().rsplit('@').next().expect("a part").to_owned();
    let [boot] = &line.next()[..] else {
        panic!("{}", line.err);
    };
    assert!(
        boot.contains(&format!(" oci:{}@{digest} ", site.image_repository())),
        "{boot}"
    );
    let index = site.manifest("powernode/os", &digest);
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2), "{index}");
    assert_eq!(site.tags("powernode/os"), [""; 0]);
}

#[test]
fn what_needs_a_signature_is_refused_without_one() {
    let site = Site::new();
    for (parts, said) in [
        (&["release"][..], "a release is signed"),
        (&["disk"], "a disk image in a registry has its signatures as layers"),
    ] {
        site.run(&mut site.unsigned(parts, &["--sign", "none"]))
            .expect(60, &[said]);
    }
    // Neither signed nor told not to sign.
    site.run(&mut site.unsigned(&[], &[])).expect(
        2,
        &[
            "--signing-config is not given",
            "the public instance of sigstore signs for no Gitea or Forgejo",
        ],
    );
    site.run(site.unsigned(&["disk"], &[]).args(["--platform", "qcow2/amd64=other"]))
        .expect(60, &["there is no artifact qcow2/amd64 for other"]);
    assert_untouched(&site);
    assert!(!site.journal().exists());
}

#[test]
fn a_look_that_fails_has_written_nothing_and_binds_nobody() {
    let site = Site::new();
    let refuse = |site: &Site, more: &[&str], said: &[&str]| {
        site.whole(more).expect(60, said);
        assert_untouched(site);
    };
    // A webhook for an image that is not published.
    let hooks = site.dir.path().join("webhooks.toml");
    let right = fs::read_to_string(&hooks).expect("written");
    fs::write(&hooks, right.replace("ubuntu-24.04-amd64", "ubuntu-24.04-rpi4")).expect("written");
    refuse(
        &site,
        &[],
        &["a webhook is for ubuntu-24.04-rpi4, and no image has this name"],
    );
    fs::write(&hooks, right.replace("secret-file", "secret")).expect("written");
    refuse(&site, &[], &["webhooks.toml: unknown field `secret`"]);
    fs::write(&hooks, &right).expect("written");
    // A protected tag, a tag of another commit, a draft with a file of somebody else.
    site.gitea.state().protected.push("v*".to_owned());
    refuse(
        &site,
        &[],
        &["the rule \"v*\" for tags does not let the token's user make it"],
    );
    site.gitea.state().protected.clear();
    site.gitea.state().tags.push(("v1".to_owned(), "f".repeat(40)));
    refuse(&site, &[], &["release the tag v1: it names another commit"]);
    site.gitea.state().tags.clear();
    site.gitea.state().add_release("v1", true);
    site.gitea.state().add_asset("v1", "notes.pdf", b"x");
    refuse(
        &site,
        &[],
        &["it has files that are not of this publication: notes.pdf"],
    );
    site.gitea.state().releases.clear();
    // An asset that the server does not take.
    refuse(
        &site,
        &["--max-asset-size", "4096"],
        &["oci-amd64-build-manifest.json: its ", " bytes are more than the 4096"],
    );
    // A token of another identity, and none.
    let token = site.dir.path().join("identity.token");
    let right = fs::read_to_string(&token).expect("written");
    fs::write(&token, "a.b").expect("written");
    refuse(&site, &[], &["it is not three parts with dots between them"]);
    fs::write(&token, &right).expect("written");
    // Registries that want a login, or refuse.
    site.proxy
        .demand(Some(Demand::Basic("user".to_owned(), "password".to_owned())));
    site.whole(&[]).expect(60, &["wants a user and password"]);
    site.proxy.demand(None);
    site.proxy.take();
    site.proxy.on(|asked| {
        asked
            .is("POST", "/blobs/uploads/")
            .then(|| Fault::Answer(403, String::new(), "{}".to_owned()))
    });
    refuse(&site, &[], &["denies it"]);
    site.proxy.on(|_| None);
    // None of these plans is in the way of another one.
    write_other_image(&site.images());
    site.whole(&[]).expect(0, &[]);
    site.assert_whole();
}

#[test]
fn a_tag_of_another_build_is_never_moved() {
    let site = Site::new();
    site.run(&mut site.publish(&[], &[])).expect(0, &[]);
    let before = site.index();
    write_other_image(&site.images());
    let journal = site.journal();
    let journal = ["--journal", journal.to_str().expect("UTF-8")];
    site.run(&mut site.publish(&[], &journal)).expect(
        60,
        &[
            "it is of a publication of other files or to other places",
            "name another file with --journal",
        ],
    );
    site.run(&mut site.publish(&[], &[]))
        .expect(60, &["the tag is taken", "a tag of a commit names one build for ever"]);
    assert_eq!(site.index(), before);
}

#[test]
fn a_commit_whose_images_are_published_gets_a_release_later() {
    let site = Site::new();
    site.run(&mut site.publish(&["disk"], &[])).expect(0, &[]);
    let (_, images) = site.signatures();
    site.run(&mut site.publish(WHOLE, &[]))
        .expect(0, &["no blob was sent", "release v1 of"]);
    let (_, all) = site.signatures();
    // The list of the release's checksums; the image's and the disk's manifests, and two provenances, once more. No file, and no disk.
    assert_eq!((images, all - images), (13 + 2 * 4 + 3, 1 + 2 * 4 + 2));
    assert_eq!(site.gitea.state().names("v1"), site.wanted_assets());
    assert_eq!(site.final_tags().len(), 3);
}
