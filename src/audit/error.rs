//! Why an audit did not end in a verified artifact.

use super::{Class, Report};
use std::{io, path::PathBuf};

/// Errors of the audit room; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The operating system refused; nothing is said about the artifact.
    #[error("read {path:?}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason given.
        #[source]
        source: io::Error,
    },
    /// A check does not hold.
    #[error("verify {path:?}: {}", failed(.report))]
    Failed {
        /// The directory.
        path: PathBuf,
        /// Every check.
        report: Report,
    },
}

impl AuditError {
    /// The class of a failed check.
    pub fn class(&self) -> Option<Class> {
        match self {
            AuditError::Io { .. } => None,
            AuditError::Failed { report, .. } => report.class(),
        }
    }
}

fn failed(report: &Report) -> String {
    let failed: Vec<String> = report
        .checks
        .iter()
        .filter(|c| !c.ok)
        .map(|c| format!("{}: {}", c.name, c.detail))
        .collect();
    failed.join("\n")
}
