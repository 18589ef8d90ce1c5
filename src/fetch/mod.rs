//! Getting pinned files: where to look, and bytes that are hashed while they arrive.
