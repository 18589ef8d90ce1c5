//! A file that lives as long as a value.

use std::{fs, path::PathBuf};

/// A file that is removed when this value is dropped.
#[derive(Debug)]
pub(super) struct ScratchFile(pub(super) PathBuf);

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // What stays is in the store's scratch directory, which goes with the program.
        let _ = fs::remove_file(&self.0);
    }
}
