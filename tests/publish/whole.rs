//! A whole publication in one process, judged at the other end: by both cosigns, by skopeo, and by what the doubles got.

use crate::{
    gitea::COMMIT,
    platform::KEY,
    sigstore::{Cosign, IDENTITY},
    site::{Site, TAG},
};
use serde_json::Value;
use std::fs;

#[test]
fn everything_that_is_published_verifies_at_the_other_end() {
    let site = Site::new();
    let ended = site.whole(&[]);
    ended.expect(0, &["release v1 of 0123456789abcdef", "blobs sent, "]);
    site.assert_whole();

    // The registry: nothing got a final name before everything else was there.
    let log = site.proxy.take();
    let writes = Site::writes(&log);
    let is_final = |line: &String| {
        let name = line.rsplit('/').next().expect("a part");
        line.starts_with("PUT") && (name == COMMIT || name == TAG)
    };
    let first = writes.iter().position(is_final).expect("tags");
    let last_other = writes.iter().rposition(|line| !is_final(line)).expect("others");
    assert!(last_other < first, "{}", writes.join("\n"));
    assert_eq!(writes.iter().filter(|line| is_final(line)).count(), 3);

    // Gitea: the release became visible with its last request that writes, and only that made the git tag.
    let lines = site.gitea.web.lines();
    let shown = lines.iter().rposition(|line| line.starts_with("PATCH")).expect("shown");
    let upload = lines
        .iter()
        .rposition(|line| line.starts_with("POST"))
        .expect("uploads");
    assert!(upload < shown, "{}", lines.join("\n"));

    // The platform: one message, signed, about the disk that is there.
    let requests = site.platform.web.log();
    assert_eq!(requests.len(), 1);
    let signed = aws_lc_rs::hmac::sign(
        &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, KEY.as_bytes()),
        &requests[0].body,
    );
    assert_eq!(
        requests[0].field("x-powernode-signature"),
        Some(format!("sha256={}", hex::encode(signed)).as_str())
    );
    let body: Value = serde_json::from_slice(&requests[0].body).expect("JSON");
    let reference = format!("{}:{COMMIT}", site.disk_repository());
    assert_eq!(body["oci_ref"], reference.as_str());
    assert_eq!(
        (&body["firmware_ref"], &body["arch"]),
        (&"firmware 7".into(), &"amd64".into())
    );

    the_images_verify(&site);
    the_disk_verifies(&site, &reference, &body);
    the_release_verifies(&site);
    wrong_signers_are_refused(&site);
    // The secrets are nowhere: neither on the terminal nor in the journal.
    let journal = fs::read_to_string(site.journal()).expect("written");
    for secret in [crate::gitea::TOKEN, KEY, "w3bh00k-s3cret"] {
        for text in [&ended.out, &ended.err, &journal] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

/// The digests of the index and of the manifests below it.
fn digests(site: &Site) -> Vec<String> {
    let index = site.index();
    let manifest = site.manifest("powernode/os", &index);
    let below = manifest["manifests"].as_array().expect("manifests").clone();
    let below = below
        .iter()
        .map(|entry| entry["digest"].as_str().expect("text").to_owned());
    [index].into_iter().chain(below).collect()
}

fn the_images_verify(site: &Site) {
    let digests = digests(site);
    assert_eq!(digests.len(), 3);
    for cosign in Cosign::BOTH {
        for (at, digest) in digests.iter().enumerate() {
            let image = format!("{}@{digest}", site.image_repository());
            let (accepted, said) = site.cosign(cosign, "verify", &image, IDENTITY);
            assert!(accepted, "{cosign:?} {image}: {said}");
            // The index has no provenance; each manifest has the one of its own build.
            if at > 0 {
                let (accepted, said) = site.cosign(cosign, "verify-attestation", &image, IDENTITY);
                assert!(accepted, "{cosign:?} {image}: {said}");
            }
        }
        let image = format!("{}@{}", site.image_repository(), digests[0]);
        let (accepted, said) = site.cosign(cosign, "verify", &image, "https://git.test/somebody/else");
        assert!(!accepted, "the control: {said}");
    }
    for name in [
        format!("{}:{COMMIT}", site.image_repository()),
        format!("{}:{TAG}", site.image_repository()),
        format!("{}@{}", site.image_repository(), digests[1]),
        format!("{}:{COMMIT}", site.disk_repository()),
    ] {
        site.verify(&name, &[]).expect(0, &["signed at"]);
    }
    let all = site.verify(&format!("{}:{TAG}", site.image_repository()), &[]);
    assert_eq!(
        all.out.lines().filter(|line| line.starts_with("ok ")).count(),
        3,
        "{}",
        all.out
    );
}

fn the_disk_verifies(site: &Site, reference: &str, body: &Value) {
    let pulled = site.dir.path().join("pulled");
    let manifest = site.pull(reference, &pulled);
    assert_eq!(manifest["artifactType"], "application/vnd.powernode.disk-image.v1");
    let layers = manifest["layers"].as_array().expect("layers");
    let layer = |ending: &str| {
        let title = |layer: &Value| {
            layer["annotations"]["org.opencontainers.image.title"]
                .as_str()
                .map(str::to_owned)
        };
        let mut found = layers
            .iter()
            .filter(|layer| title(layer).is_some_and(|title| title.ends_with(ending)));
        let found = found.next().expect(ending);
        let hex = found["digest"]
            .as_str()
            .expect("text")
            .trim_start_matches("sha256:")
            .to_owned();
        pulled.join(hex)
    };
    assert_eq!(layers.len(), 3);
    let disk = layer(".img");
    let published = fs::read(site.images().join("raw/amd64/disk.raw")).expect("there");
    assert_eq!(fs::read(&disk).expect("pulled"), published);
    assert_eq!(body["sha256"], crate::sigstore::hex_of(&published).as_str());
    for cosign in Cosign::BOTH {
        let (accepted, said) = cosign.accepts(&disk, &layer(".cosign-bundle"), None, &[]);
        assert!(accepted, "{cosign:?}: {said}");
        let (accepted, said) = cosign.accepts(&disk, &layer(".attestation-bundle"), Some("slsaprovenance1"), &[]);
        assert!(accepted, "{cosign:?}: {said}");
    }
}

fn the_release_verifies(site: &Site) {
    let release = site.gitea.state().releases[0].clone();
    let files = site.dir.path().join("release");
    fs::create_dir(&files).expect("made");
    for asset in &release.assets {
        fs::write(files.join(&asset.name), &asset.content).expect("written");
    }
    // The list of checksums is about all files that are signed.
    let list = fs::read_to_string(files.join("SHA256SUMS")).expect("there");
    for line in list.lines() {
        let (sum, name) = line.split_once("  ").expect("two parts");
        assert_eq!(
            sum,
            crate::sigstore::hex_of(&fs::read(files.join(name)).expect("there")),
            "{name}"
        );
    }
    assert_eq!(list.lines().count() * 2 + 2, release.assets.len());
    for name in ["SHA256SUMS", "raw-amd64-disk.raw", "oci-arm64-provenance.slsa.json"] {
        let (file, bundle) = (files.join(name), files.join(format!("{name}.sigstore.json")));
        for cosign in Cosign::BOTH {
            let (accepted, said) = cosign.accepts(&file, &bundle, None, &[]);
            assert!(accepted, "{cosign:?} {name}: {said}");
        }
        site.verify(file.to_str().expect("UTF-8"), &[])
            .expect(0, &["signed at"]);
    }
    for artifact in ["images/oci/arm64", "images/raw/amd64"] {
        site.verify(artifact, &[]).expect(0, &["build-manifest.json"]);
    }
    // An artifact with its signatures is as good as one without.
    let mut audit = site.pnb();
    site.run(audit.args(["audit", "images/raw/amd64"])).expect(0, &[]);
    // A bundle of another file.
    let (one, two) = ("release/SHA256SUMS", "release/raw-amd64-disk.raw.sigstore.json");
    site.verify(one, &["--bundle", two])
        .expect(65, &["bundle: the bundle signs"]);
}

fn wrong_signers_are_refused(site: &Site) {
    let name = format!("{}:{COMMIT}", site.image_repository());
    site.verify(&name, &["--identity", "https://git.test/somebody/else"])
        .expect(67, &["FAIL", "identity: "]);
    site.verify(&name, &["--issuer", "https://git.test/other"])
        .expect(68, &["FAIL", "issuer: "]);
    let missing = format!("{}:missing", site.image_repository());
    site.verify(&missing, &[])
        .expect(61, &["the registry does not have it"]);

    // The signature of a manifest is taken away, and its provenance stays: cosign 3 accepts that, and pnb does not.
    let index = site.index();
    let digest = site.manifest("powernode/os", &index)["manifests"][0]["digest"].clone();
    let digest = digest.as_str().expect("text");
    let tag = digest.replace(':', "-");
    let whole = site.manifest("powernode/os", &tag);
    let is_signature = |entry: &Value| {
        let manifest = site.manifest("powernode/os", entry["digest"].as_str().expect("text"));
        manifest["annotations"]["dev.sigstore.bundle.predicateType"] == "https://sigstore.dev/cosign/sign/v1"
    };
    let mut without = whole.clone();
    let entries = without["manifests"].as_array_mut().expect("referrers");
    let before = entries.len();
    entries.retain(|entry| !is_signature(entry));
    assert_eq!(entries.len(), before - 1);
    put(site, &tag, &without);
    let image = format!("{}@{digest}", site.image_repository());
    let (accepted, said) = site.cosign(Cosign::Three, "verify", &image, IDENTITY);
    assert!(accepted, "cosign 3.1.1 takes the provenance for a signature: {said}");
    site.verify(&image, &[]).expect(
        65,
        &["the bundle has a statement of type https://slsa.dev/provenance/v1, which is no signature"],
    );
    // Of the index, the other two lines are fine.
    let all = site.verify(&name, &[]);
    all.expect(65, &["which is no signature"]);
    assert_eq!(
        all.out.lines().filter(|line| line.starts_with("ok")).count(),
        2,
        "{}",
        all.out
    );
    put(
        site,
        &tag,
        &serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [],
        }),
    );
    site.verify(&image, &[])
        .expect(65, &["bundle: no signature is attached"]);
    put(site, &tag, &whole);
    site.verify(&image, &[]).expect(0, &[]);
}

