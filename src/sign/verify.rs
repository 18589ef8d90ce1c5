//! `BundleVerifier`: whether a bundle is a signature of an artifact by the expected signer, without a network.
//!
//! Source: <https://docs.sigstore.dev/about/bundle/>, and the order of the checks in sigstore-verify's `Verifier::verify`.

use super::{
    error::{Refusal, RefusalClass, SignError},
    root::TrustedRoot,
    statement::{Headline, PAYLOAD_TYPE, SIGN_PREDICATE_TYPE},
    token::rfc3339,
};
use crate::model::{Sha256Digest, visible, visible_message};
use sigstore_verify::{
    Error, VerificationPolicy, Verifier, bundle,
    types::{Bundle, HashAlgorithm, Sha256Hash, SignatureContent, bundle::MediaType},
};
use std::fmt;

/// Media type of a bundle, as the type of a layer and of an artifact in a registry.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The most bytes of a bundle: a statement in it may list the packages of an image.
pub const BUNDLE_LIMIT: usize = 16 << 20;
/// The most log entries, and the most time stamps, of a bundle.
const MOST: usize = 8;

/// Who must have signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectedSigner {
    /// The identity, exactly as the certificate has it: an e-mail address, or a URI such as that of a workflow.
    pub identity: String,
    /// The issuer of the identity.
    pub issuer: String,
}

impl fmt::Display for ExpectedSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", visible(&self.identity), visible(&self.issuer))
    }
}

/// What a bundle must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose<'a> {
    /// The signature of a file: of its bytes, or a `sign/v1` statement about it.
    File,
    /// The signature of an image: a `sign/v1` statement about its manifest.
    Image,
    /// A statement with this type of predicate.
    Statement(&'a str),
}

/// A bundle that verifies, with what it shows. Only [`BundleVerifier`] makes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedBundle {
    json: String,
    artifact: Sha256Digest,
    signer: ExpectedSigner,
    predicate_type: Option<String>,
    time: i64,
    log_index: u64,
}

impl VerifiedBundle {
    /// The bundle as it is stored.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The artifact that it was verified for.
    pub fn artifact(&self) -> Sha256Digest {
        self.artifact
    }

    /// The signer.
    pub fn signer(&self) -> &ExpectedSigner {
        &self.signer
    }

    /// The type of the predicate; `None` for the signature of a file's bytes.
    pub fn predicate_type(&self) -> Option<&str> {
        self.predicate_type.as_deref()
    }

    /// The earliest time at which the signature is known to have existed, in seconds since 1970.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// That time as RFC 3339.
    pub fn time_text(&self) -> String {
        rfc3339(self.time)
    }

    /// The number of the first entry in its log.
    pub fn log_index(&self) -> u64 {
        self.log_index
    }
}

/// Verifies bundles by a trusted root.
pub struct BundleVerifier {
    inner: Verifier,
}

impl fmt::Debug for BundleVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BundleVerifier")
    }
}

impl BundleVerifier {
    /// A verifier.
    ///
    /// # Errors
    ///
    /// If a key or certificate of the root cannot be used.
    pub fn new(root: &TrustedRoot) -> Result<Self, SignError> {
        let inner = Verifier::new(&root.inner).map_err(|e| SignError::Root {
            name: root.name.clone(),
            problem: visible_message(&e.to_string()),
        })?;
        Ok(Self { inner })
    }

    /// Verifies that `json` is a bundle for `purpose` of the artifact with this digest, by the expected signer. The identity and the issuer
    /// are compared when the certificate is known to be the authority's.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub fn verify(
        &self,
        json: &[u8],
        artifact: &Sha256Digest,
        purpose: Purpose<'_>,
        expected: &ExpectedSigner,
    ) -> Result<VerifiedBundle, Refusal> {
        let (text, bundle) = parse(json)?;
        let predicate_type = binds(&bundle, artifact, purpose)?;
        let policy = VerificationPolicy::new(expected.identity.as_str(), expected.issuer.as_str());
        let digest = Sha256Hash::new(*artifact.as_bytes());
        let result = self.inner.verify(digest, &bundle, &policy).map_err(|e| refusal(&e))?;
        let checked = [
            result.certificate_verified(),
            result.sct_verified(),
            result.tlog_verified(),
            result.identity_policy_checked(),
        ];
        let times = result.verified_timestamps().iter().map(|time| time.as_second());
        let entries = &bundle.verification_material.tlog_entries;
        let (Some(time), Some(entry), true) = (times.min(), entries.first(), checked.iter().all(|done| *done)) else {
            return Err(Refusal::new(RefusalClass::Log, "a check was left out"));
        };
        Ok(VerifiedBundle {
            json: text.to_owned(),
            artifact: *artifact,
            signer: expected.clone(),
            predicate_type,
            time,
            log_index: entry.log_index.get(),
        })
    }
}

