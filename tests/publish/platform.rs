//! A double of the platform's webhook, over TLS with a certificate of the tests' own authority. It checks the signature over the bytes
//! that it got, in both forms that the platform accepts, and answers as the platform does: 200 with `success: true` for failures too.

use crate::{
    server::{Received, Reply, WebServer},
    tls::Authority,
};
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// The path that the platform hands out; its last segment is a secret.
pub(crate) const PATH: &str = "/api/v1/system/webhooks/disk_image/built/w3bh00k-s3cret";
/// The key of the signature.
pub(crate) const KEY: &str = "shared-k3y";

/// The running double.
pub(crate) struct Platform {
    pub(crate) web: WebServer,
    pub(crate) authority: Authority,
    publications: Arc<Mutex<BTreeMap<(String, String), Value>>>,
}

impl Platform {
    pub(crate) fn start() -> Self {
        let authority = Authority::new();
        let publications: Arc<Mutex<BTreeMap<(String, String), Value>>> = Arc::default();
        let own = Arc::clone(&publications);
        let web = WebServer::start(Some(authority.server()), move |request| {
            answer(request, &mut own.lock().expect("whole"))
        });
        Self {
            web,
            authority,
            publications,
        }
    }

    /// What the platform knows, by platform name and commit.
    pub(crate) fn publications(&self) -> BTreeMap<(String, String), Value> {
        self.publications.lock().expect("whole").clone()
    }
}

/// The platform's answer, which is 200 for a failure too.
pub(crate) fn failure(reason: &str, more: &Value) -> Reply {
    let mut value = json!({ "success": true, "status": "error", "reason": reason });
    for (key, text) in more.as_object().expect("an object") {
        value[key] = text.clone();
    }
    Reply::json(200, &value)
}

fn answer(request: &Received, publications: &mut BTreeMap<(String, String), Value>) -> Reply {
    if request.method != "POST" || !request.path().starts_with("/api/v1/system/webhooks/disk_image/built/") {
        return Reply::json(404, &json!({ "error": "Not Found" }));
    }
    if request.path() != PATH {
        return failure("unknown_webhook", &json!({}));
    }
    let given = request.field("x-powernode-signature").unwrap_or_default();
    let given = hex::decode(given.strip_prefix("sha256=").unwrap_or(given)).unwrap_or_default();
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    if hmac::verify(&key, &request.body, &given).is_err() {
        return failure("bad_signature", &json!({ "hint": "HMAC-SHA256 over the raw body" }));
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return failure("invalid_payload", &json!({}));
    };
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let (Some(name), Some(commit)) = (text("platform_name"), text("git_sha")) else {
        return failure(
            "invalid_payload",
            &json!({ "hint": "platform_name and git_sha are required" }),
        );
    };
    if !name.starts_with("ubuntu-24.04-") {
        return failure(
            "unknown_platform",
            &json!({ "hint": format!("no platform is called {name}") }),
        );
    }
    let id = publications.len() + 1;
    let known = publications.insert((name, commit), body).is_some();
    let status = if known { "idempotent_hit" } else { "queued" };
    Reply::json(200, &json!({ "success": true, "status": status, "publication_id": id }))
}