/// Puts an index at a tag, as somebody else would.
fn put(site: &Site, tag: &str, index: &Value) {
    let url = format!("http://{}/v2/powernode/os/manifests/{tag}", site.registry.address);
    let request = ureq::put(&url).header("Content-Type", "application/vnd.oci.image.index.v1+json");
    request.send(index.to_string()).expect("taken");
}

#[test]
fn the_last_lines_of_a_publication_verify_it_as_they_stand() {
    let site = Site::new();
    let ended = site.whole(&[]);
    let sentence = format!(
        "published and signed the image for amd64 and arm64, 1 disk image and the release v1 of commit {COMMIT}, "
    );
    ended.expect(0, &[&sentence, " files of the release sent, "]);
    let next = ended.next();
    let [image, boot, disk, download, file, sums] = &next[..] else {
        panic!("{next:#?}");
    };
    for (command, found) in [(image, 3), (disk, 1)] {
        let verified = site.typed(command);
        verified.expect(0, &["signed at"]);
        let lines = verified.out.lines().filter(|line| line.starts_with("ok ")).count();
        assert_eq!(lines, found, "{}", verified.out);
    }
    let name = format!("{}@{}", site.image_repository(), site.index());
    assert!(
        image.contains("verify-signature ") && image.contains(&format!(" {name} --identity ")),
        "{image}"
    );
    let host = site.proxy.address;
    assert!(
        boot.starts_with("pnb boot ") && boot.ends_with(&format!(" oci:{name} --ca-file ca.pem --plain-http {host}")),
        "{boot}"
    );
    // The words of curl are its addresses, which are asked here without it.
    let words: Vec<&str> = download.split(' ').collect();
    assert_eq!(words[..3], ["curl", "-fL", "--remote-name-all"], "{download}");
    for url in &words[3..] {
        let content = ureq::get(*url)
            .call()
            .expect("served")
            .body_mut()
            .read_to_vec()
            .expect("read");
        fs::write(site.dir.path().join(url.rsplit('/').next().expect("a name")), content).expect("written");
    }
    site.typed(file).expect(0, &["SHA256SUMS", "signed at"]);
    let disk = site.images().join("raw/amd64/disk.raw");
    fs::copy(disk, site.dir.path().join("raw-amd64-disk.raw")).expect("copied");
    site.typed(sums).expect(0, &["raw-amd64-disk.raw: OK"]);
    // The same for programs, of a publication that finds everything there.
    let again = site.whole(&["--json"]);
    let last = again.expect(0, &[]).out.lines().last().expect("a line");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(
        (&last["event"], &last["command"]),
        (&"end".into(), &"publish".into()),
        "{last}"
    );
    assert_eq!(last["next"], serde_json::json!(next));
    assert!(last["summary"].as_str().expect("text").starts_with(&sentence), "{last}");
    assert_eq!(last["image"], name.as_str());
    site.whole(&[])
        .expect(0, &["no file was sent: the release has them all"]);
}

