//! Attacks that use up memory and processes. Each needs a run of its own, which it does not survive.

use crate::ground::{pnb, run, run_with, spec};
use pnb::sandbox::{Limits, SandboxError, Spec};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// A bomb that the watchdog does not see (docs/sandbox.md, Known gaps): without a control group nothing stops it.
const UNSEEN: &str = "memfd-closed";

/// A kind of bomb, and what it fills.
pub(crate) const BOMBS: &[(&str, &str)] = &[
    ("heap", "heap"),
    ("shared", "shared anonymous memory"),
    ("memfd", "a memfd"),
    ("memfd-closed", "memfds that are closed, with one page mapped"),
    ("sockets", "buffers of sockets"),
    ("pipes", "buffers of pipes"),
    ("page-tables", "page tables of one shared page"),
    ("processes", "the table of processes"),
];

/// The run of a bomb that takes more than twice as much as its limits allow.
pub(crate) fn bomb(kind: &str) -> Spec {
    let mut spec = spec(&["bomb", kind]);
    spec.limits = Limits {
        // The kernel gives an unprivileged user 64 MiB of pipes.
        memory: if kind == "pipes" { 16 * MIB } else { 64 * MIB },
        processes: 40,
        ..spec.limits
    };
    spec
}

/// Whether a bomb went off; `Err` with the message of another end.
pub(crate) fn went_off(helper: &Path, strict: bool, spec: &Spec) -> Result<bool, String> {
    let (outcome, log) = run_with(helper, strict, spec);
    match outcome {
        Ok(_) => Ok(true),
        Err(SandboxError::Limit { .. }) => Ok(false),
        // The kernel refused a part of it: exit codes 3 and 4 of the payload.
        Err(SandboxError::Failed { status, .. }) if ["exit code 3", "exit code 4"].contains(&status.as_str()) => {
            Ok(false)
        }
        Err(other) => Err(format!("{other}\n{log}")),
    }
}

pub(crate) fn every_bomb_meets_its_limit() {
    let measured = run(&spec(&["quick"])).0.expect("runs").measured;
    let counted = measured.limits.contains("memory: cgroup");
    for (kind, _) in BOMBS {
        let gap = *kind == UNSEEN && !counted;
        assert_eq!(
            went_off(&pnb(), true, &bomb(kind)),
            Ok(gap),
            "{kind} under {}",
            measured.limits
        );
        let mut wide = bomb(kind);
        (wide.limits.memory, wide.limits.processes) = (1024 * MIB, 400);
        assert_eq!(
            went_off(&pnb(), true, &wide),
            Ok(true),
            "control of {kind}: with room for it"
        );
    }
}
