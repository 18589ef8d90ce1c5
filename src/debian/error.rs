//! What can be wrong with an archive's metadata.

/// Why a control file, a version or a signed release file is refused.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Text that is not a Debian version.
    #[error("version {version:?} {problem}")]
    Version {
        /// What was found, cut to 80 characters.
        version: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A line that has no place in a control file.
    #[error("{file} line {line}: {problem}")]
    Line {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: u64,
        /// What is wrong with it, with the value.
        problem: String,
    },
    /// A paragraph that lacks a field or holds a bad one.
    #[error("{file} line {line}: package {package:?}: {problem}")]
    Package {
        /// The file's name.
        file: String,
        /// 1-based line number of the field, or of the paragraph when the field is missing.
        line: u64,
        /// The package's name, empty when that is what is missing.
        package: String,
        /// What is wrong with it, with the value.
        problem: String,
    },
    /// Reading failed below the parser.
    #[error("{file} line {line}: read failed")]
    Read {
        /// The file's name.
        file: String,
        /// Lines read before.
        line: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// A keyring that holds no usable OpenPGP keys.
    #[error("keyring {file}: {problem}")]
    Keyring {
        /// The keyring's name.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A signed document whose frame is not exactly one cleartext signature.
    #[error("{file} line {line}: {problem}")]
    Frame {
        /// The file's name.
        file: String,
        /// 1-based line number.
        line: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No signature that counts; each is listed with the reason it does not.
    #[error("{file} is not signed by a trusted key:\n{}", reasons.join("\n"))]
    Untrusted {
        /// The file's name.
        file: String,
        /// One line per signature.
        reasons: Vec<String>,
    },
    /// A signature by a trusted key that does not fit the text.
    #[error("{file}: signature by {key} does not match the text")]
    BadSignature {
        /// The file's name.
        file: String,
        /// Fingerprint of the key that is said to have made it.
        key: String,
    },
    /// A release file that cannot be used at this moment or for this archive.
    #[error("{file}: {problem}")]
    Release {
        /// The file's name.
        file: String,
        /// What is wrong with it, with the value.
        problem: String,
    },
}
