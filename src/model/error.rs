//! Why a value from outside is not one of the model's types.

/// Why a value from outside is not one of the model's types.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum ModelError {
    /// A digest that is not 64 lower-case hexadecimal digits.
    #[error("{kind} digest is not 64 lower-case hexadecimal digits: {value:?}")]
    Digest {
        /// Which digest was expected, e.g. `sha256`.
        kind: &'static str,
        /// What was found, cut to 80 bytes.
        value: String,
    },
    /// A path that is absolute, escapes, or cannot be stored.
    #[error("path {path:?} {problem}")]
    Path {
        /// The path, with unprintable bytes escaped.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name that is not in a closed list.
    #[error("unknown {kind} {value:?} (one of: {allowed})")]
    Name {
        /// What the name stands for.
        kind: &'static str,
        /// What was found.
        value: String,
        /// The names that exist.
        allowed: String,
    },
    /// A name that does not pair something with an architecture.
    #[error("{value:?} is not a {kind} and an architecture, such as NAME/amd64")]
    Pair {
        /// What is paired with the architecture.
        kind: &'static str,
        /// What was found.
        value: String,
    },
    /// A moment in another form than snapshot services use.
    #[error("{value:?} is not a moment of the form YYYYMMDDThhmmssZ")]
    Moment {
        /// What was found.
        value: String,
    },
    /// Text that is no fingerprint of a key.
    #[error("{value:?} is not the fingerprint of a key, 40 or 64 upper-case hexadecimal digits")]
    Fingerprint {
        /// What was found.
        value: String,
    },
    /// Text that is no name of a git commit.
    #[error("{value:?} is not a git commit, 40 or 64 lower-case hexadecimal digits")]
    GitSha {
        /// What was found.
        value: String,
    },
    /// A tree that cannot exist: a child without a parent, or two things at one path.
    #[error("tree entry {path:?} {problem}")]
    Tree {
        /// The entry's path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A line of a tree dump that does not parse.
    #[error("tree dump line {line}: {problem}")]
    Dump {
        /// 1-based line number.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}
