//! Whole images: pushed by pnb and read by skopeo, pushed by skopeo and pulled by pnb.

use crate::{fault_proxy::Fault, ground::*};
use pnb::{
    model::Arch,
    registry::{LayoutDirectory, PlatformChoice, RegistryError, pull_layout, push_layout, silent},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

#[test]
fn what_pnb_pushes_skopeo_reads() {
    let ground = Ground::new();
    let dir = tempfile::tempdir().expect("scratch");
    let source = dir.path().join("layout");
    let digest = layout(&source, 2_000_000);
    let client = ground.client("team/app");
    let opened = LayoutDirectory::open(&source).expect("a layout");
    let done = push_layout(&client, &opened, None, None, &silent()).expect("pushed");
    assert_eq!((done.digest, done.sent, done.there), (digest, 8, 0));

    // Blobs before manifests, manifests before the index, by digest, and no tag.
    let asked = ground.proxy.take();
    let puts: Vec<&str> = asked
        .iter()
        .filter(|a| a.method == "PUT")
        .map(|a| a.path.as_str())
        .collect();
    let manifests: Vec<&&str> = puts.iter().filter(|path| path.contains("/manifests/")).collect();
    assert_eq!((puts.len(), manifests.len()), (8, 3));
    assert!(
        manifests.iter().all(|path| path.contains("/manifests/sha256:")),
        "{manifests:?}"
    );
    assert!(
        puts[7].ends_with(&digest.to_hex()) && puts[3].contains("/manifests/"),
        "{puts:?}"
    );

    let name = format!("docker://{}/team/app@sha256:{digest}", ground.proxy.address);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &name]);
    assert_eq!(sha256(&raw), digest);
    let copy = dir.path().join("copy");
    let target = format!("oci:{}:x", copy.display());
    skopeo(&[
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        &name,
        &target,
    ]);
    assert_eq!(blobs_of(&copy), blobs_of(&source));

    // Again, now with a tag: nothing is sent but the tag.
    ground.proxy.take();
    let done = push_layout(&client, &opened, None, Some("v1"), &silent()).expect("pushed");
    assert_eq!((done.sent, done.there, done.bytes), (0, 8, 0));
    let puts: Vec<String> = ground
        .proxy
        .take()
        .into_iter()
        .filter(|a| a.method == "PUT")
        .map(|a| a.path)
        .collect();
    assert_eq!(puts, ["/v2/team/app/manifests/v1"]);
    assert_eq!(client.tag_digest("v1").ok(), Some(Some(digest)));
    push_layout(&client, &opened, None, Some("v1"), &silent()).expect("the same again");
    assert!(ground.proxy.take().iter().all(|a| a.method != "PUT"));

    // A tag of another image stays.
    let other = dir.path().join("other");
    layout(&other, 10);
    let opened = LayoutDirectory::open(&other).expect("a layout");
    let error = push_layout(&client, &opened, None, Some("v1"), &silent())
        .expect_err("taken")
        .to_string();
    let begin = format!(
        "set the tag {}/team/app:v1: it points to a manifest of another digest\n",
        ground.proxy.address
    );
    assert!(
        error.starts_with(&begin) && error.ends_with(&digest.to_hex()),
        "{error}"
    );
    assert_eq!(client.tag_digest("v1").ok(), Some(Some(digest)));
}

#[test]
fn a_push_that_was_stopped_goes_on() {
    let ground = Ground::new();
    let dir = tempfile::tempdir().expect("scratch");
    let digest = layout(dir.path(), 500_000);
    let client = ground.client("resumed");
    let opened = LayoutDirectory::open(dir.path()).expect("a layout");
    let mut puts = 0;
    ground.proxy.on(move |asked| {
        puts += usize::from(asked.method == "PUT");
        (puts > 3).then(|| Fault::Answer(403, String::new(), String::new()))
    });
    let error = push_layout(&client, &opened, None, None, &silent()).expect_err("stopped");
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    ground.proxy.on(|_| None);
    let done = push_layout(&client, &opened, None, None, &silent()).expect("pushed");
    assert_eq!((done.digest, done.sent, done.there), (digest, 5, 3));
}

