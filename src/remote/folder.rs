//! [`FolderCache`]: the files of a directory as blobs, for a worker that takes the inputs of its job from the input root.

use super::{BlobDigest, CachedResult, Checked, OpenBlob, RemoteCache, RemoteError};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Name of the folder in messages.
const NAME: &str = "in the input root of the job";

/// Blobs in the files of a directory. It has no results, and takes nothing.
#[derive(Debug)]
pub struct FolderCache {
    paths: BTreeMap<BlobDigest, PathBuf>,
}

impl FolderCache {
    /// The files `files` (a path below `dir`, and its blob).
    pub fn new(dir: &Path, files: &BTreeMap<String, BlobDigest>) -> Self {
        let paths = files.iter().map(|(path, blob)| (*blob, dir.join(path)));
        Self { paths: paths.collect() }
    }

    fn refused<T>() -> Result<T, RemoteError> {
        Err(RemoteError::Unsupported {
            server: NAME.to_owned(),
            problem: "it is only read".to_owned(),
        })
    }
}

impl RemoteCache for FolderCache {
    fn name(&self) -> &str {
        NAME
    }

    fn result(&self, _: &BlobDigest) -> Result<Option<CachedResult>, RemoteError> {
        Ok(None)
    }

    fn put_result(&self, _: &BlobDigest, _: &CachedResult) -> Result<(), RemoteError> {
        Self::refused()
    }

    fn missing(&self, blobs: &[BlobDigest]) -> Result<BTreeSet<BlobDigest>, RemoteError> {
        Ok(blobs
            .iter()
            .filter(|blob| !self.paths.contains_key(blob))
            .copied()
            .collect())
    }

    fn read_small(&self, blobs: &[BlobDigest]) -> Result<Vec<Vec<u8>>, RemoteError> {
        let read = |blob: &BlobDigest| {
            let mut content = Vec::new();
            self.read(blob, &mut content, &|_| {}).map(|()| content)
        };
        blobs.iter().map(read).collect()
    }

    fn read(&self, blob: &BlobDigest, sink: &mut dyn Write, seen: &dyn Fn(u64)) -> Result<(), RemoteError> {
        let lacks = || RemoteError::Lacks {
            server: NAME.to_owned(),
            blob: *blob,
        };
        let path = self.paths.get(blob).ok_or_else(lacks)?;
        let mut file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(lacks()),
            opened => opened.map_err(|source| RemoteError::Local {
                doing: format!("open {}", path.display()),
                source,
            })?,
        };
        let mut checked = Checked::new(*blob, sink);
        io::copy(&mut file, &mut checked).map_err(|source| RemoteError::Local {
            doing: format!("read {}", path.display()),
            source,
        })?;
        seen(blob.size);
        checked.finish(NAME)
    }

    fn put_small(&self, _: &[(BlobDigest, &[u8])]) -> Result<(), RemoteError> {
        Self::refused()
    }

    fn put(&self, _: &BlobDigest, _: OpenBlob<'_>) -> Result<(), RemoteError> {
        Self::refused()
    }
}
