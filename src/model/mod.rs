//! The words every room speaks: digests, relative paths, architectures, variants, epochs and trees.
//!
//! Nothing here does I/O and nothing here imports another room.

mod arch;
mod digest;
mod dump;
mod epoch;
mod path;
mod tree;
mod variant;

pub use arch::Arch;
pub use digest::{Blake3Digest, Sha256Digest, StageKey, VerityDigest};
pub use dump::{EMPTY_FILE, parse_dump, write_dump};
pub use epoch::Epoch;
pub use path::RelPath;
pub use tree::{Entry, Meta, Node, Tree};
pub use variant::Variant;

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
        allowed: &'static str,
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

/// A value from outside as it may stand in a table: one line, in which nothing commands a terminal.
pub(crate) fn plain(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Cuts a value from outside so that an error message stays one readable line.
pub(crate) fn excerpt(value: &str) -> String {
    let mut out: String = value.chars().take(80).collect();
    if out.len() < value.len() {
        out.push('…');
    }
    out
}
