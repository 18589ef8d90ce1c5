//! lockfile.toml: what it holds, how it is read, solved and written.

mod format;

pub use format::{Archive, Distribution, LOCK_VERSION, Lockfile, Package, PinnedFile};
