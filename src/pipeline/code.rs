//! Digests of pnb's own source, computed by `build.rs`.

/// Digest of the source of the rooms that run stages.
pub const CODE_SANDBOX: &str = env!("PNB_CODE_SANDBOX");
/// Digest of the source of the writers and of the crates they use.
pub const CODE_WRITERS: &str = env!("PNB_CODE_WRITERS");
