//! `Signer`: one key and one certificate for as many signatures as fit into its ten minutes.

use super::{
    config::SigningConfig,
    error::SignError,
    legacy::LegacySignature,
    root::TrustedRoot,
    services::{self, Signed},
    source::TokenSource,
    statement::{Headline, PAYLOAD_TYPE},
    token::{IdentityToken, TokenClaims},
    verify::{BundleVerifier, ExpectedSigner, Purpose, VerifiedBundle},
};
use crate::{
    http::HttpClient,
    model::{Sha256Digest, visible},
};
use sigstore_verify::{
    bundle::BundleV03,
    crypto::{KeyPair, parse_certificate_info},
    types::{DerCertificate, DsseEnvelope, DsseSignature, KeyId, PayloadBytes, Sha256Hash, SignatureBytes, pae},
};
use std::{fmt, io::Read};

/// A certificate with less time left, in seconds, is replaced before the next signature.
const LEFT: i64 = 120;

/// Signs with the identity of a job or a person. It never uses a key without a certificate, hands out no bundle that does not verify, and
/// forgets the keys at its end.
pub struct Signer {
    http: HttpClient,
    config: SigningConfig,
    verifier: BundleVerifier,
    expected: ExpectedSigner,
    source: TokenSource,
    batch: Option<Batch>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} by {:?})", self.expected, self.source)
    }
}

/// A key, its certificate and those above it.
struct Batch {
    key: KeyPair,
    certificate: DerCertificate,
    above: Vec<DerCertificate>,
    not_after: i64,
}

impl Signer {
    /// A signer that signs as `expected` and nobody else.
    ///
    /// # Errors
    ///
    /// If the configuration lacks a service, or the root is unusable. Nothing is sent.
    pub fn new(
        http: HttpClient,
        config: SigningConfig,
        root: &TrustedRoot,
        expected: ExpectedSigner,
        source: TokenSource,
    ) -> Result<Self, SignError> {
        config.check(http.clock().unix())?;
        Ok(Self {
            verifier: BundleVerifier::new(root)?,
            http,
            config,
            expected,
            source,
            batch: None,
        })
    }

    /// Gets an identity token and checks it without using it, so that a publication can end before it has begun.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot get a certificate.
    pub fn look(&self) -> Result<TokenClaims, SignError> {
        self.token().map(|token| token.claims().clone())
    }

    fn token(&self) -> Result<IdentityToken, SignError> {
        let token = self.source.token(&self.http)?;
        token.check(&self.config, self.http.clock().unix())?;
        // The log is public: nothing is written into it under another issuer than verifiers expect.
        if token.claims().issuer != self.expected.issuer {
            return Err(SignError::Token {
                origin: self.source.origin(),
                problem: format!(
                    "its issuer is {}, and {} is expected",
                    visible(&token.claims().issuer),
                    visible(&self.expected.issuer)
                ),
                hint: Some("verifiers are told identity and issuer; name those with which this job signs"),
            });
        }
        Ok(token)
    }

    /// Signs the bytes of a file, which are read once; their SHA-256 and the bundle.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a service refuses, or the new signature does not verify.
    pub fn sign_file(&mut self, name: &str, file: &mut dyn Read) -> Result<(Sha256Digest, VerifiedBundle), SignError> {
        let digest = sigstore_verify::crypto::sha256_reader(file).map_err(|source| SignError::Read {
            what: visible(name),
            source,
        })?;
        let digest = Sha256Digest::new(*digest.as_bytes());
        Ok((digest, self.sign_digest(name, &digest)?))
    }

    /// Signs a file of which the digest is known.
    ///
    /// # Errors
    ///
    /// As [`Signer::sign_file`].
    pub fn sign_digest(&mut self, name: &str, digest: &Sha256Digest) -> Result<VerifiedBundle, SignError> {
        let hash = Sha256Hash::new(*digest.as_bytes());
        let batch = self.batch()?;
        let signature = batch.key.sign_digest(&hash).map_err(crypto)?;
        let certificate = batch.certificate.clone();
        let bundle = BundleV03::with_certificate_and_signature(certificate.clone(), signature.clone(), hash);
        let bundle = self.witness(bundle, &Signed::Message(&hash, &signature), &signature, &certificate)?;
        self.finish(name, bundle, digest, Purpose::File)
    }

