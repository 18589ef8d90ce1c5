//! Exit codes: part of the interface, listed in `pnb help` and README.md.

use std::process::ExitCode;

/// Why the program ends, as a number a script can act on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Success = 0,
    /// A failure of no other class.
    Failure = 1,
    /// The command line is wrong (clap uses the same number).
    Usage = 2,
    /// lockfile.toml is missing, malformed, incomplete or out of date.
    Lock = 3,
    /// A pinned file could not be had, or had other bytes.
    Fetch = 4,
    /// The store is damaged, full, or in use.
    Store = 5,
    /// The stages are no graph, or a stage file breaks the schema.
    Graph = 6,
    /// A stage failed.
    Stage = 7,
    /// `--hermetic` cannot be kept: a sandbox layer is missing or weaker, or stage files are uncommitted.
    Hermetic = 8,
    /// An artifact did not boot, or was refused.
    Boot = 9,
    /// Audit: a file is missing, extra or has another digest than SHA256SUMS or the manifest says.
    AuditDigest = 20,
    /// Audit: the manifest or another document is malformed.
    AuditDocument = 21,
    /// Audit: an input has no pin.
    AuditPin = 22,
    /// Audit: the root file system is not the one the manifest names.
    AuditRoot = 23,
    /// Audit: the sandbox was weaker than the manifest claims.
    AuditSandbox = 24,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
