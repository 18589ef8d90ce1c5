//! The digest of the input that tells stages whether an artifact has a recovery. The audit knows both, so that a manifest cannot state
//! the other one.

use crate::{
    model::{Epoch, ModelError, VerityDigest, recovery_tree, write_dump},
    verity::digest_bytes,
};

/// The digest of [`recovery_tree`], as manifests state it.
///
/// # Errors
/// As [`recovery_tree`].
pub fn recovery_digest(recovery: bool, epoch: Epoch) -> Result<VerityDigest, ModelError> {
    Ok(digest_bytes(write_dump(&recovery_tree(recovery, epoch)?).as_bytes()))
}
