//! The message to the platform, against its double.

use crate::{
    platform::{KEY, PATH, Platform, failure},
    server::{Reply, ServerFault},
    tls::Authority,
};
use pnb::{
    http::{ClientOptions, HttpClient},
    model::{Arch, Hint, Sha256Digest},
    publish::{DiskImageMessage, MessageState, Secret, WebhookError, signature, tell},
};
use serde_json::{Value, json};
use std::{
    io::Write,
    time::{Duration, Instant},
};

fn message(name: &str) -> DiskImageMessage {
    DiskImageMessage {
        platform_name: name.parse().expect("a name"),
        oci_ref: format!("registry.example/powernode/disk-images/{name}:0123456789abcdef0123456789abcdef01234567"),
        sha256: Sha256Digest::new([0xab; 32]),
        size_bytes: 2_147_483_648,
        git_sha: "0123456789abcdef0123456789abcdef01234567".parse().expect("a commit"),
        firmware_ref: Some("raspi-firmware 1.20240902".to_owned()),
        arch: Arch::Arm64,
    }
}

fn options(ca: Option<Vec<u8>>) -> ClientOptions {
    ClientOptions {
        ca,
        silence: Duration::from_secs(1),
        tries: 2,
        total: Duration::from_secs(20),
        ..ClientOptions::default()
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text, "the test").expect("a secret")
}

/// Tells the double with this key.
fn tell_it(platform: &Platform, key: &str, message: &DiskImageMessage) -> Result<MessageState, WebhookError> {
    let http = HttpClient::new(options(Some(platform.authority.pem()))).expect("a client");
    tell(&http, &secret(&platform.web.url(PATH)), &secret(key), message)
}

/// The whole error, as it is printed; it must not have a secret.
fn said(error: &WebhookError) -> String {
    let text = pnb::model::chain(error);
    for secret in ["s3cret", KEY] {
        assert!(
            !text.contains(secret) && !format!("{error:?}").contains(secret),
            "{error:?}"
        );
    }
    text
}

