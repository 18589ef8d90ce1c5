//! `HttpError`: why a request has no answer.

use crate::model::Hint;
use std::{borrow::Cow, io};

/// Why a request has no answer; every message completes "failed to …". Addresses are shown without user names and queries, and no message
/// has the value of a header or a body.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not used.
    #[error("use address {url}: {problem}")]
    Address {
        /// The address.
        url: String,
        /// The fault of the address.
        problem: &'static str,
    },
    /// The certificates of the private authority cannot be read.
    #[error("read the certificates of the private authority: {problem}")]
    Authority {
        /// The fault of the PEM text.
        problem: String,
    },
    /// The authorities that a variable or option names cannot be read.
    #[error("read the certificates of {from}: {problem}")]
    Authorities {
        /// The variable or option, and the file.
        from: String,
        /// The fault.
        problem: String,
    },
    /// The connection failed, was reset or was silent, in each try.
    #[error("{method} {url}: {problem} ({})", tries(*made))]
    Unreachable {
        /// The method of the request.
        method: String,
        /// The address.
        url: String,
        /// The number of tries.
        made: u32,
        /// The reason in the last one.
        problem: String,
    },
    /// The server does not prove its name, or breaks the protocol: another try would end the same.
    #[error("{method} {url}: {problem}")]
    Protocol {
        /// The method of the request.
        method: String,
        /// The address.
        url: String,
        /// The fault.
        problem: String,
    },
    /// The answer is longer than the caller takes.
    #[error("{method} {url}: the answer has more than {limit} bytes")]
    Long {
        /// The method of the request.
        method: String,
        /// The address.
        url: String,
        /// The most bytes that the caller takes.
        limit: u64,
    },
    /// The answer ended early, after some of it went to the caller's writer.
    #[error("{method} {url}: the answer was cut after {received} bytes: {problem}")]
    Cut {
        /// The method of the request.
        method: String,
        /// The address.
        url: String,
        /// The bytes that the writer got.
        received: u64,
        /// The reason.
        problem: String,
    },
    /// The caller's body cannot be read.
    #[error("read the bytes to send to {url}")]
    Source {
        /// The address.
        url: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The caller's writer refused bytes of the answer.
    #[error("write the answer of {url}")]
    Sink {
        /// The address.
        url: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

impl HttpError {
    /// Whether the same request may have an answer later: the server was down or the connection failed.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Cut { .. })
    }
}

fn tries(made: u32) -> String {
    match made {
        1 => "1 try".to_owned(),
        made => format!("{made} tries"),
    }
}

impl Hint for HttpError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Address {
                problem: "is http without TLS, and the host is not this machine",
                ..
            } => Some("use https; plain http goes only to this machine, or to a host that is allowed by name".into()),
            Self::Protocol { problem, .. } if problem.contains("UnknownIssuer") => {
                Some("give the certificate of the private authority with --ca-file or SSL_CERT_FILE".into())
            }
            Self::Unreachable { .. } => Some("the server or the network is down; run the command again later".into()),
            _ => None,
        }
    }
}