#[test]
fn a_second_publication_sends_and_signs_nothing() {
    let site = Site::new();
    site.whole(&[]).expect(0, &[]);
    let messages = site.platform.web.log().len();
    let signed = site.signatures();
    // Every file, and the checksums; of the index, the manifests and the disk's manifest two; three provenances.
    assert_eq!(signed, (1, 14 + 2 * 4 + 3));
    site.proxy.take();
    let uploads = site.gitea.web.lines().len();
    let journal = fs::read(site.journal()).expect("written");
    site.whole(&[])
        .expect(0, &["no blob was sent: the registries have them all", "release v1 of "]);
    let log = site.proxy.take();
    // The login of a writer is tried with an upload, which is given up.
    let writes = Site::writes(&log);
    assert!(
        writes
            .iter()
            .all(|line| line.starts_with("POST") && line.ends_with("/blobs/uploads/")),
        "{}",
        writes.join("\n")
    );
    assert!(log.iter().all(|asked| asked.body == 0));
    let lines = site.gitea.web.lines();
    assert!(
        lines[uploads..].iter().all(|line| line.starts_with("GET")),
        "{}",
        lines[uploads..].join("\n")
    );
    assert_eq!(site.platform.web.log().len(), messages, "the platform was told once");
    assert_eq!(site.signatures(), signed, "nothing was signed twice");
    assert_eq!(fs::read(site.journal()).expect("written"), journal);
    site.assert_whole();
}
