//! Results of stages on other machines: a cache that several builders share, over the Remote Execution API or plain HTTP.
//!
//! ```text
//! key of a stage ─► action digest ─► action cache ─► result ─► record ─► outputs, when something reads them
//!                                                                │
//!                     store ◄── objects, hashed again ◄── dumps, packs, large objects
//! ```
//!
//! A server is trusted for no digest: every blob is hashed when it arrives, and an object gets its name in the store from its bytes. A
//! server is believed one thing, that a record belongs to the key under which it lies (`docs/scale.md`, *Trust*).
//!
//! | file | holds |
//! |---|---|
//! | `endpoint` | [`Endpoint`]: the address of a server, and the files with credentials |
//! | `blob` | [`BlobDigest`]: the name of a blob, and the check of its bytes |
//! | `cache` | [`RemoteCache`]: the two services of a cache |
//! | `engine` | [`RemoteEngine`]: a server that runs actions |
//! | `action` | the digests under which the results of stages lie |
//! | `pack` | the small objects of a tree as one blob |
//! | `results` | [`StageResults`]: records and the files of results |
//! | `sending`, `taking` | outputs from a store to a cache and back |
//! | `error` | [`RemoteError`] |

mod action;
mod blob;
mod cache;
mod endpoint;
mod engine;
mod error;
mod pack;
mod results;
mod scratch_file;
mod sending;
mod taking;
#[cfg(test)]
mod tests;

pub use action::{EntryKind, action_digest};
pub use blob::{BlobDigest, Checked};
pub use cache::{CachedResult, OpenBlob, RemoteCache, SMALL_BLOBS};
pub use endpoint::{Endpoint, Protocol, RemoteAddress};
pub use engine::{EngineAction, EngineProgress, Executed, InputFile, RemoteEngine};
pub use error::{Loss, RemoteError};
pub use pack::{MAX_PACKED, PackError, read_pack, write_pack};
pub use results::{FoundResult, ResultFiles, StageResults};
pub use sending::Published;
pub use taking::Taking;
