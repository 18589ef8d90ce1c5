//! Why the metadata of an archive is refused.

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
        /// One line per signature.
        reasons: Vec<String>,
    },
    /// A signature by a trusted key that does not match the text.
    #[error("{file}: signature by {key} does not match the text")]
    BadSignature {
        /// The file's name.
        file: String,
        /// Fingerprint of the key that the signature names.
        key: String,
    },
    /// A release file that cannot be used at this moment or for this archive.
    #[error("{file}: {problem}")]
    Release {
        /// The file's name.
        file: String,
        /// The problem, with the value.
        problem: String,
    },
}
