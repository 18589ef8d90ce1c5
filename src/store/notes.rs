//! Notes: small hints kept between runs, which may be lost.

use super::{Store, StoreError};
use std::fs;

impl Store {
    /// The note `name`.
    pub fn note(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join("notes").join(name)).ok()
    }

    /// Keeps a note.
    pub fn put_note(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_atomic(&self.root.join("notes").join(name), bytes)
    }
}
