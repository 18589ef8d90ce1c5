//! The bundles that a registry has for an image: for each manifest, those that are attached to it.

use super::{
    error::{Refusal, RefusalClass},
    verify::{BundleVerifier, ExpectedSigner, Purpose, VerifiedBundle},
};
use crate::model::Sha256Digest;

/// A manifest or index, and the bundles that are attached to it.
#[derive(Clone, Debug)]
pub struct SignedSubject {
    /// The digest of the manifest.
    pub digest: Sha256Digest,
    /// The bundles, as they were read from the registry.
    pub bundles: Vec<Vec<u8>>,
}

/// Verifies that each subject has a signature by the expected signer. A provenance or another statement is no signature: cosign 3 takes
/// one for it. A bundle that is something else, or that somebody else attached, does no harm as long as one counts.
///
/// The result has an entry for each subject, in their order.
pub fn verify_image(
    verifier: &BundleVerifier,
    subjects: &[SignedSubject],
    expected: &ExpectedSigner,
) -> Vec<(Sha256Digest, Result<VerifiedBundle, Refusal>)> {
    let verify = |subject: &SignedSubject| {
        let mut nearest: Option<Refusal> = None;
        for bundle in &subject.bundles {
            match verifier.verify(bundle, &subject.digest, Purpose::Image, expected) {
                Ok(verified) => return Ok(verified),
                // The bundle that passed the most checks has the reason that helps.
                Err(refusal) if nearest.as_ref().is_none_or(|near| near.class < refusal.class) => {
                    nearest = Some(refusal);
                }
                Err(_) => {}
            }
        }
        Err(nearest.unwrap_or_else(|| Refusal::new(RefusalClass::Bundle, "no signature is attached")))
    };
    subjects
        .iter()
        .map(|subject| (subject.digest, verify(subject)))
        .collect()
}
