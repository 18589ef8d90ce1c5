//! Blobs, and everything that can happen to them on the way.

use crate::{docker_registry::DockerRegistry, fault_proxy::Fault, ground::*};
use pnb::{
    model::{Hint, chain},
    registry::{RegistryError, TransferStep, silent},
};
use std::{
    io::{self, Read},
    sync::{Arc, Mutex},
    time::Duration,
};

#[test]
fn a_blob_is_uploaded_once_and_comes_back() {
    for relative in [false, true] {
        let ground = Ground::of(DockerRegistry::start(relative));
        let client = ground.client("team/blobs");
        client.ping().expect("a registry");
        let bytes = noise(700_000, 1);
        let digest = sha256(&bytes);
        assert_eq!(client.has_blob(&digest, 700_000).ok(), Some(false));
        ground.proxy.take();
        let steps = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&steps);
        let on: pnb::registry::OnTransfer = Arc::new(move |step| log.lock().expect("whole").push(step));
        let content = bytes.clone();
        let mut open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(content.clone()))) };
        client.upload_blob(&digest, 700_000, &mut open, &on).expect("uploaded");

        let asked = ground.proxy.take();
        let lines: Vec<(&str, u64)> = asked.iter().map(|a| (a.method.as_str(), a.body)).collect();
        assert_eq!(lines, [("POST", 0), ("PUT", 700_000)]);
        let put = &asked[1];
        assert!(
            put.path.contains("_state=") && put.path.ends_with(&format!("&digest=sha256:{digest}")),
            "{put:?}"
        );
        assert_eq!(
            (put.field("content-length"), put.field("transfer-encoding")),
            (Some("700000"), None)
        );
        assert_eq!(ground.registry.stored(&digest.to_hex()), Some(bytes.clone()));
        let steps = steps.lock().expect("whole").clone();
        let moved: u64 = steps
            .iter()
            .map(|s| if let TransferStep::Bytes(n) = s { *n } else { 0 })
            .sum();
        assert_eq!(
            (steps.first(), moved),
            (Some(&TransferStep::Begin(digest, 700_000)), 700_000)
        );
        assert_eq!(steps.last(), Some(&TransferStep::End(digest)));

        assert_eq!(client.has_blob(&digest, 700_000).ok(), Some(true));
        assert!(client.has_blob(&digest, 699_999).is_err());
        assert_eq!(download(&client, &bytes).ok(), Some(bytes));
        assert!(upload(&client, b"").is_ok());
    }
}

#[test]
fn a_blob_of_another_repository_is_mounted() {
    let ground = Ground::new();
    let bytes = noise(5000, 2);
    upload(&ground.client("one"), &bytes).expect("uploaded");
    let two = ground.client("two");
    let digest = sha256(&bytes);
    assert_eq!(two.has_blob(&digest, 5000).ok(), Some(false));
    assert_eq!(two.mount_blob(&digest, "one").ok(), Some(true));
    assert_eq!(two.has_blob(&digest, 5000).ok(), Some(true));
    assert_eq!(two.mount_blob(&sha256(b"unknown"), "one").ok(), Some(false));
    assert!(two.mount_blob(&digest, "../one").is_err());
}

#[test]
fn an_upload_that_is_cut_begins_again() {
    let ground = Ground::new();
    let client = ground.client("cut");
    let bytes = noise(3_000_000, 3);
    ground
        .proxy
        .once("PUT", "/blobs/uploads/", Fault::CutRequest(1_000_000));
    upload(&client, &bytes).expect("uploaded");
    let asked = ground.proxy.take();
    let lines: Vec<(&str, u64, u16)> = asked.iter().map(|a| (a.method.as_str(), a.body, a.status)).collect();
    assert_eq!(
        lines,
        [
            ("POST", 0, 202),
            ("PUT", 1_000_000, 0),
            ("HEAD", 0, 404),
            ("POST", 0, 202),
            ("PUT", 3_000_000, 201)
        ]
    );
    assert_eq!(ground.waits.seconds(), [1]);
    assert_eq!(ground.registry.stored(&sha256(&bytes).to_hex()), Some(bytes));
}

