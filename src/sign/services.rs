//! The requests to the services of a signature: Fulcio (version 2 of its interface), Rekor (versions 1 and 2), an authority of time.
//!
//! Sources: `fulcio.proto` of <https://github.com/sigstore/fulcio>, `openapi.yaml` of <https://github.com/sigstore/rekor>,
//! `rekor_service.proto` of <https://github.com/sigstore/rekor-tiles>, RFC 3161 §2.4 and §3.4.

use super::{config::ServiceUrl, error::SignError, token::IdentityToken};
use crate::{
    http::{Answer, HeaderValue, HttpClient, Method, Request, RequestBody, Retry, header, join, shown},
    model::visible_message,
};
use serde::{Deserialize, Serialize};
use sigstore_verify::{
    crypto::KeyPair,
    rekor::{DsseEntry, HashedRekord, HashedRekordV2, LogEntry, RekorV2KeyDetails},
    types::{
        DerCertificate, DsseEnvelope, KindVersion, Sha256Hash, SignatureBytes, TimestampToken, TransparencyLogEntry,
    },
};
use std::collections::BTreeMap;

/// The purposes of the requests, in errors.
const CERTIFY: &str = "get a certificate";
const LOG: &str = "write an entry into the transparency log";
const STAMP: &str = "get a time stamp";
/// The most certificates of a chain.
const CHAIN: usize = 8;

/// What is signed, as a log wants to know it.
pub(super) enum Signed<'a> {
    /// A message by its digest.
    Message(&'a Sha256Hash, &'a SignatureBytes),
    /// An envelope around a statement.
    Envelope(&'a DsseEnvelope),
}

/// Sends `body` with POST and returns the answer of a success.
fn post(
    http: &HttpClient,
    what: &'static str,
    url: &str,
    kind: &'static str,
    accept: &'static str,
    body: &[u8],
) -> Result<Answer, SignError> {
    let answer = exchange(http, what, url, kind, accept, body)?;
    match answer.is_success() {
        true => Ok(answer),
        false => Err(refused(what, url, &answer)),
    }
}

fn exchange(
    http: &HttpClient,
    what: &'static str,
    url: &str,
    kind: &'static str,
    accept: &'static str,
    body: &[u8],
) -> Result<Answer, SignError> {
    let mut request = Request::new(Method::POST, url).header(header::ACCEPT, accept);
    request
        .headers
        .push((header::CONTENT_TYPE, HeaderValue::from_static(kind)));
    request.body = RequestBody::Bytes(body);
    // A second certificate or time stamp does no harm, and a log answers 409 to a second entry.
    request.retry = Retry::Safe;
    http.send(request).map_err(|source| SignError::Request { what, source })
}

fn refused(what: &'static str, url: &str, answer: &Answer) -> SignError {
    SignError::Service {
        what,
        url: shown(url),
        status: answer.status,
        said: answer.said(),
    }
}

fn odd(what: &'static str, url: &str, problem: impl Into<String>) -> SignError {
    SignError::Answer {
        what,
        url: shown(url),
        problem: problem.into(),
    }
}

fn json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, SignError> {
    serde_json::to_vec(value).map_err(|e| SignError::Crypto {
        what,
        problem: e.to_string(),
    })
}

