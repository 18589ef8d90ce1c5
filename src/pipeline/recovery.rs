//! Whether artifacts have a recovery, from the command line: a directory that stages get as an input.

use super::PipelineError;
use crate::{
    model::{Epoch, VerityDigest, recovery_tree},
    store::{ObjectMode, Store},
};

/// The directory: empty, or with one empty file.
pub(super) fn tree(recovery: bool, store: &Store, epoch: Epoch) -> Result<VerityDigest, PipelineError> {
    let tree = recovery_tree(recovery, epoch).map_err(|e| PipelineError::describe(e.to_string()))?;
    store.put_object(ObjectMode::Plain, &mut &b""[..])?;
    Ok(store.put_tree(&tree)?)
}
