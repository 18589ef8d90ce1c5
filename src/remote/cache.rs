//! [`RemoteCache`]: the two services of a cache, action results by the digest of an action and blobs by their own.

use super::{BlobDigest, RemoteError};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Read, Write},
};

/// An action result, as far as pnb uses one: files by path. The paths are relative and have no meaning for a server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CachedResult {
    /// The blob of each file.
    pub files: BTreeMap<String, BlobDigest>,
}

/// Opens the bytes of a blob at their start, once for each try.
pub type OpenBlob<'a> = &'a mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>;

/// A cache on a server. Its methods block, and may be called from several threads.
///
/// Nothing that a server says is trusted for a digest: every blob is hashed on arrival. That a result is the right one for its action is
/// the server's word.
pub trait RemoteCache: Send + Sync + fmt::Debug {
    /// The server as messages name it: its address without credentials.
    fn name(&self) -> &str;

    /// The result of the action whose digest is `action`; `None` if the cache has none, or not all of its blobs.
    fn result(&self, action: &BlobDigest) -> Result<Option<CachedResult>, RemoteError>;

    /// Stores the result of an action, whose blobs the cache has.
    fn put_result(&self, action: &BlobDigest, result: &CachedResult) -> Result<(), RemoteError>;

    /// Those of `blobs` that the cache does not have.
    fn missing(&self, blobs: &[BlobDigest]) -> Result<BTreeSet<BlobDigest>, RemoteError>;

    /// Small blobs (together at most [`SMALL_BLOBS`] bytes), in as few requests as the server allows, in the order of `blobs`.
    fn read_small(&self, blobs: &[BlobDigest]) -> Result<Vec<Vec<u8>>, RemoteError>;

    /// Writes a blob to `sink`. Bytes that went there before an error are not to be used. `seen` is told the number of bytes of each piece.
    fn read(&self, blob: &BlobDigest, sink: &mut dyn Write, seen: &dyn Fn(u64)) -> Result<(), RemoteError>;

    /// Stores small blobs (together at most [`SMALL_BLOBS`] bytes), in as few requests as the server allows.
    fn put_small(&self, blobs: &[(BlobDigest, &[u8])]) -> Result<(), RemoteError>;

    /// Stores a blob.
    fn put(&self, blob: &BlobDigest, open: OpenBlob<'_>) -> Result<(), RemoteError>;
}

/// The most bytes of blobs in one call of [`RemoteCache::read_small`] and [`RemoteCache::put_small`]: with the frame of each blob they fit
/// into the 4 MiB of a gRPC message.
pub const SMALL_BLOBS: u64 = 3 << 20;