#[test]
fn what_skopeo_pushes_pnb_pulls() {
    let ground = Ground::new();
    let dir = tempfile::tempdir().expect("scratch");
    let source = dir.path().join("layout");
    let digest = layout(&source, 2_000_000);
    let name = format!("docker://{}/team/app:v2", ground.proxy.address);
    let from = format!("oci:{}", source.display());
    skopeo(&[
        "copy",
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &name,
    ]);
    let client = ground.client("team/app");

    let all = dir.path().join("all");
    let pulled = pull_layout(
        &client,
        &ground.name("team/app:v2"),
        PlatformChoice::All,
        &all,
        &silent(),
    )
    .expect("pulled");
    assert_eq!(pulled.digest().as_ref(), format!("sha256:{digest}"));
    assert_eq!(blobs_of(&all), blobs_of(&source));
    // Skopeo finds the image by the tag's name in it.
    let raw = skopeo(&["inspect", "--raw", &format!("oci:{}:v2", all.display())]);
    assert_eq!(sha256(&raw), digest);

    let one = dir.path().join("one");
    let reference = ground.name(&format!("team/app@sha256:{digest}"));
    pull_layout(&client, &reference, PlatformChoice::Only(Arch::Arm64), &one, &silent()).expect("pulled");
    let blobs = blobs_of(&one);
    assert_eq!(blobs.len(), 4);
    let opened = LayoutDirectory::open(&one).expect("a layout");
    let (bytes, content) = opened.manifest(opened.image(None).expect("one")).expect("a manifest");
    assert!(blobs.contains_key(&sha256(&bytes).to_hex()) && content.needs().len() == 3);
    let config = &blobs[&content.needs()[0].digest().as_ref()["sha256:".len()..]];
    assert!(String::from_utf8_lossy(config).contains("arm64"));

    // Nothing is overwritten, and nothing is left of a pull that failed.
    let error = pull_layout(&client, &reference, PlatformChoice::All, &one, &silent())
        .expect_err("there")
        .to_string();
    assert!(error.starts_with("make the layout "), "{error}");
    ground.proxy.once("GET", "/blobs/", Fault::Flip);
    let failed = dir.path().join("failed");
    let error = pull_layout(&client, &reference, PlatformChoice::All, &failed, &silent()).expect_err("a lie");
    assert!(matches!(error, RegistryError::Lie { .. }), "{error}");
    ground.proxy.on(|_| None);
    let error = pull_layout(
        &client,
        &ground.name("team/app:v3"),
        PlatformChoice::All,
        &failed,
        &silent(),
    );
    assert!(matches!(error, Err(RegistryError::NotFound { .. })), "{error:?}");
    #[expect(clippy::disallowed_methods, reason = "the names are sorted")]
    let entries = fs::read_dir(dir.path()).expect("readable");
    let mut names: Vec<String> = entries
        .map(|e| e.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["all", "layout", "one"]);
}