#[test]
fn a_blob_whose_answer_was_lost_is_not_sent_again() {
    let ground = Ground::new();
    let client = ground.client("lost");
    let bytes = noise(300_000, 4);
    ground.proxy.once("PUT", "/blobs/uploads/", Fault::LoseAnswer);
    upload(&client, &bytes).expect("uploaded");
    let methods: Vec<String> = ground.proxy.take().into_iter().map(|a| a.method).collect();
    assert_eq!(methods, ["POST", "PUT", "HEAD"]);
    assert!(ground.registry.stored(&sha256(&bytes).to_hex()).is_some());
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let ground = Ground::new();
    let client = ground.client("busy");
    let mut number = 0;
    ground.proxy.on(move |asked| {
        number += 1;
        match number {
            1 => Some(Fault::Answer(429, "Retry-After: 17\r\n".into(), String::new())),
            3 => Some(Fault::Answer(503, "Retry-After: 5\r\n".into(), String::new())),
            4 => Some(Fault::Answer(500, String::new(), String::new())),
            6 => Some(Fault::Delay(Duration::from_millis(200))),
            _ => (asked.number > 20).then_some(Fault::LoseAnswer),
        }
    });
    let bytes = noise(300_000, 5);
    upload(&client, &bytes).expect("uploaded");
    // POST 429, POST, PUT 503 (5 s), HEAD 500 (1 s), HEAD 404, POST, PUT.
    let asked: Vec<(String, u16)> = ground.proxy.take().into_iter().map(|a| (a.method, a.status)).collect();
    let want = [
        ("POST", 429),
        ("POST", 202),
        ("PUT", 503),
        ("HEAD", 500),
        ("HEAD", 404),
        ("POST", 202),
        ("PUT", 201),
    ];
    assert_eq!(asked, want.map(|(method, status)| (method.to_owned(), status)));
    assert_eq!(ground.waits.seconds(), [17, 5, 1]);
}

#[test]
fn a_registry_that_stays_down_is_given_up() {
    let ground = Ground::new();
    let client = ground.client("down");
    let bytes = noise(300_000, 6);
    ground
        .proxy
        .on(|asked| asked.is("PUT", "/blobs/").then_some(Fault::CutRequest(10)));
    let error = upload(&client, &bytes).expect_err("down");
    assert!(matches!(error, RegistryError::Down { .. }), "{error}");
    assert!(error.to_string().ends_with("(5 tries)"), "{error}");
    assert_eq!(ground.proxy.take().iter().filter(|a| a.is("PUT", "/blobs/")).count(), 5);
    assert_eq!(ground.waits.seconds(), [1, 2, 4, 8]);
    ground
        .proxy
        .on(|_| Some(Fault::Answer(502, String::new(), "the\u{1b}[31m gateway".into())));
    let error = client.has_blob(&sha256(&bytes), 300_000).expect_err("down");
    assert!(matches!(error, RegistryError::Down { .. }), "{error}");
    let error = client
        .put_manifest(MANIFEST, &manifest())
        .expect_err("down")
        .to_string();
    assert!(
        error.ends_with("is down: it answered 502: the\\u{1b}[31m gateway"),
        "{error}"
    );
}

fn manifest() -> Vec<u8> {
    let empty = serde_json::json!({"mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"});
    let text = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [empty]});
    text.to_string().into_bytes()
}

#[test]
fn a_refusal_arrives_before_the_bytes_are_sent_and_has_its_class() {
    let ground = Ground::new();
    let client = ground.client("refused");
    let bytes = noise(4_000_000, 7);
    let refuse = |status, body: &str| {
        ground.proxy.take();
        ground.proxy.once(
            "PUT",
            "/blobs/uploads/",
            Fault::Answer(status, String::new(), body.into()),
        );
        let error = upload(&client, &bytes).expect_err("refused");
        let asked = ground.proxy.take();
        assert_eq!(asked.iter().map(|a| a.body).sum::<u64>(), 0);
        assert_eq!(asked.len(), 2, "{asked:?}");
        error
    };
    let begin = format!(
        "upload the blob sha256:{} to {}/refused: ",
        sha256(&bytes),
        ground.proxy.address
    );
    let registry = ground.proxy.address.to_string();
    let error = refuse(413, "<html>too\u{202e} big</html>");
    assert!(matches!(error, RegistryError::TooLarge { .. }));
    assert_eq!(
        error.to_string(),
        format!("{begin}it is too large for {registry} (status 413): <html>too\\u{{202e}} big</html>")
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("limit")));
    let json = r#"{"errors":[{"code":"DENIED","message":"quota exceeded","detail":{"used":1}}]}"#;
    let error = refuse(403, json);
    assert!(matches!(error, RegistryError::Denied { .. }));
    assert_eq!(
        error.to_string(),
        format!("{begin}{registry} denies it: quota exceeded (DENIED)")
    );
    let error = refuse(400, "odd");
    assert!(matches!(error, RegistryError::Refused { status: 400, .. }), "{error}");
    // The control: without the rule it is taken.
    ground.proxy.on(|_| None);
    upload(&client, &bytes).expect("uploaded");
}