    /// Signs an in-toto statement as it stands. The bundle is verified for its first subject.
    ///
    /// # Errors
    ///
    /// If it is no statement about a SHA-256, a service refuses, or the new signature does not verify.
    pub fn sign_statement(&mut self, statement: &str) -> Result<VerifiedBundle, SignError> {
        let bad = |problem: &str| SignError::Statement {
            problem: problem.to_owned(),
        };
        let headline = Headline::parse(statement.as_bytes()).map_err(bad)?;
        let subject = headline
            .subjects()
            .next()
            .ok_or_else(|| bad("it is about nothing with a SHA-256"))?;
        let batch = self.batch()?;
        let signature = batch
            .key
            .sign(&pae(PAYLOAD_TYPE, statement.as_bytes()))
            .map_err(crypto)?;
        let certificate = batch.certificate.clone();
        let envelope = DsseEnvelope::new(
            PAYLOAD_TYPE,
            PayloadBytes::from_bytes(statement.as_bytes()),
            DsseSignature::new(signature.clone(), KeyId::default()),
        );
        let bundle = BundleV03::with_certificate_and_dsse(certificate.clone(), envelope.clone());
        let bundle = self.witness(bundle, &Signed::Envelope(&envelope), &signature, &certificate)?;
        let purpose = Purpose::Statement(&headline.predicate_type);
        let name = format!("the statement about {subject}");
        self.finish(&name, bundle, &subject, purpose)
    }

    /// Signs the manifest of an image for cosign 2. `reference` names the image without tag and digest.
    ///
    /// # Errors
    ///
    /// As [`Signer::sign_file`], and if no log states the time.
    pub fn sign_legacy(&mut self, image: &Sha256Digest, reference: &str) -> Result<LegacySignature, SignError> {
        let payload = LegacySignature::payload_for(image, reference);
        let name = format!("the image {image} for cosign 2");
        let (_, bundle) = self.sign_file(&name, &mut payload.as_slice())?;
        let above = self.batch.as_ref().map(|batch| batch.above.clone()).unwrap_or_default();
        LegacySignature::new(payload, bundle, &above)
    }

    /// The key and certificate for the next signature.
    fn batch(&mut self) -> Result<&Batch, SignError> {
        let now = self.http.clock().unix();
        match self.batch.take() {
            Some(batch) if batch.not_after - now >= LEFT => Ok(self.batch.insert(batch)),
            _ => {
                let batch = self.certify(now)?;
                Ok(self.batch.insert(batch))
            }
        }
    }

    /// A new key with a new certificate, for a new token.
    fn certify(&self, now: i64) -> Result<Batch, SignError> {
        let what = "get a certificate";
        let authority = self.config.authority(now)?;
        let token = self.token()?;
        let key = KeyPair::generate_ecdsa_p256().map_err(crypto)?;
        let mut chain = services::certify(&self.http, &authority, &token, &key)?;
        let odd = |problem: &str| SignError::Answer {
            what,
            url: authority.url.clone(),
            problem: problem.to_owned(),
        };
        if chain.is_empty() {
            return Err(odd("has no certificate"));
        }
        let certificate = chain.remove(0);
        let info = parse_certificate_info(&certificate).map_err(|_| odd("has a certificate that is unreadable"))?;
        if info.public_key != key.public_key_der().map_err(crypto)? {
            return Err(odd("certifies another key"));
        }
        let identity = info.identity.as_ref().map_or("nobody", |name| name.as_str());
        let issuer = info.issuer.as_deref().unwrap_or("no issuer");
        if identity != self.expected.identity || issuer != self.expected.issuer {
            let actual = ExpectedSigner {
                identity: identity.to_owned(),
                issuer: issuer.to_owned(),
            };
            return Err(SignError::OtherSigner {
                url: authority.url,
                expected: self.expected.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(Batch {
            key,
            certificate,
            above: chain,
            not_after: info.not_after.as_second(),
        })
    }

    /// Has the signature written into the logs and the time stated.
    fn witness(
        &self,
        mut bundle: BundleV03,
        signed: &Signed<'_>,
        signature: &SignatureBytes,
        certificate: &DerCertificate,
    ) -> Result<BundleV03, SignError> {
        let now = self.http.clock().unix();
        for stamper in self.config.stampers(now)? {
            bundle = bundle.with_rfc3161_timestamp(services::stamp(&self.http, &stamper, signature)?);
        }
        for log in self.config.logs(now)? {
            bundle = bundle.with_tlog_entry(services::log(&self.http, &log, signed, certificate)?);
        }
        Ok(bundle)
    }

    /// Verifies the new bundle as a stranger would.
    fn finish(
        &self,
        name: &str,
        bundle: BundleV03,
        artifact: &Sha256Digest,
        purpose: Purpose<'_>,
    ) -> Result<VerifiedBundle, SignError> {
        let mut bundle = bundle.into_bundle();
        for entry in &mut bundle.verification_material.tlog_entries {
            // A log of version 2 has no time of its own; some write a field with 0 or their clock, which nothing authenticates.
            if entry.inclusion_promise.is_none() {
                entry.integrated_time = None;
            }
        }
        let json = bundle.to_json().map_err(|e| SignError::Crypto {
            what: "write the bundle",
            problem: e.to_string(),
        })?;
        self.verifier
            .verify(json.as_bytes(), artifact, purpose, &self.expected)
            .map_err(|source| SignError::Own {
                what: visible(name),
                source,
            })
    }
}

fn crypto(error: sigstore_verify::crypto::Error) -> SignError {
    SignError::Crypto {
        what: "make a signature",
        problem: error.to_string(),
    }
}
