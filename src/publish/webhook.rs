//! The message to the platform that a disk image is published.
//!
//! ```text
//! POST <the address that the platform handed out>
//! Content-Type: application/json
//! X-Powernode-Signature: sha256=<HMAC-SHA256 of the body's bytes, in hexadecimal>
//!
//! {"platform_name":…,"oci_ref":…,"sha256":…,"size_bytes":…,"git_sha":…,"firmware_ref":…,"arch":…}
//! ```
//!
//! The platform answers 200 with `{"success": true, "status": "queued"}` or `"idempotent_hit"`. `success` is true for failures too, whose
//! `status` is `error`: so the status decides. A message that was sent twice is one for the platform, so it is sent again after a failed
//! connection. The address has a secret in its last segment, which no message shows; a redirect is not followed, because it would lead the
//! message elsewhere.

use super::{PlatformName, Secret, WebhookError};
use crate::{
    http::{Answer, HeaderName, HttpClient, Method, Request, RequestBody, Retry, header, shown},
    model::{Arch, GitSha, Sha256Digest, visible_message},
};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

/// The header of the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-powernode-signature");
/// Most bytes of the answer.
const MAX_ANSWER: u64 = 64 << 10;

/// What the platform is told of an image. Every field is always sent: the platform takes a missing `arch` for arm64.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DiskImageMessage {
    /// The platform's name of the image, one for each architecture.
    pub platform_name: PlatformName,
    /// The artifact in its registry, with its tag.
    pub oci_ref: String,
    /// SHA-256 of the image.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// The commit that it was built from.
    pub git_sha: GitSha,
    /// The firmware that belongs to it, if any.
    pub firmware_ref: Option<String>,
    /// Its architecture.
    pub arch: Arch,
}

impl DiskImageMessage {
    /// The body of the request.
    pub fn to_json(&self) -> Vec<u8> {
        // Every field is text or a number, so this does not fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What the platform did with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageState {
    /// It will fetch the image.
    Queued,
    /// It had the message already.
    Known,
}

/// The signature of a body, as the header has it.
pub fn signature(secret: &Secret, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

/// Sends a message.
///
/// # Errors
/// There is no answer, the answer is a redirect, of another status than 200 or no JSON, or its status is a failure.
pub fn tell(
    http: &HttpClient,
    address: &Secret,
    secret: &Secret,
    message: &DiskImageMessage,
) -> Result<MessageState, WebhookError> {
    let name = shown_webhook(address);
    let body = message.to_json();
    let mut request = Request::new(Method::POST, address.reveal())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json");
    request = request
        .secret(SIGNATURE, &signature(secret, &body))
        .ok_or_else(|| WebhookError::Malformed {
            url: name.clone(),
            problem: "the signature does not fit into a header".to_owned(),
        })?;
    request.name = Some(&name);
    request.body = RequestBody::Bytes(&body);
    request.limit = MAX_ANSWER;
    request.retry = Retry::Safe;
    let answer = http.send(request).map_err(WebhookError::Http)?;
    judge(&answer, &name)
}

/// The address without its last segment, which is a secret, and without its query.
pub fn shown_webhook(address: &Secret) -> String {
    let text = address.reveal();
    let plain = text.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let host = plain.find("://").map_or(0, |at| at + 3);
    match plain[host..].rfind('/') {
        Some(slash) => shown(&format!("{}…", &plain[..host + slash + 1])),
        None => shown(plain),
    }
}

/// The platform's answer.
#[derive(Deserialize)]
struct PlatformAnswer {
    success: Option<bool>,
    status: Option<String>,
    reason: Option<String>,
    hint: Option<String>,
    error_class: Option<String>,
    error_message: Option<String>,
}

fn judge(answer: &Answer, url: &str) -> Result<MessageState, WebhookError> {
    let url = url.to_owned();
    match answer.status {
        300..=399 => {
            let status = answer.status;
            return Err(WebhookError::Redirect { url, status });
        }
        200 => {}
        status => {
            let said = answer.said();
            return Err(WebhookError::Refused { url, status, said });
        }
    }
    let read: Result<PlatformAnswer, _> = serde_json::from_slice(&answer.body);
    let read = read.map_err(|error| WebhookError::Malformed {
        url: url.clone(),
        problem: visible_message(&error.to_string()),
    })?;
    match (read.success, read.status.as_deref()) {
        (Some(true), Some("queued")) => Ok(MessageState::Queued),
        (Some(true), Some("idempotent_hit")) => Ok(MessageState::Known),
        (_, status) => {
            let status = status.map_or_else(|| "none".to_owned(), visible_message);
            let parts = [
                ("reason", read.reason),
                ("hint", read.hint),
                ("error_class", read.error_class),
                ("error_message", read.error_message),
            ];
            let parts = parts.into_iter().filter_map(|(key, text)| Some((key, text?)));
            let details: String = parts
                .map(|(key, text)| format!("\n  {key}: {}", visible_message(&text)))
                .collect();
            Err(WebhookError::Failed { url, status, details })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_rfc_4231() {
        // Test case 2: a key of text.
        let key = Secret::new("Jefe", "the test").expect("a key");
        assert_eq!(
            signature(&key, b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn every_field_is_always_sent_in_the_contracts_order() {
        let message = DiskImageMessage {
            platform_name: "ubuntu-24.04-rpi4".parse().expect("a name"),
            oci_ref: "registry.example/powernode/disk-images/ubuntu-24.04-rpi4:0123".to_owned(),
            sha256: Sha256Digest::new([0xab; 32]),
            size_bytes: 2_147_483_648,
            git_sha: "0123456789abcdef0123456789abcdef01234567".parse().expect("a commit"),
            firmware_ref: None,
            arch: Arch::Arm64,
        };
        insta::assert_snapshot!(String::from_utf8(message.to_json()).expect("UTF-8"), @r#"
        {"platform_name":"ubuntu-24.04-rpi4","oci_ref":"registry.example/powernode/disk-images/ubuntu-24.04-rpi4:0123","sha256":"abababababababababababababababababababababababababababababababab","size_bytes":2147483648,"git_sha":"0123456789abcdef0123456789abcdef01234567","firmware_ref":null,"arch":"arm64"}
        "#);
    }

    #[test]
    fn the_last_segment_of_an_address_is_not_shown() {
        for (address, want) in [
            (
                "https://p.example/api/disk_image/built/s3cret",
                "https://p.example/api/disk_image/built/…",
            ),
            ("https://p.example/api/built/s3cret/", "https://p.example/api/built/…"),
            (
                "https://p.example/built/s3cret?token=s3cret",
                "https://p.example/built/…",
            ),
            ("https://u:s3cret@p.example/s3cret", "https://p.example/…"),
            ("https://p.example", "https://p.example"),
        ] {
            assert_eq!(shown_webhook(&Secret::new(address, "the test").expect("visible")), want);
        }
    }
}
