//! `SignError`: why something is not signed. `Refusal`: why a signature does not count.

use crate::{
    http::HttpError,
    manifest::ManifestError,
    model::{Hint, visible_message},
};
use serde::Serialize;
use std::{borrow::Cow, fmt, io};

/// Why something is not signed; every message completes "failed to …". No message has a token, or a text of a server with one.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A signing configuration is not used.
    #[error("use the signing configuration {name}: {problem}")]
    Config {
        /// Its file, or `public-good`.
        name: String,
        /// The fault.
        problem: String,
    },
    /// A trusted root is not used.
    #[error("use the trusted root {name}: {problem}")]
    Root {
        /// Its file, or `public-good`.
        name: String,
        /// The fault.
        problem: String,
    },
    /// There is no identity token.
    #[error("find an identity token: {problem}")]
    NoToken {
        /// The places that were looked at.
        problem: String,
    },
    /// The file of the identity token cannot be read.
    #[error("read the identity token in {path}")]
    TokenFile {
        /// The file.
        path: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// An identity token is not used, and nobody has seen it.
    #[error("use the identity token of {origin}: {problem}")]
    Token {
        /// Where the token comes from.
        origin: String,
        /// The fault.
        problem: String,
        /// The way out.
        hint: Option<&'static str>,
    },
    /// A service has no answer.
    #[error("{what}")]
    Request {
        /// The purpose of the request.
        what: &'static str,
        /// The reason.
        #[source]
        source: HttpError,
    },
    /// A service refuses.
    #[error("{what}: {url} answered {status}: {said}")]
    Service {
        /// The purpose of the request.
        what: &'static str,
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// The text of the answer, visible and without the token.
        said: String,
    },
    /// The answer of a service is not what was asked for.
    #[error("{what}: the answer of {url} {problem}")]
    Answer {
        /// The purpose of the request.
        what: &'static str,
        /// The address.
        url: String,
        /// The fault.
        problem: String,
    },
    /// The certificate is not for the signer that verifiers will expect; nothing was signed with it.
    #[error("get a certificate for {expected}: {url} certified {actual}")]
    OtherSigner {
        /// The address of the authority.
        url: String,
        /// Identity and issuer that were asked for.
        expected: String,
        /// Identity and issuer of the certificate.
        actual: String,
    },
    /// A signature that was just made does not verify.
    #[error("verify the new signature of {what}")]
    Own {
        /// The signed thing.
        what: String,
        /// The reason.
        #[source]
        source: Refusal,
    },
    /// The bytes to sign cannot be read.
    #[error("read {what} to sign it")]
    Read {
        /// The signed thing.
        what: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A statement cannot be signed.
    #[error("sign the statement: {problem}")]
    Statement {
        /// The fault.
        problem: String,
    },
    /// A statement cannot be written.
    #[error("write the statement")]
    Write(#[source] ManifestError),
    /// A signature for cosign 2 cannot be made.
    #[error("sign an image for cosign 2: {problem}")]
    Legacy {
        /// The reason.
        problem: &'static str,
    },
    /// The cryptographic library failed.
    #[error("{what}: {problem}")]
    Crypto {
        /// The step.
        what: &'static str,
        /// The reason.
        problem: String,
    },
}

impl SignError {
    /// Whether the same may succeed later: a service is down.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Request { source, .. } => source.is_temporary(),
            Self::Service { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502..=504),
            _ => false,
        }
    }
}

impl Hint for SignError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NoToken { .. } => Some(
                "give the job an identity (docs/signing.md), or hand one over with --identity-token-file or SIGSTORE_ID_TOKEN".into(),
            ),
            Self::Token { hint, .. } => hint.map(Cow::Borrowed),
            Self::Request { source, .. } => source.hint(),
            Self::Service { status, .. } if *status < 500 => {
                Some("the service knows the reason; issuers that it trusts are in its own configuration".into())
            }
            _ => None,
        }
    }
}

/// A class of refusals, with its own exit code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalClass {
    /// The bundle is missing or unreadable, or signs something else.
    Bundle,
    /// The certificate, or the trusted root.
    Certificate,
    /// Another identity signed.
    Identity,
    /// The identity is of another issuer.
    Issuer,
    /// The entry of the log, or the time.
    Log,
}

impl RefusalClass {
    /// Every class, in the order of the codes.
    pub const ALL: [Self; 5] = [Self::Bundle, Self::Certificate, Self::Identity, Self::Issuer, Self::Log];

    /// The name in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Certificate => "certificate",
            Self::Identity => "identity",
            Self::Issuer => "issuer",
            Self::Log => "log",
        }
    }

    /// The meaning in the table of exit codes.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Bundle => "bundle missing, unreadable or not of this file",
            Self::Certificate => "certificate or trusted root",
            Self::Identity => "another identity",
            Self::Issuer => "another issuer",
            Self::Log => "log entry or time",
        }
    }

    /// The exit code of `pnb verify-signature`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Bundle => 65,
            Self::Certificate => 66,
            Self::Identity => 67,
            Self::Issuer => 68,
            Self::Log => 69,
        }
    }
}

impl fmt::Display for RefusalClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a signature does not count.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{class}: {reason}")]
pub struct Refusal {
    /// The class.
    pub class: RefusalClass,
    /// The reason, in one visible line.
    pub reason: String,
}

impl Refusal {
    /// A refusal whose reason may quote the bundle.
    pub fn new(class: RefusalClass, reason: impl fmt::Display) -> Self {
        Self {
            class,
            reason: visible_message(&reason.to_string()),
        }
    }
}
