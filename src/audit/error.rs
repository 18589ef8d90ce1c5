//! The errors of an audit and of a policy.

use super::{AuditReport, Class};
use crate::model::{Hint, hint_at_name};
use std::{borrow::Cow, io, path::PathBuf};

/// Errors of the audit room; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file could not be read, so the audit has no result.
    #[error("read {path:?}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
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

/// Errors of a policy file; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A line breaks the rules of the format.
    #[error("read {file}, line {line}: {problem}")]
    Line {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: usize,
        /// The problem, with the value.
        problem: String,
    },
    /// The file has a version of the format that this program does not know.
    #[error("read {file}, line {line}: format version {found} (this pnb reads version {known})")]
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

impl Hint for AuditError {}

impl Hint for PolicyError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            PolicyError::Version { known, .. } => {
                Some(format!("docs/audit.md lists the rules of version {known}; a later pnb may read this file").into())
            }
            PolicyError::Line { problem, .. } => hint_at_name(problem).map(Cow::from),
            PolicyError::Read { .. } => None,
        }
    }
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
