//! A double of the platform's node API, to the letter: TLS 1.3 only, answers in a `data` envelope, a bootstrap token that counts once, a
//! request with an Ed25519 key, a claim that is pending first, heartbeats with the token of the instance.

use crate::{
    csr,
    server::{Received, Reply, WebServer},
    tls::Authority,
};
use rustls::SupportedProtocolVersion;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// The address under which a machine reaches the double.
pub(crate) const NODE_ADDRESS: &str = "10.0.2.100:8443";
const NODE_BYTES: [u8; 4] = [10, 0, 2, 100];
const API: &str = "/api/v1/system/node_api";

/// Somebody who was enrolled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Enrolled {
    /// The token that was spent.
    pub(crate) token: String,
    /// The name in the certificate.
    pub(crate) common_name: String,
}

#[derive(Default)]
struct State {
    /// Tokens that count, with the instance that each is for.
    tokens: BTreeMap<String, String>,
    /// The token and the instance that the next claim gets, when it was pending once.
    claim: Option<(String, String)>,
    claims: Vec<Value>,
    enrolled: Vec<Enrolled>,
    heartbeats: Vec<Value>,
    refused: Vec<String>,
}

/// The running double.
pub(crate) struct Platform {
    web: WebServer,
    pub(crate) authority: Arc<Authority>,
    state: Arc<Mutex<State>>,
}

impl Platform {
    /// For machines, in front of which it has the address [`NODE_ADDRESS`].
    pub(crate) fn for_machines(authority: Arc<Authority>) -> Self {
        Self::start(authority, &NODE_BYTES, &[&rustls::version::TLS13])
    }

    /// With a certificate for this address, and these versions of TLS.
    pub(crate) fn start(
        authority: Arc<Authority>,
        address: &[u8; 4],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let (own, signer) = (Arc::clone(&state), Arc::clone(&authority));
        let web = WebServer::start(Some(authority.server_at(address, versions)), move |request| {
            answer(request, &signer, &mut own.lock().expect("whole"))
        });
        Self { web, authority, state }
    }

    /// The address on this machine.
    pub(crate) fn url(&self) -> String {
        self.web.url("")
    }

    /// The value of `--reach` that leads a machine here, under the address that it has for machines.
    pub(crate) fn reach(&self) -> String {
        self.reach_at(NODE_ADDRESS)
    }

    /// The same under another address, which must be the one that the certificate is for.
    pub(crate) fn reach_at(&self, address: &str) -> String {
        format!("{address}={}", self.url().trim_start_matches("https://"))
    }

    /// The certificate of its authority.
    pub(crate) fn ca(&self) -> String {
        String::from_utf8(self.authority.pem()).expect("text")
    }

    /// Takes `token` for `instance`, once.
    pub(crate) fn expect(&self, token: &str, instance: &str) {
        self.lock().tokens.insert(token.to_owned(), instance.to_owned());
    }

    /// Lets the machine that asks be claimed as `instance`, after it was told once to wait.
    pub(crate) fn expect_claim(&self, token: &str, instance: &str) {
        self.expect(token, instance);
        self.lock().claim = Some((token.to_owned(), instance.to_owned()));
    }

    pub(crate) fn enrolled(&self) -> Vec<Enrolled> {
        self.lock().enrolled.clone()
    }

    /// The bodies of all claims.
    pub(crate) fn claims(&self) -> Vec<Value> {
        self.lock().claims.clone()
    }

    /// The bodies of all heartbeats of enrolled instances.
    pub(crate) fn heartbeats(&self) -> Vec<Value> {
        self.lock().heartbeats.clone()
    }

    /// Why requests were refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.lock().refused.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("whole")
    }
}

fn data(value: &Value) -> Reply {
    Reply::json(200, &json!({ "success": true, "data": value }))
}

fn refuse(state: &mut State, status: u16, why: &str) -> Reply {
    state.refused.push(format!("{status} {why}"));
    Reply::json(status, &json!({ "success": false, "error": why }))
}

fn answer(request: &Received, authority: &Authority, state: &mut State) -> Reply {
    let Some(call) = request.path().strip_prefix(API).filter(|_| request.method == "POST") else {
        return refuse(state, 404, &format!("{} {}", request.method, request.path()));
    };
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return refuse(state, 400, "the body is not JSON");
    };
    match call {
        "/claim" => claim(body, state),
        "/enroll" => enroll(&body, authority, state),
        "/status/heartbeat" => heartbeat(request, body, state),
        _ => refuse(state, 404, call),
    }
}

fn claim(body: Value, state: &mut State) -> Reply {
    if body["mac"].as_str().is_none_or(str::is_empty) {
        return refuse(state, 422, "a claim has no mac");
    }
    state.claims.push(body);
    match (&state.claim, state.claims.len()) {
        (Some((token, instance)), 2..) => data(&json!({
            "status": "claimed", "bootstrap_token": token, "instance_uuid": instance, "platform_url": null,
        })),
        _ => data(&json!({ "status": "pending", "claim_code": "K7-X2", "poll_after_seconds": 1 })),
    }
}

fn enroll(body: &Value, authority: &Authority, state: &mut State) -> Reply {
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    let token = text("bootstrap_token").to_owned();
    let Some(instance) = state.tokens.get(&token).cloned() else {
        return refuse(state, 401, &format!("the bootstrap token {token:?} does not count"));
    };
    let request = match csr::read(text("csr_pem")) {
        Ok(request) => request,
        Err(problem) => return refuse(state, 422, problem),
    };
    if request.common_name != instance {
        return refuse(
            state,
            422,
            &format!("the token is for {instance}, the name is {}", request.common_name),
        );
    }
    state.tokens.remove(&token);
    let certificate = authority.issue(&instance, &request.public_key);
    let number = state.enrolled.len() + 1;
    let common_name = request.common_name;
    state.enrolled.push(Enrolled { token, common_name });
    data(&json!({
        "cert_pem": certificate,
        "ca_chain_pem": String::from_utf8(authority.pem()).expect("text"),
        "instance_id": format!("i-{number}"),
        "mtls_subject": format!("CN={instance}"),
        "not_after": "2099-01-01T00:00:00Z",
        "certificate_id": format!("c-{number}"),
        "instance_token": bearer(&instance),
    }))
}

fn bearer(instance: &str) -> String {
    format!("jwt-of-{instance}")
}

fn heartbeat(request: &Received, body: Value, state: &mut State) -> Reply {
    let known = request.field("authorization").is_some_and(|given| {
        let mut all = state.enrolled.iter();
        all.any(|one| given == format!("Bearer {}", bearer(&one.common_name)))
    });
    if !known {
        return refuse(state, 401, "a heartbeat is of nobody who was enrolled");
    }
    state.heartbeats.push(body);
    data(&json!({ "acknowledged": true, "next_poll_seconds": 30 }))
}
