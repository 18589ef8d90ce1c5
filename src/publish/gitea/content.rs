//! The content of files on the server, which tells no digest of them.

use super::{
    answers::ReleaseAsset,
    client::GiteaClient,
    plan::{LookOptions, PlannedAsset, ReleaseJournal},
};
use crate::{
    model::Sha256Digest,
    publish::{GiteaError, JournalEntry},
};
use sha2::{Digest as _, Sha256};
use std::io::{self, Write};

/// The journal's line for a file that is on the server.
pub(super) fn entry(release: u64, asset: &ReleaseAsset, planned: &PlannedAsset) -> JournalEntry {
    JournalEntry::Asset {
        release,
        id: asset.id,
        name: planned.name.clone(),
        sha256: planned.sha256,
        size: planned.size,
    }
}

/// Whether a file on the server has the planned content.
pub(super) fn is_same(
    client: &GiteaClient<'_>,
    asset: &ReleaseAsset,
    planned: &PlannedAsset,
    options: LookOptions,
    journal: &dyn ReleaseJournal,
    release: u64,
) -> Result<bool, GiteaError> {
    if asset.size != planned.size {
        return Ok(false);
    }
    if planned.size > options.compare_up_to && journal.has(&entry(release, asset, planned)) {
        return Ok(true);
    }
    Ok(digest_of(client, asset, planned)? == planned.sha256)
}

/// SHA-256 of a file's content on the server.
pub(super) fn digest_of(
    client: &GiteaClient<'_>,
    asset: &ReleaseAsset,
    planned: &PlannedAsset,
) -> Result<Sha256Digest, GiteaError> {
    let mut hasher = Hashed(Sha256::new());
    client.download(asset, planned.size, &mut hasher)?;
    Ok(Sha256Digest::new(hasher.0.finalize().into()))
}

struct Hashed(Sha256);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks the answer to an upload, and the bytes of a small file.
pub(super) fn check_upload(
    client: &GiteaClient<'_>,
    asset: &ReleaseAsset,
    planned: &PlannedAsset,
    options: LookOptions,
) -> Result<(), GiteaError> {
    let lying = |expected: String, actual: String| GiteaError::Lying {
        name: planned.name.clone(),
        expected,
        actual,
    };
    let named = |asset: &str, size: u64| format!("{} of {size} bytes", crate::model::visible_message(asset));
    if asset.name != planned.name || asset.size != planned.size {
        let expected = named(&planned.name, planned.size);
        return Err(lying(expected, named(&asset.name, asset.size)));
    }
    if planned.size <= options.compare_up_to {
        let actual = digest_of(client, asset, planned)?;
        if actual != planned.sha256 {
            return Err(lying(planned.sha256.to_string(), actual.to_string()));
        }
    }
    Ok(())
}
