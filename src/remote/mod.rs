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
//! | `connect` | [`connect()`], [`connect_engine`]: the client of an endpoint; [`RemoteLimits`] |
//! | `grpc` | the client of the Remote Execution API: results, batches of small blobs |
//! | `stream` | blobs of any size over gRPC |
//! | `execute` | the client of an engine |
//! | `outputs` | actions as messages, the files of their results |
//! | `channel` | connections of gRPC: proxy, TLS |
//! | `pace` | the end of a request that is silent or slow |
//! | `status` | the meaning of a gRPC status |
//! | `http` | the client of Bazel's HTTP cache |
//! | `token` | the files with credentials |
//! | `proto` | results and digests as messages |
//! | `engine` | [`RemoteEngine`]: a server that runs actions |
//! | `action` | the digests under which the results of stages lie |
//! | `pack` | the small objects of a tree as one blob |
//! | `results` | [`StageResults`]: records and the files of results |
//! | `parts` | the files of a result or an input root, with the places of their contents |
//! | `folder` | [`FolderCache`]: the input root of a worker as blobs |
//! | `sending`, `taking` | outputs from a store to a cache and back |
//! | `presented` | [`Presented`]: who pnb says it is |
//! | `error` | [`RemoteError`] |
//!
//! The clients (`grpc` to `proto`) are compiled with the feature `remote`, which is on by default.

mod action;
mod blob;
mod cache;
#[cfg(feature = "remote")]
mod channel;
#[cfg(all(test, feature = "remote"))]
mod channel_tests;
mod connect;
#[cfg(all(test, feature = "remote"))]
mod double;
mod endpoint;
mod engine;
mod error;
#[cfg(feature = "remote")]
mod execute;
#[cfg(all(test, feature = "remote"))]
mod execute_tests;
mod folder;
#[cfg(feature = "remote")]
mod grpc;
#[cfg(all(test, feature = "remote"))]
mod grpc_tests;
#[cfg(feature = "remote")]
mod http;
#[cfg(all(test, feature = "remote"))]
mod http_tests;
#[cfg(feature = "remote")]
mod outputs;
#[cfg(feature = "remote")]
mod pace;
mod pack;
mod parts;
mod presented;
#[cfg(feature = "remote")]
mod proto;
mod results;
mod scratch_file;
mod sending;
#[cfg(feature = "remote")]
mod status;
#[cfg(feature = "remote")]
mod stream;
mod taking;
#[cfg(test)]
mod tests;
#[cfg(feature = "remote")]
mod token;

pub use action::{EntryKind, action_digest};
pub use blob::{BlobDigest, Checked};
pub use cache::{CachedResult, OpenBlob, RemoteCache, SMALL_BLOBS};
pub use connect::{RemoteLimits, connect, connect_engine};
pub use endpoint::{Endpoint, RemoteAddress, RemoteProtocol};
pub use engine::{EngineAction, EngineProgress, Executed, InputFile, RemoteEngine};
pub use error::{Loss, RemoteError};
pub use folder::FolderCache;
pub use pack::{MAX_PACKED, PackError, read_pack, write_pack};
pub use parts::Parts;
pub use presented::{Presented, PresentedToken};
pub use results::{FoundResult, ResultFiles, StageResults};
pub use sending::Published;
pub use taking::Taking;
