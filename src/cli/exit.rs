//! Exit codes: part of the interface, listed in `pnb help` and README.md.

use pnb::audit::Class;
use std::process::ExitCode;

/// Why the program ends, as a number a script can act on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// Everything asked for was done.
    Success,
    /// A failure of no other class.
    Failure,
    /// The command line is wrong (clap uses the same number).
    Usage,
    /// lockfile.toml is missing, malformed, incomplete or out of date.
    Lock,
    /// A pinned file could not be had, or had other bytes.
    Fetch,
    /// The store is damaged, full, or in use.
    Store,
    /// The stages are no graph, or a stage file breaks the schema.
    Graph,
    /// A stage failed.
    Stage,
    /// `--hermetic` cannot be kept: a sandbox layer is missing or weaker, or stage files are uncommitted.
    Hermetic,
    /// An artifact did not boot, or was refused.
    Boot,
    /// `pnb diff`: the two differ, as diff(1) says it.
    Different,
    /// `pnb inspect` or `pnb diff`: something to look at could not be read.
    Unreadable,
    /// Two builds of the same came out differently.
    NotReproducible,
    /// A manifest was made from another lock than is here.
    OtherLock,
    /// A manifest was made from another revision than is here.
    OtherRevision,
    /// A manifest was made by another pnb than this.
    OtherBuilder,
    /// `pnb challenge`: fewer builders agree than must.
    Disagree,
    /// A manifest that was pointed at cannot be read, or is not what pnb writes.
    Claim,
    /// A manifest that was pointed at follows another version of the schema.
    ClaimVersion,
    /// Files beside a manifest that was pointed at are missing, or are not its.
    ClaimFiles,
    /// An audit failed: 40 and up, one for each [`Class`].
    Audit(Class),
}

impl Exit {
    /// The number.
    pub(super) fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Lock => 3,
            Exit::Fetch => 4,
            Exit::Store => 5,
            Exit::Graph => 6,
            Exit::Stage => 7,
            Exit::Hermetic => 8,
            Exit::Boot => 9,
            Exit::NotReproducible => 10,
            Exit::OtherLock => 32,
            Exit::OtherRevision => 33,
            Exit::OtherBuilder => 34,
            Exit::Different => 1,
            Exit::Unreadable => 11,
            Exit::Disagree => 12,
            Exit::Claim => 30,
            Exit::ClaimVersion => 31,
            Exit::ClaimFiles => 35,
            Exit::Audit(class) => class.exit_code(),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
