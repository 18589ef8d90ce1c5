//! Signatures of what pnb publishes: made with an identity that lasts for a job, and verified without a network.
//!
//! [`Signer`] shows an [`IdentityToken`] to a certificate authority (Fulcio), which certifies a key of ten minutes. It signs files and
//! in-toto statements, has each signature written into a transparency log (Rekor), and has the time stated by an authority (RFC 3161) if
//! the [`SigningConfig`] names one. It hands out a [`VerifiedBundle`], which only [`BundleVerifier`] makes.
//!
//! [`BundleVerifier`] trusts a [`TrustedRoot`] and nothing that a bundle says of itself. It has no network. Requests go through the room
//! `http`, whose client has the clock. `docs/signing.md` is the user's view.
//!
//! | file | holds |
//! |---|---|
//! | `config` | [`SigningConfig`]: the addresses of the services |
//! | `root` | [`TrustedRoot`]: the keys and certificates that verification trusts |
//! | `token`, `source` | [`IdentityToken`], [`TokenSource`]: who signs, and where that is said |
//! | `services` | the requests to Fulcio, Rekor and the time-stamping authority |
//! | `signer` | [`Signer`] |
//! | `statement` | [`sign_v1_statement`]: the statement that signs an image |
//! | `legacy` | [`LegacySignature`]: the signature of an image for cosign 2 |
//! | `verify` | [`BundleVerifier`], [`Purpose`], [`ExpectedSigner`] |
//! | `image` | [`verify_image`]: the bundles of an image |
//! | `error` | [`SignError`], [`Refusal`] and its [`RefusalClass`] |

mod config;
mod error;
mod image;
mod legacy;
mod root;
mod services;
mod signer;
mod source;
mod statement;
mod token;
mod verify;

pub use config::{PUBLIC_GOOD, ServiceUrl, SigningConfig};
pub use error::{Refusal, RefusalClass, SignError};
pub use image::{SignedSubject, verify_image};
pub use legacy::LegacySignature;
pub use root::TrustedRoot;
pub use signer::Signer;
pub use source::TokenSource;
pub use statement::{SIGN_PREDICATE_TYPE, sign_v1_statement};
pub use token::{AUDIENCE, IdentityToken, TokenClaims};
pub use verify::{BUNDLE_LIMIT, BUNDLE_TYPE, BundleVerifier, ExpectedSigner, Purpose, VerifiedBundle};
