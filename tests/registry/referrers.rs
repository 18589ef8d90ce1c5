//! What refers to a manifest, with the referrers API and without it.

use crate::{fault_proxy::Fault, ground::*};
use pnb::registry::{LayoutDirectory, RegistryClient, RegistryError, push_layout, silent};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const EMPTY: &[u8] = b"{}";

/// A manifest that refers to `subject`, with a layer that `seed` makes.
fn referrer(client: &RegistryClient, subject: &Value, seed: u32) -> Vec<u8> {
    let layer = noise(100, seed);
    upload(client, EMPTY).expect("uploaded");
    upload(client, &layer).expect("uploaded");
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.note",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": format!("sha256:{}", sha256(EMPTY)), "size": 2},
        "layers": [{"mediaType": "application/octet-stream", "digest": format!("sha256:{}", sha256(&layer)), "size": 100}],
        "subject": subject, "annotations": {"z": "1", "a": seed.to_string()},
    })
    .to_string()
    .into_bytes()
}

/// Pushes an image; returns a client of its repository and the descriptor of the image.
fn image(ground: &Ground) -> (RegistryClient, Value) {
    let dir = tempfile::tempdir().expect("scratch");
    layout(dir.path(), 1000);
    let client = ground.client("signed");
    let layout = LayoutDirectory::open(dir.path()).expect("a layout");
    let done = push_layout(&client, &layout, None, None, &silent()).expect("pushed");
    let found = client.manifest(&done.digest).expect("asked").expect("there");
    let subject = json!({"mediaType": INDEX, "digest": format!("sha256:{}", found.digest), "size": found.bytes.len()});
    ground.proxy.take();
    (client, subject)
}

fn digest_of(subject: &Value) -> pnb::model::Sha256Digest {
    let text = subject["digest"].as_str().expect("a digest");
    text.trim_start_matches("sha256:").parse().expect("a digest")
}

#[test]
fn without_the_api_the_list_is_kept_under_a_tag() {
    let ground = Ground::new();
    let (client, subject) = image(&ground);
    let digest = digest_of(&subject);
    // The header is not believed.
    ground.proxy.on(|a| {
        a.is("PUT", "/manifests/").then(|| {
            Fault::Rewrite(
                "\r\n\r\n".into(),
                format!("\r\nOCI-Subject: sha256:{}\r\n\r\n", "0".repeat(64)),
            )
        })
    });
    let first = referrer(&client, &subject, 1);
    let stored = client.attach(&digest, MANIFEST, &first).expect("attached");
    ground.proxy.on(|_| None);
    assert_eq!(stored, sha256(&first));
    let second = referrer(&client, &subject, 2);
    client.attach(&digest, MANIFEST, &second).expect("attached");
    let found = client.referrers(&digest).expect("listed");
    assert!(!found.by_api);
    let names: Vec<String> = found.list.iter().map(|d| d.digest().to_string()).collect();
    assert_eq!(
        names,
        [&first, &second].map(|bytes| format!("sha256:{}", sha256(bytes)))
    );

    // What another program reads there.
    let tag = format!("docker://{}/signed:sha256-{digest}", ground.proxy.address);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &tag]);
    let list: Value = serde_json::from_slice(&raw).expect("JSON");
    assert_eq!(list["mediaType"], INDEX);
    assert_eq!(
        list["manifests"][1],
        json!({"mediaType": MANIFEST, "digest": format!("sha256:{}", sha256(&second)), "size": second.len(),
            "artifactType": "application/vnd.example.note", "annotations": {"a": "2", "z": "1"}})
    );
    // Again: nothing is written.
    ground.proxy.take();
    client.attach(&digest, MANIFEST, &second).expect("attached");
    let asked = ground.proxy.take();
    assert!(
        asked.iter().all(|a| ["GET", "HEAD"].contains(&a.method.as_str())),
        "{asked:?}"
    );
}

