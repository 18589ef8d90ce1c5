//! The error of values from outside that no type of the model accepts.

/// A value from outside that no type of the model accepts. The messages are parts of other errors, so they name the value and the
/// fault alone.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum ModelError {
    /// A digest that is not 64 lower-case hexadecimal digits.
    #[error("{kind} digest is not 64 lower-case hexadecimal digits: {value:?}")]
    Digest {
        /// The kind of digest, e.g. `sha256`.
        kind: &'static str,
        /// The value found, cut to 80 bytes.
        value: String,
    },
    /// A path that is absolute, leads out of its root, or cannot be stored.
    #[error("path {path:?} {problem}")]
    Path {
        /// The path, with unprintable bytes escaped.
        path: String,
        /// The fault.
        problem: &'static str,
    },
    /// A name that is not in a closed list.
    #[error("unknown {kind} {value:?} (one of: {allowed})")]
    Name {
        /// The kind of name, e.g. `architecture`.
        kind: &'static str,
        /// The value found.
        value: String,
        /// The accepted names.
        allowed: String,
    },
    /// A text that is not the name of a variant.
    #[error("{value:?} is not the name of a variant: at most 31 letters, digits and .+-_, first a letter or digit")]
    VariantName {
        /// The value found.
        value: String,
    },
    /// A text that is not a name and an architecture.
    #[error("{value:?} is not a {kind} and an architecture, such as NAME/amd64")]
    Pair {
        /// The kind of name that belongs to the architecture, e.g. `stage`.
        kind: &'static str,
        /// The value found.
        value: String,
    },
    /// A moment that does not have the form of snapshot services.
    #[error("{value:?} is not a moment of the form YYYYMMDDThhmmssZ")]
    Moment {
        /// The value found.
        value: String,
    },
    /// A text that is not the fingerprint of a key.
    #[error("{value:?} is not the fingerprint of a key, 40 or 64 upper-case hexadecimal digits")]
    Fingerprint {
        /// The value found.
        value: String,
    },
    /// A text that is not the name of a git commit.
    #[error("{value:?} is not a git commit, 40 or 64 lower-case hexadecimal digits")]
    GitSha {
        /// The value found.
        value: String,
    },
    /// An entry that its tree cannot have: its parent is missing or not a directory, or its path is taken.
    #[error("tree entry {path:?} {problem}")]
    Tree {
        /// The entry's path.
        path: String,
        /// The fault.
        problem: String,
    },
    /// A line of a tree dump that does not parse.
    #[error("tree dump line {line}: {problem}")]
    Dump {
        /// 1-based line number.
        line: usize,
        /// The fault.
        problem: String,
    },
}