/// Reads a bundle, and refuses shapes that no signature of pnb or cosign 3 has.
fn parse(json: &[u8]) -> Result<(&str, Bundle), Refusal> {
    let unreadable = |reason: &dyn fmt::Display| Refusal::new(RefusalClass::Bundle, reason);
    if json.len() > BUNDLE_LIMIT {
        return Err(unreadable(&format!("the bundle has more than {BUNDLE_LIMIT} bytes")));
    }
    let text = std::str::from_utf8(json).map_err(|_| unreadable(&"the bundle is not UTF-8"))?;
    let bundle = Bundle::from_json(text).map_err(|e| unreadable(&format!("the bundle is unreadable: {e}")))?;
    // An older bundle may leave the proof of inclusion out: a change of this word would drop a check.
    if bundle.media_type != MediaType::Bundle0_3 {
        let kind = bundle.media_type.as_str();
        return Err(unreadable(&format!(
            "the bundle is of the older form {kind}; only 0.3 counts"
        )));
    }
    let material = &bundle.verification_material;
    let stamps = material.timestamp_verification_data.rfc3161_timestamps.len();
    for (count, what) in [(material.tlog_entries.len(), "log entries"), (stamps, "time stamps")] {
        if count > MOST {
            return Err(unreadable(&format!("the bundle has {count} {what}, more than {MOST}")));
        }
    }
    if bundle.signing_certificate().is_none() {
        return Err(unreadable(
            &"the bundle has no certificate: a key of unknown origin signed",
        ));
    }
    if material
        .tlog_entries
        .iter()
        .any(|entry| entry.inclusion_proof.is_none())
    {
        return Err(Refusal::new(
            RefusalClass::Log,
            "a log entry of the bundle has no proof that it is in the log",
        ));
    }
    Ok((text, bundle))
}

/// Whether the bundle speaks of the artifact, in the way that the purpose wants; the type of the statement, if it is one.
fn binds(bundle: &Bundle, artifact: &Sha256Digest, purpose: Purpose<'_>) -> Result<Option<String>, Refusal> {
    let other = |reason: &dyn fmt::Display| Refusal::new(RefusalClass::Bundle, reason);
    match &bundle.content {
        SignatureContent::MessageSignature(message) => {
            if purpose != Purpose::File {
                return Err(other(&"the bundle signs bytes and has no statement about an image"));
            }
            let Some(digest) = &message.message_digest else {
                return Err(other(&"the bundle does not say what it signs"));
            };
            if digest.algorithm != HashAlgorithm::Sha2256 {
                return Err(other(&format!("the bundle has a digest by {}", digest.algorithm)));
            }
            if digest.digest.as_bytes() != artifact.as_bytes() {
                let signed = digest.digest.to_hex();
                return Err(other(&format!("the bundle signs {signed}, and this is {artifact}")));
            }
            Ok(None)
        }
        SignatureContent::DsseEnvelope(envelope) => {
            if envelope.payload_type != PAYLOAD_TYPE {
                let kind = visible(&envelope.payload_type);
                return Err(other(&format!("the bundle signs {kind}, no in-toto statement")));
            }
            let headline = Headline::parse(envelope.payload.as_bytes())
                .map_err(|problem| other(&format!("the statement of the bundle is unreadable: {problem}")))?;
            let wanted = match purpose {
                Purpose::File | Purpose::Image => SIGN_PREDICATE_TYPE,
                Purpose::Statement(kind) => kind,
            };
            if headline.predicate_type != wanted {
                let kind = visible(&headline.predicate_type);
                let what = match purpose {
                    Purpose::Statement(_) => format!("not {wanted}"),
                    _ => "which is no signature".to_owned(),
                };
                return Err(other(&format!("the bundle has a statement of type {kind}, {what}")));
            }
            if !headline.subjects().any(|digest| digest == *artifact) {
                let reason = match headline.subjects().next() {
                    Some(digest) => format!("the statement of the bundle is about {digest}, and this is {artifact}"),
                    None => "the statement of the bundle is about nothing with a SHA-256".to_owned(),
                };
                return Err(other(&reason));
            }
            Ok(Some(headline.predicate_type))
        }
        _ => Err(other(&"the bundle has a signature of an unknown kind")),
    }
}

/// The class of a refusal by the crate.
fn refusal(error: &Error) -> Refusal {
    use RefusalClass as Class;
    let class = match error {
        Error::IdentityMismatch { expected, actual } => {
            let actual = actual.as_ref().map_or("nobody", |name| name.as_str());
            return Refusal::new(Class::Identity, format!("{actual} signed, not {expected}"));
        }
        Error::IssuerMismatch { expected, actual } => {
            let actual = actual.as_deref().unwrap_or("none");
            return Refusal::new(
                Class::Issuer,
                format!("the issuer of the identity is {actual}, not {expected}"),
            );
        }
        Error::TransparencyLog(_) | Error::Timestamp(_) => Class::Log,
        // The digest of the bundle's own content was compared before: this one is that of the log's entry.
        Error::ArtifactMismatch(_) => Class::Log,
        Error::Bundle(
            bundle::Error::MissingInclusionProof(_)
            | bundle::Error::MissingInclusionPromise(_)
            | bundle::Error::MissingCheckpoint
            | bundle::Error::CheckpointRootMismatch
            | bundle::Error::LogIndexOutOfRange { .. }
            | bundle::Error::MissingSigningTimeEvidence
            | bundle::Error::MissingTimestamp,
        ) => Class::Log,
        Error::Certificate(_) | Error::InvalidTrustRoot(_) | Error::TrustRoot(_) | Error::TrustedCertificate(_) => {
            Class::Certificate
        }
        _ => Class::Bundle,
    };
    Refusal::new(class, error)
}
