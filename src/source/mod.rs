//! The files of a project, opened below its directory without following links, and their comparison with the commit.
//!
//! A project may be a checkout that somebody else prepared. Nothing here starts a program or reads git's configuration: a repository
//! is read as data, and every object that counts is hashed.

mod commit;
mod error;
mod repository;
mod revision;
mod tree;

pub use error::SourceError;
pub use revision::{Revision, Uncommitted};
pub use tree::{MAX_TEXT, SourceEntry, SourceTree};
