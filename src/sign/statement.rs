//! The statement that signs an image for cosign 3: an in-toto statement without content, about the image's digest.

use super::error::SignError;
use crate::{
    manifest::{STATEMENT_TYPE, to_canonical},
    model::Sha256Digest,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Type of the predicate of a statement that is a signature.
pub const SIGN_PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Type of the payload of a signed statement.
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignStatement {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<SignSubject>,
    predicate_type: &'static str,
    predicate: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct SignSubject {
    digest: BTreeMap<&'static str, String>,
}

/// The statement that signs the manifests of these digests, in canonical JSON.
///
/// # Errors
///
/// If there is no subject.
pub fn sign_v1_statement(subjects: &[Sha256Digest]) -> Result<String, SignError> {
    if subjects.is_empty() {
        return Err(SignError::Statement {
            problem: "it has no subject".to_owned(),
        });
    }
    let subject = |digest: &Sha256Digest| SignSubject {
        digest: BTreeMap::from([("sha256", digest.to_hex())]),
    };
    let statement = SignStatement {
        kind: STATEMENT_TYPE,
        subject: subjects.iter().map(subject).collect(),
        predicate_type: SIGN_PREDICATE_TYPE,
        predicate: BTreeMap::new(),
    };
    to_canonical(&statement, "statement").map_err(SignError::Write)
}

/// The parts of a statement that say what it is about.
#[derive(Deserialize)]
pub(super) struct Headline {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<AnySubject>,
    #[serde(rename = "predicateType")]
    pub(super) predicate_type: String,
}

#[derive(Deserialize)]
struct AnySubject {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

impl Headline {
    /// Reads them; the fault if the text is no statement with a SHA-256.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let headline: Self = serde_json::from_slice(text).map_err(|_| "it is no in-toto statement")?;
        if headline.kind != STATEMENT_TYPE {
            return Err("it is no in-toto statement of version 1");
        }
        Ok(headline)
    }

    /// The SHA-256 of every subject that has one.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Sha256Digest> + '_ {
        let digests = self.subject.iter().filter_map(|subject| subject.digest.get("sha256"));
        digests.filter_map(|digest| digest.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_is_cosigns_in_canonical_form() {
        let text = sign_v1_statement(&[Sha256Digest::new([0xab; 32])]).expect("written");
        let hex = "ab".repeat(32);
        let same: serde_json::Value = serde_json::from_str(&format!(
            "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[{{\"digest\":{{\"sha256\":\"{hex}\"}}}}],\
             \"predicateType\":\"https://sigstore.dev/cosign/sign/v1\",\"predicate\":{{}}}}"
        ))
        .expect("JSON");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), same);
        let headline = Headline::parse(text.as_bytes()).expect("a statement");
        assert_eq!(headline.predicate_type, SIGN_PREDICATE_TYPE);
        assert_eq!(headline.subjects().collect::<Vec<_>>(), [Sha256Digest::new([0xab; 32])]);
        assert!(sign_v1_statement(&[]).is_err());
    }
}
