//! The content-addressed store: objects named by fs-verity digest, trees, build records.
//!
//! ```text
//! <store>/
//!   format                  "pnb store 1"
//!   lock                    shared by builders, exclusive for garbage collection
//!   objects/ab/cdef…        content, read-only; `…​.x` is the same content as an executable inode
//!   sha256/ab/cdef…         fs-verity digest of the object with that SHA-256
//!   records/<stage key>     outputs and measurements of a stage run
//!   trees/<tree>/           trees laid out as copies, for mounting in stages
//!   checkouts/<tree>/       trees laid out as hard links
//!   logs/<stage key>.log    output of a stage run
//!   locks/<stage key>       held while a stage runs
//!   notes/<name>            hints that may be lost
//!   downloads/<sha256>.part unfinished downloads
//!   failed/<stage>-…/       build directories of failed stages
//!   tmp/<random>/           one directory per running program; removed when its owner is gone
//! ```
//!
//! Every file is written below `tmp/` first and then renamed, so a file under its final name is complete. No object is trusted for being
//! present: it is hashed before a stage may read it, unless this very program wrote or hashed it.
//!
//! | subject | files |
//! |---|---|
//! | the store | `open` ([`Store`]), `scratch` and `memory` (scratch directories), `error` |
//! | objects | `incoming` (content becomes an object), `objects` (lookup, hashing), `hash_cache` (objects hashed by this program) |
//! | files | `sparse` (holes), `buffer` (page-aligned buffers), `foreign` (files of others) |
//! | trees | `import` (a directory becomes a tree), `checkout` (a tree becomes a directory) |
//! | stage runs | `record`, `logs`, `stage_lock`, `notes` |
//! | artifacts | `artifact` (objects become files of an artifact) |
//! | the whole store | `gc` (check, garbage collection) |

mod artifact;
mod buffer;
mod checkout;
mod error;
mod foreign;
mod gc;
mod hash_cache;
mod import;
mod incoming;
mod logs;
mod memory;
mod notes;
mod objects;
mod open;
mod record;
mod scratch;
mod sparse;
mod stage_lock;
#[cfg(test)]
mod tests;

pub use buffer::PageBuffer;
pub use error::{Operation, StoreError};
pub use foreign::{open_foreign, open_foreign_below, read_foreign};
pub use gc::{Damage, GcSummary, StoreCheck};
pub use incoming::{Content, Once};
pub use objects::ObjectMode;
pub use open::{SharedStores, Store};
pub use record::{Output, Record};
pub use scratch::{Scratch, build_directory, remove_build_directory};
pub use sparse::copy_sparse;
pub use stage_lock::StageLock;