#[test]
fn what_others_wrote_into_the_list_stays() {
    let ground = Ground::new();
    let (client, subject) = image(&ground);
    let digest = digest_of(&subject);
    let other = json!({"mediaType": MANIFEST, "digest": subject["digest"], "size": 7, "artifactType": "application/x", "odd": [1]});
    // An entry must be there for this registry.
    let own = referrer(&client, &subject, 3);
    client.put_manifest(MANIFEST, &own).expect("stored");
    let entry = json!({"mediaType": MANIFEST, "digest": format!("sha256:{}", sha256(&own)), "size": own.len(), "odd": other["odd"]});
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry], "annotations": {"by": "others"}, "unknown": true});
    client
        .put_tag(&format!("sha256-{digest}"), INDEX, list.to_string().as_bytes(), false)
        .expect("stored");
    client
        .attach(&digest, MANIFEST, &referrer(&client, &subject, 4))
        .expect("attached");
    let found = client
        .tagged(&format!("sha256-{digest}"))
        .expect("asked")
        .expect("there");
    let value: Value = serde_json::from_slice(&found.bytes).expect("JSON");
    assert_eq!(
        (&value["manifests"][0], &value["unknown"], &value["annotations"]["by"]),
        (&entry, &json!(true), &json!("others"))
    );
    assert_eq!(value["manifests"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_list_that_another_program_writes_at_the_same_time_is_merged_again() {
    let ground = Ground::new();
    let (client, subject) = image(&ground);
    let digest = digest_of(&subject);
    let tag = format!("sha256-{digest}");
    // Another program writes its own list, without ours, right after the first one of ours.
    let rival = referrer(&client, &subject, 5);
    client.put_manifest(MANIFEST, &rival).expect("stored");
    let entry = json!({"mediaType": MANIFEST, "digest": format!("sha256:{}", sha256(&rival)), "size": rival.len()});
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let rivals = |times: usize| {
        let direct = Ground::of_direct(&ground);
        let (tag, list, left) = (tag.clone(), list.clone(), Arc::new(Mutex::new(times)));
        ground.proxy.on(move |asked| {
            // Between our PUT and the GET that looks at it.
            let mut left = left.lock().expect("whole");
            let ours = asked.is("GET", &format!("/manifests/{tag}"));
            if ours && *left > 0 {
                *left -= 1;
                direct.put_tag(&tag, INDEX, list.as_bytes(), true).expect("written");
            }
            None
        });
    };
    rivals(3);
    let own = referrer(&client, &subject, 6);
    client.attach(&digest, MANIFEST, &own).expect("attached");
    let found = client.referrers(&digest).expect("listed");
    assert_eq!(found.list.len(), 2, "{found:?}");
    // Without an end it is an error.
    rivals(usize::MAX);
    let error = client
        .attach(&digest, MANIFEST, &referrer(&client, &subject, 7))
        .expect_err("a race");
    assert!(matches!(error, RegistryError::Race { tries: 5, .. }), "{error}");
    assert_eq!(ground.proxy.take().iter().filter(|a| a.is("PUT", &tag)).count(), 3 + 5);
}

#[test]
fn with_the_api_no_tag_is_written() {
    let ground = Ground::new();
    let (client, subject) = image(&ground);
    let digest = digest_of(&subject);
    let own = referrer(&client, &subject, 8);
    let entry = json!({"mediaType": MANIFEST, "digest": format!("sha256:{}", sha256(&own)), "size": own.len()});
    let page =
        move |entries: &[&Value]| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let content = format!("Content-Type: {INDEX}\r\n");
    let (first, second) = (page(&[]), page(&[&entry]));
    let next = format!("{content}Link: </v2/signed/referrers/sha256:{digest}?page=2>; rel=\"next\"\r\n");
    let (fields, late) = (content.clone(), Arc::new(Mutex::new(0)));
    // The registry lists it in the second page, and the third time that it is asked.
    ground.proxy.on(move |asked| {
        if !asked.is("GET", "/referrers/") {
            return None;
        }
        if asked.path.ends_with("page=2") {
            return Some(Fault::Answer(200, fields.clone(), second.clone()));
        }
        let mut late = late.lock().expect("whole");
        *late += 1;
        let fields = if *late > 2 { &next } else { &fields };
        Some(Fault::Answer(200, fields.clone(), first.clone()))
    });
    client.attach(&digest, MANIFEST, &own).expect("attached");
    assert_eq!(ground.waits.seconds(), [1, 2]);
    let found = client.referrers(&digest).expect("listed");
    assert!(found.by_api && found.list.len() == 1, "{found:?}");
    assert_eq!(client.tag_digest(&format!("sha256-{digest}")).ok(), Some(None));
    // A next page elsewhere is refused.
    let away = format!("{content}Link: <http://127.0.0.1:1/x>; rel=\"next\"\r\n");
    let text = page(&[]);
    ground.proxy.on(move |a| {
        a.is("GET", "/referrers/")
            .then(|| Fault::Answer(200, away.clone(), text.clone()))
    });
    let error = client.referrers(&digest).expect_err("refused").to_string();
    assert!(error.ends_with("its next page is not at the registry"), "{error}");
    ground.proxy.on(|a| {
        a.is("GET", "/referrers/")
            .then(|| Fault::Answer(200, String::new(), "<html>".into()))
    });
    let error = client.referrers(&digest).expect_err("no list").to_string();
    assert!(error.contains("it does not parse"), "{error}");
    // One that names no or another subject is not attached.
    let error = client
        .attach(&sha256(b"other"), MANIFEST, &own)
        .expect_err("refused")
        .to_string();
    assert!(
        error.ends_with("the manifest names another subject, or none"),
        "{error}"
    );
}
