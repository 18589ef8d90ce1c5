//! `lockfile.toml`: its format, and how it is read, resolved, compared and written.

mod base;
mod check;
mod diff;
mod error;
mod format;
mod index;
mod parse;
mod resolve;
mod update;
mod wanted;
mod write;

pub use base::{BaseImage, BaseLayer, BasePackage, BasePlatform, check_base};
pub use check::{LockProblem, check};
pub use diff::{LockChange, diff};
pub use error::{LockError, line_at};
pub use format::{Archive, Distribution, LOCK_VERSION, LockedSet, Lockfile, Package, PinnedFile, redirect_problem};
pub use index::{ArchiveRank, Index, IndexScope, PackageId};
pub use parse::{MAX_LOCKFILE, parse_lock};
pub use resolve::{ResolveError, WantedSet, resolve};
pub use update::{ArchiveLocation, Indexes, LockRequest, MAX_INRELEASE, update};
pub use wanted::{FlatPlace, WantedArchive, parse_archives};
pub use write::write_lock;
