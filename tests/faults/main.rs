//! Builds that fail in the middle: killed at each change of the file system, refused by the system at each call, on full, read-only and
//! damaged stores, interrupted, and beside other builders. After each, five things hold: nothing half-written has a final name, nothing
//! valid is lost, the next build has the same outputs, the error names operation, path and cause, and nothing is left running.
//!
//! strace, pinned by the lock, injects the faults; so no code of pnb is there for the tests only.

#[path = "../fixture/check_tools.rs"]
mod check_tools;
#[path = "../source/project.rs"]
#[expect(dead_code, reason = "shared with the tests of checkouts, which use more of it")]
mod project;
#[path = "../fixture/strace.rs"]
#[expect(dead_code, reason = "shared with the tests of exports, which trace calls first")]
mod strace;

mod calls;
mod disks;
mod invariants;
mod signals;