#[test]
fn the_platform_gets_the_message_signed_and_a_second_one_is_known() {
    let platform = Platform::start();
    let rpi = message("ubuntu-24.04-rpi4");
    assert_eq!(tell_it(&platform, KEY, &rpi).expect("told"), MessageState::Queued);
    assert_eq!(tell_it(&platform, KEY, &rpi).expect("told"), MessageState::Known);
    let other = message("ubuntu-24.04-arm64-uefi");
    assert_eq!(tell_it(&platform, KEY, &other).expect("told"), MessageState::Queued);
    // The other end: each message once, with every field, signed in the form of the contract.
    let known = platform.publications();
    assert_eq!(known.len(), 2);
    let got = &known[&(
        "ubuntu-24.04-rpi4".to_owned(),
        "0123456789abcdef0123456789abcdef01234567".to_owned(),
    )];
    let wanted = json!({
        "platform_name": "ubuntu-24.04-rpi4", "sha256": "ab".repeat(32), "size_bytes": 2_147_483_648_u64,
        "oci_ref": rpi.oci_ref, "git_sha": "0123456789abcdef0123456789abcdef01234567",
        "firmware_ref": "raspi-firmware 1.20240902", "arch": "arm64",
    });
    assert_eq!(*got, wanted);
    let first = &platform.web.log()[0];
    assert_eq!(first.field("content-type"), Some("application/json"));
    let header = first.field("x-powernode-signature").expect("signed");
    assert_eq!(header, signature(&secret(KEY), &first.body));
    let hex = header.strip_prefix("sha256=").expect("the form of the contract");
    assert!(hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    // The double takes the form without a name too, and so proves that it looks at the digest; another digest it refuses.
    for (signature, status) in [
        (hex.to_owned(), "idempotent_hit"),
        (header.replace(hex, &"0".repeat(64)), "error"),
    ] {
        assert_eq!(raw(&platform, &signature, &first.body)["status"], status);
    }
}

/// Sends bytes with this signature, without the code that is tested.
fn raw(platform: &Platform, signature: &str, body: &[u8]) -> Value {
    use pnb::http::{HeaderName, HeaderValue, Method, Request, RequestBody};
    let http = HttpClient::new(options(Some(platform.authority.pem()))).expect("a client");
    let url = platform.web.url(PATH);
    let mut request = Request::new(Method::POST, &url);
    let name = HeaderName::from_static("x-powernode-signature");
    request
        .headers
        .push((name, HeaderValue::from_str(signature).expect("text")));
    request.body = RequestBody::Bytes(body);
    serde_json::from_slice(&http.send(request).expect("an answer").body).expect("JSON")
}

#[test]
fn success_with_the_status_of_an_error_is_a_failure_with_the_platforms_words() {
    let platform = Platform::start();
    let error = tell_it(&platform, "other", &message("ubuntu-24.04-rpi4")).expect_err("another key");
    let shown = platform.web.url("/api/v1/system/webhooks/disk_image/built/…");
    assert_eq!(
        said(&error),
        format!(
            "tell the platform at {shown}: it answered with the status error\n  reason: bad_signature\n  \
             hint: HMAC-SHA256 over the raw body"
        )
    );
    assert_eq!(
        error.hint().as_deref(),
        Some("the secret is not the one of this webhook")
    );
    let error = tell_it(&platform, KEY, &message("debian-13-rpi4")).expect_err("another platform");
    assert!(said(&error).ends_with("reason: unknown_platform\n  hint: no platform is called debian-13-rpi4"));
    assert!(platform.publications().is_empty());
    // Words of the platform are made visible, and a status that nobody knows is no success.
    let strange = json!({ "error_class": "Net::ReadTimeout", "error_message": "\u{1b}[2J gone" });
    platform
        .web
        .fault(1, ServerFault::Instead(failure("processing_error", &strange)));
    let text = said(&tell_it(&platform, KEY, &message("ubuntu-24.04-rpi4")).expect_err("failed"));
    assert!(
        text.contains("error_class: Net::ReadTimeout\n  error_message: \\u{1b}[2J gone"),
        "{text}"
    );
    for (reply, want) in [
        (
            json!({ "success": true, "status": "later" }),
            "it answered with the status later",
        ),
        (json!({ "success": true }), "it answered with the status none"),
        (
            json!({ "success": false, "status": "queued" }),
            "it answered with the status queued",
        ),
        (json!([1]), "the answer cannot be read: "),
    ] {
        platform.web.fault(1, ServerFault::Instead(Reply::json(200, &reply)));
        let text = said(&tell_it(&platform, KEY, &message("ubuntu-24.04-rpi4")).expect_err("no success"));
        assert!(text.contains(want), "{text}");
    }
    assert!(platform.publications().is_empty());
}

#[test]
fn a_platform_that_is_down_slow_or_elsewhere_is_named_without_its_secret() {
    let platform = Platform::start();
    let rpi = message("ubuntu-24.04-rpi4");
    // A lost answer: the message is sent again, and is known then.
    platform.web.fault(1, ServerFault::AnswerLost);
    assert_eq!(tell_it(&platform, KEY, &rpi).expect("told"), MessageState::Known);
    assert_eq!(platform.web.log().len(), 2);

    platform.web.down(true);
    let text = said(&tell_it(&platform, KEY, &rpi).expect_err("down"));
    assert!(text.contains("built/…") && text.ends_with("(2 tries)"), "{text}");
    platform.web.down(false);

    for number in 1..=2 {
        platform.web.fault(number, ServerFault::Late(Duration::from_secs(6)));
    }
    let begin = Instant::now();
    let text = said(&tell_it(&platform, KEY, &rpi).expect_err("slow"));
    assert!(text.contains("did not answer in time"), "{text}");
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "a slow platform is not waited for"
    );

    let elsewhere = platform.web.url("/elsewhere");
    let requests = platform.web.log().len();
    platform.web.fault(
        1,
        ServerFault::Instead(Reply::text(307, "").with("Location", elsewhere)),
    );
    let error = tell_it(&platform, KEY, &rpi).expect_err("redirected");
    assert!(matches!(error, WebhookError::Redirect { status: 307, .. }), "{error:?}");
    said(&error);
    assert_eq!(platform.web.log().len(), requests + 1, "the redirect was not followed");

    platform
        .web
        .fault(1, ServerFault::Instead(Reply::text(422, "bad\u{7}")));
    let text = said(&tell_it(&platform, KEY, &rpi).expect_err("refused"));
    assert!(text.ends_with("it answered 422: bad\\u{7}"), "{text}");

    // A long answer is not read to its end.
    let long = vec![b' '; 1 << 20];
    let mut reply = Reply::text(200, "");
    reply.body.write_all(&long).expect("memory");
    platform.web.fault(1, ServerFault::Instead(reply));
    let text = said(&tell_it(&platform, KEY, &rpi).expect_err("long"));
    assert!(text.contains("more than 65536 bytes"), "{text}");
}

#[test]
fn another_authority_and_plain_http_are_refused_before_anything_is_sent() {
    let platform = Platform::start();
    let rpi = message("ubuntu-24.04-rpi4");
    for ca in [None, Some(Authority::new().pem())] {
        let http = HttpClient::new(options(ca)).expect("a client");
        let error = tell(&http, &secret(&platform.web.url(PATH)), &secret(KEY), &rpi).expect_err("not trusted");
        assert!(
            said(&error).contains("no trusted authority issued the server's certificate"),
            "{error}"
        );
    }
    let http = HttpClient::new(options(None)).expect("a client");
    let error = tell(
        &http,
        &secret("http://platform.example/built/s3cret"),
        &secret(KEY),
        &rpi,
    )
    .expect_err("plain");
    assert!(said(&error).contains("http without TLS"), "{error}");
    assert!(platform.web.log().is_empty());
}
