//! The exit codes of pnb on a worker by which pnb at home knows what failed there. All codes: `pnb help`, docs/exit-codes.md.

/// The store is damaged, full or in use.
pub const EXIT_STORE: u8 = 5;
/// A layer of the sandbox is missing or weaker.
pub const EXIT_HERMETIC: u8 = 8;