/// Asks the authority to certify `key` for the identity of `token`; the certificate and those above it.
pub(super) fn certify(
    http: &HttpClient,
    authority: &ServiceUrl,
    token: &IdentityToken,
    key: &KeyPair,
) -> Result<Vec<DerCertificate>, SignError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Certified {
        signed_certificate_embedded_sct: Option<Chained>,
    }
    #[derive(Deserialize)]
    struct Chained {
        chain: Chain,
    }
    #[derive(Deserialize)]
    struct Chain {
        certificates: Vec<String>,
    }
    let crypto = |e: sigstore_verify::crypto::Error| SignError::Crypto {
        what: CERTIFY,
        problem: e.to_string(),
    };
    let proof = key.sign(token.challenge().as_bytes()).map_err(crypto)?;
    let body = serde_json::json!({
        "credentials": {"oidcIdentityToken": token.secret()},
        "publicKeyRequest": {
            "publicKey": {"algorithm": "ECDSA", "content": key.public_key_der().map_err(crypto)?.to_pem()},
            "proofOfPossession": proof.to_base64(),
        },
    });
    let url = format!("{}/api/v2/signingCert", authority.url);
    let plain = "application/json";
    let answer = exchange(http, CERTIFY, &url, plain, plain, body.to_string().as_bytes())?;
    if !answer.is_success() {
        return Err(SignError::Service {
            what: CERTIFY,
            url: shown(&url),
            status: answer.status,
            said: without(&answer, token.secret()),
        });
    }
    let certified: Certified = serde_json::from_slice(&answer.body)
        .map_err(|_| odd(CERTIFY, &url, "is not JSON with a chain of certificates"))?;
    let Some(chained) = certified.signed_certificate_embedded_sct else {
        return Err(odd(
            CERTIFY,
            &url,
            "has no certificate with an embedded time stamp of its log",
        ));
    };
    let texts = chained.chain.certificates;
    if texts.is_empty() || texts.len() > CHAIN {
        return Err(odd(CERTIFY, &url, format!("has {} certificates", texts.len())));
    }
    let certificate = |text: &String| {
        DerCertificate::from_pem(text).map_err(|_| odd(CERTIFY, &url, "has a certificate that is not PEM"))
    };
    texts.iter().map(certificate).collect()
}

/// The text of an answer without the secret and without its parts, which a server may quote. They are taken out before the text is shortened,
/// which could leave half of one.
pub(super) fn without(answer: &Answer, secret: &str) -> String {
    let mut said = String::from_utf8_lossy(&answer.body).replace(secret, "…");
    for part in secret.split('.').filter(|part| part.len() > 8) {
        said = said.replace(part, "…");
    }
    visible_message(said.trim())
}

/// Writes an entry into a log.
pub(super) fn log(
    http: &HttpClient,
    log: &ServiceUrl,
    signed: &Signed<'_>,
    certificate: &DerCertificate,
) -> Result<TransparencyLogEntry, SignError> {
    match log.version {
        1 => log_v1(http, &log.url, signed, certificate),
        _ => log_v2(http, &log.url, signed, certificate),
    }
}

fn log_v1(
    http: &HttpClient,
    base: &str,
    signed: &Signed<'_>,
    certificate: &DerCertificate,
) -> Result<TransparencyLogEntry, SignError> {
    let url = format!("{base}/api/v1/log/entries");
    let (body, kind) = match signed {
        Signed::Message(digest, signature) => {
            let entry = HashedRekord::new(digest, signature, certificate);
            (json(LOG, &entry)?, KindVersion::HashedRekordV001)
        }
        Signed::Envelope(envelope) => {
            let entry = DsseEntry::new(envelope, certificate).map_err(|e| SignError::Crypto {
                what: LOG,
                problem: e.to_string(),
            })?;
            (json(LOG, &entry)?, KindVersion::DsseV001)
        }
    };
    let plain = "application/json";
    let mut answer = exchange(http, LOG, &url, plain, plain, &body)?;
    // The entry is there: an earlier try wrote it, and its answer was lost.
    let place = answer.header(header::LOCATION).and_then(|place| join(&url, place));
    if let Some(place) = place.filter(|place| answer.status == 409 && place.starts_with(base)) {
        let request = Request::new(Method::GET, &place).header(header::ACCEPT, plain);
        answer = http
            .send(request)
            .map_err(|source| SignError::Request { what: LOG, source })?;
    }
    if !answer.is_success() {
        return Err(refused(LOG, &url, &answer));
    }
    let bad = |e: &dyn std::fmt::Display| odd(LOG, &url, format!("is no entry: {}", visible_message(&e.to_string())));
    let entries: BTreeMap<String, LogEntry> = serde_json::from_slice(&answer.body).map_err(|e| bad(&e))?;
    let mut entries = entries.into_values();
    let (Some(entry), None) = (entries.next(), entries.next()) else {
        return Err(bad(&"it is not exactly one"));
    };
    entry.to_bundle_entry(kind).map_err(|e| bad(&e))
}

