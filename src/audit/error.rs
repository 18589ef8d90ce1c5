//! Why an audit did not end in a verified artifact.

use super::{AuditReport, Class};
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
        report: AuditReport,
    },
}

/// Why a policy cannot be used; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason given.
        #[source]
        source: io::Error,
    },
    /// Something in it is not what it should be.
    #[error("read {file}, line {line}: {problem}")]
    Line {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: usize,
        /// What is wrong there, with the value.
        problem: String,
    },
    /// It is of a version of the format that this program does not know.
    #[error(
        "read {file}, line {line}: version {found} of the format (this pnb knows {known})\n\n\
         hint: `docs/audit.md` lists the rules of version {known}; a later pnb may read this file"
    )]
    Version {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: usize,
        /// Version in the file.
        found: i64,
        /// The version this program reads.
        known: i64,
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

fn failed(report: &AuditReport) -> String {
    let failed: Vec<String> = report
        .checks
        .iter()
        .filter(|c| !c.ok)
        .map(|c| format!("{}: {}", c.name, c.detail))
        .collect();
    failed.join("\n")
}
