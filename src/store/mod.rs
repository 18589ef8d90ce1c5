//! The content-addressed store: objects by fs-verity digest, trees, build records.
