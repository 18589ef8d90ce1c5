//! Why the metadata of an archive is refused.

use super::JudgedAt;
use crate::model::Hint;
use std::borrow::Cow;

/// Why a control file, a version or a signed release file is refused.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Text that is not a Debian version.
    #[error("version {version:?} {problem}")]
    Version {
        /// The text, cut to 80 characters.
        version: String,
        /// The problem.
        problem: &'static str,
    },
    /// An invalid line of a control file.
    #[error("{file} line {line}: {problem}")]
    Line {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: u64,
        /// The problem, with the value.
        problem: String,
    },
    /// A paragraph with a missing or invalid field.
    #[error("{file} line {line}: package {package:?}: {problem}")]
    Package {
        /// The file's name.
        file: String,
        /// 1-based line number of the field, or of the paragraph when the field is missing.
        line: u64,
        /// The package's name; empty when the name is missing.
        package: String,
        /// The problem, with the value.
        problem: String,
    },
    /// The input could not be read.
    #[error("{file} line {line}: read failed")]
    Read {
        /// The file's name.
        file: String,
        /// Number of lines read before.
        line: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// A keyring that holds no usable OpenPGP keys.
    #[error("keyring {file}: {problem}")]
    Keyring {
        /// The keyring's name.
        file: String,
        /// The problem.
        problem: String,
    },
    /// A signed document that is not exactly one block with a cleartext signature.
    #[error("{file} line {line}: {problem}")]
    Frame {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: u64,
        /// The problem.
        problem: &'static str,
    },
    /// A document without a signature that counts; each is listed with the reason.
    #[error("{file} is not signed by a trusted key:\n{}", reasons.join("\n"))]
    Untrusted {
        /// The file's name.
        file: String,
        /// One line per signature, and per part of the keyring that is no key.
        reasons: Vec<String>,
        /// Whether a signature was made later than this machine's clock says it is.
        clock: bool,
    },
    /// A signature by a trusted key that does not match the text.
    #[error("{file}: signature by {key} does not match the text")]
    BadSignature {
        /// The file's name.
        file: String,
        /// Fingerprint of the key that the signature names.
        key: String,
    },
    /// A release file from after the moment at which it is judged.
    #[error("{file} is dated {date}, after {at}")]
    Later {
        /// The file's name.
        file: String,
        /// Its date.
        date: String,
        /// The moment.
        at: JudgedAt,
    },
    /// A release file that was no longer valid at the moment at which it is judged.
    #[error("{file} was valid until {end}, not at {at}")]
    Outdated {
        /// The file's name.
        file: String,
        /// The end of its validity.
        end: String,
        /// The moment.
        at: JudgedAt,
    },
    /// A release file that cannot be used for this archive.
    #[error("{file}: {problem}")]
    Release {
        /// The file's name.
        file: String,
        /// The problem, with the value.
        problem: String,
    },
}

/// The remedy when the clock is behind the archive.
const CLOCK_BEHIND: &str = "if this machine's clock is behind, set it; `pnb lock --snapshot T` judges the archives at the moment T instead of the clock's";

impl Hint for MetadataError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Untrusted { clock: true, .. } => Some(CLOCK_BEHIND.into()),
            Self::Later { at, .. } if at.by_clock() => Some(CLOCK_BEHIND.into()),
            Self::Outdated { at, .. } if at.by_clock() => Some(
                "if this machine's clock is ahead, set it; otherwise the mirror is no longer updated: name another with --mirror, or a \
                 moment at which the file was valid with `pnb lock --snapshot T`"
                    .into(),
            ),
            Self::Outdated { .. } => Some(
                "the archive was not updated up to that moment: name an earlier one with `pnb lock --snapshot T`".into(),
            ),
            _ => None,
        }
    }
}