#[test]
fn a_lying_digest_is_never_tried_again() {
    let ground = Ground::new();
    let client = ground.client("lies");
    let bytes = noise(300_000, 8);
    let digest = sha256(&bytes);
    let other = sha256(b"other");
    let lie = || Fault::Rewrite(format!("sha256:{digest}\r"), format!("sha256:{other}\r"));
    ground.proxy.once(
        "PUT",
        "/blobs/uploads/",
        Fault::Rewrite(
            "Docker-Content-Digest: sha256".into(),
            "Docker-Content-Digest: sha512".into(),
        ),
    );
    let error = upload(&client, &bytes).expect_err("a lie");
    let asked = ground.proxy.take();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let begin = format!(
        "upload the blob sha256:{digest} to {}/lies: {0} has another digest\n",
        ground.proxy.address
    );
    let begin = begin.replace("{0}", &ground.proxy.address.to_string());
    assert!(error.to_string().starts_with(&begin), "{error}");
    assert!(matches!(error, RegistryError::Lie { .. }), "{error}");

    ground.proxy.once("HEAD", "/blobs/", lie());
    let error = client.has_blob(&digest, 300_000).expect_err("a lie");
    assert!(matches!(error, RegistryError::Lie { .. }), "{error}");

    // Bytes that changed on the way are found by their own digest.
    ground.proxy.take();
    ground.proxy.once("GET", "/blobs/", Fault::Flip);
    let error = download(&client, &bytes).expect_err("a lie").to_string();
    assert!(error.contains("has another digest\nexpected: sha256:"), "{error}");
    assert_eq!(ground.proxy.take().len(), 1);
    assert_eq!(download(&client, &bytes).ok(), Some(bytes));
    assert!(ground.waits.seconds().is_empty());
}

#[test]
fn a_file_that_changed_does_not_reach_the_registry() {
    let ground = Ground::new();
    let client = ground.client("changed");
    let bytes = noise(300_000, 9);
    let digest = sha256(&noise(300_000, 10));
    let mut open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.clone()))) };
    let error = client
        .upload_blob(&digest, 300_000, &mut open, &silent())
        .expect_err("changed");
    let text = chain(&error);
    let want = format!(
        "the blob has another digest\nexpected: sha256:{digest}\n  actual: sha256:{}",
        sha256(&bytes)
    );
    assert!(text.ends_with(&want), "{text}");
    let asked = ground.proxy.take();
    assert!(asked.len() == 2 && asked[1].body < 300_000, "{asked:?}");
    // And one that is shorter.
    let error = client
        .upload_blob(&sha256(&bytes), 300_001, &mut open, &silent())
        .expect_err("short");
    assert!(chain(&error).ends_with("it ends 1 bytes early"), "{error}");
}

#[test]
fn a_download_that_is_cut_begins_again() {
    let ground = Ground::new();
    let client = ground.client("down");
    let bytes = noise(2_000_000, 11);
    upload(&client, &bytes).expect("uploaded");
    ground.proxy.take();
    ground.proxy.once("GET", "/blobs/", Fault::CutAnswer(1_000_000));
    assert_eq!(download(&client, &bytes).ok(), Some(bytes.clone()));
    assert_eq!((ground.proxy.take().len(), ground.waits.seconds()), (2, vec![1]));
    // Another size than is wanted.
    let mut sink = Vec::new();
    let error = client
        .read_blob(&sha256(&bytes), 1_999_999, &mut sink, &silent())
        .expect_err("too long");
    assert!(
        chain(&error).contains("has more than 1999999 bytes"),
        "{}",
        chain(&error)
    );
    let error = client
        .read_blob(&sha256(&bytes), 2_000_001, &mut sink, &silent())
        .expect_err("too short");
    assert!(
        chain(&error).contains("it has 2000000 bytes instead of 2000001"),
        "{}",
        chain(&error)
    );
    let error = download(&client, b"not there").expect_err("not there");
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
}

#[test]
fn a_server_that_is_no_registry_is_named() {
    let ground = Ground::new();
    ground
        .proxy
        .on(|_| Some(Fault::Answer(404, String::new(), String::new())));
    let error = ground.client("x").ping().expect_err("no registry").to_string();
    assert!(error.ends_with("the server is no registry (it has no /v2/)"), "{error}");
}
