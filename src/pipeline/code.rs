//! Digests of pnb's own source, computed by `build.rs`.

/// Digest of the source of the rooms that run stages.
pub const CODE_SANDBOX: &str = env!("PNB_CODE_SANDBOX");
/// Digest of the source of the writers and of the crates they use.
pub const CODE_WRITERS: &str = env!("PNB_CODE_WRITERS");
/// Digest of the rooms that read what the statements say about packages, and of `Cargo.lock`.
pub(super) const CODE_FACTS: &str = env!("PNB_CODE_FACTS");