fn log_v2(
    http: &HttpClient,
    base: &str,
    signed: &Signed<'_>,
    certificate: &DerCertificate,
) -> Result<TransparencyLogEntry, SignError> {
    let url = format!("{base}/api/v2/log/entries");
    let (digest, signature) = match signed {
        Signed::Message(digest, signature) => (**digest, (*signature).clone()),
        // The log knows an envelope by the bytes that were signed.
        Signed::Envelope(envelope) => (
            sigstore_verify::crypto::sha256(&envelope.pae()),
            envelope.signature.sig.clone(),
        ),
    };
    let details = RekorV2KeyDetails::PkixEcdsaP256Sha256;
    let entry = HashedRekordV2::new_with_certificate(&digest, &signature, certificate, details);
    let plain = "application/json";
    let answer = post(http, LOG, &url, plain, plain, &json(LOG, &entry)?)?;
    serde_json::from_slice(&answer.body)
        .map_err(|e| odd(LOG, &url, format!("is no entry: {}", visible_message(&e.to_string()))))
}

/// Asks an authority to state the time of a signature.
pub(super) fn stamp(
    http: &HttpClient,
    authority: &ServiceUrl,
    signature: &SignatureBytes,
) -> Result<TimestampToken, SignError> {
    let query = query(sigstore_verify::crypto::sha256(signature.as_bytes()).as_bytes());
    let (kind, accept) = ("application/timestamp-query", "application/timestamp-reply");
    let answer = post(http, STAMP, &authority.url, kind, accept, &query)?;
    match answer.body.first() {
        // A sequence, which the verification of the bundle reads.
        Some(0x30) => Ok(TimestampToken::new(answer.body)),
        _ => Err(odd(STAMP, &authority.url, "is no time stamp")),
    }
}

/// A request for a time stamp, in DER:
///
/// ```text
/// SEQUENCE { version INTEGER 1, SEQUENCE { SEQUENCE { OID id-sha256, NULL }, OCTET STRING digest }, certReq BOOLEAN TRUE }
/// ```
///
/// It has no nonce: a signature is new and random, so no earlier answer is about it.
fn query(digest: &[u8; 32]) -> Vec<u8> {
    const HEAD: [u8; 24] = [
        0x30, 57, 0x02, 1, 1, 0x30, 49, 0x30, 13, 0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
        0, 0x04, 32,
    ];
    const TAIL: [u8; 3] = [0x01, 1, 0xff];
    [HEAD.as_slice(), digest, &TAIL].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_of_a_request_for_a_time_stamp_are_right() {
        let query = query(&[7; 32]);
        assert_eq!(query.len(), 59);
        assert_eq!(usize::from(query[1]), query.len() - 2);
        // From the imprint to the flag at the end.
        assert_eq!(usize::from(query[6]), query.len() - 7 - 3);
        assert_eq!(usize::from(query[8]), 13);
    }

    #[test]
    fn a_text_of_a_server_loses_the_token() {
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
        let answer = |body: String| Answer {
            status: 400,
            headers: crate::http::HeaderMap::new(),
            body: body.into_bytes(),
        };
        let quoted = answer(format!("bad {token} or eyJzdWIiOiJ4In0!"));
        assert_eq!(without(&quoted, token), "bad … or …!");
        let long = without(&answer(token.repeat(1000)), token);
        assert!(!long.contains("eyJ"), "{long}");
    }
}
