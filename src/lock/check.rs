//! Compares a lock with the package sets that the stages want, without a network.

use super::{Lockfile, WantedSet};
use crate::model::NodeId;
use std::{collections::BTreeSet, fmt};

/// A difference between a lock and the wanted package sets; its `Display` is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockProblem {
    /// No locked package belongs to a wanted set.
    NoSet {
        /// The set.
        set: NodeId,
    },
    /// A locked set lacks a wanted package.
    NoPackage {
        /// The set.
        set: NodeId,
        /// The wanted package, `name` or `name/archive`.
        name: String,
    },
    /// No stage wants a locked set any more.
    StaleSet {
        /// The set.
        set: NodeId,
    },
}

impl fmt::Display for LockProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSet { set } => write!(f, "set {set} is not locked"),
            Self::NoPackage { set, name } => write!(f, "set {set} lacks {name}"),
            Self::StaleSet { set } => write!(f, "set {set} is locked, but no stage wants it"),
        }
    }
}

/// The sets and wanted packages that a new lock would add or drop. Changes in the archives do not show here.
pub fn check(lock: &Lockfile, wanted: &[WantedSet]) -> Vec<LockProblem> {
    let locked: BTreeSet<&NodeId> = lock.packages.iter().flat_map(|p| &p.sets).collect();
    let mut out = Vec::new();
    for want in wanted {
        // An empty request gives no package, so the lock cannot show that its set was resolved.
        if want.names.is_empty() && !want.essential {
            continue;
        }
        if !locked.contains(&want.node) {
            out.push(LockProblem::NoSet { set: want.node.clone() });
            continue;
        }
        for name in &want.names {
            let (package, archive) = match name.split_once('/') {
                Some((package, archive)) => (package, Some(archive)),
                None => (name.as_str(), None),
            };
            let found = lock
                .packages_of(&want.node)
                .any(|p| p.name == package && archive.is_none_or(|a| a == p.archive));
            if !found {
                out.push(LockProblem::NoPackage {
                    set: want.node.clone(),
                    name: name.clone(),
                });
            }
        }
    }
    let wanted: BTreeSet<&NodeId> = wanted.iter().map(|w| &w.node).collect();
    out.extend(
        locked
            .into_iter()
            .filter(|set| !wanted.contains(set))
            .map(|set| LockProblem::StaleSet { set: set.clone() }),
    );
    out
}
