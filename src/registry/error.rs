//! `RegistryError`: why a registry or a layout could not be used.

use crate::{
    http::HttpError,
    model::{Hint, Sha256Digest, visible_path},
};
use std::{borrow::Cow, io, path::PathBuf};

/// Why an operation on a registry failed; every message completes "failed to …". The texts of servers in it are visible and shortened.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name of an image is not well-formed.
    #[error("use the image name {value:?}: it {problem}")]
    Reference {
        /// The name.
        value: String,
        /// The fault.
        problem: String,
    },
    /// The file of credentials cannot be used.
    #[error("take the credentials of {registry} from {}: {problem}", visible_path(path))]
    CredentialFile {
        /// The registry.
        registry: String,
        /// The file.
        path: PathBuf,
        /// The fault; no part of the file.
        problem: String,
        /// The way out.
        hint: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{action} {}", visible_path(path))]
    File {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The registry wants credentials, or does not accept the ones it got.
    #[error("{what}: {registry} {problem}{}", said(text))]
    Unauthorized {
        /// The operation.
        what: String,
        /// The registry.
        registry: String,
        /// What it asks for.
        problem: String,
        /// The text of the server.
        text: String,
    },
    /// The registry or the token service names a place to which credentials are not sent.
    #[error("log in to {registry}: its token service {realm} {problem}")]
    Realm {
        /// The registry.
        registry: String,
        /// The address of the token service.
        realm: String,
        /// The fault.
        problem: &'static str,
    },
    /// The user may not do this.
    #[error("{what}: {registry} denies it{}", said(text))]
    Denied {
        /// The operation.
        what: String,
        /// The registry.
        registry: String,
        /// The text of the server.
        text: String,
    },
    /// The registry does not have it.
    #[error("{what}: {registry} does not have it{}", said(text))]
    NotFound {
        /// The operation.
        what: String,
        /// The registry.
        registry: String,
        /// The text of the server.
        text: String,
    },
    /// It is larger than the registry takes, or a quota is used up.
    #[error("{what}: it is too large for {registry} (status {status}){}", said(text))]
    TooLarge {
        /// The operation.
        what: String,
        /// The registry.
        registry: String,
        /// The status.
        status: u16,
        /// The text of the server.
        text: String,
    },
    /// Any other refusal.
    #[error("{what}: {registry} answered {status}{}", said(text))]
    Refused {
        /// The operation.
        what: String,
        /// The registry.
        registry: String,
        /// The status.
        status: u16,
        /// The text of the server.
        text: String,
    },
    /// The registry is down, or was each time it was tried.
    #[error("{what}: {registry} is down: {problem}")]
    Down {
        /// The operation.
        what: String,
        /// The registry.
        registry: String,
        /// The last answer or fault.
        problem: String,
    },
    /// Bytes or an answer have another digest than what was asked for or sent. This is never tried again.
    #[error("{what}: {who} another digest\nexpected: sha256:{expected}\n  actual: {actual}")]
    Lie {
        /// The operation.
        what: String,
        /// Who has, sent or stored it.
        who: String,
        /// The digest that was asked for or sent.
        expected: Sha256Digest,
        /// The other one.
        actual: String,
    },
    /// An answer or a file is not what it must be.
    #[error("{what}: {problem}")]
    Malformed {
        /// The operation, and the registry or file.
        what: String,
        /// The fault.
        problem: String,
    },
    /// Something was not there although it was just written.
    #[error("{what}: another program changes the list of {registry} at the same time, in {tries} of {tries} tries")]
    Race {
        /// The operation.
        what: String,
        /// The registry.
        registry: String,
        /// The number of tries.
        tries: u32,
    },
    /// There was no answer.
    #[error("{what}")]
    Http {
        /// The operation.
        what: String,
        /// The reason.
        #[source]
        source: HttpError,
    },
}

/// The text of a server as the end of a message.
fn said(text: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => format!(": {text}"),
    }
}

impl Hint for RegistryError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::CredentialFile { hint, .. } if !hint.is_empty() => Some((*hint).into()),
            Self::Unauthorized { registry, .. } => Some(
                format!(
                    "give a file with the user and password or token of {registry} with --registry-auth-file; `skopeo login \
                     --authfile FILE {registry}` writes one"
                )
                .into(),
            ),
            Self::Denied { .. } => Some("use a user or token that may do this in the repository".into()),
            Self::TooLarge { .. } => Some("raise the limit of the registry, or of the proxy before it".into()),
            Self::Down { .. } => Some("nothing that was sent is lost; run the command again later".into()),
            Self::Http { source, .. } => source.hint(),
            _ => None,
        }
    }
}