#[test]
fn a_manifest_is_what_it_was_asked_for_and_nothing_else() {
    let ground = Ground::new();
    let dir = tempfile::tempdir().expect("scratch");
    let digest = layout(dir.path(), 100);
    let client = ground.client("team/app");
    let opened = LayoutDirectory::open(dir.path()).expect("a layout");
    push_layout(&client, &opened, None, Some("v1"), &silent()).expect("pushed");
    assert_eq!(client.manifest(&sha256(b"x")).ok(), Some(None));
    assert_eq!(client.tagged("v2").ok(), Some(None));
    let refused = |fault: Fault| {
        ground.proxy.take();
        ground.proxy.once("GET", "/manifests/", fault);
        let error = client.manifest(&digest).expect_err("refused").to_string();
        assert_eq!(ground.proxy.take().len(), 1);
        error
    };
    let begin = format!("get the manifest {}/team/app@sha256:{digest}: ", ground.proxy.address);
    for (fault, problem) in [
        (Fault::Flip, "has another digest"),
        (Fault::Rewrite(digest.to_hex(), "0".repeat(64)), "has another digest"),
        (
            Fault::Rewrite(INDEX.into(), MANIFEST.into()),
            "it says that it is application/vnd.oci.image.index.v1+json, and it was sent as",
        ),
        (
            Fault::Rewrite(INDEX.into(), "text/html".into()),
            "it was sent as \"text/html\", which is no manifest's media type",
        ),
        (
            Fault::Answer(200, format!("Content-Type: {INDEX}\r\n"), "x".repeat(5 << 20)),
            "",
        ),
    ] {
        let error = refused(fault);
        assert!(
            error.contains(problem) && error.starts_with(&begin[..begin.len() - 2]),
            "{error}"
        );
    }
    ground.proxy.on(|_| None);
    assert!(client.manifest(&digest).is_ok_and(|found| found.is_some()));
    // A registry that stores another digest than it was given.
    ground
        .proxy
        .once("PUT", "/manifests/", Fault::Rewrite(digest.to_hex(), "0".repeat(64)));
    let bytes = client.manifest(&digest).expect("asked").expect("there").bytes;
    let error = client.put_manifest(INDEX, &bytes).expect_err("a lie");
    assert!(matches!(error, RegistryError::Lie { .. }), "{error}");
    // Both kinds in one text.
    let both =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": [], "config": 1, "layers": []}).to_string();
    let error = client
        .put_manifest(MANIFEST, both.as_bytes())
        .expect_err("refused")
        .to_string();
    assert!(error.ends_with("it is a manifest with fields of an index"), "{error}");
}

/// A change of a layout.
type Damage<'a> = &'a dyn Fn(&Path);

#[test]
fn a_damaged_layout_is_found_before_it_is_sent() {
    let ground = Ground::new();
    let client = ground.client("team/app");
    let damage = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().expect("scratch");
        layout(dir.path(), 100);
        change(dir.path());
        let opened = LayoutDirectory::open(dir.path())?;
        push_layout(&client, &opened, None, Some("v9"), &silent())
    };
    let index = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path.join("index.json")).expect("readable")).expect("JSON")
    };
    let blob_file = |path: &Path, value: &Value| {
        path.join("blobs/sha256")
            .join(&value["digest"].as_str().expect("a digest")["sha256:".len()..])
    };
    let top = |path: &Path| blob_file(path, &index(path)["manifests"][0]);
    let cases: [(&str, Damage<'_>); 7] = [
        ("its file oci-layout does not parse", &|path| {
            fs::write(path.join("oci-layout"), "{").expect("written")
        }),
        ("it has the version \"2.0.0\"", &|path| {
            fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).expect("written");
        }),
        ("it has none", &|path| {
            fs::write(path.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).expect("written");
        }),
        ("it has 2, give one of their names", &|path| {
            let mut two = index(path);
            let entry = two["manifests"][0].clone();
            two["manifests"].as_array_mut().expect("a list").push(entry);
            fs::write(path.join("index.json"), two.to_string()).expect("written");
        }),
        ("has another digest", &|path| {
            let mut bytes = fs::read(top(path)).expect("readable");
            bytes[0] = b' ';
            fs::write(top(path), bytes).expect("written");
        }),
        ("it is no file of", &|path| {
            fs::write(top(path), "short").expect("written")
        }),
        ("pnb knows sha256", &|path| {
            let text = fs::read_to_string(path.join("index.json")).expect("readable");
            let hex = &text[text.find("sha256:").expect("a digest") + 7..][..64];
            let other = text.replace(&format!("sha256:{hex}"), &format!("sha512:{hex}{hex}"));
            fs::write(path.join("index.json"), other).expect("written");
        }),
    ];
    for (problem, change) in cases {
        let error = damage(change).expect_err(problem).to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
    assert_eq!(client.tag_digest("v9").ok(), Some(None));
    damage(&|_| {}).expect("the control");
}
