//! `LegacySignature`: the signature of an image that cosign 2 finds, at the tag `sha256-<hex>.sig`.
//!
//! A layer of the tag's manifest is the payload, and the signature and its proofs are annotations of the layer. Source:
//! <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>.

use super::{
    error::{Refusal, RefusalClass, SignError},
    verify::{BundleVerifier, ExpectedSigner, Purpose, VerifiedBundle},
};
use crate::model::Sha256Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use sigstore_verify::types::{Bundle, DerCertificate, SignatureContent};
use std::collections::BTreeMap;

/// Media type of the layer.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A signature that was kept as text.
#[derive(Deserialize)]
struct Kept {
    payload: String,
    annotations: BTreeMap<String, String>,
    bundle: String,
}

/// The payload and the annotations of the layer that holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LegacySignature {
    payload: Vec<u8>,
    annotations: BTreeMap<String, String>,
    bundle: VerifiedBundle,
}

impl LegacySignature {
    /// Media type of the layer.
    pub const MEDIA_TYPE: &str = PAYLOAD;

    /// The layer's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The layer's annotations.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The same signature as a bundle of the payload, which was verified.
    pub fn bundle(&self) -> &VerifiedBundle {
        &self.bundle
    }

    /// The signature as one line of JSON, for [`LegacySignature::restore`].
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "payload": String::from_utf8_lossy(&self.payload),
            "annotations": self.annotations,
            "bundle": self.bundle.json(),
        })
        .to_string()
    }

    /// The signature of the manifest `image` that was written with [`LegacySignature::to_json`]. It is verified again.
    ///
    /// # Errors
    ///
    /// The text is not one, the payload is about another image, or the bundle is no signature of the payload by the expected signer.
    pub fn restore(
        text: &str,
        image: &Sha256Digest,
        verifier: &BundleVerifier,
        expected: &ExpectedSigner,
    ) -> Result<Self, Refusal> {
        let bad = |reason: &str| Refusal::new(RefusalClass::Bundle, reason);
        let kept: Kept = serde_json::from_str(text).map_err(|_| bad("it is no kept signature"))?;
        let payload: serde_json::Value =
            serde_json::from_str(&kept.payload).map_err(|_| bad("its payload is not JSON"))?;
        let named = &payload["critical"]["image"]["docker-manifest-digest"];
        if *named != format!("sha256:{image}") {
            return Err(bad("its payload is about another image"));
        }
        let payload = kept.payload.into_bytes();
        let digest = Sha256Digest::new(Sha256::digest(&payload).into());
        let bundle = verifier.verify(kept.bundle.as_bytes(), &digest, Purpose::File, expected)?;
        Ok(Self {
            payload,
            annotations: kept.annotations,
            bundle,
        })
    }

    /// The payload for the manifest of this digest, which `reference` names without tag and digest.
    pub(super) fn payload_for(image: &Sha256Digest, reference: &str) -> Vec<u8> {
        serde_json::json!({
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": format!("sha256:{image}")},
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string()
        .into_bytes()
    }

    /// The layer's parts, from the verified bundle of its payload.
    pub(super) fn new(payload: Vec<u8>, bundle: VerifiedBundle, chain: &[DerCertificate]) -> Result<Self, SignError> {
        let odd = |problem| SignError::Legacy { problem };
        let parsed = Bundle::from_json(bundle.json()).map_err(|_| odd("its bundle is unreadable"))?;
        let SignatureContent::MessageSignature(message) = &parsed.content else {
            return Err(odd("its bundle signs no bytes"));
        };
        let certificate = parsed
            .signing_certificate()
            .ok_or(odd("its bundle has no certificate"))?;
        let entries = &parsed.verification_material.tlog_entries;
        let promised = entries
            .iter()
            .find_map(|entry| Some((entry, entry.inclusion_promise.as_ref()?, entry.integrated_time?)));
        let (entry, promise, time) = promised.ok_or(odd(
            "it reads the time from a log of version 1, and the signing configuration has none",
        ))?;
        let log = serde_json::json!({
            "SignedEntryTimestamp": promise.signed_entry_timestamp.to_base64(),
            "Payload": {
                "body": entry.canonicalized_body.to_base64(),
                "integratedTime": time.as_second(),
                "logIndex": entry.log_index.get(),
                "logID": hex::encode(entry.log_id.key_id.as_bytes()),
            },
        });
        let pem: String = chain.iter().map(DerCertificate::to_pem).collect();
        let annotations = [
            ("dev.cosignproject.cosign/signature", message.signature.to_base64()),
            ("dev.sigstore.cosign/bundle", log.to_string()),
            ("dev.sigstore.cosign/certificate", certificate.to_pem()),
            ("dev.sigstore.cosign/chain", pem),
        ];
        Ok(Self {
            payload,
            annotations: annotations.map(|(name, value)| (name.to_owned(), value)).into(),
            bundle,
        })
    }
}
