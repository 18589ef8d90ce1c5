//! lockfile.toml: what it holds, how it is read, solved and written.

mod format;
mod index;
mod resolve;

pub use format::{Archive, Distribution, LOCK_VERSION, Lockfile, Package, PinnedFile};
pub use index::{Index, PackageId};
pub use resolve::{ResolveError, WantedSet, resolve};
