//! A client of OCI registries: images and artifacts are pushed to them and pulled from them.
//!
//! [`RegistryClient`] has the single operations, [`push_layout`] and [`pull_layout`] move a whole image between a registry and an OCI
//! layout directory. Everything that arrives has the digest by which it was asked for, or is refused. `docs/registry.md` says what is asked
//! of a registry, and who gets which credentials.
//!
//! | file | holds |
//! |---|---|
//! | `reference` | [`ImageReference`]: `host[:port]/name[:tag][@sha256:…]` |
//! | `credentials` | [`CredentialFile`], the `config.json` of other tools; [`Credentials`] |
//! | `challenge` | the header `WWW-Authenticate` |
//! | `login` | who gets the credentials; tokens and their life |
//! | `client` | [`RegistryClient`]: the requests, login before them, refusals after them |
//! | `blobs` | blobs: exists, mount, upload, download |
//! | `manifests`, `referrers` | manifests and indexes; what refers to one |
//! | `layout`, `push`, `pull` | an OCI layout directory; a whole image to a registry, and from one |
//! | `error` | [`RegistryError`] |

mod blobs;
mod challenge;
mod client;
mod credentials;
mod error;
mod layout;
mod login;
mod manifests;
mod pull;
mod push;
mod reference;
mod referrers;

pub use blobs::{BlobSink, OnTransfer, TransferStep, silent};
pub use challenge::{AuthChallenge, parse_challenges};
pub use client::{RegistryAccess, RegistryClient};
pub use credentials::{CredentialFile, CredentialPlaces, Credentials};
pub use error::RegistryError;
pub use layout::{LayoutDirectory, ManifestContent, parse_manifest};
pub use manifests::RemoteManifest;
pub use pull::{PlatformChoice, pull_layout};
pub use push::{PushedImage, push_layout};
pub use reference::ImageReference;
pub use referrers::Referrers;
