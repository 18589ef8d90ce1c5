//! `RemoteError`: why a server of the Remote Execution API is of no use, for one blob or at all.

use super::BlobDigest;
use crate::model::{Hint, visible_path};
use std::{borrow::Cow, io, path::PathBuf};

/// Why a server is of no use; every message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The address is not used.
    #[error("use the remote cache {url}: {problem}")]
    Address {
        /// The address.
        url: String,
        /// The fault of the address.
        problem: String,
    },
    /// A file with a token, a certificate or a key cannot be used.
    #[error("use {} for the remote cache: {problem}", visible_path(path))]
    Credentials {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        problem: String,
    },
    /// This pnb was compiled without the clients of remote caches.
    #[error("use the remote cache {url}: this pnb was compiled without the feature \"remote\"")]
    NotCompiled {
        /// The address.
        url: String,
    },
    /// The server is not reached, stopped answering, or does not speak the protocol.
    #[error("reach the remote cache {server}: {problem}")]
    Gone {
        /// The server.
        server: String,
        /// The reason.
        problem: String,
    },
    /// The server does not allow it.
    #[error("{doing} the remote cache {server}: {problem}")]
    Denied {
        /// The server.
        server: String,
        /// `read from` or `write to`.
        doing: &'static str,
        /// The server's words.
        problem: String,
    },
    /// The server has no room.
    #[error("write to the remote cache {server}: {problem}")]
    Full {
        /// The server.
        server: String,
        /// The server's words.
        problem: String,
    },
    /// The server refuses more calls at once, and went on to do so.
    #[error("get an answer from {server}: it refused the call {times} times within {seconds} s: {problem}")]
    Busy {
        /// The server.
        server: String,
        /// Whether the call writes.
        writes: bool,
        /// How often it was asked.
        times: u32,
        /// The time that was waited, in whole seconds.
        seconds: u64,
        /// The server's words.
        problem: String,
    },
    /// The server lacks a blob that its result names.
    #[error("read blob {blob} from the remote cache {server}: it is gone")]
    Lacks {
        /// The server.
        server: String,
        /// The blob.
        blob: BlobDigest,
    },
    /// Other bytes arrived than those of the blob.
    #[error("read a blob from the remote cache {server}\nexpected: {expected}\nactual:   {actual}")]
    Wrong {
        /// The server.
        server: String,
        /// The blob that was asked for.
        expected: BlobDigest,
        /// The bytes that arrived.
        actual: BlobDigest,
    },
    /// A result, or a blob that it names, is not what pnb writes for this stage.
    #[error("take the result of the remote cache {server}: {problem}")]
    Result {
        /// The server.
        server: String,
        /// The fault.
        problem: String,
    },
    /// The server lacks a service or a digest function.
    #[error("use the remote cache {server}: {problem}")]
    Unsupported {
        /// The server.
        server: String,
        /// What it lacks.
        problem: String,
    },
    /// No worker has taken an action in time.
    #[error("run on {server}: no worker took it within {seconds} s; asked for: {properties}")]
    NoWorker {
        /// The server.
        server: String,
        /// The time that was waited.
        seconds: u64,
        /// The properties that a worker must have.
        properties: String,
    },
    /// The engine did not run an action to its end.
    #[error("run on {server}: {problem}")]
    Execution {
        /// The server.
        server: String,
        /// The server's words.
        problem: String,
    },
    /// The work was cancelled.
    #[error("run on {server}: it was interrupted")]
    Cancelled {
        /// The server.
        server: String,
        /// Whether the server has taken the action back; if not, a worker may go on with it.
        told: bool,
    },
    /// A file of this machine cannot be read or written.
    #[error("{doing}")]
    Local {
        /// `read …` or `write …` and the name of the thing.
        doing: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// The extent of a [`RemoteError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// One result is of no use.
    Result,
    /// Nothing more is written to the server; it may still be read.
    Writing,
    /// The server is of no use.
    Server,
    /// The fault is on this machine or in the command line: an error of the build.
    Here,
}

impl RemoteError {
    /// The server, if there is one.
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Gone { server, .. }
            | Self::Denied { server, .. }
            | Self::Full { server, .. }
            | Self::Busy { server, .. }
            | Self::Lacks { server, .. }
            | Self::Wrong { server, .. }
            | Self::Result { server, .. }
            | Self::NoWorker { server, .. }
            | Self::Execution { server, .. }
            | Self::Cancelled { server, .. }
            | Self::Unsupported { server, .. } => Some(server),
            Self::Address { url, .. } | Self::NotCompiled { url } => Some(url),
            Self::Credentials { .. } | Self::Local { .. } => None,
        }
    }

    /// What is lost by the error.
    pub fn loss(&self) -> Loss {
        match self {
            Self::Lacks { .. } | Self::Wrong { .. } | Self::Result { .. } | Self::Execution { .. } => Loss::Result,
            Self::Full { .. } | Self::Denied { doing: "write to", .. } | Self::Busy { writes: true, .. } => {
                Loss::Writing
            }
            Self::Gone { .. } | Self::Busy { .. } | Self::Denied { .. } | Self::Unsupported { .. } => Loss::Server,
            Self::Address { .. }
            | Self::Credentials { .. }
            | Self::NotCompiled { .. }
            | Self::NoWorker { .. }
            | Self::Cancelled { .. }
            | Self::Local { .. } => Loss::Here,
        }
    }
}

impl Hint for RemoteError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Address { .. } => Some(
                "give grpc://HOST:PORT, grpcs://HOST:PORT, http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH; \
                    an instance follows grpc://HOST:PORT as /NAME"
                    .into(),
            ),
            Self::NoWorker { .. } => Some(
                "start a worker with these properties (docs/scale.md), wait longer with --remote-queue-timeout, or build here".into(),
            ),
            Self::Busy { .. } => Some(
                "start fewer stages at once (--remote-jobs, --jobs), or let the server answer more calls at once: BuildGrid by its \
                    thread-pool-size (docs/scale.md)"
                    .into(),
            ),
            Self::NotCompiled { .. } => Some("compile pnb with its default features".into()),
            Self::Denied { .. } => Some("give a token that may do it with --remote-token-file".into()),
            _ => None,
        }
    }
}
